//! `send`: a message goes in, progress is told on standard error, the answer comes out on standard output.

use super::args::Send;
use super::exit::{Exit, Failure};
use super::screen::{Look, Screen, Tone, duration, one_line};
use super::show::json::Line;
use super::texts::{self, Letter};
use super::{Flag, setup};
use crate::control::{Client, ClientError};
use protocol::TurnId;
use protocol::control::{self, FinishedEvent, Reply, Request, SendEvent};

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
    let mut client = Client::ask(&config.control_socket(), &request, None)?;
    let mut telling = Telling { screen, json: words.json, waits: !words.no_wait, turn: None, shown: String::new() };
    let mut ended = Ok(());
    loop {
        let reply = client.next_reply().map_err(|error| telling.lost(error));
        match reply? {
            Reply::Event(event) => {
                if let Err(failure) = telling.event(&event) {
                    ended = Err(failure);
                }
            }
            Reply::Note(note) => telling.line(&note),
            Reply::Done => return ended,
            Reply::Refused(refused) => {
                telling.clear();
                if words.json {
                    screen.json(&Line::Refused { reason: &refused.why })?;
                }
                return Err(refused.into());
            }
            reply @ (Reply::Health(_) | Reply::Ps(_) | Reply::Turns(_) | Reply::Turn(_) | Reply::Queue(_)) => {
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
            SendEvent::Progress { phase, detail, .. } => self.line(format!("{phase} {detail}").trim_end()),
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
        let class = end.class.as_deref().map(|class| format!(" ({class})")).unwrap_or_default();
        let words = format!(
            "turn {} {}{class}: {}\n  `cofferdam turns show {}` tells its story",
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

    /// The supervisor left: what became of the message is in the ledger.
    fn lost(&self, error: ClientError) -> Failure {
        self.clear();
        let failure = Failure::from(error);
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
