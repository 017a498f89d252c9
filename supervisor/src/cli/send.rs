//! `send` and `retry`: a message goes in, progress is told on standard error, the answer comes out on standard output.

use super::args::Send;
use super::exit::{Exit, Failure};
use super::screen::{Look, Screen, Tone, duration, one_line};
use super::show::json::Line;
use super::texts::{self, Letter};
use super::{Flag, setup};
use crate::config::Config;
use crate::control::{Client, ClientError};
use protocol::TurnId;
use protocol::control::{self, FinishedEvent, Reply, Request, SendEvent};
use std::time::Duration;

/// Longest wait for the word that a message is in the ledger. A commit takes milliseconds; a disk that stays full, for ever.
const ACCEPT_WITHIN: Duration = Duration::from_secs(30);

/// Sends a message; waits for its answer unless told not to.
pub(super) fn send(flag: Flag<'_>, screen: &Screen, words: Send) -> Result<(), Failure> {
    let config = setup::load_folders(flag, screen)?;
    let text = texts::read_message(words.text, screen)?;
    // Lives until the supervisor has taken the text.
    let letter = Letter::write(&config.state_dir, text)?;
    let request = Request::Send(control::Send {
        agent: words.agent,
        conversation: words.conversation,
        text: letter.text().clone(),
        wait: !words.no_wait,
    });
    follow(&config, screen, &request, words.json, !words.no_wait)
}

/// Tries a turn again, as a new one; waits for its answer unless told not to.
pub(super) fn retry(flag: Flag<'_>, screen: &Screen, turn: TurnId, json: bool, waits: bool) -> Result<(), Failure> {
    let config = setup::load_folders(flag, screen)?;
    follow(&config, screen, &Request::Retry(turn), json, waits)
}

/// Asks, and tells what becomes of the message until its end.
fn follow(config: &Config, screen: &Screen, request: &Request, json: bool, waits: bool) -> Result<(), Failure> {
    let mut client = Client::ask(&config.control_socket(), request, Some(ACCEPT_WITHIN))?;
    let mut telling = Telling { screen, json, waits, turn: None, shown: String::new() };
    let mut ended = Ok(());
    loop {
        let reply = client.next_reply().map_err(|error| telling.lost(error));
        match reply? {
            Reply::Event(event) => {
                if let Err(failure) = telling.event(&event) {
                    ended = Err(failure);
                }
                if matches!(event, SendEvent::Accepted { .. }) {
                    if !waits {
                        return ended;
                    }
                    client.wait_for(None)?;
                }
            }
            Reply::Note(note) => telling.line(&note),
            Reply::Done => return ended,
            Reply::Refused(refused) => {
                telling.clear();
                if json {
                    screen.json(&Line::Refused { reason: &refused.why })?;
                }
                return Err(refused.into());
            }
            reply @ (Reply::Health(_)
            | Reply::Ps(_)
            | Reply::Turns(_)
            | Reply::Turn(_)
            | Reply::Queue(_)
            | Reply::Guests(_)) => {
                return Err(Failure::new(Exit::Bug, format!("the supervisor answered another question: {reply:?}")));
            }
        }
    }
}

/// Tells what happens to one message.
struct Telling<'a> {
    screen: &'a Screen,
    json: bool,
    waits: bool,
    turn: Option<TurnId>,
    /// The line that stands on the terminal, or was printed last.
    shown: String,
}

impl Telling<'_> {
    fn event(&mut self, event: &SendEvent) -> Result<(), Failure> {
        if self.json {
            return self.event_as_json(event);
        }
        match event {
            SendEvent::Accepted { turn } => {
                self.turn = Some(*turn);
                if self.waits {
                    self.line(&format!("turn {turn}"));
                } else {
                    self.screen.print(&format!("turn {turn}"))?;
                }
            }
            SendEvent::Queued { position, .. } => self.line(&format!("waits, {position} before it")),
            SendEvent::Joined { into, .. } => self.line(&format!("joined turn {into}, which runs")),
            SendEvent::Progress { phase, detail, .. } => self.line(format!("{phase}: {detail}").trim_end_matches(": ")),
            SendEvent::Delta { .. } => {}
            SendEvent::Refused { reason } => {
                self.clear();
                return Err(Failure::new(Exit::Later, reason.clone()));
            }
            SendEvent::Finished(end) => {
                self.clear();
                return self.end(end);
            }
        }
        Ok(())
    }

    fn event_as_json(&self, event: &SendEvent) -> Result<(), Failure> {
        if let SendEvent::Finished(end) = event {
            let text = texts::whole(&end.text, self.screen);
            self.screen.json(&Line::of(event, &text))?;
            return if end.outcome == "completed" { Ok(()) } else { Err(Failure::silent(Exit::Failed)) };
        }
        self.screen.json(&Line::of(event, ""))?;
        if matches!(event, SendEvent::Refused { .. }) { Err(Failure::silent(Exit::Later)) } else { Ok(()) }
    }

    /// The answer on standard output; how a turn failed on standard error.
    fn end(&self, end: &FinishedEvent) -> Result<(), Failure> {
        let text = texts::whole(&end.text, self.screen);
        let look = self.screen.err_look();
        if end.outcome == "completed" {
            self.screen.print_foreign(&text)?;
            self.screen.note(&look.paint(Tone::Faint, &foot(end)));
            return Ok(());
        }
        // What the sender is told usually names the class itself.
        let class = end.class.as_deref().filter(|class| !text.contains(*class));
        let class = class.map(|class| format!(" ({class})")).unwrap_or_default();
        let words = format!(
            "turn {} {}{class}: {}\n`cofferdam turns show {}` tells its story",
            end.turn,
            end.outcome,
            super::screen::tame(text.trim_end()),
            end.turn
        );
        Err(Failure::new(Exit::Failed, words))
    }

    /// One line of progress: it replaces the last one on a terminal, follows it elsewhere.
    fn line(&mut self, text: &str) {
        let look = self.screen.err_look();
        let text = one_line(text, usize::from(look.width).saturating_sub(4));
        if self.json || text == self.shown {
            return;
        }
        if self.screen.err_is_terminal() {
            self.screen.err(&over(&look, &text));
        } else {
            self.screen.note(&text);
        }
        self.shown = text;
    }

    /// Takes the line of progress off the terminal.
    fn clear(&self) {
        if self.screen.err_is_terminal() && !self.shown.is_empty() {
            self.screen.err("\r\u{1b}[K");
        }
    }

    /// The supervisor left, or does not take the message: what became of it is in the ledger.
    fn lost(&self, error: ClientError) -> Failure {
        self.clear();
        let silent = matches!(error, ClientError::Silent(_));
        let failure = Failure::from(error);
        if silent && self.turn.is_none() {
            let hint = "it may still take the message: read `cofferdam health`, and look at `cofferdam turns` before you send it again";
            return Failure::new(failure.exit, format!("{}\n  {hint}", failure.words));
        }
        let Some(turn) = self.turn else { return failure };
        let words = format!("{}\n  turn {turn} is in the ledger: `cofferdam turns show {turn}`", failure.words);
        Failure::new(failure.exit, words)
    }
}

fn over(look: &Look, text: &str) -> String {
    format!("\r\u{1b}[K{}", look.paint(Tone::Faint, text))
}

fn foot(end: &FinishedEvent) -> String {
    let route = match (&end.model, &end.runtime) {
        (Some(model), Some(runtime)) => format!(", {model} on {runtime}"),
        _ => String::new(),
    };
    let tries = if end.attempts > 1 { format!(", {} attempts", end.attempts) } else { String::new() };
    format!("turn {}, {}{route}{tries}", end.turn, duration(end.duration_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Text;
    use std::cell::RefCell;
    use std::io::{self, Write};
    use std::rc::Rc;

    /// What was printed, for somebody who looks at it.
    #[derive(Clone, Default)]
    struct Paper(Rc<RefCell<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Paper {
        fn text(&self) -> String {
            String::from_utf8(self.0.borrow().clone()).unwrap()
        }
    }

    /// Tells all events; standard output, standard error, and the first failure.
    fn tell(json: bool, waits: bool, events: &[SendEvent]) -> (String, String, Option<Failure>) {
        let (out, err) = (Paper::default(), Paper::default());
        let screen = Screen::onto(out.clone(), err.clone());
        let mut telling = Telling { screen: &screen, json, waits, turn: None, shown: String::new() };
        let failures: Vec<Failure> = events.iter().filter_map(|event| telling.event(event).err()).collect();
        (out.text(), err.text(), failures.into_iter().next())
    }

    fn events(outcome: &str, class: Option<&str>, text: &str) -> Vec<SendEvent> {
        let turn = TurnId(12);
        let progress =
            |phase: &str, detail: &str| SendEvent::Progress { turn, phase: phase.into(), detail: detail.into() };
        let end = FinishedEvent {
            turn,
            outcome: outcome.into(),
            class: class.map(str::to_owned),
            text: Text::Inline(text.into()),
            runtime: Some("codex".into()),
            model: Some("openai/gpt-5.5".into()),
            thread: None,
            attempts: 2,
            duration_ms: 3200,
        };
        vec![
            SendEvent::Accepted { turn },
            SendEvent::Queued { turn, position: 1 },
            progress("thinking", ""),
            progress("thinking", ""),
            progress("running", "ls\u{1b}[2J"),
            SendEvent::Delta { turn, text: "He".into() },
            SendEvent::Finished(Box::new(end)),
        ]
    }

    #[test]
    fn the_answer_is_alone_on_standard_output() {
        let (out, err, failure) = tell(false, true, &events("completed", None, "Hello.\n"));
        assert_eq!(out, "Hello.\n");
        let told = "turn 12\nwaits, 1 before it\nthinking\nrunning: ls\u{fffd}[2J\n";
        assert_eq!(err, format!("{told}turn 12, 3.2s, openai/gpt-5.5 on codex, 2 attempts\n"));
        assert!(failure.is_none());
    }

    #[test]
    fn a_failed_turn_is_exit_1_with_words_on_standard_error() {
        let (out, _, failure) = tell(false, true, &events("failed", Some("codex_exit"), "Codex ended (codex_exit)"));
        let failure = failure.unwrap();
        assert_eq!((out.as_str(), failure.exit), ("", Exit::Failed));
        assert_eq!(
            failure.words,
            "turn 12 failed: Codex ended (codex_exit)\n`cofferdam turns show 12` tells its story"
        );
        let (out, err, failure) = tell(true, true, &events("failed", Some("codex_exit"), "x"));
        assert_eq!((out.lines().count(), err.as_str()), (7, ""));
        let failure = failure.unwrap();
        assert_eq!((failure.exit, failure.words.as_str()), (Exit::Failed, ""));
    }

    #[test]
    fn a_refusal_is_exit_75_and_no_wait_prints_the_turn() {
        let refused = [SendEvent::Refused { reason: "the queue is full".into() }];
        let (_, _, failure) = tell(false, true, &refused);
        let failure = failure.unwrap();
        assert_eq!((failure.exit, failure.words.as_str()), (Exit::Later, "the queue is full"));
        let (out, _, _) = tell(false, false, &[SendEvent::Accepted { turn: TurnId(12) }]);
        assert_eq!(out, "turn 12\n");
    }
}
