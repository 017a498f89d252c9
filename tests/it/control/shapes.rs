//! The JSON that scripts read: every key of every listing, and no other.

use crate::scenes::{asked, ended, on, post, world};
use cofferdam_tests::world::World;
use serde_json::Value;
use std::collections::BTreeSet;

/// The keys of an object.
fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap_or_else(|| panic!("no object: {value}")).keys().map(String::as_str).collect()
}

fn words(text: &str) -> BTreeSet<&str> {
    text.split_whitespace().collect()
}

/// A world with a turn that completed, one that failed, one that runs and one that waits.
fn eventful() -> (World, std::process::Child) {
    let world = world().agent("a", &format!("{}\nqueue = \"queue\"", on("codex"))).agent("b", &on("codex-cli")).start();
    assert_eq!(world.send("a", "c", "well")["outcome"], "completed");
    assert_eq!(world.send("a", "c", "[[tool true]] [[404]] ill")["outcome"], "failed");
    let running = world.sending("a", "c", "[[hold x]] runs");
    asked(&world, "runs", 1);
    post(&world, "a", "c", "waits");
    (world, running)
}

#[test]
fn listings_have_the_keys_that_scripts_know() {
    let (world, running) = eventful();
    let rows = world.cli(&["ps", "--json"]).json();
    assert_eq!(rows.as_array().map(Vec::len), Some(2));
    let contract = "agent wanted state pid incarnation runtime model running queued rss_bytes processes restarts \
                    last_error since phase phase_since isolation limits build outdated";
    assert_eq!(keys(&rows[0]), words(contract), "{rows:#}");
    assert_eq!(keys(&rows[0]["limits"][0]), words("limit value by"), "{rows:#}");
    assert_eq!(keys(&rows[0]["last_error"]), words("class text turn at streak"), "{rows:#}");
    assert_eq!((&rows[0]["state"], &rows[0]["running"], &rows[0]["queued"]), (&"busy".into(), &1.into(), &1.into()));
    assert_eq!((&rows[1]["runtime"], &rows[1]["last_error"]), (&"codex-cli".into(), &Value::Null));
    assert!(rows[0]["rss_bytes"].as_u64() > Some(0) && rows[0]["processes"].as_u64() > Some(1), "{rows:#}");
    let health = world.cli(&["health", "--json"]).json();
    assert_eq!(keys(&health), words("status version uptime_s agents ledger channels upgrade_failed"), "{health:#}");
    assert_eq!((&health["status"], &health["agents"]["busy"]), (&"ok".into(), &1.into()), "{health:#}");
    assert_eq!(keys(&health["channels"][0]), words("channel state waiting"), "{health:#}");
    let queue = world.cli(&["queue", "a", "--json"]).json();
    assert_eq!(keys(&queue[1]), words("turn conversation place accepted_at prompt phase phase_since"), "{queue:#}");
    let turns = world.cli(&["turns", "--json"]).json();
    let contract = "turn agent conversation state class accepted_at ended_at attempts prompt";
    assert_eq!(keys(&turns[0]), words(contract), "{turns:#}");
    let states: Vec<_> = turns.as_array().unwrap().iter().map(|row| row["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["queued", "running", "failed", "completed"], "latest first");
    let failed = world.cli(&["turns", "--failed", "--json"]).json();
    assert_eq!((failed.as_array().map(Vec::len), &failed[0]["turn"]), (Some(1), &2.into()), "{failed:#}");
    assert_eq!(world.cli(&["turns", "b", "--json"]).json().as_array().map(Vec::len), Some(0));
    world.model.release("x");
    ended(&world, running);
    world.shut_down();
}

#[test]
fn the_story_of_a_turn_has_everything() {
    let (world, running) = eventful();
    let story = world.turn(2);
    let contract = "row source retry_of prompt answer next_step attempts events posts";
    assert!(keys(&story).is_superset(&words(contract)), "{story:#}");
    let attempt = &story["attempts"][0];
    let contract = "attempt incarnation runtime model thread state class detail ran replay_safe exit_code signal stderr \
                    begun_at started_at ended_at first_event_ms tokens codex_version resets_at";
    assert!(keys(attempt).is_superset(&words(contract)), "{attempt:#}");
    assert!(attempt["ran"].to_string().contains("true"), "{attempt:#}");
    assert!(story["next_step"].is_string(), "{story:#}");
    let picture = world.cli(&["turns", "show", "2"]);
    assert!(picture.code == 0 && picture.stdout.contains("failed"), "{picture:?}");
    world.model.release("x");
    ended(&world, running);
    world.shut_down();
}

#[test]
fn send_tells_events_one_a_line() {
    let (world, running) = eventful();
    let second = world.sending("a", "c", "after them");
    world.wait_ps("a", "it to wait", |row| row["queued"] == 2);
    world.model.release("x");
    ended(&world, running);
    let said = ended(&world, second);
    assert_eq!(keys(said.event("accepted")), words("event turn"));
    assert_eq!(keys(said.event("queued")), words("event turn position"));
    assert_eq!(said.event("queued")["position"], 2);
    let finished = said.event("finished");
    let contract = "event turn outcome class text runtime model thread attempts duration_ms";
    assert_eq!(keys(finished), words(contract), "{finished}");
    assert_eq!((&finished["runtime"], &finished["class"]), (&"codex".into(), &Value::Null));
    assert_eq!(said.lines.last().unwrap()["event"], "finished");
    let plain = world.cli(&["send", "a", "plain"]);
    assert_eq!((plain.code, plain.stdout.trim()), (0, "echo: plain"), "{plain:?}");
    let refused = world.cli(&["send", "nobody", "x", "--json"]);
    assert_eq!(keys(&refused.json_lines()[0]), words("event reason"), "{refused:?}");
    world.shut_down();
}

#[test]
fn small_commands_say_what_they_should() {
    let world = world().agent("a", &on("codex")).start();
    assert_eq!(world.send("a", "c", "hi")["outcome"], "completed");
    let logs = world.cli(&["logs", "a", "-n", "5"]);
    assert_eq!((logs.code, logs.stdout.lines().count()), (0, 5), "{logs:?}");
    for line in world.cli(&["logs", "a", "--json"]).stdout.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
    let version = world.cli(&["version", "--json"]).json();
    assert_eq!(keys(&version), words("version protocol ledger"));
    assert!(world.cli(&["version"]).stdout.contains(version["version"].as_str().unwrap()));
    for shell in ["bash", "zsh", "fish"] {
        let ran = world.cli(&["completions", shell]);
        assert!(ran.code == 0 && ran.stdout.contains("cofferdam") && ran.stdout.contains("shutdown"), "{ran:?}");
    }
    let check = world.cli(&["check", "--json"]).json();
    assert_eq!((keys(&check), &check["ok"]), (words("ok path problems"), &true.into()));
    let nothing = world.cli(&["interrupt", "a"]);
    assert!(nothing.code == 0 && nothing.stdout.contains("nothing runs"), "{nothing:?}");
    // What a person reads is a table, with every agent and no JSON.
    for listing in ["ps", "health", "turns"] {
        let ran = world.cli(&[listing]);
        assert!(ran.code == 0 && !ran.stdout.contains('{') && !ran.stdout.is_empty(), "{ran:?}");
    }
    world.shut_down();
}
