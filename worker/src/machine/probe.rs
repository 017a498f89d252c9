//! A look at where each turn stands, for simulations: nothing is decided by it.

use super::Machine;
use super::io::ChildId;
use super::verdict::State;
use protocol::{AttemptId, TurnId};

/// Where a turn stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The try.
    pub attempt: AttemptId,
    /// Of which turn.
    pub turn: TurnId,
    /// `waiting`, `opening`, `running`, `stopping` or `proving`.
    pub state: &'static str,
    /// The child that runs it.
    pub child: Option<ChildId>,
    /// Its thread, as far as it is known.
    pub thread: Option<String>,
}

impl Machine {
    /// Where every turn stands, by attempt.
    pub fn standings(&self) -> Vec<Standing> {
        let of = |turn: &super::turn::Turn| Standing {
            attempt: turn.attempt,
            turn: turn.id,
            state: match turn.state {
                State::Waiting => "waiting",
                State::Opening(_) => "opening",
                State::Running => "running",
                State::Stopping(..) => "stopping",
                State::Proving(..) => "proving",
            },
            child: turn.child,
            thread: turn.thread.clone(),
        };
        self.turns.values().map(of).collect()
    }
}
