//! Who is served, and how: two agents with a bot each, by seed.

use super::dice::Dice;
use protocol::to_worker::{Approval, Auth, Clocks, Configure, Home, Limits, Reviewer, Sandbox};
use protocol::{AgentName, Route, Runtime};
use std::collections::BTreeMap;
use supervisor::machine::setup::{Agent, Bot, QueueMode, Setup};

/// May write.
pub(crate) const FRIEND: i64 = 11;
/// May write and order.
pub(crate) const OWNER: i64 = 1;
/// The agents.
pub(crate) const NAMES: [&str; 2] = ["a", "b"];
/// Messages that may wait at an agent.
pub(crate) const QUEUE_MAX: u32 = 6;
/// Clocks short enough that each runs out within a run.
pub(crate) const CLOCKS: Clocks = Clocks {
    first_event_ms: 8_000,
    silence_ms: 20_000,
    turn_ms: 90_000,
    compaction_ms: 30_000,
    idle_after_ms: 15_000,
    orphan_after_ms: 25_000,
    stop_grace_ms: 1_000,
    heartbeat_ms: 5_000,
};

pub(crate) fn name(text: &str) -> AgentName {
    AgentName::parse(text).expect("a name")
}

fn route(runtime: Runtime, provider: &str, model: &str) -> Route {
    Route { runtime, provider: provider.into(), model: model.into() }
}

/// What the configuration says, by seed.
pub(crate) fn setup(dice: &mut Dice, calm: bool) -> Setup {
    let modes = [QueueMode::Steer, QueueMode::Queue, QueueMode::Collect, QueueMode::Interrupt];
    let routes = [
        vec![route(Runtime::Codex, "openai", "first"), route(Runtime::CodexCli, "openai", "second")],
        vec![route(Runtime::CodexCli, "openai", "first"), route(Runtime::Codex, "local", "second")],
        vec![route(Runtime::Codex, "openai", "first"), route(Runtime::Codex, "local", "second")],
        vec![route(Runtime::CodexCli, "local", "first"), route(Runtime::CodexCli, "openai", "second")],
    ];
    let mut policy = || Agent {
        routes: dice.pick(&routes).clone(),
        max_turns: 1 + u32::try_from(dice.roll(3)).expect("small"),
        queue_max: QUEUE_MAX,
        queue: *dice.pick(&modes),
        stop_grace_ms: 4_000,
        turn_ms: CLOCKS.turn_ms,
        heartbeat_ms: CLOCKS.heartbeat_ms,
        served: 0,
    };
    let agents: BTreeMap<AgentName, Agent> = NAMES.iter().map(|n| (name(n), policy())).collect();
    let bot = |agent: &str| Bot { agent: name(agent), allow: [FRIEND].into(), owners: [OWNER].into(), heard: 0 };
    let bots = NAMES.iter().map(|n| (format!("{n}bot"), bot(n))).collect();
    // Further turns are scarce where first turns must not feel it.
    let max_turns = if calm { 0 } else { 1 + u32::try_from(dice.roll(3)).expect("small") };
    let starts_max = 1 + u32::try_from(dice.roll(3)).expect("small");
    Setup { max_turns, starts_max, alert_after: 3, agents, bots }
}

/// What the agents of some seeds may use.
pub(crate) fn limits() -> Limits {
    let (high, max) = (512 << 20, 1 << 30);
    let (memory_high, memory_max, disk_max) = (Some(high), Some(max), Some(max));
    Limits { memory_high, memory_max, disk_max, pids_max: Some(100), ..Limits::default() }
}

/// How a worker is told to serve.
pub(crate) fn configure(policy: &Agent, limits: Limits) -> Configure {
    Configure {
        ledger: 1,
        workspace: "/workspace".into(),
        codex_command: "codex".into(),
        default_route: policy.routes[0].clone(),
        providers: Vec::new(),
        auth: Auth::None,
        sandbox: Sandbox::WorkspaceWrite,
        // What a reload changes.
        network: policy.served.is_multiple_of(2),
        writable: Vec::new(),
        approval: Approval::Never,
        reviewer: Reviewer::User,
        home: Home::Private,
        real_home: "/home/person".into(),
        home_share: Vec::new(),
        env: Vec::new(),
        env_secret: Vec::new(),
        codex_extra: String::new(),
        masked: Vec::new(),
        limits,
        max_turns: policy.max_turns,
        clocks: CLOCKS,
    }
}
