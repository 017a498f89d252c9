//! Routes when things fail: another provider goes on with the history, nothing runs twice, who cannot be reached is named.

use crate::binaries;
use crate::both::{AGENTS, NO_RETRIES, answer, ask, both, last_attempt};
use cofferdam_tests::standin::model::ModelServer;
use cofferdam_tests::world::World;
use protocol::FailureClass;

/// A second provider, `spare`, at the same model.
fn with_spare(fallbacks: &str) -> World {
    let mut world = both(&format!("model = \"standin/gpt-5.4\"\nfallbacks = {fallbacks}"), NO_RETRIES).build();
    let config = std::fs::read_to_string(world.config()).unwrap();
    let spare =
        format!("\n[providers.spare]\nbase_url = {:?}\napi_key_env = \"STANDIN_KEY\"\n", world.model.base_url());
    world.write_config(&(config + &spare));
    world.run();
    world.wait_ready();
    world
}

#[test]
fn the_next_route_answers_and_says_so() {
    let world = with_spare(r#"["standin/gpt-5.5"]"#);
    for agent in AGENTS {
        let end = world.send(agent, "c", &format!("[[401 @gpt-5.4]] who is there, {agent}"));
        assert_eq!(answer(&world, &end), format!("echo: who is there, {agent}"));
        assert_eq!((end["model"].as_str(), end["attempts"].as_u64()), (Some("standin/gpt-5.5"), Some(2)), "{end}");
        let runtime = if agent == "app" { "codex" } else { "codex-cli" };
        assert_eq!(end["runtime"], runtime, "a fallback without a prefix keeps the runtime");
        let story = world.turn(end["turn"].as_u64().unwrap());
        assert_eq!(
            (&story["attempts"][0]["class"], &story["attempts"][0]["model"]),
            (&"auth".into(), &"standin/gpt-5.4".into())
        );
        let ran = world.cli(&["send", agent, &format!("[[401 @gpt-5.4]] again, {agent}")]);
        assert!(ran.code == 0 && ran.stderr.contains("standin/gpt-5.5"), "people are told too: {ran:?}");
        // The next turn begins at the first route again.
        assert_eq!(world.send(agent, "c", "first again")["model"], "standin/gpt-5.4");
    }
    world.shut_down();
}

#[test]
fn another_provider_goes_on_with_the_history() {
    let world = with_spare(r#"["spare/gpt-5.5"]"#);
    for agent in AGENTS {
        ask(&world, agent, "c", "remember this");
        let end = world.send(agent, "c", "[[401 @gpt-5.4]] [[recall]]");
        assert_eq!(end["model"], "spare/gpt-5.5", "{end}\n{}", world.story());
        // The first route has put the prompt into the thread before it failed, and Codex takes nothing out of one.
        assert_eq!(answer(&world, &end), r#"recall: ["remember this","[[401 @gpt-5.4]] [[recall]]"]"#);
    }
    world.shut_down();
}

#[test]
fn nothing_is_repeated_after_a_tool_has_run() {
    let world = with_spare(r#"["standin/gpt-5.5"]"#);
    for agent in AGENTS {
        let end = world.send(agent, "c", &format!("[[tool echo once >> log-{agent}]] [[401]] x"));
        assert_eq!((end["class"].as_str(), end["attempts"].as_u64()), (Some("auth"), Some(1)), "{end}");
        assert!(end["text"].as_str().unwrap().contains("echo once"), "it says what had run: {end}");
        let log = std::fs::read_to_string(world.workspace(agent).join(format!("log-{agent}"))).unwrap();
        assert_eq!(log, "once\n");
        // Too long a conversation is not another model's business.
        let end = world.send(agent, "d", "[[context @gpt-5.4]] x");
        assert_eq!((end["class"].as_str(), end["attempts"].as_u64()), (Some("context_overflow"), Some(1)), "{end}");
    }
    world.shut_down();
}

#[test]
fn a_usage_limit_tells_when_it_ends() {
    let world = both("", NO_RETRIES).start();
    for agent in AGENTS {
        let end = world.send(agent, "c", "[[usage-limit in 5400]] x");
        assert_eq!(end["class"], "usage_limit", "{end}");
        let attempt = last_attempt(&world, end["turn"].as_u64().unwrap());
        let [at, ended] = ["resets_at", "ended_at"].map(|key| attempt[key].as_u64().unwrap());
        // Exec tells it in prose, which has no seconds.
        assert!(at.abs_diff(ended / 1000 + 5400) <= 90, "{agent}: {attempt}");
        assert!(end["text"].as_str().unwrap().contains("it resets at "), "{end}");
        let ran = world.cli(&["turns", "show", &end["turn"].to_string()]);
        assert!(ran.stdout.contains("usage_limit"), "{ran:?}");
    }
    world.shut_down();
}

#[test]
fn a_model_that_codex_does_not_know_still_answers() {
    let world = both("model = \"standin/glm-5.1\"", "").start();
    for agent in AGENTS {
        assert_eq!(ask(&world, agent, "c", "hello"), "echo: hello");
    }
    world.shut_down();
}

#[test]
fn a_provider_that_is_not_there_is_told_apart_from_one_without_a_key() {
    let quiet =
        |name| format!("[defaults.codex.model_providers.{name}]\nrequest_max_retries = 0\nstream_max_retries = 0\n");
    let mut builder = World::builder(binaries())
        .defaults(&(quiet("refused") + &quiet("nameless")))
        .rest("[providers.refused]\nbase_url = \"http://127.0.0.1:9/v1\"")
        .rest("[providers.nameless]\nbase_url = \"http://model.invalid/v1\"")
        .rest("[providers.keyless]\nbase_url = \"http://127.0.0.1:9/v1\"\napi_key_env = \"NO_SUCH_KEY_ANYWHERE\"");
    let providers = [
        ("refused", FailureClass::Network),
        ("nameless", FailureClass::Network),
        ("keyless", FailureClass::ProviderUnknown),
    ];
    let agents: Vec<_> = providers
        .iter()
        .flat_map(|(name, class)| {
            ["codex", "codex-cli"].map(|runtime| (format!("{name}-{runtime}"), *name, runtime, *class))
        })
        .collect();
    for (agent, provider, runtime, _) in &agents {
        builder = builder.agent(agent, &format!("model = \"{provider}/gpt-5.5\"\nruntime = \"{runtime}\""));
    }
    let world = builder.start();
    let all: Vec<_> = agents
        .iter()
        .map(|(agent, _, _, class)| (agent, *class, crate::both::Sending::new(&world, agent, "c", "hello?")))
        .collect();
    for (agent, class, sending) in all {
        let end = sending.finished(&world);
        assert_eq!(end["class"], class.as_str(), "{agent}: {end}\n{}", world.story());
        assert_eq!(end["attempts"], 1 + u64::from(class.policy().retries), "{agent}: {end}");
        assert!(end["text"].as_str().unwrap().starts_with(class.policy().told), "{agent}: {end}");
        let detail = last_attempt(&world, end["turn"].as_u64().unwrap())["detail"].as_str().unwrap().to_owned();
        assert!(class != FailureClass::ProviderUnknown || detail.contains("NO_SUCH_KEY_ANYWHERE"), "{agent}: {detail}");
    }
    world.shut_down();
}

#[test]
fn a_provider_that_comes_back_is_used_again() {
    let mut world = both("", NO_RETRIES).start();
    for agent in AGENTS {
        ask(&world, agent, "c", "before");
    }
    let port = world.model.address().port();
    // The port refuses from here on.
    let elsewhere = ModelServer::start().unwrap();
    drop(std::mem::replace(&mut world.model, elsewhere));
    let all = AGENTS.map(|agent| (agent, crate::both::Sending::new(&world, agent, "c", "anybody?")));
    for (agent, sending) in all {
        let end = sending.finished(&world);
        assert_eq!((end["class"].as_str(), end["attempts"].as_u64()), (Some("network"), Some(2)), "{agent}: {end}");
    }
    world.model = ModelServer::start_on(port, false).unwrap();
    for agent in AGENTS {
        assert_eq!(ask(&world, agent, "c", "after"), "echo: after");
    }
    world.shut_down();
}
