//! A machine with a clock that the test turns, and what it wanted done since the last look.

use crate::machine::Machine;
use crate::machine::io::{ChildId, ChildSpec, Effect, Exit, Input, Load, Tick, Vitals};
use protocol::from_worker::{Isolation, Phase, Steered};
use protocol::journal::Record;
use protocol::to_worker::{Approval, Auth, Begin, Clocks, Configure, Home, Limits, Provider, Reviewer, Sandbox};
use protocol::{AttemptId, FailureClass, Finished, FromWorker, Outcome, Route, Runtime, Text, TurnId};
use serde_json::{Value, json};

pub(super) const THREAD: &str = "01a1fbcc-5161-7371-bb43-4f9342d32327";

pub(super) const CLOCKS: Clocks = Clocks {
    first_event_ms: 30_000,
    silence_ms: 60_000,
    turn_ms: 600_000,
    compaction_ms: 120_000,
    idle_after_ms: 100_000,
    orphan_after_ms: 900_000,
    stop_grace_ms: 2000,
    heartbeat_ms: 15_000,
};

pub(super) fn configure() -> Configure {
    Configure {
        ledger: 1,
        workspace: "/workspace".into(),
        codex_command: "codex".into(),
        default_route: route(Runtime::Codex, "mock"),
        providers: vec![Provider { name: "mock".into(), base_url: "http://x".into(), api_key_env: None }],
        auth: Auth::None,
        sandbox: Sandbox::WorkspaceWrite,
        network: true,
        writable: Vec::new(),
        approval: Approval::Never,
        reviewer: Reviewer::User,
        home: Home::Private,
        real_home: "/root".into(),
        home_share: Vec::new(),
        env: Vec::new(),
        env_secret: Vec::new(),
        codex_extra: String::new(),
        masked: Vec::new(),
        limits: Limits::default(),
        max_turns: 2,
        clocks: CLOCKS,
    }
}

pub(super) fn route(runtime: Runtime, provider: &str) -> Route {
    Route { runtime, provider: provider.into(), model: "gpt-5.5".into() }
}

pub(super) fn exit(code: i32, stderr: &str) -> Exit {
    Exit { code: Some(code), stderr: stderr.into(), ..Exit::default() }
}

#[derive(Debug)]
pub(super) struct Bench {
    pub(super) machine: Machine,
    pub(super) now: u64,
    pub(super) effects: Vec<Effect>,
    /// What a look shows; looks are answered at once, as the driver does it.
    pub(super) vitals: Vitals,
    /// What is used up between two looks.
    pub(super) work: Vitals,
    pub(super) looks: u32,
}

impl Bench {
    /// A machine as it comes into the world.
    pub(super) fn of(machine: Machine) -> Self {
        let (vitals, work) = (Vitals::default(), Vitals::default());
        Self { machine, now: 0, effects: Vec::new(), vitals, work, looks: 0 }
    }

    /// Linked and configured; what that caused is not kept.
    pub(super) fn new() -> Self {
        let mut bench = Self::of(Machine::new(7));
        bench.machine.set_isolation(Isolation::Namespace);
        bench.give(Input::LinkUp);
        bench.give(Input::Configured(Box::new(configure())));
        bench.effects.clear();
        bench
    }

    pub(super) fn give(&mut self, input: Input) {
        self.machine.handle(Tick(self.now), input, &mut self.effects);
        let mut looks = Vec::new();
        self.effects.retain(|effect| {
            if let Effect::Look(child, _) = effect {
                looks.push(*child);
                false
            } else {
                true
            }
        });
        for child in looks {
            self.looks += 1;
            self.vitals.own = self.vitals.own.and(self.work.own);
            self.vitals.received_bytes += self.work.received_bytes;
            for (thread, load) in &self.work.tools {
                let sum = self.vitals.tools.entry(thread.clone()).or_default();
                *sum = sum.and(*load);
            }
            for (thread, more) in &self.work.rollouts {
                self.vitals.rollouts.entry(thread.clone()).or_default().bytes += more.bytes;
            }
            let vitals = Box::new(self.vitals.clone());
            self.machine.handle(Tick(self.now), Input::Looked(child, vitals), &mut self.effects);
        }
    }

    /// A tool of this thread has a process, which may do nothing.
    pub(super) fn tool_lives(&mut self, thread: &str) {
        self.vitals.tools.insert(thread.to_owned(), Load { processes: 1, ..Load::default() });
    }

    /// The phase that was shown last, and for how long it had been so.
    pub(super) fn phase(&self) -> Option<(Phase, u64)> {
        let mut shown = self.told().into_iter().rev();
        shown.find_map(|m| if let FromWorker::Progress(p) = m { Some((p.phase, p.for_ms)) } else { None })
    }

    pub(super) fn begin(&mut self, attempt: u64, runtime: Runtime, thread: Option<&str>) {
        self.begin_on(attempt, route(runtime, "mock"), thread);
    }

    pub(super) fn begin_on(&mut self, attempt: u64, route: Route, thread: Option<&str>) {
        let begin = Begin {
            attempt: AttemptId(attempt),
            turn: TurnId(attempt + 100),
            thread: thread.map(str::to_owned),
            prompt: Text::Inline("hi".into()),
            route,
            begun: false,
        };
        self.give(Input::Begin { begin: Box::new(begin), prompt: "hi".into(), rollout_bytes: 77, wall_ms: 0 });
    }

    /// Fires deadlines until `ms` later.
    pub(super) fn pass(&mut self, ms: u64) {
        let until = self.now + ms;
        for _ in 0..10_000 {
            match self.machine.deadline() {
                Some((by, _)) if by.0 <= until => {
                    self.now = self.now.max(by.0);
                    self.give(Input::Timeout);
                }
                _ => {
                    self.now = until;
                    return;
                }
            }
        }
        panic!("the deadline does not move on: {:?}", self.machine.deadline());
    }

    pub(super) fn line(&mut self, child: ChildId, line: &Value) {
        self.give(Input::Line(child, line.to_string()));
    }

    /// Everything since the last look.
    pub(super) fn look(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(super) fn spawned(&mut self) -> (ChildId, ChildSpec) {
        let found = self
            .effects
            .iter()
            .find_map(|e| if let Effect::Spawn(child, spec) = e { Some((*child, spec.clone())) } else { None });
        found.unwrap_or_else(|| panic!("nothing was spawned: {:?}", self.effects))
    }

    pub(super) fn writes(&self) -> Vec<Value> {
        let lines = self
            .effects
            .iter()
            .filter_map(|e| if let Effect::Write(_, line) = e { serde_json::from_str(line).ok() } else { None });
        lines.collect()
    }

    /// Id and parameters of the last request of this name.
    pub(super) fn asked(&self, method: &str) -> (Value, Value) {
        let found = self.writes().into_iter().rev().find(|message| message["method"] == method);
        let message = found.unwrap_or_else(|| panic!("{method} was not asked: {:?}", self.effects));
        (message["id"].clone(), message["params"].clone())
    }

    pub(super) fn answer(&mut self, child: ChildId, method: &str, result: &Value) {
        let (id, _) = self.asked(method);
        self.line(child, &json!({"id": id, "result": result}));
    }

    pub(super) fn refuse(&mut self, child: ChildId, method: &str, error: &str) {
        let (id, _) = self.asked(method);
        self.line(child, &json!({"id": id, "error": {"code": -32600, "message": error}}));
    }

    /// A new app-server that has said who it is.
    pub(super) fn server_up(&mut self) -> ChildId {
        let (child, _) = self.spawned();
        self.answer(child, "initialize", &json!({"userAgent": "cofferdam/0.169.0 (x) y (cofferdam; 0.1)"}));
        child
    }

    /// A turn that runs on an app-server, from its begin on.
    pub(super) fn app_turn(&mut self, attempt: u64) -> ChildId {
        self.begin(attempt, Runtime::Codex, None);
        let child = self.server_up();
        self.answer(child, "thread/start", &json!({"thread": {"id": THREAD}, "modelProvider": "mock"}));
        self.turn_runs(child, THREAD, "u1");
        child
    }

    pub(super) fn turn_runs(&mut self, child: ChildId, thread: &str, turn: &str) {
        self.answer(child, "turn/start", &json!({"turn": {"id": turn}}));
        self.news(child, "turn/started", thread, turn, json!({"turn": {"id": turn}}));
    }

    pub(super) fn news(&mut self, child: ChildId, method: &str, thread: &str, turn: &str, mut params: Value) {
        params["threadId"] = json!(thread);
        if params.get("turn").is_none() {
            params["turnId"] = json!(turn);
        }
        self.line(child, &json!({"method": method, "params": params}));
    }

    pub(super) fn message(&mut self, child: ChildId, text: &str) {
        let item = json!({"item": {"type": "agentMessage", "id": text, "text": text}});
        self.news(child, "item/completed", THREAD, "u1", item);
    }

    pub(super) fn app_end(&mut self, child: ChildId, status: &str) {
        self.news(child, "turn/completed", THREAD, "u1", json!({"turn": {"id": "u1", "status": status, "items": []}}));
    }

    pub(super) fn finishes(&self) -> Vec<(Finished, String)> {
        let ends = self.effects.iter().filter_map(|e| {
            if let Effect::Finish(end, text) = e { Some(((**end).clone(), text.clone())) } else { None }
        });
        ends.collect()
    }

    /// The one outcome since the last look.
    pub(super) fn end(&mut self) -> (Finished, String) {
        let ends = self.finishes();
        assert_eq!(ends.len(), 1, "{:?}", self.effects);
        self.effects.clear();
        ends.into_iter().next().expect("one")
    }

    pub(super) fn fails(&mut self, class: FailureClass) -> Finished {
        let (end, _) = self.end();
        assert_eq!(end.outcome, Outcome::Failed(class), "{end:?}");
        end
    }

    pub(super) fn told(&self) -> Vec<&FromWorker> {
        self.effects.iter().filter_map(|e| if let Effect::Tell(message) = e { Some(message) } else { None }).collect()
    }

    pub(super) fn steered(&self) -> Vec<Steered> {
        self.told()
            .into_iter()
            .filter_map(|m| if let FromWorker::Steered(s) = m { Some(s.clone()) } else { None })
            .collect()
    }

    pub(super) fn records(&self) -> Vec<&Record> {
        self.effects.iter().filter_map(|e| if let Effect::Journal(record) = e { Some(record) } else { None }).collect()
    }

    pub(super) fn has(&self, which: impl Fn(&Effect) -> bool) -> bool {
        self.effects.iter().any(which)
    }
}
