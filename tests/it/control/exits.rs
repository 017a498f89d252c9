//! Exit codes and words: no supervisor, wrong words, wrong files, a ledger that is not one.

use crate::scenes::{one_agent, world};
use cofferdam_tests::world::World;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

#[test]
fn without_a_supervisor_commands_say_so() {
    let world = world().agent("a", "").build();
    let commands: [&[&str]; 13] = [
        &["ps"],
        &["health"],
        &["send", "a", "hi"],
        &["turns"],
        &["turns", "show", "1"],
        &["start", "a"],
        &["stop", "a"],
        &["restart", "a"],
        &["kill", "a"],
        &["interrupt", "a"],
        &["retry", "1"],
        &["reload"],
        &["shutdown"],
    ];
    for command in commands {
        let ran = world.cli(command);
        assert_eq!(ran.code, 69, "{command:?} {ran:?}");
        assert!(ran.stdout.is_empty() && ran.stderr.contains("cofferdam run"), "{command:?} {ran:?}");
    }
}

#[test]
fn wrong_words_are_usage() {
    let world = world().agent("a", "").build();
    let wrong: [&[&str]; 10] = [
        &[],
        &["frobnicate"],
        &["ps", "--frob"],
        &["kill"],
        &["send"],
        &["send", "Not An Agent", "x"],
        &["turns", "show", "x"],
        &["retry"],
        &["completions", "tcsh"],
        &["shutdown", "--later"],
    ];
    for words in wrong {
        let ran = world.cli(words);
        assert_eq!(ran.code, 64, "{words:?} {ran:?}");
        assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{words:?} {ran:?}");
    }
    let empty = world.cli_with(&["send", "a", "-"], " \n");
    assert_eq!(empty.code, 64, "{empty:?}");
    for words in [["--help"], ["--version"]] {
        let ran = world.cli(&words);
        assert!(ran.code == 0 && !ran.stdout.is_empty() && ran.stderr.is_empty(), "{ran:?}");
    }
}

#[test]
fn a_wrong_configuration_is_78_for_check_and_for_run() {
    let world = world().agent("a", "sandbix = 1").build();
    for command in ["check", "run"] {
        let ran = world.cli(&[command]);
        assert_eq!(ran.code, 78, "{command} {ran:?}");
        assert!(ran.stderr.contains("sandbix"), "{ran:?}");
    }
    fs::remove_file(world.config()).unwrap();
    for command in ["check", "run", "ps"] {
        let ran = world.cli(&[command]);
        assert_eq!(ran.code, 78, "{command} {ran:?}");
        assert!(ran.stderr.contains(&world.config().display().to_string()), "{ran:?}");
    }
    assert!(!world.state().exists(), "nothing was begun");
}

#[test]
fn a_running_supervisor_is_reached_while_the_file_is_wrong() {
    let world = one_agent("codex");
    // What stands before the first table is all that a command reads; behind it, `check` and `reload` find what is wrong.
    for (text, told) in
        [("state_dir = \"s\"\nmax_turns = \n[agents.a]", true), ("state_dir = \"s\"\n[agents.a]\nmodel = ", false)]
    {
        fs::write(world.config(), text).unwrap();
        let ran = world.cli(&["ps", "--json"]);
        assert_eq!((ran.code, &ran.json()[0]["state"]), (0, &"ready".into()), "{ran:?}");
        assert_eq!(ran.stderr.contains("cofferdam check"), told, "{ran:?}");
        assert_eq!(world.cli(&["check"]).code, 78, "{text}");
    }
    world.shut_down();
}

#[test]
fn failed_turns_and_unknown_things_are_1_and_a_full_queue_is_75() {
    let world = world().agent("a", "queue = \"queue\"\nqueue_max = 1").start();
    let code = |words: &[&str]| world.cli(words).code;
    assert_eq!(code(&["send", "a", "[[404]] bad"]), 1);
    assert_eq!(code(&["turns", "show", "99"]), 1);
    assert_eq!(code(&["retry", "99"]), 1);
    assert_eq!(code(&["send", "nobody", "x"]), 1);
    assert_eq!(code(&["queue", "nobody"]), 1);
    assert_eq!(code(&["interrupt", "nobody"]), 1);
    assert_eq!(code(&["logs", "nobody"]), 1);
    crate::scenes::post(&world, "a", "c", "[[hold x]] runs");
    crate::scenes::asked(&world, "runs", 1);
    crate::scenes::post(&world, "a", "c", "waits");
    let full = world.cli(&["send", "a", "more", "--conversation", "c", "--json"]);
    assert_eq!(full.code, 75, "{full:?}");
    assert_eq!(full.json_lines()[0]["event"], "refused");
    assert!(full.stderr.contains("queue full"), "{full:?}");
    world.model.release("x");
    world.shut_down();
}

/// The supervisor does not start on this ledger, says why, and leaves it as it is.
fn refuses(world: &World, ledger: &Path, words: &[&str]) {
    let before = fs::read(ledger).ok();
    let ran = world.cli(&["run"]);
    let told = format!("{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.code, 78, "{told}");
    for word in words.iter().chain(&[&*ledger.display().to_string()]) {
        assert!(told.contains(word), "{word:?} is not in {told}");
    }
    assert_eq!(fs::read(ledger).ok(), before, "it was written to");
}

#[test]
fn a_ledger_that_is_none_is_refused_and_left_alone() {
    let world = world().agent("a", "").build();
    let ledger = world.state().join("ledger.db");
    fs::create_dir(world.state()).unwrap();
    fs::set_permissions(world.state(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::create_dir(&ledger).unwrap();
    refuses(&world, &ledger, &["is a folder"]);
    fs::remove_dir(&ledger).unwrap();
    fs::write(&ledger, "").unwrap();
    refuses(&world, &ledger, &["is empty"]);
    fs::write(&ledger, "these are my notes\n".repeat(1_000)).unwrap();
    refuses(&world, &ledger, &["is not a ledger"]);
    fs::remove_file(&ledger).unwrap();
    rusqlite::Connection::open(&ledger).unwrap().execute_batch("CREATE TABLE mine (x)").unwrap();
    refuses(&world, &ledger, &["is not a ledger"]);
}

#[test]
fn a_newer_and_a_damaged_ledger_are_refused_and_left_alone() {
    let mut world = one_agent("codex");
    assert_eq!(world.send("a", "c", "something to keep")["outcome"], "completed");
    assert_eq!(world.cli(&["shutdown"]).code, 0);
    assert_eq!(world.wait_ended(), Some(0));
    let ledger = world.state().join("ledger.db");
    let whole = fs::read(&ledger).unwrap();
    {
        let connection = rusqlite::Connection::open(&ledger).unwrap();
        connection.pragma_update(None, "user_version", 9_999).unwrap();
    }
    refuses(&world, &ledger, &["version 9999", "newer release"]);
    fs::write(&ledger, &whole).unwrap();
    let mut damaged = whole.clone();
    for page in damaged.chunks_mut(4096).skip(2) {
        page.fill(0xa5);
    }
    fs::write(&ledger, &damaged).unwrap();
    refuses(&world, &ledger, &["damaged"]);
    fs::write(&ledger, &whole).unwrap();
    world.run();
    world.wait_ready();
    assert_eq!(world.turn(1)["answer"], "echo: something to keep");
    world.shut_down();
}

#[test]
fn init_then_check_and_the_file_is_right() {
    let world = world().agent("a", "").build();
    let path = world.config();
    let text = path.display().to_string();
    let kept = world.cli(&["init", &text]);
    assert!(kept.code == 1 && kept.stderr.contains("exists"), "{kept:?}");
    fs::remove_file(&path).unwrap();
    let ran = world.cli(&["init", &text, "--agent", "ops", "--owner", "7"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let checked = world.cli(&["check"]);
    assert!(checked.code == 78 && checked.stderr.contains("ops.token"), "the token is missing: {checked:?}");
    let token = path.with_file_name("ops.token");
    fs::write(&token, "123456:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let checked = world.cli(&["check"]);
    assert!(checked.code == 0 && checked.stdout.contains("1 agent, 1 bot"), "{checked:?}");
}
