//! Words that may be named in one place alone: SQL in the store, the codec's crate in one file, Codex' methods in the worker,
//! the machine's `handle` in the two loops.

use super::source::{Source, Tree, lines_with};

/// How SQL begins, as the store writes it.
const SQL: [&str; 12] = [
    "SELECT ",
    "INSERT INTO ",
    "INSERT OR ",
    "UPDATE ",
    "DELETE FROM ",
    "CREATE TABLE",
    "CREATE INDEX",
    "DROP TABLE",
    "ALTER TABLE",
    "PRAGMA ",
    "BEGIN IMMEDIATE",
    "VACUUM",
];
/// What the methods of the app-server begin with. A path of our own with such a beginning would be misleading too.
const METHODS: [&str; 6] = ["thread/", "turn/", "item/", "account/", "serverRequest/", "mcpServer/"];

/// Where a word stands that belongs elsewhere.
pub(super) fn misplaced(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in &tree.sources {
        let shipped = ["supervisor", "worker", "protocol"].contains(&source.package());
        let path = source.path.as_str();
        if shipped && !path.starts_with("supervisor/src/store") {
            complain(source, "SQL", "supervisor/src/store/", &quoted(&source.strings, &SQL), &mut complaints);
            complain(
                source,
                "rusqlite",
                "supervisor/src/store/",
                &lines_with(&source.production, "rusqlite"),
                &mut complaints,
            );
        }
        if path != "protocol/src/codec.rs" {
            complain(source, "bincode", "protocol/src/codec.rs", &lines_with(&source.code, "bincode"), &mut complaints);
        }
        if shipped && source.package() != "worker" {
            complain(source, "a method of Codex", "worker/", &quoted(&source.strings, &METHODS), &mut complaints);
        }
        if shipped && !is_loop(path) {
            let calls = [".machine.handle(", " machine.handle(", "Machine::handle("];
            let lines: Vec<usize> = calls.iter().flat_map(|call| lines_with(&source.production, call)).collect();
            complain(source, "the machine's handle", "the loop (daemon, driver)", &lines, &mut complaints);
        }
    }
    for (path, text) in tree.files.iter().filter(|(path, _)| path.ends_with("Cargo.toml")) {
        if !["Cargo.toml", "protocol/Cargo.toml"].contains(&path.as_str()) && !lines_with(text, "bincode").is_empty() {
            complaints.push(format!("{path}: bincode belongs to protocol/ alone"));
        }
    }
    complaints
}

fn is_loop(path: &str) -> bool {
    let roots = ["supervisor/src/daemon", "worker/src/driver", "supervisor/src/machine", "worker/src/machine"];
    roots.iter().any(|root| path.starts_with(&format!("{root}.rs")) || path.starts_with(&format!("{root}/")))
}

fn complain(source: &Source, what: &str, home: &str, lines: &[usize], complaints: &mut Vec<String>) {
    complaints.extend(lines.iter().map(|line| format!("{}:{line}: {what} belongs to {home} alone", source.path)));
}

/// Lines on which a quoted text holds one of `words`, not as the end of a longer word or path.
fn quoted(strings: &str, words: &[&str]) -> Vec<usize> {
    let joined = |c: char| c.is_alphanumeric() || "_/.-".contains(c);
    let holds = |line: &str, word: &str| line.match_indices(word).any(|(at, _)| !line[..at].ends_with(joined));
    let holds_any = |line: &str| words.iter().any(|word| holds(line, word));
    strings.lines().enumerate().filter(|(_, line)| holds_any(line)).map(|(index, _)| index + 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        misplaced(&Tree::sample(&[(path, text)])).len()
    }

    #[test]
    fn sql_outside_the_store_is_found() {
        let text = "fn f() { run(\"SELECT a FROM b\") }";
        assert_eq!(found("supervisor/src/daemon.rs", text), 1);
        assert_eq!(found("supervisor/src/store/inbox.rs", text), 0);
        assert_eq!(found("supervisor/src/daemon.rs", "// SELECT a\nfn f() { say(\"UPDATED\") }"), 0);
        assert_eq!(found("supervisor/src/daemon.rs", "use rusqlite::Connection;"), 1);
    }

    #[test]
    fn the_codec_outside_its_file_is_found() {
        assert_eq!(found("protocol/src/frame.rs", "use bincode::config;"), 1);
        assert_eq!(found("protocol/src/frame.rs", "// bincode decodes this"), 0);
        assert_eq!(found("worker/Cargo.toml", "[dependencies]\nbincode.workspace = true"), 1);
    }

    #[test]
    fn a_method_of_codex_outside_the_worker_is_found() {
        assert_eq!(found("supervisor/src/machine/turns.rs", "fn f() { ask(\"turn/start\") }"), 1);
        assert_eq!(found("worker/src/machine/app_server.rs", "fn f() { ask(\"turn/start\") }"), 0);
        assert_eq!(found("supervisor/src/machine/turns.rs", "fn f() { say(\"agents/item/x\") }"), 0);
    }

    #[test]
    fn a_leaf_that_asks_the_machine_is_found() {
        assert_eq!(found("supervisor/src/link/session.rs", "fn f() { self.machine.handle(now, input, &mut out) }"), 1);
        assert_eq!(found("supervisor/src/daemon.rs", "fn f() { self.machine.handle(now, input, &mut out) }"), 0);
        assert_eq!(found("supervisor/src/daemons.rs", "fn f() { Machine::handle(m, now) }"), 1);
    }
}
