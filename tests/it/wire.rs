//! The bytes of every message: pinned, so that two releases can talk; and hostile bytes against each.

use proptest::prelude::*;
use protocol::control::{self, Reply, Request, SendEvent, Verb};
use protocol::envelope::{Bound, By, Limit};
use protocol::frame::{self, Frame};
use protocol::from_worker::{Beat, Delta, Isolation, Phase, Progress, Ready, Started, Steered};
use protocol::guest::{Guest, Guests};
use protocol::hello::{Hello, Role};
use protocol::stable::{Finished, Outcome};
use protocol::text::TextFile;
use protocol::to_worker::{
    Approval, Auth, Begin, Clocks, Configure, Home, Interrupt, InterruptReason, Limits, Provider, Reviewer, Sandbox,
    Steer,
};
use protocol::{AgentName, AttemptId, FailureClass, FromWorker, Incarnation, Route, Runtime, Text, ToWorker, TurnId};

fn agent() -> AgentName {
    AgentName::parse("research").unwrap()
}

fn route() -> Route {
    Route { runtime: Runtime::CodexCli, provider: "openai".into(), model: "gpt-5.5".into() }
}

fn long_text() -> Text {
    Text::File(TextFile::describe("/s/texts/answer-7".into(), "the whole text"))
}

fn configure() -> Configure {
    Configure {
        ledger: 7,
        workspace: "/w".into(),
        codex_command: "codex".into(),
        default_route: route(),
        providers: vec![Provider { name: "p".into(), base_url: "http://p/v1".into(), api_key_env: Some("K".into()) }],
        auth: Auth::Shared("/h/.codex/auth.json".into()),
        sandbox: Sandbox::WorkspaceWrite,
        network: true,
        writable: vec!["/data".into()],
        approval: Approval::Never,
        reviewer: Reviewer::User,
        home: Home::Private,
        real_home: "/h".into(),
        home_share: vec![".gitconfig".into()],
        env: vec![("PATH".into(), "/bin".into())],
        env_secret: vec!["K".into()],
        codex_extra: String::new(),
        masked: vec!["/s".into()],
        limits: Limits {
            memory_max: Some(1),
            cpu_weight: Some(100),
            pids_max: Some(9),
            core_size: Some(0),
            ..Limits::default()
        },
        max_turns: 3,
        clocks: Clocks {
            first_event_ms: 1,
            silence_ms: 2,
            turn_ms: 3,
            compaction_ms: 4,
            idle_after_ms: 5,
            orphan_after_ms: 6,
            stop_grace_ms: 7,
            heartbeat_ms: 8,
        },
    }
}

fn finished() -> Finished {
    let mut end = Finished::new(AttemptId(5), TurnId(6), Outcome::Failed(FailureClass::UsageLimit));
    end.text = long_text();
    end.thread = Some("t".into());
    end.detail = "d".into();
    end.replay_safe = true;
    end.ran = vec!["ls".into(), "make".into()];
    (end.exit_code, end.signal) = (Some(-1), Some(9));
    end.stderr = "e".into();
    end.resets_at = Some(8);
    end.first_event_ms = Some(9);
    (end.duration_ms, end.input_tokens, end.output_tokens) = (10, 11, 12);
    end.codex_version = Some("0.169.0".into());
    end
}

fn to_worker() -> Vec<ToWorker> {
    let text = Text::Inline("hi".into());
    vec![
        ToWorker::Hello(Hello { build: "1".into(), ..Hello::new(Role::Supervisor, agent(), Incarnation(3)) }),
        ToWorker::Ack(AttemptId(5)),
        ToWorker::Drain,
        ToWorker::Kill,
        ToWorker::Configure(Box::new(configure())),
        ToWorker::Begin(Box::new(Begin {
            attempt: AttemptId(5),
            turn: TurnId(6),
            thread: Some("t".into()),
            prompt: long_text(),
            route: route(),
            begun: false,
        })),
        ToWorker::Steer(Steer { attempt: AttemptId(5), turn: TurnId(7), text }),
        ToWorker::Interrupt(Interrupt { attempt: AttemptId(5), reason: InterruptReason::Asked }),
        ToWorker::Archive(vec!["t".into()]),
        ToWorker::Ping(9),
    ]
}

fn from_worker() -> Vec<FromWorker> {
    let attempt = AttemptId(5);
    vec![
        FromWorker::Hello(Hello { build: "1".into(), ..Hello::new(Role::Worker, agent(), Incarnation(3)) }),
        FromWorker::Finished(Box::new(finished())),
        FromWorker::Ready(Ready {
            running: vec![attempt],
            isolation: Isolation::NamespaceAndCgroup,
            bounds: vec![Bound { limit: Limit::PidsMax, value: 9, by: By::Sampling }],
        }),
        FromWorker::Begun(attempt),
        FromWorker::Started(Started { attempt, thread: "t".into(), isolation: Isolation::BestEffort }),
        FromWorker::Progress(Progress { attempt, phase: Phase::Tool, detail: "make".into(), dropped: 2, for_ms: 3 }),
        FromWorker::Delta(Delta { attempt, text: "so".into() }),
        FromWorker::Steered(Steered { attempt, turn: TurnId(7), taken: true }),
        FromWorker::Beat(Beat { running: 1, children: 2 }),
        FromWorker::Note("n".into()),
        FromWorker::Alert("a".into()),
        FromWorker::Spare(vec!["t".into(), "u".into()]),
        FromWorker::Pong(9),
    ]
}

fn requests() -> Vec<Request> {
    vec![
        Request::Health,
        Request::Ps,
        Request::Send(control::Send {
            agent: agent(),
            conversation: "c".into(),
            text: Text::Inline("hi".into()),
            wait: true,
        }),
        Request::Turns(control::Turns { agent: Some(agent()), failed: true, most: 9 }),
        Request::Turn(TurnId(6)),
        Request::Queue(agent()),
        Request::Agents(Verb::Kill, vec![agent()]),
        Request::Interrupt(agent(), None),
        Request::Retry(TurnId(6)),
        Request::Reload,
        Request::Shutdown { now: true },
        Request::Upgrade("/p".into()),
        Request::Guests(Guests {
            base_url: "http://127.0.0.1:1/v1".into(),
            agents: vec![Guest {
                agent: agent(),
                runtime: Runtime::Codex,
                memory_max: Some(1),
                pids_max: None,
                compact_at_tokens: Some(2),
            }],
        }),
        Request::Ping(agent()),
    ]
}

fn replies() -> Vec<Reply> {
    vec![
        Reply::Event(SendEvent::Accepted { turn: TurnId(6) }),
        Reply::Event(SendEvent::Queued { turn: TurnId(6), position: 2 }),
        Reply::Event(SendEvent::Joined { turn: TurnId(6), into: TurnId(5) }),
        Reply::Event(SendEvent::Refused { reason: "full".into() }),
        Reply::Guests(vec![agent()]),
        Reply::Note("n".into()),
        Reply::Done,
        Reply::Refused(control::Refused { kind: control::RefusedKind::Later, why: "w".into() }),
    ]
}

fn frames() -> Vec<(String, Frame)> {
    let name = |debug: String| debug.split(['(', ' ', '{']).next().unwrap_or_default().to_owned();
    let mut all = Vec::new();
    all.extend(to_worker().iter().map(|m| (format!("to_worker {}", name(format!("{m:?}"))), m.to_frame().unwrap())));
    all.extend(
        from_worker().iter().map(|m| (format!("from_worker {}", name(format!("{m:?}"))), m.to_frame().unwrap())),
    );
    all.extend(requests().iter().map(|m| (format!("request {}", name(format!("{m:?}"))), m.to_frame().unwrap())));
    all.extend(replies().iter().map(|m| (format!("reply {}", name(format!("{m:?}"))), m.to_frame().unwrap())));
    all
}

/// Every message reads back as itself.
fn reads_back(frame: &Frame) -> bool {
    let to = ToWorker::from_frame(frame).ok().flatten().is_some_and(|m| m.to_frame().as_ref() == Ok(frame));
    let from = FromWorker::from_frame(frame).ok().flatten().is_some_and(|m| m.to_frame().as_ref() == Ok(frame));
    let request = Request::from_frame(frame).ok().flatten().is_some_and(|m| m.to_frame().as_ref() == Ok(frame));
    let reply = Reply::from_frame(frame).ok().flatten().is_some_and(|m| m.to_frame().as_ref() == Ok(frame));
    to || from || request || reply
}

#[test]
fn the_bytes_of_every_message_are_pinned() {
    let lines: Vec<String> = frames()
        .iter()
        .map(|(name, frame)| {
            assert!(reads_back(frame), "{name}");
            let bytes = frame::encode(frame.kind, &frame.body).unwrap();
            let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{name} {}", hex.concat())
        })
        .collect();
    insta::assert_snapshot!("wire", lines.join("\n"));
}

#[test]
fn trailing_bytes_are_refused_and_unknown_kinds_are_skipped() {
    for (name, mut frame) in frames() {
        // A stable body is a list of fields: a byte more is a field that is cut.
        if frame.body.is_empty() {
            continue;
        }
        frame.body.push(0);
        assert!(!reads_back(&frame), "{name}");
        frame.kind = 999;
        assert_eq!(ToWorker::from_frame(&frame), Ok(None));
        assert_eq!(FromWorker::from_frame(&frame), Ok(None));
        assert_eq!(Request::from_frame(&frame), Ok(None));
        assert_eq!(Reply::from_frame(&frame), Ok(None));
    }
}

#[test]
fn a_field_of_a_newer_release_is_skipped() {
    let mut frame = FromWorker::Finished(Box::new(finished())).to_frame().unwrap();
    frame.body.extend_from_slice(&[200, 2, 0, 0, 0, 1, 2]);
    assert_eq!(FromWorker::from_frame(&frame), Ok(Some(FromWorker::Finished(Box::new(finished())))));
}

proptest! {
    #[test]
    fn flipped_and_cut_messages_never_panic(which in 0usize..100, at in 0usize..2000, bit in 0usize..8, cut in 0usize..2000) {
        let all = frames();
        let (_, mut frame) = all[which % all.len()].clone();
        if !frame.body.is_empty() {
            let at = at % frame.body.len();
            frame.body[at] ^= 1 << bit;
            frame.body.truncate(frame.body.len() - cut % frame.body.len());
        }
        // Whatever comes of it is a value or an error.
        drop(ToWorker::from_frame(&frame));
        drop(FromWorker::from_frame(&frame));
        drop(Request::from_frame(&frame));
        drop(Reply::from_frame(&frame));
    }
}
