//! The rollout precedes the tool: what is visible of a tool's first effect is in the thread's file before it.
//!
//! The replay of an attempt rests on it: a rollout of nothing but words proves that nothing was done.

use crate::scenes::{appears, ended, on_both_runtimes, one_agent, rollouts};
use cofferdam_tests::processes::kill9;
use cofferdam_tests::world::World;
use serde_json::Value;

/// How often the race is run for each runtime.
const RACES: usize = 10;
/// Kills of a worker that its agent bears within a minute.
const WORKER_KILLS: usize = 4;

on_both_runtimes!(
    a_tool_that_kills_codex_with_its_first_breath_is_in_the_rollout,
    a_worker_killed_at_a_tools_first_effect_finds_it_in_the_rollout,
);

/// Whether the file of a thread holds a call of a tool with `text` in its arguments.
fn holds_call(rollouts: &str, text: &str) -> bool {
    // The last line of a killed Codex may be torn.
    let lines = rollouts.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut calls = lines.filter(|line| {
        line["type"] == "response_item" && line["payload"]["type"].as_str().is_some_and(|kind| kind.ends_with("_call"))
    });
    calls.any(|call| call["payload"].to_string().contains(text))
}

fn is_proven(world: &World, finished: &Value, mark: &str, class: &str) {
    let all = rollouts(world, "a");
    assert!(holds_call(&all, mark), "{mark} had an effect and is not in the rollout\n{}", world.story());
    assert_eq!(finished["class"], class, "{finished}\n{}", world.story());
    assert_eq!(world.model.count_prompt(mark), 1, "an uncertain turn is not replayed");
}

fn a_tool_that_kills_codex_with_its_first_breath_is_in_the_rollout(runtime: &str) {
    let world = one_agent(runtime);
    for race in 0..RACES {
        // Everybody in the tool's namespace but its first process and itself: Codex has no moment left to write.
        let mark = format!("race-{race}");
        let finished = world.send("a", "c", &format!("[[tool kill -9 -1; echo {mark}]] go"));
        is_proven(&world, &finished, &mark, "codex_exit");
    }
    world.shut_down();
}

fn a_worker_killed_at_a_tools_first_effect_finds_it_in_the_rollout(runtime: &str) {
    let world = one_agent(runtime);
    for race in 0..WORKER_KILLS {
        let mark = format!("race-{race}");
        let flag = world.workspace("a").join(&mark);
        let worker = world.worker("a");
        let sending = world.sending("a", "c", &format!("[[tool echo {mark} > {}; sleep 60]] go", flag.display()));
        appears(&world, &flag);
        kill9(worker);
        is_proven(&world, ended(&world, sending).event("finished"), &mark, "worker_lost");
    }
    world.shut_down();
}
