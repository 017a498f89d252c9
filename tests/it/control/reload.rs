//! `reload` and SIGHUP: only what changed is touched, and a wrong file changes nothing.

use crate::scenes::{asked, ended, on, one_agent, world};
use cofferdam_tests::processes::{is_alive, signal};
use cofferdam_tests::standin::telegram::TelegramServer;
use cofferdam_tests::world::World;
use nix::sys::signal::Signal;
use std::fs;

fn edit(world: &World, change: impl FnOnce(String) -> String) {
    let text = change(fs::read_to_string(world.config()).unwrap());
    world.write_config(&text);
}

#[test]
fn an_unchanged_file_changes_nothing() {
    let world = one_agent("codex");
    let worker = world.worker("a");
    let ran = world.cli(&["reload"]);
    assert_eq!((ran.code, ran.stdout.trim()), (0, "nothing changed"), "{ran:?}");
    assert_eq!(world.worker("a"), worker);
    world.shut_down();
}

#[test]
fn a_changed_agent_alone_is_touched_and_its_running_turn_goes_on() {
    let world = world().agent("a", &on("codex")).agent("b", &on("codex")).start();
    let (a, b) = (world.worker("a"), world.worker("b"));
    let sending = world.sending("a", "c", "[[hold x]] old");
    asked(&world, "old", 1);
    edit(&world, |text| text.replace("[agents.a]\n", "[agents.a]\nenv = { COLOUR = \"blue\" }\n"));
    let ran = world.cli(&["reload"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("a: changed") && !ran.stdout.contains("b:"), "{ran:?}");
    world.model.release("x");
    assert_eq!(ended(&world, sending).event("finished")["text"], "echo: old");
    let colour = world.send("a", "d", "[[tool echo colour=$COLOUR]] look");
    assert!(colour["text"].as_str().unwrap().contains("colour=blue"), "{colour}");
    assert_eq!((world.worker("a"), world.worker("b")), (a, b), "no worker was replaced");
    world.shut_down();
}

#[test]
fn a_wrong_file_is_refused_with_its_report_and_the_old_one_stays() {
    let world = one_agent("codex");
    let worker = world.worker("a");
    edit(&world, |text| text.replace("[agents.a]\n", "[agents.a]\nsandbix = \"read-only\"\n"));
    let ran = world.cli(&["reload"]);
    assert_eq!(ran.code, 78, "{ran:?}");
    let told = ["sandbix", "sandbox", "cofferdam.toml:", "the old configuration stays in force"];
    assert!(told.iter().all(|word| ran.stderr.contains(word)), "{}", ran.stderr);
    signal(world.pid(), Signal::SIGHUP);
    assert_eq!(world.send("a", "c", "you?")["text"], "echo: you?");
    assert_eq!(world.worker("a"), worker);
    world.shut_down();
}

#[test]
fn agents_come_and_go() {
    let world = one_agent("codex");
    let a = world.worker("a");
    fs::create_dir(world.workspace("late")).unwrap();
    let table = format!("\n[agents.late]\nworkspace = \"{}\"\n", world.workspace("late").display());
    edit(&world, |text| text + &table);
    let ran = world.cli(&["reload"]);
    assert!(ran.code == 0 && ran.stdout.contains("late: added"), "{ran:?}");
    world.wait_ps("late", "the added agent", |row| row["state"] == "ready");
    assert_eq!(world.send("late", "c", "hi")["text"], "echo: hi");
    let late = world.worker("late");
    let sending = world.sending("late", "c", "[[hold x]] last");
    asked(&world, "last", 1);
    edit(&world, |text| text.replace(&table, ""));
    let ran = world.cli(&["reload"]);
    assert!(ran.code == 0 && ran.stdout.contains("late: removed"), "{ran:?}");
    assert_eq!(world.cli(&["send", "late", "more"]).code, 1);
    assert!(is_alive(late), "what runs is finished");
    world.model.release("x");
    assert_eq!(ended(&world, sending).event("finished")["text"], "echo: last");
    world.wait_ps("late", "the removed agent to be forgotten", serde_json::Value::is_null);
    assert!(!is_alive(late));
    assert!(world.state().join("agents/late/home").exists(), "its state is the operator's to remove");
    assert_eq!(world.worker("a"), a);
    world.shut_down();
}

#[test]
fn a_bot_is_heard_from_its_reload_on_and_sighup_is_a_reload_too() {
    let telegram = TelegramServer::start().unwrap();
    let bot = telegram.bot("123456:late-bot-token-aaaaaaaaaaaaaaaaaaaaaaa", "late_bot");
    let world = one_agent("codex");
    let worker = world.worker("a");
    let table = format!(
        "\n[telegram.late]\ntoken = \"{}\"\nagent = \"a\"\nowners = [7]\napi_root = \"{}\"\n",
        bot.token(),
        telegram.url()
    );
    edit(&world, |text| text + &table);
    signal(world.pid(), Signal::SIGHUP);
    let heard = || {
        let health = world.cli(&["health", "--json"]).json();
        health["channels"].as_array()?.iter().any(|row| row["channel"] == "telegram:late").then_some(())
    };
    cofferdam_tests::wait::until("the bot", cofferdam_tests::wait::LIMIT, || world.story(), heard);
    edit(&world, |text| text.replace(&table, ""));
    let ran = world.cli(&["reload"]);
    assert!(ran.code == 0 && ran.stdout.contains("late"), "{ran:?}");
    assert_eq!(world.cli(&["health", "--json"]).json()["channels"].as_array().map(Vec::len), Some(1));
    assert_eq!(world.worker("a"), worker);
    world.shut_down();
}
