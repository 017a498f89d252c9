//! Nothing grows: fifty runs of a worker leave no descriptor, no file and no process behind.

use super::{agent_dir, open_files};
use crate::scenes::{on, world};
use cofferdam_tests::processes;
use cofferdam_tests::wait::{LIMIT, until};
use std::fs;

const RESTARTS: usize = 50;

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().count()
}

#[test]
fn fifty_restarts_leave_nothing_open() {
    let world = world().agent("a", &on("codex")).agent("b", &on("codex")).start();
    let restart = || assert_eq!(world.cli(&["restart", "a"]).code, 0, "{}", world.story());
    restart();
    let (supervisor, b) = (world.pid(), world.worker("b"));
    let (before, files) = (descriptors(supervisor), fs::read_dir(agent_dir(&world, "a")).unwrap().count());
    for _ in 0..RESTARTS {
        restart();
    }
    let story = || format!("{before} before, {:?}\n{}", open_files(supervisor), world.story());
    until("the descriptors of before", LIMIT, story, || (descriptors(supervisor) <= before).then_some(()));
    assert_eq!(fs::read_dir(agent_dir(&world, "a")).unwrap().count(), files);
    // The supervisor and two workers; nothing of the fifty, zombies included.
    let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap_or_default();
    let mark = world.root().display().to_string();
    assert_eq!(processes::marked(&mark).len(), 3, "{:?}", processes::marked(&mark));
    assert!(children.split_whitespace().count() <= 2, "{children}");
    assert_eq!((world.worker("b"), &world.ps("a")["restarts"]), (b, &0.into()));
    assert_eq!(world.ps("a")["incarnation"].as_u64(), Some(3 + RESTARTS as u64), "each run has a number of its own");
    world.shut_down();
}
