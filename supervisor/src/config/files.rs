//! Reads the small files that a configuration consists of or names. Nothing that a path may lead to, be it a
//! directory, a pipe without a writer, a device or a hundred megabytes, keeps the reader waiting or fills memory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Bits of a mode that let others than the owner in.
const OTHERS: u32 = 0o077;

/// A file's content and who may read it.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    /// The permission bits.
    pub(super) mode: u32,
}

impl Content {
    /// Whether its owner alone may read or write it.
    pub(super) fn is_private(&self) -> bool {
        self.mode & OTHERS == 0
    }
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum CannotRead {
    #[error("it does not exist")]
    Missing,
    #[error("it is a directory")]
    Directory,
    #[error("it is no ordinary file")]
    Special,
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    #[error("{0}")]
    Io(io::Error),
}

impl From<io::Error> for CannotRead {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound { Self::Missing } else { Self::Io(error) }
    }
}

/// Reads the whole of an ordinary file of at most `bytes_max` bytes.
pub(super) fn read(path: &Path, bytes_max: u64) -> Result<Content, CannotRead> {
    // Without O_NONBLOCK, to open a pipe waits for its writer.
    let flags = nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_NOCTTY;
    let file: File = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    let meta = file.metadata()?;
    if meta.is_dir() {
        return Err(CannotRead::Directory);
    }
    if !meta.is_file() {
        return Err(CannotRead::Special);
    }
    if meta.len() > bytes_max {
        return Err(CannotRead::TooLarge(bytes_max));
    }
    let mut bytes = Vec::new();
    // It may grow while it is read, and files of /proc have no size.
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(CannotRead::TooLarge(bytes_max));
    }
    Ok(Content { bytes, mode: meta.mode() & 0o777 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_small_ordinary_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a"), "hello").unwrap();
        assert_eq!(read(&at("a"), 5).unwrap().bytes, b"hello");
        assert!(matches!(read(&at("a"), 4), Err(CannotRead::TooLarge(4))));
        assert!(matches!(read(&at("b"), 5), Err(CannotRead::Missing)));
        assert!(matches!(read(dir.path(), 5), Err(CannotRead::Directory)));
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(read(&at("pipe"), 5), Err(CannotRead::Special)));
        assert!(matches!(read(Path::new("/dev/zero"), 5), Err(CannotRead::Special)));
        assert!(matches!(read(Path::new("/proc/self/status"), 5), Err(CannotRead::TooLarge(5))));
    }
}
