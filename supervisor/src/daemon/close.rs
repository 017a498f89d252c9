//! Leaving: what is left is committed and the last answers go out, within a limit.

use super::Daemon;
use std::time::Duration;

/// How long the ledger and the last answers may take when we leave.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// The tick at which we leave even if the ledger takes nothing.
pub(super) fn leave_by(now: u64) -> u64 {
    now.saturating_add(u64::try_from(CLOSE_WITHIN.as_millis()).unwrap_or(u64::MAX))
}

impl Daemon {
    /// Commits what is left, lets the last answers out.
    pub(super) async fn close(&mut self) {
        for (_, bot) in std::mem::take(&mut self.bots) {
            bot.end();
        }
        let close = async {
            while let Some(group) = self.pending.pop_front() {
                if let Some(ticket) = group.ticket
                    && let Err(error) = ticket.await
                {
                    tracing::error!(%error, "a batch was not committed");
                }
                group.effects.into_iter().for_each(|effect| self.perform(effect));
            }
            if let Err(error) = self.store.close().await {
                tracing::error!(%error, "the ledger was not closed in order");
            }
        };
        if tokio::time::timeout(CLOSE_WITHIN, close).await.is_err() {
            tracing::error!("the ledger took too long to close; what it holds is whole");
        }
        self.workers.clear();
        if let Some(groups) = &self.groups {
            groups.leave();
        }
        self.callers_end().await;
    }
}
