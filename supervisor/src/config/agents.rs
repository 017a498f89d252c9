//! One agent's table, with `[defaults]` behind it, to an [`Agent`].

use super::model::{Agent, Limits, RuntimeFrom};
use super::read::{Span, Spot};
use super::report::{Problem, Sink};
use super::resolve::is_variable;
use super::routes::{self, OPENAI, Policy};
use super::section::{Found, Section, World};
use super::units::{parse_duration, show_size};
use super::users;
use super::value::echo;
use super::words::{Approval, Auth, Home, QueueMode, Reviewer, Sandbox};
use protocol::guest::GUEST_PREFIX;
use protocol::{AgentName, Route, Runtime};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// Variables that the worker sets itself: to take them from elsewhere would break its isolation.
const OURS: [&str; 5] = ["HOME", "CODEX_HOME", "CODEX_SQLITE_HOME", "TMPDIR", "REAL_HOME"];

/// Keys of Codex' config.toml that have a key of ours, and which.
const CODEX_OURS: [(&str, &str); 8] = [
    ("model", "model"),
    ("model_provider", "model"),
    ("model_providers", "providers"),
    ("sandbox_mode", "sandbox"),
    ("sandbox_workspace_write", "network"),
    ("approval_policy", "approval"),
    ("approvals_reviewer", "reviewer"),
    ("cli_auth_credentials_store", "auth"),
];

/// What agents get from outside of their tables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base<'a> {
    pub(super) policy: Policy<'a>,
    pub(super) state_dir: &'a Path,
    pub(super) codex_command: &'a Path,
    pub(super) world: World<'a>,
}

/// All agents whose name is one.
pub(super) fn agents(root: &Section<'_>, base: &Base<'_>, sink: &mut Sink) -> BTreeMap<AgentName, Agent> {
    let mut all = BTreeMap::new();
    let defaults = root.sub("defaults");
    for (spot, table) in root.named("agents") {
        let section = Section::new("agents.*", Some(table), base.world).behind(defaults.table());
        let defaults = Section::new("agents.*", defaults.table(), base.world);
        let name = match AgentName::parse(&spot.value) {
            Ok(name) => name,
            Err(why) => {
                let message = format!("bad name of an agent: {}", echo(&spot.value));
                sink.push(Problem::error(&spot.span, message).label(why.to_string()));
                continue;
            }
        };
        if name.as_str().starts_with(GUEST_PREFIX) {
            let message = format!("names that begin with {GUEST_PREFIX} are kept for `cofferdam drill`");
            sink.push(Problem::error(&spot.span, message).label("choose another name"));
            continue;
        }
        let agent = agent(&name, spot, &section, &defaults, base, sink);
        users::alone(&agent, &all, &spot.span, sink);
        all.insert(name, agent);
    }
    all
}

fn agent(
    name: &AgentName,
    spot: &Spot<String>,
    section: &Section<'_>,
    defaults: &Section<'_>,
    base: &Base<'_>,
    sink: &mut Sink,
) -> Agent {
    let nowhere =
        || (Route { runtime: Runtime::Codex, provider: String::new(), model: String::new() }, RuntimeFrom::BuiltIn);
    let (route, runtime_from) = routes::first(section, defaults, spot, base.policy, sink).unwrap_or_else(nowhere);
    let workspace = section.path("workspace");
    let command = section.path("codex_command").map_or_else(|| base.codex_command.to_owned(), |c| c.value);
    let agent = Agent {
        name: name.clone(),
        fallbacks: routes::fallbacks(&route, section, base.policy, sink),
        route,
        runtime_from,
        auth: section.word("auth", Auth::parse, Auth::Shared),
        workspace_explicit: workspace.is_some(),
        workspace: self::workspace(workspace, name, base, sink),
        max_turns: section.get("max_turns"),
        queue: section.word("queue", QueueMode::parse, QueueMode::Steer),
        queue_max: section.get("queue_max"),
        sandbox: section.word("sandbox", Sandbox::parse, Sandbox::ReadOnly),
        network: section.get("network"),
        writable: writable(section, base.world, sink),
        approval: section.word("approval", Approval::parse, Approval::Never),
        reviewer: section.word("reviewer", Reviewer::parse, Reviewer::User),
        home: section.word("home", Home::parse, Home::Private),
        home_share: home_share(section, sink),
        env_pass: env_pass(section, sink),
        env: env(section, sink),
        turn_timeout: section.get("turn_timeout"),
        silence_timeout: section.get("silence_timeout"),
        first_event_timeout: section.get("first_event_timeout"),
        compaction_timeout: section.get("compaction_timeout"),
        heartbeat_timeout: section.get("heartbeat_timeout"),
        idle_after: section.get("idle_after"),
        stop_grace: section.get("stop_grace"),
        orphan_after: orphan_after(section, base.world),
        limits: limits(&section.sub("limits"), sink),
        codex_command: command,
        codex: codex(section, spot, sink),
        user: users::user(section, nix::unistd::geteuid().is_root(), sink),
    };
    users::reach(&agent, section, base, sink);
    keys_of_providers(&agent, spot, base, sink);
    agent
}

fn workspace(given: Option<Found<PathBuf>>, name: &AgentName, base: &Base<'_>, sink: &mut Sink) -> PathBuf {
    let Some(given) = given else {
        return base.state_dir.join("agents").join(name.as_str()).join("workspace");
    };
    let why = match std::fs::metadata(&given.value) {
        Ok(meta) if meta.is_dir() => None,
        Ok(_) => Some("is no directory".to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some("does not exist".to_owned()),
        Err(error) => Some(format!("cannot be looked at: {error}")),
    };
    if let Some(why) = why {
        let path = given.value.display();
        let problem = Problem::error(&given.span, format!("the workspace {path} {why}")).label("no usable directory");
        sink.push(problem.help(format!("make it (`mkdir -p {path}`), or drop the line to get one in `state_dir`")));
    }
    given.value
}

fn writable(section: &Section<'_>, world: World<'_>, sink: &mut Sink) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for spot in section.get::<Vec<Spot<String>>>("writable") {
        match world.env.expand(&spot.value, world.dir) {
            Ok(path) => {
                if !path.exists() {
                    let message = format!("the writable path {} does not exist", path.display());
                    sink.push(Problem::warning(&spot.span, message).label("is left out until it does"));
                }
                all.push(path);
            }
            Err(why) => {
                sink.push(Problem::error(&spot.span, format!("bad path {}", echo(&spot.value))).label(why.to_string()));
            }
        }
    }
    all
}

fn home_share(section: &Section<'_>, sink: &mut Sink) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = Vec::new();
    for spot in section.get::<Vec<Spot<String>>>("home_share") {
        let path: PathBuf = Path::new(&spot.value).components().collect();
        let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
        if inside && path.components().next().is_some() {
            all.push(path);
        } else {
            let message = format!("{} is no name below the home", echo(&spot.value));
            sink.push(Problem::error(&spot.span, message).label("must be relative, without `..` and `~`"));
        }
    }
    all
}

/// Says that `name` cannot be a variable of an agent; whether it can.
fn check_variable(name: &str, span: &Span, sink: &mut Sink) -> bool {
    if !is_variable(name) {
        let label = "must be letters, digits and _, not beginning with a digit";
        sink.push(Problem::error(span, format!("bad name of a variable: {}", echo(name))).label(label));
        return false;
    }
    if OURS.contains(&name) {
        let problem = Problem::error(span, format!("`{name}` is set by the worker itself")).label("cannot be given");
        sink.push(problem.help("`home`, `home_share` and `auth` say what an agent sees"));
        return false;
    }
    true
}

fn env_pass(section: &Section<'_>, sink: &mut Sink) -> BTreeSet<String> {
    let all = section.get::<Vec<Spot<String>>>("env_pass");
    all.into_iter().filter(|s| check_variable(&s.value, &s.span, sink)).map(|s| s.value).collect()
}

fn env(section: &Section<'_>, sink: &mut Sink) -> BTreeMap<String, String> {
    let all = section.text_map("env").into_iter();
    all.filter(|(name, spot)| check_variable(name, &spot.span, sink)).map(|(name, spot)| (name, spot.value)).collect()
}

/// The unit of systemd lets workers wait longer, for it restarts the supervisor by itself.
fn orphan_after(section: &Section<'_>, world: World<'_>) -> Duration {
    let given = section.found::<Duration>("orphan_after").map(|found| found.value);
    let unit = || world.env.var("COFFERDAM_ORPHAN_AFTER").and_then(|text| parse_duration(text).ok());
    given.or_else(unit).unwrap_or_else(|| section.get("orphan_after"))
}

fn limits(section: &Section<'_>, sink: &mut Sink) -> Limits {
    let bytes = |name: &str| section.found::<Option<u64>>(name).and_then(|found| Some((found.value?, found.span)));
    let (max, high) = (bytes("memory_max"), bytes("memory_high"));
    if let (Some((max, end)), Some((high, span))) = (&max, &high)
        && high > max
    {
        let message = format!("`memory_high` is above `memory_max`, {}", show_size(*max));
        sink.push(Problem::error(span, message).label("would never be reached").also(end, "the end is here"));
    }
    let small = |bound: Option<u64>| bound.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    Limits {
        memory_max: section.get("memory_max"),
        memory_high: section.get("memory_high"),
        cpu_weight: small(section.get("cpu_weight")),
        cpu_max: small(section.get("cpu_max")),
        pids_max: small(section.get("pids_max")),
        io_weight: small(section.get("io_weight")),
        open_files: small(section.get("open_files")),
        core_size: section.get("core_size"),
        file_size: section.get("file_size"),
        disk_max: section.get("disk_max"),
    }
}

fn codex(section: &Section<'_>, agent: &Spot<String>, sink: &mut Sink) -> String {
    let (table, spots) = section.free("codex");
    for spot in spots {
        if let Some((name, ours)) = CODEX_OURS.iter().find(|(name, _)| *name == spot.value) {
            let problem = Problem::warning(&spot.span, format!("`{name}` of Codex is set by Cofferdam"));
            sink.push(problem.label("has no effect").help(format!("`{ours}` is the key for it")));
        }
    }
    if table.is_empty() {
        return String::new();
    }
    toml::to_string(&table).unwrap_or_else(|error| {
        sink.push(Problem::error(&agent.span, format!("the table `codex` cannot be written as TOML: {error}")));
        String::new()
    })
}

/// Says which keys the agent's routes lack, or hand to its tools.
fn keys_of_providers(agent: &Agent, spot: &Spot<String>, base: &Base<'_>, sink: &mut Sink) {
    let used: BTreeSet<&str> = agent.routes().map(|route| route.provider.as_str()).collect();
    for provider in used.iter().filter_map(|name| base.policy.providers.get(*name)) {
        let Some(variable) = &provider.api_key_env else {
            if provider.name == OPENAI && agent.auth == Auth::None {
                let message = format!("agent `{}` has no login for {OPENAI}", agent.name);
                let problem =
                    Problem::warning(&spot.span, message).label("`auth` is none, and the provider has no key");
                sink.push(problem.help(format!("give `auth` another value, or `api_key_env` to [providers.{OPENAI}]")));
            }
            continue;
        };
        if agent.env_pass.contains(variable) {
            let message = format!("`env_pass` hands ${variable} to the tools of `{}`", agent.name);
            let problem = Problem::warning(&spot.span, message).label("Codex gets the key without it");
            sink.push(problem.help(format!("drop {variable} from `env_pass`")));
        }
    }
}
