//! Decides whether a turn lives: three clocks, and what a person is told of them.
//!
//! ```text
//!  1 its tree   Codex and its tools: processor time, bytes, what comes in from the provider  --+
//!  2 its lines  stdout events                                                                 +--> alive at
//!  3 its file   the thread's rollout grows or is touched                                    --+
//!
//!  a line ---- quiet ---- look ---- look ---- look ---- `silence_timeout` after the latest sign of any clock: silent
//!               |          |                                   one more look, then codex_silent
//!               |          +-- worked: busy;  a tool sleeps: in a tool;  nothing for long: shown as silent
//!               +-- nothing is looked at while lines come, and nothing while no turn runs
//!
//!  compacting --- `compaction_timeout`: compaction_timeout      (runtime codex; exec says nothing of it: silence)
//! ```
//! * A tool that merely sleeps is alive as long as a process of it is there and Codex itself is not stopped: what bounds
//!   it is `turn_timeout`. A tool without a process (a search, a call to a remote server) has the silence clock alone.
//! * While the model is waited for, bytes from the provider are life: slow text on `codex exec` prints nothing for
//!   minutes. An open connection without bytes is silence.
//! * Several turns on one app-server share its process. Then only the tools of its own thread, its lines and its file
//!   speak for a turn: what Codex itself burns may be another's.

use super::Machine;
use super::io::{ChildId, Effect, Load, Tick, Vitals, Written};
use super::turn::Turn;
use super::verdict::{Due, State, Verdict};
use protocol::from_worker::Phase;
use protocol::to_worker::Clocks;
use protocol::{AttemptId, FailureClass};
use std::collections::BTreeSet;

/// Longest pause between two looks at a quiet turn, in milliseconds. A look costs a millisecond.
const LOOK_MS_MAX: u64 = 2000;

/// Shortest one, in milliseconds.
const LOOK_MS_MIN: u64 = 100;

/// Looks within the silence that ends a turn, at least: work is seen between two of them.
const LOOKS_PER_SILENCE: u64 = 5;

/// How long an answer to a look is waited for, in milliseconds, before the silence counts without it.
const LOOK_WITHIN_MS: u64 = 2000;

/// From so much silence on a person is told of it, in milliseconds: a model thinks for half a minute without a word.
const SILENT_AFTER_MS: u64 = 60_000;

/// Processor time between two looks that is work, in milliseconds: a Codex that waits was seen to use up to 30 in 2 s.
const WORK_CPU_MS: u64 = 50;

/// Bytes that tools read and write between two looks that are work: less is a heartbeat in some log.
const WORK_TOOL_BYTES: u64 = 4096;

/// The same of Codex itself: its log databases are written in bursts of up to 200 kB while it waits.
const WORK_OWN_BYTES: u64 = 1024 * 1024;

/// Bytes from the provider between two looks that are life: less is a keep-alive of TLS, HTTP or WebSocket, while the
/// smallest event of an answer has some hundred.
const WORK_RECEIVED_BYTES: u64 = 64;

/// What a look showed of one turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    own: Load,
    tools: Load,
    received: u64,
    written: Option<Written>,
    /// A process that may be a tool of this turn is there.
    tool_lives: bool,
    stopped: bool,
}

impl Seen {
    /// What of the look speaks for the turn on `thread`; `alone` if no other turn runs on that child.
    fn of(vitals: &Vitals, thread: Option<&str>, alone: bool) -> Self {
        let marked = thread.and_then(|thread| vitals.tools.get(thread)).copied().unwrap_or_default();
        let all = vitals.tools.values().fold(Load::default(), |sum, load| sum.and(*load));
        let tools = if alone { all } else { marked };
        Self {
            own: if alone { vitals.own } else { Load::default() },
            tools,
            received: if alone { vitals.received_bytes } else { 0 },
            written: thread.and_then(|thread| vitals.rollouts.get(thread)).copied(),
            tool_lives: tools.processes > 0 || vitals.unmarked > 0,
            stopped: vitals.stopped,
        }
    }

    /// Whether something was done since `before`. What shrank has another beginning and says nothing.
    fn worked_since(&self, before: &Self) -> bool {
        let more = |now: u64, before: u64| now.saturating_sub(before);
        more(self.own.cpu_ms, before.own.cpu_ms) >= WORK_CPU_MS
            || more(self.tools.cpu_ms, before.tools.cpu_ms) >= WORK_CPU_MS
            || more(self.own.io_bytes, before.own.io_bytes) >= WORK_OWN_BYTES
            || more(self.tools.io_bytes, before.tools.io_bytes) >= WORK_TOOL_BYTES
            || more(self.received, before.received) >= WORK_RECEIVED_BYTES
            || (before.written.is_some() && self.written != before.written)
    }
}

/// The signs of life of one turn.
#[derive(Debug)]
pub(super) struct Vital {
    /// The latest sign of any clock.
    alive: Tick,
    /// The latest line.
    line: Tick,
    /// The latest look.
    seen: Option<(Tick, Seen)>,
    /// A look that is not answered.
    asked: Option<Tick>,
    /// Since when the looks have shown work without a line.
    busy: Option<Tick>,
}

impl Vital {
    pub(super) fn new(now: Tick) -> Self {
        Self { alive: now, line: now, seen: None, asked: None, busy: None }
    }

    /// Output: the surest sign.
    pub(super) fn line(&mut self, now: Tick) {
        (self.alive, self.line, self.busy) = (now, now, None);
    }

    /// When to look next, if no look is under way.
    fn look_by(&self, silence_ms: u64) -> Option<Tick> {
        if self.asked.is_some() {
            return None;
        }
        let pause = (silence_ms / LOOKS_PER_SILENCE).clamp(LOOK_MS_MIN, LOOK_MS_MAX);
        let from = self.seen.as_ref().map_or(self.line, |(at, _)| (*at).max(self.line));
        let by = after(from, pause);
        // The silence is over only behind a look at its end.
        let end = after(self.alive, silence_ms);
        Some(if from < end { by.min(end) } else { by })
    }

    /// When the silence is too long: proven by a look at its end, or by one that is not answered.
    fn silent_by(&self, silence_ms: u64) -> Option<Tick> {
        let end = after(self.alive, silence_ms);
        let looked = self.seen.as_ref().is_some_and(|(at, _)| *at >= end);
        if looked { Some(end) } else { self.asked.map(|at| after(at, LOOK_WITHIN_MS).max(end)) }
    }

    /// Takes what a look showed; `tool` tells whether the turn waits for one.
    fn looked(&mut self, now: Tick, seen: Seen, tool: bool) {
        self.asked = None;
        // A look from before the latest line says nothing about the time after it.
        let before = self.seen.take().filter(|(at, _)| *at >= self.line);
        let worked = before.as_ref().is_some_and(|(_, before)| seen.worked_since(before));
        if worked {
            self.busy.get_or_insert(now);
        } else {
            self.busy = None;
        }
        if worked || (tool && seen.tool_lives && !seen.stopped) {
            self.alive = now;
        }
        self.seen = Some((now, seen));
    }
}

impl Turn {
    /// What runs out next, and when.
    pub(super) fn clock(&self, clocks: &Clocks) -> Option<(Tick, Due)> {
        let whole = (after(self.began, clocks.turn_ms), Due::Turn);
        let own = match &self.state {
            State::Waiting | State::Opening(None) => None,
            State::Opening(Some(by)) => Some((*by, Due::FirstEvent)),
            State::Running => match &self.compacting {
                Some((_, since)) => Some((after(*since, clocks.compaction_ms), Due::Compaction)),
                None => self.vital.silent_by(clocks.silence_ms).map(|by| (by, Due::Silence)),
            },
            State::Stopping(_, by) => return by.map(|by| (by, Due::Patience)),
            State::Proving(_, by) => return Some((*by, Due::Proof)),
        };
        Some(own.map_or(whole, |own| if own.0 <= whole.0 { own } else { whole }))
    }

    /// When its clocks are to be looked at. Lines are life enough, and a compaction has a limit of its own.
    pub(super) fn look_by(&self, clocks: &Clocks) -> Option<Tick> {
        let runs = self.state == State::Running && self.compacting.is_none() && self.child.is_some();
        runs.then(|| self.vital.look_by(clocks.silence_ms)).flatten()
    }

    /// Takes what a look at its child showed.
    fn looked(&mut self, now: Tick, vitals: &Vitals, alone: bool, clocks: &Clocks, effects: &mut Vec<Effect>) {
        let seen = Seen::of(vitals, self.thread.as_deref(), alone);
        self.vital.looked(now, seen, !self.tools.is_empty());
        let silent_after = SILENT_AFTER_MS.min(clocks.silence_ms / 2);
        let told = self.show.phase();
        if now.0.saturating_sub(self.vital.alive.0) >= silent_after {
            self.show.replace(now, Phase::Silent, "", self.vital.alive, effects);
        } else if let Some(since) = self.vital.busy.filter(|_| self.tools.is_empty()) {
            self.show.replace(now, Phase::Busy, "", since, effects);
        } else if matches!(told, Phase::Silent | Phase::Busy) {
            self.show.restore(now, effects);
        }
    }

    /// A line has come: what the looks had told is over.
    pub(super) fn spoke(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        self.vital.line(now);
        if matches!(self.show.phase(), Phase::Silent | Phase::Busy) {
            self.show.restore(now, effects);
        }
    }

    /// The verdict over a clock that has run out.
    pub(super) fn overdue(&self, due: Due, clocks: &Clocks) -> Verdict {
        let seconds = |ms: u64| ms / 1000;
        let (class, mut detail) = match due {
            Due::FirstEvent => {
                let detail = format!("no event within {} s of the start", seconds(clocks.first_event_ms));
                (FailureClass::CodexSilent, detail)
            }
            Due::Silence => {
                (FailureClass::CodexSilent, format!("no sign of life for {} s", seconds(clocks.silence_ms)))
            }
            Due::Compaction => {
                let detail = format!("compacting took longer than {} s", seconds(clocks.compaction_ms));
                (FailureClass::CompactionTimeout, detail)
            }
            Due::Turn | Due::Patience | Due::Proof => {
                (FailureClass::TurnTimeout, format!("longer than {} s", seconds(clocks.turn_ms)))
            }
        };
        if due == Due::Silence && self.vital.seen.as_ref().is_some_and(|(_, seen)| seen.stopped) {
            detail.push_str(": Codex was stopped by a signal");
        }
        if !self.notice().is_empty() {
            detail.push_str("; last said: ");
            detail.push_str(self.notice());
        }
        Verdict::failed(class, detail)
    }
}

impl Machine {
    /// Asks for a look at every child with a turn whose looks are due; one look serves all turns of the child.
    pub(super) fn look(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let clocks = self.clocks();
        let due = self.turns.values().filter(|turn| turn.look_by(&clocks).is_some_and(|by| by <= now));
        let children: BTreeSet<ChildId> = due.filter_map(|turn| turn.child).collect();
        for child in children {
            let mut threads = Vec::new();
            for turn in self.turns.values_mut().filter(|turn| turn.child == Some(child)) {
                if turn.state == State::Running {
                    turn.vital.asked.get_or_insert(now);
                    threads.extend(turn.thread.clone());
                }
            }
            effects.push(Effect::Look(child, threads));
        }
    }

    /// What a look at a child showed.
    pub(super) fn looked(&mut self, now: Tick, child: ChildId, vitals: &Vitals, effects: &mut Vec<Effect>) {
        let clocks = self.clocks();
        let on: Vec<AttemptId> =
            self.turns.values().filter(|turn| turn.child == Some(child)).map(|turn| turn.attempt).collect();
        for attempt in &on {
            if let Some(turn) = self.turns.get_mut(attempt).filter(|turn| turn.state == State::Running) {
                turn.looked(now, vitals, on.len() == 1, &clocks, effects);
            }
        }
    }
}

fn after(from: Tick, ms: u64) -> Tick {
    Tick(from.0.saturating_add(ms))
}
