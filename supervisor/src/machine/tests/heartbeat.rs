//! Workers that hang: found by their silence, one a second, and never by a supervisor that lags itself.

use super::world::*;
use crate::machine::nouns::*;
use crate::machine::words::Input;
use proptest::prelude::*;
use protocol::{AgentName, FailureClass, Outcome};

const HEARTBEAT_MS: u64 = 15_000;

fn stop(world: &mut World, agent: &str) {
    world.places.get_mut(&name(agent)).unwrap().stopped = true;
}

fn pid(world: &World, agent: &str) -> Option<u32> {
    world.process(&name(agent)).map(|process| process.pid)
}

/// A world of eight agents.
fn fleet() -> (World, Vec<AgentName>) {
    let world = World::with(|setup| {
        let policy = setup.agents[&name("a")].clone();
        setup.agents.extend(["c", "d", "e", "f", "g", "h"].map(|agent| (name(agent), policy.clone())));
    });
    let names = world.setup.agents.keys().cloned().collect();
    (world, names)
}

#[test]
fn a_stopped_worker_is_replaced_whether_it_runs_a_turn_or_not() {
    for ran in [None, Some(false), Some(true)] {
        let mut world = World::new();
        let other = pid(&world, "b");
        if let Some(ran) = ran {
            world.send("a", "x", "go");
            world.settle();
            let (agent, attempt) = world.attempt(1);
            if ran {
                world.places.get_mut(&agent).unwrap().run_tool(attempt);
            }
        }
        let before = pid(&world, "a");
        stop(&mut world, "a");
        world.pass(HEARTBEAT_MS - 2_000);
        assert_eq!(pid(&world, "a"), before, "not before its time");
        world.pass(2_100);
        let after = pid(&world, "a");
        assert!(after.is_some() && after != before, "{ran:?}: replaced within the timeout");
        assert_eq!(pid(&world, "b"), other, "the other has no part in it");
        let lost = TurnEnd::Outcome(Outcome::Failed(FailureClass::WorkerLost));
        match ran {
            None => {}
            Some(true) => assert_eq!(world.turn_end(1), Some(&lost)),
            Some(false) => {
                world.pass(5_000);
                assert!(world.runs(1), "nothing of it had run: it is tried again");
            }
        }
    }
}

#[test]
fn nobody_is_judged_while_the_ledger_takes_nothing() {
    let mut world = World::new();
    let before = pid(&world, "a");
    stop(&mut world, "a");
    world.give(Input::LedgerStuck("the disk is full".into()));
    world.pass(HEARTBEAT_MS * 3);
    assert_eq!(pid(&world, "a"), before);
    world.give(Input::LedgerWell);
    world.pass(HEARTBEAT_MS - 1_000);
    assert_eq!(pid(&world, "a"), before, "it has the whole time again");
    world.pass(1_100);
    assert_ne!(pid(&world, "a"), before);
}

#[test]
fn what_had_arrived_is_read_before_a_worker_is_judged() {
    let mut world = World::new();
    world.send("a", "x", "go");
    world.settle();
    let before = pid(&world, "a");
    let (agent, attempt) = world.attempt(1);
    stop(&mut world, "a");
    world.tick += HEARTBEAT_MS - 1;
    // It lies in the socket when the time is over.
    world.places.get_mut(&agent).unwrap().end(attempt, Outcome::Completed, "");
    world.tick += 1;
    world.give(Input::Timeout);
    world.settle();
    assert_eq!(world.turn_end(1), Some(&TurnEnd::Outcome(Outcome::Completed)));
    assert_eq!(pid(&world, "a"), before, "that was a sign of life");
    world.pass(HEARTBEAT_MS + 100);
    assert_ne!(pid(&world, "a"), before, "and the last one");
}

#[test]
fn a_supervisor_that_sleeps_gives_everybody_the_whole_time_again() {
    let (mut world, names) = fleet();
    let before: Vec<_> = names.iter().map(|name| world.process(name).map(|p| p.pid)).collect();
    world.tick += 60_000;
    world.give(Input::Lagged(59_000));
    world.give(Input::Timeout);
    world.settle();
    world.pass(30_000);
    let after: Vec<_> = names.iter().map(|name| world.process(name).map(|p| p.pid)).collect();
    assert_eq!(before, after);
}

#[test]
fn a_turn_that_its_worker_never_ends_has_a_bound_of_its_own() {
    let mut world = World::with(|setup| setup.agents.get_mut(&name("a")).unwrap().turn_ms = 60_000);
    world.send("a", "x", "go");
    world.settle();
    let (agent, attempt) = world.attempt(1);
    world.places.get_mut(&agent).unwrap().run_tool(attempt);
    let before = pid(&world, "a");
    // It beats, and does nothing else.
    world.pass(60_000 + 60_000 + 8 * 5_000 + 5_000);
    assert_ne!(pid(&world, "a"), before);
    assert_eq!(world.turn_end(1), Some(&TurnEnd::Outcome(Outcome::Failed(FailureClass::WorkerLost))));
}

/// A second of the fleet: who is stopped or let go on, and whether we lag.
fn second() -> impl Strategy<Value = (Option<(usize, bool)>, u64)> {
    let who = prop::option::weighted(0.5, (0_usize..8, prop::bool::weighted(0.8)));
    (who, prop_oneof![4 => Just(0_u64), 1 => 1_000_u64..5_000])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Only the stopped are given up; never more than one a second; and a second of lag begins every window anew.
    #[test]
    fn one_a_second_of_the_stopped_and_none_by_a_lagging_loop(
        seconds in prop::collection::vec(second(), 10..120),
        lags in any::<bool>(),
    ) {
        let (mut world, names) = fleet();
        let mut stopped = std::collections::BTreeMap::<AgentName, u64>::new();
        let mut lagged_at = 0;
        let mut last_kill = None::<u64>;
        for (who, late) in seconds {
            if let Some((which, stops)) = who {
                let agent = names[which].clone();
                world.places.get_mut(&agent).unwrap().stopped = stops;
                if stops {
                    stopped.entry(agent).or_insert(world.tick);
                } else {
                    stopped.remove(&agent);
                    // Its beat is overdue and comes at once.
                    world.beat();
                }
            }
            if late > 0 && lags {
                world.tick += late;
                lagged_at = world.tick;
                world.give(Input::Lagged(late));
            }
            for _ in 0..20 {
                let pids: Vec<_> = names.iter().map(|name| world.process(name).map(|p| p.pid)).collect();
                world.pass(50);
                for (agent, old) in names.iter().zip(pids) {
                    // A replacement that comes after a pause is no death.
                    if old.is_none() || world.process(agent).map(|p| p.pid) == old {
                        continue;
                    }
                    let since = stopped.remove(agent);
                    prop_assert!(since.is_some(), "{agent} was not stopped");
                    let window = since.unwrap_or_default().saturating_sub(2_000).max(lagged_at);
                    prop_assert!(world.tick >= window + HEARTBEAT_MS, "{agent} was given up too early");
                    prop_assert!(last_kill.is_none_or(|at| world.tick + 50 >= at + 1_000), "two in a second");
                    last_kill = Some(world.tick);
                }
            }
        }
        // Whoever is still stopped is found in the end, now that we are on time.
        world.pass(HEARTBEAT_MS + 12_000);
        world.settle();
        for agent in stopped.keys() {
            prop_assert!(!world.places[agent].stopped, "{agent} was never found");
        }
    }

    /// A loop that always lags gives nobody up.
    #[test]
    fn a_loop_that_always_lags_kills_nobody(lags in prop::collection::vec(1_000_u64..20_000, 1..60)) {
        let (mut world, names) = fleet();
        for agent in &names {
            world.places.get_mut(agent).unwrap().stopped = true;
        }
        let before: Vec<_> = names.iter().map(|name| world.process(name).map(|p| p.pid)).collect();
        for late in lags {
            world.tick += late;
            world.give(Input::Lagged(late));
            world.give(Input::Timeout);
            world.settle();
        }
        let after: Vec<_> = names.iter().map(|name| world.process(name).map(|p| p.pid)).collect();
        prop_assert_eq!(before, after);
    }
}
