//! What may stand at the top of the repository: the visible tree is the architecture, and nothing else.

use super::source::Tree;

/// Every name at the top that has no dot before it.
pub(super) const TOP: [&str; 10] = [
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "deploy",
    "protocol",
    "supervisor",
    "tests",
    "worker",
];
/// What builds leave there, kept out by .gitignore.
const LEFT_BY_BUILDS: &str = "target";

/// Names at the top that do not belong there.
pub(super) fn strangers(tree: &Tree) -> Vec<String> {
    let strange = |name: &&String| !name.starts_with('.') && *name != LEFT_BY_BUILDS && !TOP.contains(&name.as_str());
    tree.top
        .iter()
        .filter(strange)
        .map(|name| format!("{name}: does not belong at the top: {}", TOP.join(" ")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_at_the_top_is_found() {
        let tree = Tree::sample(&[
            ("docs/design.md", ""),
            ("Justfile", ""),
            (".deny.toml", ""),
            ("worker/src/lib.rs", ""),
            ("target/x", ""),
        ]);
        let found = strangers(&tree);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("Justfile") && found[1].starts_with("docs"));
    }
}
