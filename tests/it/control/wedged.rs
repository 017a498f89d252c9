//! Control commands while one worker is stopped by SIGSTOP and another floods: they answer.

use crate::scenes::{asked, on, world};
use cofferdam_tests::processes::{is_alive, signal, state};
use cofferdam_tests::wait::{LIMIT, until};
use nix::sys::signal::Signal;

#[test]
fn commands_answer_beside_a_stopped_worker_and_a_flood() {
    let world = world()
        .agent("still", &format!("{}\nstop_grace = \"1s\"\nheartbeat_timeout = \"10m\"", on("codex")))
        .agent("flood", &on("codex"))
        .agent("calm", &on("codex"))
        .start();
    let still = world.worker("still");
    let held = world.sending("still", "c", "[[hold x]] held");
    asked(&world, "held", 1);
    signal(still, Signal::SIGSTOP);
    until("the worker to be stopped", LIMIT, || world.story(), || (state(still) == Some('T')).then_some(()));
    let flood = world.sending("flood", "c", "[[slow 200000x1ms]] flood");
    asked(&world, "flood", 1);
    let health = world.cli(&["health", "--json"]);
    assert_eq!(health.code, 0, "{health:?}");
    assert_eq!(world.ps("flood")["state"], "busy");
    assert_eq!(world.ps("still")["state"], "busy");
    assert_eq!(world.send("calm", "c", "you?")["text"], "echo: you?");
    assert_eq!(world.cli(&["queue", "still"]).code, 0);
    assert_eq!(world.cli(&["turns", "show", "1"]).code, 0);
    assert_eq!(state(still), Some('T'), "it was stopped all the time");
    let killed = world.cli(&["kill", "flood"]);
    assert_eq!((killed.code, &world.ps("flood")["state"]), (0, &"down".into()), "{killed:?}");
    let stopped = world.cli(&["kill", "still"]);
    assert_eq!((stopped.code, &world.ps("still")["state"]), (0, &"down".into()), "{stopped:?}");
    assert!(!is_alive(still));
    for mut child in [held, flood] {
        until("the end of send", LIMIT, || world.story(), || child.try_wait().unwrap());
    }
    world.shut_down();
}

#[test]
fn stop_ends_a_worker_that_does_not_react() {
    let world = world().agent("a", &format!("{}\nstop_grace = \"500ms\"", on("codex"))).start();
    let worker = world.worker("a");
    signal(worker, Signal::SIGSTOP);
    let stopped = world.cli(&["stop", "a"]);
    assert_eq!((stopped.code, &world.ps("a")["state"]), (0, &"down".into()), "{stopped:?}\n{}", world.story());
    assert!(!is_alive(worker));
    world.shut_down();
}
