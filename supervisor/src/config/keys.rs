//! The one table of every key: what it is called, what it takes, its default, its meaning.
//!
//! The reader knows no key that is not here, the defaults that the code applies are read from here, and README's
//! reference is printed from here. `*` stands for a name that the operator chooses (or, below `jobs`, for each entry).

use super::words::{Approval, Auth, Catchup, Home, LogFormat, OnUncertain, Overlap, QueueMode, Reviewer, Sandbox};
use Absent::{None as Nothing, Required, Told, Value};
use std::fmt::Write as _;

/// One key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Where it stands, `.` between the steps, `*` for a chosen name.
    pub path: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What holds without it.
    pub default: Absent,
    /// One line of README.
    pub meaning: &'static str,
}

/// What holds where a key is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// It must be given.
    Required,
    /// Nothing.
    None,
    /// This value, in the words of the file, without quotes.
    Value(&'static str),
    /// What this text says; the code derives it from other keys.
    Told(&'static str),
}

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text without NUL.
    Text,
    /// `true` or `false`.
    Bool,
    /// A whole number within both ends.
    Integer(i64, i64),
    /// As `Integer`, or the text `none`.
    Bound(i64, i64),
    /// `90s`, `1h30m`; at least and at most so many milliseconds.
    Duration(u64, u64),
    /// `512M`; at least so many bytes.
    Size(u64),
    /// As `Size`, or the text `none`.
    SizeBound(u64),
    /// A path; relative to the file, `~` is expanded.
    Path,
    /// A name on PATH, or a path.
    Command,
    /// One of these.
    Word(&'static [&'static str]),
    /// PROVIDER/MODEL, or with a runtime as prefix.
    Model,
    /// A list of texts.
    Texts,
    /// A list of whole numbers.
    Integers,
    /// A table from names to texts.
    TextMap,
    /// A table whose keys stand in this table.
    Table,
    /// A table of tables by chosen names.
    Named,
    /// A list of tables.
    Tables,
    /// Any TOML at all, for somebody else.
    Free,
}

impl Kind {
    /// The kind in words, for README and for reports of a wrong type.
    pub(super) fn describe(self) -> String {
        match self {
            Self::Text => "text".into(),
            Self::Bool => "true or false".into(),
            Self::Integer(min, max) => format!("{min} to {max}"),
            Self::Bound(min, max) => format!("{min} to {max}, or \"none\""),
            Self::Duration(..) => "duration".into(),
            Self::Size(_) => "size".into(),
            Self::SizeBound(_) => "size, or \"none\"".into(),
            Self::Path => "path".into(),
            Self::Command => "command".into(),
            Self::Word(words) => words.join(", "),
            Self::Model => "PROVIDER/MODEL".into(),
            Self::Texts => "list of texts".into(),
            Self::Integers => "list of integers".into(),
            Self::TextMap => "table of texts".into(),
            Self::Table | Self::Named | Self::Free => "table".into(),
            Self::Tables => "list of tables".into(),
        }
    }
}

const RUNTIMES: &[&str] = &["codex", "codex-cli"];
const SECOND: u64 = 1_000;
const DAY: u64 = 86_400 * SECOND;
const MIB: u64 = 1 << 20;

/// A timeout: ten milliseconds let a test be quick, thirty days are longer than any turn.
const TIMEOUT: Kind = Kind::Duration(10, 30 * DAY);
/// A heartbeat: below two seconds a busy host would be taken for a dead worker.
const HEARTBEAT: Kind = Kind::Duration(2 * SECOND, DAY);
/// A pause, which may be none.
const PAUSE: Kind = Kind::Duration(0, 30 * DAY);

const fn key(path: &'static str, kind: Kind, default: Absent, meaning: &'static str) -> Key {
    Key { path, kind, default, meaning }
}

/// Every key, in the order of README.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("state_dir", Kind::Path, Value("~/.local/state/cofferdam"), "ledger, homes, journals; made with mode 0700"),
    key("runtime_dir", Kind::Path, Told("`state_dir`/run"), "sockets; made with mode 0700"),
    key("max_turns", Kind::Integer(1, 1_000), Value("16"), "turns at once beyond each agent's first, which never waits for it"),
    key("worker_command", Kind::Path, Told("`cofferdam-worker` beside `cofferdam`"), "the worker's binary"),
    key("ballast", Kind::Size(0), Value("16M"), "kept back on disk so that the ledger can end what it began when the disk is full"),
    key("cgroup", Kind::Text, Value("auto"), "where workers get cgroups of their own: auto (below our own, if it is ours to divide), none, or a folder of cgroup v2; read at the start"),
    key("log", Kind::Table, Nothing, "what the supervisor writes about itself"),
    key("log.filter", Kind::Text, Value("info"), "a level, or a filter such as `info,supervisor::channel=debug`"),
    key("log.format", Kind::Word(LogFormat::WORDS), Value("text"), "lines for people, or one JSON object a line"),
    key("alerts", Kind::Table, Nothing, "when owners are told of failures that nobody waits for"),
    key("alerts.after", Kind::Integer(1, 1_000), Value("3"), "identical failures of an agent in a row before its owners are told"),
    key("codex", Kind::Table, Nothing, "the Codex of every agent"),
    key("codex.command", Kind::Command, Value("codex"), "name on PATH, or a path"),
    key("providers", Kind::Named, Nothing, "where models are served; every agent's Codex knows them all; `openai` is built in"),
    key("providers.*.base_url", Kind::Text, Nothing, "must serve /responses; required for all but `openai`"),
    key("providers.*.api_key_env", Kind::Text, Nothing, "the variable that holds the key; passed to agents whose routes use the provider, to no other"),
    key("providers.*.runtime", Kind::Word(RUNTIMES), Nothing, "runtime of agents on this provider that say nothing themselves"),
    key("models", Kind::Named, Nothing, "policy by PROVIDER/MODEL"),
    key("models.*.runtime", Kind::Word(RUNTIMES), Nothing, "runtime of agents on this model that say nothing themselves"),
    key("defaults", Kind::Table, Nothing, "any key of `agents.*`, for agents without it; tables are joined key by key, lists are replaced"),
    key("agents", Kind::Named, Nothing, "one table for each agent; names are a small letter and at most 31 of a-z, 0-9, _ and -, not beginning with drill-"),
    key("agents.*.model", Kind::Model, Required, "PROVIDER/MODEL; the prefix codex-cli/ or codex/ means openai/ on that runtime"),
    key("agents.*.runtime", Kind::Word(RUNTIMES), Told("prefix of `model`, else `models`, `providers`, `defaults`, else codex"), "app-server kept warm, or one `codex exec` for each turn"),
    key("agents.*.fallbacks", Kind::Texts, Value("[]"), "models to go to when a failure allows it, in order; without a prefix they keep the agent's runtime"),
    key("agents.*.auth", Kind::Word(Auth::WORDS), Value("shared"), "the real auth.json by link, one of its own from `cofferdam login`, or none but the provider's key"),
    key("agents.*.workspace", Kind::Path, Told("`state_dir`/agents/NAME/workspace"), "working directory of its turns; must exist if given"),
    key("agents.*.max_turns", Kind::Integer(1, 64), Value("3"), "its turns at once, each of another conversation"),
    key("agents.*.queue", Kind::Word(QueueMode::WORDS), Value("steer"), "what a message during a turn does: join it, wait, wait and share one turn, or end it"),
    key("agents.*.queue_max", Kind::Integer(1, 1_000), Value("64"), "messages of the agent that may wait; further ones are refused"),
    key("agents.*.sandbox", Kind::Word(Sandbox::WORDS), Value("workspace-write"), "what Codex' tools may touch"),
    key("agents.*.network", Kind::Bool, Value("false"), "whether tools reach the network inside `workspace-write`"),
    key("agents.*.writable", Kind::Texts, Value("[]"), "further writable paths inside `workspace-write`; HOME and TMPDIR always are"),
    key("agents.*.approval", Kind::Word(Approval::WORDS), Value("never"), "whether Codex asks before it leaves the sandbox"),
    key("agents.*.reviewer", Kind::Word(Reviewer::WORDS), Value("user"), "who answers if it asks; no person can be asked yet, so under `user` every question is declined"),
    key("agents.*.user", Kind::Text, Nothing, "user of the host that its worker and Codex run as; only under a supervisor of root; a change holds from the next start of its worker"),
    key("agents.*.home", Kind::Word(Home::WORDS), Value("private"), "which HOME its processes see"),
    key("agents.*.home_share", Kind::Texts, Value("[]"), "names below the real home that a private one links to"),
    key("agents.*.env_pass", Kind::Texts, Value("[]"), "variables of the supervisor that get through beside the basics"),
    key("agents.*.env", Kind::TextMap, Nothing, "variables set for its processes"),
    key("agents.*.turn_timeout", TIMEOUT, Value("1h"), "the longest turn"),
    key("agents.*.silence_timeout", TIMEOUT, Value("10m"), "the longest silence of Codex within a turn"),
    key("agents.*.first_event_timeout", TIMEOUT, Value("2m"), "the longest wait for the first event of a turn"),
    key("agents.*.compaction_timeout", TIMEOUT, Value("10m"), "the longest compaction"),
    key("agents.*.heartbeat_timeout", HEARTBEAT, Value("15s"), "the longest silence of its worker, which is then killed with its tree and replaced"),
    key("agents.*.idle_after", PAUSE, Value("10m"), "how long a Codex child without a turn stays"),
    key("agents.*.stop_grace", PAUSE, Value("10s"), "time between the request to end and the kill"),
    key("agents.*.orphan_after", PAUSE, Value("10m"), "how long a worker without supervisor and work stays; 24h under the shipped unit, which sets COFFERDAM_ORPHAN_AFTER"),
    key("agents.*.limits", Kind::Table, Nothing, "bounds of its processes; `cofferdam doctor` says what holds each of them on this host"),
    key("agents.*.limits.memory_max", Kind::SizeBound(32 * MIB), Value("none"), "memory of all its processes together, at which a turn ends as `out_of_memory`"),
    key("agents.*.limits.memory_high", Kind::SizeBound(32 * MIB), Value("none"), "memory at which its Codex is retired between turns; at most `memory_max`"),
    key("agents.*.limits.cpu_weight", Kind::Bound(1, 10_000), Value("none"), "share of the processor; 100 is an ordinary one"),
    key("agents.*.limits.cpu_max", Kind::Bound(1, 100_000), Value("none"), "processor time in percent of one core; 150 is one and a half"),
    key("agents.*.limits.pids_max", Kind::Bound(32, 4_000_000), Value("none"), "processes and threads of all together, beyond which a turn ends as `budget`"),
    key("agents.*.limits.io_weight", Kind::Bound(1, 10_000), Value("none"), "share of the disks; 100 is an ordinary one"),
    key("agents.*.limits.open_files", Kind::Bound(256, 1_048_576), Value("none"), "descriptors that one process may have open"),
    key("agents.*.limits.core_size", Kind::SizeBound(0), Value("0B"), "size of a core file"),
    key("agents.*.limits.file_size", Kind::SizeBound(64 * MIB), Value("none"), "size of a file that one process writes, Codex' own records included"),
    key("agents.*.limits.disk_max", Kind::SizeBound(MIB), Value("none"), "size of the agent's folder; its owners are told at 80 % and at 100 %, Codex' log databases go between turns, and unused threads into its archive"),
    key("agents.*.codex_command", Kind::Command, Told("`codex.command`"), "its own Codex"),
    key("agents.*.codex", Kind::Free, Nothing, "merged into the config.toml of its Codex; our safety keys come last"),
    key("telegram", Kind::Named, Nothing, "one table for each bot"),
    key("telegram.*.token_file", Kind::Path, Nothing, "file that holds the token, readable by its owner alone; one of three ways to give it"),
    key("telegram.*.token_env", Kind::Text, Nothing, "variable that holds the token"),
    key("telegram.*.token", Kind::Text, Nothing, "the token itself, only if this file is readable by its owner alone"),
    key("telegram.*.agent", Kind::Text, Required, "who answers"),
    key("telegram.*.allow", Kind::Integers, Value("[]"), "users and chats that are heard; an empty list lets nobody in"),
    key("telegram.*.owners", Kind::Integers, Value("[]"), "users that may operate and get alerts; they are heard too"),
    key("telegram.*.api_root", Kind::Text, Value("https://api.telegram.org"), "or a self-hosted Bot API server"),
    key("jobs", Kind::Tables, Nothing, "prompts that a clock sends, `[[jobs]]` each; checked, but not run by this release"),
    key("jobs.*.name", Kind::Text, Required, "unique among jobs"),
    key("jobs.*.agent", Kind::Text, Required, "who runs it"),
    key("jobs.*.cron", Kind::Text, Required, "five fields, or six with seconds first"),
    key("jobs.*.timezone", Kind::Text, Value("UTC"), "name of a time zone"),
    key("jobs.*.prompt", Kind::Text, Required, "what is asked"),
    key("jobs.*.deliver", Kind::Text, Value("none"), "telegram:BOT:CHAT, telegram:BOT:CHAT:TOPIC, or none"),
    key("jobs.*.overlap", Kind::Word(Overlap::WORDS), Value("skip"), "what a firing does while the last run still runs"),
    key("jobs.*.catchup", Kind::Word(Catchup::WORDS), Value("latest"), "what becomes of firings missed while the supervisor was away"),
    key("jobs.*.on_uncertain", Kind::Word(OnUncertain::WORDS), Value("fail"), "what becomes of a run of which nobody knows whether its tools ran"),
];

/// The key at `path`, a path of the table.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|k| k.path == path)
}

/// The keys that may stand in the table at `path`; an empty path is the file itself.
pub(super) fn children(path: &str) -> impl Iterator<Item = (&'static str, &'static Key)> {
    let path = if path == "defaults" { "agents.*".to_owned() } else { path.replacen("defaults.", "agents.*.", 1) };
    KEYS.iter().filter_map(move |key| {
        let name = if path.is_empty() { key.path } else { key.path.strip_prefix(path.as_str())?.strip_prefix('.')? };
        (!name.contains(['.', '*'])).then_some((name, key))
    })
}

/// How a person writes the table at `path`: `[agents.*]`, `[[jobs]]`.
pub(super) fn heading(path: &str) -> String {
    match path.strip_prefix("jobs") {
        Some(_) => "[[jobs]]".to_owned(),
        None => format!("[{path}]"),
    }
}

/// README's reference: a table in Markdown of every key, its type, default and meaning.
pub fn markdown_table() -> String {
    let mut text = String::from("| key | type | default | meaning |\n|---|---|---|---|\n");
    for key in KEYS {
        let default = match key.default {
            Required => "required".to_owned(),
            Nothing => String::new(),
            Value(value) => format!("`{value}`"),
            Told(told) => told.to_owned(),
        };
        // Writing into a String cannot fail.
        let _written: std::fmt::Result =
            writeln!(text, "| `{}` | {} | {default} | {} |", key.path, key.kind.describe(), key.meaning);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_stands_once_below_a_table() {
        for (i, key) in KEYS.iter().enumerate() {
            assert!(KEYS.iter().skip(i + 1).all(|k| k.path != key.path), "{} twice", key.path);
            if let Some((parent, _)) = key.path.rsplit_once('.') {
                let (parent, named) = parent.strip_suffix(".*").map_or((parent, false), |p| (p, true));
                let kind = find(parent).map(|k| k.kind);
                let fits = if named { [Kind::Named, Kind::Tables].map(Some) } else { [Kind::Table; 2].map(Some) };
                assert!(fits.contains(&kind), "{}: parent {kind:?}", key.path);
            }
            assert!(!key.meaning.contains('|') && !key.meaning.ends_with('.'), "{}", key.path);
        }
    }

    #[test]
    fn defaults_take_the_keys_of_agents() {
        let of = |path: &str| children(path).map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(of("defaults"), of("agents.*"));
        assert_eq!(of("defaults.limits"), of("agents.*.limits"));
        assert!(of("").contains(&"state_dir") && !of("").contains(&"model"));
    }

    #[test]
    fn the_table_has_a_line_for_each_key() {
        assert_eq!(markdown_table().lines().count(), KEYS.len() + 2);
    }
}
