//! Old threads with the real Codex: those that no conversation goes on with go into its archive, the others stay, and one
//! that is wanted all the same comes back.

use crate::scenes::{on, on_both_runtimes, world};
use cofferdam_tests::codex::native_codex;
use cofferdam_tests::standin::telegram::TelegramServer;
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::World;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

const TOKEN: &str = "424244:a-token-of-the-old-threads-aaaaaaaaaa";
const OWNER: i64 = 11_111_111;
const DAY: Duration = Duration::from_hours(24);

on_both_runtimes!(
    unused_threads_are_archived_under_pressure_and_used_ones_stay,
    old_ones_go_and_one_that_is_wanted_comes_back
);

/// The rollouts below a folder.
fn rollouts(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { rollouts(&path) } else { vec![path] }).collect()
}

/// The threads whose rollouts lie below a folder.
fn threads(dir: &Path) -> BTreeSet<String> {
    let name = |path: PathBuf| path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    rollouts(dir).into_iter().map(name).map(|name| name[name.len().saturating_sub(36)..].to_owned()).collect()
}

fn age(home: &Path, age: Duration) {
    for path in rollouts(&home.join("sessions")) {
        let file = File::options().write(true).open(path).unwrap();
        let written = file.metadata().unwrap().modified().unwrap();
        file.set_modified(written - age).unwrap();
    }
}

fn thread(end: &Value) -> String {
    assert_eq!(end["outcome"], "completed", "{end}");
    end["thread"].as_str().unwrap_or_default().to_owned()
}

fn archived(world: &World, home: &Path, wanted: &BTreeSet<String>) {
    let look = || (threads(&home.join("archived_sessions")) == *wanted).then_some(());
    until(&format!("an archive of {wanted:?}"), LIMIT, || world.story(), look);
}

/// The threads of a chat that was begun anew after each text, oldest first. The chat goes on with the last.
fn chat(world: &World, bot: &cofferdam_tests::standin::telegram::Bot, home: &Path, texts: &[&str]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for text in texts {
        let before = threads(&home.join("sessions"));
        if !found.is_empty() {
            bot.says(OWNER, "/new");
        }
        bot.says(OWNER, text);
        let answer = format!("echo: {text}");
        let answered = || bot.texts(OWNER).iter().any(|said| said.contains(&answer)).then_some(());
        until(&answer, LIMIT, || world.story(), answered);
        found.extend(threads(&home.join("sessions")).difference(&before).cloned());
    }
    assert_eq!(found.len(), texts.len(), "{found:?}");
    found
}

fn restart(world: &World) {
    // A new worker has looked at nothing yet, and no Codex of the old one lives.
    assert_eq!(world.cli(&["restart", "a"]).code, 0);
    world.wait_ready();
}

fn unused_threads_are_archived_under_pressure_and_used_ones_stay(runtime: &str) {
    let telegram = TelegramServer::start().unwrap();
    let bot = telegram.bot(TOKEN, "a_bot");
    let lines = format!("{}\nlimits = {{ disk_max = \"16M\" }}", on(runtime));
    let world = world().agent("a", &lines).bot("a_bot", "a", TOKEN, &telegram, OWNER).start();
    let home = world.state().join("agents/a/codex-home");
    let talks = ["c0", "c1", "c2"];
    let used: Vec<String> = talks.iter().map(|talk| thread(&world.send("a", talk, "hi"))).collect();
    let of_chat = chat(&world, &bot, &home, &["first", "second", "third"]);
    age(&home, 2 * DAY);
    fs::write(world.state().join("agents/a/home/large"), vec![1; 20 << 20]).unwrap();
    restart(&world);
    assert_eq!(thread(&world.send("a", "c0", "and on")), used[0]);
    let unused: BTreeSet<String> = of_chat[..2].iter().cloned().collect();
    archived(&world, &home, &unused);
    for (talk, used) in talks.iter().zip(&used) {
        assert_eq!(thread(&world.send("a", talk, "still there?")), *used);
    }
    bot.says(OWNER, "and you?");
    let answered = || bot.texts(OWNER).iter().any(|said| said.contains("echo: and you?")).then_some(());
    until("the chat to go on", LIMIT, || world.story(), answered);
    let kept: BTreeSet<String> = used.into_iter().chain(of_chat[2..].iter().cloned()).collect();
    assert_eq!(threads(&home.join("sessions")), kept, "nothing is lost and nothing is new");
    archived(&world, &home, &unused);
    let alerts =
        || bot.texts(OWNER).iter().filter(|text| text.contains("limits.disk_max")).cloned().collect::<Vec<_>>();
    until("an alert", LIMIT, || world.story(), || (!alerts().is_empty()).then_some(()));
    let alerts = alerts();
    assert!(alerts.len() == 1 && alerts[0].contains("codex-home/archived_sessions"), "{alerts:?}");
    world.shut_down();
}

fn old_ones_go_and_one_that_is_wanted_comes_back(runtime: &str) {
    let telegram = TelegramServer::start().unwrap();
    let bot = telegram.bot(TOKEN, "a_bot");
    let world = world().agent("a", &on(runtime)).bot("a_bot", "a", TOKEN, &telegram, OWNER).start();
    let home = world.state().join("agents/a/codex-home");
    let wanted = thread(&world.send("a", "c", "remember: teal"));
    let of_chat = chat(&world, &bot, &home, &["first", "second"]);
    age(&home, 31 * DAY);
    restart(&world);
    // Somebody has put it into the archive by hand.
    let codex =
        world.other(&native_codex().display().to_string()).env("CODEX_HOME", &home).args(["archive", &wanted]).output();
    let codex = codex.unwrap();
    assert!(codex.status.success(), "{codex:?}");
    archived(&world, &home, &BTreeSet::from([wanted.clone()]));
    assert_eq!(thread(&world.send("a", "c", "[[recall]]")), wanted);
    archived(&world, &home, &BTreeSet::from([of_chat[0].clone()]));
    assert_eq!(thread(&world.send("a", "c", "still there?")), wanted);
    assert_eq!(threads(&home.join("sessions")), BTreeSet::from([wanted, of_chat[1].clone()]));
    world.shut_down();
}
