//! Guests: made by a caller, untouched by reloads, gone with it.

use super::world::*;
use crate::machine::nouns::*;
use crate::machine::words::{Effect, Input};
use protocol::control::{Reply, Request, Verb};
use protocol::guest::{Guest, Guests};
use protocol::{AgentName, FailureClass, Outcome, Runtime};

fn guests(names: &[&str]) -> Request {
    let guest = |text: &&str| Guest {
        agent: name(text),
        runtime: Runtime::Codex,
        memory_max: None,
        pids_max: None,
        compact_at_tokens: None,
    };
    Request::Guests(Guests { base_url: "http://127.0.0.1:9/v1".into(), agents: names.iter().map(guest).collect() })
}

/// A place that came while the world came to rest takes part in the next time only.
fn rest(world: &mut World) {
    world.settle();
    world.settle();
}

fn agents(world: &World) -> Vec<&str> {
    world.machine.agents.keys().map(AgentName::as_str).collect()
}

fn refusal(world: &World, caller: CallerId) -> String {
    let Some(Reply::Refused(refused)) = world.replies[&caller].last() else { panic!("{:?}", world.replies[&caller]) };
    refused.why.clone()
}

/// Two guests, one of which answers and one of which runs a turn without end.
fn drill() -> (World, CallerId) {
    let mut world = World::new();
    let caller = world.ask(guests(&["drill-a", "drill-b"]));
    rest(&mut world);
    world.send("drill-a", "x", "hello");
    rest(&mut world);
    world.end(1, Outcome::Completed);
    world.send("drill-b", "x", "hang");
    rest(&mut world);
    (world, caller)
}

#[test]
fn guests_are_agents_until_their_caller_goes() {
    let (mut world, caller) = drill();
    assert_eq!(world.replies[&caller], [Reply::Guests(vec![name("drill-a"), name("drill-b")])]);
    assert_eq!(agents(&world), ["a", "b", "drill-a", "drill-b"]);
    assert!(world.runs(2) && world.ledger.threads.keys().any(|talk| talk.agent == name("drill-a")));
    world.give(Input::CallerGone(caller));
    rest(&mut world);
    assert_eq!(agents(&world), ["a", "b"]);
    assert_eq!(world.places.keys().map(AgentName::as_str).collect::<Vec<_>>(), ["a", "b"], "no folder is left");
    assert!(!world.ledger.threads.keys().any(|talk| talk.agent.as_str().starts_with("drill-")));
    let Some(TurnEnd::Outcome(Outcome::Failed(class))) = world.turn_end(2) else { panic!("{:?}", world.turn_end(2)) };
    assert!(matches!(class, FailureClass::Killed | FailureClass::Shutdown), "{class}");
    assert!(world.ledger.wanted.keys().all(|agent| !agent.as_str().starts_with("drill-")));
}

#[test]
fn one_caller_has_guests_at_a_time() {
    let (mut world, caller) = drill();
    let second = world.ask(guests(&["drill-c"]));
    assert!(refusal(&world, second).contains("a drill is running already"));
    world.give(Input::CallerGone(second));
    rest(&mut world);
    assert!(agents(&world).contains(&"drill-a"), "the second caller's end is nothing to the first's guests");
    world.give(Input::CallerGone(caller));
    let early = world.ask(guests(&["drill-a"]));
    assert!(refusal(&world, early).contains("still being removed"));
    rest(&mut world);
    let next = world.ask(guests(&["drill-a"]));
    rest(&mut world);
    assert_eq!(world.replies[&next].len(), 1);
    assert!(agents(&world).contains(&"drill-a"));
}

#[test]
fn bad_guests_are_refused() {
    let mut world = World::new();
    for bad in [&["a"][..], &[], &["drill-a", "drill-a"]] {
        let caller = world.ask(guests(bad));
        refusal(&world, caller);
        assert!(agents(&world) == ["a", "b"]);
    }
    world.give(Input::LedgerStuck("no room".into()));
    let caller = world.ask(guests(&["drill-a"]));
    assert!(refusal(&world, caller).contains("no room"));
}

#[test]
fn a_caller_that_goes_at_once_has_no_guests() {
    let mut world = World::new();
    let caller = world.ask(guests(&["drill-a"]));
    world.give(Input::CallerGone(caller));
    rest(&mut world);
    assert_eq!(agents(&world), ["a", "b"]);
    let next = world.ask(guests(&["drill-a"]));
    rest(&mut world);
    assert_eq!(world.replies[&next].len(), 1);
}

#[test]
fn a_reload_leaves_guests_alone() {
    let (mut world, caller) = drill();
    let mut setup = world.setup.clone();
    setup.agents.remove(&name("b"));
    world.setup = setup.clone();
    let before = world.process(&name("drill-b")).unwrap().pid;
    let reload = world.ask(Request::Reload);
    world.give(Input::Reloaded(Some(reload), Box::new(setup)));
    rest(&mut world);
    assert_eq!(agents(&world), ["a", "drill-a", "drill-b"]);
    assert_eq!(world.process(&name("drill-b")).unwrap().pid, before);
    assert!(world.runs(2));
    world.send("drill-a", "x", "again");
    rest(&mut world);
    assert!(world.runs(3), "and they still run turns");
    world.give(Input::CallerGone(caller));
    rest(&mut world);
    assert_eq!(agents(&world), ["a"]);
}

#[test]
fn a_killed_guest_can_be_started_and_is_no_reason_for_alarm() {
    let (mut world, _) = drill();
    for _ in 0..8 {
        world.die(&name("drill-b"), "killed by signal 9");
        world.pass(40_000);
    }
    let health = world.ask(Request::Health);
    let Some(Reply::Health(health)) = world.replies[&health].first() else { panic!() };
    assert_eq!(health.status, protocol::control::HealthStatus::Ok);
    world.ask(Request::Agents(Verb::Start, vec![name("drill-b")]));
    rest(&mut world);
    assert!(world.process(&name("drill-b")).is_some());
}

#[test]
fn a_guest_that_hangs_holds_up_no_shutdown() {
    let (mut world, caller) = drill();
    world.ask(Request::Shutdown { now: false });
    rest(&mut world);
    assert!(world.gone, "it does not wait for the guest's turn");
    assert!(refusal(&world, caller).contains("cofferdam ends"));
}

#[test]
fn a_supervisor_that_leaves_kills_its_guests_and_the_next_one_knows_none() {
    let (mut world, _) = drill();
    let mut effects = Vec::new();
    world.machine.handle(world.now(), Input::Leave, &mut effects);
    let killed = |effect: &Effect| if let Effect::Kill(agent, _) = effect { Some(agent.to_string()) } else { None };
    assert_eq!(effects.iter().filter_map(killed).collect::<Vec<_>>(), ["drill-a", "drill-b"]);
    assert_eq!(effects.last(), Some(&Effect::Exit));
    world.restart();
    rest(&mut world);
    assert_eq!(agents(&world), ["a", "b"]);
    assert!(world.turn_end(2).is_some(), "its turn is not left without an end");
}

#[test]
fn a_ping_is_answered_by_the_worker_alone() {
    let mut world = World::new();
    let ping = world.ask(Request::Ping(name("a")));
    assert_eq!(world.replies[&ping], [], "the worker has not answered yet");
    world.settle();
    assert_eq!(world.replies[&ping], [Reply::Done]);
    world.places.get_mut(&name("a")).unwrap().stopped = true;
    let held = world.ask(Request::Ping(name("a")));
    world.settle();
    assert_eq!(world.replies[&held], []);
    world.die(&name("a"), "killed by signal 9");
    world.settle();
    assert!(refusal(&world, held).contains("was lost before it answered"));
    world.ask(Request::Agents(Verb::Stop, vec![name("b")]));
    world.settle();
    for nobody in ["b", "nobody"] {
        let ping = world.ask(Request::Ping(name(nobody)));
        assert!(refusal(&world, ping).contains("no worker that could answer"));
    }
}
