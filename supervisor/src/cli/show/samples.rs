//! Answers as a supervisor gives them, for the pictures.

use crate::cli::screen::Look;
use jiff::tz::TimeZone;
use protocol::control::{
    AgentRow, AgentState, AttemptStory, ChannelRow, FinishedEvent, Health, HealthStatus, LastError, QueueRow, TurnRow,
    TurnStory,
};
use protocol::envelope::{Bound, By, Limit};
use protocol::{AgentName, AttemptId, Text, TurnId};

/// 2026-11-21 03:10:00 UTC.
const NOW: u64 = 1_795_230_600_000;

pub(super) fn look() -> Look {
    Look { colour: false, width: 80, now: NOW, zone: TimeZone::UTC.into() }
}

fn agent(name: &str, state: AgentState, seconds: u64) -> AgentRow {
    AgentRow {
        agent: AgentName::parse(name).unwrap(),
        wanted: "up".into(),
        state,
        pid: Some(4242),
        incarnation: Some(7),
        runtime: "codex".into(),
        model: "openai/gpt-5.5".into(),
        running: 0,
        queued: 0,
        rss_bytes: 2_400_000,
        processes: 1,
        restarts: 0,
        last_error: None,
        since: NOW - seconds * 1000,
        phase: None,
        phase_since: None,
        isolation: "namespace".into(),
        limits: vec![Bound { limit: Limit::MemoryMax, value: 2 << 30, by: By::Sampling }],
        build: Some("0.1.0".into()),
        outdated: false,
    }
}

pub(super) fn agents() -> Vec<AgentRow> {
    let busy = AgentRow {
        running: 1,
        queued: 2,
        rss_bytes: 184_000_000,
        processes: 4,
        phase: Some("in a tool: cargo test --workspace --all-features".into()),
        phase_since: Some(NOW - 42_000),
        ..agent("research", AgentState::Busy, 192)
    };
    let error = |class: &str, text: &str, streak| LastError {
        turn: (class != "worker").then_some(TurnId(41)),
        class: class.into(),
        text: text.into(),
        at: NOW - 720_000,
        streak,
    };
    let sick = AgentRow {
        last_error: Some(error("auth", "401 Unauthorized\nrefresh_token_reused", 52)),
        ..agent("ops", AgentState::Ready, 19_200)
    };
    let down = AgentRow {
        wanted: "down".into(),
        pid: None,
        incarnation: None,
        rss_bytes: 0,
        processes: 0,
        ..agent("a-very-long-name-for-an-agent-32", AgentState::Down, 500_000)
    };
    let failed = AgentRow {
        processes: 0,
        last_error: Some(error("worker", "exit code 101 (a bug: see log/worker.stderr in the agent's folder)", 1)),
        ..agent("broken", AgentState::Failed, 9)
    };
    let leaving = AgentRow { wanted: "down".into(), running: 1, ..agent("mail", AgentState::Draining, 3) };
    vec![busy, sick, down, failed, leaving]
}

pub(super) fn health() -> Health {
    let channel =
        |channel: &str, state: &str, waiting| ChannelRow { channel: channel.into(), state: state.into(), waiting };
    Health {
        status: HealthStatus::Degraded,
        version: "0.1.0".into(),
        uptime_s: 19_234,
        agents: [("ready", 8), ("busy", 1), ("failed", 1), ("down", 0)].map(|(s, n)| (s.to_owned(), n)).into(),
        ledger: "ok".into(),
        channels: vec![
            channel("console", "ok", 0),
            channel("telegram:ops_bot", "the token was refused (401): check token_file", 3),
        ],
        upgrade_failed: None,
    }
}

pub(super) fn turns() -> Vec<TurnRow> {
    let row =
        |turn, agent: &str, state: &str, class: Option<&str>, ago: u64, took: Option<u64>, prompt: &str| TurnRow {
            turn: TurnId(turn),
            agent: agent.into(),
            conversation: "console:default".into(),
            state: state.into(),
            class: class.map(str::to_owned),
            accepted_at: NOW - ago * 1000,
            ended_at: took.map(|took| NOW - ago * 1000 + took),
            attempts: 1,
            prompt: prompt.into(),
        };
    vec![
        row(1204, "research", "queued", None, 4, None, "and then?"),
        row(1203, "research", "running", None, 42, None, "Run the whole test suite and tell me what fails"),
        row(1202, "ops", "failed", Some("compaction_timeout"), 720, Some(600_000), "digest"),
        row(12, "a-very-long-name-for-an-agent-32", "completed", None, 400_000, Some(3_200), "hello\nworld"),
    ]
}

pub(super) fn queue() -> Vec<QueueRow> {
    let row = |turn, place: &str, ago: u64, prompt: &str| QueueRow {
        turn: TurnId(turn),
        conversation: "telegram:research_bot:11111111".into(),
        place: place.into(),
        accepted_at: NOW - ago * 1000,
        prompt: prompt.into(),
        phase: (place == "running").then(|| "in a tool: cargo test --workspace".into()),
        phase_since: (place == "running").then_some(NOW - 12_000),
    };
    vec![row(1203, "running", 42, "Run the whole test suite and tell me what fails"), row(1204, "1", 4, "and then?")]
}

pub(super) fn finished() -> FinishedEvent {
    FinishedEvent {
        turn: TurnId(12),
        outcome: "completed".into(),
        class: None,
        text: Text::Inline("Hello.".into()),
        runtime: Some("codex".into()),
        model: Some("openai/gpt-5.5".into()),
        thread: Some("0199-a".into()),
        attempts: 1,
        duration_ms: 3200,
    }
}

fn attempt(number: u64, begun_at: u64) -> AttemptStory {
    AttemptStory {
        attempt: AttemptId(number),
        incarnation: 7,
        runtime: "codex".into(),
        model: "openai/gpt-5.5".into(),
        thread: Some("0199-a".into()),
        state: "failed".into(),
        class: Some("codex_exit".into()),
        detail: "stream disconnected before completion".into(),
        ran: vec!["$ git fetch --all".into(), "$ rm -r build".into()],
        replay_safe: false,
        exit_code: Some(1),
        signal: None,
        stderr: "ERROR codex_core: error sending request\nERROR codex_core: giving up".into(),
        begun_at,
        started_at: Some(begun_at + 900),
        ended_at: Some(begun_at + 71_000),
        first_event_ms: Some(400),
        tokens: (12_000, 340),
        codex_version: Some("0.169.0".into()),
        resets_at: None,
    }
}

pub(super) fn story() -> TurnStory {
    let accepted = NOW - 600_000;
    let row = TurnRow {
        turn: TurnId(1202),
        agent: "ops".into(),
        conversation: "telegram:ops_bot:11111111".into(),
        state: "failed".into(),
        class: Some("codex_exit".into()),
        accepted_at: accepted,
        ended_at: Some(accepted + 75_000),
        attempts: 2,
        prompt: "Clean the build and fetch".into(),
    };
    let first = AttemptStory {
        class: Some("rate_limit".into()),
        detail: "429 Too Many Requests".into(),
        ran: Vec::new(),
        replay_safe: true,
        exit_code: None,
        stderr: String::new(),
        ended_at: Some(accepted + 2_000),
        tokens: (0, 0),
        ..attempt(76, accepted + 12)
    };
    TurnStory {
        row,
        source: "telegram:ops_bot:11111111".into(),
        retry_of: Some(TurnId(1198)),
        prompt: "Clean the build and fetch.\nThen tell me what changed.".into(),
        answer:
            "I could not finish: Codex ended before the answer was complete. What ran: git fetch --all; rm -r build"
                .into(),
        next_step: Some("read the stderr in `cofferdam turns show ID`; `cofferdam retry` it".into()),
        attempts: vec![first, attempt(77, accepted + 3_000)],
        events: vec![(accepted + 2_001, "waits 1s for another try on the same route".into())],
        posts: vec![("sent".into(), "final to telegram:ops_bot:11111111".into())],
    }
}
