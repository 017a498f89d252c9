//! What a run reached: every pair of a state and an input of both machines, every kind of input, every fault.
//!
//! What no run can reach stands in [`UNREACHABLE`], what few runs reach in [`RARE`], each with the reason. A pair that is
//! neither reached nor listed fails the thousand seeds, and so does one that is reached and called unreachable.

use protocol::control::{Request, Verb};
use protocol::{AgentName, FailureClass, FromWorker, Outcome};
use std::collections::BTreeMap;
use std::fmt::Write;
use supervisor::machine::lifecycle::State;
use supervisor::machine::words::Input;
use worker::machine::io::Input as WorkerInput;
use worker::machine::probe::Standing;

/// States of a worker as the supervisor knows it.
const LIFE: [&str; 12] = [
    "down", "adopting", "found", "sweeping", "stuck", "starting", "up", "draining", "stopping", "killing", "backoff",
    "failed",
];
/// What happens to one.
const LIFE_INPUTS: [&str; 16] = [
    "start",
    "stop",
    "restart",
    "kill",
    "spawned",
    "spawn failed",
    "linked",
    "link failed",
    "link lost",
    "ready",
    "leaving",
    "exited",
    "swept",
    "timeout",
    "silence",
    "old news",
];
/// States of a turn in a worker.
const TURN: [&str; 5] = ["waiting", "opening", "running", "stopping", "proving"];
/// What happens to one.
const TURN_INPUTS: [&str; 16] = [
    "begin",
    "steer",
    "interrupt",
    "shutdown",
    "acked",
    "drain",
    "terminate",
    "link up",
    "link down",
    "configured",
    "line",
    "long line",
    "exited",
    "spawn failed",
    "rollout read",
    "timeout",
];
/// Inputs of the supervisor's machine.
const INPUTS: [&str; 24] = [
    "update",
    "polling",
    "delivered",
    "flooded",
    "asked",
    "caller gone",
    "recalled",
    "spawned",
    "spawn failed",
    "linked",
    "linked to drain",
    "link failed",
    "link lost",
    "said",
    "exited",
    "swept",
    "reloaded",
    "reload refused",
    "leave",
    "shut down",
    "ledger stuck",
    "ledger well",
    "timeout",
    "old news",
];
/// Faults that are played.
const FAULTS: [&str; 60] = [
    "Codex asks for an approval",
    "Codex cannot be started",
    "Codex dies",
    "Codex goes silent",
    "Codex is missing",
    "Codex retries its provider",
    "SIGTERM of a worker",
    "Telegram 429",
    "Telegram 5xx",
    "a bad line",
    "a chat that is gone",
    "a child hangs in the kernel",
    "a child ignores its polite end",
    "a flood of bad lines",
    "a full disk",
    "a line that is too long",
    "a long SIGSTOP of a worker",
    "a long compaction",
    "a long thought",
    "a post in pieces",
    "a post nobody knows of",
    "a post that cannot be formatted",
    "a request is never answered",
    "a request is refused",
    "a session is cut",
    "a short SIGSTOP of a worker",
    "a shutdown",
    "a slow start of a worker",
    "a stranger writes",
    "a worker cannot be started",
    "a worker never gets ready",
    "an agent is removed",
    "an interrupt for a shutdown",
    "an interrupt has no effect",
    "an operator's order",
    "an update comes twice",
    "an upgrade to another protocol",
    "another provider than asked for",
    "another thread than asked for",
    "app-server dies at its start",
    "exec lingers after its end",
    "journal ENOSPC",
    "kill -9 of a Codex child",
    "kill -9 of a worker",
    "kill -9 of a worker between two effects",
    "kill -9 of the supervisor",
    "kill -9 of the supervisor between two effects",
    "outcome told twice",
    "prompt lost",
    "slow rollout",
    "the host sleeps",
    "the ledger is stuck",
    "the model fails",
    "the supervisor leaves",
    "the wall clock jumps",
    "torn journal",
    "everything goes silent",
    "Codex goes on after its worker",
    "a Codex tool runs after its worker",
    "a journal hands an outcome over",
];

/// A row: table, states, inputs (a star stands for all), why.
type Row = (&'static str, &'static [&'static str], &'static [&'static str], &'static str);

/// Pairs that cannot come about.
const UNREACHABLE: &[Row] = &[
    (
        "worker's life",
        &["down", "adopting", "sweeping", "stuck", "backoff", "failed"],
        &["spawned", "spawn failed", "link lost", "ready", "exited"],
        "where there is no process, whatever a run tells is old news",
    ),
    (
        "worker's life",
        &["down", "adopting", "found", "sweeping", "stuck", "starting", "stopping", "killing", "backoff", "failed"],
        &["silence"],
        "only one that is up or drains has to give signs of life",
    ),
    ("worker's life", &["down", "up", "failed"], &["timeout"], "nothing is awaited of it, so nothing is due"),
    ("worker's life", &["found", "up", "draining"], &["spawned"], "a process is known before it can be dialled"),
    ("worker's life", &["found", "up", "draining"], &["spawn failed"], "what does not start has no session"),
    ("turn", &["*"], &["acked"], "only an outcome is acknowledged, and its turn is over"),
    ("turn", &["waiting", "opening"], &["steer"], "a text is offered only to a turn that Codex has started"),
    (
        "turn",
        &["waiting", "opening", "running", "stopping"],
        &["rollout read"],
        "a rollout is read for a turn that has lost its child",
    ),
    ("turn", &["running"], &["spawn failed"], "a child that could not be started runs nothing"),
];

/// Pairs that a thousand seeds may miss: they take two faults within a few milliseconds.
const RARE: &[Row] = &[
    ("worker's life", &["*"], &["swept"], "a second sweep that ends behind the first"),
    ("worker's life", &["*"], &["leaving"], "an outcome that was on its way when its worker had gone"),
    ("worker's life", &["*"], &["old news"], "news that were on their way when their run had been replaced"),
    ("worker's life", &["*"], &["linked", "link failed", "link lost"], "a dial that another event overtook"),
    ("worker's life", &["found", "stuck", "stopping", "killing"], &["*"], "states that last for milliseconds"),
    (
        "worker's life",
        &["adopting", "draining", "failed"],
        &["restart", "kill", "stop", "timeout", "silence"],
        "the same",
    ),
    ("turn", &["*"], &["begin"], "a begin that is sent again although the first had come"),
    ("turn", &["stopping", "proving"], &["*"], "states that last for milliseconds"),
    (
        "turn",
        &["waiting", "opening"],
        &["long line", "shutdown"],
        "one line in a thousand, an order that is seldom given",
    ),
];

/// Counts of what was reached.
#[derive(Clone, Debug, Default)]
pub struct Cover {
    counts: BTreeMap<(&'static str, &'static str, &'static str), u64>,
}

impl Cover {
    fn count(&mut self, table: &'static str, state: &'static str, input: &'static str) {
        *self.counts.entry((table, state, input)).or_default() += 1;
    }

    pub(crate) fn fault(&mut self, fault: &'static str) {
        self.count("fault", fault, "");
    }

    pub(crate) fn host(&mut self, input: &Input, pairs: &[(&'static str, &'static str)]) {
        self.count("input", input_word(input), "");
        for (state, input) in pairs {
            self.count("worker's life", state, input);
            if *input == "old news" {
                self.count("input", "old news", "");
            }
        }
    }

    pub(crate) fn worker(&mut self, standings: &[Standing], input: &WorkerInput) {
        for standing in standings.iter().filter(|standing| concerns(input, standing)) {
            if let Some(word) = turn_input(input) {
                self.count("turn", standing.state, word);
            }
        }
    }

    /// Adds what another run reached.
    pub fn add(&mut self, other: &Self) {
        for (pair, count) in &other.counts {
            *self.counts.entry(*pair).or_default() += count;
        }
    }

    fn all() -> Vec<(&'static str, &'static str, &'static str)> {
        let pairs = |table, states: &'static [&'static str], inputs: &'static [&'static str]| {
            states.iter().flat_map(move |state| inputs.iter().map(move |input| (table, *state, *input)))
        };
        let alone = |table, words: &'static [&'static str]| words.iter().map(move |word| (table, *word, ""));
        let life = pairs("worker's life", &LIFE, &LIFE_INPUTS);
        life.chain(pairs("turn", &TURN, &TURN_INPUTS))
            .chain(alone("input", &INPUTS))
            .chain(alone("fault", &FAULTS))
            .collect()
    }

    /// What is wrong: what was not reached and is not called unreachable, and the reverse.
    pub fn gaps(&self) -> Vec<String> {
        let mut gaps = Vec::new();
        let all = Self::all();
        for pair in &all {
            let reached = self.counts.contains_key(pair);
            let (table, state, input) = pair;
            match (reached, why(UNREACHABLE, pair)) {
                (false, None) if why(RARE, pair).is_none() => {
                    gaps.push(format!("{table}: {state} x {input} was never reached"))
                }
                (true, Some(why)) => gaps.push(format!("{table}: {state} x {input} was reached, although: {why}")),
                (true, None) | (false, Some(_) | None) => {}
            }
        }
        gaps.extend(
            self.counts.keys().filter(|pair| !all.contains(pair)).map(|pair| format!("{pair:?} is not listed")),
        );
        gaps
    }

    /// The tables.
    pub fn table(&self) -> String {
        let mut text = String::new();
        self.matrix("worker's life", &LIFE, &LIFE_INPUTS, &mut text);
        self.matrix("turn", &TURN, &TURN_INPUTS, &mut text);
        for (table, words) in [("input", &INPUTS[..]), ("fault", &FAULTS[..])] {
            text.push('\n');
            for word in words {
                let count = self.counts.get(&(table, *word, "")).copied().unwrap_or(0);
                add(&mut text, format_args!("{table:<8} {word:<48} {count:>8}\n"));
            }
        }
        text
    }

    fn matrix(&self, table: &'static str, states: &[&'static str], inputs: &[&'static str], text: &mut String) {
        add(text, format_args!("\n{table:<14}"));
        states.iter().for_each(|state| add(text, format_args!("{state:>10}")));
        text.push('\n');
        for input in inputs {
            add(text, format_args!("{input:<14}"));
            for state in states {
                let pair = (table, *state, *input);
                match self.counts.get(&pair) {
                    Some(count) => add(text, format_args!("{count:>10}")),
                    None if why(UNREACHABLE, &pair).is_some() => text.push_str("         -"),
                    None => text.push_str("         0"),
                }
            }
            text.push('\n');
        }
    }
}

/// A text takes everything.
fn add(text: &mut String, words: std::fmt::Arguments<'_>) {
    text.write_fmt(words).ok();
}

fn why(rows: &[Row], (table, state, input): &(&str, &str, &str)) -> Option<&'static str> {
    let holds = |listed: &[&str], word: &str| listed.contains(&"*") || listed.contains(&word);
    let row = rows.iter().find(|(of, states, inputs, _)| of == table && holds(states, state) && holds(inputs, input));
    row.map(|(_, _, _, why)| *why)
}

fn life_word(state: &State) -> &'static str {
    match state {
        State::Down => "down",
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
        State::Failed => "failed",
        #[expect(unreachable_patterns, reason = "states that are to come are named when they are here")]
        _ => "another",
    }
}

/// The states that an input meets, with its word.
pub(crate) fn life_pairs(
    input: &Input,
    states: &[(&AgentName, State)],
    old: bool,
    late: &dyn Fn(&AgentName) -> bool,
    silent: &dyn Fn(&AgentName) -> bool,
) -> Vec<(&'static str, &'static str)> {
    let of = |agent: &AgentName, word| {
        let state = states.iter().find(|(name, _)| *name == agent);
        state.map(|(_, state)| (life_word(state), if old { "old news" } else { word }))
    };
    let one = match input {
        Input::Spawned(agent, ..) => of(agent, "spawned"),
        Input::SpawnFailed(agent, ..) => of(agent, "spawn failed"),
        Input::Linked(agent, _) => of(agent, "linked"),
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
            let late = states.iter().filter(|(agent, _)| late(agent)).map(|(_, state)| (life_word(state), "timeout"));
            let silent = states.iter().filter(|(agent, _)| silent(agent));
            return late.chain(silent.map(|(_, state)| (life_word(state), "silence"))).collect();
        }
        _ => None,
    };
    one.into_iter().collect()
}

/// The word of an input of the supervisor's machine.
pub(crate) fn input_word(input: &Input) -> &'static str {
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
        Input::LedgerWell => "ledger well",
        Input::Timeout => "timeout",
        #[expect(unreachable_patterns, reason = "inputs that are to come are named when they are here")]
        _ => "another",
    }
}

fn concerns(input: &WorkerInput, standing: &Standing) -> bool {
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
        _ => true,
    }
}

fn turn_input(input: &WorkerInput) -> Option<&'static str> {
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
        WorkerInput::Timeout => "timeout",
        _ => return None,
    })
}
