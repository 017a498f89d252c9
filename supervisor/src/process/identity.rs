//! Who a process is, by the kernel's word: what a reused number cannot imitate.

use super::signal::Handle;
use crate::machine::nouns::Identity;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Names the process behind a handle. The handle was opened before, so that what is read of the number afterwards is
/// its own for as long as it has not been reaped.
///
/// # Errors
/// When it is gone, or `/proc` cannot be read.
pub fn of(handle: &Handle) -> io::Result<Identity> {
    let inode = rustix::fs::fstat(handle.fd())?.st_ino;
    let started = started(handle.pid())?;
    Ok(Identity { boot: boot()?, pid: handle.pid(), inode, started })
}

/// The handle of a remembered process; `None` if it is gone, or if its number is somebody else's by now.
pub fn find(remembered: &Identity) -> Option<Handle> {
    let handle = Handle::open(remembered.pid).ok()?;
    (of(&handle).ok()? == *remembered).then_some(handle)
}

/// Whether the file that a process runs has been replaced or removed since its start, by the kernel's word.
pub fn is_replaced(pid: u32) -> bool {
    let program = fs::read_link(format!("/proc/{pid}/exe"));
    program.is_ok_and(|path| path.as_os_str().as_bytes().ends_with(b" (deleted)"))
}

fn boot() -> io::Result<u128> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    u128::from_str_radix(&text.trim().replace('-', ""), 16).map_err(io::Error::other)
}

/// When a process started, in clock ticks since the boot. Zombies have a start as well.
fn started(pid: u32) -> io::Result<u64> {
    let text = fs::read(format!("/proc/{pid}/stat"))?;
    let text = String::from_utf8_lossy(&text);
    // The name in the second field may hold blanks and brackets; the start is the 22nd field.
    let started = text.rsplit_once(") ").and_then(|(_, fields)| fields.split(' ').nth(19)?.parse().ok());
    started.ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat has no start time")))
}

/// The process that holds the `flock` of a file, by the kernel's table of locks.
pub fn holder(lock: &Path) -> Option<u32> {
    let stat = rustix::fs::lstat(lock).ok()?;
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    let file = format!("{major:02x}:{minor:02x}:{}", stat.st_ino);
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        // `1: FLOCK  ADVISORY  WRITE 4242 fe:00:1234 0 EOF`
        let mut words = line.split_whitespace().skip(1);
        let (kind, pid, of) = (words.next()?, words.nth(2)?, words.next()?);
        (kind == "FLOCK" && of == file).then(|| pid.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_again_and_a_reused_number_is_not() {
        let ours = of(&Handle::open(std::process::id()).unwrap()).unwrap();
        assert_eq!(find(&ours).map(|handle| handle.pid()), Some(ours.pid));
        assert!(find(&Identity { started: ours.started + 1, ..ours }).is_none());
        assert!(find(&Identity { boot: ours.boot ^ 1, ..ours }).is_none());
        assert!(find(&Identity { pid: u32::MAX, ..ours }).is_none());
    }

    #[test]
    fn the_holder_of_a_lock_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let file = fs::File::create(&path).unwrap();
        assert_eq!(holder(&path), None);
        file.lock().unwrap();
        assert_eq!(holder(&path), Some(std::process::id()));
    }
}
