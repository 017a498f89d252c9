//! The app-server child as a whole: started when a turn wants it, shared by the agent's turns, retired when idle.
//!
//! ```text
//!  (none) --a turn waits--> Starting --initialize answered, version good--> Up --idle | stale | leaving--> Ending
//!     ^                        |                                            |                                |
//!     +------------------------+--------------- exited, or given up --------+--------------------------------+
//! ```
//! A thread has one writer: one that is loaded here is free for `codex exec` only after this child has gone
//! (`thread/unsubscribe` does not let go of it). A thread keeps its provider: for another one it is forked.

use super::app_server::{Conversation, notification};
use super::archive::Archived;
use super::io::{ChildId, ChildSpec, Effect, Polite, Tick};
use super::verdict::{State, Verdict};
use super::{Machine, children::Child};
use protocol::to_worker::Clocks;
use protocol::{AttemptId, FailureClass, Runtime, TurnId};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Notifications that nothing here reads; some come by the thousand.
const UNREAD: &[&str] = &[
    "account/updated",
    "app/list/updated",
    "hook/completed",
    "hook/started",
    "item/commandExecution/outputDelta",
    "item/commandExecution/terminalInteraction",
    "item/fileChange/outputDelta",
    "item/fileChange/patchUpdated",
    "item/plan/delta",
    "remoteControl/status/changed",
    "skills/changed",
    "thread/goal/cleared",
    "thread/goal/updated",
    "thread/name/updated",
    "thread/readState/changed",
    "thread/settings/updated",
    "turn/diff/updated",
    "turn/plan/updated",
];

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// The first word.
    Initialize,
    /// A thread for an attempt, new or resumed.
    Open(AttemptId),
    /// A fork of its thread for an attempt.
    Fork(AttemptId),
    /// The turn of an attempt.
    Turn(AttemptId),
    /// Its end.
    Interrupt(AttemptId),
    /// A text for it.
    Steer(AttemptId, TurnId),
    /// An old thread into the archive.
    Archive,
    /// The thread of an attempt out of it.
    Unarchive(AttemptId),
    /// Something whose answer does not matter.
    Aside,
}

/// Where the app-server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Starting,
    Up,
    Ending,
}

/// How a thread was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loaded {
    pub(super) provider: String,
    pub(super) generation: u64,
    /// The model of its latest turn that Codex took: that of the next, unless it is told another.
    pub(super) model: Option<String>,
}

/// The app-server child.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) child: ChildId,
    pub(super) stage: Stage,
    pub(super) talk: Conversation<Ask>,
    pub(super) version: Option<String>,
    /// Threads that it holds, or was asked to hold.
    pub(super) loaded: BTreeMap<String, Loaded>,
    pub(super) bad_lines: u32,
    generation: u64,
    /// It uses more memory than it may between turns.
    pub(super) heavy: bool,
    /// It was started for something else than a turn, and nobody else has used it.
    errand: bool,
    idle_from: Option<Tick>,
}

impl Session {
    /// Its clocks; while it is ending those of the child count.
    pub(super) fn deadlines(&self, clocks: &Clocks) -> impl Iterator<Item = (Tick, &'static str)> + use<> {
        let request = self.talk.deadline().map(|by| (by, "request"));
        let idle = self.idle_by(clocks).map(|by| (by, "idle"));
        request.into_iter().chain(idle)
    }

    fn idle_by(&self, clocks: &Clocks) -> Option<Tick> {
        let from = self.idle_from.filter(|_| self.stage == Stage::Up)?;
        Some(Tick(from.0.saturating_add(clocks.idle_after_ms)))
    }
}

impl Machine {
    /// Asks the app-server, which is there.
    pub(super) fn ask(&mut self, method: &str, params: &Value, ask: Ask, by: Tick, effects: &mut Vec<Effect>) {
        if let Some(session) = &mut self.session {
            let line = session.talk.request(method, params, ask, by);
            effects.push(Effect::Write(session.child, line));
        }
    }

    pub(super) fn first_event_by(&self, now: Tick) -> Tick {
        Tick(now.0.saturating_add(self.clocks().first_event_ms))
    }

    /// Opens a waiting turn on the app-server, or brings one about.
    pub(super) fn open_on_session(&mut self, now: Tick, attempt: AttemptId, effects: &mut Vec<Effect>) {
        let Some(session) = &mut self.session else {
            return self.start_session(now, false, effects);
        };
        session.errand = false;
        let (child, stage) = (session.child, session.stage);
        let outdated = session.heavy || session.generation != self.generation;
        match stage {
            Stage::Starting | Stage::Ending => {}
            Stage::Up if outdated && !self.session_is_busy(child) => self.end_child(now, child, effects),
            Stage::Up => self.open_thread(now, attempt, effects),
        }
    }

    pub(super) fn start_session(&mut self, now: Tick, errand: bool, effects: &mut Vec<Effect>) {
        let child = self.new_child();
        self.children.insert(child, Child::server());
        self.session = Some(Session {
            child,
            stage: Stage::Starting,
            talk: Conversation::new(),
            version: None,
            loaded: BTreeMap::new(),
            bad_lines: 0,
            generation: self.generation,
            heavy: false,
            errand,
            idle_from: None,
        });
        let spec = ChildSpec {
            args: vec!["app-server".into()],
            stdin: String::new(),
            stdin_open: true,
            polite: Polite::CloseStdin,
            command: None,
        };
        effects.push(Effect::Spawn(child, spec));
        let params = json!({
            "clientInfo": {"name": "cofferdam", "title": "Cofferdam", "version": env!("CARGO_PKG_VERSION")},
            "capabilities": {"experimentalApi": true, "optOutNotificationMethods": UNREAD},
        });
        self.ask("initialize", &params, Ask::Initialize, self.first_event_by(now), effects);
    }

    /// The app-server has said who it is.
    pub(super) fn initialized(&mut self, now: Tick, answer: Result<Value, String>, effects: &mut Vec<Effect>) {
        let Some(session) = &mut self.session else {
            return;
        };
        let child = session.child;
        let checked = answer.map_err(|error| format!("initialize was refused: {error}")).and_then(|answer| {
            let agent = answer.get("userAgent").and_then(Value::as_str).unwrap_or("");
            version_of(agent)
        });
        match checked {
            Ok(version) if session.stage == Stage::Starting => {
                session.version = Some(version);
                session.stage = Stage::Up;
                effects.push(Effect::Write(child, notification("initialized")));
            }
            Ok(_) => {}
            Err(detail) => {
                let verdict = Verdict::failed(FailureClass::CodexStart, detail).told(Some(true));
                self.fail_waiting(now, &verdict, effects);
                self.end_child(now, child, effects);
            }
        }
    }

    /// Whether the thread of an attempt on exec is free; if not, what can be done to free it is begun.
    pub(super) fn free_from_session(&mut self, now: Tick, attempt: AttemptId, effects: &mut Vec<Effect>) -> bool {
        let thread = self.turns.get(&attempt).and_then(|turn| turn.thread.as_ref());
        let Some(session) = self.session.as_ref().filter(|s| thread.is_some_and(|t| s.loaded.contains_key(t))) else {
            return true;
        };
        let (child, stage) = (session.child, session.stage);
        if stage != Stage::Ending && self.session_is_busy(child) {
            let detail = "the thread is held by the app-server, which runs another turn";
            self.finish(now, attempt, &Verdict::failed(FailureClass::CodexStart, detail).told(Some(true)), effects);
        } else if stage != Stage::Ending {
            self.end_child(now, child, effects);
        }
        false
    }

    fn session_is_busy(&self, child: ChildId) -> bool {
        self.turns.values().any(|turn| turn.child == Some(child) && !matches!(turn.state, State::Proving(..)))
    }

    /// Ends an app-server that nobody needs.
    pub(super) fn retire_session(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let clocks = self.clocks();
        let Some(child) = self.session.as_ref().map(|session| session.child) else {
            return;
        };
        let busy = self.session_is_busy(child) || self.has_errand();
        let Some(session) = &mut self.session else {
            return;
        };
        session.idle_from = if busy { None } else { session.idle_from.or(Some(now)) };
        if !busy {
            session.bad_lines = 0;
        }
        let idle = session.idle_by(&clocks).is_some_and(|by| by <= now);
        let outdated = session.heavy || session.errand || session.generation != self.generation;
        let stale = session.stage == Stage::Up && outdated && !busy;
        if idle || stale {
            self.end_child(now, child, effects);
        }
    }

    /// The child is being ended: turns whose prompt it has not got wait for the next one.
    pub(super) fn session_ending(&mut self, child: ChildId) {
        let Some(session) = self.session.as_mut().filter(|session| session.child == child) else {
            return;
        };
        session.stage = Stage::Ending;
        for turn in self.turns.values_mut().filter(|turn| turn.child == Some(child)) {
            match turn.state {
                State::Opening(_) if !turn.prompted => {
                    turn.state = State::Waiting;
                    turn.child = None;
                }
                State::Opening(_) | State::Running => {
                    turn.notice_that("the app-server was ended because of another turn");
                }
                State::Waiting | State::Stopping(..) | State::Proving(..) => {}
            }
        }
        session.talk.withdraw(|ask| matches!(ask, Ask::Open(_) | Ask::Fork(_) | Ask::Unarchive(_)));
    }

    /// Requests whose time is over.
    pub(super) fn session_timeout(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let Some(session) = &mut self.session else {
            return;
        };
        let child = session.child;
        let expired = session.talk.expired(now);
        for ask in expired {
            let silent = |what: &str| Verdict::failed(FailureClass::CodexSilent, format!("no answer to {what}"));
            match ask {
                Ask::Initialize => {
                    let verdict = Verdict::failed(FailureClass::CodexStart, "no answer to initialize").told(Some(true));
                    self.fail_waiting(now, &verdict, effects);
                    self.end_child(now, child, effects);
                }
                Ask::Open(attempt) | Ask::Fork(attempt) | Ask::Unarchive(attempt) => {
                    self.stop(now, attempt, silent("the request for the thread"), effects);
                    self.end_child(now, child, effects);
                }
                Ask::Turn(attempt) => {
                    self.stop(now, attempt, silent("turn/start"), effects);
                    self.end_child(now, child, effects);
                }
                Ask::Steer(attempt, turn) => Self::not_steered(attempt, turn, effects),
                Ask::Archive => self.archived(Err("no answer".to_owned())),
                Ask::Interrupt(_) | Ask::Aside => {}
            }
        }
    }

    /// The child never started.
    pub(super) fn session_failed(&mut self, now: Tick, child: ChildId, verdict: &Verdict, effects: &mut Vec<Effect>) {
        self.session_gone(child, effects);
        self.fail_waiting(now, verdict, effects);
    }

    /// The child has gone; if it never came up, those that waited for it have nothing to wait for.
    pub(super) fn session_exited(&mut self, now: Tick, child: ChildId, verdict: &Verdict, effects: &mut Vec<Effect>) {
        let starting = self.session.as_ref().is_some_and(|s| s.child == child && s.stage == Stage::Starting);
        self.session_gone(child, effects);
        if starting {
            self.fail_waiting(now, verdict, effects);
        }
    }

    pub(super) fn session_gone(&mut self, child: ChildId, effects: &mut Vec<Effect>) {
        if let Some(mut session) = self.session.take_if(|session| session.child == child) {
            let unheard = session.talk.close();
            self.archive.server_gone();
            Self::unheard(unheard, effects);
        }
    }

    /// Ends every turn that waits for an app-server.
    pub(super) fn fail_waiting(&mut self, now: Tick, verdict: &Verdict, effects: &mut Vec<Effect>) {
        let waiting: Vec<AttemptId> = self
            .turns
            .values()
            .filter(|turn| {
                turn.state == State::Waiting && (turn.route.runtime == Runtime::Codex || turn.archived == Archived::Yes)
            })
            .map(|turn| turn.attempt)
            .collect();
        for attempt in waiting {
            self.finish(now, attempt, verdict, effects);
        }
    }
}

/// Oldest Codex that is spoken to: the first whose conversation was seen to be the same.
const OLDEST: [u64; 3] = [0, 125, 0];

/// The version in `NAME/VERSION (OS; ...`, if it is a release and not too old.
fn version_of(user_agent: &str) -> Result<String, String> {
    let version = user_agent.split_once('/').and_then(|(_, rest)| rest.split_whitespace().next()).unwrap_or("");
    let parts: Vec<u64> = version.split('.').filter_map(|part| part.parse().ok()).collect();
    let release = parts.len() == 3 && version.split('.').count() == 3;
    let found = protocol::text::clip(version, 64);
    if !release {
        return Err(format!("Codex calls itself {found:?}, which is no release; 0.125.0 or newer is needed"));
    }
    if parts.as_slice() < OLDEST.as_slice() {
        return Err(format!("Codex {found} is too old; 0.125.0 or newer is needed"));
    }
    Ok(version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::version_of;

    #[test]
    fn only_releases_from_0_125_on_are_spoken_to() {
        for good in ["cofferdam/0.169.0 (Debian 12.0.0; x86_64) unknown (cofferdam; 0.1)", "lab/0.125.0 (x)", "a/1.0.0"]
        {
            assert!(version_of(good).is_ok(), "{good}");
        }
        for bad in
            ["", "lab", "lab/0.124.9 (x)", "lab/0.169.0-alpha.1 (x)", "lab/0.169.0+dev (x)", "lab/0.0.0 (x)", "a/1.2 x"]
        {
            assert!(version_of(bad).is_err(), "{bad}");
        }
        assert_eq!(version_of("lab/0.101.3 (x)"), Err("Codex 0.101.3 is too old; 0.125.0 or newer is needed".into()));
    }
}
