//! What a new supervisor finds is adopted, dead, or unresponsive and wrong; what is none of its workers is left alone.

use super::{change, recorded, workers_of};
use crate::scenes::{appears, asked, ended, nappers, on_both_runtimes, one_agent, restless, story_of, swept_within};
use cofferdam_tests::processes::{is_alive, kill9, signal, state};
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::World;
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Child;

on_both_runtimes!(
    one_that_is_stopped_across_a_restart_is_killed_with_its_tree,
    one_that_is_stopped_and_has_no_socket_is_found_by_the_ledger,
    one_that_the_ledger_does_not_know_is_not_listened_to,
);

fn stop(world: &World, worker: u32) {
    signal(worker, Signal::SIGSTOP);
    until("the worker to be stopped", LIMIT, || world.story(), || (state(worker) == Some('T')).then_some(()));
}

/// The supervisor is killed under a tool that left processes everywhere, and the worker is stopped.
fn stopped_under_a_tool(runtime: &str) -> (World, u32, u64) {
    let mut world = one_agent(runtime);
    let flag = world.workspace("a").join("flag");
    let sending = world.sending("a", "c", &restless(&world, &flag));
    appears(&world, &flag);
    until("the naps", LIMIT, || world.story(), || (nappers(&world).len() == 4).then_some(()));
    let worker = world.worker("a");
    stop(&world, worker);
    world.kill_supervisor();
    let turn = ended(&world, sending).event("accepted")["turn"].as_u64().unwrap();
    (world, worker, turn)
}

/// The worker is replaced, nothing of it is left, and its turn ends as what it is: nobody knows.
fn is_replaced(world: World, worker: u32, turn: u64) {
    let row = world.wait_ps("a", "a replacement", |row| row["state"] == "ready" && row["pid"] != worker);
    assert!(!is_alive(worker), "{row}");
    swept_within(&world, LIMIT);
    let story = story_of(&world, turn);
    assert_eq!(story["row"]["class"], "worker_lost", "{story:#}\n{}", world.story());
    assert_eq!(story["attempts"].as_array().map(Vec::len), Some(1), "{story:#}");
    assert_eq!(workers_of(&world).len(), 1);
    assert_eq!(world.send("a", "d", "well?")["text"], "echo: well?");
    world.shut_down();
}

fn one_that_is_stopped_across_a_restart_is_killed_with_its_tree(runtime: &str) {
    let (mut world, worker, turn) = stopped_under_a_tool(runtime);
    world.run();
    let row = world.wait_ps("a", "the stopped worker to be known", |row| row["pid"] == worker);
    assert_eq!(row["state"], "adopting", "{row}");
    is_replaced(world, worker, turn);
}

fn one_that_is_stopped_and_has_no_socket_is_found_by_the_ledger(runtime: &str) {
    let (mut world, worker, turn) = stopped_under_a_tool(runtime);
    fs::remove_file(world.state().join("run/agents/a.sock")).unwrap();
    world.run();
    is_replaced(world, worker, turn);
}

fn one_that_the_ledger_does_not_know_is_not_listened_to(runtime: &str) {
    let mut world = one_agent(runtime);
    let worker = world.worker("a");
    let sending = world.sending("a", "c", "[[hold x]] think");
    asked(&world, "think", 1);
    world.kill_supervisor();
    let turn = ended(&world, sending).event("accepted")["turn"].as_u64().unwrap();
    // As of another ledger, or of one that was restored from a copy.
    change(&world, "nonce = nonce / 2 + 1");
    world.run();
    asked(&world, "think", 2);
    world.model.release("x");
    let story = story_of(&world, turn);
    assert_eq!(story["answer"], "echo: think", "{story:#}");
    assert_ne!(world.worker("a"), worker);
    assert!(!is_alive(worker));
    world.shut_down();
}

#[expect(clippy::disallowed_methods, reason = "somebody who has nothing to do with it all")]
fn bystander() -> Child {
    std::process::Command::new("sleep").arg("600").spawn().unwrap()
}

#[test]
fn a_number_that_is_somebody_elses_by_now_is_left_alone() {
    let mut world = one_agent("codex");
    let worker = world.worker("a");
    world.kill_supervisor();
    kill9(worker);
    let mut bystander = bystander();
    change(&world, &format!("pid = {}", bystander.id()));
    world.run();
    world.wait_ready();
    assert_ne!(world.worker("a"), bystander.id());
    assert_eq!(world.send("a", "c", "well?")["text"], "echo: well?");
    assert_eq!(bystander.try_wait().unwrap(), None, "it lives");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    world.shut_down();
}

#[test]
fn a_socket_that_is_somebody_elses_is_left_to_him_and_taken_from_the_path() {
    let mut world = one_agent("codex");
    let worker = world.worker("a");
    world.kill_supervisor();
    kill9(worker);
    let socket = world.state().join("run/agents/a.sock");
    assert!(socket.exists(), "a stale socket is left");
    fs::remove_file(&socket).unwrap();
    // This test itself: it takes callers and says nothing.
    let silent = UnixListener::bind(&socket).unwrap();
    world.run();
    world.wait_ready();
    assert_eq!(workers_of(&world), [world.worker("a")]);
    assert_eq!(world.send("a", "c", "well?")["text"], "echo: well?");
    drop(silent);
    world.shut_down();
}

#[test]
fn a_stale_socket_is_an_end() {
    let mut world = one_agent("codex");
    let (worker, run) = (world.worker("a"), recorded(&world, "incarnation"));
    world.kill_supervisor();
    kill9(worker);
    assert!(world.state().join("run/agents/a.sock").exists());
    world.run();
    world.wait_ready();
    assert_ne!(recorded(&world, "incarnation"), run);
    assert_eq!(world.send("a", "c", "well?")["text"], "echo: well?");
    world.shut_down();
}
