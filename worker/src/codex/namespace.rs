//! What a Codex child may see: the arguments of bwrap, and whether bwrap works here.
//!
//! ```text
//!  worker
//!    '- bwrap                    our child; its death by whatever cause ends the namespace
//!         '- bwrap, pid 1        reaps inside
//!              '- codex, pid 2   the one that is signalled
//!                   '- tools     setsid or not: none outlives pid 1
//! ```
//! The host's files stay where they are, but for the masked paths, which are empty inside. The agent's own folder is
//! masked too (its lock, journal and log are not for tools), and only its homes and its workspace are put back.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// What a child sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Paths that must not be seen. Those that do not exist are left alone.
    pub masked: Vec<PathBuf>,
    /// Folders that can be read and not written, whoever asks.
    pub fixed: Vec<PathBuf>,
    /// Folders that stay, also below a masked one.
    pub shown: Vec<PathBuf>,
    /// Where the child begins.
    pub workspace: PathBuf,
    /// The child's environment. It travels here and not in bwrap's own, because tools can read that of pid 1.
    pub env: Vec<(String, String)>,
    /// Whether this process is root, who would otherwise be able to remove the masks.
    pub root: bool,
}

impl View {
    /// The arguments of bwrap, each ended by a zero byte, as `--args FD` reads them: not in anybody's `ps`.
    pub fn arguments(&self) -> Vec<u8> {
        let mut words = Words::default();
        words.all([
            "--dev-bind",
            "/",
            "/",
            "--proc",
            "/proc",
            "--unshare-pid",
            "--unshare-user-try",
            "--die-with-parent",
        ]);
        if self.root {
            // Root in a user namespace gets its powers back with each exec; without this one it cannot unmount.
            words.all(["--cap-drop", "CAP_SYS_ADMIN"]);
        }
        for dir in &self.fixed {
            words.all(["--ro-bind"]);
            words.path(dir);
            words.path(dir);
        }
        let mut masked: Vec<PathBuf> = self.masked.iter().filter_map(|p| p.canonicalize().ok()).collect();
        // A folder comes before what lies in it, so that no later mask uncovers.
        masked.sort();
        masked.dedup();
        let (dirs, files): (Vec<_>, Vec<_>) = masked.into_iter().partition(|p| p.is_dir());
        let covered = |path: &Path| dirs.iter().any(|dir| path.starts_with(dir) && path != dir);
        for dir in dirs.iter().filter(|dir| !covered(dir)) {
            words.all(["--perms", "0700", "--tmpfs"]);
            words.path(dir);
        }
        let mut shown: Vec<PathBuf> = self.shown.iter().filter_map(|p| p.canonicalize().ok()).collect();
        shown.sort();
        shown.dedup();
        for dir in shown.iter().filter(|dir| dirs.iter().any(|mask| dir.starts_with(mask))) {
            words.all(["--bind"]);
            words.path(dir);
            words.path(dir);
        }
        let is_shown = |path: &Path| shown.iter().any(|dir| path.starts_with(dir));
        for dir in dirs.iter().filter(|dir| covered(dir) && is_shown(dir)) {
            words.all(["--perms", "0700", "--tmpfs"]);
            words.path(dir);
        }
        for file in files.iter().filter(|file| !covered(file) || is_shown(file)) {
            words.all(["--ro-bind", "/dev/null"]);
            words.path(file);
        }
        words.all(["--chdir"]);
        words.path(&self.workspace);
        for (name, value) in &self.env {
            words.all(["--setenv", name, value]);
        }
        words.0
    }
}

#[derive(Default)]
struct Words(Vec<u8>);

impl Words {
    fn all<const N: usize>(&mut self, words: [&str; N]) {
        for word in words {
            self.bytes(word.as_bytes());
        }
    }

    fn path(&mut self, path: &Path) {
        self.bytes(path.as_os_str().as_bytes());
    }

    /// A word with a zero byte would be two words; such a path or value does not exist.
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend(bytes.iter().filter(|b| **b != 0));
        self.0.push(0);
    }
}

/// Codex inside the namespace whose wrapper is `bwrap`: pid 2 there, below pid 1 there.
pub fn codex_pid(bwrap: u32) -> Option<u32> {
    let first = init_pid(bwrap)?;
    crate::sweep::children_of(first).into_iter().find(|pid| inner_pid(*pid) == Some(2))
}

/// Pid 1 of the namespace whose wrapper is `bwrap`, as the host sees it.
pub fn init_pid(bwrap: u32) -> Option<u32> {
    crate::sweep::children_of(bwrap).into_iter().next()
}

/// The pid of a process in its innermost namespace.
fn inner_pid(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().last()?.parse().ok()
}

/// The words of [`View::arguments`], for a reader.
pub fn words(arguments: &[u8]) -> Vec<OsString> {
    arguments.split(|b| *b == 0).map(|word| OsString::from_vec(word.to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn text(view: &View) -> String {
        words(&view.arguments()).into_iter().map(|w| w.into_string().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn masks_folders_and_files_and_shows_what_is_the_agents() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let p = |name: &str| root.join(name);
        for name in ["state/a/home", "state/a/codex-home", "state/b", "elsewhere"] {
            fs::create_dir_all(p(name)).unwrap();
        }
        fs::write(p("token"), "t").unwrap();
        fs::write(p("state/ledger.db"), "t").unwrap();
        let view = View {
            masked: ["state/a", "state", "token", "state/ledger.db", "absent"].map(p).to_vec(),
            shown: ["state/a/home", "elsewhere", "state/a/codex-home"].map(p).to_vec(),
            workspace: p("elsewhere"),
            env: vec![("A".into(), "b c".into())],
            root: false,
            fixed: vec![p("fixed")],
        };
        let text = text(&view).replace(root.to_str().unwrap(), "");
        let tail = text.split_once("--die-with-parent ").unwrap().1;
        assert_eq!(
            tail,
            "--ro-bind /fixed /fixed --perms 0700 --tmpfs /state --bind /state/a/codex-home /state/a/codex-home --bind /state/a/home \
             /state/a/home --ro-bind /dev/null /token --chdir /elsewhere --setenv A b c "
        );
    }

    #[test]
    fn a_zero_byte_makes_no_second_argument() {
        let view = View { env: vec![("A".into(), "x\0--bind\0/\0/".into())], ..View::default() };
        assert!(text(&view).contains("--setenv A x--bind//"));
    }
}
