//! Workers of an earlier build, and workers that no record names.

use super::world::*;
use crate::machine::nouns::*;
use crate::machine::words::{Effect, Input, Linked};
use protocol::Outcome;

/// Both workers turn out to be of an earlier build, for the next supervisor.
fn outdated() -> World {
    let mut world = World::new();
    for place in world.places.values_mut() {
        place.process.as_mut().unwrap().outdated = true;
    }
    world
}

fn pid(world: &World, agent: &str) -> u32 {
    world.process(&name(agent)).unwrap().pid
}

#[test]
fn idle_ones_are_replaced_one_after_the_other() {
    let mut world = outdated();
    let before = (pid(&world, "a"), pid(&world, "b"));
    world.restart();
    for _ in 0..10_000 {
        let away = ["a", "b"].iter().filter(|agent| world.process(&name(agent)).is_none()).count();
        assert!(away <= 1, "one at a time");
        let names = [name("a"), name("b")];
        if !(world.commit() || world.word() || names.iter().any(|agent| world.news(agent))) {
            break;
        }
    }
    world.settle();
    assert!(pid(&world, "a") != before.0 && pid(&world, "b") != before.1);
    assert!(world.machine.rows().iter().all(|row| !row.outdated && row.restarts == 0));
}

#[test]
fn a_busy_one_is_left_until_its_turn_is_over_and_before_the_next() {
    let mut world = outdated();
    world.send("a", "x", "first");
    world.settle();
    let (a, b) = (pid(&world, "a"), pid(&world, "b"));
    world.restart();
    world.settle();
    assert_eq!(pid(&world, "a"), a);
    assert_ne!(pid(&world, "b"), b);
    assert!(world.machine.rows()[0].outdated);
    world.send("a", "x", "second");
    world.settle();
    assert_eq!(pid(&world, "a"), a, "what waits is no reason to stop what runs");
    world.end(1, Outcome::Completed);
    world.settle();
    assert_ne!(pid(&world, "a"), a);
    assert!(world.runs(2), "what waited runs in the new one");
    assert_eq!(world.ledger.attempts.len(), 2);
}

#[test]
fn one_that_does_not_come_up_holds_the_others_back() {
    let mut world = outdated();
    let b = pid(&world, "b");
    world.broken.insert(name("a"));
    world.restart();
    world.pass(120_000);
    assert!(world.process(&name("a")).is_none());
    assert_eq!(pid(&world, "b"), b, "it stays on its old worker, which works");
    world.broken.clear();
    let request = protocol::control::Request::Agents(protocol::control::Verb::Start, vec![name("a")]);
    world.ask(request);
    world.settle();
    assert_ne!(pid(&world, "b"), b, "and follows once the first is up");
}

#[test]
fn one_that_no_record_names_is_ended_and_not_heard() {
    let mut world = World::new();
    world.send("a", "x", "go");
    world.settle();
    let old = pid(&world, "a");
    world.ledger.workers.get_mut(&name("a")).unwrap().nonce ^= 1;
    world.restart();
    world.settle();
    assert_ne!(pid(&world, "a"), old);
}

#[test]
fn a_worker_is_written_down_before_it_is_started_and_before_it_is_served() {
    let mut world = World::new();
    let agent = name("a");
    let known = world.ledger.workers[&agent].clone();
    assert_eq!(known.identity, Some(identity(pid(&world, "a"))));
    assert_eq!(known.release, Some((1, "now".into())));
    let linked = linked(world.process(&agent).unwrap());
    assert!(world.machine.knows(&agent, &linked));
    for other in [
        Linked { nonce: linked.nonce ^ 1, ..linked.clone() },
        Linked { incarnation: protocol::Incarnation(99), ..linked.clone() },
        Linked { identity: Identity { started: 2, ..linked.identity }, ..linked.clone() },
    ] {
        assert!(!world.machine.knows(&agent, &other), "{other:?}");
    }
    // A session that comes again tells nothing new: it waits for no commit.
    let mut effects = Vec::new();
    let now = world.now();
    world.machine.handle(now, Input::Linked(agent, linked), &mut effects);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Record(_))), "{effects:?}");
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Configure(_))), "{effects:?}");
}
