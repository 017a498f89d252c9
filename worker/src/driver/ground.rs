//! What the worker stands on: its folder with its lock and journal, and its socket. Looked at with each beat.
//!
//! ```text
//!   folder gone, lock or journal removed or replaced --> nothing that is promised can be kept: everything ends, exit 74
//!   socket gone or replaced ---------------------------> bound anew; sessions go on
//! ```
//! Without its lock a second worker could start, without its journal an attempt could be begun twice. The supervisor
//! then reports what had begun as uncertain and starts a worker in a fresh folder.
//!
//! Beside that: what is news only while it is new. Without a supervisor the latest progress of each attempt is kept, older
//! ones are dropped and counted, and the next supervisor hears the latest with the count.

use super::Driver;
use crate::args::Args;
use crate::journal::JournalError;
use crate::link::{self, LinkEvent};
use interprocess::local_socket::tokio::Listener;
use protocol::to_worker::Begin;
use protocol::{FailureClass, Finished, FromWorker, Outcome};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Which file lies at a path: device and inode, `None` for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark(Option<(u64, u64)>);

impl Mark {
    pub(super) fn of(path: &Path) -> Self {
        Self(std::fs::symlink_metadata(path).ok().map(|data| (data.dev(), data.ino())))
    }
}

/// The socket and the task that takes callers at it.
#[derive(Debug)]
pub(super) struct Door {
    args: Args,
    events: mpsc::Sender<LinkEvent>,
    socket: Mark,
    task: JoinHandle<()>,
    /// How often it was bound: sessions of one binding have numbers of their own.
    bindings: u64,
}

impl Door {
    pub(super) fn open(listener: Listener, args: Args, events: mpsc::Sender<LinkEvent>) -> Self {
        let socket = Mark::of(&args.socket);
        let task = tokio::spawn(link::serve(listener, args.clone(), events.clone(), 0));
        Self { args, events, socket, task, bindings: 0 }
    }

    /// Binds the socket anew if it is not there any more. A supervisor that looks for this worker finds it by its path.
    pub(super) fn look(&mut self) {
        if Mark::of(&self.args.socket) == self.socket {
            return;
        }
        match link::listen(&self.args.socket) {
            Ok(listener) => {
                tracing::warn!("the socket was gone and is bound anew");
                self.task.abort();
                self.bindings += 1;
                self.socket = Mark::of(&self.args.socket);
                let (args, events) = (self.args.clone(), self.events.clone());
                self.task = tokio::spawn(link::serve(listener, args, events, self.bindings));
            }
            Err(error) => tracing::warn!(%error, "the socket is gone and cannot be bound anew"),
        }
    }

    /// Takes nobody any more; removes the socket if it is ours.
    pub(super) fn close(self) {
        self.task.abort();
        if Mark::of(&self.args.socket) == self.socket {
            drop(std::fs::remove_file(&self.args.socket));
        }
    }
}

impl Driver {
    /// Whether lock and journal are where they were.
    pub(super) fn stand(&mut self) -> Result<(), JournalError> {
        let lock = Mark::of(&self.args.agent_dir.join(crate::lock::LOCK_FILE));
        let stood = if lock == self.lock { self.journal.stand() } else { Err(self.journal.lost()) };
        if let Err(error) = &stood {
            self.tell(FromWorker::Note(format!("{error}: this worker ends, and all that it runs")));
        }
        stood
    }

    /// Nothing is begun that could not be journaled. Nothing of this is either: the next supervisor would ask again, and be
    /// told the same.
    pub(super) fn refuse_for_room(&mut self, begin: &Begin) {
        let class = Outcome::Failed(FailureClass::DiskFull);
        let mut end = Finished::new(begin.attempt, begin.turn, class);
        end.detail.push_str("no room for the agent's journal; nothing was begun");
        end.replay_safe = true;
        self.tell(FromWorker::Finished(Box::new(end)));
    }

    /// Keeps the latest progress of an attempt that runs, and counts what nobody heard.
    pub(super) fn remember(&mut self, news: &FromWorker) {
        match news {
            FromWorker::Progress(progress) => {
                let older = self.latest.get(&progress.attempt).map_or(0, |older| older.dropped + 1);
                let dropped = if self.linked { 0 } else { progress.dropped.saturating_add(older) };
                let mut latest = progress.clone();
                latest.dropped = dropped;
                self.latest.insert(progress.attempt, latest);
            }
            FromWorker::Delta(delta) if !self.linked => {
                if let Some(latest) = self.latest.get_mut(&delta.attempt) {
                    latest.dropped = latest.dropped.saturating_add(1);
                }
            }
            FromWorker::Finished(end) => drop(self.latest.remove(&end.attempt)),
            FromWorker::Delta(_)
            | FromWorker::Hello(_)
            | FromWorker::Ready(_)
            | FromWorker::Begun(_)
            | FromWorker::Started(_)
            | FromWorker::Steered(_)
            | FromWorker::Beat(_)
            | FromWorker::Alert(_)
            | FromWorker::Spare(_)
            | FromWorker::Pong(_)
            | FromWorker::Note(_) => {}
        }
    }

    /// Tells a new supervisor what each attempt does.
    pub(super) fn tell_latest(&mut self) {
        let latest: Vec<_> = self.latest.values().cloned().collect();
        for progress in latest {
            self.tell(FromWorker::Progress(progress));
        }
    }
}
