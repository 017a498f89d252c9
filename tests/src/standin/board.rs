//! One state behind one lock, and a bell that rings at each change: how stand-ins answer and how tests wait.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// A state that can be waited for.
#[derive(Debug)]
pub(crate) struct Board<S> {
    state: Mutex<S>,
    bell: watch::Sender<u64>,
}

impl<S> Board<S> {
    pub(crate) fn new(state: S) -> Self {
        Self { state: Mutex::new(state), bell: watch::Sender::new(0) }
    }

    /// Looks without ringing. A test that panicked while it looked leaves the state whole, so poison is ignored.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&mut S) -> R) -> R {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the state and rings.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut S) -> R) -> R {
        let result = self.look(change);
        self.bell.send_modify(|rung| *rung += 1);
        result
    }

    /// Waits until `found` finds something. The bell is heard from before the first look on: no change is missed.
    pub(crate) async fn until<R>(&self, mut found: impl FnMut(&mut S) -> Option<R>) -> R {
        let mut bell = self.bell.subscribe();
        loop {
            if let Some(result) = self.look(&mut found) {
                return result;
            }
            if bell.changed().await.is_err() {
                // The board is borrowed, so its bell cannot be gone.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Like [`Board::until`], but gives up after `limit`.
    pub(crate) async fn until_within<R>(&self, limit: Duration, found: impl FnMut(&mut S) -> Option<R>) -> Option<R> {
        tokio::time::timeout(limit, self.until(found)).await.ok()
    }
}
