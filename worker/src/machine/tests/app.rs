//! Turns on the app-server.

use super::bench::{Bench, CLOCKS, THREAD, configure, exit, route};
use crate::machine::io::{Effect, Exit, Input, Polite, Rollout, SpawnFailure};
use protocol::from_worker::Phase;
use protocol::journal::Record;
use protocol::to_worker::InterruptReason;
use protocol::{AttemptId, FailureClass, FromWorker, Outcome, Runtime, TurnId};
use serde_json::{Value, json};

const TURNS: &str = include_str!("../captures/app_turns.jsonl");
const ERRORS: &str = include_str!("../captures/app_errors.jsonl");

/// Plays recorded lines: answers get the id of the request that they answer here.
fn play(bench: &mut Bench, captured: &str) -> Vec<(String, Value)> {
    let mut ends = Vec::new();
    let mut attempt = 1;
    bench.begin_on(attempt, route(Runtime::Codex, "mock"), None);
    let (child, _) = bench.spawned();
    for line in captured.lines() {
        let mut message: Value = serde_json::from_str(line).expect("a message");
        bench.now += 5;
        if message.get("id").is_some() {
            if message["id"].as_u64() > Some(2) && bench.machine.running() == 0 {
                attempt += 1;
                bench.begin_on(attempt, route(Runtime::Codex, "mock"), Some(thread_of(captured).as_str()));
            }
            let asked = bench
                .writes()
                .into_iter()
                .rev()
                .find(|w| ["initialize", "thread/start", "turn/start"].iter().any(|method| w["method"] == *method));
            message["id"] = asked.expect("a request")["id"].clone();
        }
        bench.line(child, &message);
        for (end, text) in bench.finishes() {
            let class = end.outcome.class().map_or("completed", FailureClass::as_str);
            ends.push((
                class.to_owned(),
                json!({"text": text, "ran": end.ran, "tokens": end.input_tokens,
                "resets": end.resets_at, "safe": end.replay_safe, "version": end.codex_version}),
            ));
            bench.look();
        }
    }
    ends
}

fn thread_of(captured: &str) -> String {
    let opened = captured.lines().nth(1).and_then(|line| serde_json::from_str::<Value>(line).ok()).expect("an answer");
    opened["result"]["thread"]["id"].as_str().expect("an id").to_owned()
}

#[test]
fn recorded_turns_end_as_they_did() {
    let mut bench = Bench::new();
    let ends = play(&mut bench, TURNS);
    assert_eq!(ends.len(), 3, "{ends:?}");
    assert_eq!(
        ends[0].1,
        json!({"text": "word word word word word ", "ran": [], "tokens": 100, "resets": null,
        "safe": false, "version": "0.169.0"})
    );
    assert_eq!(ends[1].1["ran"], json!(["/bin/bash -lc 'echo one; sleep 0.3; echo two'"]));
    assert_eq!((&ends[1].1["tokens"], &ends[1].1["text"]), (&json!(4000), &json!("Tool done, outputs=1.")));
    assert_eq!(ends[2].1["ran"], json!(["change add /workspace/appfile.txt"]));
    assert!(ends.iter().all(|(class, _)| class == "completed"));
}

#[test]
fn recorded_failures_have_their_class() {
    let mut bench = Bench::new();
    let ends = play(&mut bench, ERRORS);
    let classes: Vec<&str> = ends.iter().map(|(class, _)| class.as_str()).collect();
    let expected = [
        "usage_limit",
        "rate_limit",
        "usage_limit",
        "auth",
        "blocked_page",
        "model_unknown",
        "context_overflow",
        "model_error",
        "model_error",
        "model_error",
        "network",
        "network",
        "network",
        "model_error",
        "rate_limit",
        "model_error",
        "completed",
    ];
    assert_eq!(classes, expected);
    assert!(ends[0].1["resets"].is_u64(), "{:?}", ends[0]);
    assert!(ends.iter().take(16).all(|(_, end)| end["safe"] == json!(true)));
    assert_eq!(bench.machine.unmatched(), 0);
}

#[test]
fn the_first_turn_goes_through_the_whole_handshake_in_order() {
    let mut bench = Bench::new();
    bench.begin(1, Runtime::Codex, None);
    let (child, spec) = bench.spawned();
    assert_eq!(
        (spec.args.as_slice(), spec.stdin_open, spec.polite),
        (&["app-server".to_owned()][..], true, Polite::CloseStdin)
    );
    let (_, hello) = bench.asked("initialize");
    assert_eq!(
        (&hello["clientInfo"]["name"], &hello["capabilities"]["experimentalApi"]),
        (&json!("cofferdam"), &json!(true))
    );
    bench.look();
    bench.pass(100);
    assert!(bench.look().is_empty());
    bench.begin(2, Runtime::Codex, None);
    assert!(!bench.has(|e| matches!(e, Effect::Spawn(..))), "one child for all");
    bench.give(Input::Line(child, r#"{"id":1,"result":{"userAgent":"cofferdam/0.169.0 (x)"}}"#.into()));
    assert_eq!(bench.writes()[0], json!({"method": "initialized"}));
    let (_, params) = bench.asked("thread/start");
    assert_eq!(
        params,
        json!({"model": "gpt-5.5", "modelProvider": "mock", "approvalPolicy": "never",
        "approvalsReviewer": "user", "sandbox": "workspace-write"})
    );
    bench.answer(child, "thread/start", &json!({"thread": {"id": THREAD}, "modelProvider": "mock"}));
    let order: Vec<&Record> = bench.records().into_iter().rev().take(2).rev().collect();
    assert_eq!(order, [&Record::Thread(AttemptId(2), THREAD.into()), &Record::Prompted(AttemptId(2))]);
    assert!(matches!(bench.effects.last(), Some(Effect::Write(_, line)) if line.contains("turn/start")));
}

#[test]
fn versions_that_are_not_known_to_work_are_refused_by_name() {
    for (agent, part) in [("lab/0.124.0 (x)", "0.124.0"), ("lab/0.170.0-alpha.1 (x)", "alpha"), ("", "no release")] {
        let mut bench = Bench::new();
        bench.begin(1, Runtime::Codex, None);
        let (child, _) = bench.spawned();
        bench.answer(child, "initialize", &json!({"userAgent": agent}));
        assert!(bench.has(|e| *e == Effect::End(child)));
        let end = bench.fails(FailureClass::CodexStart);
        assert!(end.replay_safe && end.detail.contains(part), "{}", end.detail);
        bench.give(Input::Exited(child, exit(0, "")));
        assert_eq!(bench.machine.children(), 0);
    }
}

#[test]
fn a_loaded_thread_is_not_resumed_again_but_after_a_reload_it_is() {
    let mut bench = Bench::new();
    let child = bench.app_turn(1);
    bench.message(child, "one");
    bench.app_end(child, "completed");
    assert_eq!(bench.end().1, "one");
    bench.begin(2, Runtime::Codex, Some(THREAD));
    bench.turn_runs(child, THREAD, "u1");
    assert!(bench.writes().iter().all(|w| w["method"] != "thread/resume"));
    let mut other = configure();
    other.network = false;
    bench.give(Input::Configured(Box::new(other)));
    assert!(!bench.has(|e| matches!(e, Effect::End(_))), "not in the middle of a turn");
    bench.app_end(child, "completed");
    assert!(bench.has(|e| *e == Effect::End(child)), "an old configuration retires with its last turn");
}

#[test]
fn a_thread_of_another_provider_is_forked() {
    for known in [false, true] {
        let mut bench = Bench::new();
        let child = if known {
            let child = bench.app_turn(1);
            bench.app_end(child, "completed");
            bench.look();
            bench.begin_on(2, route(Runtime::Codex, "other"), Some(THREAD));
            child
        } else {
            bench.begin_on(2, route(Runtime::Codex, "other"), Some(THREAD));
            let child = bench.server_up();
            let refusal =
                "failed to load configuration: Cannot change this thread's model provider from `a` to `b` on resume.";
            bench.refuse(child, "thread/resume", refusal);
            child
        };
        let (_, params) = bench.asked("thread/fork");
        assert_eq!((&params["threadId"], &params["modelProvider"]), (&json!(THREAD), &json!("other")));
        bench.answer(child, "thread/fork", &json!({"thread": {"id": "new"}, "modelProvider": "other"}));
        assert_eq!(bench.asked("turn/start").1["threadId"], "new");
        bench.turn_runs(child, "new", "u2");
        bench.news(child, "turn/completed", "new", "u2", json!({"turn": {"id": "u2", "status": "completed"}}));
        assert_eq!(bench.end().0.thread.as_deref(), Some("new"));
    }
}

#[test]
fn a_provider_that_was_not_asked_for_never_gets_the_prompt() {
    let mut bench = Bench::new();
    bench.begin(1, Runtime::Codex, None);
    let child = bench.server_up();
    bench.answer(child, "thread/start", &json!({"thread": {"id": THREAD}, "modelProvider": "openai"}));
    assert!(bench.writes().iter().all(|w| w["method"] != "turn/start"));
    assert!(bench.fails(FailureClass::CodexProtocol).replay_safe);
}

#[test]
fn an_unknown_thread_is_a_clear_failure_that_may_be_replayed() {
    let mut bench = Bench::new();
    bench.begin(1, Runtime::Codex, Some(THREAD));
    let child = bench.server_up();
    bench.refuse(child, "thread/resume", "no rollout found for thread id x");
    let end = bench.fails(FailureClass::CodexStart);
    assert!(end.replay_safe && end.detail.contains("no rollout"));
}

#[test]
fn an_interrupt_waits_until_it_can_be_heard_and_cleans_up() {
    let mut bench = Bench::new();
    bench.begin(1, Runtime::Codex, None);
    let child = bench.server_up();
    bench.answer(child, "thread/start", &json!({"thread": {"id": THREAD}, "modelProvider": "mock"}));
    bench.answer(child, "turn/start", &json!({"turn": {"id": "u1"}}));
    bench.give(Input::Interrupt(AttemptId(1), InterruptReason::Asked));
    assert!(bench.writes().iter().all(|w| w["method"] != "turn/interrupt"), "it would be lost before turn/started");
    bench.news(child, "turn/started", THREAD, "u1", json!({"turn": {"id": "u1"}}));
    assert_eq!(bench.asked("turn/interrupt").1, json!({"threadId": THREAD, "turnId": "u1"}));
    bench.app_end(child, "interrupted");
    assert_eq!(bench.asked("thread/backgroundTerminals/clean").1, json!({"threadId": THREAD}));
    assert_eq!(bench.end().0.outcome, Outcome::Interrupted);
}

#[test]
fn an_interrupt_that_is_not_heard_ends_the_child_and_with_it_the_others() {
    let mut bench = Bench::new();
    let child = bench.app_turn(1);
    bench.begin(2, Runtime::Codex, None);
    bench.answer(child, "thread/start", &json!({"thread": {"id": "t2"}, "modelProvider": "mock"}));
    bench.turn_runs(child, "t2", "u2");
    bench.give(Input::Interrupt(AttemptId(1), InterruptReason::Asked));
    bench.pass(4999);
    assert!(!bench.has(|e| *e == Effect::End(child)));
    bench.pass(1);
    assert!(bench.has(|e| *e == Effect::End(child)));
    bench.give(Input::Exited(child, exit(0, "")));
    assert_eq!(bench.end().0.outcome, Outcome::Interrupted);
    bench.give(Input::RolloutRead(AttemptId(2), Rollout { read: true, ran: Vec::new(), only_words: true }));
    let end = bench.fails(FailureClass::CodexExit);
    assert!(end.replay_safe && end.detail.contains("another turn"), "{}", end.detail);
}

#[test]
fn silence_of_one_turn_is_not_broken_by_another() {
    let mut bench = Bench::new();
    let child = bench.app_turn(1);
    for _ in 0..4 {
        bench.pass(CLOCKS.silence_ms / 4);
        bench.news(child, "item/agentMessage/delta", "another", "u9", json!({"delta": "x"}));
    }
    bench.asked("turn/interrupt");
    bench.app_end(child, "interrupted");
    assert!(bench.fails(FailureClass::CodexSilent).replay_safe, "it was seen to have done nothing");
}

#[test]
fn a_compaction_has_a_clock_of_its_own() {
    let mut bench = Bench::new();
    let child = bench.app_turn(1);
    bench.news(child, "item/started", THREAD, "u1", json!({"item": {"type": "contextCompaction", "id": "c"}}));
    assert!(bench.told().iter().any(|m| matches!(m, FromWorker::Progress(p) if p.phase == Phase::Compacting)));
    bench.pass(CLOCKS.compaction_ms - 1);
    assert!(bench.writes().iter().all(|w| w["method"] != "turn/interrupt"), "silence does not count");
    bench.pass(1);
    bench.asked("turn/interrupt");
    bench.app_end(child, "interrupted");
    bench.fails(FailureClass::CompactionTimeout);
}

#[test]
fn steers_are_answered_once_each() {
    let mut bench = Bench::new();
    let child = bench.app_turn(1);
    for turn in 1..=4 {
        bench.give(Input::Steer { attempt: AttemptId(1), turn: TurnId(turn), text: "x".into() });
        if turn == 1 {
            let (id, params) = bench.asked("turn/steer");
            assert_eq!(params["expectedTurnId"], "u1");
            bench.line(child, &json!({"id": id, "result": {"turnId": "u1"}}));
        }
        if turn == 2 {
            bench.refuse(child, "turn/steer", "no active turn to steer");
        }
    }
    bench.app_end(child, "completed");
    bench.give(Input::Steer { attempt: AttemptId(1), turn: TurnId(5), text: "late".into() });
    bench.give(Input::Exited(child, exit(0, "")));
    let answers: Vec<_> = bench.steered().iter().map(|s| (s.turn.0, s.taken)).collect();
    assert_eq!(answers, [(1, true), (2, false), (3, false), (4, false), (5, false)]);
}

#[test]
fn requests_are_refused_and_a_person_may_read_it() {
    let mut bench = Bench::new();
    let child = bench.app_turn(1);
    bench.look();
    for id in 0..3 {
        bench.line(
            child,
            &json!({"id": id, "method": "item/commandExecution/requestApproval",
            "params": {"threadId": THREAD, "turnId": "u1", "command": "rm -rf /"}}),
        );
    }
    assert_eq!(bench.writes().len(), 3);
    assert_eq!(bench.writes()[0], json!({"id": 0, "result": {"decision": "decline"}}));
    assert_eq!(bench.told().iter().filter(|m| matches!(m, FromWorker::Note(_))).count(), 1);
    bench.line(child, &json!({"id": "s", "method": "what/ever", "params": [1]}));
    assert_eq!(bench.writes()[3]["error"]["code"], -32601);
}

#[test]
fn a_lost_server_ends_its_turns_and_the_next_turn_gets_a_new_one() {
    let mut bench = Bench::new();
    let child = bench.app_turn(1);
    let item = json!({"item": {"type": "commandExecution", "id": "c", "command": "make"}});
    bench.news(child, "item/started", THREAD, "u1", item);
    bench.give(Input::Exited(child, Exit { signal: Some(9), ..Exit::default() }));
    bench.give(Input::RolloutRead(AttemptId(1), Rollout { read: true, ran: Vec::new(), only_words: true }));
    let end = bench.fails(FailureClass::CodexExit);
    assert!(!end.replay_safe, "a command was seen to begin, whatever the rollout says");
    assert_eq!(
        (end.ran, end.signal, end.codex_version.as_deref()),
        (vec!["make".to_owned()], Some(9), Some("0.169.0"))
    );
    bench.begin(2, Runtime::Codex, Some(THREAD));
    let child = bench.server_up();
    bench.answer(child, "thread/resume", &json!({"thread": {"id": THREAD}, "modelProvider": "mock"}));
    assert_eq!(bench.asked("turn/start").1["threadId"], THREAD);
}

#[test]
fn a_thread_is_told_its_model_once_and_again_where_that_is_not_sure() {
    let model = |bench: &Bench| bench.asked("turn/start").1.get("model").cloned();
    let mut bench = Bench::new();
    bench.begin(1, Runtime::Codex, None);
    let child = bench.server_up();
    bench.answer(child, "thread/start", &json!({"thread": {"id": THREAD}, "modelProvider": "mock"}));
    assert_eq!(model(&bench), Some(json!("gpt-5.5")));
    bench.turn_runs(child, THREAD, "u1");
    bench.app_end(child, "completed");
    bench.look();
    bench.begin(2, Runtime::Codex, Some(THREAD));
    assert_eq!(model(&bench), None, "it has it");
    bench.refuse(child, "turn/start", "busy");
    bench.look();
    bench.begin(3, Runtime::Codex, Some(THREAD));
    assert_eq!(model(&bench), Some(json!("gpt-5.5")), "what a refusal leaves is unknown");
}

#[test]
fn a_server_that_never_starts_fails_those_that_wait() {
    for input in [0, 1, 2] {
        let mut bench = Bench::new();
        bench.begin(1, Runtime::Codex, None);
        let (child, _) = bench.spawned();
        let class = match input {
            0 => {
                bench.give(Input::SpawnFailed(child, SpawnFailure::Missing("no codex".into())));
                FailureClass::CodexMissing
            }
            1 => {
                bench.give(Input::Exited(child, exit(1, "Error loading config.toml: bogus")));
                FailureClass::CodexStart
            }
            _ => {
                bench.pass(CLOCKS.first_event_ms);
                FailureClass::CodexStart
            }
        };
        assert!(bench.fails(class).replay_safe);
        bench.pass(60_000);
        assert_eq!((bench.machine.running(), bench.machine.children()), (0, 0));
    }
}

#[test]
fn an_idle_server_is_retired() {
    let mut bench = Bench::new();
    let child = bench.app_turn(1);
    bench.app_end(child, "completed");
    bench.look();
    bench.pass(CLOCKS.idle_after_ms - 1);
    assert!(bench.look().is_empty());
    bench.pass(1);
    assert_eq!(bench.look(), [Effect::End(child)]);
    // A turn that comes meanwhile gets the next one.
    bench.begin(2, Runtime::Codex, Some(THREAD));
    assert!(!bench.has(|e| matches!(e, Effect::Spawn(..))));
    bench.give(Input::Exited(child, exit(0, "")));
    bench.spawned();
}

#[test]
fn a_thread_that_the_server_holds_is_freed_for_exec() {
    let mut bench = Bench::new();
    let child = bench.app_turn(1);
    bench.app_end(child, "completed");
    bench.look();
    bench.begin(2, Runtime::CodexCli, Some(THREAD));
    assert!(bench.has(|e| *e == Effect::End(child)) && !bench.has(|e| matches!(e, Effect::Spawn(..))));
    bench.give(Input::Exited(child, exit(0, "")));
    assert!(bench.spawned().1.args.contains(&"resume".to_owned()));
    // And back: the app-server waits for the exec child to be gone.
    let (exec, _) = bench.spawned();
    bench.line(exec, &json!({"type": "thread.started", "thread_id": THREAD}));
    bench.line(exec, &json!({"type": "turn.completed"}));
    bench.look();
    bench.begin(3, Runtime::Codex, Some(THREAD));
    assert!(!bench.has(|e| matches!(e, Effect::Spawn(..))));
    bench.give(Input::Exited(exec, exit(0, "")));
    assert_eq!(bench.spawned().1.args, ["app-server"]);
}

#[test]
fn a_thread_that_cannot_be_freed_is_a_clear_failure() {
    let mut bench = Bench::new();
    let child = bench.app_turn(1);
    bench.app_end(child, "completed");
    bench.begin(2, Runtime::Codex, None);
    bench.look();
    bench.begin(3, Runtime::CodexCli, Some(THREAD));
    let end = bench.fails(FailureClass::CodexStart);
    assert!(end.replay_safe && end.detail.contains("held by the app-server"));
}

#[test]
fn news_of_other_turns_change_nothing() {
    let mut bench = Bench::new();
    let child = bench.app_turn(1);
    bench.news(child, "turn/completed", THREAD, "old", json!({"turn": {"id": "old", "status": "interrupted"}}));
    bench.news(child, "turn/completed", "other", "u1", json!({"turn": {"id": "u1", "status": "failed"}}));
    assert!(bench.finishes().is_empty());
    bench.app_end(child, "interrupted");
    bench.fails(FailureClass::CodexExit);
}

#[test]
fn a_huge_answer_is_cut_with_a_note() {
    let mut bench = Bench::new();
    let child = bench.app_turn(1);
    bench.message(child, &"ä".repeat(9 * 1024 * 1024));
    bench.app_end(child, "completed");
    assert!(bench.told().iter().any(|m| matches!(m, FromWorker::Note(note) if note.contains("was cut"))));
    assert_eq!(bench.end().1.len(), 16 * 1024 * 1024);
}

#[test]
fn what_is_no_id_of_a_thread_never_reaches_codex() {
    for (runtime, thread) in [(Runtime::CodexCli, "my-thread"), (Runtime::Codex, ""), (Runtime::CodexCli, "--help")] {
        let mut bench = Bench::new();
        bench.begin(1, runtime, Some(thread));
        assert!(!bench.has(|e| matches!(e, Effect::Spawn(..))));
        assert!(bench.fails(FailureClass::CodexStart).replay_safe);
    }
}

#[test]
fn a_turn_that_has_not_got_its_prompt_survives_the_end_of_the_server() {
    let mut bench = Bench::new();
    let child = bench.app_turn(1);
    bench.begin(2, Runtime::Codex, None);
    bench.give(Input::Interrupt(AttemptId(1), InterruptReason::Asked));
    bench.pass(5000);
    bench.refuse(child, "thread/start", "too late");
    bench.give(Input::Exited(child, exit(0, "")));
    assert_eq!(bench.end().0.outcome, Outcome::Interrupted);
    assert_eq!(bench.machine.running(), 1);
    bench.pass(CLOCKS.first_event_ms);
    assert!(bench.fails(FailureClass::CodexStart).replay_safe, "the next server was asked for and said nothing");
}

#[test]
fn a_turn_that_is_taken_but_never_starts_is_silent() {
    let mut bench = Bench::new();
    bench.begin(1, Runtime::Codex, None);
    let child = bench.server_up();
    bench.answer(child, "thread/start", &json!({"thread": {"id": THREAD}, "modelProvider": "mock"}));
    bench.answer(child, "turn/start", &json!({"turn": {"id": "u1"}}));
    bench.pass(CLOCKS.first_event_ms + 5000);
    assert!(bench.has(|e| *e == Effect::End(child)));
    bench.give(Input::Exited(child, exit(0, "")));
    bench.give(Input::RolloutRead(AttemptId(1), Rollout { read: true, ran: Vec::new(), only_words: true }));
    assert!(bench.fails(FailureClass::CodexSilent).replay_safe);
}

#[test]
fn a_turn_whose_thread_is_not_open_yet_is_interrupted_at_once() {
    let mut bench = Bench::new();
    bench.begin(1, Runtime::Codex, None);
    let child = bench.server_up();
    bench.give(Input::Interrupt(AttemptId(1), InterruptReason::Asked));
    assert_eq!(bench.finishes().len(), 1);
    // The thread that comes too late is known to be held.
    bench.answer(child, "thread/start", &json!({"thread": {"id": THREAD}, "modelProvider": "mock"}));
    bench.look();
    bench.begin(2, Runtime::CodexCli, Some(THREAD));
    assert!(bench.has(|e| *e == Effect::End(child)));
}

#[test]
fn a_resume_that_kept_another_provider_is_forked_and_counts_its_own_tokens() {
    let mut bench = Bench::new();
    bench.begin_on(1, route(Runtime::Codex, "other"), Some(THREAD));
    let child = bench.server_up();
    bench.answer(child, "thread/resume", &json!({"thread": {"id": THREAD}, "modelProvider": "mock"}));
    bench.answer(child, "thread/fork", &json!({"thread": {"id": "new"}, "modelProvider": "other"}));
    bench.turn_runs(child, "new", "u2");
    for (total, last) in [(1100, 100), (1350, 250)] {
        let usage = json!({"total": {"inputTokens": total, "outputTokens": 9}, "last": {"inputTokens": last, "outputTokens": 4}});
        bench.news(child, "thread/tokenUsage/updated", "new", "u2", json!({"tokenUsage": usage}));
    }
    bench.news(child, "turn/completed", "new", "u2", json!({"turn": {"id": "u2", "status": "completed"}}));
    let (end, _) = bench.end();
    assert_eq!((end.thread.as_deref(), end.input_tokens, end.output_tokens), (Some("new"), 350, 4));
}
