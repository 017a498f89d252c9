//! Opens the ledger, or says clearly why not. Nothing that lies there is ever written over.
//!
//! ```text
//!  folder --> ledger.lock (flock, pid) --> ledger.db there? --no--> made as ledger.db.new, then renamed
//!                   |                         | yes
//!                   v                         v
//!             Locked(pid)     ours? this version? whole? --> migrate --> prune --> recall --> ballast --> threads
//! ```

use super::ballast::Ballast;
use super::queue::Queue;
use super::writer::{self, Writer};
use super::{Store, StoreState, migrate, prune, recall, story};
use crate::machine::nouns::{Memory, Wall};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Largest ledger that is read whole at the start, in bytes: a quarter of a second from a common disk's cache. A larger
/// one is checked by the reads of the start alone.
const CHECKED_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// How long another program's lock (a shell with an open transaction) is waited for before it is told.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Size to which SQLite cuts its log after a checkpoint, in bytes.
const LOG_BYTES_MAX: i64 = 16 * 1024 * 1024;

/// Questions of people that wait for the reader; the next asker waits for a place.
const ASKS_MAX: usize = 64;

/// How a ledger is opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) ballast_bytes: u64,
    pub(super) now: Wall,
    pub(super) busy_timeout: Duration,
    pub(super) first_pause: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self { ballast_bytes: 0, now: 0, busy_timeout: BUSY_TIMEOUT, first_pause: writer::FIRST_PAUSE }
    }
}

/// Why there is no ledger. Fit for "cannot open the ledger: ...".
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another supervisor has it.
    #[error("{} is in use by {holder}: use that one, or end it with `cofferdam shutdown`", .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// `the supervisor with pid N`, or what is known.
        holder: String,
    },
    /// A folder lies there.
    #[error("{} is a folder: move it away, or set another state_dir", .0.display())]
    Folder(PathBuf),
    /// A file without content lies there; a ledger never has none.
    #[error("{} is empty, so what it held is lost: restore it from a backup, or remove it to begin anew", .0.display())]
    Empty(PathBuf),
    /// The log of a ledger without its ledger.
    #[error("{} lies there without its ledger: restore ledger.db beside it, or move it away to begin anew", .0.display())]
    LogAlone(PathBuf),
    /// Not a database.
    #[error("{} is not a ledger: move it away, or restore it from a backup", .0.display())]
    NotALedger(PathBuf),
    /// A newer release wrote it.
    #[error("{} is of version {found} and this release knows {known}: install the newer release again", .path.display())]
    Newer {
        /// The ledger.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// Its pages contradict each other.
    #[error(
        "{path} is damaged ({what}): copy it and restore it from a backup, or save what can be read with \
         `sqlite3 {path} .recover`",
        path = .path.display()
    )]
    Damaged {
        /// The ledger.
        path: PathBuf,
        /// The first fault.
        what: String,
    },
    /// No space.
    #[error("the disk that holds {} is full: free space on it, then start again", .0.display())]
    Full(PathBuf),
    /// It may not be written.
    #[error("{} cannot be written: give this user the right to it, or set another state_dir", .path.display())]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// A program holds a lock for long.
    #[error("{} is locked by another program: end it (a sqlite3 shell with an open transaction?)", .0.display())]
    Busy(PathBuf),
    /// Anything else of the system's.
    #[error("cannot use {}: check the disk and the path", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// Anything else of SQLite's.
    #[error("cannot use {}: check the disk, or restore the file from a backup", .path.display())]
    Sqlite {
        /// The ledger.
        path: PathBuf,
        /// SQLite's words.
        #[source]
        source: rusqlite::Error,
    },
}

impl OpenError {
    fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        let kind = source.kind();
        if kind == io::ErrorKind::StorageFull || kind == io::ErrorKind::QuotaExceeded {
            Self::Full(path)
        } else if kind == io::ErrorKind::PermissionDenied || kind == io::ErrorKind::ReadOnlyFilesystem {
            Self::Unwritable { path, source }
        } else {
            Self::Io { path, source }
        }
    }

    fn sqlite(path: &Path, source: rusqlite::Error) -> Self {
        let code = source.sqlite_error_code();
        let path = path.to_owned();
        if code == Some(ErrorCode::DiskFull) || (code == Some(ErrorCode::SystemIoFailure) && writer::is_full(&path)) {
            Self::Full(path)
        } else if code == Some(ErrorCode::NotADatabase) {
            Self::NotALedger(path)
        } else if code == Some(ErrorCode::DatabaseCorrupt) {
            Self::Damaged { path, what: source.to_string() }
        } else if [ErrorCode::ReadOnly, ErrorCode::CannotOpen, ErrorCode::PermissionDenied].map(Some).contains(&code) {
            Self::Unwritable { path, source: io::Error::other(source) }
        } else if [ErrorCode::DatabaseBusy, ErrorCode::DatabaseLocked].map(Some).contains(&code) {
            Self::Busy(path)
        } else {
            Self::Sqlite { path, source }
        }
    }
}

pub(super) fn open(path: &Path, setup: &Setup) -> Result<(Store, Memory), OpenError> {
    let folder = folder(path)?;
    let lock = lock(&folder.join("ledger.lock"))?;
    let ballast = Ballast::of(&folder, setup.ballast_bytes);
    let (ledger, memory) = match prepare(path, setup) {
        // Ends and alerts must commit even now: that is what the ballast is for.
        Err(OpenError::Full(_)) if ballast.free() => prepare(path, setup)?,
        prepared => prepared?,
    };
    let reader = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY, setup).map_err(|e| OpenError::sqlite(path, e))?;
    let state = match ballast.make() {
        Ok(()) => StoreState::Well,
        Err(error) => StoreState::Stuck(writer::without_ballast(path, &error)),
    };
    let queue = Arc::new(Queue::default());
    let (say_state, state) = watch::channel(state);
    let (say_closed, closed) = watch::channel(None);
    let (looks, asks) = mpsc::channel(ASKS_MAX);
    let writer = Writer {
        ledger,
        path: path.to_owned(),
        ballast,
        queue: Arc::clone(&queue),
        state: say_state,
        closed: say_closed,
        first_pause: setup.first_pause,
        lock,
    };
    let writer = thread::Builder::new().name("ledger-writer".into()).spawn(move || writer.run());
    let writer = Some(writer.map_err(|e| OpenError::io(path, e))?);
    // From here on the store ends its writer when it is dropped.
    let store = Store { queue, state, closed, looks, writer };
    let reader = thread::Builder::new().name("ledger-reader".into()).spawn(move || story::serve(reader, asks));
    reader.map(drop).map_err(|e| OpenError::io(path, e))?;
    Ok((store, memory))
}

/// The folder of the ledger, made for this user alone if it is missing. One that is there keeps its rights: it may be
/// shared, and the files in it are private.
fn folder(path: &Path) -> Result<PathBuf, OpenError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| OpenError::io(folder, e))?;
    Ok(folder.to_owned())
}

/// Holds the lock for the life of the file. The kernel releases it, whatever kills us.
fn lock(path: &Path) -> Result<File, OpenError> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let mut file = opened.map_err(|e| OpenError::io(path, e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let read = (&mut file).take(32).read_to_string(&mut pid);
            let pid = read.ok().and_then(|_| pid.trim().parse::<u32>().ok());
            let holder = pid.map_or("another supervisor".into(), |pid| format!("the supervisor with pid {pid}"));
            return Err(OpenError::Locked { path: path.to_owned(), holder });
        }
        Err(TryLockError::Error(error)) => return Err(OpenError::io(path, error)),
    }
    // The pid is for people: on a full disk we go on without it.
    let written = file.set_len(0).and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "cannot note the pid in the lock file");
    }
    Ok(file)
}

fn prepare(path: &Path, setup: &Setup) -> Result<(Connection, Memory), OpenError> {
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => return Err(OpenError::Folder(path.to_owned())),
        Ok(there) if there.len() == 0 => return Err(OpenError::Empty(path.to_owned())),
        Ok(there) => {
            // Older rights of ours, or a restored backup: the file is private. The log inherits its rights.
            if there.permissions().mode() & 0o077 != 0 {
                fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|e| OpenError::io(path, e))?;
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path, setup)?,
        Err(error) => return Err(OpenError::io(path, error)),
    }
    let sqlite = |error| OpenError::sqlite(path, error);
    let mut ledger = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, setup).map_err(sqlite)?;
    check(&ledger, path)?;
    run(&ledger).map_err(sqlite)?;
    migrate::migrate(&mut ledger).map_err(sqlite)?;
    match prune::prune(&mut ledger, setup.now) {
        Ok(rows) => tracing::debug!(rows, "forgot what ended long ago"),
        Err(error) => tracing::warn!(%error, "cannot forget what ended long ago; the next start tries again"),
    }
    let memory = recall::recall(&mut ledger, setup.now).map_err(sqlite)?;
    Ok((ledger, memory))
}

fn connect(path: &Path, access: OpenFlags, setup: &Setup) -> rusqlite::Result<Connection> {
    let ledger = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    ledger.busy_timeout(setup.busy_timeout)?;
    ledger.set_prepared_statement_cache_capacity(64);
    // No temporary files: they would need space of their own.
    ledger.execute_batch("PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;")?;
    Ok(ledger)
}

/// Makes a whole ledger under another name first, so that a ledger that is there is never half made.
fn make(path: &Path, setup: &Setup) -> Result<(), OpenError> {
    let log = beside(path, "-wal");
    if fs::metadata(&log).is_ok_and(|m| m.len() > 0) {
        return Err(OpenError::LogAlone(log));
    }
    let new = beside(path, ".new");
    for leftover in [new.clone(), beside(&new, "-journal")] {
        match fs::remove_file(&leftover) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(OpenError::io(&leftover, error)),
            Ok(()) | Err(_) => {}
        }
    }
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
    made.map_err(|e| OpenError::io(&new, e))?;
    let mut ledger = connect(&new, OpenFlags::SQLITE_OPEN_READ_WRITE, setup).map_err(|e| OpenError::sqlite(&new, e))?;
    migrate::migrate(&mut ledger).map_err(|e| OpenError::sqlite(&new, e))?;
    drop(ledger);
    fs::rename(&new, path).map_err(|e| OpenError::io(path, e))?;
    let folder = folder(path)?;
    File::open(&folder).and_then(|f| f.sync_all()).map_err(|e| OpenError::io(&folder, e))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Reads only: whether it is ours, of a version that we know, and whole.
fn check(ledger: &Connection, path: &Path) -> Result<(), OpenError> {
    let sqlite = |error| OpenError::sqlite(path, error);
    let id: i64 = ledger.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(sqlite)?;
    let found = migrate::version(ledger).map_err(sqlite)?;
    if id != migrate::APPLICATION_ID || found < 1 {
        return Err(OpenError::NotALedger(path.to_owned()));
    }
    if found > migrate::newest() {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: migrate::newest() });
    }
    let bytes = fs::metadata(path).map_err(|e| OpenError::io(path, e))?.len();
    if bytes > CHECKED_BYTES_MAX {
        tracing::info!(bytes, "the ledger is too large to be read whole at the start");
        return Ok(());
    }
    let what: String = ledger.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(sqlite)?;
    if what == "ok" { Ok(()) } else { Err(OpenError::Damaged { path: path.to_owned(), what }) }
}

/// How the writer's connection works.
fn run(ledger: &Connection) -> rusqlite::Result<()> {
    let mode: String = ledger.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        tracing::warn!(mode, "this file system cannot share memory: readers and the writer wait for each other");
    }
    ledger.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")?;
    ledger.pragma_update(None, "journal_size_limit", LOG_BYTES_MAX)
}
