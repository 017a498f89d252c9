//! The three clocks on real processes: what lives is let live, what does not is ended, and `ps` tells which is which.

use crate::both::{AGENTS, Sending, answer, ask, both, last_attempt};
use crate::scenes::codex_pid;
use cofferdam_tests::processes::{self, is_alive};
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::World;
use nix::sys::signal::Signal;
use protocol::FailureClass;
use serde_json::Value;

/// Waits until `ps` and `queue` tell that the agent's turn does this, and gives its `ps` row.
fn does(world: &World, agent: &str, phase: &str) -> Value {
    let row = world.wait_ps(agent, phase, |row| row["phase"].as_str().is_some_and(|told| told.starts_with(phase)));
    assert!(row["phase_since"].as_u64().is_some_and(|since| since > 0), "{row}");
    row
}

#[test]
fn slow_text_and_silent_work_are_life() {
    let world = both("silence_timeout = \"4s\"\nmax_turns = 4", "").start();
    let burn = "[[tool timeout 9 sh -c 'while :; do :; done']] burnt";
    let cases = [("[[slow 10x1s]] drop by drop", "drop"), (burn, "burnt"), ("[[tool sleep 9]] rested", "rested")];
    let send = |agent| cases.map(|(text, word)| (word, Sending::new(&world, agent, word, text)));
    let all = AGENTS.map(|agent| (agent, send(agent)));
    for (agent, sendings) in all {
        for (word, sending) in sendings {
            let end = sending.finished(&world);
            assert!(answer(&world, &end).contains(word), "{agent}: {end}");
            assert_eq!(end["attempts"], 1, "{agent}: {end}");
        }
    }
    world.shut_down();
}

#[test]
fn ps_and_queue_tell_what_a_turn_does() {
    let world = both("silence_timeout = \"20s\"", "").start();
    for agent in AGENTS {
        let tool = Sending::new(&world, agent, "t", "[[tool sleep 601]] work");
        let row = does(&world, agent, "in a tool: ");
        assert!(row["phase"].as_str().is_some_and(|phase| phase.contains("sleep 601")), "{row}");
        let queue = world.cli(&["queue", agent, "--json"]).json();
        assert_eq!(queue[0]["phase"], row["phase"], "{queue}");
        assert_eq!(world.cli(&["interrupt", agent]).code, 0);
        assert_eq!(tool.finished(&world)["outcome"], "interrupted");
        let hung = Sending::new(&world, agent, "h", "[[hang]] hm");
        does(&world, agent, "waiting on the model");
        does(&world, agent, "silent");
        assert_eq!(hung.finished(&world)["class"], "codex_silent");
        assert_eq!(ask(&world, agent, "h", "and on"), "echo: and on");
    }
    world.shut_down();
}

#[test]
fn a_stopped_codex_is_silent_whether_it_waits_or_runs_a_tool() {
    let world = both("silence_timeout = \"3s\"\nstop_grace = \"500ms\"", "").start();
    for agent in AGENTS {
        for (text, ran) in [("[[hang]] held", false), ("[[tool sleep 602]] work", true)] {
            let sending = Sending::new(&world, agent, "c", text);
            does(&world, agent, if ran { "in a tool" } else { "waiting on the model" });
            let codex = codex_pid(&world, agent);
            processes::signal(codex, Signal::SIGSTOP);
            let end = sending.finished(&world);
            assert_eq!(end["class"], FailureClass::CodexSilent.as_str(), "{end}\n{}", world.story());
            assert_eq!(end["text"].as_str().unwrap().contains("sleep 602"), ran, "what ran is told: {end}");
            let attempt = last_attempt(&world, end["turn"].as_u64().unwrap());
            assert!(attempt["detail"].as_str().unwrap().contains("stopped by a signal"), "{attempt}");
            assert_eq!(attempt["replay_safe"], !ran, "{attempt}");
            until("the stopped Codex to be gone", LIMIT, || world.story(), || (!is_alive(codex)).then_some(()));
            assert_eq!(ask(&world, agent, "c", "and on"), "echo: and on");
        }
        assert_eq!(world.ps(agent)["restarts"], 0, "its worker had no part in it");
    }
    world.shut_down();
}

#[test]
fn a_hung_compaction_is_interrupted_and_its_sibling_goes_on() {
    let limits = "[defaults.codex]\nmodel_auto_compact_token_limit = 1000\n";
    let world = both("compaction_timeout = \"3s\"\nmax_turns = 2", limits).start();
    let sibling = Sending::new(&world, "app", "sibling", "[[tool sleep 20]] well");
    does(&world, "app", "in a tool");
    let codex = codex_pid(&world, "app");
    ask(&world, "app", "full", "remember this [[tokens 300000]] [[compact-hang x1]]");
    let end = world.send("app", "full", "and now");
    assert_eq!(end["class"], FailureClass::CompactionTimeout.as_str(), "{end}\n{}", world.story());
    assert!(answer(&world, &sibling.finished(&world)).contains("well"));
    assert_eq!(codex_pid(&world, "app"), codex, "the interrupt was answered: nobody was replaced");
    assert_eq!(ask(&world, "app", "full", "and on"), "echo: and on");
    world.shut_down();
}

#[test]
fn a_hung_turn_does_not_live_on_its_siblings_work() {
    let world = both("silence_timeout = \"4s\"\nmax_turns = 2", "").start();
    let burn = "[[tool timeout 20 sh -c 'while :; do :; done']] burnt";
    let sibling = Sending::new(&world, "app", "sibling", burn);
    does(&world, "app", "in a tool");
    let codex = codex_pid(&world, "app");
    let end = world.send("app", "hung", "[[hang]] hm");
    assert_eq!(end["class"], FailureClass::CodexSilent.as_str(), "{end}\n{}", world.story());
    assert!(answer(&world, &sibling.finished(&world)).contains("burnt"));
    assert_eq!(codex_pid(&world, "app"), codex, "the interrupt was answered: nobody was replaced");
    world.shut_down();
}
