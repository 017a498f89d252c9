//! What the clocks of a turn leave behind: a tool may be quiet, what ran is told, tools are gone, the conversation goes on.

use crate::both::{AGENTS, Sending, ask, both, last_attempt};
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::World;
use protocol::FailureClass;
use serde_json::Value;

/// Fails unless the turn failed so, and gives the words of its last attempt.
#[track_caller]
fn failed(world: &World, end: &Value, class: FailureClass) -> Value {
    assert_eq!(end["outcome"], "failed", "{end}\n{}", world.story());
    assert_eq!(end["class"], class.as_str(), "{end}\n{}", world.story());
    assert!(end["text"].as_str().unwrap().starts_with(class.policy().told), "{end}");
    assert_eq!(end["attempts"], 1, "{end}");
    last_attempt(world, end["turn"].as_u64().unwrap())
}

#[test]
fn silence_ends_a_turn_but_a_tool_may_be_quiet() {
    let world = both("silence_timeout = \"3s\"\nmax_turns = 4", "").start();
    let cases = ["[[hang]] a", "[[hang-stream]] b", "[[tool echo ran]] [[hang]] c"];
    let send = |agent, text: &str| Sending::new(&world, agent, text, text);
    let all: Vec<_> = AGENTS.iter().flat_map(|agent| cases.map(|text| (*agent, text, send(*agent, text)))).collect();
    let quiet = AGENTS.map(|agent| Sending::new(&world, agent, "quiet", "[[tool sleep 5]] well"));
    for (agent, text, sending) in all {
        let end = sending.finished(&world);
        let attempt = failed(&world, &end, FailureClass::CodexSilent);
        assert_eq!(attempt["detail"], "no sign of life for 3 s", "{agent} {text}: {attempt}");
        let ran = text.contains("[[tool");
        assert_eq!(attempt["replay_safe"], !ran, "{agent} {text}: {attempt}");
        assert_eq!(end["text"].as_str().unwrap().contains("echo ran"), ran, "it says what had run: {end}");
        assert_eq!(ask(&world, agent, text, "and on"), "echo: and on");
    }
    for sending in quiet {
        assert_eq!(sending.finished(&world)["text"], "tool exit 0: \necho: well");
    }
    assert!(AGENTS.iter().all(|agent| world.ps(agent)["restarts"] == 0), "only Codex was ended");
    world.shut_down();
}

#[test]
fn a_compaction_that_fails_fails_the_turn_until_it_works() {
    let world = both("", crate::both::NO_RETRIES).start();
    for agent in AGENTS {
        ask(&world, agent, "c", &format!("[[compact-401 x1]] [[tokens 300000]] fill it, {agent}"));
        let end = world.send(agent, "c", "one more");
        failed(&world, &end, FailureClass::Auth);
        assert_eq!(ask(&world, agent, "c", "and on"), "echo: and on");
    }
    world.shut_down();
}

#[test]
fn a_turn_has_a_longest_time() {
    let world = both("turn_timeout = \"3s\"\nmax_turns = 4", "").start();
    let cases = ["[[slow 200x100ms]] a", "[[loop true]] b", "[[tool setsid sleep 7401 & sleep 7402]] c"];
    let send = |agent, text: &str| Sending::new(&world, agent, text, text);
    let all: Vec<_> = AGENTS.iter().flat_map(|agent| cases.map(|text| (*agent, text, send(*agent, text)))).collect();
    for (agent, text, sending) in all {
        let end = sending.finished(&world);
        let attempt = failed(&world, &end, FailureClass::TurnTimeout);
        assert!(attempt["detail"].as_str().unwrap().starts_with("longer than 3 s"), "{agent} {text}: {attempt}");
        let ran = !text.contains("[[slow");
        assert_eq!(!attempt["ran"].as_array().unwrap().is_empty(), ran, "{agent} {text}: {attempt}");
        assert_eq!(attempt["replay_safe"], !ran, "{agent} {text}: {attempt}");
    }
    let tools = || {
        let left = |pid: &u32| cofferdam_tests::processes::command_line(*pid).starts_with("sleep 740");
        world.codex_processes().into_iter().filter(left).count()
    };
    until("the foreground tools to be gone", LIMIT, || world.story(), || (tools() <= 1).then_some(()));
    for agent in AGENTS {
        assert_eq!(ask(&world, agent, "c", "and on"), "echo: and on");
    }
    world.shut_down();
}
