//! The throw-away agents: made at the begin of a drill, kept by an open connection, gone with it.

use super::fleet::{Fleet, LOOK};
use super::plan::{OTHERS, VICTIM, VICTIM_COMPACT_TOKENS, VICTIM_MEMORY_BYTES, VICTIM_PIDS};
use crate::cli::clock::Watch;
use crate::cli::exit::{Exit, Failure, chain};
use crate::config::Config;
use crate::control::{Client, ClientError};
use protocol::control::{AgentState, Reply, Request};
use protocol::guest::{Guest, Guests as Wanted};
use protocol::{AgentName, FailureClass, Runtime};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// From the wish to workers that are ready, and from the end of a drill to nothing left, in seconds.
const READY_WITHIN_S: f64 = 30.0;
const GONE_WITHIN_S: f64 = 15.0;
/// The first turn of an agent: its Codex must start. On a busy host that takes long.
const FIRST_TURN_WITHIN: Duration = Duration::from_secs(90);

/// The throw-away agents while they are there. Dropped: the connection closes, and the supervisor ends them.
#[derive(Debug)]
pub(super) struct Guests {
    pub(super) victim: Option<AgentName>,
    pub(super) others: Vec<AgentName>,
    done: Arc<AtomicBool>,
    keeper: Option<JoinHandle<()>>,
}

impl Guests {
    /// Makes them, with a victim among them if one is wanted. They are being started then, see [`Self::prepare`].
    pub(super) fn make(fleet: &Fleet, base_url: String, with_victim: bool) -> Result<Self, Failure> {
        let victim = with_victim.then(|| name(VICTIM)).transpose()?;
        let others = OTHERS.iter().map(|text| name(text)).collect::<Result<Vec<_>, _>>()?;
        let agents = victim.iter().map(hurt).chain(others.iter().map(beside)).collect();
        let request = Request::Guests(Wanted { base_url, agents });
        // A short patience: between two answers the keeper looks whether it is to go on.
        let mut client = Client::ask(&fleet.socket, &request, Some(LOOK))?;
        accepted(&mut client, fleet)?;
        let done = Arc::new(AtomicBool::new(false));
        let (over, flags) = (Arc::clone(&done), Arc::clone(&fleet.flags));
        let keeper = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                match client.next_reply() {
                    Err(ClientError::Silent(_)) => {}
                    Ok(Reply::Refused(refused)) => return flags.lose(&refused.why),
                    Ok(other) => return flags.lose(&format!("it answered with {other:?}")),
                    Err(error) => return flags.lose(&chain(&error)),
                }
            }
        });
        Ok(Self { victim, others, done, keeper: Some(keeper) })
    }

    /// Waits until they are ready, and lets each answer once.
    pub(super) fn prepare(&self, fleet: &Fleet, talk: &str) -> Result<(), Failure> {
        self.ready(fleet)?;
        self.warm(fleet, talk)
    }

    fn all(&self) -> impl Iterator<Item = &AgentName> {
        self.victim.iter().chain(&self.others)
    }

    fn ready(&self, fleet: &Fleet) -> Result<(), Failure> {
        let watch = Watch::start();
        loop {
            let rows = fleet.ps()?;
            let row = |agent: &AgentName| rows.iter().find(|row| row.agent == *agent);
            if self.all().all(|agent| row(agent).is_some_and(|row| row.state == AgentState::Ready)) {
                return Ok(());
            }
            if watch.seconds() > READY_WITHIN_S {
                let why = self.all().filter_map(row).find_map(|row| row.last_error.clone());
                let why = why.map_or_else(String::new, |error| format!(": {}", error.text));
                return Err(Failure::new(Exit::Failed, format!("the throw-away agents do not start{why}")));
            }
            if !fleet.pause(LOOK.as_secs_f64()) {
                return Err(Failure::new(Exit::Failed, "the drill was ended before it began"));
            }
        }
    }

    /// The first turn of each: nothing is hurt before all of them work.
    fn warm(&self, fleet: &Fleet, talk: &str) -> Result<(), Failure> {
        for agent in self.all() {
            let end = fleet.answer(agent, talk, "hello", FIRST_TURN_WITHIN)?;
            if end.outcome == "completed" {
                continue;
            }
            let class = end.class.unwrap_or_default();
            let missing = class == FailureClass::CodexMissing.to_string();
            let why = if missing {
                "there is no Codex for a drill: install it, or set codex.command".to_owned()
            } else {
                format!("a throw-away agent does not answer ({class}): {}", end.text.head())
            };
            return Err(Failure::new(Exit::Failed, format!("{why}\nnothing was hurt")));
        }
        Ok(())
    }

    /// Closes the connection and waits until nothing of them is left; the words of what is.
    pub(super) fn part(mut self, fleet: &Fleet, config: &Config) -> Option<String> {
        let names: Vec<AgentName> = self.all().cloned().collect();
        self.close();
        let left = || -> Vec<&str> {
            let rows = fleet.ps().unwrap_or_default();
            let is_left =
                |agent: &&AgentName| rows.iter().any(|row| row.agent == **agent) || config.agent_dir(agent).exists();
            names.iter().filter(is_left).map(AgentName::as_str).collect()
        };
        let watch = Watch::start();
        while watch.seconds() < GONE_WITHIN_S && fleet.flags.lost().is_none() {
            if left().is_empty() {
                return None;
            }
            std::thread::sleep(LOOK);
        }
        let left = left();
        (!left.is_empty())
            .then(|| format!("left behind: {}; the next `cofferdam run` ends and removes them", left.join(", ")))
    }

    fn close(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(keeper) = self.keeper.take() {
            // It holds nothing that a panic could have left half done.
            drop(keeper.join());
        }
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        self.close();
    }
}

fn accepted(client: &mut Client, fleet: &Fleet) -> Result<(), Failure> {
    let watch = Watch::start();
    loop {
        match client.next_reply() {
            Ok(Reply::Guests(_)) => return Ok(()),
            Ok(Reply::Refused(refused)) => return Err(refused.into()),
            Ok(other) => return Err(Failure::new(Exit::Bug, format!("the supervisor answered with {other:?}"))),
            Err(ClientError::Silent(_)) if watch.seconds() < READY_WITHIN_S && !fleet.flags.is_over() => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn name(text: &str) -> Result<AgentName, Failure> {
    AgentName::parse(text).map_err(|error| Failure::new(Exit::Bug, error.to_string()))
}

fn hurt(agent: &AgentName) -> Guest {
    Guest {
        memory_max: Some(VICTIM_MEMORY_BYTES),
        pids_max: Some(VICTIM_PIDS),
        compact_at_tokens: Some(VICTIM_COMPACT_TOKENS),
        ..beside(agent)
    }
}

fn beside(agent: &AgentName) -> Guest {
    Guest { agent: agent.clone(), runtime: Runtime::Codex, memory_max: None, pids_max: None, compact_at_tokens: None }
}
