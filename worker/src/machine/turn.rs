//! One turn, whatever runtime it runs on: its clocks, its story, and its one end.
//!
//! ```text
//!  Waiting ---> Opening ---> Running ---+--- told by Codex -------------------> end
//!     |           |  first     | silence |                                       ^
//!     |           |  event     | compaction                                      |
//!     |           |            | turn    v                                       |
//!     |           +----------> +---> Stopping --- told, or the child is gone ----+
//!     |                                  |                                       |
//!     |    child lost in the middle -----+---> Proving --- rollout read ---------+
//!     +--- never begun --------------------------------------------------------- +
//! ```
//! What silence is, [`super::liveness`] decides. Every state but the last has a clock, there or (while a child is being ended) that of the child.

use super::archive::Archived;
use super::event::{Event, Kind};
use super::io::{ChildId, Effect, Exit, Rollout, Tick};
use super::liveness::Vital;
use super::progress::Show;
use super::redact::{self, DETAIL_BYTES_MAX, RAN_BYTES_MAX};
use super::verdict::{ANSWER_BYTES_MAX, After, State, Verdict};
use protocol::from_worker::Phase;
use protocol::journal::Begun;
use protocol::text::clip;
use protocol::{AttemptId, FailureClass, Finished, Outcome, Route, TurnId};
use std::collections::BTreeSet;

/// Commands and changes that an outcome names at most: a person reads no more.
pub(super) const RAN_MAX: usize = 50;

/// Items that are open at once at most; more are not told apart from one another.
const OPEN_ITEMS_MAX: usize = 1000;

/// Lines that cannot be read before the turn is given up: a warning may slip into stdout, a flood is no Codex.
pub(super) const BAD_LINES_MAX: u32 = 1000;

/// One turn.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, told at another time")]
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) attempt: AttemptId,
    /// The turn that is tried.
    pub(super) id: TurnId,
    pub(super) route: Route,
    /// The thread that it runs on.
    pub(super) thread: Option<String>,
    /// Where what came of it lies: behind this size of this thread's rollout.
    pub(super) proof: Option<(String, u64)>,
    pub(super) prompt: String,
    pub(super) prompted: bool,
    /// Its thread belongs to another provider and is forked.
    pub(super) forks: bool,
    pub(super) archived: Archived,
    pub(super) child: Option<ChildId>,
    /// Its child has named the thread.
    pub(super) named: bool,
    /// Version of the Codex that runs it, if it told one.
    pub(super) version: Option<String>,
    /// Codex' id of the turn.
    pub(super) codex_id: Option<String>,
    /// Codex has said that the turn runs, so an interrupt will be heard.
    pub(super) started: bool,
    /// An approval was refused and said so.
    pub(super) refusal_noted: bool,
    pub(super) state: State,
    pub(super) show: Show,
    /// Tokens of the thread before this turn, if they are known.
    pub(super) tokens_before: Option<(u64, u64)>,
    pub(super) tokens_after: Option<(u64, u64)>,
    pub(super) exit: Exit,
    pub(super) began: Tick,
    first_event: Option<Tick>,
    pub(super) vital: Vital,
    pub(super) tools: BTreeSet<String>,
    pub(super) compacting: Option<(String, Tick)>,
    ran: Vec<String>,
    tools_begun: u64,
    answer: Option<String>,
    partial: String,
    cut: bool,
    notice: String,
    bad_lines: u32,
}

impl Turn {
    /// A turn that waits.
    pub(super) fn new(now: Tick, begun: &Begun, prompt: String) -> Self {
        Self {
            attempt: begun.attempt,
            id: begun.turn,
            route: begun.route.clone(),
            thread: begun.thread.clone(),
            proof: begun.thread.clone().map(|thread| (thread, begun.rollout_bytes)),
            prompt,
            prompted: false,
            forks: false,
            archived: Archived::No,
            child: None,
            named: false,
            version: None,
            codex_id: None,
            started: false,
            refusal_noted: false,
            state: State::Waiting,
            show: Show::new(begun.attempt, now),
            tokens_before: None,
            tokens_after: None,
            exit: Exit::default(),
            began: now,
            first_event: None,
            vital: Vital::new(now),
            tools: BTreeSet::new(),
            compacting: None,
            ran: Vec::new(),
            tools_begun: 0,
            answer: None,
            partial: String::new(),
            cut: false,
            notice: String::new(),
            bad_lines: 0,
        }
    }

    /// Takes news of the turn.
    pub(super) fn take(&mut self, now: Tick, event: Event, effects: &mut Vec<Effect>) -> After {
        if matches!(self.state, State::Waiting | State::Proving(..)) {
            return After::Nothing;
        }
        self.spoke(now, effects);
        self.first_event.get_or_insert(now);
        match event {
            Event::Alive => After::Nothing,
            Event::Thread(thread) => After::Named(thread),
            Event::TurnStarted => {
                self.started = true;
                self.say(now, Phase::Waiting, "", effects);
                After::Started
            }
            Event::ItemStarted { id, kind, what } => self.item_started(now, id, kind, &what, effects),
            Event::ItemCompleted { id, kind, what } => self.item_completed(now, &id, kind, what, effects),
            Event::Delta(text) => {
                self.at_work();
                let room = ANSWER_BYTES_MAX.saturating_sub(self.partial.len());
                self.partial.push_str(clip(&text, room));
                if self.show.phase() != Phase::Answering {
                    self.say(now, Phase::Answering, "", effects);
                }
                self.show.delta(now, &text, effects);
                After::Nothing
            }
            Event::Retrying(notice) => {
                clip(&notice, DETAIL_BYTES_MAX).clone_into(&mut self.notice);
                self.say(now, Phase::Retrying, &notice, effects);
                After::Nothing
            }
            Event::Warning(notice) => {
                clip(&notice, DETAIL_BYTES_MAX).clone_into(&mut self.notice);
                self.say(now, self.show.phase(), &notice, effects);
                After::Nothing
            }
            Event::Usage(read, written) => {
                self.tokens_after = Some((read, written));
                After::Nothing
            }
            Event::Completed(usage) => {
                self.tokens_after = usage.or(self.tokens_after);
                self.over(Verdict::completed())
            }
            Event::Failed(class, _, detail) => self.over(Verdict::failed(class, detail).told(None)),
            Event::Interrupted => {
                let detail = "Codex ended the turn as interrupted, but nobody had asked for it";
                self.over(Verdict::failed(FailureClass::CodexExit, detail).told(None))
            }
        }
    }

    /// The end as Codex tells it, or as it was decided before.
    fn over(&mut self, told: Verdict) -> After {
        let stopped = if let State::Stopping(verdict, _) = &self.state { Some(verdict.clone()) } else { None };
        // An answer that came before the stop was heard is as good as any, but not one from a thread that was not asked for.
        let broken = Outcome::Failed(FailureClass::CodexProtocol);
        After::Ended(match stopped {
            Some(verdict) if told.outcome != Outcome::Completed => Verdict { told: true, ..verdict },
            Some(verdict) if verdict.outcome == broken => verdict.told(Some(false)),
            Some(_) | None => told,
        })
    }

    fn item_started(&mut self, now: Tick, id: String, kind: Kind, what: &str, effects: &mut Vec<Effect>) -> After {
        match kind {
            Kind::Tool => {
                self.ran(what);
                if self.tools.len() < OPEN_ITEMS_MAX {
                    self.tools.insert(id);
                }
                self.say(now, Phase::Tool, what, effects);
            }
            Kind::Compaction => {
                self.compacting = Some((id, now));
                self.say(now, Phase::Compacting, "", effects);
            }
            Kind::Message => {
                self.at_work();
                self.partial.clear();
                if self.answer.is_some() {
                    self.show.delta(now, "\n\n", effects);
                }
                self.say(now, Phase::Answering, "", effects);
            }
            Kind::Thought => {
                self.at_work();
                self.say(now, Phase::Thinking, "", effects);
            }
            Kind::Other => {}
        }
        After::Nothing
    }

    fn item_completed(&mut self, now: Tick, id: &str, kind: Kind, what: String, effects: &mut Vec<Effect>) -> After {
        match kind {
            Kind::Tool => {
                if !self.tools.remove(id) && !self.has_run(&what) {
                    self.ran(&what);
                }
                self.tool_over(now, effects);
            }
            Kind::Compaction => {
                self.compacting = None;
                self.say(now, Phase::Waiting, "", effects);
            }
            Kind::Message => {
                self.at_work();
                self.partial.clear();
                self.cut = what.len() > ANSWER_BYTES_MAX;
                let mut what = what;
                what.truncate(clip(&what, ANSWER_BYTES_MAX).len());
                // The answer is the last message; the ones before it are what the turn said on its way.
                if let Some(earlier) = self.answer.replace(what) {
                    self.say(now, Phase::Answering, &earlier, effects);
                }
            }
            Kind::Thought => {
                self.at_work();
                self.say(now, Phase::Thinking, "", effects);
            }
            Kind::Other => {}
        }
        After::Nothing
    }

    /// The model is asked again, unless another tool still runs.
    fn tool_over(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        if self.tools.is_empty() {
            self.say(now, Phase::Waiting, "", effects);
        }
    }

    /// The model is at work: a command that is still open runs in the background, a compaction is over.
    fn at_work(&mut self) {
        self.tools.clear();
        self.compacting = None;
    }

    fn ran(&mut self, what: &str) {
        self.tools_begun = self.tools_begun.saturating_add(1);
        if self.ran.len() < RAN_MAX {
            self.ran.push(redact::clean(what, RAN_BYTES_MAX));
        }
    }

    fn has_run(&self, what: &str) -> bool {
        self.ran.last().is_some_and(|last| *last == redact::clean(what, RAN_BYTES_MAX))
    }

    /// Says what the turn does, unless it is being stopped: then that is what it does.
    pub(super) fn say(&mut self, now: Tick, phase: Phase, detail: &str, effects: &mut Vec<Effect>) {
        let phase = if matches!(self.state, State::Stopping(..)) { Phase::Stopping } else { phase };
        self.show.note(now, phase, detail, effects);
    }

    /// Counts a line that cannot be read; whether that was one too many.
    pub(super) fn bad_line(&mut self, now: Tick) -> bool {
        self.vital.line(now);
        self.bad_lines = self.bad_lines.saturating_add(1);
        self.bad_lines == BAD_LINES_MAX + 1
    }

    /// Whether a whole message has come.
    pub(super) fn has_answer(&self) -> bool {
        self.answer.is_some()
    }

    /// Something that the end will tell, if it comes unasked.
    pub(super) fn notice_that(&mut self, notice: &str) {
        notice.clone_into(&mut self.notice);
    }

    /// The last notice of Codex, if there was one.
    pub(super) fn notice(&self) -> &str {
        &self.notice
    }

    /// What a rollout says about the end.
    pub(super) fn proven(&mut self, rollout: &Rollout) {
        if rollout.ran.len() > self.ran.len() {
            self.ran = rollout.ran.iter().take(RAN_MAX).map(|ran| redact::clean(ran, RAN_BYTES_MAX)).collect();
        }
        if !rollout.only_words && rollout.read {
            self.tools_begun = self.tools_begun.max(1);
        }
        let proven = rollout.read && rollout.only_words && self.tools_begun == 0;
        if let State::Proving(verdict, _) = &mut self.state {
            verdict.safe = Some(proven);
        }
    }

    /// The outcome with its story, and the answer.
    pub(super) fn finished(self, now: Tick, verdict: &Verdict) -> (Finished, String, bool) {
        let mut end = Finished::new(self.attempt, self.id, verdict.outcome);
        let since = |tick: Tick| tick.0.saturating_sub(self.began.0);
        end.thread = self.thread;
        end.detail = redact::clean(&verdict.detail, DETAIL_BYTES_MAX);
        end.replay_safe = !self.prompted || verdict.safe.unwrap_or(self.tools_begun == 0);
        end.ran = self.ran;
        end.exit_code = self.exit.code;
        end.signal = self.exit.signal;
        end.stderr = redact::clean_tail(&self.exit.stderr, DETAIL_BYTES_MAX);
        end.first_event_ms = self.first_event.map(since);
        end.duration_ms = since(now);
        if let (Some(after), Some(before)) = (self.tokens_after, self.tokens_before) {
            end.input_tokens = after.0.saturating_sub(before.0);
            end.output_tokens = after.1.saturating_sub(before.1);
        }
        end.codex_version = self.version;
        // A message that was cut off in the middle is the answer as far as there is one.
        let answer = if self.partial.is_empty() { self.answer.unwrap_or_default() } else { self.partial };
        (end, answer, self.cut)
    }
}
