//! A worker without a supervisor: it finishes what runs, keeps the outcome, and leaves by itself once it is idle for long
//! enough.

use crate::scenes::{asked, ended, on, on_both_runtimes, story_of, world};
use cofferdam_tests::processes::{is_alive, marked};
use cofferdam_tests::wait::{LIMIT, until};

on_both_runtimes!(an_orphan_leaves_by_itself_but_never_in_the_middle_of_a_turn);

fn an_orphan_leaves_by_itself_but_never_in_the_middle_of_a_turn(runtime: &str) {
    let lines = format!("{}\norphan_after = \"1s\"", on(runtime));
    let mut world = world().agent("busy", &lines).agent("idle", &lines).start();
    let sending = world.sending("busy", "c", "[[hold x]] think");
    asked(&world, "think", 1);
    let (busy, idle) = (world.worker("busy"), world.worker("idle"));
    world.kill_supervisor();
    let turn = ended(&world, sending).event("accepted")["turn"].as_u64().unwrap();
    // The idle one is the clock: when it has left, the time of the busy one would have come too.
    until("the idle worker to leave", LIMIT, || world.story(), || (!is_alive(idle)).then_some(()));
    assert!(is_alive(busy) && !world.codex_processes().is_empty(), "{}", world.story());
    world.model.release("x");
    until("the busy worker to leave", LIMIT, || world.story(), || (!is_alive(busy)).then_some(()));
    let left = || marked(&world.root().display().to_string());
    until("its Codex to leave", LIMIT, || world.story(), || left().is_empty().then_some(()));
    world.run();
    let story = story_of(&world, turn);
    assert_eq!(story["answer"], "echo: think", "the outcome was kept: {story:#}");
    assert_eq!(story["attempts"].as_array().map(Vec::len), Some(1));
    assert_eq!(world.model.count_prompt("think"), 1);
    assert_eq!(world.send("idle", "c", "back")["text"], "echo: back");
    world.shut_down();
}
