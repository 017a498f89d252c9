//! Environment, descriptors, modes, and the lock of one agent's worker.

use super::{agent_dir, environment, open_files};
use crate::binaries;
use crate::scenes::{asked, codex_pid, ended, on, on_both_runtimes, one_agent, world};
use cofferdam_tests::processes;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

on_both_runtimes!(a_codex_child_has_the_environment_of_the_list_and_no_other, nobody_holds_what_is_anothers);

fn a_codex_child_has_the_environment_of_the_list_and_no_other(runtime: &str) {
    let world = world()
        .agent("a", &format!("{}\nenv = {{ COLOUR = \"blue\" }}", on(runtime)))
        .agent("b", &format!("{}\nenv_pass = [\"NO_COLOR\"]\nhome = \"real\"", on(runtime)))
        .start();
    let sending = ["a", "b"].map(|agent| world.sending(agent, "c", &format!("[[hold x]] look-{agent}")));
    asked(&world, "look-a", 1);
    asked(&world, "look-b", 1);
    // The supervisor itself has one variable that is on no list.
    assert!(environment(world.pid()).contains_key("NO_COLOR"));
    let names = |agent: &str| {
        let mut found = environment(codex_pid(&world, agent));
        // Set by the wrapper of the namespace, for those inside.
        found.remove("PWD");
        found
    };
    let (a, b) = (names("a"), names("b"));
    let list = ["CODEX_HOME", "COFFERDAM_CHILD", "HOME", "LANG", "PATH", "REAL_HOME", "STANDIN_KEY", "TMPDIR", "TZ"];
    let with = |more: &[&'static str]| list.iter().chain(more).copied().collect::<BTreeSet<_>>();
    let have = |found: &BTreeMap<String, String>| found.keys().cloned().collect::<BTreeSet<_>>();
    let owned = |names: BTreeSet<&str>| names.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(have(&a), owned(with(&["COLOUR"])));
    assert_eq!(have(&b), owned(with(&["NO_COLOR"])));
    let home = agent_dir(&world, "a");
    assert_eq!(a["HOME"], home.join("home").display().to_string());
    assert_eq!(a["CODEX_HOME"], home.join("codex-home").display().to_string());
    assert_eq!(b["HOME"], world.root().join("home").display().to_string());
    // A worker needs nothing of it.
    assert!(!environment(world.worker("a")).contains_key("STANDIN_KEY"));
    assert!(!environment(world.worker("a")).contains_key("NO_COLOR"));
    world.model.release("x");
    for child in sending {
        ended(&world, child);
    }
    world.shut_down();
}

fn nobody_holds_what_is_anothers(runtime: &str) {
    let world = world().agent("a", &on(runtime)).agent("b", &on(runtime)).start();
    let sending = world.sending("a", "c", "[[hold x]] look");
    asked(&world, "look", 1);
    let state = world.state().display().to_string();
    let supervisors = open_files(world.pid());
    assert!(supervisors.iter().any(|file| file.ends_with("ledger.db")), "the look finds files: {supervisors:?}");
    let (dir, socket) = (agent_dir(&world, "a"), world.state().join("run/agents/a.sock"));
    let worker = open_files(world.worker("a"));
    assert!(worker.contains(&socket.display().to_string()), "the look finds sockets: {worker:?}");
    let ours = |file: &&String| file.starts_with(&state);
    for file in worker.iter().filter(ours) {
        assert!(Path::new(file).starts_with(&dir) || Path::new(file) == socket, "the worker holds {file}");
    }
    for pid in world.codex_processes() {
        for file in open_files(pid).iter().filter(ours) {
            let mine = ["codex-home", "home"].iter().any(|part| Path::new(file).starts_with(dir.join(part)));
            assert!(mine, "{} holds {file}", processes::command_line(pid));
        }
    }
    world.model.release("x");
    ended(&world, sending);
    world.shut_down();
}

/// Everything below `dir` but what Codex and its tools make for themselves.
fn ours(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        found.push(path.clone());
        let name = entry.file_name();
        let theirs = name == "codex-home" || name == "tmp" || name == "workspace";
        if theirs {
            found.push(path.join("config.toml"));
        } else if entry.file_type().unwrap().is_dir() {
            ours(&path, found);
        }
    }
}

#[test]
fn everything_in_the_state_is_private() {
    let telegram = cofferdam_tests::standin::telegram::TelegramServer::start().unwrap();
    telegram.bot("1:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "bot");
    let world = world()
        .agent("a", &on("codex"))
        .agent("b", &on("codex-cli"))
        .bot("bot", "a", "1:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", &telegram, 7)
        .start();
    let long = "word ".repeat(80_000);
    assert_eq!(world.cli_with(&["send", "a", "-"], &long).code, 0);
    assert_eq!(world.send("b", "c", "hi")["outcome"], "completed");
    let mut found = vec![world.state()];
    ours(&world.state(), &mut found);
    assert!(found.len() > 20, "the look finds things: {found:?}");
    for path in found {
        let Ok(data) = fs::symlink_metadata(&path) else { continue };
        if data.file_type().is_symlink() {
            continue;
        }
        let wanted = if data.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(data.mode() & 0o777, wanted, "{} {:o}", path.display(), data.mode());
    }
    for socket in ["run/control.sock", "run/agents/a.sock"] {
        assert!(fs::metadata(world.state().join(socket)).unwrap().file_type().is_socket());
    }
    world.shut_down();
}

/// Every file of an agent with its size and time.
fn inventory(dir: &Path) -> BTreeMap<PathBuf, (u64, SystemTime, u64)> {
    let mut all = Vec::new();
    ours(dir, &mut all);
    let data = all.into_iter().filter_map(|path| Some((path.clone(), fs::symlink_metadata(path).ok()?)));
    data.map(|(path, data)| (path, (data.len(), data.modified().unwrap(), data.ino()))).collect()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a worker that nobody asked for is started by hand")]
fn a_second_worker_of_an_agent_leaves_and_touches_nothing() {
    let world = one_agent("codex");
    let (worker, dir) = (world.worker("a"), agent_dir(&world, "a"));
    let socket = world.state().join("run/agents/a.sock");
    let before = (inventory(&dir), fs::metadata(&socket).unwrap().ino());
    let uid = nix::unistd::getuid().to_string();
    let second = std::process::Command::new(binaries().worker)
        .args(["--agent", "a", "--incarnation", "99", "--supervisor-uid", &uid, "--agent-dir"])
        .arg(&dir)
        .arg("--socket")
        .arg(&socket)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(75), "{second:?}");
    assert!(told.contains("another worker serves this agent") && second.stdout.is_empty(), "{second:?}");
    assert_eq!((inventory(&dir), fs::metadata(&socket).unwrap().ino()), before);
    assert_eq!(world.send("a", "c", "you?")["text"], "echo: you?");
    assert_eq!(world.worker("a"), worker);
    world.shut_down();
}
