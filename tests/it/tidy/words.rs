//! Words that must stand (what a file is, in its first line) and words that must not: things left undone, warnings silenced,
//! tests switched off or asleep, and what is true of one machine alone.

use super::source::{Tree, lines_with};

/// What says that something is not done. Written apart, so that this file does not hold them.
const UNDONE: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("todo", "!"),
    concat!("unimplemented", "!"),
];
/// Attributes that hide a warning for ever or a test for good; `#[expect]` and mending are the other ways.
const SILENCING: [&str; 4] = ["#[allow(", "#![allow(", "#[ignore]", "#[ignore "];
/// Where paths of the machines begin that this was built on.
const MACHINES: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/tmp", "/wt")];
/// Files that others wrote, or that a tool writes.
const NOT_OURS: [&str; 3] = ["Cargo.lock", "LICENSE", "tests/codex/package-lock.json"];

/// The test files that sleep, how often, and why no condition can be waited for instead. The list may only shrink.
pub(super) const SLEEPS: [(&str, usize, &str); 4] = [
    ("tests/src/bench/clock.rs", 1, "a benchmark measures over a time"),
    ("tests/src/standin/model/http.rs", 2, "the pause is the script's: a slow model"),
    ("tests/src/standin/telegram/http.rs", 1, "the pause is the script's: a slow Bot API"),
    (
        "worker/tests/lab/mod.rs",
        1,
        "its own wait for a condition, with a limit: the helper's crate depends on this one",
    ),
];
/// The one helper that waits for a condition, with a limit, and tells the story when it is not met.
const WAIT_HELPER: &str = "tests/src/wait.rs";

/// Sources that do not begin with what they are.
pub(super) fn without_module_doc(tree: &Tree) -> Vec<String> {
    let silent = tree.sources.iter().filter(|source| {
        let said = source.text.lines().next().and_then(|line| line.strip_prefix("//!"));
        said.is_none_or(|said| said.trim().len() < "x y z".len())
    });
    silent.map(|source| format!("{}:1: begin with `//!` and what this file decides or touches", source.path)).collect()
}

/// What is left undone, hidden or switched off.
pub(super) fn unfinished(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in tree.files.iter().filter(|(path, _)| !NOT_OURS.contains(&path.as_str())) {
        for word in UNDONE {
            complaints.extend(
                lines_with(text, word).iter().map(|line| format!("{path}:{line}: {word}: do it, or leave it out")),
            );
        }
    }
    for source in &tree.sources {
        for word in SILENCING {
            let lines = lines_with(&source.code, word);
            complaints.extend(
                lines.iter().map(|line| {
                    format!("{}:{line}: {word}: mend it, or say #[expect(.., reason = \"..\")]", source.path)
                }),
            );
        }
    }
    complaints
}

/// Sleeps in tests that are not listed, and entries of the list that are too high.
pub(super) fn sleeping(tree: &Tree, listed: &[(&str, usize, &str)]) -> Vec<String> {
    let mut complaints = Vec::new();
    let of_tests = |path: &str| (path.starts_with("tests/") || path.contains("/tests/")) && path != WAIT_HELPER;
    for source in tree.sources.iter().filter(|source| of_tests(&source.path)) {
        let lines = lines_with(&source.code, "sleep(");
        let allowed = listed.iter().find(|(path, ..)| *path == source.path).map_or(0, |(_, count, _)| *count);
        if lines.len() > allowed {
            complaints.push(format!(
                "{}:{lines:?}: a bare sleep: wait for the condition, with a limit ({WAIT_HELPER})",
                source.path
            ));
        } else if lines.len() < allowed {
            complaints.push(format!("{}: sleeps {} times: lower its entry in SLEEPS", source.path, lines.len()));
        }
    }
    let gone = listed.iter().filter(|(path, ..)| !tree.sources.iter().any(|source| source.path == *path));
    complaints.extend(gone.map(|(path, ..)| format!("{path}: is no more: drop its entry from SLEEPS")));
    complaints
}

/// Paths and addresses that hold on one machine alone.
pub(super) fn of_one_machine(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in &tree.files {
        for (index, line) in text.lines().enumerate() {
            let found = MACHINES.iter().find(|machine| begins_path(line, machine));
            if let Some(found) = found {
                complaints.push(format!("{path}:{}: a path of a build machine: {found}", index + 1));
            }
            if path.ends_with("package-lock.json") && line.contains("\"resolved\":") {
                complaints.push(format!(
                    "{path}:{}: a download address: npm install --package-lock-only --omit-lockfile-registry-resolved",
                    index + 1
                ));
            }
        }
    }
    complaints
}

/// Whether a path begins with `start` in this line, and does not merely hold it.
fn begins_path(line: &str, start: &str) -> bool {
    let goes_on = |c: char| c.is_alphanumeric() || "_-.~/}".contains(c);
    line.match_indices(start).any(|(at, _)| !line[..at].ends_with(goes_on))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_does_not_say_what_it_is_is_found() {
        let found = |text| without_module_doc(&Tree::sample(&[("worker/src/a.rs", text)])).len();
        assert_eq!(found("//! Reads the journal.\nfn a() {}"), 0);
        assert_eq!(found("fn a() {}"), 1);
        assert_eq!(found("//! x\nfn a() {}"), 1);
        assert_eq!(found(""), 1);
    }

    #[test]
    fn what_is_left_undone_is_found() {
        let found = |path, text: &str| unfinished(&Tree::sample(&[(path, text)])).len();
        for word in UNDONE {
            assert_eq!(found("deploy/upgrade.md", &format!("see {word}: later")), 1, "{word}");
        }
        assert_eq!(found("worker/src/a.rs", "#[allow(dead_code)]\nfn a() {}"), 1);
        assert_eq!(found("worker/src/a.rs", "#[test]\n#[ignore = \"slow\"]\nfn a() {}"), 1);
        assert_eq!(found("worker/src/a.rs", "// #[allow(dead_code)]\nfn a() { \"#[ignore]\"; }"), 0);
        assert_eq!(found("LICENSE", UNDONE[0]), 0);
    }

    #[test]
    fn a_bare_sleep_is_found_and_the_list_only_shrinks() {
        let found = |path, count| {
            let tree = Tree::sample(&[(
                "tests/it/a.rs",
                "fn a() { tokio::time::sleep(ONE).await; thread::sleep(ONE); }\nfn b() { sleep(ONE) }",
            )]);
            sleeping(&tree, &[(path, count, "why")])
        };
        assert!(found("tests/it/b.rs", 1)[0].contains("a bare sleep"));
        assert!(found("tests/it/b.rs", 1)[1].contains("drop its entry"));
        assert_eq!(found("tests/it/a.rs", 2), Vec::<String>::new());
        assert!(found("tests/it/a.rs", 3)[0].contains("lower its entry"));
        assert!(sleeping(&Tree::sample(&[(WAIT_HELPER, "fn until() { sleep(ONE) }")]), &[]).is_empty());
    }

    #[test]
    fn what_names_one_machine_is_found() {
        let found = |path, text: &str| of_one_machine(&Tree::sample(&[(path, text)])).len();
        for start in MACHINES {
            assert_eq!(found("README.md", &format!("see {start}x")), 1, "{start}");
            assert_eq!(found("README.md", &format!("see ~{start}x and /srv{start}")), 0, "{start}");
        }
        assert_eq!(found("tests/codex/package-lock.json", "  \"resolved\": \"somewhere\","), 1);
    }
}
