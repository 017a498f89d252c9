//! Our client of the Bot API against an emulator that others wrote: npm's `telegram-test-api`, for the methods that it has.
//!
//! It knows `getMe`, `getUpdates`, `sendMessage`, `editMessageText` and `deleteMessage`, answers a poll at once instead of
//! holding it, and refuses everything else with a status of 500 and no answer in the form of the Bot API.

use crate::binaries;
use crate::both::wait;
use cofferdam_tests::codex::workspace_root;
use cofferdam_tests::standin::client::call;
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::World;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Names the folder of the package `telegram-test-api`, and wins over the one that `tests/run.sh` installs.
const EMULATOR_VARIABLE: &str = "COFFERDAM_TEST_BOT_API";
const TOKEN: &str = "7007:Standin-Secret-7007";
const PERSON: i64 = 11;

/// The emulator, in a process of its own.
struct Emulator {
    child: Child,
    address: SocketAddr,
}

impl Emulator {
    #[expect(clippy::disallowed_methods, reason = "tests start what they test against")]
    fn start() -> Self {
        let installed = || workspace_root().join("target/codex/node_modules/telegram-test-api");
        let package = std::env::var_os(EMULATOR_VARIABLE).map_or_else(installed, PathBuf::from);
        assert!(
            package.join("package.json").is_file(),
            "no telegram-test-api in {}.\nRun tests/run.sh, which installs it below target/codex, or set \
             {EMULATOR_VARIABLE} to the folder of the package",
            package.display()
        );
        let started = Command::new("node")
            .arg(workspace_root().join("tests/it/bot_api.js"))
            .arg(&package)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = started.unwrap_or_else(|error| panic!("cannot start node ({error}): install Node 18 or later"));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap_or_else(|_| panic!("the emulator did not start: {line:?}"));
        Self { child, address: (Ipv4Addr::LOCALHOST, port).into() }
    }

    fn ask(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = wait(call(self.address, "POST", path, Some(body))).unwrap();
        assert_eq!((status, &answer["ok"]), (200, &Value::Bool(true)), "{answer}");
        answer["result"].clone()
    }

    fn says(&self, text: &str) {
        let message = json!({
            "botToken": TOKEN, "date": 1, "text": text,
            "from": {"id": PERSON, "is_bot": false, "first_name": "Person"},
            "chat": {"id": PERSON, "type": "private", "first_name": "Person"},
        });
        self.ask("/sendMessage", &message);
    }

    /// The messages of the bot that stand.
    fn messages(&self) -> Vec<Value> {
        let all = self.ask("/getUpdatesHistory", &json!({"token": TOKEN}));
        let sent = |update: &&Value| update["message"].get("chat_id").is_some();
        all.as_array().unwrap().iter().filter(sent).map(|update| update["message"].clone()).collect()
    }

    fn reads(&self, world: &World, text: &str) -> Value {
        let story = || format!("{:?}\n{}", self.messages(), world.story());
        let found = || self.messages().into_iter().find(|m| m["text"].as_str().is_some_and(|t| t.contains(text)));
        until(&format!("{text:?}"), LIMIT, story, found)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn an_emulator_of_others_understands_us() {
    let emulator = Emulator::start();
    let bot = format!(
        "[telegram.other]\ntoken = \"{TOKEN}\"\nagent = \"a\"\nallow = [{PERSON}]\nowners = [{PERSON}]\napi_root = \"http://{}\"",
        emulator.address
    );
    let world = World::builder(binaries()).agent("a", "queue = \"queue\"").rest(&bot).start();
    emulator.says("[[say **bold** words]]");
    let answer = emulator.reads(&world, "bold words");
    assert_eq!(answer["chat_id"], PERSON, "{answer}");
    assert_eq!(answer["entities"], json!([{"type": "bold", "offset": 0, "length": 4}]), "{answer}");
    emulator.says("[[hold one]] one");
    wait(world.model.wait_held("one", LIMIT));
    emulator.says("[[hold two]] two");
    let status = emulator.reads(&world, "queued: 1 before this");
    assert!(status["reply_parameters"]["message_id"].as_i64().is_some(), "{status}");
    world.model.release("one");
    emulator.reads(&world, "echo: one");
    // The status message of the second is edited once its turn runs, and removed at its end.
    let edited = || emulator.messages().iter().all(|m| m["text"] != status["text"]).then_some(());
    until("an edit", LIMIT, || format!("{:?}\n{}", emulator.messages(), world.story()), edited);
    emulator.reads(&world, "⏳");
    world.model.release("two");
    emulator.reads(&world, "echo: two");
    let removed = || (emulator.messages().len() == 3).then_some(());
    until("the removal", LIMIT, || format!("{:?}\n{}", emulator.messages(), world.story()), removed);
    let health = world.cli(&["health", "--json"]).json();
    assert_eq!(health["status"], "ok", "{health}");
    world.shut_down();
}
