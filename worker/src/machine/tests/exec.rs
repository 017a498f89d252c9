//! Turns on `codex exec`.

use super::bench::{Bench, CLOCKS, THREAD, exit, route};
use crate::machine::io::{ChildId, Effect, Exit, Input, Polite, Rollout, SpawnFailure};
use protocol::from_worker::Phase;
use protocol::journal::Record;
use protocol::to_worker::InterruptReason;
use protocol::{AttemptId, FailureClass, FromWorker, Outcome, Runtime, TurnId};
use serde_json::json;

/// Recorded runs: `# name class` and then the lines.
const CAPTURED: &str = include_str!("../captures/exec.jsonl");

fn started(bench: &mut Bench, attempt: u64) -> ChildId {
    bench.begin(attempt, Runtime::CodexCli, None);
    let (child, _) = bench.spawned();
    bench.line(child, &json!({"type": "thread.started", "thread_id": THREAD}));
    bench.line(child, &json!({"type": "turn.started"}));
    child
}

#[test]
fn every_captured_run_ends_as_it_did() {
    for run in CAPTURED.split("# ").skip(1) {
        let (head, lines) = run.split_once('\n').expect("a head");
        let (name, class) = head.split_once(' ').expect("a class");
        let mut bench = Bench::new();
        bench.begin(1, Runtime::CodexCli, None);
        let (child, _) = bench.spawned();
        for line in lines.lines() {
            bench.now += 10;
            bench.give(Input::Line(child, line.into()));
        }
        let code = i32::from(class != "completed");
        bench.give(Input::Exited(child, exit(code, "Reading additional input from stdin...\n")));
        let (end, text) = bench.end();
        assert_eq!(end.outcome.class().map_or("completed", FailureClass::as_str), class, "{name}");
        assert!(end.thread.is_some() && end.replay_safe != (class == "completed"), "{name}");
        assert_eq!(text.is_empty(), class != "completed", "{name}: {text}");
        assert_eq!(bench.machine.unmatched(), 0, "{name}");
        assert!(end.detail.len() <= 4096 && !end.detail.contains("sk-mock"), "{name}");
        assert_eq!((bench.machine.running(), bench.machine.children()), (0, 0));
    }
}

#[test]
fn a_fresh_turn_is_journaled_before_it_is_spawned() {
    let mut bench = Bench::new();
    bench.begin(1, Runtime::CodexCli, None);
    let effects = bench.look();
    assert!(
        matches!(&effects[0], Effect::Journal(Record::Begun(b)) if b.attempt == AttemptId(1) && b.rollout_bytes == 77)
    );
    assert_eq!(effects[1], Effect::Tell(FromWorker::Begun(AttemptId(1))));
    assert!(matches!(&effects[2], Effect::Tell(FromWorker::Progress(p)) if p.phase == Phase::Starting));
    assert_eq!(effects[3], Effect::Journal(Record::Prompted(AttemptId(1))));
    let Effect::Spawn(child, spec) = &effects[4] else { panic!("{effects:?}") };
    let args: Vec<&str> = spec.args.iter().map(String::as_str).collect();
    let expected = [
        "exec",
        "--json",
        "--skip-git-repo-check",
        "-s",
        "workspace-write",
        "-c",
        "approval_policy=\"never\"",
        "-c",
        "sandbox_mode=\"workspace-write\"",
        "-c",
        "sandbox_workspace_write.network_access=true",
        "-c",
        "model_provider=\"mock\"",
        "--model=gpt-5.5",
        "-",
    ];
    assert_eq!(args, expected);
    assert_eq!((spec.stdin.as_str(), spec.stdin_open, spec.polite), ("hi", false, Polite::Interrupt));
    let child = *child;
    bench.line(child, &json!({"type": "thread.started", "thread_id": THREAD}));
    assert_eq!(bench.records(), [&Record::Thread(AttemptId(1), THREAD.into())]);
    bench.line(child, &json!({"type": "turn.started"}));
    assert!(bench.told().iter().any(|m| matches!(m, FromWorker::Started(s) if s.thread == THREAD)));
}

#[test]
fn a_resume_says_its_thread_behind_the_flags_and_counts_only_its_own_tokens() {
    let mut bench = Bench::new();
    for (attempt, usage, counted) in [(1, 1000, 0), (2, 3000, 2000)] {
        bench.begin(attempt, Runtime::CodexCli, Some(THREAD));
        let (child, spec) = bench.spawned();
        assert_eq!(
            spec.args.iter().rev().take(3).rev().map(String::as_str).collect::<Vec<_>>(),
            ["resume", THREAD, "-"]
        );
        bench.line(child, &json!({"type": "thread.started", "thread_id": THREAD}));
        bench.line(child, &json!({"type": "turn.started"}));
        bench.line(child, &json!({"type": "turn.completed", "usage": {"input_tokens": usage, "output_tokens": 5}}));
        assert_eq!(bench.end().0.input_tokens, counted, "what a first resume cost is not knowable");
        bench.give(Input::Exited(child, exit(0, "")));
    }
}

#[test]
fn the_answer_is_the_last_message_and_what_ran_is_told() {
    let mut bench = Bench::new();
    let child = started(&mut bench, 1);
    let item = |kind: &str, body: serde_json::Value| json!({"type": kind, "item": body});
    bench.line(child, &item("item.completed", json!({"id": "0", "type": "agent_message", "text": "I look"})));
    let command = json!({"id": "1", "type": "command_execution", "command": "curl -H 'Authorization: Bearer abc'"});
    bench.line(child, &item("item.started", command.clone()));
    bench.line(child, &item("item.completed", command));
    let change = json!({"id": "2", "type": "file_change", "changes": [{"path": "/a", "kind": "add"}]});
    bench.line(child, &item("item.completed", change));
    bench.line(child, &item("item.completed", json!({"id": "3", "type": "agent_message", "text": "Done"})));
    bench.line(child, &json!({"type": "turn.completed"}));
    let (end, text) = bench.end();
    assert_eq!((end.outcome, text.as_str(), end.replay_safe), (Outcome::Completed, "Done", false));
    assert_eq!(end.ran, ["curl -H 'Authorization: [redacted]", "change add /a"]);
}

#[test]
fn starts_follow_one_another_until_the_first_word() {
    let mut bench = Bench::new();
    bench.begin(1, Runtime::CodexCli, None);
    bench.begin(2, Runtime::CodexCli, None);
    let (first, _) = bench.spawned();
    assert_eq!(bench.look().iter().filter(|e| matches!(e, Effect::Spawn(..))).count(), 1);
    bench.line(first, &json!({"type": "thread.started", "thread_id": THREAD}));
    let (second, _) = bench.spawned();
    assert_ne!(first, second);
    bench.look();
    // A silent one is ended by its first-event clock, and both come to an end.
    bench.pass(CLOCKS.first_event_ms);
    assert!(bench.has(|e| *e == Effect::End(second)));
}

#[test]
fn a_wrong_thread_is_a_broken_protocol() {
    let mut bench = Bench::new();
    bench.begin(1, Runtime::CodexCli, Some("11111111-1111-7111-8111-111111111111"));
    let (child, _) = bench.spawned();
    bench.line(child, &json!({"type": "thread.started", "thread_id": THREAD}));
    assert!(bench.has(|e| *e == Effect::End(child)));
    bench.give(Input::Exited(child, exit(1, "")));
    assert!(bench.has(|e| matches!(e, Effect::ReadRollout { thread, from_bytes: 0, .. } if thread == THREAD)));
    bench.give(Input::RolloutRead(AttemptId(1), Rollout { read: true, ran: vec!["rm".into()], only_words: false }));
    let end = bench.fails(FailureClass::CodexProtocol);
    assert_eq!((end.replay_safe, end.ran), (false, vec!["rm".to_owned()]));
    assert_eq!(end.thread.as_deref(), Some("11111111-1111-7111-8111-111111111111"));
}

#[test]
fn an_answer_from_a_thread_that_was_not_asked_for_is_none() {
    let mut bench = Bench::new();
    bench.begin(1, Runtime::CodexCli, Some(THREAD));
    let (child, _) = bench.spawned();
    let other = "11111111-1111-7111-8111-111111111111";
    bench.line(child, &json!({"type": "thread.started", "thread_id": other}));
    // It was quicker than our signal.
    bench.line(child, &json!({"type": "turn.started"}));
    bench.line(child, &json!({"type": "item.completed", "item": {"type": "agent_message", "id": "i", "text": "who?"}}));
    bench.line(child, &json!({"type": "turn.completed", "usage": {}}));
    bench.give(Input::Exited(child, exit(0, "")));
    assert!(!bench.fails(FailureClass::CodexProtocol).replay_safe, "it ran to its end");
}

#[test]
fn ends_before_the_turn_tell_the_stderr_and_may_be_replayed() {
    for (stderr, class) in [
        ("Error: thread/resume failed: thread x already has an active writer (code -32600)", FailureClass::CodexStart),
        ("Error: Model provider `nope` not found\n\nStack backtrace:\n 0: x", FailureClass::ProviderUnknown),
        ("Error: thread/resume failed: no rollout found for thread id x (code -32600)", FailureClass::CodexStart),
        ("", FailureClass::CodexStart),
    ] {
        let mut bench = Bench::new();
        bench.begin(1, Runtime::CodexCli, Some(THREAD));
        let (child, _) = bench.spawned();
        bench.give(Input::Exited(child, exit(1, stderr)));
        let end = bench.fails(class);
        assert!(end.replay_safe && end.exit_code == Some(1) && !end.detail.is_empty(), "{end:?}");
    }
}

#[test]
fn a_thread_of_another_provider_is_forked_once() {
    let mut bench = Bench::new();
    bench.begin_on(1, route(Runtime::CodexCli, "other"), Some(THREAD));
    let (child, _) = bench.spawned();
    bench.look();
    let refusal = "Error: Cannot change this thread's model provider from `mock` to `other` on resume. (code -32600)";
    bench.give(Input::Exited(child, exit(1, refusal)));
    let (fork, spec) = bench.spawned();
    assert_eq!(spec.args.iter().rev().take(3).rev().map(String::as_str).collect::<Vec<_>>(), ["fork", THREAD, "-"]);
    assert_eq!(spec.stdin, "hi");
    bench.line(fork, &json!({"type": "thread.started", "thread_id": "new"}));
    assert!(bench.records().contains(&&Record::Thread(AttemptId(1), "new".into())));
    bench.line(fork, &json!({"type": "turn.started"}));
    bench.line(fork, &json!({"type": "turn.completed"}));
    let (end, _) = bench.end();
    assert_eq!((end.thread.as_deref(), end.exit_code), (Some("new"), None));

    let mut bench = Bench::new();
    bench.begin_on(1, route(Runtime::CodexCli, "other"), Some(THREAD));
    let (child, _) = bench.spawned();
    bench.look();
    bench.give(Input::Exited(child, exit(1, refusal)));
    let (fork, _) = bench.spawned();
    bench.give(Input::Exited(fork, exit(1, refusal)));
    bench.fails(FailureClass::CodexStart);
}

#[test]
fn a_lost_child_is_proven_by_its_rollout() {
    for (exit, rollout, class, safe) in [
        (Exit { signal: Some(9), ..Exit::default() }, (true, true), FailureClass::CodexExit, true),
        (Exit { signal: Some(9), ..Exit::default() }, (true, false), FailureClass::CodexExit, false),
        (Exit { signal: Some(9), ..Exit::default() }, (false, true), FailureClass::CodexExit, false),
        (Exit { out_of_memory: true, ..Exit::default() }, (true, true), FailureClass::OutOfMemory, true),
        (exit(1, "Error: No space left on device (os error 28)"), (true, true), FailureClass::DiskFull, true),
    ] {
        let mut bench = Bench::new();
        let child = started(&mut bench, 1);
        bench.give(Input::Exited(child, exit));
        assert!(bench.finishes().is_empty());
        assert!(bench.has(|e| matches!(e, Effect::ReadRollout { from_bytes: 0, .. })));
        let (read, only_words) = rollout;
        bench.give(Input::RolloutRead(AttemptId(1), Rollout { read, ran: Vec::new(), only_words }));
        assert_eq!(bench.fails(class).replay_safe, safe);
    }
    let mut bench = Bench::new();
    let child = started(&mut bench, 1);
    bench.give(Input::Exited(child, exit(0, "")));
    bench.pass(10_000);
    assert!(!bench.fails(FailureClass::CodexExit).replay_safe, "an unread rollout proves nothing");
}

#[test]
fn an_interrupt_ends_the_child_and_gives_one_outcome() {
    let mut bench = Bench::new();
    let child = started(&mut bench, 1);
    bench.give(Input::Interrupt(AttemptId(1), InterruptReason::Asked));
    bench.give(Input::Interrupt(AttemptId(1), InterruptReason::Shutdown));
    assert_eq!(bench.effects.iter().filter(|e| **e == Effect::End(child)).count(), 1);
    bench.give(Input::Exited(child, exit(1, "")));
    assert_eq!(bench.end().0.outcome, Outcome::Interrupted);
}

#[test]
fn a_child_that_does_not_go_is_killed_and_its_turn_told() {
    let mut bench = Bench::new();
    let child = started(&mut bench, 1);
    bench.pass(CLOCKS.silence_ms);
    assert!(bench.has(|e| *e == Effect::End(child)) && bench.finishes().is_empty());
    bench.pass(CLOCKS.stop_grace_ms * 3);
    assert!(bench.has(|e| *e == Effect::Kill(child)));
    assert!(!bench.fails(FailureClass::CodexSilent).replay_safe);
    assert_eq!(bench.machine.children(), 1);
    bench.pass(CLOCKS.stop_grace_ms * 3);
    assert_eq!(bench.machine.children(), 0);
}

#[test]
fn a_running_tool_is_no_silence_but_the_turn_has_its_end() {
    let mut bench = Bench::new();
    let child = started(&mut bench, 1);
    let item = json!({"id": "1", "type": "command_execution", "command": "sleep 9999"});
    bench.line(child, &json!({"type": "item.started", "item": item}));
    bench.look();
    bench.tool_lives("any");
    bench.pass(CLOCKS.turn_ms - 1);
    assert!(!bench.has(|e| *e == Effect::End(child)));
    bench.pass(1);
    assert!(bench.has(|e| *e == Effect::End(child)));
    bench.give(Input::Exited(child, exit(1, "")));
    bench.give(Input::RolloutRead(AttemptId(1), Rollout::default()));
    let end = bench.fails(FailureClass::TurnTimeout);
    assert_eq!(end.ran, ["sleep 9999"]);
}

#[test]
fn spawn_failures_have_their_class() {
    for (why, class) in [
        (SpawnFailure::Missing("no codex".into()), FailureClass::CodexMissing),
        (SpawnFailure::Failed("EACCES".into()), FailureClass::CodexStart),
    ] {
        let mut bench = Bench::new();
        bench.begin(1, Runtime::CodexCli, None);
        let (child, _) = bench.spawned();
        bench.give(Input::SpawnFailed(child, why));
        assert!(bench.fails(class).replay_safe);
    }
}

#[test]
fn a_flood_of_garbage_is_a_broken_protocol() {
    let mut bench = Bench::new();
    let child = started(&mut bench, 1);
    for _ in 0..1000 {
        bench.give(Input::Line(child, "{\"type\":\"item.comp".into()));
    }
    assert!(!bench.has(|e| *e == Effect::End(child)));
    bench.give(Input::LineTooLong(child, 99));
    assert!(bench.has(|e| *e == Effect::End(child)));
    bench.give(Input::Exited(child, exit(1, "")));
    bench.give(Input::RolloutRead(AttemptId(1), Rollout { read: true, ran: Vec::new(), only_words: true }));
    assert!(bench.fails(FailureClass::CodexProtocol).replay_safe);
}

#[test]
fn a_steer_on_exec_is_given_back() {
    let mut bench = Bench::new();
    started(&mut bench, 1);
    bench.give(Input::Steer { attempt: AttemptId(1), turn: TurnId(9), text: "x".into() });
    assert_eq!(bench.steered().iter().map(|s| (s.turn, s.taken)).collect::<Vec<_>>(), [(TurnId(9), false)]);
}

#[test]
fn a_usage_limit_in_prose_tells_its_reset() {
    let mut bench = Bench::new();
    bench.machine.set_local_time(1_795_225_776_000, 3600);
    let begin_wall = 1_795_225_776_000;
    let begin = protocol::to_worker::Begin {
        attempt: AttemptId(1),
        turn: TurnId(1),
        thread: None,
        prompt: protocol::Text::empty(),
        route: route(Runtime::CodexCli, "mock"),
        begun: false,
    };
    bench.give(Input::Begin { begin: Box::new(begin), prompt: "x".into(), rollout_bytes: 0, wall_ms: begin_wall });
    let (child, _) = bench.spawned();
    bench.now += 5000;
    let message = "You’ve hit your usage limit. Try again at 3:45 AM.";
    bench.line(child, &json!({"type": "turn.failed", "error": {"message": message}}));
    bench.give(Input::Exited(child, exit(1, "")));
    assert_eq!(bench.fails(FailureClass::UsageLimit).resets_at, Some(1_795_225_776 + 3324));
}
