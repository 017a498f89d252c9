//! A worker whose folder or socket is removed while it runs.

use super::workers_of;
use crate::scenes::{appears, asked, ended, on_both_runtimes, one_agent, story_of, swept_within};
use cofferdam_tests::processes::is_alive;
use cofferdam_tests::wait::{LIMIT, until};
use std::fs;

on_both_runtimes!(
    a_lost_folder_ends_the_worker_and_repeats_nothing,
    a_lost_folder_without_a_supervisor_repeats_nothing,
    a_lost_socket_is_bound_anew_and_the_turn_goes_on,
);

fn a_lost_folder_ends_the_worker_and_repeats_nothing(runtime: &str) {
    let world = one_agent(runtime);
    let worker = world.worker("a");
    let flag = world.workspace("a").join("flag");
    let sending = world.sending("a", "c", &format!("[[tool echo run >> {}; sleep 60]] work", flag.display()));
    appears(&world, &flag);
    fs::remove_dir_all(world.state().join("agents/a")).unwrap();
    let said = ended(&world, sending);
    let finished = said.event("finished");
    assert_eq!((&finished["outcome"], &finished["class"]), (&"failed".into(), &"worker_lost".into()), "{finished}");
    assert_eq!(fs::read_to_string(&flag).unwrap(), "run\n", "the tool ran once");
    assert!(!is_alive(worker));
    assert_eq!(world.send("a", "d", "well?")["text"], "echo: well?", "{}", world.story());
    assert_eq!(workers_of(&world), [world.worker("a")]);
    world.shut_down();
}

fn a_lost_folder_without_a_supervisor_repeats_nothing(runtime: &str) {
    let mut world = one_agent(runtime);
    let worker = world.worker("a");
    let flag = world.workspace("a").join("flag");
    let sending = world.sending("a", "c", &format!("[[tool echo run >> {}; sleep 60]] work", flag.display()));
    appears(&world, &flag);
    world.kill_supervisor();
    let turn = ended(&world, sending).event("accepted")["turn"].as_u64().unwrap();
    fs::remove_dir_all(world.state().join("agents/a")).unwrap();
    until("the worker to leave", LIMIT, || world.story(), || (!is_alive(worker)).then_some(()));
    swept_within(&world, LIMIT);
    world.run();
    let story = story_of(&world, turn);
    assert_eq!(story["row"]["class"], "worker_lost", "{story:#}\n{}", world.story());
    assert_eq!(fs::read_to_string(&flag).unwrap(), "run\n", "the tool ran once");
    assert_eq!(world.send("a", "d", "well?")["text"], "echo: well?");
    world.shut_down();
}

fn a_lost_socket_is_bound_anew_and_the_turn_goes_on(runtime: &str) {
    let mut world = one_agent(runtime);
    let worker = world.worker("a");
    let sending = world.sending("a", "c", "[[hold x]] think");
    asked(&world, "think", 1);
    world.kill_supervisor();
    let turn = ended(&world, sending).event("accepted")["turn"].as_u64().unwrap();
    let socket = world.state().join("run/agents/a.sock");
    fs::remove_file(&socket).unwrap();
    // It looks with each beat, every two seconds while something runs.
    until("the socket to be bound anew", LIMIT, || world.story(), || socket.exists().then_some(()));
    world.run();
    world.wait_ps("a", "the worker to be taken over", |row| row["state"] == "busy" && row["pid"] == worker);
    world.model.release("x");
    let story = story_of(&world, turn);
    assert_eq!((&story["answer"], story["attempts"].as_array().map(Vec::len)), (&"echo: think".into(), Some(1)));
    assert_eq!(world.model.count_prompt("think"), 1);
    world.shut_down();
}
