//! How long functions and files may be, tests not counted, and a list of those that are longer, which may only shrink.
//!
//! A file is as long as its lines, comments with them; a function as its lines that hold code, from `fn` to its last brace.

use super::source::{Source, Tree, item_end};

/// A reader holds this much of one file at once.
const FILE_LINES_MAX: usize = 400;
/// One screen; clippy's `too_many_lines` holds the same number for bodies.
const FUNCTION_LINES_MAX: usize = 70;
/// The grain of the list: a changed line or two is no reason to touch it.
const STEP: usize = 10;

/// What is too long and is let be: `path`, or `path::function`, and its lines rounded up to ten. Lower a number as soon as it
/// can be lowered, and drop the entry when the thing is short enough; the test asks for both. Nothing is added.
pub(super) const RATCHET: [(&str, usize); 3] = [
    ("protocol/src/control.rs", 500),
    ("supervisor/src/channel/telegram/text/render.rs", 410),
    ("supervisor/src/machine/nouns.rs", 460),
];

/// What is longer than its limit or than its entry, and entries that have become too high or idle.
pub(super) fn too_long(tree: &Tree, ratchet: &[(&str, usize)]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut over = Vec::new();
    for source in &tree.sources {
        let lines = production_lines(source);
        if lines > FILE_LINES_MAX {
            over.push((source.path.clone(), lines, FILE_LINES_MAX));
        }
        let functions = functions(&source.production).into_iter().filter(|(_, lines)| *lines > FUNCTION_LINES_MAX);
        over.extend(functions.map(|(name, lines)| (format!("{}::{name}", source.path), lines, FUNCTION_LINES_MAX)));
    }
    for (what, lines, limit) in &over {
        match ratchet.iter().find(|(listed, _)| listed == what) {
            None => complaints.push(format!("{what}: {lines} lines, {limit} are allowed: split it")),
            Some((_, listed)) if lines > listed => {
                complaints.push(format!("{what}: grew from {listed} to {lines} lines: split it"));
            }
            Some((_, listed)) if lines.next_multiple_of(STEP) < *listed => {
                let lower = lines.next_multiple_of(STEP);
                complaints.push(format!("{what}: shrank: lower its entry in RATCHET to {lower}"));
            }
            Some(_) => {}
        }
    }
    for (listed, _) in ratchet {
        if !over.iter().any(|(what, ..)| what == listed) {
            complaints.push(format!("{listed}: short enough: drop its entry from RATCHET"));
        }
    }
    complaints
}

/// The lines of a file that are no test: all, less those blanked as tests.
fn production_lines(source: &Source) -> usize {
    let tests = source.code.lines().zip(source.production.lines()).filter(|(code, production)| code != production);
    let is_test_file = !source.code.trim().is_empty() && source.production.trim().is_empty();
    if is_test_file { 0 } else { source.text.lines().count() - tests.count() }
}

/// Each function's name and length.
fn functions(production: &str) -> Vec<(String, usize)> {
    let chars: Vec<char> = production.chars().collect();
    let is_name = |c: &char| c.is_alphanumeric() || *c == '_';
    let mut found = Vec::new();
    for at in 0..chars.len().saturating_sub(3) {
        if chars[at..].starts_with(&['f', 'n', ' ']) && (at == 0 || !is_name(&chars[at - 1])) {
            let name: String = chars[at + 3..].iter().take_while(|c| is_name(c)).collect();
            let text: String = chars[at..item_end(&chars, at)].iter().collect();
            found.push((name, text.lines().filter(|line| !line.trim().is_empty()).count()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, ratchet: &[(&str, usize)]) -> Vec<String> {
        too_long(&Tree::sample(&[("worker/src/a.rs", text)]), ratchet)
    }

    fn function(lines: usize) -> String {
        format!("//! A.\nfn long(a: [u8; 4]) {{\n{}}}\nfn short() {{}}\n", "    call();\n".repeat(lines - 2))
    }

    #[test]
    fn a_long_function_is_found_and_a_commented_one_is_not() {
        assert_eq!(of(&function(70), &[]), Vec::<String>::new());
        assert_eq!(of(&function(71), &[]), ["worker/src/a.rs::long: 71 lines, 70 are allowed: split it"]);
        assert_eq!(
            of(&function(70).replace("call();\n    call();", "call();\n    // why\n\n    call();"), &[]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_long_file_is_found_and_its_tests_are_not_counted() {
        let file = |lines: usize| "// x\n".repeat(lines - 1) + "struct A;\n";
        let tests = "#[cfg(test)]\nmod tests {\n    fn t() {}\n}\n";
        assert_eq!(of(&(file(400) + tests), &[]), Vec::<String>::new());
        assert_eq!(of(&(file(401) + tests), &[]).len(), 1);
    }

    #[test]
    fn the_list_may_only_shrink() {
        let listed = |lines| [("worker/src/a.rs::long", lines)];
        assert_eq!(of(&function(80), &listed(80)), Vec::<String>::new());
        assert!(of(&function(81), &listed(80))[0].contains("grew from 80 to 81"));
        assert_eq!(of(&function(75), &listed(80)), Vec::<String>::new());
        assert!(of(&function(75), &listed(90))[0].contains("lower its entry in RATCHET to 80"));
        assert!(of(&function(70), &listed(80))[0].contains("drop its entry"));
    }
}
