//! `start`, `stop`, `restart`, `kill` of one agent. The others keep their processes.

use crate::scenes::{appears, asked, ended, is_end, nappers, on, on_both_runtimes, post, restless, story_of, world};
use cofferdam_tests::processes::{command_line, is_alive};
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::World;
use std::fs;

on_both_runtimes!(
    stop_lets_the_turn_end_and_refuses_new_ones_with_words,
    stop_ends_what_outlasts_its_grace,
    restart_keeps_the_queue,
    kill_leaves_nothing,
    a_stopped_agent_stays_stopped_over_a_restart_of_the_supervisor,
);

/// `a` is worked on, `b` must not notice.
fn pair(runtime: &str, lines: &str) -> World {
    let lines = format!("{}\n{lines}", on(runtime));
    world().agent("a", &lines).agent("b", &lines).start()
}

fn done(world: &World, arguments: &[&str]) {
    let ran = world.cli(arguments);
    assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}\n{}", world.story());
}

fn stop_lets_the_turn_end_and_refuses_new_ones_with_words(runtime: &str) {
    let world = pair(runtime, "stop_grace = \"30s\"");
    let (a, b) = (world.worker("a"), world.worker("b"));
    let sending = world.sending("a", "c", "[[hold x]] last");
    asked(&world, "last", 1);
    let mut stopping = world.command(&["stop", "a"]).stdout(std::process::Stdio::null()).spawn().unwrap();
    world.wait_ps("a", "the drain", |row| row["state"] == "draining");
    let refused = world.cli(&["send", "a", "too late"]);
    assert_eq!(refused.code, 75, "{refused:?}");
    assert!(refused.stderr.contains("a is stopped") && refused.stderr.contains("cofferdam start a"), "{refused:?}");
    assert!(is_alive(a), "what runs goes on");
    world.model.release("x");
    assert_eq!(ended(&world, sending).event("finished")["text"], "echo: last");
    let status = until("the end of stop", LIMIT, || world.story(), || stopping.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    let row = world.ps("a");
    assert_eq!((&row["state"], &row["wanted"], &row["pid"]), (&"down".into(), &"down".into(), &().into()), "{row}");
    assert!(!is_alive(a));
    assert_eq!(world.worker("b"), b);
    done(&world, &["start", "a"]);
    assert_eq!(world.send("a", "c", "back")["text"], "echo: back");
    // What is as it should be is no error.
    done(&world, &["start", "a"]);
    done(&world, &["stop", "a", "a"]);
    done(&world, &["stop", "a"]);
    world.shut_down();
}

fn stop_ends_what_outlasts_its_grace(runtime: &str) {
    let world = pair(runtime, "stop_grace = \"300ms\"");
    let (a, b) = (world.worker("a"), world.worker("b"));
    let sending = world.sending("a", "c", "[[hold x]] endless");
    asked(&world, "endless", 1);
    done(&world, &["stop", "a"]);
    let said = ended(&world, sending);
    let finished = said.event("finished");
    assert_eq!((said.code, &finished["class"]), (1, &"shutdown".into()), "{finished}\n{}", world.story());
    assert!(!is_alive(a));
    assert_eq!(world.worker("b"), b);
    assert_eq!(world.ps("a")["state"], "down");
    world.shut_down();
}

fn restart_keeps_the_queue(runtime: &str) {
    let world = pair(runtime, "queue = \"queue\"\nstop_grace = \"30s\"");
    let (a, b) = (world.worker("a"), world.worker("b"));
    let first = post(&world, "a", "c", "[[hold x]] first");
    asked(&world, "first", 1);
    let later: Vec<u64> = ["second", "third"].iter().map(|text| post(&world, "a", "c", text)).collect();
    let rows = world.cli(&["queue", "a", "--json"]).json();
    let places: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["place"].as_str().unwrap()).collect();
    assert_eq!(places, ["running", "1", "2"], "{rows:#}");
    let mut restarting = world.command(&["restart", "a"]).stdout(std::process::Stdio::null()).spawn().unwrap();
    world.wait_ps("a", "the drain", |row| row["state"] == "draining");
    // A restart is no stop: whoever writes meanwhile waits.
    let last = post(&world, "a", "c", "meanwhile");
    world.model.release("x");
    let status = until("the end of restart", LIMIT, || world.story(), || restarting.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    for (turn, text) in [(first, "first"), (later[0], "second"), (later[1], "third"), (last, "meanwhile")] {
        let story = story_of(&world, turn);
        assert_eq!(story["answer"], format!("echo: {text}"), "{story:#}");
        assert_eq!(story["attempts"].as_array().map(Vec::len), Some(1), "{story:#}");
    }
    assert_ne!(world.worker("a"), a);
    assert_eq!((world.worker("b"), &world.ps("a")["restarts"]), (b, &0.into()), "a wish is no failure");
    world.shut_down();
}

fn kill_leaves_nothing(runtime: &str) {
    let world = pair(runtime, "queue = \"queue\"");
    let (a, b) = (world.worker("a"), world.worker("b"));
    let flag = world.workspace("a").join("flag");
    let sending = world.sending("a", "c", &restless(&world, &flag));
    appears(&world, &flag);
    until("the naps", LIMIT, || world.story(), || (nappers(&world).len() == 4).then_some(()));
    let waiting = post(&world, "a", "c", "waits");
    done(&world, &["kill", "a"]);
    // The command has returned: nothing is waited for.
    let left: Vec<_> = nappers(&world).into_iter().map(command_line).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(world.codex_processes().is_empty() && !is_alive(a));
    let said = ended(&world, sending);
    assert_eq!((said.code, &said.event("finished")["class"]), (1, &"killed".into()), "{:?}", said.lines);
    assert_eq!(world.worker("b"), b);
    assert_eq!(world.ps("a")["state"], "down");
    // What had not begun is not lost.
    assert_eq!(world.turn(waiting)["row"]["state"].as_str().map(is_end), Some(false));
    done(&world, &["start", "a"]);
    assert_eq!(story_of(&world, waiting)["answer"], "echo: waits");
    world.shut_down();
}

fn a_stopped_agent_stays_stopped_over_a_restart_of_the_supervisor(runtime: &str) {
    let mut world = pair(runtime, "");
    let b = world.worker("b");
    done(&world, &["stop", "a"]);
    world.kill_supervisor();
    world.run();
    world.wait_ps("b", "b to be taken over", |row| row["state"] == "ready" && row["pid"] == b);
    let row = world.wait_ps("a", "a to be down", |row| row["state"] == "down");
    assert_eq!(row["wanted"], "down", "{row}");
    done(&world, &["start", "a"]);
    world.kill_supervisor();
    world.run();
    world.wait_ps("a", "a to be up", |row| row["state"] == "ready");
    world.shut_down();
}

#[test]
fn a_killed_agent_takes_its_idle_codex_with_it() {
    let world = pair("codex", "");
    assert_eq!(world.send("a", "c", "warm")["text"], "echo: warm");
    assert!(!world.codex_processes().is_empty(), "a warm Codex stays");
    done(&world, &["kill", "a"]);
    assert!(world.codex_processes().is_empty());
    world.shut_down();
}

#[test]
fn several_agents_are_named_at_once_and_an_unknown_one_touches_nobody() {
    let world = pair("codex", "");
    let pids = (world.worker("a"), world.worker("b"));
    let ran = world.cli(&["stop", "a", "nobody", "b"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("nobody") && ran.stderr.contains("cofferdam ps"), "{ran:?}");
    assert_eq!((world.worker("a"), world.worker("b")), pids);
    done(&world, &["stop", "a", "b"]);
    assert_eq!((&world.ps("a")["state"], &world.ps("b")["state"]), (&"down".into(), &"down".into()));
    let ran = world.cli(&["restart", "a", "b"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!((&world.ps("a")["state"], &world.ps("b")["state"]), (&"ready".into(), &"ready".into()));
    assert!(fs::exists(world.state().join("run/agents/a.sock")).unwrap());
    world.shut_down();
}
