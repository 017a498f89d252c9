//! What tests of turns share: a world with an agent on each runtime, waits for the model, and a message under way.

use crate::binaries;
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::{Builder, World};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Child;
use std::thread::JoinHandle;

/// The agents of [`both`]: `app` on runtime `codex`, `cli` on `codex-cli`.
pub(crate) const AGENTS: [&str; 2] = ["app", "cli"];

/// Ends `[defaults]`: Codex tells a failing provider's failure at once instead of after its own tries.
pub(crate) const NO_RETRIES: &str =
    "[defaults.codex.model_providers.standin]\nrequest_max_retries = 0\nstream_max_retries = 0\n";

/// A world with an agent on each runtime, both with these `lines` and these last lines of `[defaults]`.
pub(crate) fn both(lines: &str, defaults: &str) -> Builder {
    World::builder(binaries())
        .defaults(defaults)
        .agent("app", &format!("runtime = \"codex\"\n{lines}"))
        .agent("cli", &format!("runtime = \"codex-cli\"\n{lines}"))
}

/// Runs what waits for the stand-in model.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Waits until the model holds a request as `name`.
pub(crate) fn held(world: &World, name: &str) {
    wait(world.model.wait_held(name, LIMIT));
}

/// A `send --json` that runs: its lines as they come.
pub(crate) struct Sending {
    child: Child,
    reader: JoinHandle<Vec<Value>>,
    accepted: u64,
}

impl Sending {
    /// Sends, and returns once the message is in the ledger.
    pub(crate) fn new(world: &World, agent: &str, conversation: &str, text: &str) -> Self {
        let mut child = world.sending(agent, conversation, text);
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        lines.read_line(&mut first).unwrap();
        let first: Value =
            serde_json::from_str(&first).unwrap_or_else(|e| panic!("no event ({e}): {first:?}\n{}", world.story()));
        assert_eq!(first["event"], "accepted", "{first}");
        let accepted = first["turn"].as_u64().unwrap();
        let reader = std::thread::spawn(move || {
            let mut rest = String::new();
            lines.read_to_string(&mut rest).unwrap();
            std::iter::once(first).chain(rest.lines().map(|line| serde_json::from_str(line).unwrap())).collect()
        });
        Self { child, reader, accepted }
    }

    /// The number of the turn that was accepted.
    pub(crate) fn turn(&self) -> u64 {
        self.accepted
    }

    /// Waits for the end: every event, the last of them `finished`.
    pub(crate) fn events(mut self, world: &World) -> Vec<Value> {
        until("the end of a message", LIMIT * 2, || world.story(), || self.child.try_wait().unwrap());
        self.reader.join().unwrap()
    }

    /// Waits for the end: the `finished` event.
    pub(crate) fn finished(self, world: &World) -> Value {
        let events = self.events(world);
        let last = events.last().cloned().unwrap_or_default();
        assert_eq!(last["event"], "finished", "{events:?}\n{}", world.story());
        last
    }
}

/// Fails unless the turn completed, and gives its answer.
#[track_caller]
pub(crate) fn answer(world: &World, end: &Value) -> String {
    assert_eq!(end["outcome"], "completed", "{end}\n{}", world.story());
    assert!(end["class"].is_null(), "{end}");
    end["text"].as_str().unwrap().to_owned()
}

/// Sends, waits for the end and gives the answer of the completed turn.
#[track_caller]
pub(crate) fn ask(world: &World, agent: &str, conversation: &str, text: &str) -> String {
    answer(world, &world.send(agent, conversation, text))
}

/// The last attempt of a turn as `turns show --json` tells it.
pub(crate) fn last_attempt(world: &World, turn: u64) -> Value {
    let story = world.turn(turn);
    story["attempts"].as_array().and_then(|all| all.last()).cloned().unwrap_or_else(|| panic!("no attempt: {story}"))
}
