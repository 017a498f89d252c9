//! `cofferdam drill` on a live fleet with the real Codex: each kind of harm is done and proven, the others are measured,
//! and afterwards nothing of it is left.

use crate::binaries;
use cofferdam_tests::processes;
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::{Ran, World};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::process::{Child, Stdio};

fn world() -> World {
    World::builder(binaries()).agent("a", "").agent("b", "runtime = \"codex-cli\"").start()
}

fn agents(world: &World) -> Vec<String> {
    let rows = world.cli(&["ps", "--json"]).json();
    rows.as_array().into_iter().flatten().map(|row| row["agent"].as_str().unwrap().to_owned()).collect()
}

/// Folders of throw-away agents.
fn folders(world: &World) -> Vec<String> {
    let entries = std::fs::read_dir(world.state().join("agents")).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("drill-")).collect()
}

/// What bears the folder of a throw-away agent in its environment or command line.
fn processes_left(world: &World) -> Vec<String> {
    let mark = world.state().join("agents/drill-").display().to_string();
    processes::marked(&mark).into_iter().map(processes::command_line).collect()
}

fn nothing_is_left(world: &World) {
    assert_eq!(agents(world), ["a", "b"]);
    assert_eq!(folders(world), Vec::<String>::new());
    assert_eq!(processes_left(world), Vec::<String>::new());
}

fn wait_for_nothing_left(world: &World) {
    until(
        "nothing of the drill to be left",
        LIMIT,
        || world.story(),
        || (folders(world).is_empty() && processes_left(world).is_empty() && agents(world) == ["a", "b"]).then_some(()),
    );
}

fn report(ran: &Ran) -> Value {
    // The budgets of a test on a busy host say nothing.
    assert!([0, 1, 75].contains(&ran.code), "{ran:?}");
    ran.json()
}

/// Runs one kind of harm, and gives what was found.
fn drilled(kind: &str) -> (World, Value) {
    let world = world();
    let dir = world.root().join("report");
    let dir_text = dir.to_str().unwrap();
    let ran = world.cli(&["drill", kind, "--seconds", "3", "--report", dir_text, "--json"]);
    let report = report(&ran);
    nothing_is_left(&world);
    let kept: Value = serde_json::from_str(&std::fs::read_to_string(dir.join("report.json")).unwrap()).unwrap();
    assert_eq!(kept, report, "what is printed is what is written");
    let svg = std::fs::read_to_string(dir.join("latency.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.contains(&format!("{kind} drill-victim")));
    let drill = &report["drills"][0];
    let probes: Vec<&str> = drill["probes"].as_array().unwrap().iter().map(|p| p["probe"].as_str().unwrap()).collect();
    assert_eq!(probes, ["turns", "health", "workers"]);
    assert_eq!((drill["kind"].as_str(), drill["victim"].as_str()), (Some(kind), Some("drill-victim")));
    assert_eq!(drill["proof"]["harmed"], true, "{drill:#}\n{}", ran.stderr);
    assert!(drill["recovered_s"].is_number(), "{drill:#}");
    for probed in drill["probes"].as_array().unwrap() {
        for phase in ["before", "during", "after"] {
            assert!(probed[phase]["count"].as_u64().unwrap() > 0, "{phase}: {probed:#}");
            assert_eq!(probed[phase]["failed"], 0, "{phase}: {probed:#}");
        }
        assert!(["within", "no_budget", "too_few", "busy", "missed"].contains(&probed["verdict"].as_str().unwrap()));
    }
    let code = match report["verdict"].as_str().unwrap() {
        "missed" => 1,
        "busy" => 75,
        _ => 0,
    };
    assert_eq!(ran.code, code, "{report:#}");
    (world, drill["proof"]["words"].clone())
}

#[test]
fn a_model_that_never_answers() {
    let (world, proof) = drilled("stall");
    assert!(proof.as_str().unwrap().contains("the same one throughout: true"), "{proof}");
    let answered = world.send("a", "c", "hello");
    assert_eq!(answered["outcome"], "completed", "the configured agents are as they were");
    world.shut_down();
}

#[test]
fn a_worker_that_is_stopped() {
    let (world, proof) = drilled("stop");
    assert!(proof.as_str().unwrap().contains("state T"), "{proof}");
    world.shut_down();
}

#[test]
fn a_worker_that_is_killed_again_and_again() {
    let (world, proof) = drilled("kill");
    assert!(!proof.as_str().unwrap().starts_with('0'), "{proof}");
    world.shut_down();
}

#[test]
fn a_compaction_that_never_ends() {
    let (world, proof) = drilled("compact");
    assert!(proof.as_str().unwrap().contains("summary is open without an answer"), "{proof}");
    world.shut_down();
}

#[test]
fn tools_that_print_without_end() {
    let (world, proof) = drilled("flood");
    assert!(proof.as_str().unwrap().contains("read by its processes"), "{proof}");
    world.shut_down();
}

#[test]
fn a_tool_that_takes_all_memory() {
    let (world, proof) = drilled("oom");
    assert!(proof.as_str().unwrap().contains("resident at the most"), "{proof}");
    world.shut_down();
}

#[test]
fn a_tool_that_forks_without_end() {
    let (world, proof) = drilled("forks");
    assert!(proof.as_str().unwrap().contains("processes at the most"), "{proof}");
    world.shut_down();
}

#[test]
fn a_configured_agent_is_hurt_only_if_it_is_named_twice_and_gets_up_again() {
    let world = world();
    let before = world.worker("a");
    assert_eq!(world.cli(&["drill", "kill", "--agent", "a"]).code, 64);
    let ran = world.cli(&["drill", "flood", "--agent", "a", "--yes-hurt-it"]);
    assert!(ran.code == 64 && ran.stderr.contains("plays along"), "{ran:?}");
    let ran = world.cli(&["drill", "kill", "--agent", "nobody", "--yes-hurt-it"]);
    assert!(ran.code == 1 && ran.stderr.contains("there is no agent nobody"), "{ran:?}");
    assert_eq!(world.worker("a"), before);
    let ran = world.cli(&["drill", "kill", "--agent", "a", "--yes-hurt-it", "--seconds", "2", "--json"]);
    let drill = &report(&ran)["drills"][0];
    assert_eq!((drill["victim"].as_str(), drill["proof"]["harmed"].as_bool()), (Some("a"), Some(true)));
    assert!(drill["recovered_s"].is_number(), "{drill:#}");
    assert_ne!(world.worker("a"), before);
    assert_eq!(world.send("a", "c", "hello")["outcome"], "completed");
    nothing_is_left(&world);
    world.shut_down();
}

#[test]
fn a_busy_agent_is_left_alone() {
    let world = world();
    let mut turn = world.sending("a", "c", "[[hang]]");
    world.wait_ps("a", "a turn that runs", |row| row["running"] == 1);
    let ran = world.cli(&["drill", "kill", "--agent", "a", "--yes-hurt-it", "--seconds", "1"]);
    assert!(ran.code == 75 && ran.stderr.contains("is busy (1 turns run or wait)"), "{ran:?}");
    assert_eq!(world.ps("a")["running"], 1);
    assert_eq!(world.cli(&["interrupt", "a"]).code, 0);
    turn.wait().unwrap();
    world.shut_down();
}

#[test]
fn without_a_codex_nothing_is_hurt() {
    let nothing = std::path::Path::new("/nonexistent/codex");
    let world = World::builder(binaries()).agent("a", "").agent("b", "").codex(nothing).start();
    let ran = world.cli(&["drill", "all", "--seconds", "1"]);
    assert!(ran.code == 1 && ran.stderr.contains("there is no Codex for a drill"), "{ran:?}");
    assert!(ran.stderr.contains("nothing was hurt") && ran.stdout.is_empty(), "{ran:?}");
    wait_for_nothing_left(&world);
    world.shut_down();
}

#[test]
fn without_a_supervisor_it_says_so() {
    let world = World::builder(binaries()).agent("a", "").build();
    assert_eq!(world.cli(&["drill", "stop"]).code, 69);
}

/// A drill that runs until somebody ends it, with its victim's worker stopped.
fn running(world: &World) -> Child {
    let child = world
        .command(&["drill", "stop", "--seconds", "600"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("throw-away agents", LIMIT, || world.story(), || (agents(world).len() == 5).then_some(()));
    child
}

fn ended(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_second_drill_is_refused_and_an_interrupted_one_leaves_nothing() {
    let world = world();
    let first = running(&world);
    let second = world.cli(&["drill", "kill", "--seconds", "1"]);
    assert!(second.code == 75 && second.stderr.contains("a drill is running already"), "{second:?}");
    assert_eq!(agents(&world).len(), 5, "the first goes on");
    processes::signal(first.id(), Signal::SIGINT);
    let (code, words) = ended(first);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("interrupted; who was hurt has been let go"), "{words}");
    wait_for_nothing_left(&world);
    world.shut_down();
}

#[test]
fn a_drill_that_dies_leaves_nothing() {
    let world = world();
    let mut drill = running(&world);
    drill.kill().unwrap();
    drill.wait().unwrap();
    wait_for_nothing_left(&world);
    assert_eq!(world.send("a", "c", "hello")["outcome"], "completed");
    world.shut_down();
}

#[test]
fn a_supervisor_that_dies_ends_the_drill_and_the_next_one_clears_what_it_left() {
    let mut world = world();
    let drill = running(&world);
    world.kill_supervisor();
    let (code, words) = ended(drill);
    assert_eq!(code, Some(69), "{words}");
    assert!(words.contains("the supervisor left in the middle of the drill ("), "{words}");
    assert!(words.contains("the next `cofferdam run` ends and removes them"), "{words}");
    world.run();
    world.wait_ready();
    nothing_is_left(&world);
    assert_eq!(world.send("a", "c", "hello")["outcome"], "completed");
    world.shut_down();
}

#[test]
fn a_shutdown_does_not_wait_for_a_drill() {
    let mut world = world();
    let drill = running(&world);
    assert_eq!(world.cli(&["shutdown"]).code, 0);
    assert_eq!(world.wait_ended(), Some(0));
    let (code, words) = ended(drill);
    assert!(matches!(code, Some(69 | 75)), "{code:?} {words}");
    assert_eq!(processes_left(&world), Vec::<String>::new());
}
