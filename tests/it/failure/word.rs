//! A Codex that does not keep to its word, on either runtime: each fake goes wrong at one place of a whole conversation.

use crate::binaries;
use crate::both::{Sending, ask, last_attempt};
use cofferdam_tests::world::World;
use protocol::FailureClass;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use tempfile::TempDir;

/// Both runtimes of a fake, with places to go wrong: `BEFORE` its first word, in the `MIDDLE` of a turn.
const FAKE: &str = r#"#!/bin/sh
say() { printf '%s\n' "$1"; }
thread=$(printf '01a1fbc7-8572-7912-8443-%012d' $$)
BEFORE
middle() {
    :
    MIDDLE
}
if [ "$1" = exec ]; then
    cat >/dev/null
    say '{"type":"thread.started","thread_id":"'$thread'"}'
    say '{"type":"turn.started"}'
    middle
    say '{"type":"item.completed","item":{"id":"item_1","type":"agent_message","text":"here I am"}}'
    say '{"type":"turn.completed","usage":{"input_tokens":1,"output_tokens":1}}'
    exit 0
fi
while read -r line; do
    id=${line#*\"id\":}
    id=${id%%,*}
    case "$line" in
    *'"method":"initialize"'*) say '{"id":'$id',"result":{"userAgent":"cofferdam/0.169.0 (a fake)"}}' ;;
    *'"method":"thread/'*) say '{"id":'$id',"result":{"thread":{"id":"'$thread'"},"modelProvider":"standin"}}' ;;
    *'"method":"turn/start"'*)
        say '{"id":'$id',"result":{"turn":{"id":"u-'$id'"}}}'
        of='"threadId":"'$thread'","turnId":"u-'$id'"'
        say '{"method":"turn/started","params":{"threadId":"'$thread'","turn":{"id":"u-'$id'"}}}'
        middle
        say '{"method":"item/completed","params":{'$of',"item":{"type":"agentMessage","id":"i","text":"here I am"}}}'
        say '{"method":"turn/completed","params":{"threadId":"'$thread'","turn":{"id":"u-'$id'","status":"completed","items":[]}}}'
        ;;
    *'"method":"turn/interrupt"'*) say '{"id":'$id',"result":{}}' ;;
    esac
done
"#;

/// A fake, and what must come of a turn with it.
struct Case {
    name: &'static str,
    before: &'static str,
    middle: &'static str,
    /// On `codex` and on `codex-cli`; `None`: the turn completes all the same.
    class: [Option<FailureClass>; 2],
    /// What the record says on each.
    detail: [&'static str; 2],
}

const fn case(name: &'static str, middle: &'static str, class: Option<FailureClass>, detail: &'static str) -> Case {
    Case { name, before: "", middle, class: [class; 2], detail: [detail; 2] }
}

const START: Option<FailureClass> = Some(FailureClass::CodexStart);
const EXIT: Option<FailureClass> = Some(FailureClass::CodexExit);
const SILENT: Option<FailureClass> = Some(FailureClass::CodexSilent);
const PROTOCOL: Option<FailureClass> = Some(FailureClass::CodexProtocol);

/// Names are agents' names; `-codex` and `-codex-cli` follow.
const CASES: &[Case] = &[
    case("good", "", None, ""),
    case("mumbles", "say 'not json'; say '{\"half\": '; printf 'caf\\351\\n'; say '[]'; say ''", None, ""),
    case("babbles", "yes 'not json' | head -n 2000", PROTOCOL, "more lines than can be forgiven"),
    case("endless-line", "tr '\\0' x </dev/zero", PROTOCOL, "a line without an end"),
    case("leaves", "say 'Error: the moon is full' >&2; exit 3", EXIT, "exit code 3"),
    case("half-a-line", "printf '{\"type\":\"turn.comp'; exit 0", EXIT, "in the middle of the turn"),
    case("is-killed", "kill -9 $$", EXIT, "in the middle of the turn"),
    Case {
        name: "mute",
        before: "exec sleep 7501",
        middle: "",
        class: [START, SILENT],
        detail: ["no answer to initialize", "no event within 4 s"],
    },
    Case {
        name: "wont-start",
        before: "say 'Error loading config.toml: bad' >&2; exit 1",
        middle: "",
        class: [START; 2],
        detail: ["Error loading config.toml: bad"; 2],
    },
];

/// Writes the fake of a case.
fn fake(dir: &TempDir, case: &Case) -> PathBuf {
    let path = dir.path().join(case.name);
    fs::write(&path, FAKE.replace("BEFORE", case.before).replace("MIDDLE", case.middle)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Peak memory of a process in kB.
fn peak_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Most memory of a worker, in kB: one longest line, and as much again while its buffer grows.
const PEAK_KB_MAX: u64 = 160 * 1024;

#[test]
fn a_codex_that_breaks_its_word_fails_its_own_turn() {
    let dir = tempfile::Builder::new().prefix("cfd-fake-").tempdir_in("/var/tmp").unwrap();
    let mut builder = World::builder(binaries()).defaults("silence_timeout = \"3s\"\nfirst_event_timeout = \"4s\"");
    let both = |case: &'static Case| ["codex", "codex-cli"].map(|runtime| (format!("{}-{runtime}", case.name), case));
    let agents: Vec<(String, &Case)> = CASES.iter().flat_map(both).collect();
    for (agent, case) in &agents {
        let runtime = agent.strip_prefix(case.name).unwrap().trim_start_matches('-');
        builder = builder.agent(agent, &format!("runtime = {runtime:?}\ncodex_command = {:?}", fake(&dir, case)));
    }
    let world = builder.start();
    let all: Vec<_> =
        agents.iter().map(|(agent, case)| (agent, case, Sending::new(&world, agent, "c", "hello"))).collect();
    for (agent, case, sending) in all {
        kept(&world, agent, case, &sending.finished(&world));
        let peak = peak_kb(world.worker(agent));
        assert!(peak < PEAK_KB_MAX, "the worker of {agent} took {peak} kB");
        assert_eq!(world.ps(agent)["restarts"], 0, "{agent}");
    }
    assert!(peak_kb(world.pid()) < PEAK_KB_MAX, "the supervisor took {} kB", peak_kb(world.pid()));
    world.shut_down();
}

#[test]
fn a_line_that_is_too_long_is_dropped_without_being_kept() {
    let dir = tempfile::Builder::new().prefix("cfd-fake-").tempdir_in("/var/tmp").unwrap();
    let program = fake(&dir, &case("long-line", "head -c 200000000 /dev/zero | tr '\\0' x; say ''", None, ""));
    let mut builder = World::builder(binaries());
    for runtime in ["codex", "codex-cli"] {
        builder = builder.agent(runtime, &format!("runtime = {runtime:?}\ncodex_command = {program:?}"));
    }
    let world = builder.start();
    for runtime in ["codex", "codex-cli"] {
        assert_eq!(ask(&world, runtime, "c", "hello"), "here I am");
        let peak = peak_kb(world.worker(runtime));
        assert!(peak < PEAK_KB_MAX, "the worker took {peak} kB");
    }
    world.shut_down();
}

/// Checks one end.
#[track_caller]
fn kept(world: &World, agent: &str, case: &Case, end: &Value) {
    let attempt = last_attempt(world, end["turn"].as_u64().unwrap());
    let of = usize::from(agent.ends_with("-cli"));
    let Some(class) = case.class[of] else {
        assert_eq!(
            (end["outcome"].as_str(), end["text"].as_str()),
            (Some("completed"), Some("here I am")),
            "{agent}: {end}"
        );
        return;
    };
    assert_eq!(end["class"], class.as_str(), "{agent}: {end}\n{attempt}\n{}", world.story());
    assert!(end["text"].as_str().unwrap().starts_with(class.policy().told), "{agent}: {end}");
    assert!(attempt["detail"].as_str().unwrap().contains(case.detail[of]), "{agent}: {attempt}");
    if case.name == "leaves" {
        assert_eq!(attempt["exit_code"], 3, "{agent}: {attempt}");
        assert!(attempt["stderr"].as_str().unwrap().contains("the moon is full"), "{agent}: {attempt}");
    }
    if case.name == "is-killed" {
        assert_eq!(attempt["signal"], 9, "{agent}: {attempt}");
    }
}

#[test]
fn a_thread_that_is_not_the_one_asked_for_is_not_trusted() {
    let dir = tempfile::Builder::new().prefix("cfd-fake-").tempdir_in("/var/tmp").unwrap();
    let program = fake(&dir, &case("forgets", "", None, ""));
    let mut builder = World::builder(binaries());
    for runtime in ["codex", "codex-cli"] {
        let lines = format!("runtime = {runtime:?}\ncodex_command = {program:?}\nidle_after = \"10ms\"");
        builder = builder.agent(runtime, &lines);
    }
    let world = builder.start();
    for runtime in ["codex", "codex-cli"] {
        assert_eq!(ask(&world, runtime, "c", "hello"), "here I am");
        // A new process names a thread of its own.
        let gone = || world.codex_processes().is_empty().then_some(());
        cofferdam_tests::wait::until("the fake to leave", cofferdam_tests::wait::LIMIT, || world.story(), gone);
        let end = world.send(runtime, "c", "do you remember?");
        assert_eq!(end["class"], "codex_protocol", "{end}");
        let attempt = last_attempt(&world, end["turn"].as_u64().unwrap());
        assert!(attempt["detail"].as_str().unwrap().contains("was to be resumed, but"), "{attempt}");
    }
    world.shut_down();
}

#[test]
fn a_codex_that_cannot_begin_says_why_and_works_once_mended() {
    let mut builder = World::builder(binaries());
    for runtime in ["codex", "codex-cli"] {
        let missing = format!("runtime = {runtime:?}\ncodex_command = \"/nope/codex\"");
        let bad = format!("runtime = {runtime:?}\n[agents.bad-{runtime}.codex]\nmodel_reasoning_effort = 7");
        builder = builder.agent(&format!("missing-{runtime}"), &missing).agent(&format!("bad-{runtime}"), &bad);
    }
    let world = builder.start();
    let agents = ["missing-codex", "missing-codex-cli", "bad-codex", "bad-codex-cli"];
    for agent in agents {
        let end = world.send(agent, "c", "hello");
        let (class, piece) = if agent.starts_with("missing") {
            (FailureClass::CodexMissing, "/nope/codex")
        } else {
            (FailureClass::CodexStart, "expected a string")
        };
        assert_eq!(end["class"], class.as_str(), "{agent}: {end}");
        assert_eq!(end["attempts"], 1 + u64::from(class.policy().retries), "{agent}: {end}");
        let turn = end["turn"].as_u64().unwrap();
        let attempt = last_attempt(&world, turn);
        let words = format!("{} {}", attempt["detail"], attempt["stderr"]);
        assert!(words.contains(piece), "{agent}: {attempt}");
        assert_eq!(attempt["replay_safe"], true, "{agent}: {attempt}");
        let next = class.policy().next_step.replace("AGENT", agent).replace("ID", &turn.to_string());
        assert_eq!(world.turn(turn)["next_step"], next);
    }
    let config = fs::read_to_string(world.config()).unwrap();
    let mended = config.replace("codex_command = \"/nope/codex\"\n", "").replace("= 7", "= \"high\"");
    world.write_config(&mended);
    assert_eq!(world.cli(&["reload"]).code, 0);
    for agent in agents {
        assert_eq!(ask(&world, agent, "c", "well again"), "echo: well again");
    }
    world.shut_down();
}
