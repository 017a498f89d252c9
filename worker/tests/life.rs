//! The real worker, driven over its socket, with a shell script in the place of Codex. What is proven here needs real
//! processes: the lock, the environment, the masks, and that no tree outlives its turn or its worker.
//!
//! Namespaces need a bwrap: the one beside `$COFFERDAM_TEST_CODEX`, or one on PATH.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by a panic, and looks for the one message that it means"
)]

mod lab;

use lab::{name, wait_for, worker_end};
use protocol::frame::{self, FrameReader};
use protocol::from_worker::Isolation;
use protocol::hello::{Hello, Role};
use protocol::to_worker::{Interrupt, InterruptReason};
use protocol::{AttemptId, FailureClass, FromWorker, Incarnation, Outcome, ToWorker};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;

/// What stands in for Codex: it does what the prompt says, and answers.
const CODEX: &str = r#"#!/bin/sh
prompt=$(cat)
lab=$(dirname "$TMPDIR")
echo '{"type":"thread.started","thread_id":"01a1fbc7-8572-7912-8443-0902aca60801"}'
echo '{"type":"turn.started"}'
case "$prompt" in
*env*) env > "$lab/env" ;;
*look*) { ls "$MASKED"; cat "$TOKEN"; ls -A "$lab/.."; } > "$lab/seen" 2>&1 ;;
*flood*)
    head -c 70000000 /dev/zero | tr '\0' x; echo
    printf '{"type":"item.completed","item":{"id":"i","type":"agent_message","text":"a\377b"}}\n' ;;
esac
case "$prompt" in
*daemon*)
    setsid sh -c 'while :; do sleep 1; done' "$lab-1" >/dev/null 2>&1 &
    (env -i setsid sh -c 'while :; do sleep 1; done' "$lab-2" >/dev/null 2>&1 &)
    (setsid sh -c '(setsid sh -c "while :; do sleep 1; done" "$0" &)' "$lab-3" &) ;;
esac
case "$prompt" in
*polite*) trap 'echo yes > "$lab/interrupted"; exit 1' INT; echo up > "$lab/up"; while :; do sleep 0.1; done ;;
*stubborn*) trap '' INT TERM; echo up > "$lab/up"; while :; do sleep 0.1; done ;;
*hang*) sleep 1; echo up > "$lab/up"; while :; do sleep 1; done ;;
esac
echo '{"type":"item.completed","item":{"id":"item_1","type":"agent_message","text":"done"}}'
echo '{"type":"turn.completed","usage":{"input_tokens":1,"cached_input_tokens":0,"output_tokens":1}}'
"#;

fn lab(contained: bool) -> lab::Lab {
    lab::Lab::new(CODEX, contained)
}

#[test]
fn a_turn_runs_in_a_namespace_with_an_environment_by_allow_list() {
    let lab = lab(true);
    let mut worker = lab.start(1);
    let mut configure = lab.configure();
    configure.env.push(("GIVEN".into(), "x y".into()));
    worker.ready(configure);
    let end = worker.turn(1, "env");
    assert_eq!((end.outcome, end.text.head()), (Outcome::Completed, "done"), "{end:?}");
    let text = lab.read("env");
    let mut names: Vec<_> = text.lines().filter_map(|l| l.split_once('=')).map(|(name, _)| name).collect();
    // What the wrapper and the shell add by themselves.
    names.retain(|name| !["PWD", "_", "SHLVL", "OLDPWD"].contains(name));
    names.sort_unstable();
    assert_eq!(names, ["CODEX_HOME", "COFFERDAM_CHILD", "GIVEN", "HOME", "PATH", "REAL_HOME", "TMPDIR"]);
    wait_for("an acknowledged journal is empty", || fs::metadata(lab.agent("journal")).unwrap().len() == 0);
}

#[test]
fn masked_paths_and_the_agents_own_records_cannot_be_seen() {
    let lab = lab(true);
    fs::create_dir_all(lab.path("state/agents/b")).unwrap();
    fs::write(lab.path("state/ledger.db"), "l").unwrap();
    fs::write(lab.path("token"), "SECRET").unwrap();
    let mut worker = lab.start(1);
    let mut configure = lab.configure();
    let text = |name: &str| lab.path(name).display().to_string();
    configure.masked = vec![text("state"), text("token"), text("absent")];
    configure.env.extend([("MASKED".into(), text("state/agents")), ("TOKEN".into(), text("token"))]);
    worker.ready(configure);
    assert_eq!(worker.turn(1, "look").outcome, Outcome::Completed);
    let seen = lab.read("seen");
    assert!(!seen.contains("SECRET"), "{seen}");
    let names: Vec<_> = seen.lines().filter(|l| !l.contains(' ')).collect();
    assert_eq!(names, ["a", "codex-home", "home", "workspace"], "{seen}");
    assert!(!lab.path("absent").exists());
    assert_eq!(fs::read_to_string(lab.path("token")).unwrap(), "SECRET");
}

#[test]
fn nothing_outlives_its_turn_its_kill_or_its_worker() {
    for contained in [true, false] {
        let lab = lab(contained);
        let mut worker = lab.start(1);
        worker.ready(lab.configure());
        assert_eq!(worker.turn(1, "daemon").outcome, Outcome::Completed);
        wait_for("nothing is left of the turn", || lab.survivors().is_empty());

        worker.begin(2, "daemon hang");
        let isolation = worker.started();
        assert_eq!(isolation, if contained { Isolation::Namespace } else { Isolation::BestEffort });
        wait_for("the tools run", || lab.survivors().len() >= 3);
        worker.say(&ToWorker::Kill);
        assert_eq!(worker.finished().outcome, Outcome::Failed(FailureClass::Shutdown));
        worker.say(&ToWorker::Ack(AttemptId(2)));
        assert_eq!(worker.wait().code(), Some(0));
        assert_eq!(lab.survivors(), [""; 0], "contained: {contained}");
    }
}

#[test]
fn a_killed_worker_takes_its_namespaces_along_and_its_successor_tells_the_end() {
    let lab = lab(true);
    let mut worker = lab.start(1);
    worker.ready(lab.configure());
    worker.begin(1, "daemon hang");
    worker.started();
    wait_for("the tools run", || lab.survivors().len() >= 3);
    worker.signal(rustix::process::Signal::KILL);
    assert_eq!(worker.wait().signal(), Some(9));
    wait_for("nothing is left", || lab.survivors().is_empty());
    let mut next = lab.start(2);
    next.say(&ToWorker::Configure(Box::new(lab.configure())));
    let end = next.finished();
    assert_eq!((end.attempt.0, end.outcome), (1, Outcome::Failed(FailureClass::WorkerLost)));
}

#[test]
fn a_second_worker_touches_nothing() {
    let lab = lab(true);
    let mut worker = lab.start(1);
    let output = lab.command(2).output().unwrap();
    assert_eq!(output.status.code(), Some(75));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("another worker serves this agent"));
    worker.dial();
    worker.ready(lab.configure());
}

#[test]
fn a_stale_socket_is_replaced_and_a_newer_supervisor_takes_over() {
    let lab = lab(true);
    fs::create_dir_all(lab.path("run")).unwrap();
    fs::write(lab.path("run/a.sock"), "stale").unwrap();
    let mut worker = lab.start(1);
    worker.ready(lab.configure());
    let mut older = worker.stream.take().unwrap();
    worker.dial();
    worker.ready(lab.configure());
    assert_eq!(older.read(&mut [0; 64]).unwrap(), 0, "the older session is closed");
    // A caller who means another agent is turned away, and the supervisor stays.
    let mut stranger = UnixStream::connect(lab.path("run/a.sock")).unwrap();
    let hello = ToWorker::Hello(Hello::new(Role::Supervisor, name("b"), Incarnation(0))).to_frame().unwrap();
    stranger.write_all(&frame::encode(hello.kind, &hello.body).unwrap()).unwrap();
    let mut rest = Vec::new();
    stranger.read_to_end(&mut rest).unwrap();
    assert_eq!(worker.turn(1, "").outcome, Outcome::Completed);
}

#[test]
fn unequal_protocols_drain() {
    let lab = lab(true);
    let mut worker = lab.start(1);
    worker.ready(lab.configure());
    worker.begin(1, "hang");
    worker.started();
    worker.stream = Some(UnixStream::connect(lab.path("run/a.sock")).unwrap());
    worker.reader = FrameReader::new();
    let hello = Hello { protocol: 999, ..Hello::new(Role::Supervisor, name("a"), Incarnation(0)) };
    worker.say(&ToWorker::Hello(hello));
    assert!(matches!(worker.next(), FromWorker::Hello(_)));
    // A message that is not stable is skipped; the drain is in force.
    worker.begin(2, "");
    worker.say(&ToWorker::Kill);
    assert_eq!(worker.next().clone(), FromWorker::Finished(worker_end(&lab)));
    assert_eq!(worker.wait().code(), Some(0));
}

#[test]
fn a_huge_line_and_bad_bytes_do_no_harm() {
    let lab = lab(true);
    let mut worker = lab.start(1);
    worker.ready(lab.configure());
    let end = worker.turn(1, "flood");
    assert_eq!((end.outcome, end.text.head()), (Outcome::Completed, "done"), "{end:?}");
    let status = fs::read_to_string(format!("/proc/{}/status", worker.child.id())).unwrap();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB");
    assert!(peak.parse::<u64>().unwrap() < 200 * 1024, "{peak} kB");
}

#[test]
fn an_interrupt_reaches_codex_itself_and_the_ladder_ends_what_does_not_listen() {
    for contained in [true, false] {
        let lab = lab(contained);
        let mut worker = lab.start(1);
        worker.ready(lab.configure());
        for (attempt, prompt) in [(1, "polite"), (2, "stubborn")] {
            drop(fs::remove_file(lab.agent("home/up")));
            worker.begin(attempt, prompt);
            wait_for("the script waits", || lab.read("up") == "up\n");
            let reason = InterruptReason::Asked;
            worker.say(&ToWorker::Interrupt(Interrupt { attempt: AttemptId(attempt), reason }));
            assert_eq!(worker.finished().outcome, Outcome::Interrupted);
        }
        assert_eq!(lab.read("interrupted"), "yes\n", "contained: {contained}");
    }
}

#[test]
fn terminate_ends_in_order_and_leaves_the_outcome_in_the_journal() {
    let lab = lab(true);
    let mut worker = lab.start(1);
    worker.ready(lab.configure());
    worker.begin(1, "polite");
    wait_for("the script waits", || lab.read("up") == "up\n");
    worker.stream = None;
    worker.signal(rustix::process::Signal::TERM);
    assert_eq!(worker.wait().code(), Some(0));
    assert_eq!(worker_end(&lab).outcome, Outcome::Failed(FailureClass::Shutdown));
    assert!(!lab.path("run/a.sock").exists());
}
