//! The disk budget of an agent with the real Codex: its logs go between turns, its threads stay, its owner is told.

use crate::scenes::{on, on_both_runtimes, world};
use cofferdam_tests::standin::telegram::TelegramServer;
use cofferdam_tests::wait::{LIMIT, until};
use std::fs;

const TOKEN: &str = "424243:a-token-of-the-disk-budget-aaaaaaaa";
const OWNER: i64 = 11_111_111;

on_both_runtimes!(logs_go_between_turns_threads_stay_and_the_owner_hears_of_it);

fn logs_go_between_turns_threads_stay_and_the_owner_hears_of_it(runtime: &str) {
    let telegram = TelegramServer::start().unwrap();
    let bot = telegram.bot(TOKEN, "a_bot");
    let lines = format!("{}\nlimits = {{ disk_max = \"8M\" }}", on(runtime));
    let world = world().agent("a", &lines).bot("a_bot", "a", TOKEN, &telegram, OWNER).start();
    let first = world.send("a", "c", "remember: teal");
    assert_eq!(first["outcome"], "completed", "{first}");
    let dir = world.state().join("agents/a");
    let log = dir.join("codex-home/logs_2.sqlite");
    assert!(log.exists());
    fs::write(dir.join("home/large"), vec![1; 20 << 20]).unwrap();
    // The next look is due a minute after the last one, unless the worker is a new one.
    assert_eq!(world.cli(&["restart", "a"]).code, 0);
    world.wait_ready();
    assert_eq!(world.send("a", "c", "and on")["thread"], first["thread"]);
    // No Codex runs before the next message, so that nobody makes it anew.
    until("the log database to go", LIMIT, || world.story(), || (!log.exists()).then_some(()));
    let alerted = || bot.texts(OWNER).iter().any(|text| text.contains("limits.disk_max")).then_some(());
    until("an alert", LIMIT, || world.story(), alerted);
    // Codex makes its logs anew and goes on with the thread.
    let next = world.send("a", "c", "still there?");
    assert_eq!((&next["outcome"], &next["thread"]), (&"completed".into(), &first["thread"]), "{next}");
    assert!(dir.join("home/large").exists() && log.exists());
    world.shut_down();
}
