//! What all tests of the ledger share: small records and a ledger in a folder of its own.

mod crash;
mod disk;
mod refusals;
mod round_trip;
mod rules;
mod stories;

use super::open::{Setup, open};
use super::{CommitError, Store, StoreState};
use crate::machine::nouns::{
    Chat, ChatMessage, Conversation, Memory, NewAttempt, NewTurn, NewUpdate, Post, PostId, PostKind, Record, Source,
    Update, UpdateId, UpdateKind,
};
use protocol::{AgentName, AttemptId, Incarnation, Route, Runtime, TurnId};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// A wall clock of the tests, in Unix milliseconds: some day in 2026.
const NOW: u64 = 1_790_000_000_000;

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("state/ledger.db")
    }

    fn open(&self) -> (Store, Memory) {
        open(&self.path(), &quick(0)).unwrap()
    }

    fn memory(&self) -> Memory {
        self.open().1
    }

    fn shell(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).unwrap()
    }
}

/// A setup that does not wait long.
fn quick(ballast_bytes: u64) -> Setup {
    let pause = Duration::from_millis(20);
    Setup { ballast_bytes, now: NOW, busy_timeout: pause, first_pause: pause }
}

fn commit(store: &Store, records: Vec<Record>) -> Result<(), CommitError> {
    store.commit(records).blocking_wait()
}

/// Lets a future run on this thread.
fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// Waits until the state is as asked, at most ten seconds.
fn until(store: &Store, what: impl Fn(&StoreState) -> bool) -> StoreState {
    let mut state = store.state();
    wait(async {
        let found = tokio::time::timeout(Duration::from_secs(10), state.wait_for(|s| what(s))).await;
        found.expect("the state in time").unwrap().clone()
    })
}

fn agent(name: &str) -> AgentName {
    AgentName::parse(name).unwrap()
}

fn chat() -> Chat {
    Chat { bot: "helper".into(), chat: -100, topic: Some(7) }
}

fn message() -> ChatMessage {
    ChatMessage { chat: chat(), message: 31, user: 11 }
}

fn update(id: u64, external: i64) -> Record {
    let kind = UpdateKind::Text { from: message(), private: false, text: "hello".into() };
    let update = Update { bot: "helper".into(), external, kind, raw: "{}".into() };
    Record::Update(NewUpdate { id: UpdateId(id), update, at: NOW })
}

fn new_turn(id: u64, by: Option<u64>) -> NewTurn {
    NewTurn {
        id: TurnId(id),
        conversation: Conversation { agent: agent("research"), name: "telegram:helper:-100:7".into() },
        source: Source::Telegram(message()),
        update: by.map(UpdateId),
        prompt: format!("question {id}\nand more"),
        retry_of: None,
        at: NOW,
    }
}

fn turn(id: u64) -> Record {
    Record::Turn(new_turn(id, None))
}

fn new_attempt(id: u64, turn: u64) -> NewAttempt {
    NewAttempt {
        id: AttemptId(id),
        turn: TurnId(turn),
        incarnation: Incarnation(3),
        route: Route { runtime: Runtime::CodexCli, provider: "openai".into(), model: "gpt-5.5".into() },
        thread: Some("t-old".into()),
        at: NOW + 1,
    }
}

fn new_post(id: u64, turn: Option<u64>, kind: PostKind) -> Post {
    Post {
        id: PostId(id),
        turn: turn.map(TurnId),
        kind,
        to: chat(),
        reply_to: Some(31),
        edits: None,
        body: format!("*post* {id}"),
        sent_pieces: 0,
        tries: 0,
        maybe_repeated: false,
        plain: false,
        at: NOW,
    }
}
