//! The one thread that writes the ledger.
//!
//! ```text
//!            take group                       all committed
//!   Well --------------> one transaction ---------------------> tickets resolve, ballast whole? --> Well
//!                          |        ^                                                    | no
//!                          | disk   | pause, growing                                     v
//!                          v        |                                     Stuck: lives on its ballast,
//!                   Stuck: full --> ballast freed, same group again       tries to make it again
//! ```
//! A savepoint around each batch: one that breaks a rule of the tables is undone alone.

use super::ballast::Ballast;
use super::queue::{Batch, Queue, Taken};
use super::{CloseError, CommitError, StoreState, record};
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Pause after the first failure of the disk: as long as a short stall lasts.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause between two tries: a person who has freed space sees the effect while they look.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How often a ballast that is away is tried again while nothing else is to be done.
const BALLAST_PAUSE: Duration = Duration::from_secs(5);

/// Tries of a disk that takes nothing, once the store is closing: an end must come to an end.
const CLOSING_TRIES_MAX: u32 = 3;

/// Less room than this is a full disk, in bytes: what SQLite takes for its log's index and a page or two.
const ROOM_BYTES_MIN: u64 = 64 * 1024;

/// What SQLite says when the world is at fault and not a record.
const WORLD: &[ErrorCode] = &[
    ErrorCode::DiskFull,
    ErrorCode::SystemIoFailure,
    ErrorCode::CannotOpen,
    ErrorCode::ReadOnly,
    ErrorCode::PermissionDenied,
    ErrorCode::DatabaseBusy,
    ErrorCode::DatabaseLocked,
    ErrorCode::DatabaseCorrupt,
    ErrorCode::NotADatabase,
    ErrorCode::OutOfMemory,
    ErrorCode::OperationInterrupted,
    ErrorCode::FileLockingProtocolFailed,
    ErrorCode::SchemaChanged,
    ErrorCode::NoLargeFileSupport,
];

/// Everything that the thread owns.
pub(super) struct Writer {
    pub(super) ledger: Connection,
    pub(super) path: PathBuf,
    pub(super) ballast: Ballast,
    pub(super) queue: Arc<Queue>,
    pub(super) state: watch::Sender<StoreState>,
    pub(super) closed: watch::Sender<Option<Result<(), CloseError>>>,
    pub(super) first_pause: Duration,
    pub(super) lock: File,
}

/// Whatever ends the thread, nobody waits for it.
struct Farewell {
    queue: Arc<Queue>,
    state: watch::Sender<StoreState>,
    closed: watch::Sender<Option<Result<(), CloseError>>>,
    how: Result<(), CloseError>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        self.queue.close();
        self.queue.abandon();
        if self.how == Err(CloseError::Died) {
            let words = "the ledger's writer died, which is a bug: restart the supervisor and report its log";
            self.state.send_replace(StoreState::Stuck(words.to_owned()));
        }
        self.closed.send_replace(Some(self.how.clone()));
    }
}

impl Writer {
    /// Works until the store is closed and the queue is empty.
    pub(super) fn run(mut self) {
        let mut farewell = Farewell {
            queue: Arc::clone(&self.queue),
            state: self.state.clone(),
            closed: self.closed.clone(),
            how: Err(CloseError::Died),
        };
        let how = self.work();
        if let Err(error) = self.ledger.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            // The log stays beside the ledger, and the next start reads it.
            tracing::warn!(%error, "cannot move the log into the ledger");
        }
        let Self { ledger, lock, .. } = self;
        drop(ledger);
        // The lock goes last, and before anybody hears that the store is closed.
        drop(lock);
        farewell.how = how;
    }

    fn work(&mut self) -> Result<(), CloseError> {
        loop {
            let patience = (!self.is_well()).then_some(BALLAST_PAUSE);
            match self.queue.take(patience) {
                Taken::Group(group) => self.settle(group)?,
                Taken::Idle => self.recover(),
                Taken::Closed => return Ok(()),
            }
        }
    }

    fn is_well(&self) -> bool {
        *self.state.borrow() == StoreState::Well
    }

    /// Commits a group, however long it takes.
    fn settle(&mut self, group: Vec<Batch>) -> Result<(), CloseError> {
        let mut tries = 0;
        loop {
            match self.commit(&group) {
                Ok(verdicts) => {
                    for (batch, verdict) in group.into_iter().zip(verdicts) {
                        self.tell(batch, verdict);
                    }
                    self.recover();
                    return Ok(());
                }
                Err(error) => {
                    tries += 1;
                    let freed = self.suffer(&error);
                    if !freed && self.queue.pause(self.pause(tries)) && tries >= CLOSING_TRIES_MAX {
                        return Err(self.give_up(group, &error));
                    }
                }
            }
        }
    }

    /// One transaction. The outer error is the world's; the inner ones are bugs, batch by batch.
    fn commit(&mut self, group: &[Batch]) -> rusqlite::Result<Vec<Result<Vec<String>, String>>> {
        let transaction = self.ledger.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut verdicts = Vec::with_capacity(group.len());
        for batch in group {
            transaction.prepare_cached("SAVEPOINT batch")?.execute([])?;
            match record::apply(&transaction, &batch.records) {
                Ok(bugs) => verdicts.push(Ok(bugs)),
                Err(error) if is_the_worlds(&error) => return Err(error),
                Err(error) => {
                    transaction.prepare_cached("ROLLBACK TO batch")?.execute([])?;
                    verdicts.push(Err(error.to_string()));
                }
            }
            transaction.prepare_cached("RELEASE batch")?.execute([])?;
        }
        transaction.commit()?;
        Ok(verdicts)
    }

    fn tell(&self, batch: Batch, verdict: Result<Vec<String>, String>) {
        match verdict {
            Ok(bugs) => {
                self.queue.add_bugs(bugs.len() as u64);
                for bug in bugs {
                    tracing::error!(bug, "a record broke a promise of the machine and changed nothing");
                }
                self.queue.settle(batch, Ok(()));
            }
            Err(why) => {
                self.queue.add_bugs(1);
                tracing::error!(why, records = batch.records.len(), "the ledger refused a batch, which is a bug");
                self.queue.settle(batch, Err(CommitError::Refused(why)));
            }
        }
    }

    /// Says what is wrong; gives the ballast up if that may help. True if it did.
    fn suffer(&self, error: &rusqlite::Error) -> bool {
        let code = error.sqlite_error_code();
        let full =
            code == Some(ErrorCode::DiskFull) || (code == Some(ErrorCode::SystemIoFailure) && is_full(&self.path));
        self.say(StoreState::Stuck(words(&self.path, error, full)));
        full && self.ballast.free()
    }

    /// After a success, and now and then while living on the ballast: makes it again, and then all is well.
    fn recover(&self) {
        if self.is_well() {
            return;
        }
        match self.ballast.make() {
            Ok(()) => self.say(StoreState::Well),
            Err(error) => self.say(StoreState::Stuck(without_ballast(&self.path, &error))),
        }
    }

    fn say(&self, state: StoreState) {
        self.state.send_if_modified(|old| {
            let changed = *old != state;
            if changed {
                match &state {
                    StoreState::Well => tracing::info!("the ledger can be written again"),
                    StoreState::Stuck(why) => tracing::error!(why, "the ledger is stuck"),
                }
                *old = state;
            }
            changed
        });
    }

    fn pause(&self, tries: u32) -> Duration {
        self.first_pause.saturating_mul(1_u32.checked_shl(tries - 1).unwrap_or(u32::MAX)).min(PAUSE_MAX)
    }

    fn give_up(&self, group: Vec<Batch>, error: &rusqlite::Error) -> CloseError {
        let mut batches = group.len();
        for batch in group {
            self.queue.settle(batch, Err(CommitError::Closed));
        }
        batches += self.queue.abandon();
        CloseError::Lost { batches, why: error.to_string() }
    }
}

fn is_the_worlds(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code().is_some_and(|code| WORLD.contains(&code))
}

/// Whether the disk of this file has no room worth the name.
pub(super) fn is_full(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < ROOM_BYTES_MIN)
}

fn words(path: &Path, error: &rusqlite::Error, full: bool) -> String {
    let path = path.display();
    let code = error.sqlite_error_code();
    if full {
        format!("the disk that holds {path} is full: free space on it; everything goes on by itself then")
    } else if code == Some(ErrorCode::DatabaseBusy) || code == Some(ErrorCode::DatabaseLocked) {
        format!("{path} is locked by another program: end it (a sqlite3 shell with an open transaction?)")
    } else if code == Some(ErrorCode::DatabaseCorrupt) || code == Some(ErrorCode::NotADatabase) {
        format!("{path} is damaged ({error}): stop the supervisor, copy the file, restore it from a backup")
    } else if code == Some(ErrorCode::ReadOnly) || code == Some(ErrorCode::PermissionDenied) {
        format!("{path} cannot be written ({error}): give this user the right to it, or mount the disk writable")
    } else {
        format!("{path} cannot be written ({error}): check the disk and the system's log")
    }
}

/// The words for a ledger that works without its reserve.
pub(super) fn without_ballast(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    if error.kind() == io::ErrorKind::StorageFull {
        format!("the disk that holds {path} is nearly full: free space on it; everything goes on by itself then")
    } else {
        format!("no space can be reserved beside {path} ({error}): check the disk and the folder's rights")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ballast::Ballast, migrate};
    use super::*;
    use crate::machine::nouns::{Event, Record};
    use tokio::sync::oneshot;

    fn writer(folder: &Path) -> Writer {
        let path = folder.join("ledger.db");
        let mut ledger = Connection::open(&path).unwrap();
        migrate::migrate(&mut ledger).unwrap();
        let (state, _) = watch::channel(StoreState::Well);
        let (closed, _) = watch::channel(None);
        let lock = File::open(&path).unwrap();
        let (ballast, queue) = (Ballast::of(folder, 0), Arc::new(Queue::default()));
        Writer { ledger, path, ballast, queue, state, closed, first_pause: FIRST_PAUSE, lock }
    }

    #[test]
    fn no_room_in_the_middle_of_a_batch_is_no_bug_of_the_batch() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(folder.path());
        let event = |n| Record::Event(Event { at: n, agent: None, turn: None, what: "x".repeat(3_000) });
        for batch in 0..3 {
            let (done, ticket) = oneshot::channel();
            drop(ticket);
            writer.queue.push((0..20).map(|n| event(batch * 20 + n)).collect(), done);
        }
        let Taken::Group(group) = writer.queue.take(None) else { panic!("three batches") };
        let limit = |writer: &Writer, more: i64| {
            let pages: i64 = writer.ledger.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
            let limit = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
            writer.ledger.pragma_update_and_check(None, "max_page_count", pages + more, limit).unwrap();
        };
        limit(&writer, 30);
        let error = writer.commit(&group).unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DiskFull));
        let count = |w: &Writer| w.ledger.query_row("SELECT count(*) FROM events", [], |r| r.get::<_, i64>(0)).unwrap();
        assert_eq!(count(&writer), 0);
        limit(&writer, 1_000);
        assert!(writer.commit(&group).unwrap().iter().all(Result::is_ok));
        assert_eq!(count(&writer), 60);
    }

    #[test]
    fn the_pause_grows_to_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let writer = writer(folder.path());
        assert_eq!((writer.pause(1), writer.pause(3)), (FIRST_PAUSE, FIRST_PAUSE * 4));
        assert_eq!((writer.pause(40), writer.pause(u32::MAX)), (PAUSE_MAX, PAUSE_MAX));
    }
}
