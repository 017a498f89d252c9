//! Asks a supervisor by its socket, as the command line does, and takes the time of each step.

use super::Fault;
use super::clock::{now, until, wall_us};
use protocol::control::{AgentRow, FinishedEvent, Health, Reply, Request, Send, SendEvent, TurnStory, Verb};
use protocol::{AgentName, Text, TurnId};
use std::path::PathBuf;
use std::time::Duration;
use supervisor::control::Client;

/// Longest wait for the end of anything that is measured.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    socket: PathBuf,
}

/// A turn that has ended, with its times.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    /// Before the message was sent, in Unix microseconds.
    pub(crate) sent_us: u64,
    /// When the answer was there.
    pub(crate) got_us: u64,
    /// From one to the other.
    pub(crate) took: Duration,
    /// What came.
    pub(crate) end: FinishedEvent,
}

impl Asker {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// One request; every answer but the last goes to `each`.
    fn ask(&self, request: &Request, mut each: impl FnMut(Reply)) -> Result<(), Fault> {
        let mut client = Client::ask(&self.socket, request, Some(PATIENCE))?;
        loop {
            match client.next_reply()? {
                Reply::Done => return Ok(()),
                Reply::Refused(refused) => return Err(Fault(format!("refused: {}", refused.why))),
                other @ (Reply::Health(_)
                | Reply::Ps(_)
                | Reply::Event(_)
                | Reply::Turns(_)
                | Reply::Turn(_)
                | Reply::Queue(_)
                | Reply::Guests(_)
                | Reply::Note(_)) => each(other),
            }
        }
    }

    pub(crate) fn health(&self) -> Result<Health, Fault> {
        let mut found = None;
        self.ask(&Request::Health, |reply| {
            if let Reply::Health(health) = reply {
                found = Some(health);
            }
        })?;
        found.ok_or_else(|| Fault("no health in the answer".into()))
    }

    pub(crate) fn ps(&self) -> Result<Vec<AgentRow>, Fault> {
        let mut found = Vec::new();
        self.ask(&Request::Ps, |reply| {
            if let Reply::Ps(rows) = reply {
                found = rows;
            }
        })?;
        Ok(found)
    }

    /// The pids of all workers, by agent.
    pub(crate) fn workers(&self) -> Result<Vec<(String, u32)>, Fault> {
        Ok(self.ps()?.into_iter().filter_map(|row| Some((row.agent.to_string(), row.pid?))).collect())
    }

    /// The pid of an agent's worker.
    pub(crate) fn worker(&self, agent: &str) -> Result<u32, Fault> {
        let all = self.workers()?;
        let found = all.into_iter().find(|(name, _)| name == agent);
        found.map(|(_, pid)| pid).ok_or_else(|| Fault(format!("{agent} has no worker")))
    }

    /// How many agents are in a state.
    pub(crate) fn count(&self, state: &str) -> u32 {
        self.health().ok().and_then(|health| health.agents.get(state).copied()).unwrap_or(0)
    }

    /// Waits until `wanted` agents are ready.
    pub(crate) fn until_ready(&self, wanted: u32) -> Result<(), Fault> {
        let ready = until(PATIENCE, || (self.count("ready") == wanted).then_some(()));
        ready.ok_or_else(|| Fault(format!("only {} of {wanted} agents became ready", self.count("ready"))))
    }

    /// Changes what is wanted, and waits until it is so.
    pub(crate) fn change(&self, verb: Verb, agent: &str) -> Result<(), Fault> {
        self.ask(&Request::Agents(verb, vec![name(agent)?]), drop)
    }

    /// Sends a message and waits for its end, whatever it is.
    pub(crate) fn turn(&self, agent: &str, conversation: &str, text: &str) -> Result<Answered, Fault> {
        let request = message(agent, conversation, text, true)?;
        let (begin, sent_us) = (now(), wall_us());
        let mut found = None;
        self.ask(&request, |reply| {
            if let Reply::Event(SendEvent::Finished(end)) = reply {
                found = Some(Answered { sent_us, got_us: wall_us(), took: begin.elapsed(), end: *end });
            }
        })?;
        found.ok_or_else(|| Fault(format!("no end of the turn {text:?}")))
    }

    /// The same; an end other than an answer is a fault.
    pub(crate) fn answer(&self, agent: &str, conversation: &str, text: &str) -> Result<Answered, Fault> {
        let answered = self.turn(agent, conversation, text)?;
        if answered.end.outcome == "completed" {
            return Ok(answered);
        }
        Err(Fault(format!("{agent} did not answer: {:?} {}", answered.end.class, answered.end.text.head())))
    }

    /// Sends a message and does not wait for its end.
    pub(crate) fn send(&self, agent: &str, conversation: &str, text: &str) -> Result<TurnId, Fault> {
        let mut found = None;
        self.ask(&message(agent, conversation, text, false)?, |reply| {
            if let Reply::Event(SendEvent::Accepted { turn }) = reply {
                found = Some(turn);
            }
        })?;
        found.ok_or_else(|| Fault(format!("{text:?} was not accepted")))
    }

    /// The story of a turn; `None` while nobody answers.
    pub(crate) fn story(&self, turn: TurnId) -> Option<TurnStory> {
        let mut found = None;
        self.ask(&Request::Turn(turn), |reply| {
            if let Reply::Turn(story) = reply {
                found = Some(*story);
            }
        })
        .ok()?;
        found
    }
}

fn message(agent: &str, conversation: &str, text: &str, wait: bool) -> Result<Request, Fault> {
    let (conversation, text) = (conversation.to_owned(), Text::Inline(text.to_owned()));
    Ok(Request::Send(Send { agent: name(agent)?, conversation, text, wait }))
}

pub(crate) fn name(agent: &str) -> Result<AgentName, Fault> {
    AgentName::parse(agent).map_err(|_| Fault(format!("{agent} is no name of an agent")))
}
