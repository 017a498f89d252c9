//! The agent's folder grows: who is told, and when Codex' logs go.

use super::bench::{Bench, THREAD, configure};
use crate::machine::io::{Effect, Exit, Input};
use protocol::to_worker::Limits;
use protocol::{FromWorker, Runtime};

const MIB: u64 = 1 << 20;

fn bench() -> Bench {
    let mut bench = Bench::new();
    let mut configure = configure();
    configure.limits = Limits { disk_max: Some(100 * MIB), ..Limits::default() };
    bench.give(Input::Configured(Box::new(configure)));
    bench
}

fn alerts(bench: &Bench) -> usize {
    bench.told().iter().filter(|m| matches!(m, FromWorker::Alert(_))).count()
}

#[test]
fn a_folder_is_looked_at_after_a_turn_and_at_most_once_a_minute() {
    let mut bench = bench();
    bench.pass(200_000);
    assert!(!bench.has(|e| *e == Effect::LookAtDisk), "nothing has happened");
    let child = bench.app_turn(1);
    assert!(!bench.has(|e| *e == Effect::LookAtDisk), "not while somebody waits");
    bench.message(child, "done");
    bench.app_end(child, "completed");
    assert!(bench.has(|e| *e == Effect::LookAtDisk));
    bench.look();
    bench.give(Input::DiskLooked(79 * MIB));
    bench.begin(2, Runtime::Codex, None);
    bench.give(Input::Interrupt(protocol::AttemptId(2), protocol::to_worker::InterruptReason::Asked));
    bench.pass(1000);
    assert!(!bench.has(|e| *e == Effect::LookAtDisk), "{:?}", bench.effects);
    assert_eq!(alerts(&bench), 0);
}

#[test]
fn logs_go_when_no_codex_lives_and_each_level_is_told_once() {
    let mut bench = bench();
    let child = bench.app_turn(1);
    bench.message(child, "done");
    bench.app_end(child, "completed");
    bench.look();
    bench.give(Input::DiskLooked(85 * MIB));
    assert_eq!(alerts(&bench), 1);
    assert!(bench.has(|e| *e == Effect::End(child)) && !bench.has(|e| *e == Effect::PruneLogs), "{:?}", bench.effects);
    bench.give(Input::DiskLooked(86 * MIB));
    bench.give(Input::Exited(child, Exit { code: Some(0), ..Exit::default() }));
    assert!(bench.has(|e| *e == Effect::PruneLogs));
    assert_eq!(alerts(&bench), 1);
    bench.look();
    // Still full: told at the next level, but the agent keeps its warm Codex for an hour.
    bench.begin(2, Runtime::Codex, Some(THREAD));
    bench.look();
    for mib in [99, 100, 120, 60, 81] {
        bench.give(Input::DiskLooked(mib * MIB));
    }
    assert_eq!(alerts(&bench), 2);
    assert!(!bench.has(|e| matches!(e, Effect::End(_) | Effect::PruneLogs)), "{:?}", bench.effects);
}
