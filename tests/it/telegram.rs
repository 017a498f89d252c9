//! A chat on its way through everything: a Telegram that can do anything wrong, the real supervisor, workers and Codex.
//!
//! ```text
//!   people --> stand-in Telegram --> supervisor --> worker --> real Codex --> stand-in model
//!                    ^                  |  ledger.db, read as an operator reads it
//!                    +---- answers -----+
//! ```
//! Each test ends with [`Scene::rest`]: every update and post has its one end, and nobody was told a token.

mod chat;
mod commands;
mod crash;
mod faults;
mod gate;
mod outage;

use crate::binaries;
use crate::both::wait;
use cofferdam_tests::standin::telegram::{Account, Bot, Event, Shown, TelegramServer, What};
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::{Builder, World};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::time::Duration;

/// Who may write to the bots of these tests, and owns them.
const OWNER: i64 = 11;
/// What no token may be found by, in anything that is written or told.
const SECRET: &str = "Standin-Secret";

/// A world whose agent `a` is reached by one bot, `main`.
struct Scene {
    world: World,
    server: TelegramServer,
    bot: Bot,
}

/// The token of the bot with this number.
fn token(bot: u32) -> String {
    format!("{bot}:{SECRET}-{bot}")
}

/// One text of so many pieces, each made of its number.
fn many(count: usize, piece: impl Fn(usize) -> String) -> String {
    (0..count).map(piece).collect::<Vec<_>>().concat()
}

impl Scene {
    /// Runs, with these lines of the agent's table.
    fn new(lines: &str) -> Self {
        Self::with(lines, |builder| builder)
    }

    /// Runs, and is more than the one agent and bot.
    fn with(lines: &str, more: impl FnOnce(Builder) -> Builder) -> Self {
        let mut scene = Self::silent(lines, more);
        scene.world.run();
        scene.world.wait_ready();
        scene.polls();
        scene
    }

    /// Is all there, but the supervisor does not run.
    fn silent(lines: &str, more: impl FnOnce(Builder) -> Builder) -> Self {
        let server = TelegramServer::start().unwrap();
        let bot = server.bot(&token(7001), "main_bot");
        let builder = World::builder(binaries()).agent("a", lines).bot("main", "a", &token(7001), &server, OWNER);
        Self { world: more(builder).build(), server, bot }
    }

    /// Waits until the bot hears.
    fn polls(&self) {
        wait(self.bot.wait_polling(LIMIT));
    }

    /// The owner writes; the message's number.
    fn says(&self, text: &str) -> i64 {
        self.bot.says(OWNER, text).message_id
    }

    /// Waits for a message of the bot in the owner's chat.
    fn reads(&self, text: &str) -> Shown {
        reads(&self.world, &self.bot, OWNER, text)
    }

    /// Waits until the model holds a request as `name`.
    fn held(&self, name: &str) {
        wait(self.world.model.wait_held(name, LIMIT));
    }

    /// The messages of the bot that stand in the owner's chat.
    fn texts(&self) -> Vec<String> {
        self.bot.texts(OWNER)
    }

    /// What happened in the owner's chat, without typing.
    fn events(&self) -> Vec<Event> {
        let typing = |event: &Event| matches!(event.what, What::Action { .. });
        self.bot.events(OWNER).into_iter().filter(|event| !typing(event)).collect()
    }

    /// The first column of a question to the ledger.
    fn ledger(&self, sql: &str) -> Vec<String> {
        ledger(&self.world, sql)
    }

    /// Waits until the ledger answers so.
    fn ledger_says(&self, sql: &str, wanted: &[&str]) {
        let told = || format!("{sql}: {:?}\n{}", self.ledger(sql), self.world.story());
        until("the ledger", LIMIT, told, || (self.ledger(sql) == wanted).then_some(()));
    }

    /// Ends the supervisor as a crash does, and starts another. Workers stay.
    fn crash(&mut self) {
        self.world.kill_supervisor();
        self.world.run();
    }

    /// Waits until everything is at its end, and checks what always holds.
    #[track_caller]
    fn rest(&self) {
        rest(&self.world);
    }
}

/// Waits for a message of a bot in a chat; a test that fails here tells the whole story.
#[track_caller]
fn reads(world: &World, bot: &Bot, chat: i64, text: &str) -> Shown {
    let found = || {
        let stands = |account: &Account| {
            account.chat(chat)?.from_bot().into_iter().find(|shown| shown.text.contains(text)).cloned()
        };
        bot.look(stands)
    };
    let story = || format!("{:?}\n{}", bot.events(chat), world.story());
    until(&format!("{text:?} in chat {chat}"), LIMIT, story, found)
}

/// The first column of a question to the ledger, as an operator asks it while we run.
fn ledger(world: &World, sql: &str) -> Vec<String> {
    let db = open(world, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let mut asked = db.prepare(sql).unwrap();
    let rows = asked.query_map([], |row| row.get::<_, rusqlite::types::Value>(0)).unwrap();
    rows.map(|value| match value.unwrap() {
        rusqlite::types::Value::Null => "-".to_owned(),
        rusqlite::types::Value::Integer(number) => number.to_string(),
        rusqlite::types::Value::Real(number) => number.to_string(),
        rusqlite::types::Value::Text(text) => text,
        rusqlite::types::Value::Blob(bytes) => format!("{bytes:?}"),
    })
    .collect()
}

fn open(world: &World, flags: OpenFlags) -> Connection {
    let db = Connection::open_with_flags(world.state().join("ledger.db"), flags).unwrap();
    db.busy_timeout(Duration::from_secs(10)).unwrap();
    db
}

/// Waits until every update, turn and post has its end; then no bug was noted and no token was told.
#[track_caller]
fn rest(world: &World) {
    const OPEN: &str = "SELECT 'update ' || id || ' of ' || bot FROM updates WHERE outcome IS NULL
         UNION ALL SELECT 'turn ' || id FROM turns WHERE outcome IS NULL
         UNION ALL SELECT 'post ' || id || ': ' || why FROM posts WHERE state = 'waiting'";
    let told = || format!("open: {:?}\n{}", ledger(world, OPEN), world.story());
    until("every update, turn and post to end", LIMIT, told, || ledger(world, OPEN).is_empty().then_some(()));
    assert_eq!(ledger(world, "SELECT what FROM events WHERE what LIKE 'bug%'"), [""; 0]);
    let health = world.cli(&["health", "--json"]);
    let told = [health.stdout, health.stderr, world.cli(&["turns", "--json"]).stdout, world.cli(&["ps"]).stdout];
    assert!(told.iter().all(|text| !text.contains(SECRET)), "{told:?}");
    let mut holding = holders(&world.state());
    holding.extend(holders(&world.root().join("supervisor.log")));
    assert!(holding.is_empty(), "a token is in {holding:?}");
}

/// Files at or below `at` that hold a token.
fn holders(at: &Path) -> Vec<String> {
    if at.is_symlink() {
        return Vec::new();
    }
    if let Ok(entries) = std::fs::read_dir(at) {
        return entries.flatten().flat_map(|entry| holders(&entry.path())).collect();
    }
    let bytes = std::fs::read(at).unwrap_or_default();
    let holds = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
    holds.then(|| at.display().to_string()).into_iter().collect()
}
