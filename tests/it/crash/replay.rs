//! One kill at one step of one turn.

use crate::scenes::{
    appears, asked, codex_pid, ended, nappers, on_both_runtimes, one_agent, restless, story_of, swept_within,
};
use cofferdam_tests::processes::{kill9, signal};
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::World;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::process::Child;
use std::time::Duration;

/// Within this nothing of a dead worker is left: the budget of the sweep.
const SWEPT_WITHIN: Duration = Duration::from_secs(2);

on_both_runtimes!(
    a_worker_that_never_heard_of_the_turn,
    a_worker_while_the_model_thinks,
    a_worker_while_words_come,
    a_worker_while_a_tool_runs,
    a_worker_after_a_tool_has_ended,
    codex_while_the_model_thinks,
    codex_while_a_tool_runs,
    the_supervisor_while_the_model_thinks,
    the_supervisor_and_the_turn_ends_without_it,
    the_supervisor_while_a_tool_runs,
    the_supervisor_and_the_worker_together,
    the_supervisor_and_the_worker_while_a_tool_runs,
);

/// The attempts of a story as `(state, class)`.
fn attempts(story: &Value) -> Vec<(String, String)> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let attempts = story["attempts"].as_array().unwrap();
    attempts.iter().map(|attempt| (word(&attempt["state"]), word(&attempt["class"]))).collect()
}

fn pair(state: &str, class: &str) -> (String, String) {
    (state.to_owned(), class.to_owned())
}

/// A turn was answered by its second attempt, the first having come to nothing but words.
fn answered_by_the_second(world: &World, finished: &Value, prompt: &str, class: &str) {
    assert_eq!(finished["outcome"], "completed", "{finished}\n{}", world.story());
    assert_eq!(finished["text"], format!("echo: {prompt}"));
    assert_eq!(finished["attempts"], 2);
    let story = story_of(world, finished["turn"].as_u64().unwrap());
    assert_eq!(attempts(&story), [pair("failed", class), pair("completed", "")], "{story:#}");
    assert_eq!(story["attempts"][0]["replay_safe"], true, "{story:#}");
    assert_eq!(world.model.count_prompt(prompt), 2, "{}", world.model.story());
}

/// A turn failed because nobody can tell what its tools had done; the commands are told, nothing was repeated.
fn uncertain(world: &World, finished: &Value, class: &str, command: &str, requests: usize) {
    assert_eq!((&finished["outcome"], &finished["class"]), (&"failed".into(), &class.into()), "{finished}");
    assert!(finished["text"].as_str().unwrap().contains(command), "{finished}\n{}", world.story());
    assert_eq!(finished["attempts"], 1);
    let story = story_of(world, finished["turn"].as_u64().unwrap());
    assert_eq!(attempts(&story), [pair("failed", class)], "{story:#}");
    assert_eq!(story["attempts"][0]["replay_safe"], false);
    assert_eq!(world.model.count_prompt(command), requests, "{}", world.model.story());
    // The agent itself is well.
    assert_eq!(world.send("a", "after", "well?")["text"], "echo: well?");
}

/// Sends what leaves processes everywhere, and returns once they run.
fn restless_turn(world: &World) -> Child {
    let flag = world.workspace("a").join("flag");
    let sending = world.sending("a", "c", &restless(world, &flag));
    appears(world, &flag);
    until("the naps", LIMIT, || world.story(), || (nappers(world).len() == 4).then_some(()));
    sending
}

fn a_worker_that_never_heard_of_the_turn(runtime: &str) {
    let world = one_agent(runtime);
    let worker = world.worker("a");
    signal(worker, Signal::SIGSTOP);
    let sending = world.sending("a", "c", "hello");
    let running = world.wait_ps("a", "a turn that was sent to a stopped worker", |row| row["running"] == 1);
    assert_eq!(running["pid"], worker);
    kill9(worker);
    let said = ended(&world, sending);
    let finished = said.event("finished");
    assert_eq!((said.code, &finished["text"]), (0, &"echo: hello".into()), "{}", world.story());
    assert_eq!(finished["attempts"], 1, "it is the same attempt that was sent again");
    assert_eq!(world.model.count_prompt("hello"), 1);
    assert_ne!(world.worker("a"), worker);
    world.shut_down();
}

fn a_worker_while_the_model_thinks(runtime: &str) {
    let world = one_agent(runtime);
    let sending = world.sending("a", "c", "[[hold x]] think");
    asked(&world, "think", 1);
    kill9(world.worker("a"));
    asked(&world, "think", 2);
    world.model.release("x");
    let said = ended(&world, sending);
    answered_by_the_second(&world, said.event("finished"), "think", "worker_lost");
    assert_eq!(said.lines.iter().filter(|line| line["event"] == "finished").count(), 1);
    world.shut_down();
}

fn a_worker_while_words_come(runtime: &str) {
    let world = one_agent(runtime);
    let sending = world.sending("a", "c", "[[reason hm]] [[hold-stream x]] speak");
    asked(&world, "speak", 1);
    until("Codex to run the turn", LIMIT, || world.story(), || (world.ps("a")["running"] == 1).then_some(()));
    kill9(world.worker("a"));
    asked(&world, "speak", 2);
    world.model.release("x");
    answered_by_the_second(&world, ended(&world, sending).event("finished"), "speak", "worker_lost");
    world.shut_down();
}

fn a_worker_while_a_tool_runs(runtime: &str) {
    let world = one_agent(runtime);
    let sending = restless_turn(&world);
    kill9(world.worker("a"));
    swept_within(&world, SWEPT_WITHIN);
    let said = ended(&world, sending);
    assert_eq!(said.code, 1);
    uncertain(&world, said.event("finished"), "worker_lost", "601", 1);
    world.shut_down();
}

fn a_worker_after_a_tool_has_ended(runtime: &str) {
    let world = one_agent(runtime);
    let sending = world.sending("a", "c", "[[tool echo made > made]] [[hold x]] go on");
    asked(&world, "go on", 2);
    kill9(world.worker("a"));
    let said = ended(&world, sending);
    uncertain(&world, said.event("finished"), "worker_lost", "echo made", 2);
    world.shut_down();
}

fn codex_while_the_model_thinks(runtime: &str) {
    let world = one_agent(runtime);
    let worker = world.worker("a");
    let sending = world.sending("a", "c", "[[hold x]] think");
    asked(&world, "think", 1);
    kill9(codex_pid(&world, "a"));
    asked(&world, "think", 2);
    world.model.release("x");
    answered_by_the_second(&world, ended(&world, sending).event("finished"), "think", "codex_exit");
    assert_eq!(world.worker("a"), worker, "its worker is not touched");
    world.shut_down();
}

fn codex_while_a_tool_runs(runtime: &str) {
    let world = one_agent(runtime);
    let sending = restless_turn(&world);
    kill9(codex_pid(&world, "a"));
    swept_within(&world, SWEPT_WITHIN);
    uncertain(&world, ended(&world, sending).event("finished"), "codex_exit", "601", 1);
    world.shut_down();
}

/// The turn went on without the supervisor: one attempt, one question to the model, one answer.
fn went_on(world: &World, turn: u64, prompt: &str, requests: usize) {
    let story = story_of(world, turn);
    assert_eq!(attempts(&story), [pair("completed", "")], "{story:#}\n{}", world.story());
    assert!(story["answer"].as_str().unwrap().contains(&format!("echo: {prompt}")), "{story:#}");
    assert_eq!(world.model.count_prompt(prompt), requests, "{}", world.model.story());
}

/// Kills the supervisor under a `send`, which is told; gives the turn.
fn kill_supervisor_under(world: &mut World, sending: Child) -> u64 {
    world.kill_supervisor();
    let said = ended(world, sending);
    assert_eq!(said.code, 69, "send is told that the supervisor has gone");
    said.event("accepted")["turn"].as_u64().unwrap()
}

fn the_supervisor_while_the_model_thinks(runtime: &str) {
    let mut world = one_agent(runtime);
    let worker = world.worker("a");
    let sending = world.sending("a", "c", "[[hold x]] think");
    asked(&world, "think", 1);
    let turn = kill_supervisor_under(&mut world, sending);
    world.run();
    world.wait_ps("a", "the worker to be taken over", |row| row["state"] == "busy");
    assert_eq!(world.worker("a"), worker, "the worker is the same");
    world.model.release("x");
    went_on(&world, turn, "think", 1);
    world.shut_down();
}

fn the_supervisor_and_the_turn_ends_without_it(runtime: &str) {
    let mut world = one_agent(runtime);
    let worker = world.worker("a");
    let sending = world.sending("a", "c", "[[hold x]] think");
    asked(&world, "think", 1);
    let turn = kill_supervisor_under(&mut world, sending);
    world.model.release("x");
    let journal = world.state().join("agents/a/journal");
    let ended = || std::fs::read(&journal).ok().filter(|bytes| bytes.windows(11).any(|word| word == b"echo: think"));
    until("the answer to be in the journal", LIMIT, || world.story(), ended);
    world.run();
    went_on(&world, turn, "think", 1);
    assert_eq!(world.worker("a"), worker);
    world.shut_down();
}

fn the_supervisor_while_a_tool_runs(runtime: &str) {
    let mut world = one_agent(runtime);
    let (flag, go) = (world.workspace("a").join("flag"), world.workspace("a").join("go"));
    let script = format!("echo run >> {}; until [ -e {} ]; do sleep 0.02; done", flag.display(), go.display());
    let sending = world.sending("a", "c", &format!("[[tool {script}]] tool"));
    appears(&world, &flag);
    let turn = kill_supervisor_under(&mut world, sending);
    world.run();
    world.wait_ps("a", "the worker to be taken over", |row| row["state"] == "busy");
    std::fs::write(&go, "").unwrap();
    went_on(&world, turn, "tool", 2);
    assert_eq!(std::fs::read_to_string(&flag).unwrap(), "run\n", "the tool ran once");
    world.shut_down();
}

fn the_supervisor_and_the_worker_together(runtime: &str) {
    let mut world = one_agent(runtime);
    let worker = world.worker("a");
    let sending = world.sending("a", "c", "[[hold x]] think");
    asked(&world, "think", 1);
    kill9(worker);
    let turn = kill_supervisor_under(&mut world, sending);
    world.run();
    asked(&world, "think", 2);
    world.model.release("x");
    let story = story_of(&world, turn);
    assert_eq!(attempts(&story), [pair("failed", "worker_lost"), pair("completed", "")], "{story:#}");
    assert_eq!(story["answer"], "echo: think");
    assert_eq!(world.model.count_prompt("think"), 2);
    world.shut_down();
}

fn the_supervisor_and_the_worker_while_a_tool_runs(runtime: &str) {
    let mut world = one_agent(runtime);
    let sending = restless_turn(&world);
    let worker = world.worker("a");
    // The supervisor first: nobody is left who could sweep, but the kernel.
    let turn = kill_supervisor_under(&mut world, sending);
    kill9(worker);
    world.run();
    let story = story_of(&world, turn);
    assert_eq!(attempts(&story), [pair("failed", "worker_lost")], "{story:#}\n{}", world.story());
    assert!(story["attempts"][0]["ran"].to_string().contains("601"), "{story:#}");
    swept_within(&world, SWEPT_WITHIN);
    world.shut_down();
}
