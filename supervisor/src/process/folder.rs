//! Opens and makes what lies in folders that another user may own, without being led elsewhere.
//!
//! ```text
//!   state_dir/agents/      ours: paths down to here are followed as they are
//!     '- NAME/             the agent's, of another user if it has one: from here on step by step, each step relative to
//!          '- log/ ...     the open folder above it, no link followed, nothing touched that somebody else owns
//! ```
//! A supervisor of root must not write, read or remove anything because an agent has put a link, a pipe or a second name
//! of somebody else's file into its folder.

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid, getegid, geteuid};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

/// Deepest folder that is handed to another user: each level holds a descriptor, and no agent's tree is so deep.
const DEPTH_MAX: usize = 128;

/// Rights of a folder that the users of agents pass through and cannot list.
const PASSABLE: u32 = 0o711;

/// How a folder is opened.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The user and group that an agent's worker runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user's number, never that of root.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
}

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    /// Whose it is: what lies in it must be theirs as well.
    owner: Owner,
}

impl Folder {
    /// Opens the folder at `path`. The path is ours and is followed; what lies in the folder need not be.
    ///
    /// # Errors
    /// When there is no such folder.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::of(rustix::fs::open(path, FOLDER, Mode::empty())?)
    }

    fn of(fd: OwnedFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(&fd)?;
        Ok(Self { fd, owner: Owner { uid: stat.st_uid, gid: stat.st_gid } })
    }

    /// Opens the folder at `path`, made (0700) if it does not exist, as one of `owner`, or of us without one. As root, a
    /// folder that was another's is handed over with all that this other one owned in it: once, when `user` has changed.
    ///
    /// # Errors
    /// When it cannot be made or handed over.
    pub fn prepare(path: &Path, owner: Option<Owner>) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let mut folder = Self::open(path)?;
        let owner = owner.unwrap_or_else(|| Owner { uid: geteuid().as_raw(), gid: getegid().as_raw() });
        if folder.owner.uid != owner.uid && geteuid().is_root() {
            hand_over(&folder.fd, folder.owner.uid, owner, 0)?;
            folder.owner = owner;
        }
        Ok(folder)
    }

    /// Opens a folder in this one.
    ///
    /// # Errors
    /// When there is none, or it is a link, or somebody else's.
    pub fn sub(&self, name: &OsStr) -> io::Result<Self> {
        let opened = rustix::fs::openat(&self.fd, name, FOLDER | OFlags::NOFOLLOW, Mode::empty());
        let sub = Self::of(opened.map_err(|error| told(name, error))?)?;
        self.is_right(name, sub.owner.uid)?;
        Ok(sub)
    }

    /// Opens a folder in this one, made (0700) if it does not exist.
    ///
    /// # Errors
    /// When it cannot be made, or is a link, or somebody else's.
    pub fn make(&self, name: &OsStr) -> io::Result<Self> {
        match rustix::fs::mkdirat(&self.fd, name, Mode::RWXU) {
            Ok(()) => {
                let opened = rustix::fs::openat(&self.fd, name, FOLDER | OFlags::NOFOLLOW, Mode::empty());
                self.give(&opened.map_err(|error| told(name, error))?)?;
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        self.sub(name)
    }

    /// Opens an ordinary file in this folder for reading.
    ///
    /// # Errors
    /// When there is none, or it is a link, a pipe or a device, or somebody else's.
    pub fn read(&self, name: &OsStr) -> io::Result<File> {
        self.file(name, OFlags::RDONLY)
    }

    /// The same for reading and writing.
    ///
    /// # Errors
    /// As [`Folder::read`].
    pub fn edit(&self, name: &OsStr) -> io::Result<File> {
        self.file(name, OFlags::RDWR)
    }

    /// Opens an ordinary file in this folder to add to its end, made (0600) if it does not exist.
    ///
    /// # Errors
    /// As [`Folder::read`], and when it cannot be made.
    pub fn append(&self, name: &OsStr) -> io::Result<File> {
        match self.file(name, OFlags::WRONLY | OFlags::APPEND) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.new_file(name, OFlags::APPEND),
            opened => opened,
        }
    }

    /// Makes a file (0600) in this folder in the place of whatever bears its name.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(&self, name: &OsStr) -> io::Result<File> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Err(error) if error != Errno::NOENT => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        self.new_file(name, OFlags::empty())
    }

    /// Removes the files of this folder whose names are chosen. One that stays is tried again.
    pub fn remove(&self, is_old: impl Fn(&str) -> bool) {
        for entry in Dir::read_from(&self.fd).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_ok_and(&is_old) {
                rustix::fs::unlinkat(&self.fd, entry.file_name(), AtFlags::empty()).ok();
            }
        }
    }

    fn new_file(&self, name: &OsStr, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)?;
        self.give(&fd)?;
        Ok(fd.into())
    }

    fn file(&self, name: &OsStr, flags: OFlags) -> io::Result<File> {
        // Without O_NONBLOCK, to open a pipe waits for its other end.
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty()).map_err(|error| told(name, error))?;
        let stat = rustix::fs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::other(format!("{} is no ordinary file", name.display())));
        }
        self.is_right(name, stat.st_uid)?;
        Ok(fd.into())
    }

    /// What we have just made as root becomes the folder's owner's.
    fn give(&self, made: &OwnedFd) -> io::Result<()> {
        if geteuid().is_root() && self.owner.uid != 0 {
            rustix::fs::fchown(made, Some(uid(self.owner)), Some(gid(self.owner)))?;
        }
        Ok(())
    }

    fn is_right(&self, name: &OsStr, found: u32) -> io::Result<()> {
        let ours = geteuid();
        if found == self.owner.uid || (found == ours.as_raw() && !ours.is_root()) {
            return Ok(());
        }
        let wanted = self.owner.uid;
        Err(io::Error::other(format!("{} belongs to user {found}, its folder to {wanted}", name.display())))
    }
}

/// Opens the ordinary file at `path`, relative to the folder `root`, for reading; no step below `root` may be a link.
///
/// # Errors
/// As [`Folder::read`], and when the path leads out of `root`.
pub fn open_below(root: &Path, path: &Path) -> io::Result<File> {
    let mut folder = Folder::open(root)?;
    let mut names = path.components().map(|part| match part {
        std::path::Component::Normal(name) => Ok(name),
        std::path::Component::Prefix(_)
        | std::path::Component::RootDir
        | std::path::Component::CurDir
        | std::path::Component::ParentDir => {
            Err(io::Error::other(format!("{} leads out of {}", path.display(), root.display())))
        }
    });
    let mut name = names.next().unwrap_or_else(|| Err(io::Error::other("no file is named")))?;
    for next in names {
        folder = folder.sub(name)?;
        name = next?;
    }
    folder.read(name)
}

/// Lets the users of agents pass through the folders above theirs, or nobody. Root alone can list them either way.
///
/// # Errors
/// When the rights cannot be set.
pub fn let_through(state_dir: &Path, runtime_dir: &Path, others: bool) -> io::Result<()> {
    for dir in [state_dir.to_owned(), state_dir.join("agents"), runtime_dir.to_owned(), runtime_dir.join("agents")] {
        if others {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        }
        let Ok(found) = fs::metadata(&dir).map(|data| data.permissions().mode() & 0o777) else { continue };
        let wanted = match found {
            _ if others => found | (PASSABLE & 0o011),
            PASSABLE => 0o700,
            other => other,
        };
        if wanted != found {
            fs::set_permissions(&dir, Permissions::from_mode(wanted))?;
        }
    }
    Ok(())
}

/// Gives files of a folder that is ours to another user, or back to us.
///
/// # Errors
/// When we are root and it fails; nobody else can give anything.
pub fn give(paths: &[&Path], owner: Option<Owner>) -> io::Result<()> {
    let (uid, gid) = owner.map_or((0, 0), |owner| (owner.uid, owner.gid));
    let ours = if geteuid().is_root() { paths } else { &[] };
    ours.iter().try_for_each(|path| std::os::unix::fs::chown(path, Some(uid), Some(gid)))
}

/// Gives a folder with everything in it that was `from`'s to another user. The folder itself comes last, so that what was cut
/// short is done again.
fn hand_over(dir: &OwnedFd, from: u32, to: Owner, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other(format!("it is deeper than {DEPTH_MAX} folders")));
    }
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        // What was looked at is what is given: the descriptor stays with it, whatever becomes of the name.
        let found = rustix::fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let stat = rustix::fs::fstat(&found)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if stat.st_uid != from {
            continue;
        }
        if kind == FileType::Directory {
            let inner = rustix::fs::openat(&found, c".", FOLDER, Mode::empty())?;
            hand_over(&inner, from, to, depth + 1)?;
        } else if stat.st_nlink == 1 {
            // A file with a second name may be at home elsewhere.
            rustix::fs::chownat(found.as_fd(), c"", Some(uid(to)), Some(gid(to)), AtFlags::EMPTY_PATH)?;
        }
    }
    rustix::fs::fchown(dir, Some(uid(to)), Some(gid(to)))?;
    Ok(())
}

fn told(name: &OsStr, error: Errno) -> io::Error {
    if matches!(error, Errno::LOOP | Errno::NOTDIR) {
        return io::Error::other(format!("{} is a link or no folder, and is not followed", name.display()));
    }
    error.into()
}

fn uid(owner: Owner) -> Uid {
    Uid::from_raw(owner.uid)
}

fn gid(owner: Owner) -> Gid {
    Gid::from_raw(owner.gid)
}

/// A name as the functions above take it.
pub fn name(text: &str) -> &OsStr {
    OsStr::from_bytes(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::{MetadataExt, symlink};

    const NOBODY: Owner = Owner { uid: 65_534, gid: 65_534 };

    #[test]
    fn links_pipes_and_ways_out_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (agent, other) = (dir.path().join("a"), dir.path().join("other"));
        fs::create_dir(&other).unwrap();
        fs::write(other.join("secret"), "s").unwrap();
        let folder = Folder::prepare(&agent, None).unwrap();
        symlink(&other, agent.join("log")).unwrap();
        symlink(other.join("secret"), agent.join("file")).unwrap();
        nix::unistd::mkfifo(&agent.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let words = |result: io::Result<()>| result.unwrap_err().to_string();
        assert!(words(folder.make(name("log")).map(drop)).contains("log is a link"));
        assert!(words(folder.sub(name("log")).map(drop)).contains("log is a link"));
        assert!(words(folder.read(name("file")).map(drop)).contains("file is a link"));
        assert!(words(folder.append(name("file")).map(drop)).contains("file is a link"));
        assert!(words(folder.read(name("pipe")).map(drop)).contains("no ordinary file"));
        assert!(words(open_below(&agent, Path::new("log/secret")).map(drop)).contains("log is a link"));
        assert!(words(open_below(&agent, Path::new("../other/secret")).map(drop)).contains("leads out"));
        assert!(open_below(dir.path(), Path::new("other/secret")).is_ok());
        // In the place of the link, not through it.
        folder.create(name("file")).unwrap().write_all(b"new").unwrap();
        let mut text = String::new();
        folder.read(name("file")).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), fs::read(other.join("secret")).unwrap()), ("new", b"s".to_vec()));
        folder.remove(|name| name == "log");
        assert!(other.join("secret").exists() && !agent.join("log").exists());
    }

    #[test]
    fn a_folder_of_another_user_is_handed_over_and_holds_nothing_of_ours() {
        if !geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (agent, elsewhere) = (dir.path().join("a"), dir.path().join("ours"));
        fs::create_dir_all(agent.join("home/deep")).unwrap();
        fs::write(agent.join("home/deep/file"), "x").unwrap();
        fs::write(&elsewhere, "x").unwrap();
        fs::hard_link(&elsewhere, agent.join("second")).unwrap();
        symlink(&elsewhere, agent.join("link")).unwrap();
        let folder = Folder::prepare(&agent, Some(NOBODY)).unwrap();
        let owner = |path: &Path| fs::symlink_metadata(path).unwrap().uid();
        for path in ["", "home", "home/deep", "home/deep/file", "link"] {
            assert_eq!(owner(&agent.join(path)), NOBODY.uid, "{path}");
        }
        assert_eq!(owner(&elsewhere), 0);
        assert!(folder.read(name("second")).unwrap_err().to_string().contains("belongs to user 0"));
        assert!(folder.append(name("second")).is_err());
        drop(folder.make(name("log")).unwrap().append(name("stderr")).unwrap());
        assert_eq!((owner(&agent.join("log")), owner(&agent.join("log/stderr"))), (NOBODY.uid, NOBODY.uid));
        Folder::prepare(&agent, None).unwrap();
        assert_eq!((owner(&agent), owner(&agent.join("log/stderr"))), (0, 0));
    }

    #[test]
    fn the_ways_are_open_only_while_somebody_needs_them() {
        let dir = tempfile::tempdir().unwrap();
        let (state, run) = (dir.path().join("s"), dir.path().join("s/run"));
        let modes = || {
            [state.clone(), state.join("agents"), run.clone(), run.join("agents")]
                .map(|dir| fs::metadata(dir).map_or(0, |data| data.mode() & 0o777))
        };
        let_through(&state, &run, false).unwrap();
        assert_eq!(modes(), [0; 4]);
        let_through(&state, &run, true).unwrap();
        assert_eq!(modes(), [0o711; 4]);
        let_through(&state, &run, false).unwrap();
        assert_eq!(modes(), [0o700; 4]);
    }
}
