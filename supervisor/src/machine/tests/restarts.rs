//! A supervisor that ends in the middle of everything, and the next one.

use super::world::*;
use crate::machine::nouns::*;
use crate::machine::words::Delivery;
use crate::machine::words::Input;
use protocol::control::{Request, Verb};
use protocol::{FailureClass, Outcome, TurnId};

const DONE: Outcome = Outcome::Completed;

#[test]
fn a_running_turn_goes_on_under_the_next_supervisor() {
    let mut world = World::new();
    world.write("abot", FRIEND, "go");
    world.settle();
    let before = world.process(&name("a")).unwrap().pid;
    world.restart();
    world.settle();
    assert!(world.runs(1));
    assert_eq!(world.process(&name("a")).unwrap().pid, before);
    world.end(1, DONE);
    assert_eq!(world.ledger.attempts.len(), 1);
    assert_eq!(world.arrive()[0].body, "answer 1");
}

#[test]
fn an_outcome_that_was_missed_is_taken_once() {
    let mut world = World::new();
    world.send("a", "x", "go");
    world.settle();
    let (agent, attempt) = world.attempt(1);
    let place = world.places.get_mut(&agent).unwrap();
    place.end(attempt, DONE, "");
    world.restart();
    world.settle();
    assert_eq!(world.turn_end(1), Some(&TurnEnd::Outcome(DONE)));
    world.restart();
    world.settle();
    assert!(world.places[&agent].journal.is_empty(), "it was acknowledged");
}

#[test]
fn an_outcome_whose_commit_was_lost_comes_again() {
    let mut world = World::new();
    world.write("abot", FRIEND, "go");
    world.settle();
    let (agent, attempt) = world.attempt(1);
    world.places.get_mut(&agent).unwrap().end(attempt, DONE, "");
    world.news(&agent);
    assert!(world.places[&agent].journal.contains_key(&attempt), "no acknowledgement before the commit");
    world.restart();
    let posts = world.arrive();
    assert_eq!(posts.len(), 1);
    assert_eq!(world.turn_end(1), Some(&TurnEnd::Outcome(DONE)));
}

#[test]
fn an_attempt_that_never_arrived_is_sent_again_under_its_number() {
    let mut world = World::new();
    world.send("a", "x", "first");
    world.settle();
    world.end(1, DONE);
    world.send("a", "x", "go");
    let group = world.pending.pop_front().unwrap();
    world.ledger.commit(group.records);
    world.restart();
    world.settle();
    let begun: Vec<_> = world.places[&name("a")].begun.iter().map(|b| (b.attempt.0, b.thread.clone())).collect();
    assert_eq!(begun, [(1, None), (2, Some("thread-1".to_owned()))]);
}

#[test]
fn an_uncommitted_turn_leaves_no_trace_but_the_channel_has_it() {
    let mut world = World::new();
    world.write("abot", FRIEND, "go");
    world.restart();
    world.settle();
    assert!(world.runs(1));
    assert_eq!(world.ledger.turns.len(), 1);
}

#[test]
fn tries_are_counted_over_a_restart() {
    for restart in [false, true] {
        let mut world = World::new();
        world.send("a", "x", "go");
        world.settle();
        for class in [FailureClass::Network, FailureClass::Network, FailureClass::Auth] {
            world.end(1, Outcome::Failed(class));
            if restart {
                world.restart();
            }
            world.pass(6_000);
        }
        let models: Vec<_> = world.places[&name("a")].begun.iter().map(|b| b.route.model.clone()).collect();
        assert_eq!(models, ["first", "first", "sec_ond"], "restart={restart}");
        assert_eq!(world.turn_end(1), Some(&TurnEnd::Outcome(Outcome::Failed(FailureClass::Auth))));
    }
}

#[test]
fn a_streak_goes_on_over_a_restart_and_is_told_once() {
    let mut world = World::new();
    let mut alerts = Vec::new();
    for n in 1..=5 {
        world.send("a", "x", "go");
        world.settle();
        world.end_with(n, Outcome::Failed(FailureClass::ContextOverflow), &format!("id {n}:\nmuch too long"));
        alerts.extend(world.arrive().into_iter().filter(|post| post.kind == PostKind::Alert).map(|_| n));
        world.restart();
        world.settle();
    }
    assert_eq!(alerts, [3]);
}

#[test]
fn a_restart_in_mid_stop_goes_on_to_stop() {
    let mut world = World::new();
    world.send("a", "x", "go");
    world.settle();
    world.ask(Request::Agents(Verb::Stop, vec![name("a")]));
    world.settle();
    world.restart();
    world.settle();
    assert!(world.runs(1), "within the grace");
    world.pass(5_000);
    assert!(world.process(&name("a")).is_none());
    assert_eq!(world.turn_end(1), None, "safe to repeat: it waits for the next start");
    world.ask(Request::Agents(Verb::Start, vec![name("a")]));
    world.pass(2_000);
    assert!(world.runs(1));
}

#[test]
fn a_worker_that_died_while_nobody_looked_is_found_dead() {
    let mut world = World::new();
    world.send("a", "x", "go");
    world.settle();
    let (agent, attempt) = world.attempt(1);
    world.places.get_mut(&agent).unwrap().run_tool(attempt);
    world.die(&agent, "gone");
    world.restart();
    world.settle();
    assert_eq!(world.turn_end(1), Some(&TurnEnd::Outcome(Outcome::Failed(FailureClass::WorkerLost))));
}

#[test]
fn a_worker_that_is_too_slow_to_answer_is_found_later() {
    let mut world = World::new();
    world.send("a", "x", "go");
    world.settle();
    let before = world.process(&name("a")).unwrap().pid;
    world.places.get_mut(&name("a")).unwrap().stopped = true;
    world.restart();
    world.settle();
    world.places.get_mut(&name("a")).unwrap().stopped = false;
    world.pass(6_000);
    assert_eq!(world.process(&name("a")).unwrap().pid, before);
    world.end(1, DONE);
}

#[test]
fn posts_that_may_have_arrived_say_so_and_stale_status_messages_go() {
    let mut world = World::new();
    world.write("abot", FRIEND, "work");
    world.pass(6_000);
    world.end(1, DONE);
    world.restart();
    world.settle();
    let posts = world.arrive();
    assert_eq!(
        posts.iter().map(|post| (post.kind, post.maybe_repeated)).collect::<Vec<_>>(),
        [(PostKind::Final, true)]
    );
    let status = world.ledger.posts.values().find(|post| post.open.post.kind == PostKind::Status).unwrap();
    assert_eq!(status.end, Some(false));
}

#[test]
fn a_status_message_of_a_running_turn_is_taken_over() {
    let mut world = World::new();
    world.write("abot", FRIEND, "work");
    world.pass(6_000);
    let post = world.in_flight.pop().unwrap();
    world.give(Input::Delivered(post.id, Delivery::Sent { message: Some(77), more: false }));
    world.settle();
    world.restart();
    world.pass(12_000);
    assert!(!world.edits.is_empty());
    world.end(1, DONE);
    let removed: Vec<_> = world.arrive().iter().filter_map(|post| post.edits).collect();
    assert_eq!(removed, [77]);
}

#[test]
fn a_turn_of_an_agent_that_is_gone_from_the_configuration_is_told() {
    let mut world = World::new();
    world.write("abot", FRIEND, "one");
    world.write("abot", FRIEND, "two");
    world.settle();
    world.setup.agents.remove(&name("a"));
    world.restart();
    world.settle();
    for turn in [1, 2] {
        assert!(world.turn_text(turn).contains("no longer configured"));
    }
    assert!(world.ledger.turns[&TurnId(1)].end.is_some());
}
