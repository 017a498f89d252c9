//! The configuration as a whole: what a file means, what a page of errors looks like, and what no input may do.

use super::*;
use proptest::prelude::*;
use protocol::{AgentName, Runtime};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// The example of the reference, whole.
const EXAMPLE: &str = r#"
state_dir   = "~/.local/state/cofferdam"
runtime_dir = "~/.local/state/cofferdam/run"
max_turns   = 16

[codex]
command = "codex"

[providers.ollama]
base_url = "http://127.0.0.1:11434/v1"
api_key_env = "OLLAMA_API_KEY"
runtime = "codex-cli"

[defaults]
model = "openai/gpt-5.5"

[models."openai/gpt-5.5"]
runtime = "codex-cli"

[agents.research]
model     = "codex-cli/gpt-5.5"
auth      = "shared"
workspace = "~/research"
fallbacks = ["openai/gpt-5.4", "codex-cli/gpt-5.5", "ollama/glm-5.1"]
max_turns = 3
queue     = "steer"
sandbox   = "workspace-write"
network   = true
approval  = "never"
home      = "private"
home_share = [".gitconfig", ".config/gh"]
env_pass  = ["GITHUB_TOKEN"]
env       = { RUST_LOG = "warn" }
turn_timeout = "1h"
silence_timeout = "10m"
compaction_timeout = "10m"
idle_after = "10m"
limits    = { memory_max = "2G", memory_high = "1536M", cpu_weight = 100, pids_max = 512 }
[agents.research.codex]
model_reasoning_effort = "high"

[telegram.research_bot]
token_file = "research.token"
agent      = "research"
allow      = [11111111]
owners     = [11111111]
api_root   = "https://api.telegram.org"

[[jobs]]
name = "digest"
agent = "research"
cron = "0 3 * * *"
timezone = "Europe/Berlin"
prompt = "..."
deliver = "telegram:research_bot:11111111"
overlap = "skip"
catchup = "latest"
"#;

/// A home with a workspace and a token; the file itself is not written.
struct World {
    dir: tempfile::TempDir,
    env: Environment,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("research")).unwrap();
        let world = Self { env: Environment { home: Some(dir.path().into()), ..Environment::default() }, dir };
        world.file("research.token", "123456:secret-of-research\n", 0o600);
        world
    }

    fn file(&self, name: &str, content: &str, mode: u32) {
        let path = self.dir.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn var(mut self, name: &str, value: &str) -> Self {
        self.env.vars.insert(name.into(), value.into());
        self
    }

    fn parse(&self, source: &str) -> Result<Loaded, Report> {
        Config::parse(&self.dir.path().join("c.toml"), source, false, &self.env)
    }

    /// The page of errors with the folder of the test taken out.
    fn page(&self, source: &str) -> String {
        let page = match self.parse(source) {
            Ok(loaded) => loaded.warnings.render(false),
            Err(report) => report.render(false),
        };
        page.replace(self.dir.path().to_str().unwrap(), "~")
    }

    fn config(&self, source: &str) -> Config {
        self.parse(source).unwrap_or_else(|report| panic!("{report}")).config
    }
}

fn agent(config: &Config, name: &str) -> Agent {
    config.agents[&AgentName::parse(name).unwrap()].clone()
}

#[test]
fn the_example_means_what_it_says() {
    let world = World::new().var("OLLAMA_API_KEY", "k");
    let loaded = world.parse(EXAMPLE).unwrap();
    // A fallback that is the first route; and what this release does not do: jobs.
    assert_eq!(loaded.warnings.count(), 2, "{}", loaded.warnings);
    let config = loaded.config;
    let home = world.dir.path();
    assert_eq!(config.state_dir, home.join(".local/state/cofferdam"));
    assert_eq!(config.control_socket(), home.join(".local/state/cofferdam/run/control.sock"));
    let research = agent(&config, "research");
    assert_eq!(research.route.to_string(), "openai/gpt-5.5 on codex-cli");
    assert_eq!(research.runtime_from, RuntimeFrom::Prefix);
    assert!(research.runtime_explicit());
    let fallbacks: Vec<String> = research.fallbacks.iter().map(ToString::to_string).collect();
    assert_eq!(fallbacks, ["openai/gpt-5.4 on codex-cli", "ollama/glm-5.1 on codex-cli"]);
    assert_eq!(research.workspace, home.join("research"));
    assert_eq!(research.limits.memory_high, Some(1536 << 20));
    assert_eq!(research.codex, "model_reasoning_effort = \"high\"\n");
    assert_eq!(research.turn_timeout, Duration::from_hours(1));
    let bot = &config.bots["research_bot"];
    assert_eq!(bot.token.reveal(), "123456:secret-of-research");
    assert_eq!(bot.token_file, Some(home.join("research.token")));
    assert!(!format!("{config:?}").contains("secret-of"));
    let job = &config.jobs[0];
    assert_eq!(job.deliver, Deliver::Telegram { bot: "research_bot".into(), chat: 11_111_111, topic: None });
    assert_eq!((job.prompt.as_str(), job.catchup, job.on_uncertain), ("...", Catchup::Latest, OnUncertain::Fail));
    assert_eq!(config.providers_of(&research).into_keys().collect::<Vec<_>>(), ["ollama", "openai"]);
}

#[test]
fn the_runtime_is_chosen_in_the_order_of_the_reference() {
    use Runtime::{Codex, CodexCli};
    let world = World::new();
    let run = |defaults: &str, tables: &str, own: &str| {
        let source = format!("[defaults]\n{defaults}\n{tables}\n[agents.a]\n{own}\n");
        let a = agent(&world.config(&source), "a");
        (a.route.runtime, a.runtime_from)
    };
    let by_provider = "[providers.p]\nbase_url = \"http://h/v1\"\nruntime = \"codex-cli\"\n";
    let by_model = format!("{by_provider}[models.\"p/m\"]\nruntime = \"codex\"\n");
    let by_defaults = "runtime = \"codex-cli\"\nmodel = \"openai/x\"";
    assert_eq!(run("", "", "model = \"openai/x\""), (Codex, RuntimeFrom::BuiltIn));
    assert_eq!(run(by_defaults, "", ""), (CodexCli, RuntimeFrom::Defaults));
    assert_eq!(run("runtime = \"codex\"", by_provider, "model = \"p/m\""), (CodexCli, RuntimeFrom::Provider));
    assert_eq!(run(by_defaults, &by_model, "model = \"p/m\""), (Codex, RuntimeFrom::Model));
    assert_eq!(run("", &by_model, "model = \"p/m\"\nruntime = \"codex-cli\""), (CodexCli, RuntimeFrom::Agent));
    assert_eq!(run(by_defaults, "", "model = \"codex/x\""), (Codex, RuntimeFrom::Prefix));
    assert_eq!(run("model = \"codex-cli/x\"", "", "runtime = \"codex\""), (CodexCli, RuntimeFrom::Prefix));
}

#[test]
fn fallbacks_keep_the_runtime_unless_they_say() {
    let a = agent(
        &World::new().config(
            "[agents.a]\nmodel = \"openai/x\"\nruntime = \"codex-cli\"\nfallbacks = [\"openai/y\", \"codex/x\"]\n",
        ),
        "a",
    );
    let all: Vec<String> = a.routes().map(ToString::to_string).collect();
    assert_eq!(all, ["openai/x on codex-cli", "openai/y on codex-cli", "openai/x on codex"]);
}

#[test]
fn tables_are_joined_with_the_defaults_and_lists_replaced() {
    let config = World::new().config(
        r#"
[defaults]
model = "openai/x"
env = { A = "1", B = "1" }
env_pass = ["P"]
limits = { pids_max = 100, memory_max = "1G" }
codex = { x = 1, t = { a = 1, b = 1 } }
[agents.a]
env = { B = "2" }
env_pass = ["Q"]
limits = { pids_max = "none" }
codex = { t = { b = 2 } }
[agents.b]
"#,
    );
    let a = agent(&config, "a");
    assert_eq!(a.env, BTreeMap::from([("A".into(), "1".into()), ("B".into(), "2".into())]));
    assert_eq!(a.env_pass.into_iter().collect::<Vec<_>>(), ["Q"]);
    assert_eq!((a.limits.pids_max, a.limits.memory_max, a.limits.memory_high), (None, Some(1 << 30), None));
    assert_eq!(a.codex, "x = 1\n\n[t]\na = 1\nb = 2\n");
    assert_eq!(agent(&config, "b").limits.pids_max, Some(100));
}

#[test]
fn the_defaults_of_the_table_are_those_of_the_code() {
    let config = World::new().config("[agents.a]\nmodel = \"openai/x\"\n");
    let a = agent(&config, "a");
    let shown = BTreeMap::from([
        ("max_turns", config.max_turns.to_string()),
        ("ballast", show_size(config.ballast_bytes)),
        ("log.filter", config.log.filter.clone()),
        ("log.format", config.log.format.to_string()),
        ("alerts.after", config.alerts.after.to_string()),
        ("codex.command", config.codex_command.display().to_string()),
        ("agents.*.fallbacks", format!("{:?}", a.fallbacks)),
        ("agents.*.auth", a.auth.to_string()),
        ("agents.*.max_turns", a.max_turns.to_string()),
        ("agents.*.queue", a.queue.to_string()),
        ("agents.*.queue_max", a.queue_max.to_string()),
        ("agents.*.sandbox", a.sandbox.to_string()),
        ("agents.*.network", a.network.to_string()),
        ("agents.*.writable", format!("{:?}", a.writable)),
        ("agents.*.approval", a.approval.to_string()),
        ("agents.*.reviewer", a.reviewer.to_string()),
        ("agents.*.home", a.home.to_string()),
        ("agents.*.home_share", format!("{:?}", a.home_share)),
        ("agents.*.env_pass", format!("[{}]", a.env_pass.len()).replace('0', "")),
        ("agents.*.turn_timeout", show_duration(a.turn_timeout)),
        ("agents.*.silence_timeout", show_duration(a.silence_timeout)),
        ("agents.*.first_event_timeout", show_duration(a.first_event_timeout)),
        ("agents.*.compaction_timeout", show_duration(a.compaction_timeout)),
        ("agents.*.heartbeat_timeout", show_duration(a.heartbeat_timeout)),
        ("agents.*.idle_after", show_duration(a.idle_after)),
        ("agents.*.stop_grace", show_duration(a.stop_grace)),
        ("agents.*.orphan_after", show_duration(a.orphan_after)),
        ("agents.*.limits.memory_max", a.limits.memory_max.map_or("none".into(), show_size)),
        ("agents.*.limits.memory_high", a.limits.memory_high.map_or("none".into(), show_size)),
        ("agents.*.limits.cpu_weight", a.limits.cpu_weight.map_or("none".into(), |n| n.to_string())),
        ("agents.*.limits.cpu_max", a.limits.cpu_max.map_or("none".into(), |n| n.to_string())),
        ("agents.*.limits.pids_max", a.limits.pids_max.map_or("none".into(), |n| n.to_string())),
        ("agents.*.limits.io_weight", a.limits.io_weight.map_or("none".into(), |n| n.to_string())),
        ("agents.*.limits.open_files", a.limits.open_files.map_or("none".into(), |n| n.to_string())),
        ("agents.*.limits.core_size", a.limits.core_size.map_or("none".into(), show_size)),
        ("agents.*.limits.disk_max", a.limits.disk_max.map_or("none".into(), show_size)),
        ("agents.*.limits.file_size", a.limits.file_size.map_or("none".into(), show_size)),
        ("cgroup", if config.cgroup == Cgroup::Auto { "auto".into() } else { String::new() }),
    ]);
    for key in KEYS {
        let Absent::Value(text) = key.default else { continue };
        // The path of the state depends on the home; bots and jobs have a test of their own.
        if key.path == "state_dir" || key.path.starts_with("telegram") || key.path.starts_with("jobs") {
            continue;
        }
        let same = |shown: &String| {
            shown == text || matches!(key.kind, Kind::Duration(..)) && parse_duration(text) == parse_duration(shown)
        };
        assert!(shown.get(key.path).is_some_and(same), "{}: {text} but {:?}", key.path, shown.get(key.path));
    }
}

#[test]
fn the_defaults_of_bots_and_jobs_are_those_of_the_table() {
    let world = World::new();
    let source = "[agents.a]\nmodel = \"openai/x\"\n[telegram.b]\nagent = \"a\"\ntoken_file = \"research.token\"\n\
                  [[jobs]]\nname = \"j\"\nagent = \"a\"\ncron = \"0 0 29 2 *\"\nprompt = \"p\"\n";
    let config = world.config(source);
    let (bot, job) = (&config.bots["b"], &config.jobs[0]);
    let shown = [
        ("telegram.*.allow", format!("{:?}", bot.allow).replace(['{', '}'], "[").replace("[[", "[]")),
        ("telegram.*.owners", "[]".to_owned()),
        ("telegram.*.api_root", bot.api_root.clone()),
        ("jobs.*.timezone", job.timezone.clone()),
        ("jobs.*.deliver", if job.deliver == Deliver::None { "none".into() } else { String::new() }),
        ("jobs.*.overlap", job.overlap.to_string()),
        ("jobs.*.catchup", job.catchup.to_string()),
        ("jobs.*.on_uncertain", job.on_uncertain.to_string()),
    ];
    let table = KEYS.iter().filter(|k| k.path.starts_with("telegram") || k.path.starts_with("jobs"));
    let table =
        table.filter_map(|k| if let Absent::Value(v) = k.default { Some((k.path, v.to_owned())) } else { None });
    assert_eq!(shown.to_vec(), table.collect::<Vec<_>>());
}

#[test]
fn a_reload_finds_the_agents_that_changed() {
    let world = World::new();
    let before = world.config("[defaults]\nmodel = \"openai/x\"\n[agents.a]\n[agents.b]\nruntime = \"codex\"\n");
    let after = world.config(
        "[defaults]\nmodel = \"openai/x\"\nruntime = \"codex-cli\"\n[agents.a]\n[agents.b]\nruntime = \"codex\"\n",
    );
    assert_ne!(agent(&before, "a"), agent(&after, "a"));
    assert_eq!(agent(&before, "b"), agent(&after, "b"));
}

#[test]
fn the_unit_lets_orphans_live_longer_and_the_file_decides() {
    let world = World::new().var("COFFERDAM_ORPHAN_AFTER", "24h");
    let config = world.config("[defaults]\nmodel = \"openai/x\"\n[agents.a]\n[agents.b]\norphan_after = \"1m\"\n");
    assert_eq!(agent(&config, "a").orphan_after, Duration::from_hours(24));
    assert_eq!(agent(&config, "b").orphan_after, Duration::from_mins(1));
}

#[test]
fn the_template_loads_and_so_do_its_comments() {
    let world = World::new();
    let source = template(&AgentName::parse("research").unwrap(), 11_111_111);
    let loaded = world.parse(&source).unwrap();
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    // Every commented key: a line that is TOML behind its `# `.
    let open: Vec<String> = source
        .lines()
        .map(|line| {
            match line.strip_prefix("# ") {
                Some(rest)
                    if rest.starts_with('[') || rest.split_once('=').is_some_and(|(k, _)| !k.trim().contains(' ')) =>
                {
                    rest
                }
                _ => line,
            }
            .to_owned()
        })
        .collect();
    let config = world.config(&open.join("\n"));
    assert_eq!(config.providers.len(), 2);
    assert_eq!(agent(&config, "research").codex, "model_reasoning_effort = \"high\"\n");
}

#[test]
fn a_page_of_errors() {
    let world = World::new().var("B", "123456:secret-of-research").var("EMPTY", "");
    world.file("open.token", "1:x", 0o644);
    let source = include_str!("snapshots/errors.toml");
    insta::assert_snapshot!("errors", world.page(source));
    insta::assert_snapshot!("channels", world.page(include_str!("snapshots/channels.toml")));
}

#[test]
fn a_page_of_warnings() {
    let source = r#"
[providers.p]
base_url = "http://h/v1"
api_key_env = "P_KEY"
[providers.unused]
base_url = "http://h/v1"
api_key_env = "NOT_MISSED"
[defaults]
model = "codex-cli/x"
[agents.a]
runtime = "codex"
fallbacks = ["p/m", "codex-cli/x", "p/m"]
auth = "none"
env_pass = ["P_KEY"]
writable = ["nowhere"]
[agents.a.codex]
approval_policy = "on-request"
[agents.b]
approval = "on-request"
limits = { memory_max = "1G" }
[agents.c]
approval = "on-request"
reviewer = "user"
[agents.d]
approval = "on-request"
reviewer = "auto"
[telegram.b]
agent = "a"
token_file = "research.token"
[[jobs]]
name = "j"
agent = "a"
cron = "0 7 * * *"
prompt = "p"
"#;
    insta::assert_snapshot!("warnings", World::new().page(source));
}

#[test]
fn what_the_release_does_not_do_is_said_once_for_the_defaults() {
    let source = "[defaults]\nmodel = \"openai/x\"\napproval = \"on-request\"\n\
                  [agents.a]\n[agents.b]\n[agents.c]\nreviewer = \"auto\"\n";
    let loaded = World::new().parse(source).unwrap();
    let places: Vec<_> = loaded.warnings.problems().iter().map(|problem| problem.place).collect();
    assert_eq!(places, [Some((3, 12))], "{}", loaded.warnings);
    let quiet = source.replace("[agents.a]\n[agents.b]\n", "");
    assert!(World::new().parse(&quiet).unwrap().warnings.is_empty());
}

#[test]
fn only_a_token_from_a_file_names_one() {
    let source = "[agents.a]\nmodel = \"openai/x\"\n[telegram.b]\nagent = \"a\"\nowners = [1]\ntoken_env = \"T\"\n";
    assert_eq!(World::new().var("T", "1:x").config(source).bots["b"].token_file, None);
}

#[test]
fn a_page_of_broken_toml() {
    let source = "max_turns = \n[agents.a]\nmodel = openai/x\nturn_timout = \"1h\"\nqueue = \"steer\nsandbox = \"no\"\n\
                  [agents.b\nmodel = \"openai/x\"\n[agents.a]\n[telegram.b]\nagent = \"a\"\nagent = \"b\"\ntoken = \"1:hush";
    let page = World::new().page(source);
    assert!(!page.contains("hush"));
    insta::assert_snapshot!("broken", page);
}

#[test]
fn sockets_must_fit() {
    let long = "x".repeat(90);
    let page = |source: String| World::new().page(&source);
    let one = page(format!("runtime_dir = \"/{long}\"\n[agents.abcdefgh]\nmodel = \"openai/x\"\n"));
    assert!(one.contains("has 112 bytes, at most 107") && one.contains("~/c.toml:1:15"), "{one}");
    let fits = format!("runtime_dir = \"/{long}\"\n[agents.abc]\nmodel = \"openai/x\"\n");
    assert_eq!(World::new().config(&fits).agent_socket(&AgentName::parse("abc").unwrap()).as_os_str().len(), 107);
    let state = page(format!("state_dir = \"/{long}\"\n[agents.a]\nmodel = \"openai/x\"\n"));
    assert!(state.contains("~/c.toml:1:13"), "{state}");
}

#[test]
fn a_token_in_the_file_needs_a_private_file_and_is_never_shown() {
    let world = World::new();
    let path = world.dir.path().join("c.toml");
    let source =
        "[agents.a]\nmodel = \"openai/x\"\n[telegram.b]\nagent = \"a\"\nowners = [1]\ntoken = \"123456:hush-hush\"\n";
    world.file("c.toml", source, 0o600);
    assert_eq!(Config::load(&path, &world.env).unwrap().config.bots["b"].token.reveal(), "123456:hush-hush");
    for mode in [0o640, 0o604, 0o644] {
        world.file("c.toml", source, mode);
        let page = Config::load(&path, &world.env).unwrap_err().render(true);
        assert!(page.contains("others may read the token") && !page.contains("hush"), "{page}");
    }
}

#[test]
fn credentials_of_systemd_may_have_any_mode() {
    let world = World::new();
    world.file("c.token", "1:x", 0o444);
    let source =
        "[agents.a]\nmodel = \"openai/x\"\n[telegram.b]\nagent = \"a\"\nowners = [1]\ntoken_file = \"c.token\"\n";
    assert!(world.page(source).contains("mode 0444"));
    let dir = world.dir.path().to_str().unwrap().to_owned();
    assert_eq!(world.var("CREDENTIALS_DIRECTORY", &dir).config(source).bots["b"].token.reveal(), "1:x");
}

#[test]
fn names_of_throw_away_agents_are_kept_for_the_drill() {
    let world = World::new();
    let page = world.page("[defaults]\nmodel = \"openai/gpt-5.5\"\n[agents.drill-x]\n[agents.drillx]\n");
    assert!(page.contains("names that begin with drill- are kept for `cofferdam drill`"), "{page}");
    assert!(!page.contains("agents.drillx"), "{page}");
}

#[test]
fn hostile_files_end_in_one_sentence() {
    let world = World::new();
    let at = |name: &str| world.dir.path().join(name);
    let page = |name: &str| Config::load(&at(name), &world.env).unwrap_err().render(false);
    assert!(page("missing").contains("it does not exist"));
    assert!(page("research").contains("it is a directory"));
    let huge = fs::File::create(at("huge")).unwrap();
    huge.set_len(100 << 20).unwrap();
    assert!(page("huge").contains("larger than 1048576 bytes"));
    fs::write(at("latin"), b"max_turns = 1\n# caf\xe9\n").unwrap();
    assert!(page("latin").contains("latin:2:6"), "{}", page("latin"));
    fs::write(at("nul"), b"max_turns = 1\nlog = \0\n").unwrap();
    assert!(page("nul").contains("nul:2:7"), "{}", page("nul"));
}

#[test]
fn a_flood_of_nonsense_is_a_short_page() {
    let world = World::new();
    let size = 128 * 1024;
    for (piece, tail) in [
        ("[", ""),
        ("a = 1\n", ""),
        ("[agents.a]\n", ""),
        ("=\n", ""),
        ("a.", ""),
        ("{", ""),
        ("token=", ""),
        ("x = [[[[", "\n"),
        ("[[jobs]]\n", ""),
        ("[[jobs]]\nname=\"a\"\ncron=\"x\"\ndeliver=\"y\"\ntimezone=\"z\"\n", ""),
        ("\"", ""),
        ("\"\"\"", ""),
    ] {
        let source = piece.repeat(size / piece.len()) + tail;
        let report = world.parse(&source).err();
        let page = report.as_ref().map(|r| r.render(false)).unwrap_or_default();
        assert!(page.len() < 200_000, "{piece:?}: {} bytes", page.len());
    }
    let many = (0..10_000).map(|i| format!("k{i} = 1")).collect::<Vec<_>>().join("\n");
    let report = world.parse(&many).unwrap_err();
    assert_eq!(report.count(), 10_000);
    assert!(report.render(false).ends_with("c.toml\n") && report.render(false).contains("... and 9950 more"));
}

/// What mutations insert: what the syntax is made of, and what keys and values are made of.
const PIECES: [&str; 28] = [
    "[",
    "]",
    "[[",
    "{",
    "}",
    "=",
    "\"",
    "'",
    "\"\"\"",
    "\n",
    "\r\n",
    "#",
    ",",
    ".",
    "\\",
    "\0",
    "\t",
    "é",
    "🔒",
    "-",
    "0x",
    "1e9",
    "inf",
    "2020-01-01",
    "99999999999999999999",
    "token = \"x\"\n",
    "[agents.research]\n",
    "\u{feff}",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn mutations_never_panic_and_every_place_is_in_the_file(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..40, 0_usize..PIECES.len(), any::<bool>()), 1..12)
    ) {
        let world = World::new();
        let mut chars: Vec<char> = EXAMPLE.chars().collect();
        for (at, length, piece, keep) in cuts {
            let from = at.index(chars.len().max(1)).min(chars.len());
            let to = if keep { from } else { (from + length).min(chars.len()) };
            chars.splice(from..to, PIECES[piece].chars());
        }
        let source: String = chars.into_iter().collect();
        let result = world.parse(&source);
        let (report, warnings) = match &result {
            Ok(loaded) => (None, &loaded.warnings),
            Err(report) => (Some(report), report),
        };
        prop_assert!(report.is_none_or(|r| !r.is_empty()));
        let lines: Vec<&str> = source.split('\n').collect();
        for problem in warnings.problems() {
            if let Some((line, column)) = problem.place {
                prop_assert!((1..=lines.len()).contains(&line), "{line} of {}", lines.len());
                prop_assert!((1..=lines[line - 1].chars().count() + 1).contains(&column), "{line}:{column}");
            }
        }
        prop_assert!(!warnings.render(true).contains("secret-of-research"));
    }

    #[test]
    fn no_text_panics(source in "\\PC{0,200}") {
        drop(World::new().parse(&source).map_err(|r| r.render(false)));
    }
}

#[test]
fn a_path_is_relative_to_the_current_directory() {
    let mut world = World::new();
    world.env.current_dir = world.dir.path().to_owned();
    world.file("c.toml", "[agents.a]\nmodel = \"openai/x\"\nworkspace = \"research\"\n", 0o644);
    let config = Config::load(Path::new("c.toml"), &world.env).unwrap().config;
    assert_eq!(config.path, world.dir.path().join("c.toml"));
    assert_eq!(agent(&config, "a").workspace, world.dir.path().join("research"));
}
