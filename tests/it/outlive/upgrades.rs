//! `cofferdam upgrade` under running turns: nothing lost, nothing repeated, workers follow as they fall idle.

use super::{as_release, program, programs};
use crate::binaries;
use crate::scenes::{asked, is_end, on, post, story_of};
use cofferdam_tests::processes::is_alive;
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::{Binaries, Ran, World};
use nix::sys::signal::Signal;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use tempfile::TempDir;

/// Conversations of each agent with a turn in flight.
const TURNS: usize = 3;

/// Agents of both runtimes with turns in flight, and one that is idle, all of the release `old`.
struct Fleet {
    world: World,
    dir: TempDir,
    turns: Vec<(u64, String)>,
}

impl Fleet {
    fn of(old: &str) -> Self {
        let dir = programs();
        let worker = as_release(&dir.path().join("worker"), &binaries().worker, old);
        let supervisor = as_release(&dir.path().join("supervisor"), &binaries().supervisor, old);
        let world = World::builder(Binaries { supervisor, worker })
            .agent("app", &on("codex"))
            .agent("exec", &on("codex-cli"))
            .agent("idle", &on("codex"))
            .start();
        let mut turns = Vec::new();
        for agent in ["app", "exec"] {
            for at in 0..TURNS {
                let prompt = format!("{agent}-{at}-think");
                turns.push((post(&world, agent, &format!("c{at}"), &format!("[[hold x]] {prompt}")), prompt.clone()));
                asked(&world, &prompt, 1);
            }
        }
        Self { world, dir, turns }
    }

    /// Installs the release `new`; gives the program of its supervisor.
    fn install(&self, new: &str) -> PathBuf {
        as_release(&self.dir.path().join("worker"), &binaries().worker, new);
        as_release(&self.dir.path().join("supervisor-new"), &binaries().supervisor, new)
    }

    /// Every turn was answered by its one attempt, for which the model was asked once.
    fn nothing_was_lost_or_repeated(&self) {
        for (turn, prompt) in &self.turns {
            let story = story_of(&self.world, *turn);
            assert_eq!(story["answer"], format!("echo: {prompt}"), "{story:#}\n{}", self.world.story());
            assert_eq!(story["attempts"].as_array().map(Vec::len), Some(1), "{story:#}");
            assert_eq!(self.world.model.count_prompt(prompt), 1, "{}", self.world.model.story());
        }
    }

    fn in_flight(&self) -> usize {
        let open = |turn: &u64| !is_end(self.world.turn(*turn)["row"]["state"].as_str().unwrap());
        self.turns.iter().filter(|(turn, _)| open(turn)).count()
    }
}

fn upgrading(world: &World, program: &Path) -> Child {
    let program = program.display().to_string();
    world
        .command(&["upgrade", "--binary", &program])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn done(world: &World, mut child: Child) -> Ran {
    let status = until("the end of upgrade", LIMIT * 2, || world.story(), || child.try_wait().unwrap());
    let (mut stdout, mut stderr) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    Ran { code: status.code().unwrap_or(-1), stdout, stderr }
}

/// The gap in seconds that an upgrade told; also for the reader of the test's output.
#[expect(clippy::print_stdout, reason = "a figure for the reader of the test's output")]
fn gap(ran: &Ran) -> f64 {
    let line =
        ran.stdout.lines().find(|line| line.starts_with("supervisor replaced in")).unwrap_or_else(|| panic!("{ran:?}"));
    println!("{line}");
    line.split_whitespace().nth(3).unwrap().parse().unwrap()
}

fn version(world: &World) -> String {
    world.cli(&["health", "--json"]).json()["version"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_new_build_takes_over_and_workers_follow_as_they_fall_idle() {
    let fleet = Fleet::of("1 0.1.0");
    let world = &fleet.world;
    let (supervisor, app, exec, idle) = (world.pid(), world.worker("app"), world.worker("exec"), world.worker("idle"));
    let new = fleet.install("1 0.2.0");
    let upgrade = upgrading(world, &new);
    // The idle one is replaced while the others still run what they ran.
    let row = world.wait_ps("idle", "the idle worker to be replaced", |row| {
        row["pid"] != idle && row["state"] == "ready" && row["build"] == "0.2.0"
    });
    assert_eq!(row["outdated"], false, "{row}");
    assert_eq!((world.worker("app"), world.worker("exec"), fleet.in_flight()), (app, exec, TURNS * 2));
    let busy = world.ps("app");
    assert_eq!((&busy["outdated"], &busy["build"], &busy["state"]), (&true.into(), &"0.1.0".into(), &"busy".into()));
    assert!(world.cli(&["ps"]).stdout.contains("of an earlier build, replaced as they fall idle: app, exec"));
    assert!(is_alive(supervisor) && version(world) == "0.2.0", "the same process is another program");
    world.model.release("x");
    let ran = done(world, upgrade);
    assert_eq!(ran.code, 0, "{ran:?}\n{}", world.story());
    assert!(gap(&ran) > 0.0 && ran.stdout.ends_with("workers replaced: 3 of 3; done\n"), "{ran:?}");
    fleet.nothing_was_lost_or_repeated();
    for (agent, before) in [("app", app), ("exec", exec)] {
        let row = world.wait_ps(agent, "a new worker", |row| row["state"] == "ready");
        assert!(row["pid"] != before && row["build"] == "0.2.0", "{row}");
        assert!(!is_alive(before), "its parent has reaped it");
        assert_eq!(world.send(agent, "c0", "and now?")["text"], "echo: and now?", "its thread goes on");
    }
    fleet.world.shut_down();
}

#[test]
fn a_new_protocol_drains_the_old_workers_and_takes_their_outcomes() {
    let fleet = Fleet::of("1 0.1.0");
    let world = &fleet.world;
    let app = world.worker("app");
    let upgrade = upgrading(world, &fleet.install("2 0.2.0"));
    let row = world.wait_ps("app", "the drain", |row| row["state"] == "draining");
    assert_eq!((&row["pid"], &row["outdated"]), (&app.into(), &true.into()), "{row}");
    // What comes meanwhile waits for the next worker.
    let waiting = post(world, "app", "other", "later");
    assert_eq!(fleet.in_flight(), TURNS * 2);
    world.model.release("x");
    let ran = done(world, upgrade);
    assert_eq!(ran.code, 0, "{ran:?}\n{}", world.story());
    gap(&ran);
    fleet.nothing_was_lost_or_repeated();
    assert_eq!(story_of(world, waiting)["answer"], "echo: later");
    let row = world.wait_ps("app", "a new worker", |row| row["state"] == "ready");
    assert!(row["pid"] != app && row["build"] == "0.2.0", "{row}");
    fleet.world.shut_down();
}

#[test]
fn a_restart_by_signal_does_the_same() {
    let mut fleet = Fleet::of("1 0.1.0");
    let idle = fleet.world.worker("idle");
    fleet.install("1 0.2.0");
    // As an installation over the old files, and `systemctl restart`.
    as_release(&fleet.dir.path().join("supervisor"), &binaries().supervisor, "1 0.2.0");
    assert_eq!(fleet.world.end_supervisor(Signal::SIGTERM), Some(0));
    fleet.world.run();
    let world = &fleet.world;
    world.wait_ps("idle", "the idle worker to be replaced", |row| row["pid"] != idle && row["build"] == "0.2.0");
    assert_eq!(fleet.in_flight(), TURNS * 2);
    world.model.release("x");
    fleet.nothing_was_lost_or_repeated();
    world.wait_ps("exec", "a new worker", |row| row["build"] == "0.2.0" && row["outdated"] == false);
    fleet.world.shut_down();
}

#[test]
fn a_program_that_cannot_take_over_is_refused_and_nothing_happens() {
    let fleet = Fleet::of("1 0.1.0");
    let (world, dir) = (&fleet.world, fleet.dir.path());
    let (supervisor, app) = (world.pid(), world.worker("app"));
    let real = binaries().supervisor.display().to_string();
    let cases = [
        ("broken", "echo cannot load libfoo >&2; exit 127".to_owned(), "libfoo"),
        ("foreign", "echo hello".to_owned(), "does not tell its version"),
        (
            "old",
            "echo '{\"version\":\"0.0.9\",\"protocol\":1,\"ledger\":1}'".to_owned(),
            "knows ledgers up to version 1",
        ),
        (
            "picky",
            format!("[ \"$1\" = check ] && {{ echo new key needed >&2; exit 78; }}\nexec {real} \"$@\""),
            "new key needed",
        ),
    ];
    for (name, script, why) in cases {
        let ran = done(world, upgrading(world, &program(&dir.join(name), &script)));
        assert_eq!(ran.code, 1, "{name}: {ran:?}");
        assert!(ran.stderr.contains(why), "{name}: {ran:?}");
    }
    let ran = done(world, upgrading(world, &dir.join("missing")));
    assert!(ran.code == 1 && ran.stderr.contains("cannot be run"), "{ran:?}");
    assert_eq!((world.pid(), world.worker("app"), fleet.in_flight()), (supervisor, app, TURNS * 2));
    world.model.release("x");
    fleet.nothing_was_lost_or_repeated();
    fleet.world.shut_down();
}

#[test]
fn a_program_that_vanishes_before_its_turn_leaves_the_old_one_in_place() {
    let fleet = Fleet::of("1 0.1.0");
    let world = &fleet.world;
    let (supervisor, app) = (world.pid(), world.worker("app"));
    let real = binaries().supervisor.display().to_string();
    // Its last answer is that the configuration is right; then its file is gone.
    let script = format!("[ \"$1\" = check ] && rm \"$0\"\nexec {real} \"$@\"");
    let ran = done(world, upgrading(world, &program(&fleet.dir.path().join("vanishing"), &script)));
    assert_eq!(ran.code, 1, "{ran:?}\n{}", world.story());
    assert!(ran.stderr.contains("the old program goes on"), "{ran:?}");
    assert_eq!((world.pid(), world.worker("app"), fleet.in_flight()), (supervisor, app, TURNS * 2));
    world.model.release("x");
    fleet.nothing_was_lost_or_repeated();
    fleet.world.shut_down();
}

#[test]
fn a_program_that_dies_at_once_leaves_workers_that_the_next_one_takes_over() {
    let mut fleet = Fleet::of("1 0.1.0");
    let app = fleet.world.worker("app");
    let real = binaries().supervisor.display().to_string();
    let script = format!("case \"$*\" in *run*) echo no luck >&2; exit 3;; esac\nexec {real} \"$@\"");
    let upgrade = upgrading(&fleet.world, &program(&fleet.dir.path().join("unlucky"), &script));
    assert_eq!(fleet.world.wait_ended(), Some(3), "{}", fleet.world.story());
    assert!(is_alive(app));
    fleet.world.run();
    let world = &fleet.world;
    world.wait_ps("app", "the worker to be taken over", |row| row["state"] == "busy");
    assert_eq!((world.worker("app"), fleet.in_flight()), (app, TURNS * 2));
    world.model.release("x");
    fleet.nothing_was_lost_or_repeated();
    // The command saw a supervisor answer in the end, which was another one.
    let ran = done(world, upgrade);
    assert!([0, 1].contains(&ran.code), "{ran:?}");
    fleet.world.shut_down();
}
