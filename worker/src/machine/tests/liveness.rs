//! The three clocks: each alone keeps a turn alive, none of them means silence, and a person is told which it is.

use super::bench::{Bench, CLOCKS, THREAD};
use crate::machine::io::{ChildId, Effect, Exit, Input, Load, Rollout, Vitals, Written};
use proptest::prelude::*;
use protocol::from_worker::Phase;
use protocol::{AttemptId, FailureClass, FromWorker, Outcome, Runtime};
use serde_json::json;

/// A turn that runs on exec, and its child.
fn exec(bench: &mut Bench) -> ChildId {
    bench.begin(1, Runtime::CodexCli, None);
    let (child, _) = bench.spawned();
    bench.line(child, &json!({"type": "thread.started", "thread_id": THREAD}));
    bench.line(child, &json!({"type": "turn.started"}));
    child
}

fn tool(bench: &mut Bench, child: ChildId) {
    let item = json!({"item": {"type": "commandExecution", "id": "c", "command": "make"}});
    bench.news(child, "item/started", THREAD, "u1", item);
}

fn load(cpu_ms: u64, io_bytes: u64) -> Load {
    Load { cpu_ms, io_bytes, processes: 0 }
}

/// Whether the turn is being ended.
fn is_ended(bench: &Bench, child: ChildId) -> bool {
    bench.has(|e| *e == Effect::End(child)) || bench.writes().iter().any(|w| w["method"] == "turn/interrupt")
}

#[test]
fn each_clock_alone_keeps_a_turn_alive() {
    let own = |load| Vitals { own: load, ..Vitals::default() };
    let signs = [
        ("Codex computes", own(load(60, 0))),
        ("Codex reads much", own(load(0, 2 << 20))),
        ("a tool computes", Vitals { tools: [(THREAD.into(), load(60, 0))].into(), ..Vitals::default() }),
        ("a tool writes", Vitals { tools: [(THREAD.into(), load(0, 5000))].into(), ..Vitals::default() }),
        ("the model speaks", Vitals { received_bytes: 300, ..Vitals::default() }),
        (
            "the rollout grows",
            Vitals { rollouts: [(THREAD.into(), Written { bytes: 1, at_ms: 0 })].into(), ..Vitals::default() },
        ),
    ];
    for (what, work) in signs {
        for app in [true, false] {
            let mut bench = Bench::new();
            let child = if app { bench.app_turn(1) } else { exec(&mut bench) };
            bench.work = work.clone();
            bench.pass(CLOCKS.silence_ms * 3);
            assert!(!is_ended(&bench, child), "{what}");
            assert_eq!(bench.phase().map(|(phase, _)| phase), Some(Phase::Busy), "{what}");
            // And then it does not.
            bench.work = Vitals::default();
            bench.look();
            bench.pass(CLOCKS.silence_ms + 4000);
            assert!(is_ended(&bench, child), "{what}");
        }
    }
}

#[test]
fn what_a_waiting_codex_does_is_no_life() {
    let mut bench = Bench::new();
    let child = exec(&mut bench);
    // Its timers, its logs and the keep-alives of its connection.
    bench.work = Vitals { own: load(30, 200_000), received_bytes: 40, ..Vitals::default() };
    bench.pass(CLOCKS.silence_ms - 1);
    assert!(!is_ended(&bench, child));
    bench.pass(1);
    assert!(is_ended(&bench, child));
    bench.give(Input::Exited(child, Exit { code: Some(1), ..Exit::default() }));
    bench.give(Input::RolloutRead(AttemptId(1), Rollout { read: true, ran: Vec::new(), only_words: true }));
    assert!(bench.fails(FailureClass::CodexSilent).replay_safe);
}

#[test]
fn a_tool_that_sleeps_is_in_a_tool_unless_codex_is_stopped_or_its_process_is_gone() {
    for (stopped, lives) in [(false, true), (true, true), (false, false)] {
        let mut bench = Bench::new();
        let child = bench.app_turn(1);
        tool(&mut bench, child);
        if lives {
            bench.tool_lives(THREAD);
        }
        bench.vitals.stopped = stopped;
        bench.pass(CLOCKS.silence_ms + 1000);
        assert_eq!(is_ended(&bench, child), stopped || !lives);
        if stopped {
            bench.pass(2000);
            bench.give(Input::Exited(child, Exit { signal: Some(9), ..Exit::default() }));
            bench.give(Input::RolloutRead(AttemptId(1), Rollout::default()));
            let end = bench.fails(FailureClass::CodexSilent);
            assert!(end.detail.contains("stopped by a signal") && end.ran == ["make"], "{end:?}");
        } else if lives {
            assert_eq!(bench.phase().map(|(phase, _)| phase), Some(Phase::Tool));
        }
    }
}

#[test]
fn one_turn_does_not_live_on_anothers_work() {
    let mut bench = Bench::new();
    let child = bench.app_turn(1);
    bench.begin(2, Runtime::Codex, None);
    bench.answer(child, "thread/start", &json!({"thread": {"id": "t2"}, "modelProvider": "mock"}));
    bench.turn_runs(child, "t2", "u2");
    let item = json!({"item": {"type": "commandExecution", "id": "c", "command": "make"}});
    bench.news(child, "item/started", "t2", "u2", item);
    // The tool of the second burns, and so does Codex for it.
    bench.work = Vitals { own: load(900, 0), tools: [("t2".into(), load(900, 0))].into(), ..Vitals::default() };
    bench.tool_lives("t2");
    bench.look();
    bench.pass(CLOCKS.silence_ms + 1000);
    assert_eq!(bench.asked("turn/interrupt").1["threadId"], THREAD);
    assert_eq!(bench.writes().iter().filter(|w| w["method"] == "turn/interrupt").count(), 1, "the second lives");
    bench.app_end(child, "interrupted");
    assert_eq!(bench.finishes()[0].0.attempt, AttemptId(1));
    bench.pass(CLOCKS.silence_ms * 2);
    assert!(!bench.has(|e| *e == Effect::End(child)));
}

#[test]
fn an_interrupt_has_two_seconds_and_one_that_is_heard_has_more() {
    let mut bench = Bench::new();
    let child = bench.app_turn(1);
    bench.pass(CLOCKS.silence_ms);
    bench.asked("turn/interrupt");
    bench.pass(1999);
    assert!(!bench.has(|e| *e == Effect::End(child)));
    bench.answer(child, "turn/interrupt", &json!({}));
    bench.pass(4999);
    assert!(!bench.has(|e| *e == Effect::End(child)), "it lives: no sibling is ended for its sake");
    bench.pass(1);
    assert!(bench.has(|e| *e == Effect::End(child)));
    let mut bench = Bench::new();
    let child = bench.app_turn(1);
    bench.news(child, "item/started", THREAD, "u1", json!({"item": {"type": "contextCompaction", "id": "c"}}));
    bench.pass(CLOCKS.compaction_ms);
    bench.asked("turn/interrupt");
    bench.pass(2000);
    assert!(bench.has(|e| *e == Effect::End(child)), "a compaction that hears nothing costs its child");
}

#[test]
fn nothing_is_looked_at_while_lines_come_and_while_nothing_runs() {
    let mut bench = Bench::new();
    let child = bench.app_turn(1);
    for _ in 0..1000 {
        bench.pass(100);
        bench.news(child, "item/agentMessage/delta", THREAD, "u1", json!({"itemId": "m", "delta": "x"}));
    }
    assert_eq!(bench.looks, 0);
    bench.pass(20_000);
    assert!((9..=10).contains(&bench.looks), "every 2 s: {}", bench.looks);
    bench.app_end(child, "completed");
    let before = bench.looks;
    bench.pass(CLOCKS.idle_after_ms - 1);
    assert_eq!(bench.looks, before, "an idle worker sleeps");
}

#[test]
fn silence_is_shown_with_its_beginning_and_taken_back() {
    let mut bench = Bench::new();
    let child = bench.app_turn(1);
    assert_eq!(bench.phase(), Some((Phase::Waiting, 0)));
    bench.pass(CLOCKS.silence_ms / 2 + 2000);
    let (phase, for_ms) = bench.phase().unwrap();
    assert_eq!(phase, Phase::Silent);
    assert!(for_ms >= CLOCKS.silence_ms / 2, "since the last sign: {for_ms}");
    bench.news(child, "thread/tokenUsage/updated", THREAD, "u1", json!({}));
    assert_eq!(bench.phase().map(|(phase, _)| phase), Some(Phase::Waiting), "a line that says nothing else is a sign");
    // Whoever links later is told what is, and since when.
    bench.pass(5000);
    bench.look();
    bench.give(Input::LinkUp);
    let (phase, for_ms) = bench.phase().unwrap();
    assert_eq!(phase, Phase::Waiting);
    assert!(for_ms >= 5000, "{for_ms}");
    bench.app_end(child, "completed");
    assert_eq!(bench.end().0.outcome, Outcome::Completed);
    assert!(!bench.told().iter().any(|m| matches!(m, FromWorker::Progress(_))));
}

#[derive(Clone, Debug)]
enum Step {
    Line,
    Tool(bool),
    Work(u8),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Line),
        1 => any::<bool>().prop_map(Step::Tool),
        3 => (0_u8..6).prop_map(Step::Work),
        6 => (0_u64..40_000).prop_map(Step::Pass),
    ]
}

proptest! {
    /// A turn is called silent only if no clock has shown anything for the whole time, and then it is.
    #[test]
    fn silent_is_silent_on_every_clock(steps in prop::collection::vec(step(), 1..60), app in any::<bool>()) {
        let mut bench = Bench::new();
        let child = if app { bench.app_turn(1) } else { exec(&mut bench) };
        // Work is seen between two looks: shorter work may be missed, or seen.
        let (mut seen, mut done) = (bench.now, bench.now);
        for step in steps {
            match step {
                Step::Line if app => bench.news(child, "x/y", THREAD, "u1", json!({})),
                Step::Line => bench.line(child, &json!({"type": "odd"})),
                Step::Tool(lives) => {
                    bench.vitals.tools.insert(THREAD.into(), Load { processes: u32::from(lives), ..Load::default() });
                }
                Step::Work(which) => {
                    bench.work = Vitals::default();
                    match which {
                        0 => bench.work.own = load(60, 0),
                        1 => bench.work.received_bytes = 100,
                        2 => drop(bench.work.tools.insert(THREAD.into(), load(60, 0))),
                        3 => drop(bench.work.rollouts.insert(THREAD.into(), Written { bytes: 1, at_ms: 0 })),
                        _ => {}
                    }
                }
                Step::Pass(_) => {}
            }
            let works = bench.work != Vitals::default();
            if matches!(step, Step::Line) {
                (seen, done) = (bench.now, bench.now);
            }
            if let Step::Pass(ms) = step {
                bench.pass(ms);
                if works {
                    done = bench.now;
                    seen = if ms >= 6000 { bench.now - 2000 } else { seen };
                }
            }
            if is_ended(&bench, child) {
                prop_assert!(bench.now - seen >= CLOCKS.silence_ms || bench.now >= CLOCKS.turn_ms, "too early");
                return Ok(());
            }
            prop_assert!(works || bench.now - done < CLOCKS.silence_ms + 4000, "too late");
        }
    }
}
