//! Reads the tree, and tells code from comments, from text in quotes, and from tests.
//!
//! ```text
//!  text         every character as it stands
//!  code         the same, with comments and the insides of quotes blanked      } of equal layout: a place in one
//!  production   code, with #[cfg(test)] items and test files blanked           } is the same place in all
//!  strings      only the insides of quotes, outside tests
//! ```
//! This is a reader of shapes, no parser: it knows quotes, comments, brackets and attributes, and that is enough for the rules.

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

/// Folders that hold nothing of ours.
const SKIPPED: [&str; 3] = [".git", "target", "node_modules"];
/// The attribute that opens what only tests see.
const TEST_ATTRIBUTE: &str = "#[cfg(test)]";

/// One Rust file, in the four views above.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: String,
    pub(super) text: String,
    pub(super) code: String,
    pub(super) production: String,
    pub(super) strings: String,
}

/// All files that can be read as text, by their path below the root.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) sources: Vec<Source>,
    pub(super) files: Vec<(String, String)>,
    pub(super) top: BTreeSet<String>,
}

impl Tree {
    pub(super) fn read(root: &Path) -> io::Result<Self> {
        let mut files = Vec::new();
        collect(root, "", &mut files)?;
        let top = fs::read_dir(root)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<_>>()?;
        Ok(Self { top, ..Self::of(files) })
    }

    /// A tree of files that stand in the test itself.
    pub(super) fn sample(files: &[(&str, &str)]) -> Self {
        Self::of(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
    }

    fn of(mut files: Vec<(String, String)>) -> Self {
        files.sort();
        let mut sources: Vec<Source> = files
            .iter()
            .filter(|(path, _)| Path::new(path).extension().is_some_and(|kind| kind == "rs"))
            .map(|(path, text)| Source::new(path, text))
            .collect();
        let tests: Vec<String> = sources.iter().flat_map(test_modules).collect();
        for source in &mut sources {
            if is_test_file(&source.path, &tests) {
                source.production = blank(&source.production);
                source.strings = blank(&source.strings);
            }
        }
        let top = files.iter().filter_map(|(path, _)| path.split('/').next()).map(str::to_owned).collect();
        Self { sources, files, top }
    }
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let kinds = kinds(&chars);
        let code = view(&chars, &kinds, Kind::Code);
        let strings = view(&chars, &kinds, Kind::Quoted);
        let tests = test_regions(&code);
        let without = |view: &str| {
            view.chars()
                .enumerate()
                .map(|(at, c)| if tests.iter().any(|r| r.contains(&at)) { hole(c) } else { c })
                .collect()
        };
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            production: without(&code),
            strings: without(&strings),
            code,
        }
    }

    /// The package's folder: `supervisor`, `worker`, `protocol` or `tests`.
    pub(super) fn package(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    /// The file's place in its crate: `machine`, `fleet`; empty for the crate's root and for what stands outside `src`.
    pub(super) fn module(&self) -> Vec<String> {
        let Some((_, below)) = self.path.split_once("/src/") else { return Vec::new() };
        let mut parts: Vec<String> = below.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if parts.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
            parts.pop();
        }
        parts
    }
}

/// Lines of a view that contain `word`, not as a part of a longer name; counted from 1.
pub(super) fn lines_with(view: &str, word: &str) -> Vec<usize> {
    let named = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let starts_named = named(word.chars().next());
    let ends_named = named(word.chars().last());
    let holds = |line: &str| {
        line.match_indices(word).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = line[at + word.len()..].chars().next();
            !(starts_named && named(before) || ends_named && named(after))
        })
    };
    view.lines().enumerate().filter(|(_, line)| holds(line)).map(|(index, _)| index + 1).collect()
}

fn collect(folder: &Path, below: &str, files: &mut Vec<(String, String)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type()?;
        if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
            collect(&entry.path(), &format!("{below}{name}/"), files)?;
        } else if kind.is_file()
            // In a linked worktree this is a file, and no part of the tree either.
            && name != ".git"
            && let Ok(text) = fs::read_to_string(entry.path())
        {
            files.push((format!("{below}{name}"), text));
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Code,
    Quoted,
    Comment,
}

fn hole(c: char) -> char {
    if c == '\n' { c } else { ' ' }
}

fn blank(text: &str) -> String {
    text.chars().map(hole).collect()
}

fn view(chars: &[char], kinds: &[Kind], wanted: Kind) -> String {
    chars.iter().zip(kinds).map(|(&c, &kind)| if kind == wanted { c } else { hole(c) }).collect()
}

fn kinds(chars: &[char]) -> Vec<Kind> {
    let mut kinds = vec![Kind::Code; chars.len()];
    let mut at = 0;
    while at < chars.len() {
        let (end, kind) = match (chars[at], chars.get(at + 1)) {
            ('/', Some('/')) => (line_end(chars, at), Kind::Comment),
            ('/', Some('*')) => (comment_end(chars, at), Kind::Comment),
            ('"', _) => (quote_end(chars, at), Kind::Quoted),
            ('\'', _) if char_end(chars, at) > at + 1 => (char_end(chars, at), Kind::Quoted),
            ('r', Some('"' | '#')) if !follows_name(chars, at) => (raw_end(chars, at), Kind::Quoted),
            _ => (at + 1, Kind::Code),
        };
        kinds[at..end].fill(kind);
        at = end;
    }
    kinds
}

/// Whether the `r` at `at` is the end of a name; `b` and `c` before it make byte and C strings.
fn follows_name(chars: &[char], at: usize) -> bool {
    let is_name = |at: usize| chars[at].is_alphanumeric() || chars[at] == '_';
    match at.checked_sub(1) {
        None => false,
        Some(before) if matches!(chars[before], 'b' | 'c') => before.checked_sub(1).is_some_and(is_name),
        Some(before) => is_name(before),
    }
}

fn line_end(chars: &[char], at: usize) -> usize {
    chars[at..].iter().position(|&c| c == '\n').map_or(chars.len(), |length| at + length)
}

fn comment_end(chars: &[char], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0usize);
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') if depth == 1 => return at + 2,
            ('*', '/') => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
    }
    chars.len()
}

fn quote_end(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// The end of a character in quotes; a lifetime ends where it begins and stays code.
fn char_end(chars: &[char], start: usize) -> usize {
    if chars.get(start + 1) == Some(&'\\') {
        let closing = chars.iter().skip(start + 3).position(|&c| c == '\'');
        return closing.map_or(chars.len(), |length| start + length + 4);
    }
    if chars.get(start + 2) == Some(&'\'') { start + 3 } else { start + 1 }
}

fn raw_end(chars: &[char], start: usize) -> usize {
    let hashes = chars[start + 1..].iter().take_while(|&&c| c == '#').count();
    if chars.get(start + 1 + hashes) != Some(&'"') {
        return start + 1;
    }
    let closes =
        |at: usize| chars[at] == '"' && chars[at + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes;
    (start + hashes + 2..chars.len()).find(|&at| closes(at)).map_or(chars.len(), |at| at + 1 + hashes)
}

/// Where `#[cfg(test)]` items stand, in characters.
fn test_regions(code: &str) -> Vec<std::ops::Range<usize>> {
    let chars: Vec<char> = code.chars().collect();
    let mark: Vec<char> = TEST_ATTRIBUTE.chars().collect();
    let mut regions = Vec::new();
    let mut at = 0;
    while at + mark.len() <= chars.len() {
        if chars[at..].starts_with(&mark) {
            let end = item_end(&chars, at + mark.len());
            regions.push(at..end);
            at = end;
        } else {
            at += 1;
        }
    }
    regions
}

/// The end of the item that begins at `from`: its semicolon, or the brace that closes its body.
pub(super) fn item_end(chars: &[char], from: usize) -> usize {
    let (mut round, mut braces) = (0i32, 0i32);
    for (at, &c) in chars.iter().enumerate().skip(from) {
        match c {
            '(' | '[' => round += 1,
            ')' | ']' => round -= 1,
            '{' => braces += 1,
            '}' => braces -= 1,
            _ => {}
        }
        if round == 0 && braces == 0 && matches!(c, ';' | '}') {
            return at + 1;
        }
    }
    chars.len()
}

/// The files, without their ending, that a source declares as `#[cfg(test)] mod NAME;`.
fn test_modules(source: &Source) -> Vec<String> {
    let chars: Vec<char> = source.code.chars().collect();
    let folder = match source.path.rsplit_once('/') {
        Some((folder, "mod.rs" | "lib.rs" | "main.rs")) => folder.to_owned(),
        _ => source.path.trim_end_matches(".rs").to_owned(),
    };
    test_regions(&source.code)
        .into_iter()
        .filter_map(|region| {
            let item: String = chars[region].iter().collect();
            let name = item.strip_suffix(';')?.rsplit_once("mod ")?.1.trim().to_owned();
            Some(format!("{folder}/{name}"))
        })
        .collect()
}

fn is_test_file(path: &str, tests: &[String]) -> bool {
    let stem = path.trim_end_matches(".rs");
    let by_place = path.ends_with("/tests.rs") || path.contains("/tests/") || path.starts_with("tests/it/");
    by_place || tests.iter().any(|test| stem == test || path.starts_with(&format!("{test}/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_comments_are_no_code() {
        let source = Source::new(
            "a.rs",
            "let a = \"x /* y\"; // z\nlet b = r#\"q\"u\"#; /* w /* v */ t */ let c = '\\''; let d: &'a str;",
        );
        assert!(source.code.contains("let b") && source.code.contains("let c") && source.code.contains("&'a str"));
        for hidden in ["x", "y", "z", "q", "w", "v"] {
            assert!(lines_with(&source.code, hidden).is_empty(), "{hidden}");
        }
        assert!(source.strings.contains("x /* y") && source.strings.contains("q\"u") && !source.strings.contains('z'));
    }

    #[test]
    fn tests_are_no_production() {
        let tree = Tree::sample(&[
            (
                "worker/src/a.rs",
                "fn a() {}\n#[cfg(test)]\nmod samples;\n#[cfg(test)]\nmod tests { fn t() { \"s\"; } }\nfn b() {}",
            ),
            ("worker/src/a/samples.rs", "fn sample() {}"),
            ("worker/src/a/samples/more.rs", "fn more() {}"),
            ("worker/src/a/tests.rs", "fn test() {}"),
            ("worker/src/a/other.rs", "fn other() {}"),
        ]);
        let production: String = tree.sources.iter().map(|source| source.production.as_str()).collect();
        assert!(production.contains("fn a") && production.contains("fn b") && production.contains("fn other"));
        assert!(!production.contains("fn t") && !production.contains("fn sample") && !production.contains("fn more"));
        assert_eq!(tree.sources[0].production.lines().count(), 6, "the layout stays");
    }

    #[test]
    fn a_word_is_found_whole() {
        assert_eq!(lines_with("asynchronous\nan async fn", "async"), [2]);
        assert_eq!(lines_with("a.await;\nawaited", "await"), [1]);
    }

    #[test]
    fn a_file_knows_its_module() {
        assert_eq!(Source::new("supervisor/src/machine/fleet.rs", "").module(), ["machine", "fleet"]);
        assert_eq!(Source::new("supervisor/src/machine/mod.rs", "").module(), ["machine"]);
        assert!(Source::new("supervisor/src/lib.rs", "").module().is_empty());
        assert!(Source::new("tests/it/main.rs", "").module().is_empty());
    }
}
