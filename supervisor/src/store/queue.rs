//! What waits for the writer: batches in the order in which they were given, bounded by their bytes.
//!
//! ```text
//!  push --> [ batch batch batch ... ] --> take: all that is here, at most one group
//! ```
//! Bytes count until their batch is settled, so a stuck disk shows here and nowhere else.

use super::{CommitError, QUEUED_BYTES_MAX};
use crate::machine::nouns::{PostState, Record, UpdateEnd};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// Most batches in one transaction: far more than queue up during one fsync, and few enough that the first caller's
/// wait stays below 100 ms.
const GROUP_BATCHES_MAX: usize = 512;

/// Most bytes in one transaction, once it holds a batch: the log of one transaction must fit beside the ballast.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a record weighs beside its texts, in bytes: its row, its index entries and its place in memory.
const RECORD_BYTES: usize = 256;

/// One batch and who waits for it.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    pub(super) done: oneshot::Sender<Result<(), CommitError>>,
    bytes: usize,
}

/// What the writer finds.
#[derive(Debug)]
pub(super) enum Taken {
    /// Work, in order, never empty.
    Group(Vec<Batch>),
    /// Nothing came in time.
    Idle,
    /// Nothing is left and nothing will come.
    Closed,
}

#[derive(Debug, Default)]
struct Waiting {
    batches: VecDeque<Batch>,
    bytes: usize,
    closing: bool,
}

/// The queue between everybody and the writer.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    bugs: AtomicU64,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // No code between lock and unlock can leave the queue half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch, or answers at once that it cannot be taken.
    pub(super) fn push(&self, records: Vec<Record>, done: oneshot::Sender<Result<(), CommitError>>) {
        let bytes = records.iter().map(weigh).sum();
        let mut waiting = self.lock();
        let refusal = if waiting.closing {
            CommitError::Closed
        } else if waiting.bytes.saturating_add(bytes) > QUEUED_BYTES_MAX && waiting.bytes > 0 {
            CommitError::Overflow
        } else {
            waiting.bytes += bytes;
            waiting.batches.push_back(Batch { records, done, bytes });
            self.wake.notify_one();
            return;
        };
        drop(waiting);
        answer(done, Err(refusal));
    }

    /// Waits for work, at most so long.
    pub(super) fn take(&self, patience: Option<Duration>) -> Taken {
        let nothing = |waiting: &mut Waiting| waiting.batches.is_empty() && !waiting.closing;
        let waiting = self.lock();
        let mut waiting = match patience {
            None => self.wake.wait_while(waiting, nothing).unwrap_or_else(PoisonError::into_inner),
            Some(patience) => {
                self.wake.wait_timeout_while(waiting, patience, nothing).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        let mut group = Vec::new();
        let mut bytes = 0;
        while group.len() < GROUP_BATCHES_MAX
            && let Some(batch) = waiting.batches.pop_front_if(|b| bytes == 0 || bytes + b.bytes <= GROUP_BYTES_MAX)
        {
            bytes += batch.bytes;
            group.push(batch);
        }
        match (group.is_empty(), waiting.closing) {
            (false, _) => Taken::Group(group),
            (true, true) => Taken::Closed,
            (true, false) => Taken::Idle,
        }
    }

    /// Answers a batch and forgets it.
    pub(super) fn settle(&self, batch: Batch, with: Result<(), CommitError>) {
        self.lock().bytes -= batch.bytes;
        answer(batch.done, with);
    }

    /// Waits so long, or less if the store is closed meanwhile. True if it is closing.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let waiting = self.lock();
        let was_closing = waiting.closing;
        let still = |waiting: &mut Waiting| was_closing || !waiting.closing;
        self.wake.wait_timeout_while(waiting, time, still).unwrap_or_else(PoisonError::into_inner).0.closing
    }

    /// Takes nothing more.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_all();
    }

    /// Answers everything that waits with a no; returns how much it was.
    pub(super) fn abandon(&self) -> usize {
        let batches = std::mem::take(&mut self.lock().batches);
        let count = batches.len();
        for batch in batches {
            self.settle(batch, Err(CommitError::Closed));
        }
        count
    }

    /// Counts bugs.
    pub(super) fn add_bugs(&self, count: u64) {
        self.bugs.fetch_add(count, Ordering::Relaxed);
    }

    /// Bugs so far.
    pub(super) fn bugs(&self) -> u64 {
        self.bugs.load(Ordering::Relaxed)
    }
}

/// Nobody has to wait for a commit: a dropped ticket is no error.
fn answer(done: oneshot::Sender<Result<(), CommitError>>, with: Result<(), CommitError>) {
    drop(done.send(with));
}

fn weigh(record: &Record) -> usize {
    let texts = match record {
        Record::Update(new) => new.update.raw.len(),
        Record::UpdateEnded(_, UpdateEnd::Refused(why) | UpdateEnd::Cancelled(why), _)
        | Record::PostState(_, PostState::Dead(why) | PostState::Waiting { why, .. }, _) => why.len(),
        Record::Turn(turn) => turn.prompt.len(),
        Record::TurnEnded(_, _, text, _) => text.len(),
        Record::AttemptEnded(end, _) => {
            end.detail.len() + end.stderr.len() + end.ran.iter().map(String::len).sum::<usize>()
        }
        Record::Post(post) => post.body.len(),
        Record::Event(event) => event.what.len(),
        Record::UpdateEnded(_, UpdateEnd::Answered | UpdateEnd::Joined(_) | UpdateEnd::Failed, _)
        | Record::PostState(_, PostState::Sent(_), _)
        | Record::Offset(..)
        | Record::Attempt(_)
        | Record::AttemptStarted(..)
        | Record::Thread(..)
        | Record::Wanted(..)
        | Record::Worker(..)
        | Record::Incarnation(..) => 0,
    };
    RECORD_BYTES + texts
}
