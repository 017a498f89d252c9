//! What the suites of real processes share: both runtimes, and looks at a running world.

use crate::binaries;
use cofferdam_tests::processes;
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::{Builder, World};
use serde_json::Value;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

/// Makes two tests of each function that takes a runtime.
macro_rules! on_both_runtimes {
    ($($name:ident),* $(,)?) => {
        mod codex_cli { $(#[test] fn $name() { super::$name("codex-cli"); })* }
        mod codex { $(#[test] fn $name() { super::$name("codex"); })* }
    };
}
pub(crate) use on_both_runtimes;

/// A world to be.
pub(crate) fn world() -> Builder {
    World::builder(binaries())
}

/// A world of one agent, `a`, that runs on `runtime`.
pub(crate) fn one_agent(runtime: &str) -> World {
    world().agent("a", &on(runtime)).start()
}

/// The line of an agent's table that chooses its runtime.
pub(crate) fn on(runtime: &str) -> String {
    format!("runtime = \"{runtime}\"")
}

/// Waits until the model was asked `times` times with `text` in the last prompt.
pub(crate) fn asked(world: &World, text: &str, times: usize) {
    let look = || (world.model.count_prompt(text) >= times).then_some(());
    until(&format!("request {times} of {text:?}"), LIMIT, || world.story(), look);
}

/// Waits until a file is there and not empty, and gives its text.
pub(crate) fn appears(world: &World, path: &Path) -> String {
    let look = || fs::read_to_string(path).ok().filter(|text| !text.is_empty());
    until(&format!("{}", path.display()), LIMIT, || world.story(), look)
}

/// What a command that was left running says, until its end.
pub(crate) struct Said {
    /// Its exit code, or -1 after a signal.
    pub(crate) code: i32,
    /// One JSON object a line.
    pub(crate) lines: Vec<Value>,
}

impl Said {
    /// The object of an event.
    pub(crate) fn event(&self, name: &str) -> &Value {
        self.lines.iter().find(|line| line["event"] == name).unwrap_or_else(|| panic!("no {name}: {:?}", self.lines))
    }
}

/// Waits for the end of a `send --json` that was left running.
pub(crate) fn ended(world: &World, mut child: Child) -> Said {
    let status = until("the end of send", LIMIT, || world.story(), || child.try_wait().unwrap());
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    Said { code: status.code().unwrap_or(-1), lines }
}

/// Sends without waiting for the answer; gives the turn.
pub(crate) fn post(world: &World, agent: &str, conversation: &str, text: &str) -> u64 {
    let ran = world.cli(&["send", agent, text, "--conversation", conversation, "--no-wait", "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}\n{}", world.story());
    let lines = ran.json_lines();
    let accepted = lines.iter().find(|line| line["event"] == "accepted").unwrap_or_else(|| panic!("{ran:?}"));
    accepted["turn"].as_u64().unwrap()
}

/// Whether a turn's state, as its story tells it, is an end.
pub(crate) fn is_end(state: &str) -> bool {
    ["completed", "interrupted", "failed", "joined", "cancelled", "refused"].contains(&state)
}

/// Waits for the end of a turn and gives its story.
pub(crate) fn story_of(world: &World, turn: u64) -> Value {
    let look = || {
        let ran = world.cli(&["turns", "show", &turn.to_string(), "--json"]);
        let story: Value = serde_json::from_str(&ran.stdout).ok()?;
        is_end(story["row"]["state"].as_str()?).then_some(story)
    };
    until(&format!("the end of turn {turn}"), LIMIT * 2, || world.story(), look)
}

/// The Codex processes themselves, without their tools and their namespace's wrapper.
pub(crate) fn codex_pids(world: &World, agent: &str) -> Vec<u32> {
    let mark = format!("COFFERDAM_CHILD={}#", world.state().join("agents").join(agent).display());
    let is_codex = |pid: &u32| {
        let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        exe.file_name().is_some_and(|name| name == "codex")
    };
    processes::marked(&mark).into_iter().filter(is_codex).collect()
}

/// The one Codex process of an agent.
pub(crate) fn codex_pid(world: &World, agent: &str) -> u32 {
    let look = || codex_pids(world, agent).first().copied();
    until(&format!("a Codex of {agent}"), LIMIT, || world.story(), look)
}

/// A program that sleeps. It is a file of this world, so that those that run it are known whatever their environment says.
pub(crate) fn napper(world: &World) -> PathBuf {
    let path = world.root().join("nap");
    if !path.exists() {
        fs::copy("/bin/sleep", &path).unwrap();
    }
    path
}

/// A prompt whose tool starts processes that leave it in every way, says so in the file `flag`, and stays. The first of them
/// sleeps for 601 s, which is how the story of the turn knows it.
pub(crate) fn restless(world: &World, flag: &Path) -> String {
    let (nap, flag) = (napper(world).display().to_string(), flag.display());
    format!(
        "[[tool trap '' TERM INT HUP; setsid {nap} 601 & (setsid {nap} 602 &) ; (nohup {nap} 603 >/dev/null 2>&1 &) ; \
         echo run > {flag}; {nap} 604]] work"
    )
}

/// The processes of this world that run the [`napper`].
pub(crate) fn nappers(world: &World) -> Vec<u32> {
    let nap = napper(world);
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == nap)).collect()
}

/// Waits until nothing is left of a tool's processes and of those that Codex started.
pub(crate) fn swept_within(world: &World, limit: Duration) {
    let left = || [nappers(world), world.codex_processes()].concat();
    let told = || left().into_iter().map(processes::command_line).collect::<Vec<_>>();
    let story = || format!("left: {:?}\n{}", told(), world.story());
    until("the end of all processes of the turn", limit, story, || left().is_empty().then_some(()));
}

/// Everything that an agent's rollouts say.
pub(crate) fn rollouts(world: &World, agent: &str) -> String {
    let mut found = String::new();
    let mut folders = vec![world.state().join("agents").join(agent).join("codex-home/sessions")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push_str(&fs::read_to_string(&path).unwrap_or_default());
            }
        }
    }
    found
}

/// Set to repeat a run that failed with a seed.
const SEED_VARIABLE: &str = "COFFERDAM_TEST_SEED";

/// Numbers that look random; a seed gives the same ones again.
pub(crate) struct Dice {
    seed: u64,
    state: u64,
}

impl Dice {
    /// The dice of every run, unless the environment names others.
    pub(crate) fn new() -> Self {
        let seed = std::env::var(SEED_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_121);
        Self { seed, state: seed }
    }

    /// What makes the same throws again.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// A number below `sides`.
    pub(crate) fn throw(&mut self, sides: u64) -> u64 {
        // Knuth's constants.
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % sides
    }
}
