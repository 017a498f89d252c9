//! Turns that take too long: silence, a compaction without end, the turn's own limit. Each ends by its own clock.

use crate::both::{AGENTS, ask, both, last_attempt};
use cofferdam_tests::world::World;
use protocol::FailureClass;

/// Fails unless the turn ended by this clock, and the agent goes on.
#[track_caller]
fn ends(world: &World, agent: &str, text: &str, class: FailureClass) {
    let end = world.send(agent, "slow", text);
    assert_eq!(end["outcome"], "failed", "{agent}: {end}\n{}", world.story());
    assert_eq!(end["class"], class.as_str(), "{agent}: {end}\n{}", world.story());
    assert!(end["text"].as_str().unwrap().starts_with(class.policy().told), "{agent}: {end}");
    assert_eq!(last_attempt(world, end["turn"].as_u64().unwrap())["class"], class.as_str());
    assert_eq!(ask(world, agent, "next", "and after it"), "echo: and after it");
}

#[test]
fn a_model_that_never_answers_is_silence() {
    let world = both("silence_timeout = \"3s\"", "").start();
    for agent in AGENTS {
        ends(&world, agent, "[[hang]]", FailureClass::CodexSilent);
        ends(&world, agent, "[[hang-stream]]", FailureClass::CodexSilent);
    }
    world.shut_down();
}

#[test]
fn a_turn_has_a_limit_of_its_own() {
    let world = both("turn_timeout = \"4s\"", "").start();
    for agent in AGENTS {
        ends(&world, agent, "[[tool sleep 600]]", FailureClass::TurnTimeout);
    }
    world.shut_down();
}

#[test]
fn a_compaction_without_end_ends_and_only_app_server_can_name_it() {
    let limits = "[defaults.codex]\nmodel_auto_compact_token_limit = 1000\n";
    let world = both("compaction_timeout = \"3s\"\nsilence_timeout = \"6s\"", limits).start();
    for (agent, class) in [("app", FailureClass::CompactionTimeout), ("cli", FailureClass::CodexSilent)] {
        ask(&world, agent, "slow", "remember this [[tokens 300000]] [[compact-hang]]");
        ends(&world, agent, "and now", class);
    }
    world.shut_down();
}
