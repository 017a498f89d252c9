//! Failures of Codex itself: missing, too old, ending early, speaking nonsense. A script stands in for what the real one
//! cannot be made to do.

use crate::binaries;
use crate::both::{AGENTS, ask, both, held, last_attempt};
use cofferdam_tests::processes;
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::World;
use protocol::FailureClass;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use tempfile::TempDir;

/// Scripts that pose as Codex, in a folder that agents may see.
struct Posers(TempDir);

impl Posers {
    fn new() -> Self {
        Self(tempfile::Builder::new().prefix("cfd-codex-").tempdir_in("/var/tmp").unwrap())
    }

    fn script(&self, name: &str, body: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, format!("#!/bin/bash\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// A `codex exec` that prints this.
    fn exec(&self, name: &str, prints: &str) -> String {
        let path = self.script(name, &format!("cat > /dev/null\n{prints}"));
        format!("runtime = \"codex-cli\"\ncodex_command = \"{}\"", path.display())
    }

    /// A `codex app-server` that answers every request with this user agent.
    fn app_server(&self, name: &str, agent: &str) -> String {
        let answer = format!(r#"{{"id":%s,"result":{{"userAgent":"{agent}"}}}}\n"#);
        let body = format!(
            "while read -r line; do id=$(sed -n 's/.*\"id\":\\([0-9]*\\).*/\\1/p' <<< \"$line\")\n[ -n \"$id\" ] && printf '{answer}' \"$id\"; done"
        );
        let path = self.script(name, &body);
        format!("runtime = \"codex\"\ncodex_command = \"{}\"", path.display())
    }
}

const BEGIN: &str = r#"echo '{"type":"thread.started","thread_id":"01a1fbc7-8572-7912-8443-0902aca60801"}'; echo '{"type":"turn.started"}'"#;
const END: &str = r#"echo '{"type":"item.completed","item":{"id":"i","type":"agent_message","text":"well"}}'; echo '{"type":"turn.completed","usage":{"input_tokens":1,"output_tokens":1}}'"#;

#[track_caller]
fn fails(world: &World, agent: &str, class: FailureClass, detail: &str) -> Value {
    let end = world.send(agent, "c", "hello");
    assert_eq!(end["class"], class.as_str(), "{agent}: {end}\n{}", world.story());
    let attempt = last_attempt(world, end["turn"].as_u64().unwrap());
    let said = format!("{} {}", attempt["detail"], attempt["stderr"]);
    assert!(said.contains(detail), "{agent}: {said}");
    attempt
}

#[test]
fn a_codex_that_is_not_there_or_does_not_fit_is_said_to_be_so() {
    let posers = Posers::new();
    let world = World::builder(binaries())
        .agent("gone-app", "runtime = \"codex\"\ncodex_command = \"/nowhere/codex\"")
        .agent("gone-cli", "runtime = \"codex-cli\"\ncodex_command = \"/nowhere/codex\"")
        .agent("old", &posers.app_server("old", "cofferdam/0.124.9 (Linux) x (cofferdam; 0.1)"))
        .agent("pre", &posers.app_server("pre", "cofferdam/0.170.0-alpha.1 (Linux) x (cofferdam; 0.1)"))
        .agent("mute", &posers.exec("mute", "echo 'no config here' >&2; exit 4"))
        .start();
    for agent in ["gone-app", "gone-cli"] {
        fails(&world, agent, FailureClass::CodexMissing, "/nowhere/codex");
    }
    fails(&world, "old", FailureClass::CodexStart, "0.124.9");
    fails(&world, "pre", FailureClass::CodexStart, "0.170.0-alpha.1");
    let attempt = fails(&world, "mute", FailureClass::CodexStart, "no config here");
    assert_eq!(attempt["exit_code"], 4);
    world.shut_down();
}

#[test]
fn a_codex_that_speaks_nonsense_costs_its_own_turn_alone() {
    let posers = Posers::new();
    let garbage = "for i in $(seq 2000); do echo \"no json $i\"; done; sleep 600";
    let world = World::builder(binaries())
        .agent("garbage", &posers.exec("garbage", &format!("{BEGIN}; {garbage}")))
        .agent("half", &posers.exec("half", &format!("{BEGIN}; printf '{{\"type\":\"turn.com'; exit 0")))
        .agent("fell", &posers.exec("fell", &format!("{BEGIN}; echo 'it fell' >&2; exit 3")))
        .agent("bytes", &posers.exec("bytes", &format!("{BEGIN}; printf '\\xff\\xfe{{}}\\n'; {END}")))
        .agent("wide", &posers.exec("wide", &format!("{BEGIN}; head -c 200000000 /dev/zero | tr '\\0' x; echo; {END}")))
        .start();
    fails(&world, "garbage", FailureClass::CodexProtocol, "");
    fails(&world, "half", FailureClass::CodexExit, "");
    assert_eq!(fails(&world, "fell", FailureClass::CodexExit, "it fell")["exit_code"], 3);
    for agent in ["bytes", "wide"] {
        assert_eq!(ask(&world, agent, "c", "hello"), "well");
        let rss = world.ps(agent)["rss_bytes"].as_u64().unwrap();
        assert!(rss < 100 << 20, "{agent} keeps {rss} bytes of what it read");
    }
    world.shut_down();
}

#[test]
fn a_codex_that_is_killed_is_told_with_its_signal() {
    let world = both("", "").start();
    for agent in AGENTS {
        let sending = world.sending(agent, "c", &format!("[[tool true]] [[hold {agent}]]"));
        held(&world, agent);
        let dir = world.state().join("agents").join(agent);
        let mark = format!("COFFERDAM_CHILD={}#", dir.display());
        let codex = until(
            "a Codex process",
            LIMIT,
            || world.story(),
            || processes::marked(&mark).into_iter().find(|pid| processes::command_line(*pid).contains("/codex ")),
        );
        processes::kill9(codex);
        let output = sending.wait_with_output().unwrap();
        let last = String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned();
        let end: Value = serde_json::from_str(&last).unwrap();
        assert_eq!(end["class"], "codex_exit", "{agent}: {end}\n{}", world.story());
        assert!(end["text"].as_str().unwrap().contains("true"), "{agent}: it says what had run: {end}");
        assert_eq!(ask(&world, agent, "c", "and on"), "echo: and on");
    }
    world.shut_down();
}
