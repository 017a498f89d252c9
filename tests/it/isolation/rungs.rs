//! The rungs below the namespace: a Codex without its bwrap, in cgroups and without them. What a tool starts does not outlive
//! its turn, its worker, or a supervisor that is not its parent.

use super::group_of;
use crate::scenes::{appears, asked, ended, nappers, on, on_both_runtimes, restless, swept_within, world};
use cofferdam_tests::codex::native_codex;
use cofferdam_tests::processes::{is_alive, kill9};
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::World;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

on_both_runtimes!(
    nothing_outlives_its_turn_without_a_namespace,
    a_killed_worker_leaves_nothing_although_its_supervisor_adopted_it
);

/// A Codex that has no bwrap beside it: a script that becomes the real one.
fn bare_codex() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::Builder::new().prefix("cfd-").tempdir_in("/var/tmp").unwrap();
    let path = dir.path().join("bin/codex");
    fs::create_dir(path.parent().unwrap()).unwrap();
    let script = |path: &Path, text: &str| {
        fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    script(&path, &format!("exec {} \"$@\"", native_codex().display()));
    script(&path.with_file_name("bwrap"), "echo no namespaces here >&2; exit 1");
    (dir, path)
}

/// The rungs that this host has without namespaces, as the configuration asks for them and as `ps` tells them.
fn rungs() -> Vec<(&'static str, &'static str)> {
    let mut rungs = vec![("none", "best-effort")];
    let state = tempfile::tempdir().unwrap();
    // Where no group can be had there is no such rung: the first test of `limits` holds `doctor` to that.
    if supervisor::process::cgroup::Groups::find(&supervisor::process::cgroup::Wish::Auto, state.path()).is_ok() {
        rungs.push(("auto", "cgroup"));
    }
    rungs
}

fn bare(runtime: &str, cgroup: &str) -> (tempfile::TempDir, World) {
    let (dir, codex) = bare_codex();
    // A bwrap of the host is not found either: the first on PATH is one that fails.
    let bin = codex.parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let lines = format!("{}\nenv = {{ PATH = {path:?} }}", on(runtime));
    let world = world().codex(&codex).top(&format!("cgroup = \"{cgroup}\"")).agent("a", &lines).start();
    (dir, world)
}

fn nothing_outlives_its_turn_without_a_namespace(runtime: &str) {
    for (cgroup, rung) in rungs() {
        let (_codex, world) = bare(runtime, cgroup);
        assert_eq!(world.send("a", "c", "hi")["outcome"], "completed", "{}", world.story());
        assert_eq!(world.ps("a")["isolation"], rung);
        let flag = world.workspace("a").join("flag");
        let sending = world.sending("a", "c", &restless(&world, &flag));
        appears(&world, &flag);
        until("the tool's processes", LIMIT, || world.story(), || (nappers(&world).len() >= 4).then_some(()));
        let groups: Vec<PathBuf> = nappers(&world).into_iter().map(group_of).collect();
        let grouped =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("child-"));
        assert!(groups.iter().all(|path| grouped(path) == (rung == "cgroup")), "{groups:?}");
        assert_eq!(world.cli(&["kill", "a"]).code, 0);
        swept_within(&world, LIMIT);
        ended(&world, sending);
        let left: Vec<&PathBuf> = groups.iter().filter(|path| grouped(path) && path.exists()).collect();
        assert!(left.is_empty(), "{left:?}");
        world.shut_down();
    }
}

fn a_killed_worker_leaves_nothing_although_its_supervisor_adopted_it(runtime: &str) {
    for (cgroup, rung) in rungs() {
        let (_codex, mut world) = bare(runtime, cgroup);
        let flag = world.workspace("a").join("flag");
        let sending = world.sending("a", "c", &restless(&world, &flag));
        appears(&world, &flag);
        until("the tool's processes", LIMIT, || world.story(), || (nappers(&world).len() >= 4).then_some(()));
        let worker = world.worker("a");
        world.kill_supervisor();
        drop(sending.wait_with_output());
        world.run();
        world.wait_ps("a", "the worker to be adopted", |row| row["pid"] == worker && row["state"] != "adopting");
        assert!(is_alive(worker) && nappers(&world).len() >= 4, "{}", world.story());
        // The worker is no child of this supervisor, and its tools are no children of anybody whom it knows.
        kill9(worker);
        swept_within(&world, LIMIT);
        world.wait_ps("a", "another worker", |row| row["state"] == "ready" && row["pid"] != worker);
        let end = world.send("a", "d", "again");
        assert_eq!(end["text"], "echo: again", "{rung}: {}", world.story());
        asked(&world, "again", 1);
        world.shut_down();
    }
}
