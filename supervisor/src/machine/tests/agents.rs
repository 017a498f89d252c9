//! Operators and workers: start, stop, restart, kill, reload, shutdown; deaths with every state of the journal.

use super::world::*;
use crate::machine::nouns::*;
use crate::machine::setup::Setup;
use crate::machine::words::Input;
use protocol::control::{AgentState, HealthStatus, RefusedKind, Reply, Request, Verb};
use protocol::{FailureClass, Outcome, TurnId};

const DONE: Outcome = Outcome::Completed;

fn verb(world: &mut World, verb: Verb, names: &[&str]) -> CallerId {
    world.ask(Request::Agents(verb, names.iter().map(|n| name(n)).collect()))
}

fn state(world: &mut World, agent: &str) -> AgentState {
    let caller = world.ask(Request::Ps);
    let Some(Reply::Ps(rows)) = world.replies[&caller].first() else { panic!() };
    rows.iter().find(|row| row.agent == name(agent)).unwrap().state
}

fn notes(world: &World, caller: CallerId) -> Vec<String> {
    let note = |reply: &Reply| if let Reply::Note(note) = reply { Some(note.clone()) } else { None };
    world.replies[&caller].iter().filter_map(note).collect()
}

fn is_done(world: &World, caller: CallerId) -> bool {
    world.replies[&caller].last() == Some(&Reply::Done)
}

fn refusal(world: &World, caller: CallerId) -> Option<&str> {
    match world.replies[&caller].last() {
        Some(Reply::Refused(refused)) => Some(&refused.why),
        _ => None,
    }
}

fn pid(world: &World, agent: &str) -> Option<u32> {
    world.process(&name(agent)).map(|process| process.pid)
}

#[test]
fn a_stop_lets_the_turn_end_within_the_grace() {
    let mut world = World::new();
    world.send("a", "x", "go");
    world.settle();
    let stop = verb(&mut world, Verb::Stop, &["a", "b", "b"]);
    world.settle();
    assert_eq!(state(&mut world, "a"), AgentState::Draining);
    let refused = world.send("a", "x", "more");
    assert!(refusal(&world, refused).unwrap().contains("agent a is stopped"));
    world.end(1, DONE);
    assert!(is_done(&world, stop));
    assert_eq!(notes(&world, stop), ["b: stopped", "a: stopped"]);
    assert_eq!((pid(&world, "a"), world.turn_end(1)), (None, Some(&TurnEnd::Outcome(DONE))));
    world.restart();
    world.settle();
    assert_eq!(state(&mut world, "a"), AgentState::Down, "a wish outlives us");
    let start = verb(&mut world, Verb::Start, &["a"]);
    world.settle();
    assert!(is_done(&world, start));
}

#[test]
fn a_stop_ends_what_does_not_end() {
    let mut world = World::new();
    world.send("a", "x", "go");
    world.settle();
    let (agent, attempt) = world.attempt(1);
    world.places.get_mut(&agent).unwrap().run_tool(attempt);
    let stop = verb(&mut world, Verb::Stop, &["a"]);
    world.pass(5_000);
    assert!(is_done(&world, stop));
    assert_eq!(world.turn_end(1), Some(&TurnEnd::Outcome(Outcome::Failed(FailureClass::Shutdown))));
}

#[test]
fn a_kill_is_at_once_whatever_the_worker_does() {
    for stopped in [false, true] {
        let mut world = World::new();
        world.send("a", "x", "go");
        world.send("a", "x", "later");
        world.settle();
        let (agent, attempt) = world.attempt(1);
        let place = world.places.get_mut(&agent).unwrap();
        place.run_tool(attempt);
        place.stopped = stopped;
        let kill = verb(&mut world, Verb::Kill, &["a"]);
        assert_eq!(pid(&world, "a"), None, "a kill does not even wait for its record");
        world.settle();
        assert_eq!(notes(&world, kill), ["a: killed, nothing of it is left"]);
        assert_eq!(world.turn_end(1), Some(&TurnEnd::Outcome(Outcome::Failed(FailureClass::Killed))));
        assert_eq!(world.turn_end(2), None, "what waits goes on waiting");
        verb(&mut world, Verb::Start, &["a"]);
        world.settle();
        assert!(world.runs(2));
    }
}

#[test]
fn a_kill_while_it_drains() {
    let mut world = World::new();
    world.send("a", "x", "go");
    world.settle();
    let stop = verb(&mut world, Verb::Stop, &["a"]);
    world.settle();
    let kill = verb(&mut world, Verb::Kill, &["a"]);
    world.settle();
    assert!(is_done(&world, stop) && is_done(&world, kill));
}

#[test]
fn a_restart_drains_and_starts_again() {
    let mut world = World::new();
    world.send("a", "x", "go");
    world.settle();
    let before = pid(&world, "a");
    let restart = verb(&mut world, Verb::Restart, &["a"]);
    world.settle();
    let more = world.send("a", "x", "more");
    world.settle();
    assert_eq!(refusal(&world, more), None, "it comes back, so that this may wait");
    world.end(1, DONE);
    assert!(is_done(&world, restart) && world.runs(2));
    assert_ne!(pid(&world, "a"), before);
}

#[test]
fn a_restart_in_a_pause_or_after_a_failure_starts() {
    for failed in [false, true] {
        let mut world = World::new();
        world.broken.insert(name("a"));
        world.die(&name("a"), "gone");
        world.pass(if failed { 60_000 } else { 100 });
        let expected = if failed { AgentState::Failed } else { AgentState::Backoff };
        assert_eq!(state(&mut world, "a"), expected);
        world.broken.clear();
        let restart = verb(&mut world, Verb::Restart, &["a"]);
        world.settle();
        assert!(is_done(&world, restart), "{:?}", world.replies[&restart]);
        assert_eq!(state(&mut world, "a"), AgentState::Ready);
    }
}

#[test]
fn a_stop_in_a_pause_ends_the_turns_of_the_dead_worker() {
    let mut world = World::new();
    let waits = world.send("a", "x", "go");
    world.settle();
    let (agent, attempt) = world.attempt(1);
    world.places.get_mut(&agent).unwrap().run_tool(attempt);
    world.broken.insert(name("a"));
    world.die(&name("a"), "gone");
    world.settle();
    assert_eq!(state(&mut world, "a"), AgentState::Backoff);
    let stop = verb(&mut world, Verb::Stop, &["a"]);
    world.settle();
    assert!(is_done(&world, stop) && is_done(&world, waits));
}

#[test]
fn nobody_waits_for_what_another_has_undone() {
    let mut world = World::new();
    world.send("a", "x", "go");
    world.settle();
    let stop = verb(&mut world, Verb::Stop, &["a"]);
    world.settle();
    let start = verb(&mut world, Verb::Start, &["a"]);
    world.end(1, DONE);
    assert!(is_done(&world, start));
    assert!(refusal(&world, stop).unwrap().contains("was started again meanwhile"));
    world.broken.insert(name("a"));
    world.die(&name("a"), "gone");
    world.settle();
    let start = verb(&mut world, Verb::Start, &["a"]);
    world.settle();
    let stop = verb(&mut world, Verb::Stop, &["a"]);
    world.settle();
    assert!(is_done(&world, stop));
    assert!(refusal(&world, start).unwrap().contains("was stopped meanwhile"));
}

#[test]
fn a_worker_that_cannot_start_fails_what_waits_and_says_so() {
    let mut world = World::new();
    world.broken.insert(name("a"));
    world.die(&name("a"), "gone");
    let waits = world.send("a", "x", "go");
    let other = world.send("b", "x", "go");
    world.pass(60_000);
    assert_eq!(state(&mut world, "a"), AgentState::Failed);
    assert!(is_done(&world, waits));
    assert!(world.turn_text(1).contains("no such program"), "{}", world.turn_text(1));
    assert!(world.runs(2) && !is_done(&world, other), "b has no part in it");
    let alerts: Vec<_> = world.arrive().into_iter().filter(|post| post.kind == PostKind::Alert).collect();
    assert_eq!(alerts.len(), 1);
    assert!(alerts[0].body.contains("Agent a has failed"));
    let refused = world.send("a", "x", "go");
    assert!(refusal(&world, refused).unwrap().contains("`cofferdam start a`"));
    let health = world.ask(Request::Health);
    assert!(matches!(&world.replies[&health][0], Reply::Health(h) if h.status == HealthStatus::Degraded));
    world.broken.clear();
    let start = verb(&mut world, Verb::Start, &["a"]);
    world.settle();
    assert!(is_done(&world, start));
    let again = world.send("a", "x", "go");
    world.settle();
    assert_eq!(refusal(&world, again), None);
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Journal {
    /// The worker never saw the attempt.
    Absent,
    Begun,
    /// Codex had the prompt; no tool had run.
    Prompted,
    /// A tool had run.
    Ran,
    /// It had ended and nobody had heard.
    Ended,
}

#[test]
fn a_death_in_a_turn_ends_as_the_journal_says() {
    for journal in [Journal::Absent, Journal::Begun, Journal::Prompted, Journal::Ran, Journal::Ended] {
        let mut world = World::new();
        world.starts = matches!(journal, Journal::Prompted | Journal::Ran | Journal::Ended);
        let place = name("a");
        world.send("a", "x", "go");
        if journal == Journal::Absent {
            world.lose_session(&place);
            world.commit();
        } else {
            world.settle();
            let (_, attempt) = world.attempt(1);
            let place = world.places.get_mut(&place).unwrap();
            match journal {
                Journal::Ran => place.run_tool(attempt),
                Journal::Ended => place.end(attempt, DONE, ""),
                Journal::Absent | Journal::Begun | Journal::Prompted => {}
            }
        }
        world.die(&place, "gone");
        world.starts = true;
        world.pass(5_000);
        let begun: Vec<u64> = world.places[&place].begun.iter().map(|begin| begin.attempt.0).collect();
        match journal {
            Journal::Absent => assert_eq!(begun, [1], "sent again under the same number"),
            Journal::Begun | Journal::Prompted => assert_eq!(begun, [1, 2], "{journal:?}: safe to repeat"),
            Journal::Ran | Journal::Ended => assert_eq!(begun, [1], "{journal:?}"),
        }
        match journal {
            Journal::Absent | Journal::Begun | Journal::Prompted => assert!(world.runs(1), "{journal:?}"),
            Journal::Ended => assert_eq!(world.turn_end(1), Some(&TurnEnd::Outcome(DONE))),
            Journal::Ran => {
                let lost = TurnEnd::Outcome(Outcome::Failed(FailureClass::WorkerLost));
                assert_eq!(world.turn_end(1), Some(&lost));
            }
        }
    }
}

#[test]
fn a_begin_that_was_lost_with_its_session_is_said_again() {
    let mut world = World::new();
    let agent = name("a");
    let before = pid(&world, "a");
    world.send("a", "x", "go");
    world.lose_session(&agent);
    world.settle();
    assert!(world.runs(1));
    assert_eq!((pid(&world, "a"), world.places[&agent].begun.len()), (before, 1));
    // And so is a stop.
    let stop = world.ask(Request::Interrupt(agent.clone(), None));
    world.lose_session(&agent);
    world.settle();
    assert!(is_done(&world, stop));
    assert_eq!(world.turn_end(1), Some(&TurnEnd::Outcome(Outcome::Interrupted)));
}

#[test]
fn a_drain_outlives_its_session() {
    let mut world = World::new();
    let agent = name("a");
    world.send("a", "x", "go");
    world.settle();
    let stop = verb(&mut world, Verb::Stop, &["a"]);
    world.lose_session(&agent);
    world.settle();
    assert!(world.runs(1), "what runs may end well");
    world.end(1, DONE);
    assert!(is_done(&world, stop));
}

#[test]
fn a_worker_that_leaves_by_itself_loses_no_turn() {
    let mut world = World::new();
    let agent = name("a");
    world.places.get_mut(&agent).unwrap().process.as_mut().unwrap().draining = true;
    world.send("a", "x", "go");
    world.settle();
    world.pass(2_000);
    assert!(world.runs(1));
    assert_eq!(world.ledger.attempts.len(), 2);
}

#[test]
fn a_silent_worker_is_replaced_and_its_neighbour_is_not() {
    let mut world = World::new();
    world.send("a", "x", "go");
    world.send("b", "x", "go");
    world.settle();
    let before = (pid(&world, "a"), pid(&world, "b"));
    world.places.get_mut(&name("a")).unwrap().stopped = true;
    world.pass(13_000);
    assert_eq!(pid(&world, "a"), before.0);
    world.pass(5_000);
    assert_ne!(pid(&world, "a"), before.0);
    assert_eq!(pid(&world, "b"), before.1);
    assert!(world.runs(1), "safe to repeat");
}

#[test]
fn a_silent_worker_that_drains_is_replaced_too() {
    let mut world = World::new();
    world.send("a", "x", "go");
    world.settle();
    world.give(Input::ShutDown);
    world.settle();
    world.places.get_mut(&name("a")).unwrap().stopped = true;
    world.pass(90_000);
    assert!(world.gone, "a shutdown does not wait for a wedged worker");
}

#[test]
fn our_own_sleep_is_not_held_against_the_workers() {
    let mut world = World::new();
    world.send("a", "x", "go");
    world.settle();
    let before = pid(&world, "a");
    world.tick += 10 * 60_000;
    world.give(Input::Lagged(10 * 60_000 - 1_000));
    world.timeout();
    world.pass(10_000);
    assert_eq!(pid(&world, "a"), before);
}

#[test]
fn one_agents_word_does_not_touch_another() {
    let mut world = World::with(|setup| {
        for policy in setup.agents.values_mut() {
            policy.queue = crate::machine::setup::QueueMode::Steer;
        }
    });
    world.places.get_mut(&name("a")).unwrap().takes_steers = true;
    world.send("a", "x", "one");
    world.send("b", "x", "other");
    world.settle();
    world.send("a", "x", "two");
    while world.commit() {}
    let (_, of_a) = world.attempt(1);
    let (_, of_b) = world.attempt(2);
    let from_b = world.process(&name("b")).unwrap().incarnation;
    for attempt in [of_a, of_b] {
        let steered = protocol::from_worker::Steered { attempt, turn: TurnId(3), taken: true };
        world.give(Input::Said(name("b"), from_b, protocol::FromWorker::Steered(steered)));
    }
    let end = protocol::Finished::new(of_a, TurnId(1), DONE);
    world.give(Input::Said(name("b"), from_b, protocol::FromWorker::Finished(Box::new(end))));
    assert_eq!((world.turn_end(1), world.turn_end(3)), (None, None));
    world.settle();
    assert_eq!(world.turn_end(3), Some(&TurnEnd::Joined(TurnId(1))), "by its own worker's word");
}

fn reload(world: &mut World, change: impl FnOnce(&mut Setup)) {
    change(&mut world.setup);
    world.give(Input::Reloaded(None, Box::new(world.setup.clone())));
}

#[test]
fn a_removed_agent_finishes_what_runs_and_one_that_comes_back_goes_on() {
    let mut world = World::new();
    let policy = world.setup.agents[&name("a")].clone();
    let runs = world.send("a", "x", "one");
    let waits = world.send("a", "x", "two");
    world.settle();
    reload(&mut world, |setup| drop(setup.agents.remove(&name("a"))));
    world.settle();
    assert!(refusal(&world, world.replies.keys().copied().last().unwrap()).is_none());
    let start = verb(&mut world, Verb::Start, &["a"]);
    assert!(refusal(&world, start).is_some(), "what is not configured is not started");
    reload(&mut world, |setup| drop(setup.agents.insert(name("a"), policy)));
    world.end(1, DONE);
    assert!(is_done(&world, runs) && world.runs(2), "it came back before it was gone");
    reload(&mut world, |setup| drop(setup.agents.remove(&name("a"))));
    world.send("b", "x", "three");
    world.settle();
    world.end(2, DONE);
    assert!(is_done(&world, waits) && world.runs(3));
    assert_eq!(pid(&world, "a"), None);
}

#[test]
fn a_removed_agents_waiting_turns_are_told() {
    let mut world = World::new();
    world.send("a", "x", "one");
    let waits = world.send("a", "x", "two");
    world.settle();
    reload(&mut world, |setup| drop(setup.agents.remove(&name("a"))));
    world.settle();
    world.end(1, DONE);
    assert!(is_done(&world, waits));
    assert!(world.turn_text(2).contains("the agent was removed"));
}

#[test]
fn a_shutdown_drains_and_a_second_one_kills() {
    for twice in [false, true] {
        let mut world = World::new();
        let runs = world.send("a", "x", "one");
        let waits = world.send("a", "x", "two");
        world.settle();
        world.give(Input::ShutDown);
        world.settle();
        assert!(!world.gone && world.heard.is_empty());
        let start = verb(&mut world, Verb::Start, &["b"]);
        assert!(matches!(world.replies[&start].last(), Some(Reply::Refused(r)) if r.kind == RefusedKind::Later));
        if twice {
            let (agent, attempt) = world.attempt(1);
            world.places.get_mut(&agent).unwrap().run_tool(attempt);
            world.give(Input::ShutDown);
        } else {
            world.timeout();
            world.end(1, DONE);
        }
        world.settle();
        assert!(world.gone && is_done(&world, runs));
        assert!(world.places.values().all(|place| place.process.is_none()));
        assert!(refusal(&world, waits).unwrap().contains("turn 2 waits"));
        world.restart();
        world.settle();
        assert!(world.runs(2), "what was accepted is not lost");
    }
}

#[test]
fn a_shutdown_ends_pauses_and_failures_too() {
    let mut world = World::new();
    world.broken.insert(name("a"));
    world.die(&name("a"), "gone");
    world.pass(100);
    let shutdown = world.ask(Request::Shutdown { now: true });
    world.pass(30_000);
    assert!(world.gone && is_done(&world, shutdown));
}

#[test]
fn a_tree_that_does_not_end_is_told_to_whoever_waits() {
    let mut world = World::new();
    let agent = name("a");
    world.die(&agent, "gone");
    world.word();
    world.word();
    world.commit();
    world.commit();
    // Somebody holds the lock when the sweep looks.
    let held = crate::machine::words::Swept { ended: 0, left: 1, journal: None };
    let stop = verb(&mut world, Verb::Stop, &["a"]);
    world.words.clear();
    let incarnation = match *world.machine.agents[&agent].life.state() {
        crate::machine::lifecycle::State::Sweeping { incarnation, .. } => incarnation,
        ref other => panic!("{other:?}"),
    };
    world.give(Input::Swept(agent, incarnation, held));
    world.settle();
    assert!(refusal(&world, stop).unwrap().contains("do not end"));
    world.pass(20_000);
    assert_eq!(state(&mut world, "a"), AgentState::Down);
}
