//! Failures of the model's provider: what it does, the class that it gets, and what everybody is told.

use crate::both::{AGENTS, NO_RETRIES, Sending, ask, both, last_attempt};
use cofferdam_tests::world::World;
use protocol::FailureClass;
use serde_json::Value;

/// A failure of the provider and what must come of it.
struct Case {
    marker: &'static str,
    class: FailureClass,
    /// A piece of the raw words that the record keeps.
    detail: &'static str,
}

const fn case(marker: &'static str, class: FailureClass, detail: &'static str) -> Case {
    Case { marker, class, detail }
}

/// What the provider can do to a turn. Those that are tried again by themselves stand first: their pauses pass together.
const CASES: &[Case] = &[
    case("[[429]]", FailureClass::RateLimit, "429"),
    case("[[failed rate_limit_exceeded]]", FailureClass::RateLimit, "rate"),
    case("[[drop]]", FailureClass::Network, "error sending request"),
    case("[[cut]]", FailureClass::Network, "stream disconnected"),
    case("[[400]]", FailureClass::ModelError, "invalid_request_error"),
    case("[[500]]", FailureClass::ModelError, "high demand"),
    case("[[503]]", FailureClass::ModelError, "at capacity"),
    case("[[incomplete]]", FailureClass::ModelError, "max_output_tokens"),
    case("[[failed server_error]]", FailureClass::ModelError, "server_error"),
    case("[[failed cyber_policy]]", FailureClass::ModelError, "cyber_policy"),
    case("[[failed moon_phase]]", FailureClass::ModelError, "moon_phase"),
    case("[[usage-limit]]", FailureClass::UsageLimit, "usage limit"),
    case("[[quota]]", FailureClass::UsageLimit, "Quota exceeded"),
    case("[[failed insufficient_quota]]", FailureClass::UsageLimit, "Quota exceeded"),
    case("[[401]]", FailureClass::Auth, "401"),
    case("[[403]]", FailureClass::BlockedPage, "403"),
    case("[[blocked]]", FailureClass::BlockedPage, "403"),
    case("[[404]]", FailureClass::ModelUnknown, "does not exist"),
    case("[[context]]", FailureClass::ContextOverflow, "context window"),
    case("[[failed context_length_exceeded]]", FailureClass::ContextOverflow, "context window"),
];

#[test]
fn every_failure_of_a_provider_has_one_class() {
    let world = both("max_turns = 6", NO_RETRIES).start();
    let send = |agent, (i, case): (usize, &'static Case)| {
        (agent, case, Sending::new(&world, agent, &format!("c{i}"), case.marker))
    };
    let all: Vec<_> = AGENTS.iter().flat_map(|agent| CASES.iter().enumerate().map(|at| send(*agent, at))).collect();
    for (agent, case, sending) in all {
        told(&world, agent, case, &sending.finished(&world));
    }
    for agent in AGENTS {
        for i in (0..CASES.len()).step_by(5) {
            // The thread of a failed turn is as good as any other.
            assert_eq!(ask(&world, agent, &format!("c{i}"), "and after it"), "echo: and after it");
        }
        assert_eq!(world.ps(agent)["restarts"], 0, "a provider's failure ends no worker");
    }
    world.shut_down();
}

/// Checks what the sender, the operator and the record were told.
#[track_caller]
fn told(world: &World, agent: &str, case: &Case, end: &Value) {
    let (marker, class) = (case.marker, case.class);
    let policy = class.policy();
    assert_eq!(end["outcome"], "failed", "{agent} {marker}: {end}");
    assert_eq!(end["class"], class.as_str(), "{agent} {marker}: {end}");
    assert_eq!(end["attempts"], 1 + u64::from(policy.retries), "{agent} {marker}: {end}");
    let text = end["text"].as_str().unwrap();
    assert!(text.starts_with(policy.told), "{agent} {marker}: {text}");
    let turn = end["turn"].as_u64().unwrap();
    let story = world.turn(turn);
    assert_eq!(story["row"]["class"], class.as_str(), "{agent} {marker}");
    assert_eq!(story["answer"], text, "{agent} {marker}: the record is what the sender read");
    let next = policy.next_step.replace("AGENT", agent).replace("ID", &turn.to_string());
    assert_eq!(story["next_step"], next, "{agent} {marker}");
    let attempt = last_attempt(world, turn);
    assert_eq!(attempt["class"], class.as_str(), "{agent} {marker}");
    let detail = attempt["detail"].as_str().unwrap().to_lowercase();
    assert!(detail.contains(&case.detail.to_lowercase()), "{agent} {marker}: {detail}");
    assert_eq!(attempt["replay_safe"], true, "{agent} {marker}: no tool has run");
    if agent == "cli" {
        assert_eq!(attempt["exit_code"], 1, "{agent} {marker}: {attempt}");
    }
}
