//! The envelope with real processes: the rungs that need no privilege, and the cgroup where this host has one to give.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by a panic, and looks for the one message that it means"
)]

mod lab;

use lab::{Lab, wait_for};
use protocol::from_worker::Isolation;
use protocol::to_worker::Limits;
use protocol::{AttemptId, FailureClass, Outcome, ToWorker};
use std::fs;
use std::os::unix::process::ExitStatusExt;

/// What stands in for Codex: it does what the prompt says, and answers. The bomb doubles every 50 ms, so that a host on
/// which it is not stopped survives for long enough to show it.
const CODEX: &str = r#"#!/bin/bash
prompt=$(cat)
lab=$(dirname "$TMPDIR")
echo '{"type":"thread.started","thread_id":"01a1fbc7-8572-7912-8443-0902aca60801"}'
echo '{"type":"turn.started"}'
case "$prompt" in
*hog*) head -c 3000000000 /dev/zero | tail -c 2900000000 >/dev/null ;;
*bomb*) b() { sleep 0.05; b & b & wait; }; export -f b; setsid bash -c b "$lab-bomb"; sleep 600 ;;
*bounds*) { ulimit -n; ulimit -c; ulimit -f; nice; cat /proc/self/oom_score_adj; cat /proc/self/cgroup; } > "$lab/bounds" ;;
*leave*) { echo 0 > "$GROUP/cgroup.procs" && echo left; } > "$lab/left" 2>&1 ;;
*daemon*)
    setsid sh -c 'while :; do sleep 1; done' "$lab-1" >/dev/null 2>&1 &
    (env -i setsid nohup sh -c 'while :; do sleep 1; done' "$lab-2" >/dev/null 2>&1 &)
    (env -i setsid sh -c '(setsid sh -c "while :; do sleep 1; done" "$0" &)' "$lab-3" &)
    while [ ! -e "$lab/go" ]; do sleep 0.05; done ;;
esac
echo '{"type":"item.completed","item":{"id":"item_1","type":"agent_message","text":"done"}}'
echo '{"type":"turn.completed","usage":{"input_tokens":1,"cached_input_tokens":0,"output_tokens":1}}'
"#;

/// Every kind of containment that this host can give, each with its name.
fn labs() -> Vec<(Isolation, Lab)> {
    let mut labs = vec![(Isolation::Namespace, Lab::new(CODEX, true)), (Isolation::BestEffort, Lab::new(CODEX, false))];
    labs.extend(Lab::grouped(CODEX, true).map(|lab| (Isolation::NamespaceAndCgroup, lab)));
    labs.extend(Lab::grouped(CODEX, false).map(|lab| (Isolation::Cgroup, lab)));
    labs
}

#[test]
fn a_memory_hog_ends_out_of_memory_on_every_rung_and_the_next_turn_runs() {
    for (rung, lab) in labs() {
        let mut worker = lab.start(1);
        let mut configure = lab.configure();
        configure.limits = Limits { memory_max: Some(200 << 20), ..Limits::default() };
        worker.ready(configure);
        worker.begin(1, "hog");
        assert_eq!(worker.started(), rung);
        let end = worker.finished();
        assert_eq!(end.outcome, Outcome::Failed(FailureClass::OutOfMemory), "{rung}: {end:?}");
        assert!(end.detail.contains("limits.memory_max") || end.detail.contains("kernel"), "{rung}: {end:?}");
        worker.say(&ToWorker::Ack(AttemptId(1)));
        assert_eq!(worker.turn(2, "").outcome, Outcome::Completed, "{rung}");
    }
}

#[test]
fn a_fork_bomb_is_stopped_and_cleaned_on_every_rung() {
    for (rung, lab) in labs() {
        let mut worker = lab.start(1);
        let mut configure = lab.configure();
        configure.limits = Limits { pids_max: Some(60), ..Limits::default() };
        worker.ready(configure);
        worker.begin(1, "bomb");
        let end = worker.finished();
        assert_eq!(end.outcome, Outcome::Failed(FailureClass::Budget), "{rung}: {end:?}");
        assert!(end.detail.contains("limits.pids_max"), "{rung}: {end:?}");
        wait_for("nothing is left of the bomb", || lab.survivors().is_empty());
        worker.say(&ToWorker::Ack(AttemptId(1)));
        assert_eq!(worker.turn(2, "").outcome, Outcome::Completed, "{rung}");
    }
}

#[test]
fn each_process_has_its_bounds_and_goes_before_its_worker() {
    let score = |path: &str| fs::read_to_string(path).unwrap().trim().parse::<i32>().unwrap();
    for (rung, lab) in labs() {
        let mut worker = lab.start(1);
        let mut configure = lab.configure();
        configure.limits = Limits {
            open_files: Some(300),
            core_size: Some(0),
            file_size: Some(64 << 20),
            cpu_weight: Some(51),
            ..Limits::default()
        };
        worker.ready(configure);
        let end = worker.turn(1, "bounds");
        assert_eq!(end.outcome, Outcome::Completed, "{rung}: {end:?}");
        let text = lab.read("bounds");
        let lines: Vec<&str> = text.lines().collect();
        // `ulimit -f` counts in KiB. A half of an ordinary share is three steps of niceness behind the usual 10.
        assert_eq!(lines[..4], ["300", "0", "65536", "13"], "{rung}: {text}");
        let workers = score(&format!("/proc/{}/oom_score_adj", worker.child.id()));
        assert!(
            lines[4].parse::<i32>().unwrap() > workers && workers > score("/proc/self/oom_score_adj"),
            "{rung}: {text}"
        );
        let group = lines.iter().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
        assert_eq!(group.contains("/child-"), lab.group.is_some(), "{rung}: {text}");
    }
}

#[test]
fn nothing_leaves_its_cgroup_and_an_empty_group_goes() {
    for contained in [true, false] {
        let Some(lab) = Lab::grouped(CODEX, contained) else {
            // `cofferdam doctor` says the same to the operator of such a host.
            assert_eq!(lab::cgroup_top(), None);
            return;
        };
        let group = lab.group.clone().unwrap();
        let children = || {
            let inner = fs::read_dir(&group).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
            inner.filter(|name| name.starts_with("child-")).count()
        };
        let mut worker = lab.start(1);
        worker.ready(lab.configure());
        worker.begin(1, "daemon");
        worker.started();
        wait_for("the tools run", || lab.survivors().len() >= 3);
        assert_eq!(children(), 1);
        fs::write(lab.agent("home/go"), "").unwrap();
        assert_eq!(worker.finished().outcome, Outcome::Completed);
        wait_for("nothing is left of the turn", || lab.survivors().is_empty() && children() == 0);
        worker.say(&ToWorker::Ack(AttemptId(1)));
        // Its worker is killed in the middle of the next: the group still holds everything.
        fs::remove_file(lab.agent("home/go")).unwrap();
        worker.begin(2, "daemon");
        worker.started();
        wait_for("the tools run", || lab.survivors().len() >= 3);
        worker.signal(rustix::process::Signal::KILL);
        assert_eq!(worker.wait().signal(), Some(9));
        fs::write(group.join("cgroup.kill"), "1").unwrap();
        wait_for("nothing is left of the worker", || lab.survivors().is_empty());
    }
}

#[test]
fn a_tool_in_a_namespace_cannot_move_to_another_group() {
    let Some(lab) = Lab::grouped(CODEX, true) else {
        assert_eq!(lab::cgroup_top(), None);
        return;
    };
    let mut worker = lab.start(1);
    let mut configure = lab.configure();
    let top = lab::cgroup_top().unwrap().display().to_string();
    configure.env.push(("GROUP".into(), top));
    worker.ready(configure);
    assert_eq!(worker.turn(1, "leave").outcome, Outcome::Completed);
    let told = lab.read("left");
    assert!(told.contains("Read-only file system"), "{told}");
}
