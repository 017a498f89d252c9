//! A fake Codex, at the level of the lines that a worker reads and writes: it knows threads, turns, tools and ends.
//!
//! ```text
//!   spawn exec ------> one run: thread.started, turn.started, items, turn.completed | turn.failed, exit
//!   spawn app-server -> answers requests; each turn/start begins a run on its thread
//!   a run             steps of script.rs, one at a time, each after its pause; a tool is a deed in the world
//! ```
//! A child of a dead worker goes on until it is swept: whatever it does then is done.

use super::script::{self, Step};
use super::serve::ToProc;
use super::world::{Event, Mood, World};
use protocol::{AgentName, AttemptId, Incarnation, TurnId};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use worker::machine::io::{ChildId, ChildSpec, Exit, Input};

/// A child, by the run of the worker that started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(pub(crate) Incarnation, pub(crate) ChildId);

/// A Codex process.
#[derive(Debug, Default)]
pub(crate) struct Child {
    /// `codex app-server`.
    pub(crate) server: bool,
    /// By thread; that of an exec child by the empty name.
    pub(crate) runs: BTreeMap<String, Run>,
    /// Threads that it holds.
    pub(crate) loaded: BTreeSet<String>,
    /// It does not react to a polite end.
    ignores_end: bool,
    /// It hangs in the kernel: it does nothing more, and nothing ends it for a while.
    pub(crate) hangs: bool,
    ending: bool,
    said_at: u64,
}

/// A turn on its way.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) thread: String,
    pub(crate) id: String,
    pub(crate) turn: TurnId,
    pub(crate) attempt: AttemptId,
    pub(crate) prompt: String,
    /// Codex works on it.
    pub(crate) begun: bool,
    pub(crate) steps: VecDeque<Step>,
    /// The text of its last message.
    pub(crate) last: u64,
    /// A process of a tool of it is there.
    pub(crate) tool: bool,
    /// Its answer comes in although no line says so.
    pub(crate) streams: bool,
}

impl World {
    fn child(&mut self, agent: &AgentName, key: Key) -> Option<&mut Child> {
        self.places.get_mut(agent)?.children.get_mut(&key)
    }

    fn thread_id(&mut self) -> String {
        let (one, two) = (self.number(), self.dice.roll(0xffff));
        format!("{one:08x}-{two:04x}-7000-8000-000000000000")
    }

    /// A worker starts a child.
    pub(crate) fn spawn_codex(&mut self, agent: &AgentName, key: Key, spec: &ChildSpec) -> Option<Input> {
        self.check_start(agent, key, spec);
        if let Some(failed) = self.no_codex(agent, key) {
            return Some(failed);
        }
        let harm = self.may_harm(agent);
        let child = Child {
            server: spec.stdin_open,
            ignores_end: harm && self.dice.one_in(12),
            said_at: self.tick,
            ..Child::default()
        };
        self.places.get_mut(agent).expect("a place").children.insert(key, child);
        self.later(2, Event::Proc(agent.clone(), key.0, ToProc::Child(Input::Spawned(key.1, 77))));
        if !spec.stdin_open {
            self.begin_exec(agent, key, spec);
        } else if harm && self.dice.one_in(40) {
            self.cover.fault("app-server dies at its start");
            let exit = Exit { code: Some(1), stderr: "Error: bad configuration".into(), ..Exit::default() };
            self.exits(agent, key, exit, 20);
        }
        None
    }

    fn begin_exec(&mut self, agent: &AgentName, key: Key, spec: &ChildSpec) {
        let provider = spec.args.iter().find_map(|arg| arg.strip_prefix("model_provider=")).unwrap_or_default();
        let provider = provider.trim_matches('"').to_owned();
        let word = |word: &str| spec.args.iter().position(|arg| arg == word).map(|at| spec.args[at + 1].clone());
        let (resume, fork) = (word("resume"), word("fork"));
        let known =
            resume.as_ref().or(fork.as_ref()).map(|thread| self.places[agent].disk.rollouts.get(thread).cloned());
        let refusal = match (&known, &resume) {
            (Some(None), _) => Some("Error: thread/resume: no rollout found for thread id".to_owned()),
            (Some(Some(rollout)), Some(_)) if rollout.provider != provider => {
                Some("Error: Cannot change this thread's model provider from `x` to `y` on resume.".to_owned())
            }
            _ => None,
        };
        if let Some(stderr) = refusal {
            return self.exits(agent, key, Exit { code: Some(1), stderr, ..Exit::default() }, 30);
        }
        let thread = match &resume {
            Some(thread) => thread.clone(),
            None => self.thread_id(),
        };
        let mut rollout = known.flatten().unwrap_or_default();
        rollout.provider = provider;
        self.places.get_mut(agent).expect("a place").disk.rollouts.insert(thread.clone(), rollout);
        let (attempt, turn) = self.runner(agent, key, None);
        let mut steps = self.script(agent, false);
        let resumed = resume.is_some();
        if resumed && self.may_harm(agent) && self.dice.one_in(40) {
            self.cover.fault("another thread than asked for");
            steps.push_front(Step::Stray);
        }
        let run = Run {
            thread: thread.clone(),
            id: String::new(),
            turn,
            attempt,
            prompt: spec.stdin.clone(),
            begun: false,
            steps,
            last: 0,
            tool: false,
            streams: false,
        };
        if let Some(child) = self.child(agent, key) {
            child.loaded.insert(thread);
            child.runs.insert(String::new(), run);
        }
        let pause = 10 + self.dice.roll(100);
        self.later(pause, Event::Codex(agent.clone(), key, String::new()));
    }

    /// The attempt that a child works on.
    fn runner(&self, agent: &AgentName, key: Key, thread: Option<&str>) -> (AttemptId, TurnId) {
        let process = self.places[agent].process.as_ref().expect("a worker that starts a turn");
        let standings = process.machine.standings().into_iter().filter(|standing| standing.child == Some(key.1));
        let on_it =
            |s: &worker::machine::probe::Standing| thread.is_none_or(|thread| s.thread.as_deref() == Some(thread));
        let live = standings.filter(on_it).find(|standing| standing.state != "proving");
        live.map(|standing| (standing.attempt, standing.turn)).expect("a turn for each child")
    }

    fn script(&mut self, agent: &AgentName, server: bool) -> VecDeque<Step> {
        let wild = self.may_harm(agent);
        let steps = script::draw(&mut self.dice, wild, server);
        for step in &steps {
            if let Some(fault) = step.fault() {
                self.cover.fault(fault);
            }
        }
        steps
    }

    /// One step of a turn.
    pub(crate) fn codex(&mut self, agent: &AgentName, key: Key, name: &str) {
        if self.mood == Mood::Silent {
            return;
        }
        let Some(child) = self.child(agent, key).filter(|child| !child.hangs) else { return };
        let server = child.server;
        let Some(run) = child.runs.get_mut(name) else { return };
        let Some(step) = run.steps.pop_front() else { return };
        run.tool = matches!(step, Step::Tool(_)) || (run.tool && step == Step::Hush);
        run.streams = matches!(step, Step::Think(_)) && key.1.0.is_multiple_of(2);
        self.note("codex", key.1.0, || format!("{agent} {name} {step:?}"));
        match &step {
            Step::Begin => self.run_begins(agent, key, name),
            Step::Tool(command) => self.deed(agent, key, name, command),
            _ => {}
        }
        let Some(run) = self.child(agent, key).and_then(|child| child.runs.get_mut(name)) else { return };
        let lines = script::lines(&step, run, server);
        let over = matches!(step, Step::Complete | Step::Fail(_) | Step::Interrupted);
        let (next, again) = (step.pause_ms(), !over && !run.steps.is_empty());
        for line in lines {
            self.codex_says(agent, key, line.to_string());
        }
        self.odd_step(agent, key, &step);
        if over && server {
            self.child(agent, key).and_then(|child| child.runs.remove(name));
        } else if over {
            let lingers = self.may_harm(agent) && self.dice.one_in(12);
            if let (false, Some(child)) = (lingers, self.child(agent, key)) {
                child.runs.clear();
                let code = Some(i32::from(!matches!(step, Step::Complete)));
                self.exits(agent, key, Exit { code, ..Exit::default() }, 20);
            } else {
                self.cover.fault("exec lingers after its end");
            }
        }
        if again {
            let pause = next + self.dice.roll(next / 2 + 1);
            self.later(pause, Event::Codex(agent.clone(), key, name.to_owned()));
        }
    }

    fn odd_step(&mut self, agent: &AgentName, key: Key, step: &Step) {
        match step {
            Step::Die(exit) => self.exits(agent, key, exit.clone(), 2),
            Step::Bad(count) => (0..*count).for_each(|_| self.codex_says(agent, key, "no json".into())),
            Step::TooLong => {
                let at = self.child(agent, key).map_or(0, |child| child.said_at);
                self.at(at, Event::Proc(agent.clone(), key.0, ToProc::Child(Input::LineTooLong(key.1, 9_000_000))));
            }
            _ => {}
        }
    }

    /// A line of a child, in its order.
    pub(crate) fn codex_says(&mut self, agent: &AgentName, key: Key, line: String) {
        let now = self.tick;
        let pause = self.dice.roll(3);
        let Some(child) = self.child(agent, key) else { return };
        child.said_at = child.said_at.max(now + pause);
        let at = child.said_at;
        self.at(at, Event::Proc(agent.clone(), key.0, ToProc::Child(Input::Line(key.1, line))));
    }

    /// A child ends, behind everything that it said.
    pub(crate) fn exits(&mut self, agent: &AgentName, key: Key, exit: Exit, within_ms: u64) {
        let now = self.tick;
        let pause = 1 + self.dice.roll(within_ms);
        let Some(child) = self.places.get_mut(agent).and_then(|place| place.children.remove(&key)) else { return };
        let at = child.said_at.max(now + pause);
        self.at(at, Event::Proc(agent.clone(), key.0, ToProc::Child(Input::Exited(key.1, exit))));
    }

    /// A worker ends a child, politely or not.
    pub(crate) fn end_codex(&mut self, agent: &AgentName, key: Key, kill: bool) {
        let hangs = self.may_harm(agent) && self.dice.one_in(4);
        let Some(child) = self.child(agent, key) else { return };
        if kill && hangs {
            child.hangs = true;
            self.cover.fault("a child hangs in the kernel");
            return;
        }
        if kill {
            return self.exits(agent, key, Exit { signal: Some(9), ..Exit::default() }, 20);
        }
        if child.ignores_end {
            self.cover.fault("a child ignores its polite end");
        } else if !std::mem::replace(&mut child.ending, true) {
            let code = Some(i32::from(!child.server));
            self.exits(agent, key, Exit { code, ..Exit::default() }, 300);
        }
    }

    /// A line that a worker writes to its app-server.
    pub(crate) fn codex_reads(&mut self, agent: &AgentName, key: Key, line: &str) {
        if self.mood == Mood::Silent {
            return;
        }
        let harm = self.may_harm(agent);
        if self.child(agent, key).is_none_or(|child| child.hangs) {
            return;
        }
        let message: Value = serde_json::from_str(line).expect("JSON");
        let (Some(method), Some(id)) = (message["method"].as_str(), message["id"].as_u64()) else { return };
        if harm && self.dice.one_in(60) {
            return self.cover.fault("a request is never answered");
        }
        if harm && self.dice.one_in(40) && method != "initialize" {
            self.cover.fault("a request is refused");
            let error = json!({"id": id, "error": {"code": -32600, "message": "not at this time"}});
            return self.codex_says(agent, key, error.to_string());
        }
        let answer = match method {
            "initialize" => Ok(json!({"userAgent": "cofferdam/0.169.0 (Debian 12.0.0; x86_64) x"})),
            "thread/start" | "thread/resume" | "thread/fork" => {
                self.open_thread(agent, key, method, &message["params"])
            }
            "turn/start" => self.start_turn(agent, key, &message["params"]),
            "turn/steer" => self.steer(agent, key, &message["params"]),
            "turn/interrupt" => self.interrupt(agent, key, &message["params"]),
            _ => Ok(json!({})),
        };
        let answer = match answer {
            Ok(result) => json!({"id": id, "result": result}),
            Err(text) => json!({"id": id, "error": {"code": -32600, "message": text}}),
        };
        self.codex_says(agent, key, answer.to_string());
        if method == "turn/start" {
            let pause = 5 + self.dice.roll(60);
            let thread = message["params"]["threadId"].as_str().unwrap_or_default().to_owned();
            self.later(pause, Event::Codex(agent.clone(), key, thread));
        }
    }

    fn open_thread(&mut self, agent: &AgentName, key: Key, method: &str, params: &Value) -> Result<Value, String> {
        let provider = params["modelProvider"].as_str().unwrap_or_default().to_owned();
        let asked = params["threadId"].as_str().unwrap_or_default().to_owned();
        let known = self.places[agent].disk.rollouts.get(&asked).cloned();
        let thread = if method == "thread/resume" { asked } else { self.thread_id() };
        if method != "thread/start" && known.is_none() {
            return Err("no rollout found for thread id".into());
        }
        let mut rollout = known.unwrap_or_default();
        if method == "thread/resume" && rollout.provider != provider {
            return Err("Cannot change this thread's model provider from `x` to `y` on resume.".into());
        }
        rollout.provider.clone_from(&provider);
        let place = self.places.get_mut(agent).expect("a place");
        place.disk.rollouts.insert(thread.clone(), rollout);
        if let Some(child) = place.children.get_mut(&key) {
            child.loaded.insert(thread.clone());
        }
        let named = if self.may_harm(agent) && self.dice.one_in(50) {
            self.cover.fault("another provider than asked for");
            "another".to_owned()
        } else {
            provider
        };
        Ok(json!({"thread": {"id": thread}, "modelProvider": named}))
    }

    fn start_turn(&mut self, agent: &AgentName, key: Key, params: &Value) -> Result<Value, String> {
        let thread = params["threadId"].as_str().unwrap_or_default().to_owned();
        let prompt = params["input"][0]["text"].as_str().unwrap_or_default().to_owned();
        let (attempt, turn) = self.runner(agent, key, Some(&thread));
        self.check_prompt(agent, attempt);
        let id = format!("turn-{}", self.number());
        let steps = self.script(agent, true);
        let run = Run {
            thread: thread.clone(),
            id: id.clone(),
            turn,
            attempt,
            prompt,
            begun: false,
            steps,
            last: 0,
            tool: false,
            streams: false,
        };
        let Some(child) = self.child(agent, key) else { return Err("gone".into()) };
        let before = child.runs.insert(thread.clone(), run);
        assert!(before.is_none(), "turn/start on thread {thread}, where a turn runs");
        Ok(json!({"turn": {"id": id}}))
    }

    fn steer(&mut self, agent: &AgentName, key: Key, params: &Value) -> Result<Value, String> {
        let thread = params["threadId"].as_str().unwrap_or_default();
        let text = params["input"][0]["text"].as_str().unwrap_or_default().to_owned();
        let Some(run) = self.child(agent, key).and_then(|child| child.runs.get(thread)).filter(|run| run.begun) else {
            return Err("no active turn to steer".into());
        };
        let attempt = run.attempt;
        self.truth.gives(attempt, text);
        Ok(json!({"turnId": params["expectedTurnId"]}))
    }

    fn interrupt(&mut self, agent: &AgentName, key: Key, params: &Value) -> Result<Value, String> {
        let harm = self.may_harm(agent);
        let deaf = harm && self.dice.one_in(8);
        let thread = params["threadId"].as_str().unwrap_or_default().to_owned();
        let Some(run) = self.child(agent, key).and_then(|child| child.runs.get_mut(&thread)) else {
            return Err("no active turn".into());
        };
        if deaf {
            self.cover.fault("an interrupt has no effect");
        } else {
            run.steps = [Step::Interrupted].into();
            self.later(20, Event::Codex(agent.clone(), key, thread));
        }
        Ok(json!({}))
    }
}
