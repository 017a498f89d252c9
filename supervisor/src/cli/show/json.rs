//! The JSON that scripts read, where it differs from what travels.

use protocol::control::{FinishedEvent, SendEvent};
use serde::Serialize;

/// A line of `send --json`. Flat, and named by its `event`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Line<'a> {
    Accepted { turn: u64 },
    Queued { turn: u64, position: u32 },
    Joined { turn: u64, into: u64 },
    Progress { turn: u64, phase: &'a str, detail: &'a str },
    Delta { turn: u64, text: &'a str },
    Refused { reason: &'a str },
    Finished(Finished<'a>),
}

/// The end of a turn.
#[derive(Debug, Serialize)]
pub(crate) struct Finished<'a> {
    turn: u64,
    outcome: &'a str,
    class: Option<&'a str>,
    text: &'a str,
    runtime: Option<&'a str>,
    model: Option<&'a str>,
    thread: Option<&'a str>,
    attempts: u32,
    duration_ms: u64,
}

impl<'a> Line<'a> {
    /// The line of an event; `text` is the whole answer of a finished turn.
    pub(crate) fn of(event: &'a SendEvent, text: &'a str) -> Self {
        match event {
            SendEvent::Accepted { turn } => Self::Accepted { turn: turn.0 },
            SendEvent::Queued { turn, position } => Self::Queued { turn: turn.0, position: *position },
            SendEvent::Joined { turn, into } => Self::Joined { turn: turn.0, into: into.0 },
            SendEvent::Progress { turn, phase, detail } => Self::Progress { turn: turn.0, phase, detail },
            SendEvent::Delta { turn, text } => Self::Delta { turn: turn.0, text },
            SendEvent::Refused { reason } => Self::Refused { reason },
            SendEvent::Finished(end) => Self::Finished(Finished::of(end, text)),
        }
    }
}

impl<'a> Finished<'a> {
    fn of(end: &'a FinishedEvent, text: &'a str) -> Self {
        Self {
            turn: end.turn.0,
            outcome: &end.outcome,
            class: end.class.as_deref(),
            text,
            runtime: end.runtime.as_deref(),
            model: end.model.as_deref(),
            thread: end.thread.as_deref(),
            attempts: end.attempts,
            duration_ms: end.duration_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use protocol::TurnId;

    #[test]
    fn every_event_is_one_flat_object() {
        let turn = TurnId(12);
        let events = [
            SendEvent::Accepted { turn },
            SendEvent::Queued { turn, position: 2 },
            SendEvent::Joined { turn, into: TurnId(11) },
            SendEvent::Progress { turn, phase: "running".into(), detail: "cargo test".into() },
            SendEvent::Delta { turn, text: "Hel".into() },
            SendEvent::Refused { reason: "the queue is full".into() },
            SendEvent::Finished(Box::new(samples::finished())),
        ];
        let lines: Vec<String> =
            events.iter().map(|event| serde_json::to_string(&Line::of(event, "Hello.")).unwrap()).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn listings_have_the_shapes_that_scripts_know() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&samples::agents()[..2]).unwrap());
        insta::assert_snapshot!(serde_json::to_string(&samples::health()).unwrap());
        insta::assert_snapshot!(serde_json::to_string(&samples::turns()[0]).unwrap());
        insta::assert_snapshot!(serde_json::to_string(&samples::queue()[0]).unwrap());
    }
}
