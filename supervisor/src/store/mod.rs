//! Remembers. The ledger: a SQLite file, one thread that writes it, one that reads it for people.
//!
//! ```text
//!  daemon -- commit(records) --> queue --> writer thread --> ledger.db    one transaction for all that queued up
//!     ^                                        |                          while the one before was written
//!     +------------- CommitTicket <------------+
//!     ^                                        | no space: ballast freed, same batches again, in order, for ever
//!     +--- StoreState: Well | Stuck(why) <-----+
//!
//!  daemon -- turns(), turn() --> reader thread --> ledger.db              read-only; never blocks the writer
//! ```
//!
//! Promises: a ticket resolves after the batch is on disk (`synchronous=FULL`). A batch is whole or absent. Batches
//! commit in the order in which they were given. A batch that breaks a rule of the tables is a bug: it alone is refused,
//! with an error, and nothing of it stays. What the disk does is no reason to refuse: the batch waits.
//! All SQL of the workspace lives in this folder.

mod again;
mod ballast;
mod migrate;
mod open;
mod prune;
mod queue;
mod recall;
mod record;
mod story;
#[cfg(test)]
mod tests;
mod workers;
mod writer;

use crate::machine::nouns::{Conversation, Memory, Record, Wall};
use crate::machine::words::Recalled;
use protocol::TurnId;
use protocol::control::{TurnRow, TurnStory, Turns};
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot, watch};

pub use open::OpenError;

/// Longest text in one field, in bytes: above the largest answer that a worker hands over by file, and small enough
/// that no single record can fill the disk. Longer texts are cut at a character.
pub const TEXT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Longest text of an event, in bytes: a few lines for a person.
pub const EVENT_BYTES_MAX: usize = 4 * 1024;

/// Most bytes of records that wait for the disk: minutes of everything a full host's agents may end with, and less
/// memory than would get the supervisor into trouble. Beyond it `commit` refuses, see [`CommitError::Overflow`].
pub const QUEUED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Size of the ballast that a caller should ask for, in bytes: room for the ends and alerts of 1,000 agents, and for the
/// log (4 MiB) that SQLite writes before it checkpoints.
pub const DEFAULT_BALLAST_BYTES: u64 = 16 * 1024 * 1024;

/// Whether the ledger can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreState {
    /// Yes, and the ballast is in place.
    Well,
    /// It cannot, or it lives on its ballast: nothing new should be taken. The words say why and name the remedy.
    Stuck(String),
}

/// Why a batch is not in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The batch breaks a rule of the tables: a bug. Nothing of it was stored, other batches were.
    #[error("the ledger refused a batch of records, which is a bug: {0}")]
    Refused(String),
    /// More waits for the disk than may: nothing of the batch is stored. The caller's memory is ahead of the ledger
    /// for good, so it must leave and start again from the ledger.
    #[error("more than {} MiB of records wait for the disk", QUEUED_BYTES_MAX / 1024 / 1024)]
    Overflow,
    /// The store was closed, or its writer is gone: the batch is not known to be stored.
    #[error("the ledger is closed")]
    Closed,
}

/// Why the ledger has no answer for a person.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// SQLite says no.
    #[error("cannot read the ledger")]
    Sqlite(#[from] rusqlite::Error),
    /// The store was closed.
    #[error("the ledger is closed")]
    Closed,
}

/// Why the ledger was not closed in good order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseError {
    /// The disk took no more: these last batches are not stored. Nothing outside was done for them.
    #[error("{batches} batches of records could not be written: {why}")]
    Lost {
        /// How many.
        batches: usize,
        /// Why.
        why: String,
    },
    /// The writer died before: a bug.
    #[error("the ledger's writer had died, which is a bug")]
    Died,
}

/// A wait for a commit. Resolves once the batch is on disk, or with the reason why it never will be. Dropping it
/// changes nothing about the commit.
#[derive(Debug)]
#[must_use = "nothing may be done outside before the commit"]
pub struct CommitTicket(oneshot::Receiver<Result<(), CommitError>>);

impl Future for CommitTicket {
    type Output = Result<(), CommitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(CommitError::Closed)))
    }
}

impl CommitTicket {
    /// Waits on a thread of its own; must not be called inside the runtime.
    pub fn blocking_wait(self) -> Result<(), CommitError> {
        self.0.blocking_recv().unwrap_or(Err(CommitError::Closed))
    }
}

/// The ledger's handle. Dropping it drains and closes like [`Store::close`], and blocks meanwhile.
#[derive(Debug)]
pub struct Store {
    queue: Arc<queue::Queue>,
    state: watch::Receiver<StoreState>,
    closed: watch::Receiver<Option<Result<(), CloseError>>>,
    looks: mpsc::Sender<story::Ask>,
    writer: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens or makes the ledger at `path` with a ballast of so many bytes beside it (0: none), and recalls what the
    /// machine must know. Blocks: it reads the whole file to check it. `now` is for what has become old.
    pub fn open(path: &Path, ballast_bytes: u64, now: Wall) -> Result<(Self, Memory), OpenError> {
        open::open(path, &open::Setup { ballast_bytes, now, ..open::Setup::default() })
    }

    /// Gives the writer one batch: all of it commits, or nothing. Never blocks.
    pub fn commit(&self, records: Vec<Record>) -> CommitTicket {
        let (done, ticket) = oneshot::channel();
        self.queue.push(records, done);
        CommitTicket(ticket)
    }

    /// Whether the ledger can be written, with every change of it.
    pub fn state(&self) -> watch::Receiver<StoreState> {
        self.state.clone()
    }

    /// Records that broke a promise of the machine without harm (a second end of a turn), and batches refused, since
    /// the start. Each is an event in the ledger or an error in the log.
    pub fn bugs(&self) -> u64 {
        self.queue.bugs()
    }

    /// The latest turns, latest first, at most 1,000.
    pub async fn turns(&self, which: Turns) -> Result<Vec<TurnRow>, LookError> {
        let (answer, wait) = oneshot::channel();
        self.look(story::Ask::Turns(which, answer), wait).await
    }

    /// One turn's story, its texts cut so that it fits into a frame; `None` for a number that the ledger does not hold.
    pub async fn turn(&self, turn: TurnId) -> Result<Option<TurnStory>, LookError> {
        let (answer, wait) = oneshot::channel();
        self.look(story::Ask::Turn(turn, answer), wait).await
    }

    /// A turn as it was asked, with its state.
    pub async fn recall_turn(&self, turn: TurnId) -> Result<Option<Recalled>, LookError> {
        let (answer, wait) = oneshot::channel();
        self.look(story::Ask::Again(turn, answer), wait).await
    }

    /// The latest turn of a conversation as it was asked, with its state.
    pub async fn recall_latest(&self, conversation: Conversation) -> Result<Option<Recalled>, LookError> {
        let (answer, wait) = oneshot::channel();
        self.look(story::Ask::Latest(conversation, answer), wait).await
    }

    async fn look<T>(&self, ask: story::Ask, wait: oneshot::Receiver<Result<T, LookError>>) -> Result<T, LookError> {
        self.looks.send(ask).await.map_err(|_| LookError::Closed)?;
        wait.await.unwrap_or(Err(LookError::Closed))
    }

    /// Commits all that was given, moves the log into the file and ends the writer. What is given later is refused.
    /// A disk that takes nothing is tried a few times more and then left. May be called twice.
    pub async fn close(&self) -> Result<(), CloseError> {
        self.queue.close();
        let mut closed = self.closed.clone();
        let answer = closed.wait_for(Option::is_some).await.map_err(|_| CloseError::Died)?;
        answer.clone().unwrap_or(Err(CloseError::Died))
    }
}

/// The version of the ledger that this release writes, and the newest that it can read.
pub const VERSION: i64 = migrate::newest();

impl Drop for Store {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the ledger's writer had died");
        }
    }
}
