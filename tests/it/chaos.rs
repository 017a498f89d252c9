//! Everything at once: messages flow in from both channels while processes are killed, stopped, cut off and starved of disk.
//!
//! ```text
//!   Flow    people at two bots, the command line  --->  supervisor  --->  4 workers, both runtimes  --->  real Codex
//!   Fault   kills, stops, cut sockets, a full disk, a broken Telegram, an operator        (drawn by the same dice)
//!   Audit   when all is quiet: each accepted message has one end, each post is sent, no deed twice, nothing is left
//! ```
//! The dice have a seed; what the machine's scheduler adds to it is not repeatable. A short run is part of every test run; a
//! long one is asked for with `COFFERDAM_CHAOS_MESSAGES=10000`, another one with `COFFERDAM_TEST_SEED=N`.
//!
//! Wall-clock steps are not among the faults: a process cannot be given a wall clock of its own. The simulation steps it.

mod audit;
mod faults;
mod flow;

use crate::scenes::{Dice, on};
use cofferdam_tests::standin::telegram::{Bot, TelegramServer};
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::World;
use faults::Faults;
use flow::Flow;
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::time::Duration;

/// Two agents on each runtime; the first two have a bot each.
const AGENTS: [(&str, &str, &str); 4] = [
    ("app", "codex", "queue"),
    ("cli", "codex-cli", "collect"),
    ("app2", "codex", "steer"),
    ("cli2", "codex-cli", "queue"),
];
/// Messages of the run that is part of every test run.
const MESSAGES: u64 = 120;
/// Set to how many messages a long run sends.
const MESSAGES_VARIABLE: &str = "COFFERDAM_CHAOS_MESSAGES";
/// Messages that may be without an end before the flow waits: below what the queues hold.
const OPEN_MAX: u64 = 40;
/// Longest wait for the flow to go on, and for everything to end: a few turns after a few restarts, on a busy machine.
const QUIET_WITHIN: Duration = Duration::from_mins(3);
/// Room of the file system that the run lives on: homes of Codex, journals, ledger. Bytes.
const DISK_BYTES: u64 = 1 << 30;

/// The scene: a world on a file system of its own where the machine allows it, and a Telegram with two bots.
struct Chaos {
    world: World,
    _server: TelegramServer,
    bots: [Bot; 2],
    disk: Option<Disk>,
    dice: Dice,
}

/// A small file system over the world's state: it can be filled without harm to others.
struct Disk {
    at: std::path::PathBuf,
}

impl Disk {
    /// None where this user may not mount: the run then has no full disk, and says so.
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let size = format!("size={DISK_BYTES},mode=0700");
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(size.as_str())).ok()?;
        Some(Self { at: at.to_owned() })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that dies at this moment may still hold a file.
        let gone = nix::mount::umount2(&self.at, nix::mount::MntFlags::MNT_DETACH);
        assert!(gone.is_ok() || std::thread::panicking(), "{} stays mounted: {gone:?}", self.at.display());
    }
}

impl Chaos {
    fn start() -> Self {
        let server = TelegramServer::start().unwrap();
        let tokens = ["7101:Standin-Chaos-1", "7102:Standin-Chaos-2"];
        let bots = [server.bot(tokens[0], "first_bot"), server.bot(tokens[1], "second_bot")];
        let mut builder = crate::scenes::world().defaults("silence_timeout = \"20s\"");
        for (agent, runtime, queue) in AGENTS {
            builder = builder.agent(agent, &format!("{}\nqueue = \"{queue}\"", on(runtime)));
        }
        for (number, token) in tokens.iter().enumerate() {
            let owner = flow::people(number)[0];
            builder = builder.bot(&format!("bot{number}"), AGENTS[number].0, token, &server, owner);
        }
        let allowed = [flow::people(0), flow::people(1)].concat();
        let mut world = builder.build();
        let text = std::fs::read_to_string(world.config()).unwrap();
        let text = flow::people(0)
            .iter()
            .chain(&flow::people(1))
            .fold(text, |text, owner| text.replace(&format!("allow = [{owner}]"), &format!("allow = {allowed:?}")));
        world.write_config(&text);
        let disk = Disk::mount(&world.state());
        world.run();
        world.wait_ready();
        Self { world, _server: server, bots, disk, dice: Dice::new() }
    }

    /// Waits until the supervisor answers.
    fn wait_up(&self) {
        until("the supervisor", LIMIT, || self.world.story(), || (self.world.cli(&["ps"]).code == 0).then_some(()));
    }

    /// The first column of a question to the ledger, as an operator asks it while we run.
    fn ledger(&self, sql: &str) -> Vec<String> {
        let path = self.world.state().join("ledger.db");
        let look = || -> rusqlite::Result<Vec<String>> {
            let db = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            db.busy_timeout(LIMIT)?;
            let mut asked = db.prepare(sql)?;
            asked.query_map([], |row| row.get::<_, rusqlite::types::Value>(0).map(|value| said(&value)))?.collect()
        };
        // On a full disk even a reader may fail for a moment: it needs the index of the write-ahead log.
        until(&format!("an answer to {sql}"), LIMIT, || self.world.story(), || look().ok())
    }

    /// A number out of the ledger.
    fn count(&self, sql: &str) -> u64 {
        self.ledger(sql).first().and_then(|text| text.parse().ok()).unwrap_or_default()
    }
}

fn said(value: &rusqlite::types::Value) -> String {
    match value {
        rusqlite::types::Value::Null => String::new(),
        rusqlite::types::Value::Integer(number) => number.to_string(),
        rusqlite::types::Value::Real(number) => number.to_string(),
        rusqlite::types::Value::Text(text) => text.clone(),
        rusqlite::types::Value::Blob(bytes) => format!("{} bytes", bytes.len()),
    }
}

#[test]
fn nothing_is_lost_and_nothing_is_answered_twice() {
    let messages = std::env::var(MESSAGES_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(MESSAGES);
    let mut chaos = Chaos::start();
    let (mut flow, mut faults) = (Flow::default(), Faults::default());
    while flow.said() < messages {
        flow.say(&mut chaos);
        if chaos.dice.throw(3) == 0 {
            faults.one(&mut chaos);
        }
        faults.heal_some(&mut chaos);
        if flow.said() % 10 == 0 {
            flow::wait_room(&chaos, &mut faults);
        }
        if flow.said() % 500 == 0 {
            println!("{} messages, {faults}", flow.said());
        }
    }
    faults.heal_all(&mut chaos);
    audit::quiet(&chaos, &flow);
    println!("{}", audit::report(&chaos, &flow, &faults));
    audit::ledger(&chaos, &flow);
    audit::chats(&chaos, &flow, &faults);
    audit::deeds(&chaos);
    audit::sizes(&chaos, messages);
    assert_eq!(chaos.count("SELECT count(*) FROM events WHERE what LIKE 'bug%'"), 0);
    let Chaos { world, disk, .. } = chaos;
    world.shut_down();
    drop(disk);
}
