//! What can go wrong with an answer on its way out: the sender gets it, once, or twice with a mark, or the ledger says why not.

use super::{OWNER, SECRET, Scene, many, reads, token};
use cofferdam_tests::standin::telegram::{Bot, Call, Fault, FaultKind, TelegramServer, What};
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::World;

/// What a message that may be there twice begins with.
const MARK: &str = "(sent again: the first try may have arrived)";

fn error(code: u16, description: &str) -> FaultKind {
    FaultKind::Error { code, description: description.to_owned(), retry_after: None }
}

/// Calls of a bot but for its polls.
fn spoken(bot: &Bot) -> Vec<Call> {
    bot.calls("")
        .into_iter()
        .filter(|call| !["getUpdates", "getMe", "setMyCommands"].contains(&&*call.method))
        .collect()
}

#[test]
fn a_pause_that_the_server_wants_is_kept_by_that_bot_alone() {
    let server = TelegramServer::start().unwrap();
    let (bot, other) = (server.bot(&token(7001), "main_bot"), server.bot(&token(7002), "other_bot"));
    let world = World::builder(crate::binaries())
        .agent("a", "max_turns = 3")
        .agent("b", "")
        .bot("main", "a", &token(7001), &server, OWNER)
        .bot("other", "b", &token(7002), &server, OWNER)
        .start();
    bot.fault(Fault::on("sendMessage", FaultKind::flood(6)));
    bot.says(OWNER, "first");
    let refused = || bot.calls("sendMessage").into_iter().find(|call| call.status == Some(429));
    let refused = until("a refused message", LIMIT, || world.story(), refused);
    // A turn that runs through the whole pause, which would show typing and a status message.
    bot.says(OWNER, "[[hold h]] second");
    crate::both::held(&world, "h");
    other.says(OWNER, "elsewhere");
    reads(&world, &other, OWNER, "echo: elsewhere");
    let elsewhere = other.calls("sendMessage")[0].at_ms;
    reads(&world, &bot, OWNER, "echo: first");
    let after: Vec<Call> = spoken(&bot).into_iter().filter(|call| call.seq > refused.seq).collect();
    for call in &after {
        assert!(call.at_ms >= refused.at_ms + 6_000, "{} ms too early: {call:?}", refused.at_ms + 6_000 - call.at_ms);
    }
    assert!(after[0].at_ms < refused.at_ms + 7_000, "exactly as long: {after:?}");
    assert!(elsewhere < refused.at_ms + 6_000, "the other bot went on");
    world.model.release("h");
    reads(&world, &bot, OWNER, "echo: second");
    super::rest(&world);
    assert_eq!(bot.texts(OWNER), ["echo: first", "echo: second"], "nothing is marked: a refusal is no doubt");
}

#[test]
fn a_failing_server_is_tried_again_and_doubt_is_marked() {
    let cases = [
        ("five hundred", error(500, "Internal Server Error"), false),
        ("a page", FaultKind::Html { code: 503 }, false),
        // A gateway that lost the server behind it may have passed the message on.
        ("a gateway", FaultKind::bad_gateway(), true),
        ("a gateway's page", FaultKind::Html { code: 502 }, true),
        ("cut before", FaultKind::CutBefore, true),
    ];
    let scene = Scene::new("");
    for (text, kind, doubt) in cases {
        scene.bot.fault(Fault::on("sendMessage", kind));
        scene.says(text);
        let answer = scene.reads(&format!("echo: {text}"));
        assert_eq!(answer.text.starts_with(MARK), doubt, "{text}: {}", answer.text);
    }
    scene.rest();
    assert_eq!(scene.texts().len(), 5, "each once: {:?}", scene.texts());
    let tries = "SELECT tries || ' ' || maybe_repeated || ' ' || state FROM posts ORDER BY id";
    assert_eq!(scene.ledger(tries), ["1 0 sent", "1 0 sent", "1 1 sent", "1 1 sent", "1 1 sent"]);
}

#[test]
fn a_lost_answer_of_telegram_leads_to_a_second_message_that_says_so() {
    let scene = Scene::new("");
    scene.bot.fault(Fault::on("sendMessage", FaultKind::CutAfter));
    scene.says("[[say **twice**]]");
    let marked = scene.reads(MARK);
    assert_eq!(scene.texts(), ["twice".to_owned(), format!("{MARK}\n\ntwice")]);
    assert_eq!(marked.entities[0]["offset"], MARK.encode_utf16().count() + 2, "the formatting moves along");
    scene.rest();
}

#[test]
fn refused_formatting_is_sent_plain() {
    let scene = Scene::new("");
    scene.bot.fault(Fault::on("sendMessage", error(400, "Bad Request: can't parse entities: offset 7 is wrong")));
    scene.says("[[say **bold** words]]");
    let answer = scene.reads("words");
    assert!(answer.entities.as_array().is_none_or(Vec::is_empty), "{answer:?}");
    scene.rest();
    assert_eq!(scene.texts().len(), 1);
    assert_eq!(scene.ledger("SELECT plain || ' ' || state FROM posts"), ["1 sent"]);
}

#[test]
fn formatting_that_is_refused_in_the_middle_loses_and_repeats_nothing() {
    let scene = Scene::new("");
    let text = many(300, |i| format!("word **number {i}** here\n"));
    let hold = |name: &str| Fault::on("sendMessage", FaultKind::Hold(name.into()));
    scene.bot.fault(hold("first"));
    scene.bot.fault(Fault::on("sendMessage", error(400, "Bad Request: can't parse entities: never mind")));
    scene.says(&text);
    crate::both::wait(scene.server.wait_held("first", LIMIT));
    scene.server.release("first");
    scene.reads("number 299");
    scene.rest();
    let whole = scene.texts().join("\n");
    for i in 0..300 {
        let found =
            whole.matches(&format!("number {i} here")).count() + whole.matches(&format!("number {i}** here")).count();
        assert_eq!(found, 1, "number {i}");
    }
    assert!(scene.texts().len() >= 2);
}

#[test]
fn a_person_who_blocked_the_bot_makes_a_dead_post_that_can_be_seen() {
    let scene = Scene::new("");
    scene.bot.fault(Fault::on("sendMessage", FaultKind::blocked()));
    scene.says("into the void");
    scene.ledger_says("SELECT state FROM posts", &["dead"]);
    assert_eq!(scene.ledger("SELECT why FROM posts WHERE why LIKE '%blocked by the user%'").len(), 1);
    let story = scene.world.turn(1).to_string();
    assert!(story.contains("dead") && story.contains("blocked by the user"), "{story}");
    scene.says("and back");
    scene.reads("echo: and back");
    scene.rest();
    assert!(!story.contains(SECRET));
}

#[test]
fn a_status_message_that_cannot_be_removed_holds_nothing_up() {
    let scene = Scene::new("queue = \"queue\"");
    scene.bot.fault(Fault::on("deleteMessage", error(400, "Bad Request: message can't be deleted")));
    scene.says("[[hold h]] one");
    scene.held("h");
    scene.says("two");
    scene.reads("queued: 1 before this");
    scene.world.model.release("h");
    scene.reads("echo: two");
    scene.rest();
    assert_eq!(scene.ledger("SELECT state FROM posts WHERE kind = 'remove'"), ["dead"]);
    let finals: Vec<_> = scene
        .events()
        .into_iter()
        .filter(|e| matches!(&e.what, What::Sent { text, .. } if text.starts_with("echo")))
        .collect();
    assert_eq!(finals.len(), 2);
}

#[test]
fn a_pause_in_answer_to_typing_holds_answers_too() {
    let scene = Scene::new("");
    scene.bot.fault(Fault::on("sendChatAction", FaultKind::flood(2)));
    scene.says("[[hold h]] hello");
    scene.held("h");
    let refused = || scene.bot.calls("sendChatAction").into_iter().find(|call| call.status == Some(429));
    let refused = until("typing to be refused", LIMIT, || scene.world.story(), refused);
    scene.world.model.release("h");
    scene.reads("echo: hello");
    let sent = scene.bot.calls("sendMessage").remove(0);
    assert!(sent.at_ms >= refused.at_ms + 2_000, "{refused:?} {sent:?}");
    scene.rest();
}

#[test]
fn a_chat_that_hangs_holds_up_no_other() {
    let scene = Scene::silent("max_turns = 2", |builder| builder);
    let text = std::fs::read_to_string(scene.world.config()).unwrap();
    scene.world.write_config(&text.replace("allow = [11]", "allow = [11, 22]"));
    let mut scene = scene;
    scene.world.run();
    scene.bot.fault(Fault::on("sendMessage", FaultKind::HoldAfter("stuck".into())));
    scene.says("one");
    crate::both::wait(scene.server.wait_held("stuck", LIMIT));
    scene.bot.says(22, "elsewhere");
    reads(&scene.world, &scene.bot, 22, "echo: elsewhere");
    scene.says("two");
    scene.ledger_says("SELECT count(*) FROM turns WHERE outcome IS NOT NULL", &["3"]);
    assert_eq!(scene.texts(), ["echo: one"], "the order of a chat is kept");
    scene.server.release("stuck");
    scene.reads("echo: two");
    scene.rest();
    assert_eq!(scene.texts(), ["echo: one", "echo: two"]);
}
