//! The supervisor dies at each arrow of a worker's birth: intent, process, record, hello, record, ready. The next one goes on
//! with the worker that came of it, and there is never a second one.

use super::{change, is_recorded, program, programs, recorded, with_script, workers_of};
use cofferdam_tests::processes::is_alive;
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::World;

/// Looks that must all find that the worker is not ready: each is a whole command.
const LOOKS: usize = 10;

/// The next supervisor serves the agent by this worker, or by a fresh one if there is none; one process in the end.
fn goes_on(world: &mut World, worker: Option<u32>) {
    world.run();
    world.wait_ready();
    let now = world.worker("a");
    if let Some(worker) = worker {
        assert_eq!(now, worker, "{}", world.story());
    }
    assert_eq!(workers_of(world), [now]);
    assert_eq!(world.send("a", "c", "well?")["text"], "echo: well?");
}

/// Waits until the supervisor has been killed by its own worker's script.
fn died(world: &mut World) {
    assert_eq!(world.wait_ended(), None, "it was killed: {}", world.story());
}

#[test]
fn after_the_intent_and_before_the_process() {
    let dir = programs();
    let mut world = with_script(dir.path(), "codex", "kill -9 $PPID; exit 1");
    world.run();
    died(&mut world);
    assert!(recorded(&world, "nonce").is_some(), "the intent was committed before the process was started");
    assert_eq!(recorded(&world, "protocol"), None);
    // Nothing of a process is known: as if the supervisor had died before the spawn.
    change(&world, "boot = NULL, pid = NULL, pidfd_inode = NULL, started = NULL");
    let before = recorded(&world, "incarnation");
    program(&dir.path().join("worker"), &format!("exec {} \"$@\"", crate::binaries().worker.display()));
    goes_on(&mut world, None);
    assert_ne!(recorded(&world, "incarnation"), before, "a run is never given twice");
    world.shut_down();
}

#[test]
fn after_the_process_and_before_its_record() {
    let dir = programs();
    // The mark is taken by the first worker: it kills the supervisor with its first breath, and lives on.
    let script = "mkdir \"$6/first\" 2>/dev/null && kill -9 $PPID\nexec $REAL \"$@\"";
    let mut world = with_script(dir.path(), "codex", script);
    world.run();
    died(&mut world);
    let worker = until("the worker", LIMIT, || world.story(), || workers_of(&world).first().copied());
    goes_on(&mut world, Some(worker));
    world.shut_down();
}

#[test]
fn after_the_record_of_the_process_and_before_its_hello() {
    let dir = programs();
    let go = dir.path().join("go");
    let script = format!("until [ -e {} ]; do sleep 0.02; done\nexec $REAL \"$@\"", go.display());
    let mut world = with_script(dir.path(), "codex", &script);
    world.run();
    let worker: u32 = is_recorded(&world, "pid").parse().unwrap();
    world.kill_supervisor();
    assert_eq!(workers_of(&world), [worker]);
    assert_eq!(recorded(&world, "protocol"), None);
    std::fs::write(&go, "").unwrap();
    goes_on(&mut world, Some(worker));
    world.shut_down();
}

#[test]
fn after_the_hello_and_before_its_record_nobody_is_ready() {
    let dir = programs();
    let go = dir.path().join("go");
    let script = format!("until [ -e {} ]; do sleep 0.02; done\nexec $REAL \"$@\"", go.display());
    let mut world = with_script(dir.path(), "codex", &script);
    world.run();
    let worker: u32 = is_recorded(&world, "pid").parse().unwrap();
    // A shell with an open transaction: nothing can be committed.
    let shell = rusqlite::Connection::open(world.state().join("ledger.db")).unwrap();
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();
    std::fs::write(&go, "").unwrap();
    let socket = world.state().join("run/agents/a.sock");
    until("the worker to listen", LIMIT, || world.story(), || socket.exists().then_some(()));
    for _ in 0..LOOKS {
        assert_eq!(world.ps("a")["state"], "starting", "ready before its record\n{}", world.story());
    }
    world.kill_supervisor();
    shell.execute_batch("ROLLBACK").unwrap();
    assert_eq!(recorded(&world, "protocol"), None);
    goes_on(&mut world, Some(worker));
    assert!(recorded(&world, "protocol").is_some());
    world.shut_down();
}

#[test]
fn after_the_record_of_the_hello() {
    let dir = programs();
    let mut world = with_script(dir.path(), "codex", "exec $REAL \"$@\"");
    world.run();
    is_recorded(&world, "protocol");
    world.kill_supervisor();
    let worker: u32 = recorded(&world, "pid").unwrap().parse().unwrap();
    assert!(is_alive(worker));
    goes_on(&mut world, Some(worker));
    world.shut_down();
}
