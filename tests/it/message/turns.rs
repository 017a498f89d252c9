//! Plain turns: an answer, a thread that remembers, a runtime that changes under it, many at once.

use crate::both::{AGENTS, Sending, answer, ask, both, last_attempt};
use serde_json::Value;

#[test]
fn a_conversation_remembers_and_another_does_not() {
    let world = both("", "").start();
    for agent in AGENTS {
        let first = world.send(agent, "a", "good morning");
        assert_eq!(answer(&world, &first), "echo: good morning");
        assert_eq!(first["model"], "standin/gpt-5.5");
        assert_eq!(first["attempts"], 1);
        let second = world.send(agent, "a", "[[recall]]");
        assert_eq!(answer(&world, &second), r#"recall: ["good morning"]"#);
        assert_eq!(second["thread"], first["thread"]);
        let other = world.send(agent, "b", "[[recall]]");
        assert_eq!(answer(&world, &other), "recall: []");
        assert_ne!(other["thread"], first["thread"]);

        let story = world.turn(first["turn"].as_u64().unwrap());
        assert_eq!(story["row"]["state"], "completed");
        assert_eq!(story["prompt"], "good morning");
        assert_eq!(story["answer"], "echo: good morning");
        let attempt = last_attempt(&world, first["turn"].as_u64().unwrap());
        assert_eq!(attempt["state"], "completed");
        assert_eq!(attempt["thread"], first["thread"]);
        assert_eq!(attempt["tokens"], serde_json::json!([100, 10]), "{attempt}");
    }
    assert_eq!(world.ps("app")["runtime"], "codex");
    assert_eq!(world.ps("cli")["runtime"], "codex-cli");
    world.shut_down();
}

#[test]
fn the_answer_is_on_standard_output_alone() {
    let world = both("", "").start();
    for agent in AGENTS {
        let ran = world.cli(&["send", agent, "hello"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "echo: hello\n"), "{ran:?}");
        assert!(ran.stderr.contains("standin/gpt-5.5"), "{ran:?}");
    }
    world.shut_down();
}

#[test]
fn a_change_of_runtime_keeps_the_history() {
    let world = both("", "").start();
    let first = world.send("app", "c", "one");
    let config = std::fs::read_to_string(world.config()).unwrap();
    for (runtime, recalled, prompt) in [
        ("codex-cli", r#"recall: ["one"]"#, "[[recall]] two"),
        ("codex", r#"recall: ["one","[[recall]] two"]"#, "[[recall]] three"),
    ] {
        world.write_config(&config.replacen("runtime = \"codex\"\n", &format!("runtime = \"{runtime}\"\n"), 1));
        let ran = world.cli(&["reload"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        let end = world.send("app", "c", prompt);
        assert_eq!(answer(&world, &end), recalled);
        assert_eq!(end["runtime"], runtime);
        assert_eq!(end["thread"], first["thread"]);
    }
    world.shut_down();
}

#[test]
fn five_agents_answer_at_once() {
    let mut builder = both("", "");
    for name in ["one", "two", "three"] {
        builder = builder.agent(name, "runtime = \"codex\"");
    }
    let world = builder.start();
    let names = ["app", "cli", "one", "two", "three"];
    // Nobody's request is answered before everybody's is there: they do run at once.
    let all: Vec<Sending> =
        names.iter().map(|name| Sending::new(&world, name, "c", &format!("[[hold all]] i am {name}"))).collect();
    for name in names {
        crate::both::wait(world.model.next_prompt(&format!("i am {name}"), cofferdam_tests::wait::LIMIT));
    }
    world.model.release("all");
    for (sending, name) in all.into_iter().zip(names) {
        assert_eq!(answer(&world, &sending.finished(&world)), format!("echo: i am {name}"));
    }
    world.shut_down();
}

#[test]
fn a_turn_goes_on_without_its_sender_and_is_listed() {
    let world = both("", "").start();
    for agent in AGENTS {
        let ran = world.cli(&["send", agent, "[[hold later]] nobody waits", "--no-wait", "--json"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        let lines = ran.json_lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0]["event"], "accepted");
        let turn = lines[0]["turn"].as_u64().unwrap();
        world.wait_ps(agent, "the turn to run", |row| row["running"] == 1);
        world.model.release("later");
        world.wait_ps(agent, "the turn to end", |row| row["running"] == 0);
        let story = world.turn(turn);
        assert_eq!(story["answer"], "echo: nobody waits");
        let listed: Value = world.cli(&["turns", agent, "--json"]).json();
        assert_eq!(listed[0]["turn"], turn, "{listed}");
        assert_eq!(listed[0]["state"], "completed", "{listed}");
        let shown = world.cli(&["turns", "show", &turn.to_string()]);
        assert!(shown.code == 0 && shown.stdout.contains("echo: nobody waits"), "{shown:?}");
        world.model.reset();
    }
    world.shut_down();
}

#[test]
fn a_failed_turn_is_tried_again_as_a_new_one() {
    let world = both("", crate::both::NO_RETRIES).start();
    for agent in AGENTS {
        let failed = world.send(agent, "c", &format!("[[401 x1]] once more for {agent}"));
        assert_eq!(failed["outcome"], "failed", "{failed}");
        let turn = failed["turn"].as_u64().unwrap();
        let ran = world.cli(&["retry", &turn.to_string()]);
        assert_eq!(ran.code, 0, "{ran:?}");
        let listed = || world.cli(&["turns", agent, "--json"]).json();
        let again = cofferdam_tests::wait::until(
            "the retry's end",
            cofferdam_tests::wait::LIMIT,
            || world.story(),
            || Some(listed()).filter(|rows| rows[0]["state"] == "completed"),
        );
        let story = world.turn(again[0]["turn"].as_u64().unwrap());
        assert_eq!(story["retry_of"], turn, "{story}");
        assert_eq!(story["answer"], format!("echo: once more for {agent}"));
        assert_eq!(ask(&world, agent, "c", "and on"), "echo: and on");
    }
    world.shut_down();
}
