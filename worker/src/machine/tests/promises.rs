//! The promises under any sequence of inputs: a world that answers well, badly, late, twice or not at all.

use super::bench::{CLOCKS, THREAD, configure, route};
use crate::machine::Machine;
use crate::machine::io::{ChildId, Effect, Exit, Input, Load, Rollout, SpawnFailure, Tick, Vitals, Written};
use proptest::prelude::*;
use protocol::journal::Record;
use protocol::to_worker::{Begin, InterruptReason};
use protocol::{AttemptId, FromWorker, Runtime, Text, TurnId};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What the world does next; numbers pick among what there is.
#[derive(Clone, Debug)]
enum Step {
    Begin {
        attempt: u64,
        exec: bool,
        thread: u8,
        provider: bool,
    },
    Steer {
        attempt: u64,
    },
    Interrupt {
        attempt: u64,
        shutdown: bool,
    },
    Ack {
        attempt: u64,
    },
    /// Answer the oldest request of a child, well or with an error.
    Answer {
        child: usize,
        well: bool,
    },
    /// A line that fits what runs.
    Fitting {
        child: usize,
        which: u8,
    },
    /// Any line.
    Line {
        child: usize,
        line: String,
    },
    Exit {
        child: usize,
        code: Option<i32>,
        fork: bool,
    },
    SpawnFailed {
        child: usize,
    },
    Rollout {
        attempt: u64,
        only_words: bool,
    },
    Reconfigure {
        network: bool,
    },
    Link(bool),
    /// Answer a look: the tree worked, a tool lives, the rollout grew.
    Look {
        worked: u64,
        tool: bool,
        written: u64,
        stopped: bool,
    },
    Timeout,
    Pass(u64),
    Drain,
    Terminate,
}

fn step() -> impl Strategy<Value = Step> {
    let attempt = || 1_u64..6;
    let child = || 0_usize..4;
    prop_oneof![
        6 => (attempt(), any::<bool>(), 0_u8..4, any::<bool>())
            .prop_map(|(attempt, exec, thread, provider)| Step::Begin { attempt, exec, thread, provider }),
        3 => attempt().prop_map(|attempt| Step::Steer { attempt }),
        2 => (attempt(), any::<bool>()).prop_map(|(attempt, shutdown)| Step::Interrupt { attempt, shutdown }),
        1 => attempt().prop_map(|attempt| Step::Ack { attempt }),
        12 => (child(), prop::bool::weighted(0.9)).prop_map(|(child, well)| Step::Answer { child, well }),
        12 => (child(), 0_u8..12).prop_map(|(child, which)| Step::Fitting { child, which }),
        2 => (child(), odd_line()).prop_map(|(child, line)| Step::Line { child, line }),
        2 => (child(), prop::option::of(0..2), any::<bool>()).prop_map(|(child, code, fork)| Step::Exit { child, code, fork }),
        1 => child().prop_map(|child| Step::SpawnFailed { child }),
        2 => (attempt(), any::<bool>()).prop_map(|(attempt, only_words)| Step::Rollout { attempt, only_words }),
        1 => any::<bool>().prop_map(|network| Step::Reconfigure { network }),
        1 => any::<bool>().prop_map(Step::Link),
        3 => (0_u64..3, any::<bool>(), 0_u64..3, any::<bool>())
            .prop_map(|(worked, tool, written, stopped)| Step::Look { worked, tool, written, stopped }),
        3 => Just(Step::Timeout),
        2 => (0_u64..40_000).prop_map(Step::Pass),
        1 => prop::bool::weighted(0.1).prop_map(|now| if now { Step::Drain } else { Step::Timeout }),
        1 => prop::bool::weighted(0.1).prop_map(|now| if now { Step::Terminate } else { Step::Timeout }),
    ]
}

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "id",
        "method",
        "params",
        "result",
        "error",
        "type",
        "thread.started",
        "thread_id",
        "turn.completed",
        "item",
        "item.started",
        "item/started",
        "turn/completed",
        "turn",
        "status",
        "threadId",
        THREAD,
        "t2",
        "u1",
        "usage",
        "thread/tokenUsage/updated",
        "tokenUsage",
        "total",
        "account/rateLimits/updated",
        "rateLimits",
        "primary",
        "turn.failed",
        "message",
        "codexErrorInfo",
        "changes",
        "fileChange",
        "command_execution",
        "",
    ])
    .prop_map(str::to_owned)
}

/// JSON of the right words in the wrong places, and lines that are no JSON.
fn odd_line() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0_u64..9).prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    let json = leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((word(), inner), 0..6).prop_map(|pairs| pairs.into_iter().collect()),
        ]
    });
    prop_oneof![4 => json.prop_map(|value| value.to_string()), 1 => "(?s).{0,40}"]
}

#[derive(Debug, Default)]
struct World {
    now: u64,
    children: Vec<(ChildId, bool)>,
    /// Requests of the app-server that are not answered.
    requests: Vec<(ChildId, Value)>,
    begun: BTreeSet<AttemptId>,
    finished: BTreeMap<AttemptId, u32>,
    steered: u64,
    steers: Vec<TurnId>,
    prompted: BTreeSet<AttemptId>,
    /// Looks that are not answered.
    looks: Vec<(ChildId, Vec<String>)>,
    /// Searches that are not answered.
    searches: u32,
    left: bool,
}

impl World {
    fn give(&mut self, machine: &mut Machine, input: Input) {
        let mut effects = Vec::new();
        machine.handle(Tick(self.now), input, &mut effects);
        for effect in effects {
            self.see(effect);
        }
        for _ in 0..std::mem::take(&mut self.searches) {
            // Two threads are always old, and nobody goes on with them.
            let old = ["01a1fbcc-0000-7000-8000-000000000001", "01a1fbcc-0000-7000-8000-000000000002"];
            let old: Vec<String> = old.map(str::to_owned).to_vec();
            self.give(machine, Input::OldFound(old.clone()));
            self.give(machine, Input::Spared(old));
        }
    }

    fn see(&mut self, effect: Effect) {
        match effect {
            Effect::Journal(Record::Begun(begun)) => assert!(self.begun.insert(begun.attempt), "begun twice"),
            Effect::Journal(Record::Prompted(attempt)) => assert!(self.prompted.insert(attempt), "prompted twice"),
            Effect::Finish(end, _) => {
                *self.finished.entry(end.attempt).or_default() += 1;
                assert!(end.replay_safe || self.prompted.contains(&end.attempt), "unprompted is safe");
            }
            Effect::Spawn(child, spec) => {
                assert!(!self.left, "a child after the leave");
                self.children.push((child, spec.stdin_open));
            }
            Effect::Write(child, line) => {
                let message: Value = serde_json::from_str(&line).expect("JSON");
                if message.get("method").is_some() && message.get("id").is_some() {
                    self.requests.push((child, message));
                }
            }
            Effect::Tell(FromWorker::Steered(steered)) => self.steers.push(steered.turn),
            Effect::Look(child, threads) => self.looks.push((child, threads)),
            Effect::Leave => assert!(!std::mem::replace(&mut self.left, true), "it left twice"),
            // No limit is configured here.
            Effect::Measure | Effect::LookAtDisk | Effect::PruneLogs => panic!("a look for nothing"),
            Effect::FindOld(_) => self.searches += 1,
            Effect::Journal(_) | Effect::End(_) | Effect::Kill(_) | Effect::ReadRollout { .. } | Effect::Tell(_) => {}
        }
    }

    fn child(&self, n: usize) -> Option<(ChildId, bool)> {
        let (length, n) = (self.children.len(), n);
        (length > 0).then(|| self.children[n % length])
    }

    fn answer(&mut self, child: ChildId, well: bool) -> Option<Input> {
        let at = self.requests.iter().position(|(of, _)| *of == child)?;
        let (_, request) = self.requests.remove(at);
        let thread = request["params"]["threadId"].as_str().unwrap_or("t0").to_owned();
        let result = match request["method"].as_str()? {
            "initialize" => json!({"userAgent": "x/0.169.0 (y)"}),
            "turn/start" => json!({"turn": {"id": format!("u{}", request["id"])}}),
            "thread/fork" => {
                json!({"thread": {"id": format!("f{}", request["id"])}, "modelProvider": request["params"]["modelProvider"]})
            }
            "thread/start" => {
                json!({"thread": {"id": format!("s{}", request["id"])}, "modelProvider": request["params"]["modelProvider"]})
            }
            _ => json!({"thread": {"id": thread}, "modelProvider": "mock"}),
        };
        let line = if well {
            json!({"id": request["id"], "result": result})
        } else {
            let text = "Cannot change this thread's model provider";
            json!({"id": request["id"], "error": {"message": text}})
        };
        // What follows a turn's start is played by fitting lines.
        if well && request["method"] == "turn/start" {
            let news = json!({"threadId": thread, "turn": {"id": result["turn"]["id"]}});
            self.requests.insert(0, (child, json!({"news": news})));
        }
        Some(Input::Line(child, line.to_string()))
    }

    fn fitting(&mut self, child: ChildId, server: bool, which: u8) -> String {
        if !server {
            return match which {
                0..=2 => json!({"type": "thread.started", "thread_id": if which == 0 { THREAD } else { "t2" }}),
                3 | 4 => json!({"type": "turn.started"}),
                5 => json!({"type": "item.started", "item": {"id": "1", "type": "command_execution", "command": "x"}}),
                6 => json!({"type": "item.completed", "item": {"id": "2", "type": "agent_message", "text": "x"}}),
                7 => json!({"type": "error", "message": "Reconnecting... 1/2"}),
                8 => json!({"type": "turn.failed", "error": {"message": "odd"}}),
                _ => json!({"type": "turn.completed", "usage": {"input_tokens": 1, "output_tokens": 1}}),
            }
            .to_string();
        }
        let news = self.requests.iter().rev().find(|(of, m)| *of == child && m.get("news").is_some());
        let mut params = news.map_or(json!({}), |(_, message)| message["news"].clone());
        let turn = params["turn"]["id"].clone();
        let method = match which {
            0..=3 => "turn/started",
            4 | 5 => {
                let kind = if which == 4 { "commandExecution" } else { "contextCompaction" };
                params = json!({"threadId": params["threadId"], "turnId": turn, "item": {"type": kind, "id": "i"}});
                "item/started"
            }
            6 => {
                params = json!({"threadId": params["threadId"], "turnId": turn, "delta": "x"});
                "item/agentMessage/delta"
            }
            _ => {
                let status = ["completed", "interrupted", "failed"][usize::from(which) % 3];
                params["turn"]["status"] = json!(status);
                "turn/completed"
            }
        };
        json!({"method": method, "params": params}).to_string()
    }

    fn begin(&self, attempt: u64, exec: bool, thread: u8, provider: bool) -> Option<Input> {
        let runtime = if exec { Runtime::CodexCli } else { Runtime::Codex };
        let begin = Begin {
            attempt: AttemptId(attempt),
            turn: TurnId(attempt),
            thread: [None, Some(THREAD), Some("01a1fbcc-5161-7371-bb43-000000000002"), Some("t2")][usize::from(thread)]
                .map(str::to_owned),
            prompt: Text::empty(),
            route: route(runtime, if provider { "mock" } else { "other" }),
            begun: false,
        };
        // A name that the ledger has an outcome of is not used again.
        if self.finished.contains_key(&begin.attempt) {
            return None;
        }
        Some(Input::Begin { begin: Box::new(begin), prompt: "p".into(), rollout_bytes: 1, wall_ms: 1 })
    }

    fn looked(&mut self, worked: u64, tool: bool, written: u64, stopped: bool) -> Option<Input> {
        let (child, threads) = self.looks.pop()?;
        let load = Load { cpu_ms: worked * 100, io_bytes: 0, processes: u32::from(tool) };
        let files = threads.iter().map(|thread| (thread.clone(), Written { bytes: written, at_ms: 0 }));
        let vitals = Vitals {
            tools: threads.first().map(|thread| (thread.clone(), load)).into_iter().collect(),
            rollouts: files.collect(),
            stopped,
            ..Vitals::default()
        };
        Some(Input::Looked(child, Box::new(vitals)))
    }

    fn play(&mut self, machine: &mut Machine, step: Step) {
        let input = match step {
            Step::Begin { attempt, exec, thread, provider } => {
                let Some(input) = self.begin(attempt, exec, thread, provider) else { return };
                input
            }
            Step::Steer { attempt } => {
                self.steered += 1;
                Input::Steer { attempt: AttemptId(attempt), turn: TurnId(1000 + self.steered), text: "s".into() }
            }
            Step::Interrupt { attempt, shutdown } => {
                let reason = if shutdown { InterruptReason::Shutdown } else { InterruptReason::Asked };
                Input::Interrupt(AttemptId(attempt), reason)
            }
            Step::Ack { attempt } => Input::Acked(AttemptId(attempt)),
            Step::Answer { child, well } => {
                let Some(input) = self.child(child).and_then(|(child, _)| self.answer(child, well)) else { return };
                input
            }
            Step::Fitting { child, which } => {
                let Some((child, server)) = self.child(child) else { return };
                Input::Line(child, self.fitting(child, server, which))
            }
            Step::Line { child, line } => Input::Line(self.child(child).map_or(ChildId(99), |(child, _)| child), line),
            Step::Exit { child, code, fork } => {
                let Some((child, _)) = self.child(child) else { return };
                self.children.retain(|(other, _)| *other != child);
                self.requests.retain(|(other, _)| *other != child);
                let stderr = if fork { "Error: Cannot change this thread's model provider" } else { "" };
                Input::Exited(child, Exit { code, stderr: stderr.into(), ..Exit::default() })
            }
            Step::SpawnFailed { child } => {
                let Some((child, _)) = self.child(child) else { return };
                self.children.retain(|(other, _)| *other != child);
                Input::SpawnFailed(child, SpawnFailure::Failed("no".into()))
            }
            Step::Rollout { attempt, only_words } => {
                Input::RolloutRead(AttemptId(attempt), Rollout { read: true, ran: Vec::new(), only_words })
            }
            Step::Reconfigure { network } => {
                let mut other = configure();
                other.network = network;
                Input::Configured(Box::new(other))
            }
            Step::Link(true) => Input::LinkUp,
            Step::Link(false) => Input::LinkDown,
            Step::Look { worked, tool, written, stopped } => {
                let Some(input) = self.looked(worked, tool, written, stopped) else { return };
                input
            }
            Step::Timeout => {
                self.now = machine.deadline().map_or(self.now, |(by, _)| by.0.max(self.now));
                Input::Timeout
            }
            Step::Pass(ms) => {
                self.now += ms;
                Input::Timeout
            }
            Step::Drain => Input::Drain,
            Step::Terminate => Input::Terminate,
        };
        self.give(machine, input);
    }
}

proptest! {
    #[test]
    fn every_begin_ends_once_and_every_steer_is_answered_once(steps in prop::collection::vec(step(), 1..120)) {
        let mut machine = Machine::new(1);
        let mut world = World::default();
        world.give(&mut machine, Input::Configured(Box::new(configure())));
        for step in steps {
            world.play(&mut machine, step);
            prop_assert!(machine.running() == 0 || machine.deadline().is_some(), "an open turn without a clock");
        }
        // From here on the world is silent: the clocks alone end everything.
        let mut rounds = 0;
        while machine.running() > 0 || machine.children() > 0 {
            let Some((by, why)) = machine.deadline() else { return Err(TestCaseError::fail(format!("nothing is due: {machine:?}"))) };
            world.now = world.now.max(by.0);
            world.give(&mut machine, Input::Timeout);
            rounds += 1;
            prop_assert!(rounds < 500, "{why} does not end at {by:?}: {machine:?}");
        }
        let bound = CLOCKS.turn_ms * 8 + CLOCKS.idle_after_ms;
        prop_assert!(world.now < 120 * 40_000 * 40 + bound);
        for attempt in &world.begun {
            prop_assert_eq!(world.finished.get(attempt), Some(&1), "attempt {}", attempt);
        }
        prop_assert_eq!(world.finished.len(), world.begun.len());
        world.steers.sort_unstable();
        let expected: Vec<TurnId> = (1..=world.steered).map(|n| TurnId(1000 + n)).collect();
        prop_assert_eq!(&world.steers, &expected);
    }

    #[test]
    fn any_line_is_survived_in_the_middle_of_a_turn(lines in prop::collection::vec(odd_line(), 0..40), exec in any::<bool>()) {
        let mut bench = super::bench::Bench::new();
        let child = if exec {
            bench.begin(1, Runtime::CodexCli, None);
            bench.spawned().0
        } else {
            bench.app_turn(1)
        };
        for line in lines {
            bench.give(Input::Line(child, line));
        }
        bench.give(Input::Exited(child, Exit::default()));
        bench.pass(20_000);
        prop_assert_eq!(bench.finishes().len(), 1);
    }
}
