//! The supervisor as a drill sees it: one connection a question, from many threads at once; and why to give up.

use crate::cli::exit::{Exit, Failure};
use crate::control::{Client, ClientError};
use protocol::AgentName;
use protocol::control::{AgentRow, FinishedEvent, Reply, Request, Send, SendEvent, Verb};
use protocol::text::Text;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The longest wait for an answer that the supervisor has at hand. It has milliseconds; a drill may cost it more.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks at whether to go on.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// Why a drill does not go on.
#[derive(Debug, Default)]
pub(super) struct Flags {
    /// A person wants it to end.
    pub(super) stopped: AtomicBool,
    /// The supervisor has gone, or parted from us; in its words, or the kernel's.
    lost: OnceLock<String>,
}

impl Flags {
    pub(super) fn is_over(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) || self.lost.get().is_some()
    }

    /// Nothing more can be asked; the first reason counts.
    pub(super) fn lose(&self, why: &str) {
        self.lost.get_or_init(|| why.to_owned());
    }

    /// Why nothing more can be asked, if that is so.
    pub(super) fn lost(&self) -> Option<&str> {
        self.lost.get().map(String::as_str)
    }
}

/// The supervisor at its socket.
#[derive(Clone, Debug)]
pub(super) struct Fleet {
    pub(super) socket: PathBuf,
    pub(super) flags: Arc<Flags>,
}

impl Fleet {
    /// Asks; `each` gets every answer but the last, and says whether it has heard enough.
    fn ask(&self, request: &Request, patience: Duration, mut each: impl FnMut(Reply) -> bool) -> Result<(), Failure> {
        let mut talk = || {
            let mut client = Client::ask(&self.socket, request, Some(patience))?;
            loop {
                match client.next_reply()? {
                    Reply::Done => return Ok(Ok(())),
                    Reply::Refused(refused) => return Ok(Err(Failure::from(refused))),
                    other @ (Reply::Health(_)
                    | Reply::Ps(_)
                    | Reply::Event(_)
                    | Reply::Turns(_)
                    | Reply::Turn(_)
                    | Reply::Queue(_)
                    | Reply::Guests(_)
                    | Reply::Note(_)) => {
                        if each(other) {
                            return Ok(Ok(()));
                        }
                    }
                }
            }
        };
        talk().unwrap_or_else(|error: ClientError| {
            // One connection that was cut says little: whoever keeps the guests tells whether the supervisor is there.
            if let ClientError::NoSupervisor(_) = error {
                self.flags.lose("nobody answers any more");
            }
            Err(error.into())
        })
    }

    pub(super) fn health(&self) -> Result<(), Failure> {
        self.ask(&Request::Health, ANSWER_WITHIN, |_| false)
    }

    /// Lets a worker answer.
    pub(super) fn ping(&self, agent: &AgentName) -> Result<(), Failure> {
        self.ask(&Request::Ping(agent.clone()), ANSWER_WITHIN, |_| false)
    }

    pub(super) fn ps(&self) -> Result<Vec<AgentRow>, Failure> {
        let mut rows = Vec::new();
        self.ask(&Request::Ps, ANSWER_WITHIN, |reply| {
            if let Reply::Ps(all) = reply {
                rows = all;
            }
            false
        })?;
        Ok(rows)
    }

    /// The row of an agent that must be there.
    pub(super) fn row(&self, agent: &AgentName) -> Result<AgentRow, Failure> {
        let found = self.ps()?.into_iter().find(|row| row.agent == *agent);
        found.ok_or_else(|| Failure::new(Exit::Failed, format!("there is no agent {agent}; `cofferdam ps` lists them")))
    }

    /// Sends a message and waits for its end, so long at the most.
    pub(super) fn answer(
        &self,
        agent: &AgentName,
        talk: &str,
        text: &str,
        patience: Duration,
    ) -> Result<FinishedEvent, Failure> {
        let mut end = None;
        self.ask(&message(agent, talk, text, true), patience, |reply| {
            if let Reply::Event(SendEvent::Finished(event)) = reply {
                end = Some(*event);
            }
            end.is_some()
        })?;
        end.ok_or_else(|| Failure::new(Exit::Bug, format!("the message to {agent} has no end")))
    }

    /// Sends a message and goes on when it is in the ledger.
    pub(super) fn send(&self, agent: &AgentName, talk: &str, text: &str) -> Result<(), Failure> {
        self.ask(&message(agent, talk, text, false), ANSWER_WITHIN, |_| false)
    }

    pub(super) fn interrupt(&self, agent: &AgentName) -> Result<(), Failure> {
        self.ask(&Request::Interrupt(agent.clone(), None), ANSWER_WITHIN, |_| false)
    }

    pub(super) fn start(&self, agent: &AgentName) -> Result<(), Failure> {
        self.ask(&Request::Agents(Verb::Start, vec![agent.clone()]), ANSWER_WITHIN, |_| false)
    }

    /// Pauses, but not longer than there is a reason to go on. Whether there still is one.
    pub(super) fn pause(&self, seconds: f64) -> bool {
        let watch = crate::cli::clock::Watch::start();
        while watch.seconds() < seconds && !self.flags.is_over() {
            let left = Duration::from_secs_f64((seconds - watch.seconds()).max(0.0));
            std::thread::sleep(LOOK.min(left));
        }
        !self.flags.is_over()
    }
}

fn message(agent: &AgentName, talk: &str, text: &str, wait: bool) -> Request {
    let text = Text::Inline(text.to_owned());
    Request::Send(Send { agent: agent.clone(), conversation: talk.to_owned(), text, wait })
}
