//! The supervisor is killed with -9 at every step of a message: it is answered once, or twice with a mark.

use super::{OWNER, Scene, many, reads};
use crate::both::wait;
use cofferdam_tests::standin::telegram::{Account, Fault, FaultKind, What};
use cofferdam_tests::wait::{LIMIT, until};

const MARK: &str = "(sent again: the first try may have arrived)";

#[test]
fn killed_between_a_message_and_its_answer() {
    for runtime in ["codex", "codex-cli"] {
        let mut scene = Scene::new(&format!("runtime = \"{runtime}\""));
        scene.says("[[hold h]] one");
        scene.held("h");
        scene.crash();
        scene.world.wait_ps("a", "the worker to be found again", |row| row["state"] == "busy");
        scene.world.model.release("h");
        scene.reads("echo: one");
        scene.says("two");
        scene.reads("echo: two");
        scene.rest();
        assert_eq!(scene.texts(), ["echo: one", "echo: two"]);
        assert_eq!(scene.world.model.count_prompt("one"), 1);
    }
}

#[test]
fn killed_while_the_answer_came_in() {
    let mut scene = Scene::new("");
    scene.says("[[hold h]] one");
    scene.held("h");
    scene.world.kill_supervisor();
    // The turn ends while nobody is there to take its answer.
    scene.world.model.release("h");
    let asked = wait(scene.world.model.next_prompt("one", LIMIT));
    wait(scene.world.model.wait_end(asked.seq, LIMIT));
    scene.world.run();
    scene.reads("echo: one");
    scene.rest();
    assert_eq!(scene.texts(), ["echo: one"]);
    assert_eq!(scene.world.model.count_prompt("one"), 1);
}

#[test]
fn killed_while_a_post_is_on_its_way() {
    let mut scene = Scene::new("queue = \"queue\"");
    scene.bot.fault(Fault::on("sendMessage", FaultKind::HoldAfter("never".into())));
    scene.says("one");
    wait(scene.server.wait_held("never", LIMIT));
    // This one waits behind it and was not on its way.
    scene.says("two");
    scene.ledger_says("SELECT outcome FROM turns", &["completed", "completed"]);
    scene.crash();
    scene.reads("echo: two");
    scene.rest();
    assert_eq!(scene.texts(), ["echo: one".to_owned(), format!("{MARK}\n\necho: one"), "echo: two".to_owned()]);
}

#[test]
fn killed_in_a_pause_of_the_server() {
    let mut scene = Scene::new("");
    scene.bot.fault(Fault::on("sendMessage", FaultKind::flood(4)));
    scene.says("one");
    let refused = || scene.bot.calls("sendMessage").into_iter().find(|call| call.status == Some(429));
    let refused = until("a refused message", LIMIT, || scene.world.story(), refused);
    scene.ledger_says("SELECT why FROM posts", &["the server asked for a pause"]);
    scene.crash();
    // In another chat, so that it does not merely wait for its turn in this one.
    scene.bot.says(999, "a stranger");
    reads(&scene.world, &scene.bot, 999, "does not know you");
    scene.reads("echo: one");
    let sent = scene.bot.calls("sendMessage");
    for call in sent.iter().filter(|call| call.seq > refused.seq) {
        // The ledger counts in whole milliseconds from the moment when the answer was read.
        assert!(call.at_ms >= refused.at_ms + 4_000, "too early: {call:?}");
    }
    scene.rest();
    assert_eq!(scene.texts(), ["echo: one"], "it was refused: nothing to mark");
}

#[test]
fn a_status_message_of_an_earlier_supervisor_is_removed() {
    let mut scene = Scene::new("queue = \"queue\"");
    scene.says("[[hold h]] one");
    scene.held("h");
    scene.says("two");
    let status = scene.reads("queued: 1 before this");
    scene.ledger_says("SELECT state FROM posts", &["sent"]);
    scene.crash();
    scene.world.wait_ps("a", "the worker to be found again", |row| row["state"] == "busy");
    scene.world.model.release("h");
    scene.reads("echo: two");
    scene.rest();
    assert_eq!(scene.texts(), ["echo: one", "echo: two"]);
    let removed = |what: &What| matches!(what, What::Deleted { message_id } if *message_id == status.message_id);
    assert!(scene.events().iter().any(|event| removed(&event.what)), "{:?}", scene.events());
}

#[test]
fn killed_after_the_commit_and_before_the_confirmation() {
    let mut scene = Scene::new("");
    // The poll that would confirm is held: the update is in the ledger and Telegram does not know.
    scene.bot.fault(Fault::on("getUpdates", FaultKind::Hold("confirm".into())));
    let written = scene.bot.says(OWNER, "[[hold h]] one");
    scene.held("h");
    wait(scene.server.wait_held("confirm", LIMIT));
    assert!(scene.bot.look(Account::confirmed) < written.update_id);
    scene.world.kill_supervisor();
    scene.bot.no_faults();
    scene.world.run();
    scene.world.model.release("h");
    scene.reads("echo: one");
    wait(scene.bot.wait_confirmed(written.update_id, LIMIT));
    scene.rest();
    assert_eq!(scene.texts(), ["echo: one"]);
    assert_eq!(scene.world.model.count_prompt("one"), 1);
    assert_eq!(scene.ledger("SELECT count(*) FROM updates"), ["1"]);
}

#[test]
fn killed_between_the_pieces_of_an_answer() {
    let mut scene = Scene::new("");
    scene.bot.fault(Fault::on("sendMessage", FaultKind::Delay { ms: 0 }));
    scene.bot.fault(Fault::on("sendMessage", FaultKind::Hold("second".into())));
    scene.says(&many(250, |i| format!("this is line number {i} of it.\n\n")));
    wait(scene.server.wait_held("second", LIMIT));
    scene.ledger_says("SELECT sent_pieces FROM posts", &["1"]);
    scene.crash();
    scene.reads("line number 249");
    scene.rest();
    let texts = scene.texts();
    let whole = texts.join("\n");
    for i in 0..250 {
        assert_eq!(whole.matches(&format!("number {i} of")).count(), 1, "line {i}");
    }
    assert!(texts[1].starts_with(MARK) && texts.iter().filter(|text| text.starts_with(MARK)).count() == 1, "{texts:?}");
}
