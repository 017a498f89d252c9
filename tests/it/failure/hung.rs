//! A worker that hangs: it is found by its silence, killed with its tree and replaced, and nobody else notices.

use crate::both::{AGENTS, Sending, ask, both, held};
use crate::scenes::{appears, codex_pids, on};
use cofferdam_tests::processes::{is_alive, signal};
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::World;
use nix::sys::signal::Signal;
use protocol::FailureClass;

/// Stops the worker of an agent and waits for another one in its place.
fn replaced(world: &World, agent: &str) {
    let worker = world.worker(agent);
    signal(worker, Signal::SIGSTOP);
    let other = |pid: &serde_json::Value| pid.as_u64().is_some_and(|pid| pid != u64::from(worker));
    world.wait_ps(agent, "another worker", |row| row["state"] == "ready" && other(&row["pid"]));
    assert!(!is_alive(worker), "the stopped one is gone");
}

#[test]
fn a_stopped_worker_is_replaced_and_its_turn_told_and_nobody_else_notices() {
    let world = both("heartbeat_timeout = \"3s\"", "").agent("calm", &on("codex")).start();
    let calm = world.worker("calm");
    for agent in AGENTS {
        replaced(&world, agent);
        assert_eq!(ask(&world, agent, "c", "hello"), "echo: hello", "an idle one costs nothing");
        let sending = Sending::new(&world, agent, "c", "[[tool sleep 603]] work");
        world.wait_ps(agent, "the tool", |row| row["phase"].as_str().is_some_and(|phase| phase.contains("603")));
        replaced(&world, agent);
        let end = sending.finished(&world);
        assert_eq!(end["class"], FailureClass::WorkerLost.as_str(), "{end}\n{}", world.story());
        assert!(end["text"].as_str().unwrap().contains("sleep 603"), "what ran is told: {end}");
        assert_eq!(end["attempts"], 1, "{end}");
        let left = || codex_pids(&world, agent);
        until("the end of its Codex", LIMIT, || world.story(), || left().is_empty().then_some(()));
        assert_eq!(ask(&world, agent, "c", "and on"), "echo: and on");
        assert_eq!(world.ps(agent)["restarts"], 2);
        let waits = Sending::new(&world, agent, "d", &format!("[[hold {agent}]] safe"));
        held(&world, agent);
        replaced_while_busy(&world, agent);
        world.model.release(agent);
        assert_eq!(waits.finished(&world)["text"], "echo: safe", "nothing of it had run: it is tried again");
    }
    assert_eq!((world.worker("calm"), &world.ps("calm")["restarts"]), (calm, &0.into()));
    world.shut_down();
}

/// The same for a worker whose turn is tried again by the next one.
fn replaced_while_busy(world: &World, agent: &str) {
    let worker = world.worker(agent);
    signal(worker, Signal::SIGSTOP);
    world.wait_ps(agent, "another worker", |row| {
        row["state"] == "busy" && row["pid"].as_u64().is_some_and(|pid| pid != u64::from(worker))
    });
}

#[test]
fn a_worker_that_is_stopped_for_a_moment_is_let_live() {
    let world = both("heartbeat_timeout = \"1m\"", "").start();
    for agent in AGENTS {
        let worker = world.worker(agent);
        signal(worker, Signal::SIGSTOP);
        let sending = Sending::new(&world, agent, "c", "late");
        signal(worker, Signal::SIGCONT);
        assert_eq!(sending.finished(&world)["text"], "echo: late");
        assert_eq!((world.worker(agent), &world.ps(agent)["restarts"]), (worker, &0.into()));
    }
    world.shut_down();
}

#[test]
fn a_supervisor_that_was_stopped_gives_up_nobody() {
    let world = both("heartbeat_timeout = \"6s\"", "").start();
    let workers = AGENTS.map(|agent| world.worker(agent));
    let flag = world.workspace("app").join("flag");
    let sending = Sending::new(&world, "app", "c", &format!("[[tool sleep 9; echo on > {}]] work", flag.display()));
    world.wait_ps("app", "the tool", |row| row["phase"].as_str().is_some_and(|phase| phase.contains("sleep 9")));
    signal(workers[1], Signal::SIGSTOP);
    signal(world.pid(), Signal::SIGSTOP);
    appears(&world, &flag);
    // Longer than the timeout has passed, and it is the supervisor that slept: the stopped worker gets the time again.
    signal(world.pid(), Signal::SIGCONT);
    assert_eq!(world.cli(&["health"]).code, 0);
    signal(workers[1], Signal::SIGCONT);
    assert!(sending.finished(&world)["text"].as_str().unwrap().contains("work"));
    assert_eq!(ask(&world, "cli", "c", "hello"), "echo: hello");
    for (agent, worker) in AGENTS.into_iter().zip(workers) {
        assert_eq!((world.worker(agent), &world.ps(agent)["restarts"]), (worker, &0.into()), "{}", world.story());
    }
    world.shut_down();
}
