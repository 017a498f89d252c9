//! A turn's way: accepted, placed, begun, answered; retries, fallbacks, bounds and joins.

use super::world::*;
use crate::machine::admission::START_HOLDS_MS;
use crate::machine::nouns::*;
use crate::machine::setup::{QueueMode, Setup};
use crate::machine::words::JOINT;
use protocol::control::{Refused, RefusedKind, Reply, Request, SendEvent};
use protocol::{FailureClass, Outcome, TurnId};

const DONE: Outcome = Outcome::Completed;

fn failed(class: FailureClass) -> Outcome {
    Outcome::Failed(class)
}

fn mode(mode: QueueMode) -> impl Fn(&mut Setup) {
    move |setup| setup.agents.values_mut().for_each(|policy| policy.queue = mode)
}

/// The prompts that reached an agent's workers, in order.
fn prompts(world: &World, agent: &str) -> Vec<String> {
    world.places[&name(agent)].begun.iter().map(|begin| begin.prompt.head().to_owned()).collect()
}

fn models(world: &World, agent: &str) -> Vec<String> {
    world.places[&name(agent)].begun.iter().map(|begin| begin.route.model.clone()).collect()
}

#[test]
fn a_question_is_accepted_then_answered() {
    let mut world = World::new();
    let caller = world.send("a", "x", "why?");
    assert_eq!(world.replies[&caller], [], "nothing is said before the commit");
    world.settle();
    assert_eq!(world.replies[&caller], [Reply::Event(SendEvent::Accepted { turn: TurnId(1) })]);
    world.end(1, DONE);
    let Some(Reply::Event(SendEvent::Finished(event))) = world.replies[&caller].get(1) else { panic!() };
    assert_eq!((event.text.head(), event.outcome.as_str(), event.attempts), ("answer 1", "completed", 1));
    assert_eq!(event.model.as_deref(), Some("openai/first"));
    assert_eq!(world.replies[&caller][2..], [Reply::Done]);
    world.send("a", "x", "and then?");
    world.settle();
    assert_eq!(world.places[&name("a")].begun[1].thread.as_deref(), Some("thread-1"), "the thread goes on");
}

#[test]
fn a_conversation_keeps_its_order_and_others_run_beside_it() {
    let mut world = World::new();
    let waits: Vec<_> = (0..3).map(|n| world.send("a", "x", &format!("x{n}"))).collect();
    world.send("a", "y", "y0");
    world.settle();
    assert!(world.replies[&waits[2]].contains(&Reply::Event(SendEvent::Queued { turn: TurnId(3), position: 2 })));
    assert!(world.runs(1) && world.runs(4) && !world.runs(2));
    world.end(1, DONE);
    assert!(world.runs(2) && !world.runs(3));
    world.end(2, failed(FailureClass::ContextOverflow));
    assert!(world.runs(3), "an end is an end, whichever");
    assert_eq!(prompts(&world, "a"), ["x0", "y0", "x1", "x2"]);
}

#[test]
fn an_agent_keeps_to_its_bound_and_a_first_turn_waits_for_nobody() {
    let mut world = World::with(|setup| setup.max_turns = 1);
    for n in 0..4 {
        world.send("a", &format!("c{n}"), "go");
        world.settle();
    }
    assert_eq!([1, 2, 3].map(|n| world.runs(n)), [true, true, false], "one beyond the first, on this host");
    world.send("b", "x", "go");
    world.settle();
    assert!(world.runs(5), "the first of another agent");
    world.end(1, DONE);
    assert!(world.runs(3));
    let mut world = World::with(|setup| setup.agents.get_mut(&name("a")).unwrap().max_turns = 1);
    world.send("a", "x", "go");
    world.send("a", "y", "go");
    world.settle();
    assert!(world.runs(1) && !world.runs(2), "the agent's own bound");
}

#[test]
fn a_full_queue_says_so() {
    let mut world = World::new();
    for _ in 0..5 {
        world.send("a", "x", "go");
        world.settle();
    }
    let caller = world.send("a", "x", "one more");
    world.settle();
    let why = "queue full: 4 waiting".to_owned();
    assert_eq!(world.replies[&caller], [Reply::Refused(Refused { kind: RefusedKind::Later, why })], "said once");
    world.write("abot", FRIEND, "one more");
    assert_eq!(world.arrive()[0].body, "Not taken: queue full: 4 waiting.");
    let other = world.send("b", "x", "go");
    world.settle();
    assert_eq!(world.replies[&other].len(), 1, "that is a's trouble alone");
}

#[test]
fn a_steer_that_is_taken_joins() {
    let mut world = World::with(mode(QueueMode::Steer));
    world.places.get_mut(&name("a")).unwrap().takes_steers = true;
    world.send("a", "x", "do it");
    world.settle();
    let caller = world.send("a", "x", "but gently");
    world.settle();
    assert_eq!(world.turn_end(2), Some(&TurnEnd::Joined(TurnId(1))));
    world.end(1, DONE);
    let said = &world.replies[&caller];
    assert!(said.contains(&Reply::Event(SendEvent::Joined { turn: TurnId(2), into: TurnId(1) })));
    assert!(matches!(said.iter().rev().nth(1), Some(Reply::Event(SendEvent::Finished(e))) if e.turn == TurnId(1)));
    assert_eq!(said.last(), Some(&Reply::Done));
}

#[test]
fn a_steer_that_is_refused_waits_for_its_turn() {
    let mut world = World::with(mode(QueueMode::Steer));
    for text in ["one", "two", "three"] {
        world.write("abot", FRIEND, text);
        world.settle();
    }
    assert_eq!(world.turn_end(2), None);
    let queued: Vec<String> = world.in_flight.iter().map(|post| post.body.clone()).collect();
    assert_eq!(queued, ["⏳ queued: 1 before this"], "and its sender sees it");
    for turn in 1..=3 {
        world.end(turn, DONE);
    }
    assert_eq!(prompts(&world, "a"), ["one", "two", "three"]);
}

#[test]
fn a_steer_whose_worker_dies_meanwhile_waits_for_its_turn() {
    let mut world = World::with(mode(QueueMode::Steer));
    world.send("a", "x", "one");
    world.settle();
    world.send("a", "x", "two");
    world.send("a", "x", "three");
    world.commit();
    world.commit();
    world.die(&name("a"), "gone");
    world.pass(2_000);
    assert_eq!(prompts(&world, "a"), ["one", "one"], "safe to repeat: the tool had not run");
    world.end(1, DONE);
    world.end(2, DONE);
    world.end(3, DONE);
}

#[test]
fn a_text_that_joined_is_part_of_the_next_try() {
    let mut world = World::with(mode(QueueMode::Steer));
    world.places.get_mut(&name("a")).unwrap().takes_steers = true;
    world.send("a", "x", "do it");
    world.settle();
    world.send("a", "x", "gently");
    world.settle();
    world.end(1, failed(FailureClass::UsageLimit));
    assert_eq!(prompts(&world, "a"), ["do it".to_owned(), format!("do it{JOINT}gently")]);
}

#[test]
fn what_waits_is_collected_into_one_turn() {
    let mut world = World::with(mode(QueueMode::Collect));
    for text in ["one", "two", "three", "four"] {
        world.send("a", "x", text);
        world.settle();
    }
    world.end(1, DONE);
    assert_eq!(prompts(&world, "a"), ["one".to_owned(), format!("two{JOINT}three{JOINT}four")]);
    assert_eq!(world.turn_end(4), Some(&TurnEnd::Joined(TurnId(2))));
    // The next supervisor must know what was collected: the attempt may never have arrived.
    world.restart();
    world.settle();
    world.end(2, failed(FailureClass::UsageLimit));
    assert_eq!(prompts(&world, "a")[2], format!("two{JOINT}three{JOINT}four"));
}

#[test]
fn a_newer_message_interrupts() {
    let mut world = World::with(mode(QueueMode::Interrupt));
    world.write("abot", FRIEND, "one");
    world.settle();
    world.write("abot", FRIEND, "two");
    world.settle();
    assert_eq!(world.turn_text(1), "stopped by a newer message");
    assert!(world.runs(2));
}

#[test]
fn retries_are_as_the_class_says_and_only_if_safe() {
    for class in FailureClass::ALL.iter().copied().filter(|class| *class != FailureClass::Shutdown) {
        for ran in [false, true] {
            let mut world = World::new();
            world.send("a", "x", "go");
            world.settle();
            for _ in 0..5 {
                if !world.runs(1) {
                    break;
                }
                let (agent, attempt) = world.attempt(1);
                if ran {
                    world.places.get_mut(&agent).unwrap().run_tool(attempt);
                }
                world.end_with(1, failed(class), "so it went");
                world.pass(25_000);
            }
            let policy = class.policy();
            let on_one = usize::from(policy.retries) + 1;
            let expected = match (ran, policy.falls_back) {
                (true, _) => vec!["first"],
                (false, false) => vec!["first"; on_one],
                (false, true) => [vec!["first"; on_one], vec!["sec_ond"; on_one]].concat(),
            };
            assert_eq!(models(&world, "a"), expected, "{class} ran={ran}");
            assert_eq!(world.turn_end(1), Some(&TurnEnd::Outcome(failed(class))), "{class}");
            assert!(world.turn_text(1).contains("so it went"));
        }
    }
}

#[test]
fn a_fallback_says_who_answered() {
    let mut world = World::new();
    world.write("abot", FRIEND, "go");
    world.settle();
    world.end(1, failed(FailureClass::Auth));
    world.end(1, DONE);
    let posts = world.arrive();
    assert_eq!(posts.last().unwrap().body, "answer 1\n\n_answered by openai/sec\\_ond on codex-cli_");
}

#[test]
fn a_turn_that_waits_for_its_retry_holds_no_place() {
    let mut world = World::with(|setup| setup.agents.get_mut(&name("a")).unwrap().max_turns = 1);
    world.send("a", "x", "limited");
    world.settle();
    world.send("a", "y", "quick");
    world.settle();
    world.end(1, failed(FailureClass::RateLimit));
    assert!(world.runs(2));
    world.end(2, DONE);
    world.pass(20_000);
    assert!(world.runs(1));
}

#[test]
fn owners_hear_of_the_third_failure_once_and_again_after_a_success() {
    let mut world = World::new();
    let mut alerts = Vec::new();
    for n in 1..=9 {
        world.send("a", "x", "go");
        world.settle();
        let outcome = if n == 5 { DONE } else { failed(FailureClass::ContextOverflow) };
        world.end_with(n, outcome, &format!("request {n}: too long"));
        let owner = |post: &Post| post.to.chat == OWNER;
        alerts.extend(world.arrive().into_iter().filter(owner).map(|post| (n, post.body)));
    }
    assert_eq!(alerts.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [3, 8]);
    assert!(alerts[0].1.contains("3 times in a row with context_overflow"), "{alerts:?}");
}

#[test]
fn a_turn_that_nobody_takes_ends_after_a_day() {
    let mut world = World::with(|setup| setup.agents.get_mut(&name("a")).unwrap().turn_ms = u64::MAX);
    world.send("a", "x", "one");
    world.settle();
    let waits = world.send("a", "x", "two");
    world.pass(24 * 60 * 60 * 1_000 + 1);
    assert!(matches!(world.turn_end(2), Some(TurnEnd::Cancelled(_))));
    assert_eq!(world.replies[&waits].last(), Some(&Reply::Done));
}

#[test]
fn a_caller_that_goes_away_costs_nothing() {
    let mut world = World::new();
    let caller = world.send("a", "x", "go");
    world.settle();
    world.give(crate::machine::words::Input::CallerGone(caller));
    world.end(1, DONE);
    assert_eq!(world.replies[&caller].len(), 1);
    assert_eq!(world.turn_end(1), Some(&TurnEnd::Outcome(DONE)));
}

#[test]
fn an_ended_turn_is_tried_again_as_a_new_one() {
    let mut world = World::new();
    world.send("a", "x", "go");
    world.settle();
    let early = world.ask(Request::Retry(TurnId(1)));
    world.settle();
    assert!(matches!(&world.replies[&early][..], [Reply::Refused(r)] if r.why.contains("turn 1 is running")));
    world.end(1, failed(FailureClass::TurnTimeout));
    let again = world.ask(Request::Retry(TurnId(1)));
    world.settle();
    assert_eq!(world.ledger.turns[&TurnId(2)].new.retry_of, Some(TurnId(1)));
    world.end(2, DONE);
    assert_eq!(world.replies[&again].last(), Some(&Reply::Done));
    let unknown = world.ask(Request::Retry(TurnId(77)));
    world.settle();
    assert!(matches!(&world.replies[&unknown][..], [Reply::Refused(_)]));
}

#[test]
fn bad_requests_are_refused_with_a_reason() {
    let mut world = World::new();
    for (agent, conversation, text) in [("a", "", "t"), ("a", "x\ny", "t"), ("a", "x", " "), ("zz", "x", "t")] {
        let caller = world.send(agent, conversation, text);
        world.settle();
        assert!(matches!(world.replies[&caller].last(), Some(Reply::Refused(r)) if !r.why.is_empty()));
    }
    let nobody = world.ask(Request::Agents(protocol::control::Verb::Stop, vec![]));
    assert!(matches!(&world.replies[&nobody][..], [Reply::Refused(_)]));
    assert!(world.ledger.turns.is_empty());
}

#[test]
fn a_warm_agent_waits_for_no_start_and_a_cold_one_for_one_start_only() {
    let mut world = World::with(|setup| setup.starts_max = 1);
    world.send("a", "x", "warm it");
    world.settle();
    world.end(1, DONE);
    world.starts = false;
    world.send("b", "x", "its start never ends");
    world.settle();
    assert!(world.runs(2));
    world.send("a", "x", "warm");
    world.settle();
    assert!(world.runs(3), "Codex runs: nothing is started");
    world.end(3, failed(FailureClass::ContextOverflow));
    world.send("a", "x", "cold");
    world.settle();
    assert!(!world.runs(4), "Codex may have died of the failure");
    world.pass(START_HOLDS_MS);
    assert!(world.runs(4));
    world.send("b", "y", "again");
    world.settle();
    assert!(world.runs(5), "its start is slow: it holds no place and waits for none");
}
