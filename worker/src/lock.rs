//! One worker for each agent, whatever anybody believes: a kernel lock on a file in the agent's folder.
//!
//! The lock belongs to the open file and vanishes with the process, also by SIGKILL. The file is never removed, and it
//! is not inherited by Codex children, so a left-over tool cannot hold it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Name of the lock file in the agent's folder.
pub const LOCK_FILE: &str = "lock";

/// A held lock.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another worker serves the agent.
    #[error("another worker serves this agent: it holds {}", .0.display())]
    Held(PathBuf),
    /// The file cannot be used.
    #[error("cannot lock {}: {source}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock of the agent whose folder is `agent_dir`, which is made if it does not exist.
    pub fn take(agent_dir: &Path) -> Result<Self, LockError> {
        let path = agent_dir.join(LOCK_FILE);
        let fail = |source| LockError::Io { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(agent_dir).map_err(fail)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(fail)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Held(path)),
            Err(TryLockError::Error(source)) => Err(fail(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_holds_it_and_it_goes_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let agent = dir.path().join("deep/agent");
        let first = Lock::take(&agent).unwrap();
        assert!(matches!(Lock::take(&agent), Err(LockError::Held(_))));
        drop(first);
        Lock::take(&agent).unwrap();
    }
}
