//! Which rollouts lie in Codex' archive: old ones go there between turns, one that is wanted comes back.
//!
//! ```text
//!  a turn has ended, at most once a day: 30 days untouched ---+
//!  the disk budget is passed without its logs: 1 day ---------+--> FindOld --> Spare? --> Archive --> thread/archive,
//!                                                                              supervisor             one by one
//!  resume refused, "is archived" --> thread/unarchive --> resume again
//! ```
//! The app-server moves them, a warm one or one that is started for the errand: its state database remembers where each
//! rollout lies, and Codex finds one that was moved by hand neither here nor there. Which threads conversations go on with
//! only the supervisor knows; a worker that it has not answered moves nothing. Nothing is ever removed.

use super::io::{Effect, Tick};
use super::leave::Leaving;
use super::session::{Ask, Stage};
use super::turn::Turn;
use super::verdict::State;
use super::{Machine, failure};
use protocol::{AttemptId, FromWorker, Runtime};
use serde_json::{Value, json};
use std::collections::{BTreeSet, VecDeque};

/// Untouched for so long a rollout is old, in milliseconds: 30 days. Who comes back later waits some milliseconds more.
const OLD_MS: u64 = 30 * 86_400_000;

/// The same while the disk budget is passed, in milliseconds: a day, within which somebody may still look at it.
const OLD_PRESSED_MS: u64 = 86_400_000;

/// Least pause between two searches, in milliseconds: a day.
const PAUSE_MS: u64 = 86_400_000;

/// Least pause between two searches because of the disk budget, in milliseconds.
const PAUSE_PRESSED_MS: u64 = 3_600_000;

/// How long one move may stay unanswered, in milliseconds: it takes about 5.
const MOVE_MS: u64 = 10_000;

/// App-servers that are started for one list; whoever ends them has a reason.
const STARTS_MAX: u8 = 3;

/// Whether a turn's thread was found in the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Archived {
    /// Nobody has said so.
    No,
    /// It has to come back before the turn can run.
    Yes,
    /// It has come back, once.
    Back,
}

/// What is known of old rollouts.
#[derive(Debug, Default)]
pub(super) struct Archive {
    /// A turn has ended since the last search.
    stirred: bool,
    from: Option<Tick>,
    pressed_from: Option<Tick>,
    errand: Errand,
}

#[derive(Debug, Default)]
enum Errand {
    #[default]
    None,
    /// The driver looks for old ones.
    Searching,
    /// The supervisor has these, oldest first.
    Asked(Vec<String>),
    Moving(Moving),
}

#[derive(Debug, Default)]
struct Moving {
    left: VecDeque<String>,
    /// What is being moved.
    out: Option<String>,
    moved: u64,
    refused: u64,
    /// Codex' words for the last that it did not move.
    why: String,
    starts: u8,
}

impl Archive {
    /// A turn has ended.
    pub(super) fn stir(&mut self) {
        self.stirred = true;
    }

    /// Somebody goes on with a thread.
    pub(super) fn keep(&mut self, thread: &str) {
        if let Errand::Moving(moving) = &mut self.errand {
            moving.left.retain(|other| other != thread);
        }
    }

    /// Whoever was asked is gone.
    pub(super) fn link_down(&mut self) {
        if matches!(self.errand, Errand::Asked(_)) {
            self.errand = Errand::None;
            self.from = None;
            self.stirred = true;
        }
    }

    /// The app-server has gone, with what it was asked.
    pub(super) fn server_gone(&mut self) {
        if let Errand::Moving(moving) = &mut self.errand {
            moving.out = None;
        }
    }
}

impl Machine {
    /// Nobody waits for an answer, and somebody is there to ask.
    fn may_archive(&self) -> bool {
        self.linked && self.turns.is_empty() && self.configure.is_some() && self.leaving == Leaving::No
    }

    pub(super) fn archive_deadline(&self) -> Option<(Tick, &'static str)> {
        let due = self.archive.stirred && matches!(self.archive.errand, Errand::None) && self.may_archive();
        due.then(|| (self.archive.from.unwrap_or(Tick(0)), "archive"))
    }

    /// Whether the app-server has something to do beside turns.
    pub(super) fn has_errand(&self) -> bool {
        matches!(self.archive.errand, Errand::Moving(_))
            || self.turns.values().any(|turn| turn.archived == Archived::Yes)
    }

    /// Searches if it is time, moves the next if nobody waits.
    pub(super) fn keep_archive(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        if self.archive_deadline().is_some_and(|(by, _)| by <= now) {
            self.archive.stirred = false;
            self.archive.from = Some(Tick(now.0.saturating_add(PAUSE_MS)));
            self.archive.errand = Errand::Searching;
            effects.push(Effect::FindOld(OLD_MS));
        }
        if self.leaving != Leaving::No {
            self.archive.errand = Errand::None;
        } else if self.turns.is_empty() {
            self.move_next(now, effects);
        }
    }

    /// The logs are gone and the folder still holds too much.
    pub(super) fn press_archive(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let idle = matches!(self.archive.errand, Errand::None) && self.may_archive();
        if idle && self.archive.pressed_from.is_none_or(|from| from <= now) {
            self.archive.pressed_from = Some(Tick(now.0.saturating_add(PAUSE_PRESSED_MS)));
            self.archive.errand = Errand::Searching;
            effects.push(Effect::FindOld(OLD_PRESSED_MS));
        }
    }

    /// These are old.
    pub(super) fn old_found(&mut self, threads: Vec<String>, effects: &mut Vec<Effect>) {
        if !matches!(self.archive.errand, Errand::Searching) {
            return;
        }
        self.archive.errand = Errand::None;
        if !self.linked {
            self.archive.from = None;
            self.archive.stirred = true;
        } else if !threads.is_empty() {
            effects.push(Effect::Tell(FromWorker::Spare(threads.clone())));
            self.archive.errand = Errand::Asked(threads);
        }
    }

    /// The supervisor's answer: with these no conversation goes on.
    pub(super) fn spared(&mut self, threads: &[String]) {
        let Errand::Asked(asked) = &mut self.archive.errand else { return };
        let free: BTreeSet<&String> = threads.iter().collect();
        let held: BTreeSet<&String> = self.turns.values().filter_map(|turn| turn.thread.as_ref()).collect();
        asked.retain(|thread| free.contains(thread) && !held.contains(thread));
        let left: VecDeque<String> = std::mem::take(asked).into();
        self.archive.errand =
            if left.is_empty() { Errand::None } else { Errand::Moving(Moving { left, ..Moving::default() }) };
    }

    fn move_next(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let Errand::Moving(moving) = &mut self.archive.errand else { return };
        if moving.out.is_some() {
            return;
        }
        if moving.left.is_empty() || (self.session.is_none() && moving.starts >= STARTS_MAX) {
            return self.moved(effects);
        }
        match self.session.as_ref().map(|session| session.stage) {
            None => {
                moving.starts += 1;
                self.start_session(now, true, effects);
            }
            Some(Stage::Starting | Stage::Ending) => {}
            Some(Stage::Up) => {
                moving.out = moving.left.pop_front();
                let params = json!({"threadId": moving.out});
                self.ask("thread/archive", &params, Ask::Archive, Tick(now.0.saturating_add(MOVE_MS)), effects);
            }
        }
    }

    /// Codex has moved one, or not.
    pub(super) fn archived(&mut self, answer: Result<Value, String>) {
        let Errand::Moving(moving) = &mut self.archive.errand else { return };
        let Some(thread) = moving.out.take() else { return };
        match answer {
            Ok(_) => {
                moving.moved += 1;
                if let Some(session) = &mut self.session {
                    session.loaded.remove(&thread);
                }
            }
            Err(why) => {
                moving.refused += 1;
                moving.why = why;
            }
        }
    }

    /// The list is done.
    fn moved(&mut self, effects: &mut Vec<Effect>) {
        let Errand::Moving(moving) = std::mem::take(&mut self.archive.errand) else { return };
        let refused = match moving.refused {
            0 => String::new(),
            n => {
                let why = super::redact::clean(&moving.why, super::redact::DETAIL_BYTES_MAX);
                format!("; {n} were not, the last because: {why}")
            }
        };
        let late = match moving.left.len() {
            0 => String::new(),
            n => format!("; {n} wait for another day, as no Codex stayed for them"),
        };
        let note = format!(
            "{} old threads that no conversation goes on with were archived: their rollouts lie in \
             codex-home/archived_sessions{refused}{late}",
            moving.moved
        );
        effects.push(Effect::Tell(FromWorker::Note(note)));
    }

    /// Whether a turn that Codex refused before it began is opened in another way: its thread is forked or comes back.
    pub(super) fn opens_again(&mut self, attempt: AttemptId) -> bool {
        let Some(turn) = self.turns.get_mut(&attempt).filter(|turn| !turn.forks && turn.thread.is_some()) else {
            return false;
        };
        if failure::wants_fork(&turn.exit.stderr) {
            turn.forks = true;
        } else if !turn.has_to_come_back(&turn.exit.stderr.clone()) {
            return false;
        }
        turn.child = None;
        turn.exit = super::io::Exit::default();
        turn.state = State::Waiting;
        true
    }

    /// Brings the thread of a turn back; on exec the app-server is there for nothing else.
    pub(super) fn bring_back(&mut self, now: Tick, attempt: AttemptId, effects: &mut Vec<Effect>) {
        match self.session.as_ref().map(|session| session.stage) {
            None => self.start_session(now, true, effects),
            Some(Stage::Starting | Stage::Ending) => {}
            Some(Stage::Up) => {
                let by = self.first_event_by(now);
                let Some(turn) = self.turns.get_mut(&attempt) else { return };
                // The answer has a clock of its own; this one is for an app-server that dies before it.
                turn.state = State::Opening(Some(by));
                let params = json!({"threadId": turn.thread});
                self.ask("thread/unarchive", &params, Ask::Unarchive(attempt), by, effects);
            }
        }
    }

    /// A thread has come back, so the turn can be opened.
    pub(super) fn brought_back(&mut self, now: Tick, attempt: AttemptId, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turns.get_mut(&attempt).filter(|turn| matches!(turn.state, State::Opening(_))) else {
            return;
        };
        turn.archived = Archived::Back;
        let thread = turn.thread.clone().unwrap_or_default();
        effects.push(Effect::Tell(FromWorker::Note(format!("thread {thread} was archived and has come back"))));
        match turn.route.runtime {
            Runtime::CodexCli => turn.state = State::Waiting,
            Runtime::Codex => self.open_thread(now, attempt, effects),
        }
    }
}

impl Turn {
    /// Whether a refusal means that its thread is archived and has not come back before.
    pub(super) fn has_to_come_back(&mut self, refusal: &str) -> bool {
        let comes = self.archived != Archived::Back && failure::is_archived(refusal);
        if comes {
            self.archived = Archived::Yes;
        }
        comes
    }
}
