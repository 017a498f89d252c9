//! The configuration as others need it: policies for the machine, and how each agent is served for its worker.

use crate::config::{self, Config, Environment};
use crate::machine::setup::{self, Setup};
use crate::process::cgroup::Wish;
use protocol::to_worker::{self as wire, Configure};
use protocol::{AgentName, codec};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::Duration;

/// Variables of our own environment that every Codex child gets where they exist.
const BASICS: &[&str] = &["PATH", "LANG", "LC_ALL", "TZ", "TERM", "RUSTUP_HOME", "CARGO_HOME"];

/// Starts of Codex at once for each core: a start keeps about half a core busy for 0.2 s.
const STARTS_PER_CORE: u32 = 2;

/// The machine's part of the configuration.
pub(super) fn setup(config: &Config, environment: &Environment, ledger: u64) -> Setup {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let agents = config.agents.iter().map(|(name, agent)| {
        let served = fingerprint(&codec::encode(&configure(config, environment, agent, ledger)).unwrap_or_default());
        let policy = setup::Agent {
            routes: agent.routes().cloned().collect(),
            max_turns: agent.max_turns,
            queue_max: agent.queue_max,
            queue: queue_mode(agent.queue),
            stop_grace_ms: ms(agent.stop_grace),
            turn_ms: ms(agent.turn_timeout),
            heartbeat_ms: ms(agent.heartbeat_timeout),
            served,
        };
        (name.clone(), policy)
    });
    let bots = config.bots.iter().map(|(name, bot)| {
        let policy = setup::Bot {
            agent: bot.agent.clone(),
            allow: bot.allow.clone(),
            owners: bot.owners.clone(),
            heard: fingerprint(&(bot.token.reveal(), &bot.api_root)),
        };
        (name.clone(), policy)
    });
    Setup {
        max_turns: config.max_turns,
        starts_max: u32::try_from(cores).unwrap_or(1).saturating_mul(STARTS_PER_CORE),
        alert_after: config.alerts.after,
        agents: agents.collect(),
        bots: bots.collect(),
    }
}

const fn queue_mode(mode: config::QueueMode) -> setup::QueueMode {
    match mode {
        config::QueueMode::Steer => setup::QueueMode::Steer,
        config::QueueMode::Queue => setup::QueueMode::Queue,
        config::QueueMode::Collect => setup::QueueMode::Collect,
        config::QueueMode::Interrupt => setup::QueueMode::Interrupt,
    }
}

/// Where the configuration wants cgroups.
pub(super) fn wish(config: &Config) -> Wish {
    match &config.cgroup {
        config::Cgroup::Auto => Wish::Auto,
        config::Cgroup::None => Wish::Never,
        config::Cgroup::At(path) => Wish::At(path.clone()),
    }
}

/// How a worker serves its agent.
pub(super) fn configure(
    config: &Config,
    environment: &Environment,
    agent: &config::Agent,
    ledger: u64,
) -> Box<Configure> {
    let (env, env_secret) = environment_of(config, environment, agent);
    let own = agent.user.as_ref().map(|user| user.home.clone());
    let real_home = own.or_else(|| environment.home.clone()).unwrap_or_else(|| "/".into());
    Box::new(Configure {
        ledger,
        workspace: text(&agent.workspace),
        codex_command: text(&agent.codex_command),
        default_route: agent.route.clone(),
        providers: config.providers.values().filter_map(provider).collect(),
        auth: match agent.auth {
            config::Auth::Shared => wire::Auth::Shared(text(&environment.shared_login())),
            config::Auth::Own => wire::Auth::Own,
            config::Auth::None => wire::Auth::None,
        },
        sandbox: match agent.sandbox {
            config::Sandbox::ReadOnly => wire::Sandbox::ReadOnly,
            config::Sandbox::WorkspaceWrite => wire::Sandbox::WorkspaceWrite,
            config::Sandbox::DangerFullAccess => wire::Sandbox::DangerFullAccess,
        },
        network: agent.network,
        writable: agent.writable.iter().map(|path| text(path)).collect(),
        approval: match agent.approval {
            config::Approval::Never => wire::Approval::Never,
            config::Approval::OnRequest => wire::Approval::OnRequest,
        },
        reviewer: match agent.reviewer {
            config::Reviewer::User => wire::Reviewer::User,
            config::Reviewer::Auto => wire::Reviewer::Auto,
        },
        home: match agent.home {
            config::Home::Private => wire::Home::Private,
            config::Home::Real => wire::Home::Real,
        },
        real_home: text(&real_home),
        home_share: agent.home_share.iter().map(|path| text(path)).collect(),
        env,
        env_secret,
        codex_extra: agent.codex.clone(),
        masked: masked(config),
        limits: agent.limits.for_worker(),
        max_turns: agent.max_turns,
        clocks: wire::Clocks {
            first_event_ms: ms(agent.first_event_timeout),
            silence_ms: ms(agent.silence_timeout),
            turn_ms: ms(agent.turn_timeout),
            compaction_ms: ms(agent.compaction_timeout),
            idle_after_ms: ms(agent.idle_after),
            orphan_after_ms: ms(agent.orphan_after),
            stop_grace_ms: ms(agent.stop_grace),
            heartbeat_ms: ms(agent.heartbeat_timeout),
        },
    })
}

fn provider(provider: &config::Provider) -> Option<wire::Provider> {
    let base_url = provider.base_url.clone()?;
    Some(wire::Provider { name: provider.name.clone(), base_url, api_key_env: provider.api_key_env.clone() })
}

/// The allow-list and nothing else; the keys of the providers that the agent's routes use are for Codex alone.
fn environment_of(
    config: &Config,
    environment: &Environment,
    agent: &config::Agent,
) -> (Vec<(String, String)>, Vec<String>) {
    let mut secret: Vec<String> =
        config.providers_of(agent).values().filter_map(|provider| provider.api_key_env.clone()).collect();
    secret.sort();
    secret.dedup();
    let passed = BASICS.iter().copied().chain(agent.env_pass.iter().map(String::as_str));
    let mut env: Vec<(String, String)> = passed
        .chain(secret.iter().map(String::as_str))
        .filter(|name| !agent.env.contains_key(*name))
        .filter_map(|name| Some((name.to_owned(), environment.var(name)?.to_owned())))
        .collect();
    env.extend(agent.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    env.sort();
    env.dedup();
    (env, secret)
}

/// What no agent may see: the state of all (its own is shown again), the sockets, the tokens.
fn masked(config: &Config) -> Vec<String> {
    let mut paths = vec![text(&config.state_dir), text(&config.runtime_dir), text(&config.path)];
    paths.extend(config.bots.values().filter_map(|bot| bot.token_file.as_deref()).map(text));
    paths.sort();
    paths.dedup();
    paths
}

/// The environment's part for one agent: what `login` runs Codex with.
pub fn child_environment(config: &Config, environment: &Environment, agent: &AgentName) -> Vec<(String, String)> {
    config.agents.get(agent).map(|agent| environment_of(config, environment, agent).0).unwrap_or_default()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn fingerprint(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
