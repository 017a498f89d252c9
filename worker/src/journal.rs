//! The journal's file: appended to and synced, read at the start, cut when it is torn or done.
//!
//! ```text
//!  AGENT/journal             the format is protocol::journal
//!  AGENT/ledger-id           whose outcomes these are
//!  AGENT/journal.foreign-N   outcomes of another ledger, set aside and never handed over
//! ```

use protocol::AttemptId;
use protocol::journal::{self, Reading, Record, Standing};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Size above which the file is rewritten with its open attempts alone, in bytes: long before a reading is slow.
const REWRITE_BYTES: u64 = 16 * 1024 * 1024;

/// Most that is read at the start, in bytes. Four times what a rewrite leaves room for; more is no journal of ours.
const READ_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Room that is kept for each open attempt, in bytes: its records, and an outcome with the longest text that is not a file
/// of its own (256 KiB) and all its details.
const RESERVE_BYTES: u64 = 512 * 1024;

/// Most foreign journals that are kept aside; the oldest goes first.
const FOREIGN_MAX: u32 = 8;

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    file: File,
    bytes: u64,
    rewrite_at: u64,
    open: BTreeSet<AttemptId>,
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the journal {}: {source}", path.display())]
pub struct JournalError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Journal {
    /// Opens the journal below `dir`, cuts a torn tail and says what is open.
    pub fn open(dir: &Path) -> Result<(Self, Reading), JournalError> {
        let path = dir.join("journal");
        let fail = |action| {
            let path = path.clone();
            move |source| JournalError { action, path, source }
        };
        let mut file = options().open(&path).map_err(fail("open"))?;
        let mut bytes = Vec::new();
        (&mut file).take(READ_BYTES_MAX).read_to_end(&mut bytes).map_err(fail("read"))?;
        let reading = journal::read(&bytes);
        let open: BTreeSet<_> = reading.open.keys().copied().collect();
        let whole = if open.is_empty() { 0 } else { reading.whole_bytes as u64 };
        if whole != bytes.len() as u64 {
            file.set_len(whole).and_then(|()| file.sync_data()).map_err(fail("cut"))?;
        }
        file.seek(SeekFrom::Start(whole)).map_err(fail("open"))?;
        let journal = Self { dir: dir.to_owned(), file, bytes: whole, rewrite_at: REWRITE_BYTES, open };
        Ok((journal, reading))
    }

    /// Makes room on disk for an attempt and its outcome, beside those that are open. The room lies behind the end of the
    /// file and is not taken back while they are. A file system that cannot reserve is believed to have room.
    ///
    /// `Ok(false)`: the disk is full.
    pub fn make_room(&self) -> Result<bool, JournalError> {
        let length = RESERVE_BYTES * (self.open.len() as u64 + 1);
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.bytes, length) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(true),
            Err(Errno::NOSPC | Errno::DQUOT) => Ok(false),
            Err(error) => Err(self.fail("reserve room for", error.into())),
        }
    }

    /// Appends a record. It is on disk when this returns, but for an acknowledgement: if that is lost, an outcome is
    /// told once more, and it is taken once.
    pub fn append(&mut self, record: &Record) -> Result<(), JournalError> {
        let bytes = journal::encode(record);
        if let Err(source) = self.write(&bytes, !matches!(record, Record::Acked(_))) {
            // Half a record must not stand before the next one.
            drop(self.file.set_len(self.bytes));
            drop(self.file.seek(SeekFrom::Start(self.bytes)));
            return Err(self.fail("append to", source));
        }
        self.bytes += bytes.len() as u64;
        match record {
            Record::Begun(begun) => {
                self.open.insert(begun.attempt);
            }
            Record::Acked(attempt) => {
                self.open.remove(attempt);
                self.shrink()?;
            }
            Record::Prompted(_) | Record::Thread(..) | Record::Ended(_) => {}
        }
        Ok(())
    }

    /// Whether the file at its path is still the one that is written.
    pub fn stand(&self) -> Result<(), JournalError> {
        let ours = self.file.metadata().map_err(|e| self.fail("look at", e))?;
        match std::fs::symlink_metadata(self.dir.join("journal")) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => Ok(()),
            Ok(_) | Err(_) => Err(self.lost()),
        }
    }

    /// The error of a folder that was removed or replaced under us.
    pub fn lost(&self) -> JournalError {
        self.fail("find", io::Error::other("the agent's folder was removed or replaced while its worker ran"))
    }

    /// Makes this journal the one of `ledger`. If it belonged to another, it is set aside, and its new name is told.
    pub fn adopt(&mut self, ledger: u64) -> Result<Option<PathBuf>, JournalError> {
        let path = self.dir.join("ledger-id");
        let known = std::fs::read_to_string(&path).ok().and_then(|t| t.trim().parse::<u64>().ok());
        if known == Some(ledger) {
            return Ok(None);
        }
        let aside = match known {
            Some(_) if self.bytes > 0 => Some(self.set_aside()?),
            Some(_) | None => None,
        };
        crate::home::write_atomically(&path, format!("{ledger}\n").as_bytes()).map_err(|source| JournalError {
            action: "name the ledger of",
            path,
            source,
        })?;
        Ok(aside)
    }

    fn set_aside(&mut self) -> Result<PathBuf, JournalError> {
        let aside = crate::home::aside(&self.dir.join("journal"), "foreign", FOREIGN_MAX);
        std::fs::rename(self.dir.join("journal"), &aside).map_err(|e| self.fail("set aside", e))?;
        self.file = options().open(self.dir.join("journal")).map_err(|e| self.fail("open", e))?;
        self.bytes = 0;
        self.open.clear();
        Ok(aside)
    }

    fn write(&mut self, bytes: &[u8], sync: bool) -> io::Result<()> {
        self.file.write_all(bytes)?;
        if sync { self.file.sync_data() } else { Ok(()) }
    }

    fn shrink(&mut self) -> Result<(), JournalError> {
        if self.open.is_empty() {
            let cut = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
            cut.map_err(|e| self.fail("cut", e))?;
            self.bytes = 0;
            self.rewrite_at = REWRITE_BYTES;
        } else if self.bytes > self.rewrite_at {
            let bytes = self.bytes_of_open().map_err(|e| self.fail("read", e))?;
            let path = self.dir.join("journal");
            crate::home::write_atomically(&path, &bytes).map_err(|e| self.fail("rewrite", e))?;
            let mut file = options().open(&path).map_err(|e| self.fail("open", e))?;
            self.bytes = file.seek(SeekFrom::End(0)).map_err(|e| self.fail("open", e))?;
            self.file = file;
            self.rewrite_at = self.bytes + REWRITE_BYTES;
        }
        Ok(())
    }

    fn bytes_of_open(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(0))?;
        self.file.read_to_end(&mut bytes)?;
        Ok(journal::read(&bytes).open.into_values().flat_map(records_of).flat_map(|r| journal::encode(&r)).collect())
    }

    fn fail(&self, action: &'static str, source: io::Error) -> JournalError {
        JournalError { action, path: self.dir.join("journal"), source }
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true).mode(0o600);
    options
}

fn records_of(standing: Standing) -> Vec<Record> {
    let attempt = standing.begun.attempt;
    let mut records = vec![Record::Begun(standing.begun)];
    if standing.prompted {
        records.push(Record::Prompted(attempt));
    }
    records.extend(standing.thread.map(|thread| Record::Thread(attempt, thread)));
    records.extend(standing.ended.map(Record::Ended));
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::journal::Begun;
    use protocol::{Finished, Outcome, Route, Runtime, TurnId};

    fn begun(n: u64) -> Record {
        let route = Route { runtime: Runtime::CodexCli, provider: "p".into(), model: "m".into() };
        let attempt = AttemptId(n);
        Record::Begun(Begun { attempt, turn: TurnId(n), route, thread: None, rollout_bytes: 3, at_ms: 4 })
    }

    #[test]
    fn a_torn_tail_is_cut_and_the_rest_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, _) = Journal::open(dir.path()).unwrap();
        journal.append(&begun(1)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 1..whole.len() {
            let mut bytes = whole.clone();
            bytes.extend_from_slice(&whole[..cut]);
            std::fs::write(&path, &bytes).unwrap();
            let (mut journal, reading) = Journal::open(dir.path()).unwrap();
            assert_eq!((reading.open.len(), reading.torn_bytes), (1, cut));
            journal.append(&begun(2)).unwrap();
            let (_, reading) = Journal::open(dir.path()).unwrap();
            assert_eq!((reading.open.len(), reading.torn_bytes), (2, 0));
        }
    }

    #[test]
    fn room_is_kept_behind_the_end_for_each_open_attempt() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(dir.path()).unwrap();
        assert!(journal.make_room().unwrap());
        journal.append(&begun(1)).unwrap();
        assert!(journal.make_room().unwrap());
        let data = std::fs::metadata(dir.path().join("journal")).unwrap();
        assert!(data.blocks() * 512 >= RESERVE_BYTES * 2, "{} blocks", data.blocks());
        assert_eq!(Journal::open(dir.path()).unwrap().1.torn_bytes, 0, "the room is not read");
    }

    #[test]
    fn a_journal_that_was_removed_or_replaced_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path()).unwrap();
        journal.stand().unwrap();
        std::fs::rename(dir.path().join("journal"), dir.path().join("away")).unwrap();
        assert!(journal.stand().unwrap_err().to_string().contains("removed or replaced"));
        std::fs::write(dir.path().join("journal"), "").unwrap();
        journal.stand().unwrap_err();
    }

    #[test]
    fn it_is_empty_when_everything_is_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(dir.path()).unwrap();
        for n in [1, 2] {
            journal.append(&begun(n)).unwrap();
        }
        journal.append(&Record::Acked(AttemptId(1))).unwrap();
        assert!(std::fs::metadata(dir.path().join("journal")).unwrap().len() > 0);
        journal.append(&Record::Acked(AttemptId(2))).unwrap();
        assert_eq!(std::fs::metadata(dir.path().join("journal")).unwrap().len(), 0);
        journal.append(&begun(3)).unwrap();
        assert_eq!(Journal::open(dir.path()).unwrap().1.open.len(), 1);
    }

    #[test]
    fn a_rewrite_keeps_what_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(dir.path()).unwrap();
        journal.rewrite_at = 10;
        for n in 1..4 {
            journal.append(&begun(n)).unwrap();
        }
        journal.append(&Record::Prompted(AttemptId(2))).unwrap();
        journal.append(&Record::Thread(AttemptId(2), "t".into())).unwrap();
        let end = Finished::new(AttemptId(2), TurnId(2), Outcome::Completed);
        journal.append(&Record::Ended(Box::new(end))).unwrap();
        let before = std::fs::metadata(dir.path().join("journal")).unwrap().len();
        journal.append(&Record::Acked(AttemptId(1))).unwrap();
        assert!(std::fs::metadata(dir.path().join("journal")).unwrap().len() < before);
        journal.append(&begun(9)).unwrap();
        let open = Journal::open(dir.path()).unwrap().1.open;
        assert_eq!(open.keys().map(|a| a.0).collect::<Vec<_>>(), [2, 3, 9]);
        let second = &open[&AttemptId(2)];
        assert!(second.prompted && second.thread.as_deref() == Some("t") && second.ended.is_some());
    }

    #[test]
    fn outcomes_of_another_ledger_are_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(dir.path()).unwrap();
        assert_eq!(journal.adopt(7).unwrap(), None);
        journal.append(&begun(1)).unwrap();
        assert_eq!(journal.adopt(7).unwrap(), None);
        let aside = journal.adopt(8).unwrap().unwrap();
        assert_eq!(protocol::journal::read(&std::fs::read(aside).unwrap()).open.len(), 1);
        assert!(Journal::open(dir.path()).unwrap().1.open.is_empty());
        journal.append(&begun(2)).unwrap();
        assert_eq!(Journal::open(dir.path()).unwrap().1.open.len(), 1);
    }
}
