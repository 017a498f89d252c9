//! The words of states and inputs, by which they are counted.

use protocol::control::{Request, Verb};
use protocol::{AgentName, FailureClass, FromWorker, Outcome};
use supervisor::machine::lifecycle::State;
use supervisor::machine::words::{Input, Linked};
use worker::machine::io::Input as WorkerInput;
use worker::machine::probe::Standing;

fn life_word(state: &State) -> &'static str {
    if matches!(state, State::Down | State::Failed) {
        return if *state == State::Down { "down" } else { "failed" };
    }
    match state {
        State::Adopting { process: None, .. } => "adopting",
        State::Adopting { .. } => "found",
        State::Sweeping { left: 0, .. } => "sweeping",
        State::Sweeping { .. } => "stuck",
        State::Starting { .. } => "starting",
        State::Up { .. } => "up",
        State::Draining { .. } => "draining",
        State::Stopping { .. } => "stopping",
        State::Killing { .. } => "killing",
        State::Backoff { .. } => "backoff",
        // A state that is to come is no row of the table, and so asks to be named.
        _ => "another",
    }
}

/// What is asked about an agent's worker before an input.
pub(crate) struct Looks<'a> {
    /// Something was due of it.
    pub(crate) late: &'a dyn Fn(&AgentName) -> bool,
    /// It has been silent for too long.
    pub(crate) silent: &'a dyn Fn(&AgentName) -> bool,
    /// The one that answers is not the one of the record.
    pub(crate) strange: &'a dyn Fn(&AgentName, &Linked) -> bool,
}

/// The states that an input meets, with its word.
pub(crate) fn life_pairs(
    input: &Input,
    states: &[(&AgentName, State)],
    old: bool,
    looks: &Looks<'_>,
) -> Vec<(&'static str, &'static str)> {
    let of = |agent: &AgentName, word| {
        let state = states.iter().find(|(name, _)| *name == agent);
        state.map(|(_, state)| (life_word(state), if old { "old news" } else { word }))
    };
    let one = match input {
        Input::Spawned(agent, ..) => of(agent, "spawned"),
        Input::SpawnFailed(agent, ..) => of(agent, "spawn failed"),
        Input::Linked(agent, linked) if (looks.strange)(agent, linked) => of(agent, "impostor"),
        Input::Linked(agent, _) => of(agent, "linked"),
        Input::Found(agent, ..) => of(agent, "found"),
        Input::ReadOut(agent, _) => of(agent, "read out"),
        Input::LinkFailed(agent, ..) => of(agent, "link failed"),
        Input::LinkLost(agent, ..) => of(agent, "link lost"),
        Input::Said(agent, _, FromWorker::Ready(_)) => of(agent, "ready"),
        Input::Said(agent, _, FromWorker::Finished(end)) if end.outcome == Outcome::Failed(FailureClass::Shutdown) => {
            of(agent, "leaving")
        }
        Input::Said(agent, ..) if old => of(agent, "old news"),
        Input::Exited(agent, ..) => of(agent, "exited"),
        Input::Swept(agent, ..) => of(agent, "swept"),
        Input::Asked(_, Request::Agents(verb, names)) => {
            let word = match verb {
                Verb::Start => "start",
                Verb::Stop => "stop",
                Verb::Restart => "restart",
                Verb::Kill => "kill",
            };
            return names.iter().filter_map(|agent| of(agent, word)).collect();
        }
        Input::Timeout => {
            let late =
                states.iter().filter(|(agent, _)| (looks.late)(agent)).map(|(_, state)| (life_word(state), "timeout"));
            let silent = states.iter().filter(|(agent, _)| (looks.silent)(agent));
            return late.chain(silent.map(|(_, state)| (life_word(state), "silence"))).collect();
        }
        _ => None,
    };
    one.into_iter().collect()
}

/// The word of an input of the supervisor's machine.
pub(crate) fn input_word(input: &Input) -> &'static str {
    if matches!(input, Input::Timeout | Input::LedgerWell) {
        return if *input == Input::Timeout { "timeout" } else { "ledger well" };
    }
    match input {
        Input::Update(..) => "update",
        Input::Polling(..) => "polling",
        Input::Delivered(..) => "delivered",
        Input::Flooded(..) => "flooded",
        Input::Asked(..) => "asked",
        Input::CallerGone(_) => "caller gone",
        Input::Recalled(..) => "recalled",
        Input::Spawned(..) => "spawned",
        Input::SpawnFailed(..) => "spawn failed",
        Input::Linked(_, linked) if linked.accord == protocol::hello::Accord::DrainOnly => "linked to drain",
        Input::Linked(..) => "linked",
        Input::LinkFailed(..) => "link failed",
        Input::LinkLost(..) => "link lost",
        Input::Said(..) => "said",
        Input::Exited(..) => "exited",
        Input::Swept(..) => "swept",
        Input::Reloaded(..) => "reloaded",
        Input::ReloadRefused(..) => "reload refused",
        Input::Leave => "leave",
        Input::ShutDown => "shut down",
        Input::LedgerStuck(_) => "ledger stuck",
        Input::Found(..) => "found",
        Input::ReadOut(..) => "read out",
        Input::Lagged(_) => "lagged",
        Input::Hosted(..) => "hosted",
        Input::Cleared(_) => "cleared",
        // Named above.
        Input::Timeout | Input::LedgerWell => "another",
    }
}

pub(super) fn concerns(input: &WorkerInput, standing: &Standing) -> bool {
    match input {
        WorkerInput::Begin { begin, .. } | WorkerInput::PromptLost { begin, .. } => begin.attempt == standing.attempt,
        WorkerInput::Steer { attempt, .. } => *attempt == standing.attempt,
        WorkerInput::Interrupt(attempt, _) | WorkerInput::Acked(attempt) | WorkerInput::RolloutRead(attempt, _) => {
            *attempt == standing.attempt
        }
        WorkerInput::Line(child, _)
        | WorkerInput::LineTooLong(child, _)
        | WorkerInput::Exited(child, _)
        | WorkerInput::SpawnFailed(child, _) => standing.child.is_none_or(|its| its == *child),
        WorkerInput::Looked(child, _) => standing.child == Some(*child),
        _ => true,
    }
}

pub(super) fn turn_input(input: &WorkerInput) -> Option<&'static str> {
    use protocol::to_worker::InterruptReason::{Asked, Shutdown};
    Some(match input {
        WorkerInput::Begin { .. } | WorkerInput::PromptLost { .. } => "begin",
        WorkerInput::Steer { .. } => "steer",
        WorkerInput::Interrupt(_, Asked) => "interrupt",
        WorkerInput::Interrupt(_, Shutdown) => "shutdown",
        WorkerInput::Acked(_) => "acked",
        WorkerInput::Drain => "drain",
        WorkerInput::Terminate => "terminate",
        WorkerInput::LinkUp => "link up",
        WorkerInput::LinkDown => "link down",
        WorkerInput::Configured(_) => "configured",
        WorkerInput::Line(..) => "line",
        WorkerInput::LineTooLong(..) => "long line",
        WorkerInput::Exited(..) => "exited",
        WorkerInput::SpawnFailed(..) => "spawn failed",
        WorkerInput::RolloutRead(..) => "rollout read",
        WorkerInput::Looked(..) => "looked",
        WorkerInput::Measured(_) => "measured",
        WorkerInput::Timeout => "timeout",
        _ => return None,
    })
}
