//! What a tool of one agent can reach: not the state, not the control socket, not the processes of anybody else.

use super::agent_dir;
use crate::binaries;
use crate::scenes::{asked, codex_pid, ended, on, on_both_runtimes, world};
use cofferdam_tests::processes::is_alive;
use cofferdam_tests::world::World;
use std::fs;

on_both_runtimes!(a_tool_sees_its_own_agent_alone, a_tool_that_kills_everything_kills_its_own_turn_alone);

fn pair(runtime: &str) -> World {
    world().agent("a", &on(runtime)).agent("b", &on(runtime)).start()
}

fn a_tool_sees_its_own_agent_alone(runtime: &str) {
    let world = pair(runtime);
    assert_eq!(world.send("b", "c", "a secret of b")["outcome"], "completed");
    let (state, work) = (world.state(), world.workspace("a"));
    // The command line in the hands of a tool: the configuration is masked, so it brings its own.
    let config = work.join("own.toml");
    fs::write(
        &config,
        fs::read_to_string(world.config()).unwrap().replace("\"s\"", &format!("\"{}\"", state.display())),
    )
    .unwrap();
    let ask = format!("{} --config {} ps", binaries().supervisor.display(), config.display());
    let script = work.join("look.sh");
    let look = format!(
        "exec > {work}/seen 2>&1\nls -A {state} {state}/agents {state}/run\ncat {world_config} {state}/ledger.db\n\
         cat {state}/agents/b/log/worker.log {state}/agents/a/journal {state}/agents/a/lock\nls {state}/agents/a\n{ask}\necho exit=$?\n",
        work = work.display(),
        state = state.display(),
        world_config = world.config().display(),
    );
    fs::write(&script, look).unwrap();
    let end = world.send("a", "c", &format!("[[tool sh {}]] look", script.display()));
    assert_eq!(end["outcome"], "completed", "{end}");
    let seen = fs::read_to_string(work.join("seen")).unwrap();
    for hidden in ["ledger.db-wal", "control.lock", "a secret of b", "[agents.b]", "link up"] {
        assert!(!seen.contains(hidden), "a tool saw {hidden:?}:\n{seen}");
    }
    assert!(seen.contains("codex-home") && seen.contains("home"), "its own homes are there:\n{seen}");
    assert!(seen.contains("exit=69"), "it reached the supervisor:\n{seen}");
    // The same words reach it from outside, so that the look above could fail.
    let outside = world.command(&["ps"]).output().unwrap();
    assert_eq!(outside.status.code(), Some(0));
    assert!(agent_dir(&world, "b").join("log/worker.log").exists());
    world.shut_down();
}

fn a_tool_that_kills_everything_kills_its_own_turn_alone(runtime: &str) {
    let world = pair(runtime);
    let sending = world.sending("b", "c", "[[hold x]] beside");
    asked(&world, "beside", 1);
    let pids = [world.pid(), world.worker("a"), world.worker("b"), codex_pid(&world, "b")];
    let end = world.send("a", "c", "[[tool kill -9 -1]] rage");
    assert_eq!(end["class"], "codex_exit", "{end}");
    assert!(pids.into_iter().all(is_alive), "{pids:?}\n{}", world.story());
    assert_eq!((world.worker("a"), world.worker("b")), (pids[1], pids[2]));
    world.model.release("x");
    assert_eq!(ended(&world, sending).event("finished")["text"], "echo: beside");
    assert_eq!(world.send("a", "c", "again")["outcome"], "completed");
    world.shut_down();
}
