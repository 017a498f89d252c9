//! What the loop waits for when there is nothing: for ever.

use super::Group;
use crate::store::CommitError;
use std::collections::VecDeque;

/// The commit of the first group, once it is there.
pub(super) async fn front(pending: &mut VecDeque<Group>) -> Result<(), CommitError> {
    match pending.front_mut().and_then(|group| group.ticket.as_mut()) {
        Some(ticket) => {
            let committed = ticket.await;
            if let Some(group) = pending.front_mut() {
                group.ticket = None;
            }
            committed
        }
        None => std::future::pending().await,
    }
}

pub(super) async fn beat(watchdog: Option<&mut tokio::time::Interval>) {
    match watchdog {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}
