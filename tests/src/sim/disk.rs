//! What outlives a worker: its journal in its real bytes, torn and full, and the rollouts of its threads.

use protocol::AttemptId;
use protocol::journal::{self, Reading, Record};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of one item of a rollout.
const ITEM_BYTES: u64 = 100;

/// An agent's folder.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    bytes: Vec<u8>,
    /// Nothing can be written.
    pub(crate) full: bool,
    pub(crate) rollouts: BTreeMap<String, Rollout>,
    /// Attempts whose begin was ever written.
    pub(crate) begun: BTreeSet<AttemptId>,
}

/// A thread as Codex keeps it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rollout {
    pub(crate) provider: String,
    /// Words are empty, deeds have their command.
    pub(crate) items: Vec<String>,
}

impl Disk {
    /// Reads the journal and cuts a torn tail, as a worker does when it starts.
    pub(crate) fn open(&mut self) -> Reading {
        let reading = journal::read(&self.bytes);
        let whole = if reading.open.is_empty() { 0 } else { reading.whole_bytes };
        self.bytes.truncate(whole);
        reading
    }

    /// Reads the journal, as a sweep does.
    pub(crate) fn read(&self) -> Reading {
        journal::read(&self.bytes)
    }

    /// Appends a record; `false` if the disk is full.
    pub(crate) fn append(&mut self, record: &Record) -> bool {
        if self.full {
            return false;
        }
        if let Record::Begun(begun) = record {
            assert!(self.begun.insert(begun.attempt), "attempt {} is begun twice", begun.attempt);
        }
        self.bytes.extend(journal::encode(record));
        if matches!(record, Record::Acked(_)) && self.read().open.is_empty() {
            self.bytes.clear();
        }
        true
    }

    /// The beginning of a record: its writer was killed meanwhile.
    pub(crate) fn tear(&mut self, record: &Record, cut: usize) {
        let bytes = journal::encode(record);
        self.bytes.extend(&bytes[..cut.min(bytes.len() - 1)]);
    }

    /// Size of a thread's rollout.
    pub(crate) fn size(&self, thread: &str) -> u64 {
        self.rollouts.get(thread).map_or(0, |rollout| rollout.items.len() as u64 * ITEM_BYTES)
    }

    /// The deeds behind a size.
    pub(crate) fn deeds(&self, thread: &str, from_bytes: u64) -> Option<Vec<String>> {
        let from = usize::try_from(from_bytes / ITEM_BYTES).expect("small");
        let items = &self.rollouts.get(thread)?.items;
        Some(items.iter().skip(from).filter(|item| !item.is_empty()).cloned().collect())
    }
}
