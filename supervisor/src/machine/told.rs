//! What people read of a turn's end: the sender, the command line, the operator.

use super::nouns::Wall;
use super::status::say;
use super::{Try, Turn};
use protocol::control::FinishedEvent;
use protocol::stable::Finished;
use protocol::{AgentName, AttemptId, FailureClass, Outcome, Text, TurnId};

/// Commands that a message to the sender lists.
const RAN_SHOWN_MAX: usize = 10;

pub(super) fn finished_event(
    turn: &Turn,
    wall: Wall,
    outcome: Outcome,
    text: &str,
    thread: Option<String>,
) -> FinishedEvent {
    let last: Option<&Try> = turn.tries.last();
    FinishedEvent {
        turn: turn.new.id,
        outcome: outcome.as_str().to_owned(),
        class: outcome.class().map(|class| class.to_string()),
        text: Text::Inline(text.to_owned()),
        runtime: last.map(|t| t.route.runtime.to_string()),
        model: last.map(|t| format!("{}/{}", t.route.provider, t.route.model)),
        thread,
        attempts: u32::try_from(turn.tries.len()).unwrap_or(u32::MAX),
        duration_ms: wall.saturating_sub(turn.new.at),
    }
}

/// The operator's next step with the names filled in.
pub(super) fn next_step(class: FailureClass, agent: &AgentName, turn: TurnId) -> String {
    class.policy().next_step.replace("AGENT", agent.as_str()).replace("ID", &turn.to_string())
}

pub(super) fn interrupted_text(by: &str, end: &Finished) -> String {
    let mut text = format!("stopped by {by}");
    ran(&mut text, end);
    if !end.text.head().is_empty() {
        text.push_str("\n\nWhat there was of the answer:\n");
        text.push_str(end.text.head());
    }
    text
}

/// What stands before the detail in a sender's text.
const QUOTE: &str = "\n\n> ";

/// What streaks compare: the detail of a failure, or what is told of its class.
pub(super) fn compared(class: FailureClass, detail: &str) -> String {
    let detail = detail.trim();
    if detail.is_empty() { class.policy().told.to_owned() } else { protocol::text::clip(detail, 400).to_owned() }
}

/// The reverse, from the text that the sender got: a streak must go on over a restart.
pub(super) fn told_detail(class: FailureClass, text: &str) -> String {
    let quoted = text.split_once(QUOTE).map_or("", |(_, rest)| rest.split("\n\n").next().unwrap_or(rest));
    compared(class, &quoted.replace("\n> ", "\n"))
}

/// Whether a failure says something about the agent: what an operator did does not.
pub(super) const fn counts(class: FailureClass) -> bool {
    !matches!(class, FailureClass::Killed | FailureClass::Shutdown)
}

/// What the sender of a failed turn reads: what happened, when it may work again, what had run.
pub(super) fn failure_text(class: FailureClass, end: &Finished) -> String {
    let mut text = format!("{} ({class})", class.policy().told);
    if let Some(at) = end.resets_at {
        let moment = i64::try_from(at).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
        if let Some(moment) = moment {
            say(&mut text, format_args!("; it resets at {} UTC", moment.strftime("%Y-%m-%d %H:%M")));
        }
    }
    let detail = end.detail.trim();
    if !detail.is_empty() {
        text.push_str(QUOTE);
        text.push_str(&protocol::text::clip(detail, 600).replace('\n', "\n> "));
    }
    ran(&mut text, end);
    if !end.replay_safe && end.ran.is_empty() && end.attempt != AttemptId(0) {
        text.push_str("\n\nIt is not known what had run before; look before you retry.");
    }
    text
}

fn ran(text: &mut String, end: &Finished) {
    if end.ran.is_empty() {
        return;
    }
    text.push_str("\n\nThis had already run:");
    for command in end.ran.iter().take(RAN_SHOWN_MAX) {
        say(text, format_args!("\n- `{}`", command.replace('`', "'")));
    }
    if end.ran.len() > RAN_SHOWN_MAX {
        say(text, format_args!("\n- and {} more", end.ran.len() - RAN_SHOWN_MAX));
    }
}
