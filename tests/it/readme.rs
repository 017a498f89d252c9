//! README says what the code does: tables are compared, names are looked for.

use cofferdam_tests::codex::workspace_root;
use protocol::FailureClass;
use std::fs;

fn readme() -> String {
    fs::read_to_string(workspace_root().join("README.md")).unwrap()
}

/// The text between two marks.
fn part(text: &str, mark: &str) -> String {
    let (_, rest) = text.split_once(&format!("<!-- {mark}:")).unwrap_or_else(|| panic!("README lacks the mark {mark}"));
    let (_, rest) = rest.split_once("-->").unwrap();
    let (inside, _) = rest.split_once(&format!("<!-- /{mark} -->")).unwrap();
    inside.trim().to_owned()
}

fn classes() -> String {
    let mut lines =
        vec!["| class | again | fallback | what the sender reads |".to_owned(), "|---|---|---|---|".to_owned()];
    for class in FailureClass::ALL {
        let policy = class.policy();
        let falls_back = if policy.falls_back { "yes" } else { "no" };
        lines.push(format!("| `{class}` | {} | {falls_back} | {} |", policy.retries, policy.told));
    }
    lines.join("\n")
}

#[test]
fn the_table_of_keys_is_that_of_the_code() {
    let ours = supervisor::config::markdown_table();
    assert_eq!(part(&readme(), "keys"), ours.trim(), "put this between the marks:\n{ours}");
}

#[test]
fn the_table_of_failures_is_that_of_the_code() {
    let ours = classes();
    assert_eq!(part(&readme(), "classes"), ours, "put this between the marks:\n{ours}");
}

#[test]
fn every_command_is_named() {
    let text = readme();
    for command in supervisor::cli::commands() {
        assert!(text.contains(&format!("`{command}")), "README does not name `cofferdam {command}`");
    }
}

#[test]
fn every_test_of_the_whole_is_named() {
    let text = readme();
    for entry in fs::read_dir(workspace_root().join("tests/it")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if let Some(stem) = name.strip_suffix(".rs").filter(|stem| *stem != "main") {
            assert!(text.contains(&format!("`{stem}`")), "README does not name tests/it/{name}");
        }
    }
}
