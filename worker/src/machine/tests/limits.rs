//! The envelope: what a look at the agent's processes does to its turns and children.

use super::bench::{Bench, THREAD, configure};
use crate::machine::io::{Amount, ChildId, Effect, Exit, Input, Rollout, Sample};
use protocol::envelope::{By, Controllers, Limit};
use protocol::to_worker::Limits;
use protocol::{AttemptId, FailureClass, FromWorker, Runtime};
use serde_json::json;

const MIB: u64 = 1 << 20;

fn bench(controllers: Controllers) -> Bench {
    let mut bench = Bench::new();
    bench.machine.set_controllers(controllers);
    let mut configure = configure();
    configure.limits =
        Limits { memory_max: Some(200 * MIB), memory_high: Some(100 * MIB), pids_max: Some(50), ..Limits::default() };
    bench.give(Input::Configured(Box::new(configure)));
    bench
}

fn sample(child: ChildId, mib: u64, processes: u32) -> Input {
    let children = vec![(child, Amount { rss_bytes: mib * MIB, processes })];
    Input::Measured(Sample { children, ..Sample::default() })
}

#[test]
fn what_holds_each_limit_is_told_with_ready() {
    let bounds = |controllers| {
        let bench = bench(controllers);
        let told = bench.told();
        let ready =
            told.iter().find_map(|m| if let FromWorker::Ready(ready) = m { Some(ready.bounds.clone()) } else { None });
        ready.unwrap().into_iter().map(|bound| (bound.limit, bound.by)).collect::<Vec<_>>()
    };
    let poor = [(Limit::MemoryMax, By::Sampling), (Limit::MemoryHigh, By::Sampling), (Limit::PidsMax, By::Sampling)];
    assert_eq!(bounds(Controllers::default()), poor);
    let rich = bounds(Controllers { memory: true, pids: true, ..Controllers::default() });
    assert!(rich.iter().all(|(_, by)| *by == By::Kernel), "{rich:?}");
}

#[test]
fn children_are_looked_at_while_they_live_and_no_longer() {
    let mut bench = bench(Controllers::default());
    bench.pass(10_000);
    assert!(!bench.has(|e| *e == Effect::Measure));
    bench.begin(1, Runtime::CodexCli, None);
    let (child, _) = bench.spawned();
    bench.look();
    bench.pass(1000);
    assert_eq!(bench.look().iter().filter(|e| **e == Effect::Measure).count(), 10);
    bench.give(Input::Exited(child, Exit { code: Some(1), ..Exit::default() }));
    bench.look();
    bench.pass(20_000);
    assert!(!bench.has(|e| *e == Effect::Measure));
}

#[test]
fn a_turn_beyond_the_memory_ends_out_of_memory_with_its_child_killed() {
    let mut bench = bench(Controllers::default());
    let child = bench.app_turn(1);
    bench.look();
    bench.give(sample(child, 199, 3));
    assert!(!bench.has(|e| matches!(e, Effect::Kill(_))));
    bench.give(sample(child, 201, 3));
    bench.give(sample(child, 250, 3));
    let effects = bench.look();
    assert_eq!(effects.iter().filter(|e| **e == Effect::Kill(child)).count(), 1, "{effects:?}");
    let notes =
        effects.iter().filter(|e| matches!(e, Effect::Tell(FromWorker::Note(text)) if text.contains("201 MiB")));
    assert_eq!(notes.count(), 1, "{effects:?}");
    bench.give(Input::Exited(child, Exit { signal: Some(9), ..Exit::default() }));
    let proof = Rollout { read: true, ran: vec!["hog".into()], only_words: false };
    bench.give(Input::RolloutRead(AttemptId(1), proof));
    let end = bench.fails(FailureClass::OutOfMemory);
    assert!(end.detail.contains("200 MiB (limits.memory_max)") && !end.replay_safe, "{end:?}");
    // The next turn gets a child of its own.
    bench.begin(2, Runtime::Codex, Some(THREAD));
    assert_ne!(bench.spawned().0, child);
}

#[test]
fn a_turn_with_too_many_processes_ends_as_budget_on_exec_too() {
    let mut bench = bench(Controllers::default());
    bench.begin(1, Runtime::CodexCli, None);
    let (child, _) = bench.spawned();
    bench.line(child, &json!({"type": "thread.started", "thread_id": THREAD}));
    bench.line(child, &json!({"type": "turn.started"}));
    bench.look();
    bench.give(sample(child, 1, 51));
    assert!(bench.has(|e| *e == Effect::Kill(child)));
    bench.look();
    // A kernel that never gives the child back does not keep the turn open.
    bench.pass(20_000);
    bench.give(Input::RolloutRead(AttemptId(1), Rollout::default()));
    let end = bench.fails(FailureClass::Budget);
    assert!(end.detail.contains("limits.pids_max"), "{end:?}");
}

#[test]
fn a_heavy_app_server_is_retired_between_turns_and_said_once() {
    let mut bench = bench(Controllers::default());
    let child = bench.app_turn(1);
    bench.look();
    for mib in [101, 120, 90] {
        bench.give(sample(child, mib, 3));
    }
    let effects = bench.look();
    let notes =
        effects.iter().filter(|e| matches!(e, Effect::Tell(FromWorker::Note(text)) if text.contains("memory_high")));
    assert_eq!(notes.count(), 1, "{effects:?}");
    assert!(!effects.iter().any(|e| matches!(e, Effect::End(_) | Effect::Kill(_))), "{effects:?}");
    bench.message(child, "done");
    bench.app_end(child, "completed");
    assert!(bench.has(|e| *e == Effect::End(child)), "{:?}", bench.effects);
    bench.look();
    // A turn that comes meanwhile waits for the next child.
    bench.begin(2, Runtime::Codex, Some(THREAD));
    bench.give(Input::Exited(child, Exit { code: Some(0), ..Exit::default() }));
    assert_ne!(bench.spawned().0, child);
}
