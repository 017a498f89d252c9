//! From the keys that the file gives to the values that hold: the top of the file, providers, and what concerns
//! several tables at once.

use super::model::{Agent, Alerts, Cgroup, Config, Log, Provider, SOCKET_PATH_BYTES_MAX};
use super::read::Span;
use super::report::{Problem, Severity, Sink};
use super::section::{Section, World};
use super::value::{echo, nearest};
use super::words::LogFormat;
use super::{agents, jobs, release, routes, telegram};
use protocol::{AgentName, Runtime};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The whole configuration. Its values are only good if nothing was reported as an error.
pub(super) fn config(path: &Path, root: &Section<'_>, world: World<'_>, sink: &mut Sink) -> Config {
    let state_dir: PathBuf = root.get("state_dir");
    let runtime_dir = root.path("runtime_dir").map_or_else(|| state_dir.join("run"), |found| found.value);
    let codex_command: PathBuf = root.sub("codex").get("command");
    let providers = providers(root, world, sink);
    let models = routes::models(root, &providers, world, sink);
    let policy = routes::Policy { providers: &providers, models: &models };
    let base = agents::Base { policy, state_dir: &state_dir, codex_command: &codex_command, world };
    let agents = agents::agents(root, &base, sink);
    let names = Names::new(root);
    let bots = telegram::bots(root, &names, world, sink);
    let jobs = jobs::jobs(root, &names, &bots, world, sink);
    if names.agents.is_empty() {
        let help = "a table [agents.NAME] makes one";
        sink.push(Problem::file(Severity::Warning, "no agent is configured").help(help).derived());
    }
    missing_keys(root, &agents, world, sink);
    sockets(root, &runtime_dir, &names, sink);
    release::warn(root, world, sink);
    let log = root.sub("log");
    Config {
        path: path.to_owned(),
        runtime_dir,
        max_turns: root.get("max_turns"),
        worker_command: root.path("worker_command").map(|found| found.value),
        ballast_bytes: root.get("ballast"),
        cgroup: cgroup(root, sink),
        log: Log { filter: log.get("filter"), format: log.word("format", LogFormat::parse, LogFormat::Text) },
        alerts: Alerts { after: root.sub("alerts").get("after") },
        codex_command,
        state_dir,
        providers,
        agents,
        bots,
        jobs,
    }
}

/// Where workers get cgroups.
fn cgroup(root: &Section<'_>, sink: &mut Sink) -> Cgroup {
    match root.get::<String>("cgroup").as_str() {
        "auto" => Cgroup::Auto,
        "none" => Cgroup::None,
        path if Path::new(path).is_absolute() => Cgroup::At(path.into()),
        other => {
            if let Some(found) = root.found::<String>("cgroup") {
                let problem = Problem::error(&found.span, format!("bad place for cgroups: {}", echo(other)));
                sink.push(problem.label("must be auto, none, or an absolute path such as /sys/fs/cgroup/agents"));
            }
            Cgroup::Auto
        }
    }
}

/// The names that the file gives, right or wrong: who refers to a table with a mistake in it makes none himself.
pub(super) struct Names<'a> {
    pub(super) agents: BTreeMap<&'a str, &'a Span>,
    pub(super) bots: BTreeMap<&'a str, &'a Span>,
}

impl<'a> Names<'a> {
    fn new(root: &Section<'a>) -> Self {
        let names = |name| root.named(name).iter().map(|(spot, _)| (spot.value.as_str(), &spot.span)).collect();
        Self { agents: names("agents"), bots: names("telegram") }
    }

    /// The agent that `found` names, if there is one of that name; says so if there is none.
    pub(super) fn agent(&self, text: &str, span: &Span, sink: &mut Sink) -> Option<AgentName> {
        if self.agents.contains_key(text) {
            return AgentName::parse(text).ok();
        }
        let problem = Problem::error(span, format!("no agent is called {}", echo(text)));
        let problem = problem.label("unknown agent").derived();
        sink.push(match nearest(text, self.agents.keys().copied()) {
            Some(near) => problem.help(format!("did you mean \"{near}\"?")),
            None => problem.help(format!("a table [agents.{text}] would make it")),
        });
        None
    }
}

/// Says that the table of a bot or provider has a name which cannot be referred to.
pub(super) fn check_name(what: &str, name: &str, span: &Span, sink: &mut Sink) {
    /// A name is part of addresses and of log lines.
    const NAME_BYTES_MAX: usize = 64;
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(good) {
        let label = "must be 1 to 64 of A-Z, a-z, 0-9, _ and -";
        sink.push(Problem::error(span, format!("bad name of a {what}: {}", echo(name))).label(label));
    }
}

/// Says what is wrong with an address of HTTP, if something is.
pub(super) fn check_url(text: &str) -> Result<(), &'static str> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some(rest) = rest else { return Err("must begin with http:// or https://") };
    let host = rest.split(['/', '?', '#']).next().unwrap_or("");
    if host.is_empty() || host.starts_with(':') {
        return Err("names no host");
    }
    if host.contains('@') {
        return Err("must not hold a user or password");
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("must not hold blanks");
    }
    Ok(())
}

fn providers(root: &Section<'_>, world: World<'_>, sink: &mut Sink) -> BTreeMap<String, Provider> {
    let openai = Provider { name: routes::OPENAI.to_owned(), base_url: None, api_key_env: None, runtime: None };
    let mut all = BTreeMap::from([(routes::OPENAI.to_owned(), openai)]);
    for (name, table) in root.named("providers") {
        let section = Section::new("providers.*", Some(table), world);
        check_name("provider", &name.value, &name.span, sink);
        if Runtime::parse(&name.value).is_some() {
            let label = "this word is a runtime: models of this provider could not be told from it";
            sink.push(
                Problem::error(&name.span, format!("bad name of a provider: {}", echo(&name.value))).label(label),
            );
        }
        let base_url = section.found::<String>("base_url");
        match &base_url {
            Some(url) => {
                if let Err(why) = check_url(&url.value) {
                    sink.push(Problem::error(&url.span, format!("bad address {}", echo(&url.value))).label(why));
                }
            }
            None if name.value != routes::OPENAI && section.gives("base_url").is_none() => {
                let label = "`base_url` must be given here";
                sink.push(Problem::error(&name.span, "`base_url` is missing").label(label).derived());
            }
            None => {}
        }
        let key = section.found::<String>("api_key_env");
        if let Some(key) = key.as_ref().filter(|k| !is_variable(&k.value)) {
            let label = "must be the name of a variable, not the key itself";
            sink.push(Problem::error(&key.span, "bad name of a variable").label(label));
        }
        let provider = Provider {
            name: name.value.clone(),
            base_url: base_url.map(|url| url.value.trim_end_matches('/').to_owned()),
            api_key_env: key.map(|k| k.value),
            runtime: section.found::<String>("runtime").and_then(|r| Runtime::parse(&r.value)),
        };
        all.insert(name.value.clone(), provider);
    }
    all
}

/// Says which keys the routes of agents need and the environment lacks.
fn missing_keys(root: &Section<'_>, agents: &BTreeMap<AgentName, Agent>, world: World<'_>, sink: &mut Sink) {
    for (name, table) in root.named("providers") {
        let Some(key) = Section::new("providers.*", Some(table), world).found::<String>("api_key_env") else {
            continue;
        };
        let user = agents.values().find(|agent| agent.routes().any(|route| route.provider == name.value));
        if let Some(user) = user.filter(|_| is_variable(&key.value) && world.env.var(&key.value).is_none()) {
            let message = format!("${}, the key of provider {}, is not set", key.value, echo(&name.value));
            let problem = Problem::warning(&key.span, message).label(format!("agent `{}` needs it", user.name));
            sink.push(problem.help("set it where the supervisor is started").derived());
        }
    }
}

/// Whether `text` can be the name of a variable.
pub(super) fn is_variable(text: &str) -> bool {
    /// Longer ones are keys that were pasted into the wrong line.
    const VARIABLE_BYTES_MAX: usize = 128;
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.len() <= VARIABLE_BYTES_MAX
}

/// Says that the longest socket does not fit into what the kernel takes.
fn sockets(root: &Section<'_>, runtime_dir: &Path, names: &Names<'_>, sink: &mut Sink) {
    let agents = names.agents.iter().filter_map(|(name, span)| Some((AgentName::parse(name).ok()?, *span)));
    let longest = agents.max_by_key(|(name, _)| name.as_str().len());
    let agent_socket = longest.as_ref().map(|(name, span)| (super::model::agent_socket(runtime_dir, name), *span));
    let control = (runtime_dir.join("control.sock"), None);
    let (path, agent) = agent_socket
        .map(|(path, span)| (path, Some(span)))
        .into_iter()
        .chain([control])
        .max_by_key(|(path, _)| path.as_os_str().len())
        .unwrap_or_default();
    let bytes = path.as_os_str().len();
    if bytes <= SOCKET_PATH_BYTES_MAX {
        return;
    }
    let said = root.gives("runtime_dir").or_else(|| root.gives("state_dir")).map(|entry| &entry.span);
    let message = format!("the path of a socket has {bytes} bytes, at most {SOCKET_PATH_BYTES_MAX} are possible");
    let problem = match said.or(agent) {
        Some(span) => Problem::error(span, message).label(format!("would be {}", path.display())),
        None => Problem::file(Severity::Error, message),
    };
    let problem = problem.help("set `runtime_dir` to a shorter path");
    sink.push(match (said, agent) {
        (Some(_), Some(agent)) => problem.also(agent, "for this agent"),
        (_, _) => problem,
    });
}
