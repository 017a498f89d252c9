//! Messages that meet a running turn: lanes, their limits, and the four queue modes.

use crate::both::{AGENTS, Sending, answer, ask, both, held, wait};
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::World;
use serde_json::Value;

fn running(world: &World, agent: &str, number: u64) {
    world.wait_ps(agent, &format!("{number} turns to run"), |row| row["running"] == number);
}

fn prompts_seen(world: &World) -> Vec<String> {
    world.model.requests().into_iter().map(|request| request.prompt).collect()
}

#[test]
fn conversations_run_at_once_up_to_the_limit() {
    let world = both("max_turns = 2\nqueue = \"queue\"", "").start();
    for agent in AGENTS {
        let all: Vec<Sending> = ["a", "b", "c"]
            .iter()
            .map(|name| Sending::new(&world, agent, name, &format!("[[hold {agent}]] {agent} {name}")))
            .collect();
        for name in ["a", "b"] {
            wait(world.model.next_prompt(&format!("{agent} {name}"), LIMIT));
        }
        let row = world.ps(agent);
        assert_eq!((&row["running"], &row["queued"]), (&Value::from(2), &Value::from(1)), "{row}");
        assert_eq!(world.model.count_prompt(&format!("{agent} c")), 0, "the third waits");
        world.model.release(agent);
        for (sending, name) in all.into_iter().zip(["a", "b", "c"]) {
            assert_eq!(answer(&world, &sending.finished(&world)), format!("echo: {agent} {name}"));
        }
    }
    world.shut_down();
}

#[test]
fn one_conversation_keeps_its_order_and_tells_the_place() {
    let world = both("queue = \"queue\"", "").start();
    for agent in AGENTS {
        let first = Sending::new(&world, agent, "c", &format!("[[hold {agent}]] {agent} 0"));
        held(&world, agent);
        let rest: Vec<Sending> = (1..4).map(|i| Sending::new(&world, agent, "c", &format!("{agent} {i}"))).collect();
        let waiting: Value = world.cli(&["queue", agent, "--json"]).json();
        let places: Vec<&str> = waiting.as_array().unwrap().iter().map(|row| row["place"].as_str().unwrap()).collect();
        assert_eq!(places, ["running", "1", "2", "3"]);
        world.model.release(agent);
        assert_eq!(answer(&world, &first.finished(&world)), format!("echo: {agent} 0"));
        for (i, sending) in (1_u64..).zip(rest) {
            let events = sending.events(&world);
            assert_eq!(events[1]["event"], "queued", "{events:?}");
            assert_eq!(events[1]["position"], i, "{events:?}");
            assert_eq!(answer(&world, events.last().unwrap()), format!("echo: {agent} {i}"));
        }
        let seen: Vec<String> = prompts_seen(&world).into_iter().filter(|prompt| prompt.contains(agent)).collect();
        let wanted: Vec<String> = (0..4)
            .map(|i| if i == 0 { format!("[[hold {agent}]] {agent} 0") } else { format!("{agent} {i}") })
            .collect();
        assert_eq!(seen, wanted);
    }
    world.shut_down();
}

#[test]
fn a_full_queue_refuses_and_says_how_many_wait() {
    let world = both("queue = \"queue\"\nqueue_max = 2", "").start();
    for agent in AGENTS {
        let mut all = vec![Sending::new(&world, agent, "c", &format!("[[hold {agent}]] 0"))];
        held(&world, agent);
        all.extend((1..3).map(|i| Sending::new(&world, agent, "c", &i.to_string())));
        let ran = world.cli(&["send", agent, "one too many", "--conversation", "c", "--json"]);
        assert_eq!(ran.code, 75, "{ran:?}");
        let lines = ran.json_lines();
        assert_eq!(lines.len(), 1, "one refusal, said once: {lines:?}");
        assert_eq!(lines[0]["event"], "refused");
        assert_eq!(lines[0]["reason"], "queue full: 2 waiting");
        let ran = world.cli(&["send", agent, "one too many", "--conversation", "c"]);
        assert_eq!((ran.code, ran.stderr.matches("queue full: 2 waiting").count()), (75, 1), "{ran:?}");
        world.model.release(agent);
        for sending in all {
            answer(&world, &sending.finished(&world));
        }
        assert_eq!(ask(&world, agent, "c", "room again"), "echo: room again");
    }
    world.shut_down();
}

#[test]
fn steer_brings_the_text_into_the_running_turn() {
    let world = both("queue = \"steer\"", "").start();
    // Two requests: the steered text comes between them, as one more prompt of the same turn.
    let first = Sending::new(&world, "app", "c", "[[tool echo one]] [[hold steer]] [[say first]]");
    held(&world, "steer");
    let second = Sending::new(&world, "app", "c", "and mind the gap");
    let turn = first.turn();
    until(
        "the text to be joined",
        LIMIT,
        || world.story(),
        || (world.turn(second.turn())["row"]["state"] == "joined").then_some(()),
    );
    world.model.release("steer");
    let end = first.finished(&world);
    let events = second.events(&world);
    assert!(events.iter().any(|event| event["event"] == "joined" && event["into"] == turn), "{events:?}");
    assert_eq!(events.last().unwrap()["turn"], turn, "whoever steered hears the end of the turn: {events:?}");
    assert_eq!(answer(&world, &end), "echo: and mind the gap");
    let last = world.model.requests().pop().unwrap();
    assert_eq!(last.prompt, "and mind the gap");
    assert!(last.has("[[hold steer]]"), "the same thread");
    world.shut_down();
}

#[test]
fn steer_waits_where_a_turn_cannot_be_steered() {
    let world = both("queue = \"steer\"", "").start();
    let first = Sending::new(&world, "cli", "c", "[[hold steer]] one");
    held(&world, "steer");
    let second = Sending::new(&world, "cli", "c", "two");
    world.model.release("steer");
    assert_eq!(answer(&world, &first.finished(&world)), "echo: one");
    assert_eq!(answer(&world, &second.finished(&world)), "echo: two");
    world.shut_down();
}

#[test]
fn collect_makes_one_turn_of_what_waited() {
    let world = both("queue = \"collect\"", "").start();
    for agent in AGENTS {
        let first = Sending::new(&world, agent, "c", &format!("[[hold {agent}]] zero"));
        held(&world, agent);
        let rest: Vec<Sending> =
            ["one", "two", "three"].iter().map(|text| Sending::new(&world, agent, "c", text)).collect();
        world.model.release(agent);
        assert_eq!(answer(&world, &first.finished(&world)), "echo: zero");
        let turn = rest[0].turn();
        for (i, sending) in rest.into_iter().enumerate() {
            let events = sending.events(&world);
            let end = events.last().unwrap();
            assert_eq!(end["turn"], turn, "{events:?}");
            assert_eq!(answer(&world, end), "echo: one\n\ntwo\n\nthree");
            assert_eq!(events.iter().any(|event| event["event"] == "joined"), i > 0, "{events:?}");
        }
        assert_eq!(world.model.count_prompt("three"), 1);
        world.model.reset();
    }
    world.shut_down();
}

#[test]
fn interrupt_ends_the_running_turn_for_the_newer_message() {
    let world = both("queue = \"interrupt\"", "").start();
    for agent in AGENTS {
        let first = Sending::new(&world, agent, "c", &format!("[[hold {agent}]] old"));
        held(&world, agent);
        let second = Sending::new(&world, agent, "c", "new");
        let end = first.finished(&world);
        assert_eq!(end["outcome"], "interrupted", "{end}");
        assert!(end["text"].as_str().unwrap().contains("a newer message"), "{end}");
        assert_eq!(answer(&world, &second.finished(&world)), "echo: new");
        running(&world, agent, 0);
        assert_eq!(ask(&world, agent, "c", "after"), "echo: after");
    }
    world.shut_down();
}
