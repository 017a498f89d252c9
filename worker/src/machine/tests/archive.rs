//! Old rollouts go into Codex' archive, and one that is wanted comes back.

use super::bench::{Bench, THREAD, configure, exit};
use crate::machine::io::{ChildId, Effect, Input};
use protocol::to_worker::Limits;
use protocol::{FailureClass, FromWorker, Outcome, Runtime};
use serde_json::json;

const OLD: [&str; 3] = [
    "01a1fbcc-0000-7000-8000-000000000001",
    "01a1fbcc-0000-7000-8000-000000000002",
    "01a1fbcc-0000-7000-8000-000000000003",
];
const DAY_MS: u64 = 86_400_000;

fn refusal(thread: &str) -> String {
    format!("session {thread} is archived. Run `codex unarchive {thread}` to unarchive it first.")
}

fn names(threads: &[&str]) -> Vec<String> {
    threads.iter().map(|thread| (*thread).to_owned()).collect()
}

fn searches(bench: &Bench) -> Vec<u64> {
    bench.effects.iter().filter_map(|e| if let Effect::FindOld(ms) = e { Some(*ms) } else { None }).collect()
}

fn moves(bench: &Bench) -> usize {
    bench.writes().iter().filter(|message| message["method"] == "thread/archive").count()
}

fn notes(bench: &Bench) -> Vec<String> {
    let notes =
        bench.told().into_iter().filter_map(|m| if let FromWorker::Note(n) = m { Some(n.clone()) } else { None });
    notes.filter(|note| note.contains("archive")).collect()
}

/// A turn has run on the app-server, and the search is under way.
fn searched() -> (Bench, ChildId) {
    let mut bench = Bench::new();
    let child = bench.app_turn(1);
    assert!(searches(&bench).is_empty(), "not while somebody waits");
    bench.message(child, "done");
    bench.app_end(child, "completed");
    assert_eq!(searches(&bench), [30 * DAY_MS]);
    bench.look();
    (bench, child)
}

/// The supervisor has named all but the last.
fn spared() -> (Bench, ChildId) {
    let (mut bench, child) = searched();
    bench.give(Input::OldFound(names(&OLD)));
    assert!(bench.told().contains(&&FromWorker::Spare(names(&OLD))));
    bench.give(Input::Spared(names(&[OLD[1], "another", OLD[0]])));
    (bench, child)
}

#[test]
fn only_what_the_supervisor_names_is_moved_oldest_first_and_one_by_one() {
    let (mut bench, child) = spared();
    assert_eq!((bench.asked("thread/archive").1, moves(&bench)), (json!({"threadId": OLD[0]}), 1));
    bench.answer(child, "thread/archive", &json!({}));
    assert_eq!((bench.asked("thread/archive").1, moves(&bench)), (json!({"threadId": OLD[1]}), 2));
    bench.refuse(child, "thread/archive", "no rollout found for it");
    assert_eq!(moves(&bench), 2);
    let notes = notes(&bench);
    assert!(notes.len() == 1 && notes[0].starts_with("1 old") && notes[0].contains("no rollout found"), "{notes:?}");
    assert!(!bench.has(|e| *e == Effect::End(child)), "a warm Codex stays warm");
    bench.give(Input::Spared(names(&OLD)));
    assert_eq!(moves(&bench), 2, "nobody had asked");
}

#[test]
fn a_worker_that_is_not_answered_moves_nothing_and_asks_the_next_supervisor() {
    let (mut bench, _) = searched();
    bench.give(Input::OldFound(names(&OLD)));
    bench.give(Input::LinkDown);
    bench.give(Input::Spared(names(&OLD)));
    assert_eq!(moves(&bench), 0);
    bench.look();
    bench.give(Input::LinkUp);
    assert_eq!(searches(&bench), [30 * DAY_MS]);
    bench.give(Input::OldFound(Vec::new()));
    assert!(!bench.told().iter().any(|m| matches!(m, FromWorker::Spare(_))), "nothing is old");
}

#[test]
fn a_search_is_made_once_a_day_and_a_turn_goes_first() {
    let (mut bench, child) = spared();
    bench.begin(2, Runtime::Codex, Some(OLD[1]));
    bench.answer(child, "thread/archive", &json!({}));
    assert_eq!(moves(&bench), 1, "a turn waits");
    bench.answer(child, "thread/resume", &json!({"thread": {"id": OLD[1]}, "modelProvider": "mock"}));
    bench.turn_runs(child, OLD[1], "u2");
    bench.news(
        child,
        "turn/completed",
        OLD[1],
        "u2",
        json!({"turn": {"id": "u2", "status": "completed", "items": []}}),
    );
    assert_eq!(moves(&bench), 1, "somebody goes on with it");
    assert!(searches(&bench).is_empty());
    bench.pass(DAY_MS);
    assert_eq!(searches(&bench), [30 * DAY_MS]);
}

#[test]
fn a_codex_that_is_started_for_it_goes_with_it() {
    let mut bench = Bench::new();
    bench.begin(1, Runtime::CodexCli, None);
    let (exec, _) = bench.spawned();
    bench.line(exec, &json!({"type": "thread.started", "thread_id": THREAD}));
    bench.line(exec, &json!({"type": "turn.started"}));
    bench.line(exec, &json!({"type": "turn.completed"}));
    bench.give(Input::Exited(exec, exit(0, "")));
    bench.give(Input::OldFound(names(&OLD[..1])));
    bench.look();
    bench.give(Input::Spared(names(&OLD[..1])));
    let server = bench.server_up();
    bench.answer(server, "thread/archive", &json!({}));
    assert!(bench.has(|e| *e == Effect::End(server)), "{:?}", bench.effects);
    bench.give(Input::Exited(server, exit(0, "")));
    assert_eq!(bench.machine.children(), 0);
    // One that never stays is given up.
    bench.pass(DAY_MS);
    bench.look();
    bench.begin(2, Runtime::CodexCli, Some("no id"));
    bench.pass(1);
    bench.give(Input::OldFound(names(&OLD)));
    bench.give(Input::Spared(names(&OLD)));
    for _ in 0..3 {
        let (server, _) = bench.spawned();
        bench.look();
        bench.give(Input::Exited(server, exit(1, "Error: no")));
    }
    assert!(
        !bench.has(|e| matches!(e, Effect::Spawn(..))) && notes(&bench)[0].contains("3 wait"),
        "{:?}",
        notes(&bench)
    );
}

#[test]
fn a_full_folder_makes_a_day_old() {
    const MIB: u64 = 1 << 20;
    let (mut bench, child) = searched();
    bench.give(Input::OldFound(Vec::new()));
    let mut configure = configure();
    configure.limits = Limits { disk_max: Some(100 * MIB), ..Limits::default() };
    bench.give(Input::Configured(Box::new(configure)));
    bench.give(Input::Exited(child, exit(0, "")));
    bench.give(Input::DiskLooked(90 * MIB));
    assert!(bench.has(|e| *e == Effect::PruneLogs) && searches(&bench).is_empty(), "logs first");
    assert!(bench.has(|e| *e == Effect::LookAtDisk), "and what is left is looked at at once: {:?}", bench.effects);
    bench.look();
    bench.give(Input::DiskLooked(79 * MIB));
    assert!(searches(&bench).is_empty());
    bench.give(Input::DiskLooked(90 * MIB));
    assert_eq!(searches(&bench), [DAY_MS]);
    bench.give(Input::OldFound(Vec::new()));
    bench.give(Input::DiskLooked(90 * MIB));
    assert_eq!(searches(&bench), [DAY_MS], "once an hour");
}

#[test]
fn an_archived_thread_comes_back_before_its_turn_on_the_app_server() {
    let mut bench = Bench::new();
    bench.begin(1, Runtime::Codex, Some(THREAD));
    let child = bench.server_up();
    bench.refuse(child, "thread/resume", &refusal(THREAD));
    assert_eq!(bench.asked("thread/unarchive").1, json!({"threadId": THREAD}));
    bench.answer(child, "thread/unarchive", &json!({"thread": {"id": THREAD}}));
    bench.answer(child, "thread/resume", &json!({"thread": {"id": THREAD}, "modelProvider": "mock"}));
    assert_eq!(notes(&bench).len(), 1);
    bench.turn_runs(child, THREAD, "u1");
    bench.message(child, "done");
    bench.app_end(child, "completed");
    assert_eq!(bench.end().0.outcome, Outcome::Completed);
}

#[test]
fn one_that_does_not_come_back_is_said_so() {
    let mut bench = Bench::new();
    bench.begin(1, Runtime::Codex, Some(THREAD));
    let child = bench.server_up();
    bench.refuse(child, "thread/resume", &refusal(THREAD));
    bench.refuse(child, "thread/unarchive", "no archived rollout found");
    let end = bench.fails(FailureClass::CodexStart);
    assert!(end.replay_safe && end.detail.contains("no archived rollout found"), "{end:?}");
    bench.begin(2, Runtime::Codex, Some(THREAD));
    for _ in 0..2 {
        bench.refuse(child, "thread/resume", &refusal(THREAD));
        if bench.has(|e| matches!(e, Effect::Finish(..))) {
            break;
        }
        bench.answer(child, "thread/unarchive", &json!({}));
    }
    assert!(bench.fails(FailureClass::CodexStart).detail.contains("is archived"), "it comes back once");
}

#[test]
fn an_archived_thread_comes_back_before_its_turn_on_exec() {
    let mut bench = Bench::new();
    bench.begin(1, Runtime::CodexCli, Some(THREAD));
    let (exec, _) = bench.spawned();
    bench.look();
    let stderr = format!("Error: thread/resume: thread/resume failed: {} (code -32600)\n", refusal(THREAD));
    bench.give(Input::Exited(exec, exit(1, &stderr)));
    let server = bench.server_up();
    assert_eq!(bench.asked("thread/unarchive").1, json!({"threadId": THREAD}));
    bench.answer(server, "thread/unarchive", &json!({"thread": {"id": THREAD}}));
    bench.effects.retain(|e| !matches!(e, Effect::Spawn(child, _) if *child == server));
    assert!(bench.has(|e| *e == Effect::End(server)), "it was there for nothing else: {:?}", bench.effects);
    let (exec, spec) = bench.spawned();
    assert!(spec.args.contains(&THREAD.to_owned()), "{spec:?}");
    bench.line(exec, &json!({"type": "thread.started", "thread_id": THREAD}));
    bench.line(exec, &json!({"type": "turn.started"}));
    bench.line(exec, &json!({"type": "turn.completed"}));
    assert_eq!(bench.end().0.outcome, Outcome::Completed);
    // Whoever is refused while he waits for it is told why.
    bench.give(Input::Exited(exec, exit(0, "")));
    bench.give(Input::Exited(server, exit(0, "")));
    bench.begin(2, Runtime::CodexCli, Some(THREAD));
    let (exec, _) = bench.spawned();
    bench.look();
    bench.give(Input::Exited(exec, exit(1, &stderr)));
    let (server, _) = bench.spawned();
    bench.give(Input::Exited(server, exit(1, "Error: no")));
    assert!(bench.fails(FailureClass::CodexStart).replay_safe);
}
