//! Keeps the rules of the house that neither the compiler nor a lint keeps: who may import whom, what may be named where,
//! how long a thing may be, what the tree may hold.
//!
//! Each rule is a function from sources to complaints, and is shown in its own tests to complain about a small bad example.
//! Here they are asked about the tree itself. A complaint names the file, the line and the remedy.

mod drawing;
mod imports;
mod places;
mod sizes;
mod source;
mod tree;
mod words;

use cofferdam_tests::codex::workspace_root;
use source::Tree;

fn the_tree() -> Tree {
    Tree::read(&workspace_root()).unwrap()
}

fn keeps(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} to mend:\n  {}", complaints.len(), complaints.join("\n  "));
}

#[test]
fn machines_are_pure() {
    keeps(&imports::impure(&the_tree()));
}

#[test]
fn leaves_do_not_import_one_another() {
    let tree = the_tree();
    keeps(&imports::wrong_edges(&tree));
    keeps(&imports::idle_edges(&tree));
}

#[test]
fn packages_depend_as_drawn() {
    keeps(&imports::wrong_packages(&the_tree()));
}

#[test]
fn each_word_is_named_in_its_place_alone() {
    keeps(&places::misplaced(&the_tree()));
}

#[test]
fn functions_and_files_are_short() {
    keeps(&sizes::too_long(&the_tree(), &sizes::RATCHET));
}

#[test]
fn every_source_begins_by_saying_what_it_is() {
    keeps(&words::without_module_doc(&the_tree()));
}

#[test]
fn nothing_is_left_undone_or_silenced() {
    keeps(&words::unfinished(&the_tree()));
}

#[test]
fn no_test_sleeps_to_synchronise() {
    keeps(&words::sleeping(&the_tree(), &words::SLEEPS));
}

#[test]
fn nothing_names_a_build_machine() {
    keeps(&words::of_one_machine(&the_tree()));
}

#[test]
fn the_top_level_holds_what_is_listed() {
    keeps(&tree::strangers(&the_tree()));
}

#[test]
fn readme_draws_the_tree() {
    keeps(&drawing::disagreements(&the_tree()));
}
