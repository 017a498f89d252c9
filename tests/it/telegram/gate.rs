//! What comes in: strangers, things that are no text, garbage, and the same thing twice. All of it is recorded.

use super::{OWNER, Scene, reads};
use crate::both::wait;
use cofferdam_tests::standin::telegram::{Account, Fault, FaultKind, Writing};
use cofferdam_tests::wait::{LIMIT, until};
use rusqlite::OpenFlags;
use serde_json::{Value, json};

const STRANGER: i64 = 666;

/// A message of the owner without text.
fn message(content: &str, value: &Value) -> Value {
    json!({"message": {
        "message_id": 900, "date": 1, "from": {"id": OWNER, "is_bot": false, "first_name": "O"},
        "chat": {"id": OWNER, "type": "private", "first_name": "O"}, content: value,
    }})
}

#[test]
fn a_stranger_is_refused_politely_once() {
    let scene = Scene::new("");
    scene.bot.says(STRANGER, "let me in");
    let told = reads(&scene.world, &scene.bot, STRANGER, "does not know you");
    assert!(told.text.contains("666"), "the id to add is told: {}", told.text);
    scene.bot.says(STRANGER, "please");
    scene.bot.says(STRANGER, "/status");
    scene.bot.writes(Writing { chat: -5, user: Some(STRANGER), ..Writing::private(-5, "hello group") });
    scene.says("from the owner");
    scene.reads("echo: from the owner");
    scene.rest();
    assert_eq!(scene.bot.texts(STRANGER).len(), 1);
    assert_eq!(scene.bot.texts(-5), [""; 0], "a group is not bothered with strangers");
    let ends = "SELECT user || ' ' || outcome FROM updates ORDER BY id";
    assert_eq!(scene.ledger(ends), ["666 refused", "666 refused", "666 refused", "666 refused", "11 answered"]);
    assert_eq!(scene.world.model.count_prompt("please"), 0);
}

#[test]
fn what_is_no_text_is_refused_politely() {
    let scene = Scene::new("");
    scene.bot.update(message("photo", &json!([{"file_id": "x", "width": 1}])));
    let told = scene.reads("I cannot take a photo yet");
    assert!(told.text.contains("Nothing was done"), "{}", told.text);
    scene.bot.update(message("voice", &json!({"file_id": "v"})));
    scene.reads("I cannot take a voice");
    // Nobody expects an answer to these.
    let asked = scene.says("hello");
    scene.reads("echo: hello");
    scene.bot.edits(OWNER, asked, "hello, edited");
    scene.bot.presses(OWNER, asked, OWNER, "a button");
    scene.bot.update(message("new_chat_title", &json!("renamed")));
    scene.ledger_says("SELECT count(*) FROM updates WHERE outcome IS NOT NULL", &["6"]);
    scene.rest();
    assert_eq!(scene.texts().len(), 3);
    let kinds = "SELECT kind || ' ' || outcome FROM updates ORDER BY id";
    let wanted = ["photo", "voice", "text", "edited_message", "callback_query", "new_chat_title"];
    let wanted = wanted.map(|kind| format!("{kind} {}", if kind == "text" { "answered" } else { "refused" }));
    assert_eq!(scene.ledger(kinds), wanted);
    assert_eq!(scene.ledger("SELECT count(*) FROM updates WHERE kind <> 'text' AND raw LIKE '{%'"), ["5"]);
}

#[test]
fn garbage_is_recorded_and_costs_only_itself() {
    let mut scene = Scene::silent("", |builder| builder);
    // All of it waits before the first poll: it comes as one batch.
    for garbage in [
        json!({"message": "no message"}),
        json!({"message": {"chat": {"id": "eleven"}, "text": 7}}),
        json!({"unheard_of": {"deep": [[[[1, null]]]]}}),
        json!({}),
        json!(null),
        json!("text"),
        json!({"message": {"text": "x".repeat(100_000)}}),
    ] {
        scene.bot.update(garbage);
    }
    scene.says("good");
    let last = scene.bot.update(json!({"message": [OWNER]}));
    scene.world.run();
    scene.reads("echo: good");
    wait(scene.bot.wait_confirmed(last, LIMIT));
    scene.rest();
    let rows = scene.ledger("SELECT kind || ' ' || outcome || ' ' || (length(raw) < 20000) FROM updates ORDER BY id");
    assert_eq!(rows.len(), 7, "each that has a number has a row: {rows:?}");
    assert!(rows.iter().all(|row| row.ends_with(" 1")), "{rows:?}");
    assert_eq!(rows.iter().filter(|row| row.contains("refused")).count(), 6, "{rows:?}");
    assert_eq!(scene.ledger("SELECT raw FROM updates WHERE raw LIKE '%unheard_of%'").len(), 1);
    assert!(scene.world.story().contains("updates without a number"), "{}", scene.world.story());
}

#[test]
fn the_same_update_twice_is_answered_once() {
    let mut scene = Scene::new("");
    let first = scene.bot.says(OWNER, "once");
    scene.reads("echo: once");
    let copy = json!({"update_id": first.update_id, "message": {
        "message_id": first.message_id, "date": 1, "text": "once", "from": {"id": OWNER, "is_bot": false, "first_name": "O"},
        "chat": {"id": OWNER, "type": "private", "first_name": "O"},
    }});
    scene.bot.update(copy.clone());
    let second = scene.bot.says(OWNER, "second");
    scene.reads("echo: second");
    wait(scene.bot.wait_confirmed(second.update_id, LIMIT));
    // A crash before the answer's receipt is written would rightly send it once more.
    scene.rest();
    scene.crash();
    scene.bot.update(copy);
    scene.says("third");
    scene.reads("echo: third");
    scene.rest();
    assert_eq!(scene.texts(), ["echo: once", "echo: second", "echo: third"]);
    assert_eq!(scene.world.model.count_prompt("once"), 1);
    assert_eq!(scene.ledger("SELECT count(*) FROM updates"), ["3"]);
}

#[test]
fn an_update_is_confirmed_after_its_commit_and_not_before() {
    let mut scene = Scene::new("");
    let lock = super::open(&scene.world, OpenFlags::SQLITE_OPEN_READ_WRITE);
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let written = scene.bot.says(OWNER, "careful");
    let handed_out = |account: &Account| {
        account.calls().filter(|call| call.method == "getUpdates" && call.status == Some(200)).count()
    };
    wait(scene.bot.wait_for("the update to be handed out", LIMIT, |account| (handed_out(account) > 0).then_some(())));
    // The supervisor works on: it answers, and has told nobody anything.
    assert_eq!(scene.world.cli(&["ps"]).code, 0);
    let nothing = |scene: &Scene| {
        assert!(scene.bot.look(Account::confirmed) < written.update_id);
        assert_eq!(scene.bot.calls("sendMessage"), []);
        assert_eq!(scene.world.model.count_prompt("careful"), 0, "no effect before the record");
    };
    nothing(&scene);
    // Killed before the commit: the update is Telegram's still, comes again and is answered once.
    scene.world.kill_supervisor();
    nothing(&scene);
    lock.execute_batch("ROLLBACK").unwrap();
    assert_eq!(scene.ledger("SELECT count(*) FROM updates"), ["0"]);
    scene.bot.fault(Fault::on("getMe", FaultKind::Hold("restart".into())));
    scene.world.run();
    wait(scene.server.wait_held("restart", LIMIT));
    nothing(&scene);
    scene.server.release("restart");
    scene.reads("echo: careful");
    wait(scene.bot.wait_confirmed(written.update_id, LIMIT));
    scene.rest();
    assert_eq!(scene.texts(), ["echo: careful"]);
    assert_eq!(scene.world.model.count_prompt("careful"), 1);
}

#[test]
fn a_command_for_another_bot_is_not_ours() {
    let scene = Scene::new("");
    let group = |text: &str| Writing { chat: -7, user: Some(OWNER), ..Writing::private(-7, text) };
    scene.bot.writes(group("[[hold h]] work"));
    scene.held("h");
    scene.bot.writes(group("/stop@other_bot"));
    scene.bot.writes(group("/status@Main_Bot"));
    reads(&scene.world, &scene.bot, -7, "1 running");
    scene.world.model.release("h");
    reads(&scene.world, &scene.bot, -7, "echo: work");
    scene.rest();
    let ends = "SELECT kind || ' ' || outcome FROM updates ORDER BY id";
    assert_eq!(scene.ledger(ends), ["text answered", "command_for_another_bot refused", "text answered"]);
    assert_eq!(scene.bot.texts(-7).len(), 2);
}

#[test]
fn a_ledger_that_cannot_be_written_holds_updates_back_and_loses_none() {
    let scene = Scene::new("");
    let lock = super::open(&scene.world, OpenFlags::SQLITE_OPEN_READ_WRITE);
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let first = scene.bot.says(OWNER, "one");
    let failing = || (scene.world.cli(&["health", "--json"]).json()["status"] == "failing").then_some(());
    until("health to be failing", LIMIT, || scene.world.story(), failing);
    let second = scene.bot.says(OWNER, "two");
    assert!(scene.bot.look(Account::confirmed) < first.update_id);
    assert_eq!(scene.bot.calls("sendMessage"), []);
    lock.execute_batch("ROLLBACK").unwrap();
    scene.reads("echo: one");
    scene.reads("echo: two");
    wait(scene.bot.wait_confirmed(second.update_id, LIMIT));
    scene.rest();
    assert_eq!(scene.texts(), ["echo: one", "echo: two"]);
    assert_eq!(scene.world.cli(&["health", "--json"]).json()["status"], "ok");
}
