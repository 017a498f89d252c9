//! What becomes of the attempts that an earlier incarnation left open in its journal.
//!
//! ```text
//!  ended                      held as unacknowledged, told again at the link
//!  begun, not prompted        failed(worker_lost), a replay is safe
//!  prompted, thread known     its rollout is read, then failed(worker_lost); safe if nothing but words came of it
//!  prompted, no thread        failed(worker_lost), a replay is not safe
//! ```
//! The driver gives them only after the old tree is proven gone.

use super::Machine;
use super::io::{Effect, Tick};
use super::turn::Turn;
use super::verdict::{State, Verdict};
use protocol::FailureClass;
use protocol::journal::Standing;

impl Machine {
    pub(super) fn recovered(&mut self, now: Tick, standings: Vec<Standing>, effects: &mut Vec<Effect>) {
        for standing in standings {
            let attempt = standing.begun.attempt;
            if self.turns.contains_key(&attempt) || self.ended.contains_key(&attempt) {
                continue;
            }
            if let Some(end) = standing.ended {
                self.ended.insert(attempt, (end, None));
                if self.linked {
                    self.tell_end(attempt, effects);
                }
                continue;
            }
            let mut turn = Turn::new(now, &standing.begun, String::new());
            turn.prompted = standing.prompted;
            // A thread that was named later than the begin has nothing before this turn.
            if turn.thread != standing.thread {
                turn.proof = standing.thread.clone().map(|thread| (thread, 0));
                turn.thread = standing.thread;
            }
            turn.state = State::Opening(None);
            self.turns.insert(attempt, turn);
            let lost = Verdict::failed(FailureClass::WorkerLost, "the worker ended before the turn did");
            self.prove(now, attempt, lost, effects);
        }
    }
}
