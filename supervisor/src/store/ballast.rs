//! The ballast: a file of reserved space beside the ledger, given up when the disk is full so that ends and alerts
//! still commit, and made again once there is room for it and half as much more.

use rustix::fs::{FallocateFlags, OFlags, fallocate, statvfs};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Unit of `st_blocks`, in bytes.
const BLOCK_BYTES: u64 = 512;

/// How much is written at once where space cannot be reserved, in bytes.
const ZEROS_BYTES: usize = 64 * 1024;

/// The file, whether it is there or not.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    bytes: u64,
}

impl Ballast {
    /// The ballast of a ledger's folder. Nothing is made.
    pub(super) fn of(folder: &Path, bytes: u64) -> Self {
        Self { path: folder.join("ballast"), bytes }
    }

    /// Whether the space is reserved. True if none is wanted.
    pub(super) fn is_whole(&self) -> bool {
        // A sparse file of the right length reserves nothing.
        self.bytes == 0
            || fs::symlink_metadata(&self.path)
                .is_ok_and(|m| m.is_file() && m.len() >= self.bytes && m.blocks() * BLOCK_BYTES >= self.bytes)
    }

    /// Reserves the space, if there is half as much more: the ballast must not eat what giving it up has freed.
    pub(super) fn make(&self) -> io::Result<()> {
        if self.is_whole() {
            return Ok(());
        }
        self.remove()?;
        let disk = statvfs(self.path.parent().unwrap_or(Path::new("/")))?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < self.bytes.saturating_add(self.bytes / 2) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let made = self.fill();
        if made.is_err() {
            self.remove()?;
        }
        made
    }

    /// Gives the space up. True if there was any.
    pub(super) fn free(&self) -> bool {
        let was_there = fs::symlink_metadata(&self.path).is_ok_and(|m| m.blocks() > 0);
        was_there && self.remove().is_ok()
    }

    fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn fill(&self) -> io::Result<()> {
        let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(flags).open(&self.path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, self.bytes) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.write_zeros(&file)?,
            Err(error) => return Err(error.into()),
        }
        file.sync_all()
    }

    fn write_zeros(&self, mut file: &File) -> io::Result<()> {
        let zeros = vec![0; ZEROS_BYTES];
        let mut left = self.bytes;
        while left > 0 {
            let piece = usize::try_from(left).unwrap_or(ZEROS_BYTES).min(ZEROS_BYTES);
            file.write_all(zeros.get(..piece).unwrap_or(&zeros))?;
            left = left.saturating_sub(piece as u64);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_made_freed_and_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let ballast = Ballast::of(folder.path(), 1 << 20);
        assert!(!ballast.is_whole() && !ballast.free());
        ballast.make().unwrap();
        assert!(ballast.is_whole());
        assert!(ballast.free() && !ballast.is_whole() && !ballast.free());
        ballast.make().unwrap();
        assert!(ballast.is_whole());
    }

    #[test]
    fn a_sparse_file_is_no_ballast() {
        let folder = tempfile::tempdir().unwrap();
        File::create(folder.path().join("ballast")).unwrap().set_len(1 << 20).unwrap();
        let ballast = Ballast::of(folder.path(), 1 << 20);
        assert!(!ballast.is_whole());
        ballast.make().unwrap();
        assert!(ballast.is_whole());
    }

    #[test]
    fn more_than_the_disk_holds_is_refused_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let ballast = Ballast::of(folder.path(), u64::MAX / 4);
        assert_eq!(ballast.make().unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn none_is_always_whole() {
        let folder = tempfile::tempdir().unwrap();
        let ballast = Ballast::of(folder.path(), 0);
        assert!(ballast.is_whole() && !ballast.free());
        ballast.make().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
