//! Decides. Pure: no clock, no I/O, no waiting; a seed reproduces everything.
//!
//! ```text
//!   Update ---> router ---> turns ---> lane ---> admission ---> Tell(Begin)
//!                  |          ^                                     |
//!                  v          | retry, fallback                     v
//!               commands      +--------- Finished <---------- worker (lifecycle)
//!                                            |
//!                                            v
//!                                 one end, one post (outbox)
//! ```
//! Promises: an accepted turn has one end; all records of one input stand in one batch, before the effects that rest
//! on them; nothing waits without a deadline; no agent's trouble holds another's.

pub mod admission;
mod births;
mod commands;
mod control;
mod endings;
mod fleet;
mod guests;
mod heartbeat;
pub mod joins;
pub mod lifecycle;
pub mod nouns;
pub mod outbox;
pub mod overview;
mod probe;
mod recover;
mod report;
pub mod restart;
mod rolling;
mod router;
pub mod setup;
pub mod status;
pub mod streak;
mod told;
mod turns;
mod verbs;
pub mod watched;
pub mod words;

use admission::Admission;
use nouns::{CallerId, Conversation, Event, LastNumbers, NewTurn, Now, ReceiptId, Record, Update, Wall};
use outbox::Outbox;
use overview::{Overview, Row};
use protocol::envelope::Bound;
use protocol::from_worker::{Isolation, Phase};
use protocol::{AgentName, AttemptId, Incarnation, Outcome, Route, TurnId};
use setup::Setup;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use streak::Streak;
use watched::Watched;
use words::{Effect, Input};

/// Everything that the supervisor knows while it runs.
#[derive(Debug)]
pub struct Machine {
    setup: Setup,
    last: LastNumbers,
    began: Now,
    agents: Watched<AgentName, Agent>,
    turns: Watched<TurnId, Turn>,
    attempts: BTreeMap<AttemptId, TurnId>,
    threads: BTreeMap<Conversation, Thread>,
    admission: Admission,
    overview: Overview,
    outbox: Outbox,
    bots: BTreeMap<String, Bot>,
    callers: BTreeMap<CallerId, Caller>,
    guests: guests::Guests,
    going: Going,
    ledger_stuck: Option<String>,
    /// Updates that came while the ledger could not take them. Bounded: a bot waits for the receipts of its last batch.
    held: Vec<(ReceiptId, Update)>,
    /// When the next worker may be given up as hung.
    next_hung_at: u64,
    random: u64,
}

/// One agent as it is served.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts: each may hold with any other")]
struct Agent {
    life: lifecycle::Lifecycle,
    lanes: BTreeMap<String, VecDeque<TurnId>>,
    streak: Streak,
    isolation: Isolation,
    /// A Codex that is kept between turns runs, as far as its worker told.
    warm: bool,
    /// Before this tick its worker cannot send another alert.
    alert_from: Option<u64>,
    /// Its limits and what holds each, as its worker told.
    bounds: Vec<Bound>,
    /// Tick of the last word of its worker.
    heard_at: u64,
    /// What is known of its worker's beat.
    heart: heartbeat::Heart,
    /// When the state of its worker last changed.
    since: Wall,
    /// How its worker last ended.
    exit: String,
    /// Somebody killed it: what ran ends as killed.
    killed: bool,
    /// Start it again once it is down.
    restart: bool,
    /// Something of it does not end, although it was killed or is not ours to kill.
    stuck: bool,
    /// Not in the configuration any more: forget it once it is down.
    removed: bool,
    /// Its latest worker, as the ledger has it.
    known: Option<nouns::WorkerRecord>,
    /// Its worker is of an earlier build.
    outdated: bool,
    /// It is being replaced for that, until the next one is up.
    renewing: bool,
    /// Made by a caller, and gone with it.
    guest: bool,
}

/// A turn that has no end yet.
#[derive(Debug)]
struct Turn {
    new: NewTurn,
    stage: Stage,
    tries: Vec<Try>,
    /// Which of the agent's routes is next.
    route: usize,
    /// Tries on that route so far.
    route_tries: u8,
    /// Who stops it, and the tick at which its worker is given up.
    stopping: Option<(String, u64)>,
    doing: Option<Doing>,
    callers: BTreeSet<CallerId>,
    status: status::Status,
    accepted_tick: u64,
    /// The tick at which a worker that has it and does not end it is given up.
    until: u64,
    /// The conversation's generation when it was sent: an answer after /new does not bring the old thread back.
    generation: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Try {
    attempt: AttemptId,
    route: Route,
    /// The thread that it resumes.
    thread: Option<String>,
    outcome: Option<Outcome>,
    /// A worker has said that it has it: if no journal knows it any more, it must not be begun anew.
    begun: bool,
}

/// Where a turn stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// In its lane.
    Queued,
    /// In its lane; its text was offered to the running turn.
    Offered,
    /// Head of its lane; the next try waits.
    Pausing { until: u64 },
    /// Sent to the worker.
    Running { attempt: AttemptId, incarnation: Incarnation, thread: Option<String> },
}

/// What a running turn does.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Doing {
    phase: Phase,
    detail: String,
    /// When that was heard.
    seen: Now,
    /// How long it had been so by then, in milliseconds.
    before_ms: u64,
}

impl Doing {
    /// For how long it has been so, in milliseconds.
    const fn age(&self, now: Now) -> u64 {
        now.tick.saturating_sub(self.seen.tick).saturating_add(self.before_ms)
    }

    /// Since when.
    const fn since(&self) -> Wall {
        self.seen.wall.saturating_sub(self.before_ms)
    }
}

/// A conversation's current thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Thread {
    id: Option<String>,
    /// Grows with each /new.
    generation: u64,
}

/// A bot as it is heard.
#[derive(Clone, Debug, Default)]
struct Bot {
    /// Updates below it are known.
    offset: i64,
    /// What is wrong with its poller.
    fault: Option<String>,
    /// Numbers that may come again although the offset is not above them.
    seen: BTreeSet<i64>,
    /// Strangers that were told that they are strangers, with the tick. Bounded.
    strangers: BTreeMap<i64, u64>,
}

/// What a command line waits for.
#[derive(Clone, Debug)]
enum Caller {
    Turn(TurnId),
    Agents {
        verb: protocol::control::Verb,
        pending: BTreeSet<AgentName>,
        failed: Option<String>,
    },
    Shutdown,
    /// It has guests.
    Guests,
    /// This worker is to answer; the caller's number is the ping's.
    Ping(AgentName),
}

/// Whether we stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Going {
    Staying,
    /// Every worker is being ended.
    Ending,
    Gone,
}

impl Machine {
    /// Takes an input. The effects stand in the order in which they are to be performed.
    pub fn handle(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        if self.going == Going::Gone {
            return Self::too_late(&input, effects);
        }
        match input {
            // Not taken and not confirmed: the channel keeps it as well.
            Input::Update(receipt, update) if self.ledger_stuck.is_some() => self.held.push((receipt, *update)),
            Input::Update(receipt, update) => {
                self.update(now, *update, effects);
                effects.push(Effect::Receipt(receipt));
            }
            Input::Polling(bot, health) => self.polling(now, &bot, health, effects),
            Input::Delivered(post, delivery) => self.delivered(now, post, delivery, effects),
            Input::Flooded(bot, ms) => self.outbox.flooded(now, &bot, ms),
            Input::Asked(caller, request) => self.asked(now, caller, request, effects),
            Input::CallerGone(caller) => self.caller_gone(now, caller, effects),
            Input::Hosted(caller, policies) => self.hosted(now, caller, policies, effects),
            Input::Cleared(name) => self.cleared(&name),
            Input::Recalled(asker, turn) => self.recalled(now, asker, turn.map(|t| *t), effects),
            Input::Reloaded(caller, setup) => self.reloaded(now, caller, *setup, effects),
            Input::ReloadRefused(caller, why) => Self::reload_refused(now, caller, &why, effects),
            Input::Leave => self.leave(effects),
            Input::ShutDown => self.shut_down(now, effects),
            Input::LedgerStuck(why) => self.ledger_stuck = Some(why),
            Input::LedgerWell => self.ledger_well(now, effects),
            Input::Lagged(late_ms) => self.lagged(now, late_ms),
            Input::Timeout => {}
            Input::Spawned(..)
            | Input::SpawnFailed(..)
            | Input::Found(..)
            | Input::Linked(..)
            | Input::LinkFailed(..)
            | Input::LinkLost(..)
            | Input::Said(..)
            | Input::Exited(..)
            | Input::Swept(..)
            | Input::ReadOut(..) => self.of_worker(now, input, effects),
        }
        self.settle(now, effects);
    }

    fn ledger_well(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.ledger_stuck.take().is_some() {
            self.hear_anew(now);
        }
        for (receipt, update) in std::mem::take(&mut self.held) {
            self.update(now, update, effects);
            effects.push(Effect::Receipt(receipt));
        }
    }

    /// What follows from the passing of time and from every input: deadlines, admission, posts, status messages. Only
    /// agents that something is due for, or that may have changed, are looked at.
    fn settle(&mut self, now: Now, effects: &mut Vec<Effect>) {
        for name in self.overview.due(now.tick) {
            self.agents.touch(name);
        }
        for name in self.changed() {
            self.fleet_deadlines(now, &name, effects);
            self.turn_deadlines(now, &name, effects);
        }
        self.look_for_hung(now, effects);
        self.roll(now, effects);
        self.admit(now, effects);
        for name in self.changed() {
            self.show_status(now, &name, effects);
        }
        self.outbox.pump(now, effects);
        for name in self.changed() {
            self.keep_up(now, &name);
        }
        self.agents.take_touched();
        self.end_if_done(now, effects);
    }

    /// Agents that may have changed since the last input, or a turn of theirs.
    fn changed(&mut self) -> BTreeSet<AgentName> {
        for id in self.turns.take_touched() {
            // A turn that is gone has changed its agent's lane.
            if let Some(turn) = self.turns.get(&id) {
                self.agents.touch(turn.new.conversation.agent.clone());
            }
        }
        self.agents.touched().clone()
    }

    /// Tells the whole what has become of one agent.
    fn keep_up(&mut self, now: Now, name: &AgentName) {
        let row = self.row(name);
        let before = self.overview.set(name, row).map(|row| row.word);
        if let (Some(row), Some(agent)) = (row, self.agents.get_mut(name))
            && before != Some(row.word)
        {
            agent.since = now.wall;
        }
        if row.is_some() {
            let demand = self.demand(name);
            self.admission.set(now.tick, name, demand);
        } else {
            self.admission.forget(now.tick, name);
        }
    }

    /// What an agent is to the whole.
    fn row(&self, name: &AgentName) -> Option<Row> {
        let agent = self.agents.get(name)?;
        let worker = self.fleet_deadline(name).map(|at| (at, "worker"));
        let turns = self.turn_deadline(name).map(|at| (at, "turn"));
        let status = self.status_deadline(name).map(|at| (at, "status"));
        let state = agent.life.state();
        Some(Row {
            word: agent.life.word(self.running_of(name) > 0).as_str(),
            // What is hurt on purpose is no reason to wake anybody.
            ails: !agent.guest
                && (matches!(state, lifecycle::State::Failed | lifecycle::State::Backoff { .. })
                    || agent.streak.count() >= self.setup.alert_after),
            rests: agent.stuck || matches!(state, lifecycle::State::Down | lifecycle::State::Failed),
            due: [worker, turns, status].into_iter().flatten().min(),
        })
    }

    /// When [`Input::Timeout`] is due, and why. A tick.
    pub fn deadline(&self) -> Option<(u64, &'static str)> {
        if self.going == Going::Gone {
            // Nothing is done any more: a deadline would only keep the loop awake until the last commit.
            return None;
        }
        let starts = self.admission.deadline().map(|at| (at, "start"));
        let posts = self.outbox.deadline().map(|at| (at, "post"));
        [self.overview.deadline(), starts, posts].into_iter().flatten().min()
    }

    /// The name of the state for the log: one word for the whole is enough, the effects tell the rest.
    pub fn word(&self) -> &'static str {
        match self.going {
            Going::Staying => "staying",
            Going::Ending => "ending",
            Going::Gone => "gone",
        }
    }

    fn event(
        now: Now,
        agent: Option<&AgentName>,
        turn: Option<TurnId>,
        what: impl Into<String>,
        effects: &mut Vec<Effect>,
    ) {
        let event = Event { at: now.wall, agent: agent.cloned(), turn, what: what.into() };
        effects.push(Effect::Record(Record::Event(event)));
    }

    /// The next number of a small generator (splitmix64): seeded, so that a run can be repeated.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests;
