//! A user for an agent: its worker and tools are that user, without a namespace they still see nobody else, and a supervisor
//! of root is not led elsewhere by what that user puts into its own folder.
//!
//! Only root can give users. Where the tests are not root's they hold `check` to its refusal.

use super::agent_dir;
use crate::binaries;
use crate::scenes::{appears, asked, ended, nappers, on, on_both_runtimes, restless, swept_within, world};
use cofferdam_tests::codex::native_codex;
use cofferdam_tests::processes::{is_alive, kill9};
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::World;
use nix::unistd::{User, geteuid};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

on_both_runtimes!(
    a_tool_is_its_agents_user_and_sees_nobody_else,
    a_worker_of_another_user_is_adopted_killed_and_swept,
    a_link_in_the_agents_folder_leads_root_nowhere
);

/// Users that every host has and that own nothing: of agent `a`, and of agent `b`.
const USERS: [&str; 2] = ["nobody", "daemon"];

fn uid(user: &str) -> u32 {
    User::from_name(user).unwrap().unwrap().uid.as_raw()
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A Codex without its bwrap, in a folder that everybody passes: a script that becomes the real one.
fn bare_codex() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::Builder::new().prefix("cfd-").tempdir_in("/var/tmp").unwrap();
    mode(dir.path(), 0o711);
    let mut native = native_codex();
    if native.ancestors().skip(1).any(|above| fs::metadata(above).is_ok_and(|data| data.mode() & 1 == 0)) {
        let ours = dir.path().join("native");
        fs::hard_link(&native, &ours).or_else(|_| fs::copy(&native, &ours).map(drop)).unwrap();
        native = ours;
    }
    for (name, text) in [("codex", format!("exec {} \"$@\"", native.display())), ("bwrap", "exit 1".to_owned())] {
        fs::write(dir.path().join(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        mode(&dir.path().join(name), 0o755);
    }
    let codex = dir.path().join("codex");
    (dir, codex)
}

/// Agents `a` and `b` of a user each, `c` of ours; none has a namespace. Not started yet.
fn fleet(runtime: &str) -> (tempfile::TempDir, World) {
    let (dir, codex) = bare_codex();
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let lines = format!("{}\nenv = {{ PATH = {path:?} }}", on(runtime));
    let of = |user: &str| format!("{lines}\nuser = \"{user}\"");
    let world = world().codex(&codex).agent("a", &of(USERS[0])).agent("b", &of(USERS[1])).agent("c", &lines).build();
    mode(world.root(), 0o711);
    for (agent, user) in ["a", "b"].into_iter().zip(USERS) {
        let owner = geteuid().is_root().then(|| uid(user));
        chown(world.workspace(agent), owner, None).unwrap();
        mode(&world.workspace(agent), 0o700);
    }
    (dir, world)
}

fn started(runtime: &str) -> Option<(tempfile::TempDir, World)> {
    let (dir, mut world) = fleet(runtime);
    if !geteuid().is_root() {
        let ran = world.cli(&["check"]);
        assert!(ran.code == 78 && ran.stderr.contains("only a supervisor of root"), "{ran:?}");
        return None;
    }
    world.run();
    world.wait_ready();
    Some((dir, world))
}

/// A line of a process' status, its words.
fn status(pid: u32, name: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().map(str::to_owned).collect()
}

fn a_tool_is_its_agents_user_and_sees_nobody_else(runtime: &str) {
    let Some((_codex, world)) = started(runtime) else { return };
    for agent in ["b", "c"] {
        assert_eq!(world.send(agent, "c", "a secret of theirs")["text"], "echo: a secret of theirs");
    }
    let (state, work) = (world.state(), world.workspace("a"));
    let config = work.join("own.toml");
    let text = fs::read_to_string(world.config()).unwrap();
    fs::write(&config, text.replace("\"s\"", &format!("\"{}\"", state.display()))).unwrap();
    let pids = [world.pid(), world.worker("b"), world.worker("c")];
    let [supervisor, b, c] = pids;
    let look = format!(
        "exec > {work}/seen 2>&1\nid -u\nid -G\nls {state} {state}/agents {state}/run {state}/run/agents {state}/agents/b {state}/agents/c\n\
         cat {state}/ledger.db {state}/agents/b/log/worker.log {state}/agents/c/journal {whole}\ntouch {state}/agents/b/x {state}/x\n\
         kill -9 {supervisor} {b} {c}\n{binary} --config {work}/own.toml ps\necho exit=$?\n",
        work = work.display(),
        state = state.display(),
        whole = world.config().display(),
        binary = binaries().supervisor.display(),
    );
    fs::write(work.join("look.sh"), look).unwrap();
    for file in ["own.toml", "look.sh"] {
        mode(&work.join(file), 0o644);
    }
    let end = world.send("a", "c", &format!("[[tool sh {}/look.sh]] look", work.display()));
    assert_eq!(end["outcome"], "completed", "{end}\n{}", world.story());
    let seen = fs::read_to_string(work.join("seen")).unwrap();
    let lines: Vec<&str> = seen.lines().collect();
    let gid = User::from_name(USERS[0]).unwrap().unwrap().gid.to_string();
    assert_eq!((lines[0], lines[1]), (uid(USERS[0]).to_string().as_str(), gid.as_str()), "{seen}");
    for hidden in ["ledger.db-wal", "codex-home", "control.lock", "secret of theirs", "[agents.b]", "SQLite", "exit=0"]
    {
        assert!(!seen.contains(hidden), "a tool saw {hidden:?}:\n{seen}");
    }
    assert!(seen.matches("denied").count() >= 12 && seen.contains("ot permitted"), "{seen}");
    assert!(pids.into_iter().all(is_alive), "{}", world.story());
    // The same words reach it from outside.
    assert_eq!(world.command(&["ps"]).output().unwrap().status.code(), Some(0));
    for (agent, user) in ["a", "b"].into_iter().zip(USERS) {
        let (worker, id) = (world.worker(agent), uid(user).to_string());
        assert_eq!(status(worker, "Uid:"), vec![id; 4]);
        assert_eq!((status(worker, "Groups:"), status(worker, "CapEff:")), (vec![], vec!["0".repeat(16)]));
        for path in ["", "log/worker.stderr", "journal", "home", "codex-home/config.toml"] {
            let data = fs::metadata(agent_dir(&world, agent).join(path)).unwrap();
            assert_eq!((data.uid(), data.mode() & 0o077), (uid(user), 0), "{agent}/{path}");
        }
    }
    // A long text comes and goes by files of that user.
    let long = "word ".repeat(80_000);
    let ran = world.cli_with(&["send", "a", "-"], &long);
    assert!(ran.code == 0 && ran.stdout.contains(long.trim_end()), "{}: {}", ran.code, ran.stderr);
    world.shut_down();
}

fn a_worker_of_another_user_is_adopted_killed_and_swept(runtime: &str) {
    let Some((_codex, mut world)) = started(runtime) else { return };
    let sending = world.sending("a", "c", "[[hold x]] think");
    asked(&world, "think", 1);
    let worker = world.worker("a");
    world.kill_supervisor();
    let turn = ended(&world, sending).event("accepted")["turn"].as_u64().unwrap();
    world.run();
    world.wait_ps("a", "the worker to be adopted", |row| row["pid"] == worker && row["state"] != "adopting");
    world.model.release("x");
    assert_eq!(crate::scenes::story_of(&world, turn)["answer"], "echo: think");
    assert_eq!(world.cli(&["restart", "a"]).code, 0);
    world.wait_ps("a", "a restarted worker", |row| row["state"] == "ready" && row["pid"] != worker);
    let flag = world.workspace("a").join("flag");
    let sending = world.sending("a", "d", &restless(&world, &flag));
    appears(&world, &flag);
    until("the tool's processes", LIMIT, || world.story(), || (nappers(&world).len() >= 4).then_some(()));
    let worker = world.worker("a");
    kill9(worker);
    swept_within(&world, LIMIT);
    ended(&world, sending);
    world.wait_ps("a", "another worker", |row| row["state"] == "ready" && row["pid"] != worker);
    assert_eq!(world.cli(&["kill", "a"]).code, 0);
    assert_eq!(world.cli(&["start", "a"]).code, 0);
    assert_eq!(world.send("a", "e", "again")["text"], "echo: again", "{}", world.story());
    world.shut_down();
}

fn a_link_in_the_agents_folder_leads_root_nowhere(runtime: &str) {
    let Some((_codex, world)) = started(runtime) else { return };
    let (victim, dir) = (world.root().join("victim"), agent_dir(&world, "a"));
    fs::create_dir(&victim).unwrap();
    for name in ["prompt-1", "prompt-2", "steer-2-2"] {
        fs::write(victim.join(name), "ours").unwrap();
    }
    let inventory = || {
        let names = fs::read_dir(&victim).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut all: Vec<(String, String)> =
            names.map(|name| (name.clone(), fs::read_to_string(victim.join(name)).unwrap())).collect();
        all.sort();
        all
    };
    let before = inventory();
    let script = format!(
        "cd {dir} && mv log log.old && ln -s {victim} log && ln -s {victim} texts && echo done",
        dir = dir.display(),
        victim = victim.display()
    );
    assert_eq!(world.send("a", "c", &format!("[[tool {script}]] hide"))["outcome"], "completed");
    assert!(fs::read_link(dir.join("log")).is_ok() && fs::read_link(dir.join("texts")).is_ok());
    // A long prompt is not written through the link, and neither is what the acknowledgement would remove.
    let ran = world.cli_with(&["send", "a", "-"], &"word ".repeat(80_000));
    assert!(ran.stdout.contains("cut here"), "{ran:?}");
    assert_eq!(inventory(), before);
    assert_eq!(world.cli(&["kill", "a"]).code, 0);
    world.cli(&["start", "a"]);
    world.wait_ps("a", "the refusal to be told", |row| {
        row["last_error"]["text"].as_str().is_some_and(|text| text.contains("log is a link or no folder"))
    });
    assert_eq!(inventory(), before);
    // Nobody else notices, and with the link removed the agent works.
    assert_eq!(world.send("b", "c", "you?")["text"], "echo: you?");
    for link in ["log", "texts"] {
        fs::remove_file(dir.join(link)).unwrap();
    }
    world.cli(&["restart", "a"]);
    world.wait_ps("a", "a worker", |row| row["state"] == "ready");
    assert_eq!(world.send("a", "d", "back")["text"], "echo: back");
    world.shut_down();
}

#[test]
fn check_says_which_user_cannot_be_had_and_what_it_cannot_reach() {
    let (_codex, world) = fleet("codex");
    if !geteuid().is_root() {
        return;
    }
    assert_eq!(world.cli(&["check"]).code, 0);
    let text = fs::read_to_string(world.config()).unwrap();
    let refused = |from: &str, to: &str, words: &[&str]| {
        world.write_config(&text.replacen(from, to, 1));
        let ran = world.cli(&["check"]);
        let told = format!("{}{}", ran.stdout, ran.stderr);
        assert!(ran.code != 0 && words.iter().all(|word| told.contains(word)), "{to}: {told}");
    };
    refused("\"nobody\"", "\"nobody-at-all\"", &["this host has no user", "useradd"]);
    refused("\"nobody\"", "\"4000000000\"", &["this host has no user"]);
    for root in ["root", "0"] {
        refused("\"nobody\"", &format!("\"{root}\""), &["an agent cannot run as root"]);
    }
    refused("work-a\"", "work-b\"", &["cannot use the workspace", "chown"]);
    fs::create_dir_all(world.root().join("home/.codex")).unwrap();
    fs::write(world.root().join("home/.codex/auth.json"), "{}").unwrap();
    mode(&world.root().join("home/.codex/auth.json"), 0o600);
    refused(
        "user = \"nobody\"",
        "user = \"nobody\"\nauth = \"shared\"",
        &["cannot read the shared login", "cofferdam login a"],
    );
    mode(world.root(), 0o700);
    refused("\"nobody\"", "\"nobody\"", &["cannot pass to", "/var/lib/cofferdam"]);
    mode(world.root(), 0o711);
    world.write_config(&text.replacen("\"daemon\"", "\"nobody\"", 1).replacen("work-b\"", "work-a\"", 1));
    let ran = world.cli(&["check"]);
    assert!(format!("{}{}", ran.stdout, ran.stderr).contains("run as one user, nobody"), "{ran:?}");
}
