//! What a person orders is done at once, whatever the agent does.

use super::{OWNER, Scene};
use crate::both::NO_RETRIES;
use cofferdam_tests::processes;
use nix::sys::signal::Signal;

#[test]
fn commands_answer_at_once_while_a_turn_runs() {
    let scene = Scene::new("queue = \"queue\"\nheartbeat_timeout = \"10m\"");
    scene.says("[[hold h]] one");
    scene.held("h");
    all_answer(&scene);
    scene.world.model.release("h");
    scene.reads("⏹ stopped by user 11");
    scene.says("[[recall]]");
    scene.reads("recall: []");
    scene.rest();
    let ends = scene.ledger("SELECT outcome FROM updates ORDER BY id");
    assert_eq!(ends, ["cancelled", "answered", "answered", "refused", "answered", "answered", "answered"]);
}

#[test]
fn commands_answer_at_once_while_the_worker_is_frozen() {
    let scene = Scene::new("queue = \"queue\"");
    scene.says("[[hold h]] one");
    scene.held("h");
    let worker = scene.world.worker("a");
    processes::signal(worker, Signal::SIGSTOP);
    all_answer(&scene);
    assert_eq!(processes::state(worker), Some('T'), "it was frozen all the time");
    processes::signal(worker, Signal::SIGCONT);
    scene.reads("⏹ stopped by user 11");
    scene.says("after it");
    scene.reads("echo: after it");
    scene.rest();
}

/// Every command once, the last of which stops what runs.
fn all_answer(scene: &Scene) {
    let asks = [
        ("/help", "/status: what it does"),
        ("/status@main_bot", "1 running"),
        ("/retry", "Not tried again: turn 1 is running"),
        ("/new", "what runs goes on in the old one"),
        ("/stop", "Stopping."),
    ];
    for (command, text) in asks {
        let asked = scene.says(command);
        let answer = scene.reads(text);
        assert_eq!(answer.reply_to, Some(asked), "{command}: {}", answer.text);
    }
}

#[test]
fn what_waits_is_stopped_by_the_second_stop() {
    let scene = Scene::new("queue = \"queue\"");
    scene.says("/stop");
    scene.reads("Nothing runs in this chat.");
    scene.says("[[hang]] one");
    scene.says("two");
    scene.reads("queued: 1 before this");
    scene.says("/status");
    scene.reads("1 running, 1 waiting");
    scene.says("/stop");
    scene.reads("1 more wait in this chat");
    scene.reads("echo: two");
    scene.rest();
}

#[test]
fn a_failed_turn_is_told_with_its_class_and_tried_again_on_order() {
    let scene = Scene::with("", |builder| builder.defaults(NO_RETRIES));
    scene.says("/retry");
    scene.reads("nothing to try again");
    scene.world.model.script("*", Some("[[401]]"));
    let asked = scene.says("fragile");
    let told = scene.reads("(auth)");
    assert_eq!(told.reply_to, Some(asked));
    assert!(told.text.starts_with("⚠️ ") && told.text.contains("/retry"), "{}", told.text);
    scene.says("/status");
    scene.reads("Last failure (once): auth");
    scene.world.model.script("*", None);
    let again = scene.says("/retry");
    assert_eq!(scene.reads("echo: fragile").reply_to, Some(again));
    scene.says("/retry");
    scene.reads("only failed and stopped turns");
    scene.rest();
    assert_eq!(scene.ledger("SELECT outcome || ' ' || ifnull(retry_of, '') FROM turns"), ["failed ", "completed 1"]);
    let ends = "SELECT outcome FROM updates ORDER BY id";
    assert_eq!(scene.ledger(ends), ["refused", "failed", "answered", "answered", "refused"]);
}

#[test]
fn the_third_identical_failure_is_told_to_the_owners_once() {
    let allowed = format!("allow = [{OWNER}]");
    let scene = Scene::silent("", |builder| builder.defaults(NO_RETRIES));
    let text = std::fs::read_to_string(scene.world.config()).unwrap();
    assert!(text.contains(&allowed), "{text}");
    scene.world.write_config(&text.replace(&allowed, "allow = [11, 22]"));
    let mut scene = scene;
    scene.world.run();
    scene.world.wait_ready();
    scene.world.model.script("*", Some("[[401]]"));
    for turn in 1..=5 {
        scene.bot.says(22, &format!("try {turn}"));
        scene.ledger_says(&format!("SELECT outcome FROM turns WHERE id = {turn}"), &["failed"]);
    }
    scene.rest();
    let told = scene.texts();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("failed 3 times in a row with auth"), "{told:?}");
    assert_eq!(scene.bot.texts(22).len(), 5, "each sender is told of each failure");
    assert_eq!(scene.ledger("SELECT count(*) FROM posts WHERE kind = 'alert'"), ["1"]);
}
