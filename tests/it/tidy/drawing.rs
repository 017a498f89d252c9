//! README draws the tree as it is: what is drawn is there, and what is there is drawn.
//!
//! The drawing is README's fenced block whose first line begins with `protocol/`. A word at the left edge is a folder; the lines
//! from there on name what it holds, in any order and with words between: a name is known by its ending (`store/`,
//! `frame.rs`, `run.sh`).

use std::collections::{BTreeMap, BTreeSet};

use super::source::Tree;
use super::tree::TOP;

/// Names that every folder of their kind holds, and that tell nothing.
const UNDRAWN: [&str; 5] = ["Cargo.toml", "lib.rs", "main.rs", "mod.rs", "Cargo.lock"];
/// By these a word of the drawing is known as a name.
const ENDINGS: [&str; 8] = ["/", ".rs", ".sh", ".md", ".toml", ".service", ".conf", ".plist"];
/// How the drawing begins.
const FIRST: &str = "\n```\nprotocol/";

/// Where README's drawing and the tree differ, and what is missing at the top.
pub(super) fn disagreements(tree: &Tree) -> Vec<String> {
    let Some((_, readme)) = tree.files.iter().find(|(path, _)| path == "README.md") else {
        return vec!["README.md: is not there".to_owned()];
    };
    let missing = TOP.iter().filter(|name| !tree.top.contains(**name));
    let mut complaints: Vec<String> = missing.map(|name| format!("{name}: is missing at the top")).collect();
    let Some((_, rest)) = readme.split_once(FIRST) else {
        complaints.push("README.md: has no drawing of the tree, a fenced block that begins with protocol/".to_owned());
        return complaints;
    };
    let drawing = format!("protocol/{}", rest.split("\n```").next().unwrap_or_default());
    let drawn = drawn(&drawing);
    for (folder, names) in &drawn {
        complaints.extend(compare(tree, folder, names));
    }
    for package in
        tree.top.iter().filter(|name| tree.files.iter().any(|(path, _)| path.starts_with(&format!("{name}/"))))
    {
        if !package.starts_with('.') && !drawn.keys().any(|folder| folder.starts_with(&format!("{package}/"))) {
            complaints.push(format!("README.md: does not draw {package}/"));
        }
    }
    complaints
}

/// Each folder of the drawing with the names drawn for it.
fn drawn(drawing: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut folders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut folder = String::new();
    for line in drawing.lines() {
        let mut words = line.split_whitespace();
        if !line.starts_with(' ') {
            words.next().unwrap_or_default().clone_into(&mut folder);
        }
        let names = words.filter(|word| ENDINGS.iter().any(|ending| word.ends_with(ending)));
        folders.entry(folder.clone()).or_default().extend(names.map(|name| name.trim_end_matches('/').to_owned()));
    }
    folders
}

fn compare(tree: &Tree, folder: &str, names: &BTreeSet<String>) -> Vec<String> {
    let below = tree.files.iter().filter_map(|(path, _)| path.strip_prefix(folder));
    let there: BTreeSet<&str> = below.filter_map(|rest| rest.split('/').next()).collect();
    let gone = names.iter().filter(|name| !there.contains(name.as_str()));
    let mut complaints: Vec<String> =
        gone.map(|name| format!("README.md: draws {folder}{name}, which is not there")).collect();
    // `link/` stands for `link.rs` too, and the other way round: they are one module.
    let other_half = |name: &str| match name.strip_suffix(".rs") {
        Some(stem) => names.contains(stem),
        None => names.contains(&format!("{name}.rs")),
    };
    let untold = |name: &&&str| {
        !name.starts_with('.') && !UNDRAWN.contains(*name) && !names.contains(**name) && !other_half(name)
    };
    complaints.extend(there.iter().filter(untold).map(|name| format!("README.md: does not draw {folder}{name}")));
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "protocol/src/   frame.rs bytes to frames\nworker/src/   driver.rs the loop · machine/ decides\n   link.rs talks\n";

    fn found(drawing: &str) -> Vec<String> {
        let readme = format!("# X\n\n```\n{drawing}```\n");
        let files = [
            ("README.md", readme.as_str()),
            ("protocol/src/frame.rs", ""),
            ("protocol/src/lib.rs", ""),
            ("worker/Cargo.toml", ""),
            ("worker/src/driver.rs", ""),
            ("worker/src/driver/perform.rs", ""),
            ("worker/src/link/mod.rs", ""),
            ("worker/src/link.rs", ""),
            ("worker/src/machine/turn.rs", ""),
        ];
        let of_drawing = |line: &String| line.contains("draw");
        disagreements(&Tree::sample(&files)).into_iter().filter(of_drawing).collect()
    }

    #[test]
    fn a_true_drawing_is_left_alone() {
        assert_eq!(found(GOOD), Vec::<String>::new());
    }

    #[test]
    fn a_drawing_that_is_not_the_tree_is_found() {
        assert_eq!(found(&GOOD.replace("machine/ ", "")), ["README.md: does not draw worker/src/machine"]);
        assert_eq!(
            found(&GOOD.replace("link.rs", "gone.rs")).len(),
            3,
            "gone.rs is not there; link.rs and link/ are not drawn"
        );
        assert_eq!(found("protocol/src/   frame.rs\n"), ["README.md: does not draw worker/"]);
        assert_eq!(found("").len(), 1);
    }

    #[test]
    fn what_is_missing_at_the_top_is_found() {
        assert_eq!(disagreements(&Tree::sample(&[])), ["README.md: is not there"]);
        let found = disagreements(&Tree::sample(&[("README.md", "")]));
        assert!(found.contains(&"LICENSE: is missing at the top".to_owned()), "{found:?}");
    }
}
