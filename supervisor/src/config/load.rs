//! From a path to a [`Config`]: reads, parses, and lets the rest check what was understood.

use super::files::{self, CannotRead};
use super::model::Config;
use super::paths::Environment;
use super::read::{Reader, Span};
use super::report::{Problem, Report, Severity, Sink};
use super::resolve;
use super::section::{Section, World};
use super::value::echo;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// Largest configuration in bytes: a thousand agents with prose need a tenth of it.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// A configuration and what is odd about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// What holds.
    pub config: Config,
    /// What is hardly meant; may be empty.
    pub warnings: Report,
}

impl Config {
    /// Reads and checks the file at `path`. A report of errors ends with the warnings that came with them.
    pub fn load(path: &Path, env: &Environment) -> Result<Loaded, Report> {
        let path: PathBuf = env.current_dir.join(path).components().collect();
        let content = files::read(&path, FILE_BYTES_MAX).map_err(|why| unreadable(&path, &why))?;
        let private = content.is_private();
        match String::from_utf8(content.bytes) {
            Ok(source) => Self::parse(&path, &source, private, env),
            Err(bad) => Err(not_text(&path, &bad)),
        }
    }

    /// Checks `source` as the content of `path`; `private` says whether its owner alone can read the file.
    pub fn parse(path: &Path, source: &str, private: bool, env: &Environment) -> Result<Loaded, Report> {
        let mut sink = Sink::default();
        let (tree, errors) = DeTable::parse_recoverable(source);
        let mut first = FirstPlaces::default();
        for error in errors {
            if sink.is_full() {
                sink.count_only();
                continue;
            }
            let span = error.span().unwrap_or(0..0);
            if error.message().starts_with("duplicate key") {
                first.fill(tree.get_ref(), source);
                if let Some(problem) = twice(source, &span, &mut first) {
                    sink.push(problem);
                }
            } else {
                sink.torn(&span);
                sink.push(Problem::error(&span, format!("bad TOML: {}", error.message())).syntax());
            }
        }
        let dir = path.parent().unwrap_or(Path::new("/"));
        let root = Reader { env, dir, sink: &mut sink }.file(tree.get_ref());
        let world = World { env, dir, file_private: private };
        let config = resolve::config(path, &Section::new("", Some(&root), world), world, &mut sink);
        let (errors, warnings) = sink.finish(path, source);
        if errors.is_empty() { Ok(Loaded { config, warnings }) } else { Err(errors.with(warnings)) }
    }
}

fn unreadable(path: &Path, why: &CannotRead) -> Report {
    let problem = Problem::file(Severity::Error, format!("cannot read the configuration: {why}"));
    let problem = match why {
        CannotRead::Missing => problem.help("`cofferdam init` writes one"),
        CannotRead::Directory | CannotRead::Special | CannotRead::TooLarge(_) | CannotRead::Io(_) => problem,
    };
    Report::of_file(path, problem)
}

fn not_text(path: &Path, bad: &std::string::FromUtf8Error) -> Report {
    let at = bad.utf8_error().valid_up_to();
    // What stands before the first bad byte keeps its place; the byte itself becomes one character.
    let shown = String::from_utf8_lossy(bad.as_bytes()).into_owned();
    let mut sink = Sink::default();
    sink.push(Problem::error(&(at..at + 1), "the file is not UTF-8").label("this byte begins no character"));
    sink.finish(path, &shown).0
}

/// Where keys and headings stand first.
#[derive(Debug, Default)]
struct FirstPlaces {
    filled: bool,
    keys: BTreeMap<String, Vec<Span>>,
    headings: BTreeMap<String, Vec<Span>>,
    /// Where headings begin, in the order of the file.
    starts: Vec<usize>,
    /// The headings that stand twice, by their place in `starts`.
    twice: BTreeSet<usize>,
}

impl FirstPlaces {
    /// The number of the heading that `offset` stands below or in; 0 above the first.
    fn heading_before(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    /// The last key called `name` before `offset`.
    fn key_before(&self, name: &str, offset: usize) -> Option<&Span> {
        let all = self.keys.get(name)?;
        all.get(all.partition_point(|s| s.start < offset).checked_sub(1)?)
    }

    fn fill(&mut self, tree: &DeTable<'_>, source: &str) {
        if std::mem::replace(&mut self.filled, true) {
            return;
        }
        self.fill_keys(tree);
        self.keys.values_mut().for_each(|spans| spans.sort_by_key(|s| s.start));
        let mut at = 0;
        for line in source.split_inclusive('\n') {
            if let Some(heading) = heading(line) {
                let start = at + line.find(heading).unwrap_or(0);
                self.starts.push(start);
                self.headings.entry(heading.to_owned()).or_default().push(start..start + heading.len());
            }
            at += line.len();
        }
    }

    fn fill_keys(&mut self, table: &DeTable<'_>) {
        for (name, value) in table {
            self.keys.entry(name.get_ref().to_string()).or_default().push(name.span());
            match value.get_ref() {
                DeValue::Table(table) => self.fill_keys(table),
                DeValue::Array(list) => {
                    list.iter().filter_map(|item| item.get_ref().as_table()).for_each(|table| self.fill_keys(table));
                }
                DeValue::String(_)
                | DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_) => {}
            }
        }
    }
}

/// The `[a.b]` that `line` is, if it is one.
fn heading(line: &str) -> Option<&str> {
    let line = line.trim();
    let end = line.starts_with('[').then(|| line.find(']'))??;
    line.get(..=end)
}

/// Says that the key at `span` stands twice, and where it stands first. `None`: its whole table does, which was said.
fn twice(source: &str, span: &Span, first: &mut FirstPlaces) -> Option<Problem> {
    let name = source.get(span.clone()).unwrap_or("").trim_matches(['"', '\'']);
    let line_start = source.get(..span.start).and_then(|before| before.rfind('\n')).map_or(0, |i| i + 1);
    let head = source.get(line_start..).and_then(|rest| rest.lines().next()).and_then(heading);
    let Some(head) = head else {
        if first.twice.contains(&first.heading_before(span.start)) {
            return None;
        }
        let problem = Problem::error(span, format!("key {} stands twice", echo(name))).label("and here again");
        return Some(match first.key_before(name, span.start) {
            Some(first) => problem.also(first, "first here"),
            None => problem,
        });
    };
    first.twice.insert(first.heading_before(span.start));
    let path = head.trim_matches(['[', ']', ' ']);
    let what = match path.split_once('.') {
        Some(("agents", agent)) if agent == name => format!("agent {} is named twice", echo(name)),
        Some(("telegram", bot)) if bot == name => format!("bot {} is named twice", echo(name)),
        Some(_) | None => format!("table {} stands twice", echo(path)),
    };
    let problem = Problem::error(span, what).label("and here again").help("join both, or rename one");
    Some(match first.headings.get(head).and_then(|all| all.first()).filter(|s| s.start < line_start) {
        Some(first) => problem.also(first, "first here"),
        None => problem,
    })
}
