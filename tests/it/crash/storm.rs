//! Ten kills at random moments of twenty turns of three agents: every accepted turn has exactly one end.

use crate::scenes::{codex_pids, is_end, on, post, world};
use cofferdam_tests::processes::kill9;
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::World;
use serde_json::Value;
use std::collections::BTreeMap;

const TURNS: u64 = 20;
const AGENTS: [&str; 3] = ["a", "b", "c"];
/// Set to repeat the storm of a failed run.
const SEED_VARIABLE: &str = "COFFERDAM_TEST_SEED";

/// Numbers that look random; a seed gives the same ones again.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        // Knuth's constants.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What a turn of the storm does: words, words that take a while, a tool.
fn prompt(dice: &mut Dice, turn: u64) -> String {
    match dice.throw(3) {
        0 => format!("words of turn-{turn}-"),
        1 => format!("[[slow 5x30ms]] slow words of turn-{turn}-"),
        _ => format!("[[tool echo tool-of-turn-{turn}- >> done; sleep 0.1]] turn-{turn}-"),
    }
}

fn kill_something(world: &mut World, dice: &mut Dice, workers_killed: &mut BTreeMap<&str, u32>) -> String {
    let agent = AGENTS[usize::try_from(dice.throw(3)).unwrap()];
    let bears = workers_killed.get(agent).copied().unwrap_or(0) < 4;
    match dice.throw(5) {
        0 => {
            world.kill_supervisor();
            world.run();
            workers_killed.clear();
            "the supervisor".to_owned()
        }
        1 | 2 if bears => {
            *workers_killed.entry(agent).or_default() += 1;
            kill9(world.worker(agent));
            format!("the worker of {agent}")
        }
        1..=4 => {
            codex_pids(world, agent).into_iter().for_each(kill9);
            format!("Codex of {agent}")
        }
        side => panic!("a die with a side {side}"),
    }
}

#[test]
fn every_accepted_turn_has_exactly_one_end() {
    let seed = std::env::var(SEED_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_121);
    let mut dice = Dice(seed);
    let mut builder = world();
    for (agent, runtime) in AGENTS.into_iter().zip(["codex", "codex-cli", "codex"]) {
        builder = builder.agent(agent, &format!("{}\nqueue = \"queue\"", on(runtime)));
    }
    let mut world = builder.start();
    let (mut turns, mut killed, mut tale) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for number in 0..TURNS {
        let agent = AGENTS[usize::try_from(number % 3).unwrap()];
        let prompt = prompt(&mut dice, number);
        let id = post(&world, agent, &format!("c{}", dice.throw(2)), &prompt);
        turns.insert(id, (number, prompt));
        if number % 2 == 1 {
            // Something is under way: the model has seen at least one request of the last turns.
            let before = world.model.requests().len();
            if dice.throw(2) == 0 {
                let more = || (world.model.requests().len() > before).then_some(());
                until("a request", LIMIT, || world.story(), more);
            }
            tale.push(kill_something(&mut world, &mut dice, &mut killed));
            until("the supervisor", LIMIT, || world.story(), || (world.cli(&["health"]).code == 0).then_some(()));
        }
    }
    let told = format!("seed {seed}: {tale:?}");
    let rows = until(&format!("every end, {told}"), LIMIT * 2, || world.story(), || all_ended(&world));
    assert_eq!(rows.len(), turns.len(), "{told}\n{rows:#?}");
    for row in &rows {
        let (number, prompt) = &turns[&row["turn"].as_u64().unwrap()];
        one_end(&world, row, *number, prompt, &told);
    }
    let completed = rows.iter().filter(|row| row["state"] == "completed").count();
    assert!(completed >= turns.len() / 3, "a storm that leaves nothing proves nothing: {completed}, {told}");
    world.shut_down();
}

fn all_ended(world: &World) -> Option<Vec<Value>> {
    let rows = world.cli(&["turns", "--most", "100", "--json"]).json();
    let rows = rows.as_array()?.clone();
    rows.iter().all(|row| is_end(row["state"].as_str().unwrap_or_default())).then_some(rows)
}

fn one_end(world: &World, row: &Value, number: u64, prompt: &str, told: &str) {
    let story = world.turn(row["turn"].as_u64().unwrap());
    let attempts = story["attempts"].as_array().unwrap();
    let states: Vec<_> = attempts.iter().map(|attempt| attempt["state"].as_str().unwrap_or_default()).collect();
    assert!(states.iter().all(|state| is_end(state)), "an attempt without an end: {story:#}, {told}");
    let (last, earlier) = states.split_last().unwrap_or((&"", &[]));
    assert!(earlier.iter().all(|state| *state == "failed"), "{story:#}, {told}");
    assert_eq!(row["state"], *last, "{story:#}, {told}");
    for attempt in attempts.iter().rev().skip(1) {
        assert_eq!(attempt["replay_safe"], true, "only what is safe is repeated: {story:#}, {told}");
    }
    if prompt.contains("[[tool") {
        let made = world.workspace(row["agent"].as_str().unwrap()).join("done");
        let made = std::fs::read_to_string(made).unwrap_or_default();
        let times = made.lines().filter(|line| line.contains(&format!("turn-{number}-"))).count();
        assert!(times <= 1, "a deed was repeated {times} times: {story:#}, {told}");
        assert!(row["state"] != "completed" || times == 1, "{story:#}, {told}");
    } else if row["state"] == "failed" {
        // Words are replayed; a second kill of the same turn is the end of it.
        assert!(attempts.len() >= 2 || attempts[0]["replay_safe"] == false, "{story:#}, {told}");
    }
}
