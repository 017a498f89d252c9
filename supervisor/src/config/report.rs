//! Everything that is wrong with a configuration, as values and as a page for a person.
//!
//! ```text
//! error: unknown key `turn_timout`
//!   --> cofferdam.toml:12:1
//!    |
//! 12 | turn_timout = "1h"
//!    | ^^^^^^^^^^^ no such key in [agents.research]
//!    |
//!    = help: did you mean `turn_timeout`?
//! ```
//!
//! Promises: problems stand in the order of the file; no page shows a secret, not even in the line that it quotes;
//! a file with a million errors makes a short page.

use super::mask;
use annotate_snippets::{AnnotationKind, Element, Group, Level, Renderer, Snippet};
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Problems that a page shows in full; the rest is counted. More than this nobody reads before the next attempt.
pub const PROBLEMS_SHOWN_MAX: usize = 50;

/// Problems that are kept; a mebibyte of nonsense could hold half a million.
pub(super) const PROBLEMS_KEPT_MAX: usize = 2_000;

/// Longest line that is quoted, in bytes; a longer one is named by its position alone.
const QUOTED_LINE_BYTES_MAX: usize = 2_000;

/// Longest piece of the file that one problem quotes, from its first to its last line, in bytes.
const QUOTED_PART_BYTES_MAX: usize = 256 * 1024;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but hardly as it was meant.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong; lowercase, no full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Line and column, from 1, the column in characters; `None` if the file as a whole is meant.
    pub place: Option<(usize, usize)>,
    span: Option<Range<usize>>,
    label: String,
    also: Vec<(Range<usize>, String)>,
    /// Only meaningful if the whole file was understood: a missing key may be the one that could not be read.
    derived: bool,
    /// Said by the parser of TOML: what else is said of the same line follows from it.
    syntax: bool,
}

impl Problem {
    fn new(severity: Severity, span: Option<&Range<usize>>, message: impl Into<String>) -> Self {
        Self {
            severity,
            message: mask::shaped(&message.into()),
            help: None,
            place: None,
            span: span.cloned(),
            label: String::new(),
            also: Vec::new(),
            derived: false,
            syntax: false,
        }
    }

    /// Something that must be mended, at `span`.
    pub(super) fn error(span: &Range<usize>, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, Some(span), message)
    }

    /// Something that is hardly meant, at `span`.
    pub(super) fn warning(span: &Range<usize>, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, Some(span), message)
    }

    /// Something about the file as a whole.
    pub(super) fn file(severity: Severity, message: impl Into<String>) -> Self {
        Self::new(severity, None, message)
    }

    /// Says beside the marked place what is wrong with it.
    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = mask::shaped(&label.into());
        self
    }

    /// Says what to do.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(mask::shaped(&help.into()));
        self
    }

    /// Shows a second place.
    pub(super) fn also(mut self, span: &Range<usize>, label: impl Into<String>) -> Self {
        self.also.push((span.clone(), mask::shaped(&label.into())));
        self
    }

    /// Drops the problem if the file could not be read to its end.
    pub(super) fn derived(mut self) -> Self {
        self.derived = true;
        self
    }

    /// Marks the problem as one of TOML itself.
    pub(super) fn syntax(mut self) -> Self {
        self.syntax = true;
        self
    }
}

/// Collects problems while the file is read.
#[derive(Debug, Default)]
pub(super) struct Sink {
    problems: Vec<Problem>,
    dropped: usize,
    torn: Vec<usize>,
}

impl Sink {
    /// Whether further problems are only counted: then what is dear to find out about them may be left out.
    pub(super) fn is_full(&self) -> bool {
        self.problems.len() >= PROBLEMS_KEPT_MAX
    }

    /// Counts errors that nobody will see.
    pub(super) fn count_only(&mut self) {
        self.dropped += 1;
    }

    /// Takes a problem.
    pub(super) fn push(&mut self, problem: Problem) {
        if self.is_full() {
            self.dropped += usize::from(problem.severity == Severity::Error);
        } else {
            self.problems.push(problem);
        }
    }

    /// Says that part of the file could not be understood.
    pub(super) fn torn(&mut self, span: &Range<usize>) {
        if self.torn.len() < PROBLEMS_KEPT_MAX {
            self.torn.push(span.start);
        }
    }

    /// Ends the collection: errors and warnings apart, each in the order of the file.
    pub(super) fn finish(self, path: &Path, source: &str) -> (Report, Report) {
        let Self { mut problems, dropped, torn } = self;
        let source = mask::source(source);
        let lines = Lines::new(&source);
        let torn: BTreeSet<usize> = torn.into_iter().map(|at| lines.line(at)).collect();
        problems.retain(|p| {
            let line = || p.span.as_ref().is_some_and(|s| torn.contains(&lines.line(s.start)));
            torn.is_empty() || p.syntax || !(p.derived || line())
        });
        for problem in &mut problems {
            problem.place = problem.span.as_ref().map(|span| lines.place(&source, span.start));
        }
        problems.sort_by(|a, b| {
            let key = |p: &Problem| (p.span.as_ref().map(|s| s.start), p.severity);
            key(a).cmp(&key(b)).then_with(|| a.message.cmp(&b.message))
        });
        problems.dedup_by(|a, b| a.span == b.span && a.message == b.message);
        let (errors, warnings) = problems.into_iter().partition(|p| p.severity == Severity::Error);
        let report = |problems, dropped| Report { path: path.to_owned(), source: source.clone(), problems, dropped };
        (report(errors, dropped), report(warnings, 0))
    }
}

/// All that is wrong with one file.
#[derive(Clone, PartialEq, Eq)]
pub struct Report {
    path: PathBuf,
    source: String,
    problems: Vec<Problem>,
    dropped: usize,
}

impl Report {
    /// A report of one problem with the file as a whole.
    pub(super) fn of_file(path: &Path, problem: Problem) -> Self {
        Self { path: path.to_owned(), source: String::new(), problems: vec![problem], dropped: 0 }
    }

    /// This report, and then `other`, which is about the same file.
    pub(super) fn with(mut self, other: Self) -> Self {
        self.problems.extend(other.problems);
        self.dropped += other.dropped;
        self
    }

    /// The problems in the order of the file; at most 2,000 are kept.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// How many problems there are, with those that were not kept.
    pub fn count(&self) -> usize {
        self.problems.len() + self.dropped
    }

    /// The page: each problem with file, line, column and the line itself. Ends with a newline unless empty.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let lines = Lines::new(&self.source);
        let name = self.path.display().to_string();
        let mut page = String::new();
        for problem in self.problems.iter().take(PROBLEMS_SHOWN_MAX) {
            page.push_str(&self.render_one(problem, &renderer, &lines, &name));
            page.push_str("\n\n");
        }
        let more = self.count().saturating_sub(PROBLEMS_SHOWN_MAX);
        if more > 0 {
            page.extend(["... and ", &more.to_string(), " more in ", &name, "\n"]);
        } else if page.ends_with("\n\n") {
            page.pop();
        }
        page
    }

    fn render_one(&self, problem: &Problem, renderer: &Renderer, lines: &Lines, name: &str) -> String {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut elements: Vec<Element<'_>> = Vec::new();
        let mut title = problem.message.clone();
        if let Some(snippet) = self.quote(problem, lines, name) {
            elements.push(snippet.into());
        } else {
            let place = problem.place.map(|(line, column)| format!(":{line}:{column}")).unwrap_or_default();
            title = format!("{name}{place}: {title}");
            if !problem.label.is_empty() {
                elements.push(Level::NOTE.message(problem.label.clone()).into());
            }
        }
        if let Some(help) = &problem.help {
            elements.push(Level::HELP.message(help.clone()).into());
        }
        let group: Group<'_> = level.primary_title(title).elements(elements);
        renderer.render(&[group])
    }

    /// The lines that `problem` is about, unless they are too long to be shown.
    fn quote<'a>(
        &'a self,
        problem: &'a Problem,
        lines: &Lines,
        name: &'a str,
    ) -> Option<Snippet<'a, annotate_snippets::Annotation<'a>>> {
        let main = clamp(problem.span.as_ref()?, &self.source);
        let also: Vec<_> = problem.also.iter().map(|(span, label)| (clamp(span, &self.source), label)).collect();
        let spans = || std::iter::once(&main).chain(also.iter().map(|(span, _)| span));
        let first = spans().map(|s| lines.line(s.start)).min()?;
        let last = spans().map(|s| lines.line(s.end.max(s.start))).max()?;
        if spans().any(|s| (lines.line(s.start)..=lines.line(s.end)).any(|l| lines.len(l) > QUOTED_LINE_BYTES_MAX)) {
            return None;
        }
        let (from, to) = (lines.start(first), lines.end(last));
        if to - from > QUOTED_PART_BYTES_MAX {
            return None;
        }
        let part = self.source.get(from..to)?;
        let shift = |s: &Range<usize>| s.start - from..s.end - from;
        let mut snippet = Snippet::source(part).line_start(first + 1).path(name);
        let mark = AnnotationKind::Primary.span(shift(&main));
        snippet = snippet.annotation(if problem.label.is_empty() { mark } else { mark.label(problem.label.as_str()) });
        for (span, label) in &also {
            snippet = snippet.annotation(AnnotationKind::Context.span(shift(span)).label(label.as_str()));
        }
        Some(snippet)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Report {}

/// `span` within `source`, at characters, and within its first line if it goes over several.
fn clamp(span: &Range<usize>, source: &str) -> Range<usize> {
    let at = |mut i: usize| {
        i = i.min(source.len());
        while !source.is_char_boundary(i) {
            i -= 1;
        }
        i
    };
    let start = at(span.start);
    let end = at(span.end).max(start);
    let line_end = source.get(start..end).and_then(|s| s.find('\n')).map_or(end, |i| start + i);
    start..line_end
}

/// Where lines begin.
struct Lines {
    starts: Vec<usize>,
    bytes: usize,
}

impl Lines {
    fn new(source: &str) -> Self {
        let starts = std::iter::once(0).chain(source.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Self { starts, bytes: source.len() }
    }

    /// The line of the byte at `offset`, from 0.
    fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|s| *s <= offset).saturating_sub(1)
    }

    fn start(&self, line: usize) -> usize {
        self.starts.get(line).copied().unwrap_or(self.bytes)
    }

    /// The end of `line`, without its newline.
    fn end(&self, line: usize) -> usize {
        self.starts.get(line + 1).map_or(self.bytes, |next| next - 1)
    }

    fn len(&self, line: usize) -> usize {
        self.end(line) - self.start(line)
    }

    /// Line and column of `offset`, from 1.
    fn place(&self, source: &str, offset: usize) -> (usize, usize) {
        let at = clamp(&(offset..offset), source).start;
        let line = self.line(at);
        let column = source.get(self.start(line)..at).map_or(0, |before| before.chars().count());
        (line + 1, column + 1)
    }
}
