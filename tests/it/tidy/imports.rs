//! Who may import whom: the machines are pure, the leaves do not see one another, the packages point inward.
//!
//! ```text
//!          daemon, driver          see all
//!         /    |      |    \
//!      leaf   leaf   leaf   leaf   see themselves, protocol, the machine's values, and what EDGES lists
//!         \    |      |    /
//!              machine             sees itself, protocol, and the crates of PURE_CRATES
//! ```

use std::collections::BTreeSet;

use super::source::{Source, Tree, lines_with};

/// Crates that compute and touch nothing, and so may stand in a machine.
const PURE_CRATES: [&str; 7] = ["std", "core", "protocol", "serde_json", "croner", "jiff", "thiserror"];
/// What a machine may not take from the standard library: the world, time, and what iterates in no order.
const IMPURE_STD: [&str; 11] = [
    "fs",
    "process",
    "net",
    "thread",
    "env",
    "os",
    "io",
    "time::Instant",
    "time::SystemTime",
    "collections::HashMap",
    "collections::HashSet",
];
/// Words that do not belong in a machine whatever they come from.
const IMPURE_WORDS: [&str; 4] = ["async", "await", "unsafe", "tracing"];

/// Where everything is joined: these see all.
const ROOTS: [(&str, &str); 2] = [("supervisor", "daemon"), ("worker", "driver")];
/// The machine's values: what a leaf may take from it.
const VALUES: [(&str, &[&str]); 2] = [("supervisor", &["nouns", "words", "setup"]), ("worker", &["io"])];

/// The edges between leaves that are argued for: who, whom, why.
const EDGES: [(&str, &str, &str, &str); 15] = [
    ("supervisor", "cli", "config", "`check` and every command read the configuration"),
    ("supervisor", "cli", "control", "a command is a caller of the control socket"),
    ("supervisor", "cli", "process", "`login` starts Codex on the caller's terminal"),
    ("supervisor", "cli", "store", "`version` tells which ledgers this build can read"),
    ("worker", "codex", "args", "a Codex bears the mark that the worker got at birth"),
    ("worker", "codex", "log", "what Codex says on stderr goes to the agent's log"),
    ("worker", "codex", "sweep", "a turn's end sweeps what its Codex left"),
    ("worker", "codex", "usage", "an agent's limits, and the signs of life, are of all that its Codex children use"),
    ("worker", "journal", "home", "files are opened alike, 0600"),
    ("worker", "link", "args", "the socket's path comes from birth"),
    ("worker", "link", "home", "folders are made alike, 0700"),
    ("worker", "log", "clock", "a log line carries the time"),
    ("worker", "log", "home", "files are opened alike, 0600"),
    ("worker", "texts", "home", "files are opened alike, 0600"),
    ("worker", "usage", "sweep", "what is counted is the tree that is swept"),
];

/// Which of our packages a package may depend on.
const PACKAGES: [(&str, &[&str]); 4] = [
    ("protocol", &[]),
    ("supervisor", &["cofferdam-protocol"]),
    ("worker", &["cofferdam-protocol"]),
    ("tests", &["cofferdam", "cofferdam-protocol", "cofferdam-worker"]),
];

/// What in `*/src/machine/` is not pure.
pub(super) fn impure(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in tree.sources.iter().filter(|source| source.path.contains("/src/machine")) {
        let crates = dependencies(tree, source.package());
        for reference in references(source, &crates) {
            if let Some(why) = impurity(&reference) {
                complaints
                    .push(format!("{}:{}: {why}: decide in machine/, act in a leaf", source.path, reference.line));
            }
        }
        for word in IMPURE_WORDS {
            for line in lines_with(&source.production, word) {
                complaints.push(format!("{}:{line}: `{word}` in a machine: decide here, act in a leaf", source.path));
            }
        }
    }
    complaints
}

fn impurity(reference: &Reference) -> Option<String> {
    let (first, rest) = reference.path.split_first()?;
    if reference.inside {
        return (first != "machine").then(|| format!("the machine imports crate::{first}"));
    }
    if !PURE_CRATES.contains(&first.as_str()) {
        return Some(format!("the machine uses the crate {first}"));
    }
    let rest = rest.join("::");
    let banned = IMPURE_STD.iter().find(|banned| rest == **banned || rest.starts_with(&format!("{banned}::")))?;
    ["std", "core"].contains(&first.as_str()).then(|| format!("the machine uses std::{banned}"))
}

/// Edges between the leaves that are not listed.
pub(super) fn wrong_edges(tree: &Tree) -> Vec<String> {
    let wrong = |edge: &&Edge<'_>| !allowed(edge);
    let complaint = |edge: &Edge<'_>| {
        format!(
            "{}:{}: {} imports crate::{}: leaves do not see one another; join them in the root, or argue for the edge in EDGES",
            edge.source.path,
            edge.line,
            edge.from,
            edge.path.join("::")
        )
    };
    edges(tree).iter().filter(wrong).map(complaint).collect()
}

/// Listed edges that nobody uses.
pub(super) fn idle_edges(tree: &Tree) -> Vec<String> {
    let used = edges(tree);
    let idle = EDGES.iter().filter(|(package, from, to, _)| {
        !used
            .iter()
            .any(|edge| (edge.source.package(), edge.from.as_str(), edge.path[0].as_str()) == (package, from, to))
    });
    idle.map(|(package, from, to, _)| format!("{package}: {from} does not import {to}: drop the edge from EDGES"))
        .collect()
}

/// A leaf's naming of another module of its crate.
struct Edge<'a> {
    source: &'a Source,
    line: usize,
    from: String,
    path: Vec<String>,
}

fn edges(tree: &Tree) -> Vec<Edge<'_>> {
    let mut found = Vec::new();
    for source in &tree.sources {
        let (package, module) = (source.package(), source.module());
        let Some(from) = module.first() else { continue };
        if !VALUES.iter().any(|(known, _)| *known == package) || from == "machine" || ROOTS.contains(&(package, from)) {
            continue;
        }
        let modules = top_modules(tree, package);
        let inside = references(source, &BTreeSet::new()).into_iter().filter(|reference| reference.inside);
        let outward =
            inside.filter(|reference| reference.path.first().is_some_and(|to| to != from && modules.contains(to)));
        found.extend(outward.map(|reference| Edge {
            source,
            line: reference.line,
            from: from.clone(),
            path: reference.path,
        }));
    }
    found
}

fn allowed(edge: &Edge<'_>) -> bool {
    let package = edge.source.package();
    if edge.path[0] == "machine" {
        let values = VALUES.iter().filter(|(known, _)| *known == package).flat_map(|(_, values)| values.iter());
        return edge.path.get(1).is_some_and(|second| values.into_iter().any(|value| value == second));
    }
    EDGES
        .iter()
        .any(|(listed, from, to, _)| (*listed, *from, *to) == (package, edge.from.as_str(), edge.path[0].as_str()))
}

/// Dependencies between our packages that are not drawn.
pub(super) fn wrong_packages(tree: &Tree) -> Vec<String> {
    let ours: BTreeSet<&str> = ["cofferdam", "cofferdam-protocol", "cofferdam-worker", "cofferdam-tests"].into();
    let mut complaints = Vec::new();
    for (package, may) in PACKAGES {
        for name in manifest_names(tree, package) {
            if ours.contains(name.as_str()) && !may.contains(&name.as_str()) {
                complaints.push(format!("{package}/Cargo.toml: depends on {name}, which it must not know"));
            }
        }
    }
    complaints
}

/// Every dependency that a package's manifest names, of every kind.
fn manifest_names(tree: &Tree, package: &str) -> Vec<String> {
    let path = format!("{package}/Cargo.toml");
    let Some((_, text)) = tree.files.iter().find(|(at, _)| *at == path) else { return Vec::new() };
    let manifest: toml::Table = text.parse().unwrap();
    let names = |table: &toml::Table| {
        ["dependencies", "dev-dependencies", "build-dependencies"]
            .iter()
            .filter_map(|kind| table.get(*kind)?.as_table())
            .flat_map(|table| table.keys().cloned())
            .collect::<Vec<_>>()
    };
    let per_target = manifest.get("target").and_then(toml::Value::as_table).into_iter().flatten();
    let per_target = per_target.filter_map(|(_, table)| table.as_table()).flat_map(names);
    names(&manifest).into_iter().chain(per_target).collect()
}

/// The crates that a package's sources can name.
fn dependencies(tree: &Tree, package: &str) -> BTreeSet<String> {
    let library = |name: &str| match name {
        "cofferdam" => "supervisor".to_owned(),
        "cofferdam-protocol" => "protocol".to_owned(),
        "cofferdam-worker" => "worker".to_owned(),
        other => other.replace('-', "_"),
    };
    let named = manifest_names(tree, package);
    named.iter().map(|name| library(name)).chain(["std", "core", "alloc"].map(str::to_owned)).collect()
}

fn top_modules(tree: &Tree, package: &str) -> BTreeSet<String> {
    let sources = tree.sources.iter().filter(|source| source.package() == package);
    sources.filter_map(|source| source.module().into_iter().next()).collect()
}

/// One path that a source names: inside its own crate, or into another.
#[derive(Debug, PartialEq, Eq)]
struct Reference {
    line: usize,
    inside: bool,
    path: Vec<String>,
}

/// Every path in production code that begins with `crate`, `self`, `super` or one of `crates`.
fn references(source: &Source, crates: &BTreeSet<String>) -> Vec<Reference> {
    let tokens = tokens(&source.production);
    let module = source.module();
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let mut paths = Vec::new();
        if tokens[at].1 == "use" {
            at = use_tree(&tokens, at + 1, &[], &mut paths);
        } else if at + 1 < tokens.len() && is_name(&tokens[at].1) && tokens[at + 1].1 == "::" {
            at = plain_path(&tokens, at, &mut paths);
        } else {
            at += 1;
        }
        found.extend(paths.into_iter().filter_map(|(line, path)| resolve(line, path, &module, crates)));
    }
    found
}

fn resolve(line: usize, path: Vec<String>, module: &[String], crates: &BTreeSet<String>) -> Option<Reference> {
    let mut base = module.to_vec();
    let mut rest = path.as_slice();
    match rest.first()?.as_str() {
        "crate" => {
            base.clear();
            rest = &rest[1..];
        }
        "self" => rest = &rest[1..],
        "super" => {
            while rest.first().is_some_and(|first| first == "super") {
                base.pop();
                rest = &rest[1..];
            }
        }
        first if crates.contains(first) => return Some(Reference { line, inside: false, path }),
        _ => return None,
    }
    base.extend(rest.iter().cloned());
    Some(Reference { line, inside: true, path: base })
}

type Token = (usize, String);

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn tokens(code: &str) -> Vec<Token> {
    let mut found = Vec::new();
    for (index, text) in code.lines().enumerate() {
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let name = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let length = match name {
                0 if rest.starts_with("::") => 2,
                0 => rest.chars().next().map_or(1, char::len_utf8),
                _ => name,
            };
            found.push((index + 1, rest[..length].to_owned()));
            rest = rest[length..].trim_start();
        }
    }
    found
}

/// Reads one branch of a `use`, and leaves behind it; `paths` gets each leaf with its prefix.
fn use_tree(tokens: &[Token], from: usize, prefix: &[String], paths: &mut Vec<(usize, Vec<String>)>) -> usize {
    let mut path = prefix.to_vec();
    let mut at = from;
    let mut renamed = false;
    let line = tokens.get(from).map_or(0, |token| token.0);
    while let Some((_, token)) = tokens.get(at) {
        match token.as_str() {
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token.1 != "}") {
                    at = use_tree(tokens, at, &path, paths);
                    at += usize::from(tokens.get(at).is_some_and(|token| token.1 == ","));
                }
                return at + 1;
            }
            "," | "}" | ";" => break,
            "as" => renamed = true,
            "self" if !path.is_empty() => {}
            name if is_name(name) && !renamed => path.push(name.to_owned()),
            _ => {}
        }
        at += 1;
    }
    paths.push((line, path));
    at.max(from + 1)
}

fn plain_path(tokens: &[Token], from: usize, paths: &mut Vec<(usize, Vec<String>)>) -> usize {
    let mut path = vec![tokens[from].1.clone()];
    let mut at = from + 1;
    while tokens.get(at).is_some_and(|token| token.1 == "::")
        && tokens.get(at + 1).is_some_and(|token| is_name(&token.1))
    {
        path.push(tokens[at + 1].1.clone());
        at += 2;
    }
    paths.push((tokens[from].0, path));
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "[dependencies]\ntokio.workspace = true\nserde_json = \"1\"\n";

    fn machine(text: &str) -> Vec<String> {
        impure(&Tree::sample(&[("worker/Cargo.toml", MANIFEST), ("worker/src/machine/turn.rs", text)]))
    }

    fn supervisor(files: &[(&str, &str)]) -> Vec<String> {
        let others = ["store", "link", "config"].map(|name| (format!("supervisor/src/{name}/mod.rs"), String::new()));
        let mut all: Vec<(&str, &str)> = others.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        all.push(("supervisor/src/machine/nouns.rs", ""));
        all.extend_from_slice(files);
        wrong_edges(&Tree::sample(&all))
    }

    #[test]
    fn a_machine_that_touches_the_world_is_found() {
        for bad in [
            "use std::fs;",
            "use std::{collections::BTreeMap, net::{IpAddr, TcpStream}};",
            "fn f() { std::env::var(\"A\"); }",
            "use tokio::sync::mpsc;",
            "fn f(x: tokio::time::Instant) {}",
            "use std::collections::HashMap;",
            "use std::time::{Duration, Instant};",
            "async fn f() {}",
            "use crate::driver::Driver;",
            "use super::super::codex;",
            "fn f() { tracing::info!(\"x\") }",
        ] {
            assert!(!machine(bad).is_empty(), "{bad}");
        }
    }

    #[test]
    fn a_machine_that_computes_is_left_alone() {
        let good = "use std::{collections::BTreeMap, fmt, time::Duration};\nuse serde_json::Value;\nuse super::io::Effect;\n\
                    // tokio::spawn\nfn f() { \"std::fs\"; crate::machine::exec::line(); Self::new() }\n#[cfg(test)] mod tests { use std::fs; }";
        assert_eq!(machine(good), Vec::<String>::new());
    }

    #[test]
    fn a_leaf_that_imports_its_sibling_is_found() {
        for bad in [
            "use crate::store::Store;",
            "use super::store;",
            "fn f() { crate::store::open() }",
            "use crate::{config, store::{Store}};",
            "use crate::machine;",
            "use crate::machine::fleet::Fleet;",
        ] {
            let found = supervisor(&[("supervisor/src/link.rs", bad)]);
            assert!(
                found.iter().any(|found| found.starts_with("supervisor/src/link.rs:1: link imports")),
                "{bad}: {found:?}"
            );
        }
    }

    #[test]
    fn a_leaf_may_take_values_and_its_own_parts() {
        let good = "use crate::machine::nouns::{Post, Update};\nuse crate::link::session;\nuse self::session::Session;\nuse super::Exit;";
        assert_eq!(supervisor(&[("supervisor/src/link.rs", good)]), Vec::<String>::new());
        assert_eq!(supervisor(&[("supervisor/src/daemon.rs", "use crate::{store, link};")]), Vec::<String>::new());
        assert_eq!(supervisor(&[("supervisor/src/cli/mod.rs", "use crate::config::Config;")]), Vec::<String>::new());
    }

    #[test]
    fn a_listed_edge_that_nobody_uses_is_found() {
        let tree =
            Tree::sample(&[("supervisor/src/cli.rs", "use crate::config::Config;"), ("supervisor/src/config.rs", "")]);
        let idle = idle_edges(&tree);
        assert_eq!(idle.len(), EDGES.len() - 1);
        assert!(!idle.iter().any(|idle| idle.contains("cli does not import config")), "{idle:?}");
    }

    #[test]
    fn a_package_that_looks_outward_is_found() {
        let tree = |text| Tree::sample(&[("supervisor/Cargo.toml", text)]);
        assert_eq!(wrong_packages(&tree("[dependencies]\ncofferdam-worker.workspace = true")).len(), 1);
        assert_eq!(wrong_packages(&tree("[target.'cfg(unix)'.dev-dependencies]\ncofferdam-tests = \"1\"")).len(), 1);
        assert_eq!(wrong_packages(&tree("[dependencies]\ncofferdam-protocol.workspace = true")).len(), 0);
    }
}
