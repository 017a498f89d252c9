//! The end of the supervisor: by itself with its workers staying, with everything, or at once.

use crate::scenes::{asked, ended, on_both_runtimes, one_agent, post, story_of};
use cofferdam_tests::processes::{is_alive, marked, signal};
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::World;
use nix::sys::signal::Signal;

on_both_runtimes!(
    sigterm_leaves_and_the_next_supervisor_takes_over_the_same_worker,
    sigint_drains_and_ends_everything,
    a_second_sigint_kills,
    shutdown_drains_and_refuses_new_messages,
    shutdown_now_stops_what_runs,
    shutdown_within_a_time_waits_and_then_stops_what_runs,
);

fn nothing_is_left(world: &World) {
    let mark = world.root().display().to_string();
    let left: Vec<_> = marked(&mark).into_iter().map(cofferdam_tests::processes::command_line).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn sigterm_leaves_and_the_next_supervisor_takes_over_the_same_worker(runtime: &str) {
    let mut world = one_agent(runtime);
    let worker = world.worker("a");
    let sending = world.sending("a", "c", "[[hold x]] think");
    asked(&world, "think", 1);
    let before = world.ps("a")["incarnation"].clone();
    assert_eq!(world.end_supervisor(Signal::SIGTERM), Some(0));
    let said = ended(&world, sending);
    assert_eq!(said.code, 69, "send is told that the supervisor has left");
    assert!(is_alive(worker));
    assert!(!world.codex_processes().is_empty(), "the turn goes on");
    world.run();
    let row = world.wait_ps("a", "the worker to be taken over", |row| row["state"] == "busy");
    assert_eq!((&row["pid"], &row["incarnation"]), (&worker.into(), &before));
    world.model.release("x");
    let story = story_of(&world, said.event("accepted")["turn"].as_u64().unwrap());
    assert_eq!(story["answer"], "echo: think");
    assert_eq!(story["attempts"].as_array().map(Vec::len), Some(1));
    assert_eq!(world.model.count_prompt("think"), 1);
    assert_eq!(world.ps("a")["restarts"], 0);
    world.shut_down();
}

fn sigint_drains_and_ends_everything(runtime: &str) {
    let mut world = one_agent(runtime);
    let sending = world.sending("a", "c", "[[hold x]] last");
    asked(&world, "last", 1);
    signal(world.pid(), Signal::SIGINT);
    world.wait_ps("a", "the drain", |row| row["state"] == "draining");
    let refused = world.cli(&["send", "a", "too late"]);
    assert_eq!(refused.code, 75, "{refused:?}");
    assert!(refused.stderr.contains("shutting down"), "{refused:?}");
    world.model.release("x");
    assert_eq!(ended(&world, sending).event("finished")["text"], "echo: last");
    assert_eq!(world.wait_ended(), Some(0), "{}", world.story());
    nothing_is_left(&world);
}

fn a_second_sigint_kills(runtime: &str) {
    let mut world = one_agent(runtime);
    let sending = world.sending("a", "c", "[[hold x]] endless");
    asked(&world, "endless", 1);
    signal(world.pid(), Signal::SIGINT);
    world.wait_ps("a", "the drain", |row| row["state"] == "draining");
    assert_eq!(world.end_supervisor(Signal::SIGINT), Some(0), "{}", world.story());
    nothing_is_left(&world);
    let said = ended(&world, sending);
    let finished = said.event("finished");
    assert_eq!(finished["outcome"], "failed", "{finished}");
    // The next supervisor does not begin it anew.
    world.run();
    world.wait_ready();
    assert_eq!(world.turn(finished["turn"].as_u64().unwrap())["row"]["state"], "failed");
    assert_eq!(world.model.count_prompt("endless"), 1);
    world.shut_down();
}

fn shutdown_drains_and_refuses_new_messages(runtime: &str) {
    let mut world = one_agent(runtime);
    let sending = world.sending("a", "c", "[[hold x]] last");
    asked(&world, "last", 1);
    let waiting = post(&world, "a", "d", "[[hold x]] beside");
    let mut shutdown = world.command(&["shutdown"]).stdout(std::process::Stdio::null()).spawn().unwrap();
    world.wait_ps("a", "the drain", |row| row["state"] == "draining");
    assert_eq!(world.cli(&["send", "a", "too late"]).code, 75);
    assert_eq!(world.cli(&["start", "a"]).code, 75);
    world.model.release("x");
    assert_eq!(ended(&world, sending).event("finished")["text"], "echo: last");
    let status = until("the end of shutdown", LIMIT, || world.story(), || shutdown.try_wait().unwrap());
    assert_eq!((status.code(), world.wait_ended()), (Some(0), Some(0)));
    nothing_is_left(&world);
    assert_eq!(world.cli(&["ps"]).code, 69);
    // What waited is still there for the next supervisor, and the agent is wanted up.
    world.run();
    assert_eq!(story_of(&world, waiting)["answer"], "echo: beside");
    world.shut_down();
}

fn shutdown_now_stops_what_runs(runtime: &str) {
    let mut world = one_agent(runtime);
    let sending = world.sending("a", "c", "[[hold x]] endless");
    asked(&world, "endless", 1);
    let ran = world.cli(&["shutdown", "--now"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(world.wait_ended(), Some(0), "{}", world.story());
    nothing_is_left(&world);
    let said = ended(&world, sending);
    assert_eq!(said.event("finished")["class"], "shutdown", "{:?}", said.lines);
}

fn shutdown_within_a_time_waits_and_then_stops_what_runs(runtime: &str) {
    let mut world = one_agent(runtime);
    let sending = world.sending("a", "c", "[[hold x]] endless");
    asked(&world, "endless", 1);
    let ran = world.cli(&["shutdown", "--within", "300ms"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("what still runs is ended"), "{ran:?}");
    assert_eq!(world.wait_ended(), Some(0), "{}", world.story());
    nothing_is_left(&world);
    assert_eq!(ended(&world, sending).event("finished")["class"], "shutdown");
    assert_eq!(world.cli(&["shutdown", "--within", "1s"]).code, 69);
}

#[test]
fn a_unit_that_nobody_stops_ends_nothing() {
    let world = one_agent("codex");
    // No such unit, or no systemd at all: nobody says that it is to stay stopped.
    let ran = world.cli(&["unit", "stop", "cofferdam-of-a-test.service"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("workers stay"), "{ran:?}");
    let ran = world.cli(&["unit", "stopped", "cofferdam-of-a-test.service"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("only the unit itself"), "{ran:?}");
    assert_eq!(world.send("a", "c", "you?")["text"], "echo: you?");
    world.shut_down();
}

#[test]
fn a_second_supervisor_is_refused_with_the_pid_of_the_first() {
    let world = one_agent("codex");
    let ran = world.cli(&["run"]);
    assert_eq!(ran.code, 75, "{ran:?}");
    let words = format!("{}{}", ran.stdout, ran.stderr);
    assert!(words.contains(&format!("pid {}", world.pid())), "{words}");
    assert_eq!(world.send("a", "c", "you?")["text"], "echo: you?");
    world.shut_down();
}
