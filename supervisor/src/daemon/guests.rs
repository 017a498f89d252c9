//! Guests as the loop has them: how they are served, and the folders that they leave.
//!
//! ```text
//!   Host  --> a configuration of their own (what is ours, but their agents and their model) --> Hosted
//!   Clear --> folder and socket removed --> Cleared
//!   start --> guests of a supervisor that died: workers killed, trees swept, folders removed
//! ```

use super::{Daemon, Word, served};
use crate::config::{Agent, Approval, Auth, Config, Home, Limits, Provider, QueueMode, Reviewer, RuntimeFrom, Sandbox};
use crate::machine::nouns::CallerId;
use crate::machine::words::Input;
use crate::process::cgroup::RECORD_ENDING;
use crate::process::{adopt, sweep};
use protocol::guest::{GUEST_PREFIX, Guest, Guests};
use protocol::{AgentName, Route};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Key of the guests' provider.
const PROVIDER: &str = "drill";
/// A model that Codex knows, so that it behaves as with a real one.
const MODEL: &str = "gpt-5.5";
/// No clock of ours may end what a drill keeps up on purpose; its caller ends it.
const LONG: Duration = Duration::from_hours(1);
/// A guest without a supervisor has no caller either: it is to go as soon as it can tell that from a restart.
const ORPHAN_AFTER: Duration = Duration::from_secs(10);
/// From the polite end of a guest's Codex to the next step.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// Turns of a guest at once: a fresh one beside one that hangs.
const TURNS_MAX: u32 = 4;

impl Daemon {
    pub(super) fn host(&self, caller: CallerId, guests: &Guests) {
        let config = Box::new(config_of(&self.config, guests));
        self.task(async move {
            for name in config.agents.keys() {
                // What a removal that failed has left would be another guest's home.
                if let Err(error) = remove(&config, name) {
                    tracing::warn!(agent = %name, %error, "what is left of an earlier guest cannot be removed");
                }
            }
            Word::Hosted(caller, config)
        });
    }

    pub(super) fn hosted(&mut self, caller: CallerId, config: Box<Config>) {
        let policies = served::setup(&config, &self.environment, self.ledger).agents;
        self.guests = Some(config);
        self.handle(Input::Hosted(caller, policies));
    }

    pub(super) fn clear(&self, agent: AgentName) {
        let config = self.config.clone();
        self.task(async move {
            let name = agent.clone();
            let removed = tokio::task::spawn_blocking(move || remove(&config, &name)).await;
            if let Ok(Err(error)) = removed {
                tracing::warn!(%agent, %error, "a guest's folder cannot be removed; the next start tries again");
            }
            Word::Input(Input::Cleared(agent))
        });
    }
}

/// Our configuration with the guests as its only agents, and their model as the only provider.
fn config_of(ours: &Config, guests: &Guests) -> Config {
    let provider = Provider {
        name: PROVIDER.to_owned(),
        base_url: Some(guests.base_url.clone()),
        api_key_env: None,
        runtime: None,
    };
    Config {
        providers: BTreeMap::from([(PROVIDER.to_owned(), provider)]),
        agents: guests.agents.iter().map(|guest| (guest.agent.clone(), agent_of(ours, guest))).collect(),
        ..ours.clone()
    }
}

fn agent_of(ours: &Config, guest: &Guest) -> Agent {
    let compact = guest.compact_at_tokens.map(|tokens| format!("model_auto_compact_token_limit = {tokens}\n"));
    Agent {
        name: guest.agent.clone(),
        route: Route { runtime: guest.runtime, provider: PROVIDER.to_owned(), model: MODEL.to_owned() },
        runtime_from: RuntimeFrom::Agent,
        fallbacks: Vec::new(),
        auth: Auth::None,
        workspace: ours.agent_dir(&guest.agent).join("workspace"),
        workspace_explicit: false,
        max_turns: TURNS_MAX,
        queue: QueueMode::Queue,
        queue_max: TURNS_MAX,
        sandbox: Sandbox::WorkspaceWrite,
        network: false,
        writable: Vec::new(),
        approval: Approval::Never,
        reviewer: Reviewer::User,
        home: Home::Private,
        home_share: Vec::new(),
        env_pass: BTreeSet::new(),
        env: BTreeMap::new(),
        turn_timeout: LONG,
        silence_timeout: LONG,
        first_event_timeout: LONG,
        compaction_timeout: LONG,
        heartbeat_timeout: LONG,
        idle_after: LONG,
        stop_grace: STOP_GRACE,
        orphan_after: ORPHAN_AFTER,
        limits: Limits { memory_max: guest.memory_max, pids_max: guest.pids_max, ..Limits::default() },
        codex_command: ours.codex_command.clone(),
        codex: compact.unwrap_or_default(),
        user: None,
    }
}

/// Removes the folder and the socket of a guest; of nobody else.
fn remove(config: &Config, name: &AgentName) -> io::Result<()> {
    if !name.as_str().starts_with(GUEST_PREFIX) {
        return Err(io::Error::other("it is no guest's"));
    }
    let absent = |error: io::Error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) };
    fs::remove_file(config.agent_socket(name)).or_else(absent)?;
    fs::remove_file(config.agent_dir(name).with_extension(RECORD_ENDING)).or_else(absent)?;
    fs::remove_dir_all(config.agent_dir(name)).or_else(absent)
}

/// Clears the guests of a supervisor that ended without parting from them. Called before anything else is started.
pub(super) async fn clear_old(config: &Config) {
    for name in old(&config.state_dir.join("agents")) {
        let dir = config.agent_dir(&name);
        for worker in adopt::workers_of(&dir) {
            if let Err(error) = worker.kill() {
                tracing::warn!(agent = %name, pid = worker.pid(), %error, "a guest's worker cannot be ended");
            }
            drop(worker.gone().await);
        }
        // Whatever ledger its journal was for: nobody waits for a guest's turns.
        let swept = sweep::sweep(&dir, 0).await;
        if swept.left > 0 {
            tracing::warn!(agent = %name, left = swept.left, "processes of an earlier drill do not end");
            continue;
        }
        match remove(config, &name) {
            Ok(()) => tracing::info!(agent = %name, ended = swept.ended, "cleared what an earlier drill left"),
            Err(error) => tracing::warn!(agent = %name, %error, "what an earlier drill left cannot be removed"),
        }
    }
}

fn old(agents: &Path) -> Vec<AgentName> {
    let entries = fs::read_dir(agents).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| AgentName::parse(entry.file_name().to_str()?).ok());
    names.filter(|name| name.as_str().starts_with(GUEST_PREFIX)).collect()
}
