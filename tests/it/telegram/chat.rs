//! What a person sees who writes: answers, their form and their place.

use super::{OWNER, Scene, many, reads, rest, token};
use crate::binaries;
use crate::both::wait;
use cofferdam_tests::standin::telegram::{Account, TEXT_UNITS_MAX, TelegramServer, What, Writing};
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::World;
use serde_json::json;

const GROUP: i64 = -1_001;

#[test]
fn a_message_is_answered_by_both_runtimes() {
    for runtime in ["codex", "codex-cli"] {
        let scene = Scene::new(&format!("runtime = \"{runtime}\""));
        let first = scene.bot.says(OWNER, "hello");
        let answer = scene.reads("echo: hello");
        assert_eq!((answer.text.as_str(), answer.reply_to), ("echo: hello", Some(first.message_id)));
        scene.says("[[recall]] and");
        assert!(scene.reads("recall: ").text.contains("hello"), "the chat goes on in one thread");
        wait(scene.bot.wait_confirmed(first.update_id + 1, LIMIT));
        scene.rest();
        assert_eq!(scene.ledger("SELECT outcome FROM updates"), ["answered", "answered"]);
        assert_eq!(
            scene.ledger("SELECT kind || ' ' || state || ' ' || maybe_repeated FROM posts"),
            ["final sent 0"; 2]
        );
        assert_eq!(scene.ledger("SELECT runtime FROM attempts"), [runtime; 2]);
    }
}

#[test]
fn markdown_comes_as_entities() {
    let scene = Scene::new("");
    scene.says("[[say **bold** and `code` with [a link](https://example.org/x)]]");
    let answer = scene.reads("bold and code with a link");
    assert_eq!(answer.text, "bold and code with a link");
    let kinds: Vec<&str> = answer.entities.as_array().unwrap().iter().filter_map(|e| e["type"].as_str()).collect();
    assert_eq!(kinds, ["bold", "code", "text_link"], "{}", answer.entities);
    assert_eq!((&answer.entities[0]["offset"], &answer.entities[0]["length"]), (&json!(0), &json!(4)));
    scene.rest();
}

#[test]
fn a_long_answer_comes_in_pieces_in_order() {
    let scene = Scene::new("");
    let prompt = many(1_000, |line| format!("\n\nline {line} ends"));
    let asked = scene.says(&prompt);
    scene.reads("line 999 ends");
    let pieces =
        scene.bot.look(|account| account.chat(OWNER).unwrap().from_bot().into_iter().cloned().collect::<Vec<_>>());
    assert!(pieces.len() >= 4, "{}", pieces.len());
    let lines: Vec<&str> = pieces.iter().flat_map(|piece| piece.text.lines()).filter(|l| l.contains("line ")).collect();
    assert_eq!(lines.len(), 1_000);
    for (i, line) in lines.iter().enumerate() {
        assert!(line.ends_with(&format!("line {i} ends")), "{i}: {line}");
    }
    assert!(pieces.iter().all(|piece| piece.text.encode_utf16().count() <= TEXT_UNITS_MAX));
    let replies: Vec<_> = pieces.iter().map(|piece| piece.reply_to).collect();
    assert_eq!(replies[0], Some(asked));
    assert!(replies[1..].iter().all(Option::is_none), "{replies:?}");
    scene.rest();
}

#[test]
fn a_long_turn_shows_typing_and_one_status_message_that_goes_at_the_end() {
    let scene = Scene::new("runtime = \"codex\"");
    let asked = scene.says("[[hold h]] think");
    scene.held("h");
    let status = scene.reads("⏳");
    assert_eq!(status.reply_to, Some(asked));
    let edited = |what: &What| matches!(what, What::Edited { message_id, .. } if *message_id == status.message_id);
    wait(scene.bot.wait_for("an edit of the status", LIMIT, |account| {
        account.chat(OWNER)?.events.iter().find(|event| edited(&event.what)).map(drop)
    }));
    let typing = scene.bot.calls("sendChatAction");
    assert!(typing.len() >= 3, "typing is shown for as long as it runs: {typing:?}");
    assert_eq!(scene.texts().len(), 1, "one status message: {:?}", scene.texts());
    scene.world.model.release("h");
    scene.reads("echo: think");
    scene.rest();
    assert_eq!(scene.texts(), ["echo: think"]);
    let whole = "SELECT kind || ' ' || state FROM posts ORDER BY id";
    assert_eq!(scene.ledger(whole), ["status sent", "final sent", "remove sent"]);
}

#[test]
fn a_message_behind_another_is_told_its_place() {
    let scene = Scene::new("queue = \"queue\"");
    scene.says("[[hold h]] one");
    scene.held("h");
    let second = scene.says("two");
    let place = scene.reads("queued: 1 before this");
    assert_eq!(place.reply_to, Some(second));
    scene.says("three");
    scene.reads("queued: 2 before this");
    scene.world.model.release("h");
    scene.reads("echo: three");
    scene.rest();
    assert_eq!(scene.texts(), ["echo: one", "echo: two", "echo: three"]);
}

#[test]
fn a_group_and_its_topics_are_answered_where_they_ask() {
    let scene = Scene::new("");
    let group = Writing {
        chat: GROUP,
        user: Some(OWNER),
        kind: Some("supergroup".into()),
        thread: None,
        reply_to: None,
        text: "in the group".into(),
    };
    let asked = scene.bot.writes(group.clone());
    let answer = reads(&scene.world, &scene.bot, GROUP, "echo: in the group");
    assert_eq!((answer.thread, answer.reply_to), (None, Some(asked.message_id)));
    for topic in [5, 6] {
        let text = format!("[[recall]] topic {topic}");
        scene.bot.writes(Writing { thread: Some(topic), text, ..group.clone() });
    }
    let in_topic = |topic: i64| {
        let answers = |account: &Account| {
            account.chat(GROUP)?.from_bot().into_iter().find(|shown| shown.thread == Some(topic)).cloned()
        };
        wait(scene.bot.wait_for(&format!("an answer in topic {topic}"), LIMIT, answers))
    };
    for topic in [5, 6] {
        assert!(in_topic(topic).text.starts_with("recall: []"), "a topic is a conversation of its own");
    }
    scene.rest();
    let typed = scene.bot.calls("sendChatAction");
    assert!(typed.iter().any(|call| call.params["message_thread_id"] == 5), "typing is shown in the topic: {typed:?}");
    let lanes = scene.ledger("SELECT conversation FROM turns ORDER BY conversation");
    let at = format!("telegram:main:{GROUP}");
    assert_eq!(lanes, [at.clone(), format!("{at}:5"), format!("{at}:6")]);
}

#[test]
fn what_a_reply_quotes_goes_along() {
    let scene = Scene::new("");
    scene.says("[[say first\nsecond]]");
    let answer = scene.reads("second");
    scene.bot.writes(Writing { reply_to: Some(answer.message_id), ..Writing::private(OWNER, "why?") });
    assert!(scene.reads("why?").text.contains("why?"));
    assert_eq!(scene.ledger("SELECT prompt FROM turns WHERE id = 2"), ["> first\n> second\n\nwhy?"]);
    // A command that answers a message is a command all the same.
    scene.bot.writes(Writing { reply_to: Some(answer.message_id), ..Writing::private(OWNER, "/help") });
    scene.reads("/status:");
    scene.rest();
}

#[test]
fn five_bots_answer_at_once() {
    let server = TelegramServer::start().unwrap();
    let mut builder = World::builder(binaries());
    let mut bots = Vec::new();
    for i in 0..5 {
        let (name, agent) = (format!("bot{i}"), format!("a{i}"));
        bots.push(server.bot(&token(7100 + i), &name));
        builder = builder.agent(&agent, "").bot(&name, &agent, &token(7100 + i), &server, OWNER);
    }
    let world = builder.start();
    for (i, bot) in bots.iter().enumerate() {
        bot.says(OWNER, &format!("[[hold all]] to {i}"));
    }
    let asked = || (world.model.count_prompt("to ") >= 5).then_some(());
    until("five turns at once", LIMIT, || world.story(), asked);
    world.model.release("all");
    for (i, bot) in bots.iter().enumerate() {
        reads(&world, bot, OWNER, &format!("echo: to {i}"));
    }
    rest(&world);
    for (i, bot) in bots.iter().enumerate() {
        assert_eq!(bot.texts(OWNER), [format!("echo: to {i}")]);
    }
}

#[test]
fn a_message_during_a_turn_becomes_part_of_it() {
    let scene = Scene::new("runtime = \"codex\"\nqueue = \"steer\"");
    scene.says("[[hold h]] one");
    scene.held("h");
    scene.says("[[recall]] and this");
    scene.ledger_says("SELECT outcome FROM updates WHERE id = 2", &["joined"]);
    scene.world.model.release("h");
    let answer = scene.reads("recall: ");
    assert!(answer.text.contains("one"), "{}", answer.text);
    scene.rest();
    assert_eq!(scene.ledger("SELECT outcome FROM updates ORDER BY id"), ["answered", "joined"]);
    assert_eq!(scene.texts().len(), 1, "{:?}", scene.texts());
}
