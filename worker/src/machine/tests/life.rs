//! The worker's own life: the link, recovery, drain, terminate, orphan.

use super::bench::{Bench, CLOCKS, THREAD, configure, exit, route};
use crate::machine::Machine;
use crate::machine::io::{Effect, Input, Rollout};
use protocol::from_worker::Isolation;
use protocol::journal::{Begun, Record, Standing};
use protocol::{AttemptId, FailureClass, Finished, FromWorker, Outcome, Runtime, Text, TurnId};
use serde_json::json;

#[test]
fn a_known_attempt_is_answered_with_its_state() {
    let mut bench = Bench::new();
    let child = bench.app_turn(1);
    bench.look();
    bench.begin(1, Runtime::Codex, None);
    assert_eq!(bench.look(), [Effect::Tell(FromWorker::Begun(AttemptId(1)))]);
    bench.message(child, "done");
    bench.app_end(child, "completed");
    let (end, _) = bench.end();
    assert_eq!(end.text, Text::Inline("done".into()));
    bench.begin(1, Runtime::Codex, None);
    assert_eq!(bench.look(), [Effect::Tell(FromWorker::Finished(Box::new(end)))]);
    bench.give(Input::Acked(AttemptId(1)));
    bench.give(Input::Acked(AttemptId(1)));
    assert_eq!(bench.look(), [Effect::Journal(Record::Acked(AttemptId(1)))]);
}

#[test]
fn a_long_answer_is_finished_again_at_a_new_link() {
    let mut bench = Bench::new();
    let child = bench.app_turn(1);
    bench.message(child, &"x".repeat(300_000));
    bench.app_end(child, "completed");
    let (end, text) = bench.end();
    assert_eq!((text.len(), end.text), (300_000, Text::empty()));
    bench.give(Input::LinkDown);
    bench.give(Input::LinkUp);
    assert_eq!(bench.finishes().len(), 1);
}

#[test]
fn ready_is_told_when_linked_and_configured_and_again_after_a_reload() {
    let mut bench = Bench::of(Machine::new(0));
    bench.machine.set_isolation(Isolation::BestEffort);
    let ready = |bench: &Bench| {
        bench
            .told()
            .iter()
            .filter(|m| matches!(m, FromWorker::Ready(r) if r.isolation == Isolation::BestEffort))
            .count()
    };
    bench.give(Input::Configured(Box::new(configure())));
    assert_eq!(ready(&bench), 0);
    bench.give(Input::LinkUp);
    assert_eq!(ready(&bench), 1);
    bench.give(Input::Configured(Box::new(configure())));
    assert_eq!(ready(&bench), 2);
}

#[test]
fn a_new_link_hears_what_it_missed() {
    let mut bench = Bench::new();
    let child = bench.app_turn(1);
    bench.app_end(child, "completed");
    bench.begin(2, Runtime::Codex, None);
    bench.give(Input::LinkDown);
    bench.look();
    bench.give(Input::LinkUp);
    let told = bench.told();
    assert_eq!(told[0], &FromWorker::Begun(AttemptId(2)));
    assert!(matches!(told[1], FromWorker::Finished(end) if end.attempt == AttemptId(1)));
    assert!(matches!(told[2], FromWorker::Ready(ready) if ready.running == [AttemptId(2)]));
}

fn standing(attempt: u64, prompted: bool, thread: Option<&str>) -> Standing {
    let begun = Begun {
        attempt: AttemptId(attempt),
        turn: TurnId(attempt),
        route: route(Runtime::CodexCli, "mock"),
        thread: None,
        rollout_bytes: 0,
        at_ms: 0,
    };
    Standing { begun, prompted, thread: thread.map(str::to_owned), ended: None }
}

#[test]
fn what_an_earlier_incarnation_left_is_told() {
    let mut bench = Bench::of(Machine::new(0));
    let mut ended = standing(4, true, None);
    ended.ended = Some(Box::new(Finished::new(AttemptId(4), TurnId(4), Outcome::Completed)));
    let standings = vec![standing(1, false, None), standing(2, true, None), standing(3, true, Some(THREAD)), ended];
    bench.give(Input::Recovered(standings));
    let ends = bench.finishes();
    assert_eq!(
        ends.iter().map(|(end, _)| (end.attempt.0, end.replay_safe)).collect::<Vec<_>>(),
        [(1, true), (2, false)]
    );
    assert!(ends.iter().all(|(end, _)| end.outcome == Outcome::Failed(FailureClass::WorkerLost)));
    assert!(bench.has(|e| matches!(e, Effect::ReadRollout { attempt: AttemptId(3), from_bytes: 0, .. })));
    bench.look();
    bench.give(Input::RolloutRead(AttemptId(3), Rollout { read: true, ran: vec!["ls".into()], only_words: false }));
    let end = bench.fails(FailureClass::WorkerLost);
    assert_eq!((end.replay_safe, end.ran), (false, vec!["ls".to_owned()]));
    bench.give(Input::LinkUp);
    let told = bench.told().iter().filter(|m| matches!(m, FromWorker::Finished(_))).count();
    assert_eq!(told, 4);
}

#[test]
fn a_drain_finishes_what_runs_and_refuses_the_rest() {
    let mut bench = Bench::new();
    let child = bench.app_turn(1);
    bench.give(Input::Drain);
    bench.look();
    bench.begin(2, Runtime::CodexCli, None);
    assert!(bench.fails(FailureClass::Shutdown).replay_safe);
    bench.app_end(child, "completed");
    assert!(bench.has(|e| *e == Effect::End(child)) && !bench.has(|e| *e == Effect::Leave));
    bench.give(Input::Acked(AttemptId(1)));
    bench.give(Input::Exited(child, exit(0, "")));
    assert!(!bench.has(|e| *e == Effect::Leave), "an outcome waits for its acknowledgement");
    bench.give(Input::Acked(AttemptId(2)));
    assert!(bench.has(|e| *e == Effect::Leave));
    bench.look();
    bench.pass(10_000_000);
    assert!(bench.look().is_empty() && bench.machine.deadline().is_none(), "it leaves once");
}

#[test]
fn an_acknowledgement_is_not_waited_for_without_end() {
    let mut bench = Bench::new();
    let child = bench.app_turn(1);
    bench.app_end(child, "completed");
    bench.give(Input::Drain);
    bench.give(Input::Exited(child, exit(0, "")));
    bench.look();
    bench.pass(2000);
    assert_eq!(bench.look(), [Effect::Leave]);
}

#[test]
fn terminate_ends_everything_and_leaves() {
    let mut bench = Bench::new();
    let server = bench.app_turn(1);
    bench.look();
    bench.begin(2, Runtime::CodexCli, None);
    bench.begin(3, Runtime::CodexCli, None);
    let (exec, _) = bench.spawned();
    bench.give(Input::LinkDown);
    bench.give(Input::Terminate);
    bench.give(Input::Terminate);
    for child in [server, exec] {
        assert_eq!(bench.effects.iter().filter(|e| **e == Effect::End(child)).count(), 1);
        bench.give(Input::Exited(child, exit(0, "")));
    }
    let ends = bench.finishes();
    assert_eq!(ends.len(), 3);
    assert!(ends.iter().all(|(end, _)| end.outcome == Outcome::Failed(FailureClass::Shutdown)));
    assert_eq!(bench.effects.last(), Some(&Effect::Leave));
}

#[test]
fn an_orphan_leaves_but_never_in_the_middle_of_a_turn() {
    let mut bench = Bench::new();
    let child = bench.app_turn(1);
    bench.give(Input::LinkDown);
    bench.news(
        child,
        "item/started",
        THREAD,
        "u1",
        json!({"item": {"type": "commandExecution", "id": "c", "command": "x"}}),
    );
    bench.tool_lives(THREAD);
    bench.pass(CLOCKS.turn_ms - 1);
    bench.look();
    bench.app_end(child, "completed");
    bench.pass(CLOCKS.idle_after_ms);
    bench.give(Input::Exited(child, exit(0, "")));
    bench.look();
    bench.pass(CLOCKS.orphan_after_ms - CLOCKS.idle_after_ms - 1);
    assert!(bench.look().is_empty());
    bench.pass(1);
    assert_eq!(bench.look(), [Effect::Leave]);
}
