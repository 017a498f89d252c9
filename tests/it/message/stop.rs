//! What is stopped is gone: the turn, its tools, and what the tools left behind.

use crate::both::{AGENTS, Sending, answer, ask, both, held};
use cofferdam_tests::processes;
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::World;

/// Waits until a process with `mark` in its command line runs.
fn runs(world: &World, mark: &str) {
    until(&format!("{mark} to run"), LIMIT, || world.story(), || named(mark).first().copied());
}

/// Waits until no process with `mark` in its command line is left.
fn gone(world: &World, mark: &str) {
    let story = || {
        let left: Vec<String> = named(mark).into_iter().map(processes::command_line).collect();
        format!("left: {left:?}\n{}", world.story())
    };
    until(&format!("{mark} to be gone"), LIMIT, story, || named(mark).is_empty().then_some(()));
}

/// Processes of `sleep` with this argument, by pid: the prompts that name it are no processes of it.
fn named(mark: &str) -> Vec<u32> {
    processes::marked(mark).into_iter().filter(|pid| processes::command_line(*pid).starts_with("sleep ")).collect()
}

#[test]
fn an_interrupted_turn_ends_with_its_tools() {
    let world = both("", "").start();
    for (agent, mark) in AGENTS.into_iter().zip(["7101", "7102"]) {
        let sending =
            Sending::new(&world, agent, "c", &format!("[[tool setsid sleep {mark}.1 & sleep {mark}.2]] long"));
        runs(&world, &format!("{mark}.1"));
        runs(&world, &format!("{mark}.2"));
        // The processes are there before Codex has said so.
        world.wait_ps(agent, "the tool in ps", |row| row["phase"].as_str().is_some_and(|phase| phase.contains(mark)));
        let ran = world.cli(&["interrupt", agent]);
        assert_eq!(ran.code, 0, "{ran:?}");
        let end = sending.finished(&world);
        assert_eq!(end["outcome"], "interrupted", "{end}");
        assert!(end["class"].is_null(), "{end}");
        let text = end["text"].as_str().unwrap();
        assert!(text.contains("stopped by the operator") && text.contains(mark), "it says what had run: {text}");
        gone(&world, &format!("{mark}.2"));
        assert_eq!(ask(&world, agent, "c", "and on"), "echo: and on");
        if agent == "cli" {
            gone(&world, &format!("{mark}.1"));
        }
    }
    world.shut_down();
}

#[test]
fn only_the_named_conversation_is_interrupted() {
    let world = both("", "").start();
    for agent in AGENTS {
        let [mine, other] = ["mine", "other"].map(|name| {
            let sending = Sending::new(&world, agent, name, &format!("[[hold {agent}-{name}]] {name}"));
            held(&world, &format!("{agent}-{name}"));
            sending
        });
        let ran = world.cli(&["interrupt", agent, "--conversation", "mine"]);
        assert!(ran.code == 0 && ran.stdout.contains("stopping 1"), "{ran:?}");
        assert_eq!(mine.finished(&world)["outcome"], "interrupted");
        world.model.release(&format!("{agent}-other"));
        assert_eq!(answer(&world, &other.finished(&world)), "echo: other");
        let ran = world.cli(&["interrupt", agent]);
        assert!(ran.code == 0 && ran.stdout.contains("nothing runs"), "{ran:?}");
    }
    world.shut_down();
}

#[test]
fn what_a_tool_leaves_behind_is_gone_with_its_codex() {
    let world = both("idle_after = \"1s\"", "").start();
    for (agent, mark) in AGENTS.into_iter().zip(["7201", "7202"]) {
        let prompt = format!("[[tool setsid sleep {mark} >/dev/null 2>&1 & echo left]] done");
        let text = ask(&world, agent, "c", &prompt);
        assert!(text.starts_with("tool exit 0: left"), "{text}");
        gone(&world, mark);
    }
    until("no Codex to be left", LIMIT, || world.story(), || world.codex_processes().is_empty().then_some(()));
    assert_eq!(ask(&world, "app", "c", "[[recall]] warm again").matches("done").count(), 1);
    world.shut_down();
}

#[test]
fn a_worker_that_is_killed_leaves_nothing() {
    let world = both("", "").start();
    for (agent, mark) in AGENTS.into_iter().zip(["7301", "7302"]) {
        let sending = Sending::new(&world, agent, "c", &format!("[[tool setsid sleep {mark} & sleep {mark}]] x"));
        runs(&world, mark);
        let ran = world.cli(&["kill", agent]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(named(mark).is_empty(), "kill returned before the tree was gone");
        let end = sending.finished(&world);
        assert_eq!((end["outcome"].as_str(), end["class"].as_str()), (Some("failed"), Some("killed")), "{end}");
        let ran = world.cli(&["send", agent, "anybody?"]);
        assert!(ran.code == 75 && ran.stderr.contains(&format!("cofferdam start {agent}")), "{ran:?}");
        assert_eq!(world.cli(&["start", agent]).code, 0);
        assert_eq!(ask(&world, agent, "c", "back"), "echo: back");
    }
    world.shut_down();
}
