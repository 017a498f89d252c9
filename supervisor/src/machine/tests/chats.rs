//! Chats: commands, strangers, updates that come twice or too early, status messages, and a channel in trouble.

use super::world::*;
use crate::machine::nouns::*;
use crate::machine::words::{Delivery, Input};
use protocol::control::{Reply, Request};
use protocol::from_worker::{Phase, Progress};
use protocol::{FailureClass, FromWorker, Outcome, TurnId};

/// What a chat reads, in order.
fn read(world: &mut World) -> Vec<String> {
    world.arrive().into_iter().map(|post| post.body).collect()
}

fn update_end(world: &World, n: u64) -> &'static str {
    world.ledger.updates[&UpdateId(n)].1.as_ref().map_or("open", UpdateEnd::as_str)
}

#[test]
fn commands_are_answered_while_a_turn_runs() {
    let mut world = World::new();
    world.write("abot", FRIEND, "work");
    world.settle();
    world.write("abot", FRIEND, "/status");
    let text = read(&mut world).remove(0);
    assert!(text.starts_with("Agent a is busy: 1 running, 0 waiting.\nThis chat: ⏳ starting"), "{text}");
    world.write("abot", FRIEND, "/help");
    assert!(read(&mut world)[0].contains("/retry"));
    world.write("abot", FRIEND, "/retry");
    assert_eq!(
        read(&mut world),
        ["Not tried again: turn 1 is running; only failed and stopped turns are tried again."]
    );
    world.write("abot", FRIEND, "/stop");
    assert_eq!(read(&mut world), ["Stopping.", "⏹ stopped by user 11"]);
    world.write("abot", FRIEND, "/stop");
    assert_eq!(read(&mut world), ["Nothing runs in this chat."]);
    world.write("abot", FRIEND, "/retry");
    world.settle();
    assert!(world.runs(2));
    world.end(2, Outcome::Completed);
    assert_eq!(
        (1..=6).map(|n| update_end(&world, n)).collect::<Vec<_>>(),
        ["cancelled", "answered", "answered", "refused", "answered", "answered"]
    );
    assert_eq!(update_end(&world, 7), "answered", "the retry ends with its turn");
}

#[test]
fn a_second_stop_cancels_what_waits() {
    let mut world = World::new();
    for text in ["one", "two", "three"] {
        world.write("abot", FRIEND, text);
        world.settle();
    }
    world.places.get_mut(&name("a")).unwrap().stopped = true;
    world.write("abot", FRIEND, "/stop");
    world.settle();
    world.write("abot", FRIEND, "/stop");
    let texts = read(&mut world);
    assert!(texts.contains(&"Stopping. 2 more wait in this chat; /stop again to stop those too.".to_owned()));
    assert!(texts.contains(&"Still stopping what runs. Cancelled 2 that waited.".to_owned()), "{texts:?}");
    assert!(matches!(world.turn_end(3), Some(TurnEnd::Cancelled(_))));
}

#[test]
fn a_stop_in_a_pause_cancels() {
    let mut world = World::new();
    world.write("abot", FRIEND, "one");
    world.settle();
    world.end(1, Outcome::Failed(FailureClass::RateLimit));
    world.write("abot", FRIEND, "/stop");
    world.settle();
    assert!(matches!(world.turn_end(1), Some(TurnEnd::Cancelled(why)) if why.contains("user 11")));
    world.pass(60_000);
    assert_eq!(world.places[&name("a")].begun.len(), 1);
}

#[test]
fn a_worker_that_does_not_stop_a_turn_is_given_up() {
    let mut world = World::new();
    world.write("abot", FRIEND, "one");
    world.settle();
    let before = world.process(&name("a")).unwrap().pid;
    world.places.get_mut(&name("a")).unwrap().stopped = true;
    world.write("abot", FRIEND, "/stop");
    world.pass(25_000);
    assert_ne!(world.process(&name("a")).unwrap().pid, before);
    assert!(world.turn_end(1).is_some(), "and the turn has its end");
}

#[test]
fn a_fresh_conversation_is_not_undone_by_what_still_runs() {
    for restart in [false, true] {
        let mut world = World::new();
        world.write("abot", FRIEND, "one");
        world.settle();
        world.end(1, Outcome::Completed);
        world.write("abot", FRIEND, "two");
        world.settle();
        world.write("abot", FRIEND, "/new");
        assert!(read(&mut world).last().unwrap().contains("what runs goes on in the old one"));
        if restart {
            world.restart();
            world.settle();
        }
        world.end(2, Outcome::Completed);
        world.write("abot", FRIEND, "three");
        world.settle();
        let threads: Vec<_> = world.places[&name("a")].begun.iter().map(|b| b.thread.clone()).collect();
        assert_eq!(threads, [None, Some("thread-1".to_owned()), None], "restart={restart}");
    }
}

#[test]
fn a_stranger_is_told_once_and_nothing_runs() {
    let mut world = World::new();
    for _ in 0..3 {
        world.write("abot", 99, "let me in");
    }
    let texts = read(&mut world);
    assert_eq!(texts.len(), 1);
    assert!(texts[0].contains("99"));
    assert!(world.ledger.turns.is_empty());
    assert!((1..=3).all(|n| update_end(&world, n) == "refused"));
}

#[test]
fn what_cannot_be_taken_is_refused_politely_where_somebody_can_be_told() {
    let mut world = World::new();
    let from = ChatMessage { chat: World::chat("abot", FRIEND), message: 1, user: FRIEND };
    let stranger = ChatMessage { user: 99, chat: World::chat("abot", 99), ..from.clone() };
    for (what, from) in [
        ("video_note", Some(from.clone())),
        ("edited_message", Some(from)),
        ("photo", Some(stranger)),
        ("poll_answer", None),
    ] {
        world.update("abot", UpdateKind::Other { what: what.into(), from });
    }
    assert_eq!(read(&mut world), ["I cannot take a video note yet, only text. Nothing was done."]);
    assert!((1..=4).all(|n| update_end(&world, n) == "refused"));
}

#[test]
fn an_update_that_comes_again_is_confirmed_and_not_taken_again() {
    let mut world = World::new();
    world.write("abot", FRIEND, "one");
    world.settle();
    world.deliver(0);
    world.settle();
    world.restart();
    world.deliver(0);
    world.settle();
    assert_eq!(world.ledger.turns.len(), 1);
    assert!(world.receipts.is_empty());
}

#[test]
fn a_receipt_waits_for_the_commit() {
    let mut world = World::new();
    world.write("abot", FRIEND, "one");
    assert!(!world.channel[0].1);
    world.settle();
    assert!(world.channel[0].1);
}

#[test]
fn a_full_ledger_holds_updates_back_and_loses_none() {
    let mut world = World::new();
    world.give(Input::LedgerStuck("no space".into()));
    world.write("abot", FRIEND, "one");
    world.settle();
    assert!(!world.channel[0].1 && world.ledger.updates.is_empty());
    let refused = world.send("a", "x", "text");
    assert!(matches!(world.replies[&refused].last(), Some(Reply::Refused(r)) if r.why.contains("no space")));
    world.give(Input::LedgerWell);
    world.settle();
    assert!(world.channel[0].1 && world.runs(1));
    world.give(Input::LedgerStuck("no space".into()));
    world.write("abot", FRIEND, "two");
    world.restart();
    world.settle();
    assert_eq!(world.ledger.turns.len(), 2, "the channel keeps what was not confirmed");
}

#[test]
fn a_leaving_supervisor_takes_nothing_more() {
    let mut world = World::new();
    world.give(Input::Leave);
    world.write("abot", FRIEND, "one");
    let caller = world.ask(Request::Ps);
    world.settle();
    assert!(world.gone && world.ledger.updates.is_empty());
    assert!(matches!(&world.replies[&caller][..], [Reply::Refused(_)]));
    world.restart();
    world.settle();
    assert!(world.runs(1));
}

#[test]
fn a_retry_that_was_on_its_way_when_we_ended_is_told() {
    let mut world = World::new();
    world.write("abot", FRIEND, "/retry");
    while world.commit() {}
    world.restart();
    let texts = read(&mut world);
    assert_eq!(texts, ["Not done: cofferdam was restarted before it was carried out; send it again."]);
    assert_eq!(update_end(&world, 1), "refused");
}

fn progress(world: &mut World, turn: u64, detail: &str) {
    let (agent, attempt) = world.attempt(turn);
    let progress = Progress { attempt, phase: Phase::Tool, detail: detail.into(), dropped: 0, for_ms: 0 };
    let incarnation = world.process(&agent).unwrap().incarnation;
    world.give(Input::Said(agent, incarnation, FromWorker::Progress(progress)));
}

#[test]
fn a_long_turn_shows_what_it_does_and_cleans_up() {
    let mut world = World::new();
    world.write("abot", FRIEND, "work");
    world.pass(4_000);
    assert_eq!(world.arrive(), []);
    assert_eq!(world.typing, 1);
    progress(&mut world, 1, "cargo test");
    world.pass(2_000);
    let posts = world.arrive();
    assert_eq!((posts.len(), posts[0].kind), (1, PostKind::Status));
    assert_eq!(posts[0].body, "⏳ in a tool: cargo test, 1 s · 5 s in all");
    world.pass(20_000);
    assert!((3..=5).contains(&world.edits.len()), "{:?}", world.edits);
    assert!(world.typing >= 5);
    world.end(1, Outcome::Completed);
    let kinds: Vec<_> = world.arrive().iter().map(|post| post.kind).collect();
    assert_eq!(kinds, [PostKind::Final, PostKind::Remove]);
}

#[test]
fn a_status_that_arrives_after_the_end_is_removed() {
    let mut world = World::new();
    world.write("abot", FRIEND, "work");
    world.pass(6_000);
    world.end(1, Outcome::Completed);
    let kinds: Vec<_> = world.arrive().iter().map(|post| post.kind).collect();
    assert_eq!(kinds, [PostKind::Status, PostKind::Final, PostKind::Remove]);
}

#[test]
fn nobody_types_for_a_silent_worker_and_the_loop_sleeps() {
    let mut world = World::new();
    world.write("abot", FRIEND, "work");
    world.settle();
    world.places.get_mut(&name("a")).unwrap().stopped = true;
    world.pass(14_000);
    assert!(world.typing <= 2, "{}", world.typing);
    assert!(world.machine.deadline().unwrap().0 > world.tick);
}

#[test]
fn a_status_that_cannot_be_sent_is_not_tried_again() {
    let mut world = World::new();
    world.write("abot", FRIEND, "work");
    world.pass(6_000);
    let post = world.in_flight.pop().unwrap();
    world.give(Input::Delivered(post.id, Delivery::Impossible("blocked".into())));
    world.pass(60_000);
    assert_eq!(world.in_flight, []);
}

#[test]
fn posts_behind_one_that_waits_do_not_keep_us_awake() {
    let mut world = World::new();
    for _ in 0..3 {
        world.write("abot", FRIEND, "/help");
    }
    world.settle();
    world.timeout();
    let post = world.in_flight.pop().unwrap();
    world.give(Input::Delivered(post.id, Delivery::Failed("503".into())));
    world.timeout();
    world.pass(2_000);
    assert_eq!(world.in_flight.len(), 1);
}

#[test]
fn a_pause_of_the_server_holds_over_a_restart() {
    let mut world = World::new();
    world.write("abot", FRIEND, "/help");
    world.settle();
    let post = world.in_flight.pop().unwrap();
    world.give(Input::Delivered(post.id, Delivery::Later(30_000)));
    world.settle();
    world.restart();
    world.settle();
    world.write("abot", OWNER, "/help");
    world.write("bbot", FRIEND, "/help");
    world.settle();
    assert_eq!(world.in_flight.iter().map(|p| p.to.bot.as_str()).collect::<Vec<_>>(), ["bbot"]);
    world.pass(30_000);
    assert_eq!(world.in_flight.len(), 3);
}

#[test]
fn a_server_that_asks_for_a_pause_for_ever_is_given_up() {
    let mut world = World::new();
    world.write("abot", FRIEND, "/help");
    for _ in 0..100 {
        world.settle();
        let Some(post) = world.in_flight.pop() else { break };
        world.give(Input::Delivered(post.id, Delivery::Later(60 * 60 * 1_000)));
        world.tick += 60 * 60 * 1_000;
        world.timeout();
    }
    assert_eq!(world.ledger.posts[&PostId(1)].end, Some(false));
}

#[test]
fn a_failed_turn_tells_its_sender_and_ends_its_update() {
    let mut world = World::new();
    world.write("abot", FRIEND, "go");
    world.settle();
    let (agent, attempt) = world.attempt(1);
    world.places.get_mut(&agent).unwrap().run_tool(attempt);
    world.end_with(1, Outcome::Failed(FailureClass::CodexExit), "exit 1");
    let text = read(&mut world).remove(0);
    assert!(
        text.contains("codex_exit") && text.contains("> exit 1") && text.contains("look before you retry"),
        "{text}"
    );
    assert_eq!(update_end(&world, 1), "failed");
    assert_eq!(world.ledger.turns[&TurnId(1)].new.update, Some(UpdateId(1)));
}

#[test]
fn a_worker_may_archive_what_no_conversation_and_no_turn_goes_on_with() {
    let mut world = World::new();
    for (conversation, turn) in [("one", 1), ("two", 2)] {
        world.send("a", conversation, "hi");
        world.settle();
        world.end(turn, Outcome::Completed);
    }
    world.write("abot", FRIEND, "three");
    world.settle();
    world.end(3, Outcome::Completed);
    world.write("abot", FRIEND, "still");
    world.settle();
    world.write("abot", FRIEND, "/new");
    let spared = |world: &mut World| {
        let threads = ["thread-1", "thread-2", "thread-3", "thread-9"].map(str::to_owned).to_vec();
        world.places.get_mut(&name("a")).unwrap().said.push_back(FromWorker::Spare(threads));
        world.settle();
        world.places[&name("a")].spared.last().unwrap().clone()
    };
    assert_eq!(spared(&mut world), ["thread-9"], "a turn still runs on thread-3");
    world.end(4, Outcome::Completed);
    world.settle();
    assert_eq!(spared(&mut world), ["thread-3", "thread-9"]);
    world.restart();
    world.settle();
    assert_eq!(spared(&mut world), ["thread-3", "thread-9"], "the ledger knows as well");
}
