//! What one input costs the supervisor's decisions, in this process: it must not grow with the number of agents.

use super::clock::now;
use super::table::{Samples, Table};
use super::{Fault, Plan, agent};
use protocol::control::Request;
use protocol::from_worker::{Beat, Isolation, Ready};
use protocol::hello::Accord;
use protocol::{AgentName, FromWorker, Incarnation, Route, Runtime};
use supervisor::machine::Machine;
use supervisor::machine::nouns::Identity;
use supervisor::machine::nouns::{CallerId, Memory, Now};
use supervisor::machine::setup::{Agent as Policy, QueueMode, Setup};
use supervisor::machine::words::{Effect, Input, Linked, Swept};

/// Inputs of one sample.
const BATCH: u32 = 200;

/// Beats of idle workers, and `health`, beside ten agents and beside a thousand.
pub(super) fn inputs(plan: &Plan, _table: &mut Table) -> Result<(), Fault> {
    Table::heading("decisions");
    for count in [10, 1_000] {
        let mut fleet = Fleet::ready(count)?;
        let beats = plan.rounds(100);
        Table::row(&format!("a beat of a worker, {count} agents, us"), &fleet.measure(beats, Fleet::beat));
        Table::row(&format!("a question for health, {count} agents, us"), &fleet.measure(beats, Fleet::health));
    }
    Ok(())
}

/// A machine whose agents are ready.
struct Fleet {
    machine: Machine,
    names: Vec<AgentName>,
    tick: u64,
    next: usize,
}

impl Fleet {
    fn ready(count: usize) -> Result<Self, Fault> {
        let names: Result<Vec<AgentName>, _> = (0..count).map(|index| AgentName::parse(&agent(index))).collect();
        let mut names = names.map_err(|error| Fault(error.to_string()))?;
        // Runs are numbered in the order in which agents are started: by name.
        names.sort();
        let policy = Policy {
            heartbeat_ms: 15_000,
            turn_ms: 3_600_000,
            routes: vec![Route { runtime: Runtime::Codex, provider: "openai".into(), model: "gpt-5.5".into() }],
            max_turns: 3,
            queue_max: 64,
            queue: QueueMode::Steer,
            stop_grace_ms: 10_000,
            served: 0,
        };
        let agents = names.iter().map(|name| (name.clone(), policy.clone())).collect();
        let setup =
            Setup { max_turns: 16, starts_max: 4, alert_after: 3, agents, bots: std::collections::BTreeMap::new() };
        let (machine, first) = Machine::recover(Now { tick: 0, wall: 0 }, setup, Memory::default(), 1);
        let mut fleet = Self { machine, names, tick: 0, next: 0 };
        let mut effects = first;
        while !effects.is_empty() {
            let answers: Vec<Input> = std::mem::take(&mut effects).into_iter().filter_map(answer).flatten().collect();
            for input in answers {
                effects.extend(fleet.give(input));
            }
        }
        Ok(fleet)
    }

    fn give(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.machine.handle(Now { tick: self.tick, wall: self.tick }, input, &mut effects);
        let _due = self.machine.deadline();
        effects
    }

    fn beat(&mut self) {
        self.next = (self.next + 1) % self.names.len();
        let (name, run) = (self.names[self.next].clone(), Incarnation(self.next as u64 + 1));
        let beat = FromWorker::Beat(Beat { running: 0, children: 0 });
        self.give(Input::Said(name, run, beat));
    }

    fn health(&mut self) {
        self.give(Input::Asked(CallerId(1), Request::Health));
    }

    /// Microseconds of one input, on average over [`BATCH`] of them.
    fn measure(&mut self, rounds: usize, one: fn(&mut Self)) -> Samples {
        let round = |_| {
            let begin = now();
            for _ in 0..BATCH {
                one(self);
            }
            begin.elapsed().as_secs_f64() * 1e6 / f64::from(BATCH)
        };
        Samples::new((0..rounds).map(round).collect())
    }
}

/// What the leaves answer on the way to a worker that is ready; nothing to all else.
fn answer(effect: Effect) -> Option<Vec<Input>> {
    if let Effect::Dial(agent, run) = effect {
        return Some(vec![Input::LinkFailed(agent, run, "nobody is there".into())]);
    }
    if let Effect::Sweep(agent, run) = effect {
        return Some(vec![Input::Swept(agent, run, Swept::default())]);
    }
    let Effect::Spawn(agent, run, nonce) = effect else { return None };
    let identity = Identity { boot: 1, pid: 2, inode: 3, started: 4 };
    let linked = Linked {
        incarnation: run,
        pid: identity.pid,
        accord: Accord::Full,
        nonce,
        identity,
        protocol: protocol::version::PROTOCOL,
        build: String::new(),
        outdated: false,
    };
    let ready = Ready { running: Vec::new(), isolation: Isolation::Untried, bounds: Vec::new() };
    Some(vec![
        Input::Spawned(agent.clone(), run, identity),
        Input::Linked(agent.clone(), linked),
        Input::Said(agent, run, FromWorker::Ready(ready)),
    ])
}
