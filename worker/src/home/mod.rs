//! The agent's two homes: `CODEX_HOME`, which Codex alone uses, and `HOME`, which its tools see.
//!
//! ```text
//!  AGENT/codex-home/config.toml    rendered by render.rs; a hand edit is kept as config.toml.edited-N
//!  AGENT/codex-home/auth.json      a link to the shared login, the agent's own login, or nothing
//!  AGENT/home/                     private HOME: links for the shared names
//!  AGENT/home/tmp/                 TMPDIR
//!  AGENT/rendered                  hash of the config.toml that was rendered last
//! ```
//! Nothing that a person or Codex wrote is ever overwritten without a copy.

pub mod links;
pub mod render;

use protocol::to_worker::{Configure, Home};
use sha2::{Digest, Sha256};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Most edited configurations that are kept aside; the oldest goes first.
const EDITED_MAX: u32 = 8;

/// Why the homes cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// A folder or file cannot be made.
    #[error("cannot make {}: {source}", path.display())]
    Io {
        /// What could not be made.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The agent's own Codex settings are no TOML.
    #[error("the agent's [codex] settings are no TOML: {0}")]
    Extra(String),
}

/// Where an agent's things lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Homes {
    /// `CODEX_HOME`.
    pub codex_home: PathBuf,
    /// `HOME` of the children.
    pub home: PathBuf,
    /// `TMPDIR` of the children.
    pub tmp: PathBuf,
    /// Working directory of every turn.
    pub workspace: PathBuf,
}

impl Homes {
    /// The places that follow from a configuration. Nothing is touched.
    pub fn of(agent_dir: &Path, configure: &Configure) -> Self {
        let private = agent_dir.join("home");
        Self {
            codex_home: agent_dir.join("codex-home"),
            tmp: private.join("tmp"),
            home: match configure.home {
                Home::Private => private,
                Home::Real => PathBuf::from(&configure.real_home),
            },
            workspace: PathBuf::from(&configure.workspace),
        }
    }

    /// Makes or renews everything and returns what the operator should read.
    pub fn render(&self, agent_dir: &Path, configure: &Configure) -> Result<Vec<String>, HomeError> {
        let mut notes = Vec::new();
        for dir in [&self.codex_home, &agent_dir.join("home"), &self.tmp, &self.workspace] {
            make_private_dir(dir).map_err(|source| HomeError::Io { path: dir.clone(), source })?;
        }
        let text = render::config(configure, self).map_err(|e| HomeError::Extra(e.to_string()))?;
        let path = self.codex_home.join("config.toml");
        renew(&path, &agent_dir.join("rendered"), &text, &mut notes)
            .map_err(|source| HomeError::Io { path, source })?;
        let auth = self.codex_home.join("auth.json");
        links::auth(&auth, &configure.auth, &mut notes).map_err(|source| HomeError::Io { path: auth, source })?;
        if configure.home == Home::Private {
            links::share(&self.home, Path::new(&configure.real_home), &configure.home_share, &mut notes);
        }
        Ok(notes)
    }
}

/// Writes the rendered text if it differs, and keeps what a hand has changed.
fn renew(path: &Path, rendered: &Path, text: &str, notes: &mut Vec<String>) -> io::Result<()> {
    let hash = hash(text);
    let found = match fs::read_to_string(path) {
        Ok(found) => Some(found),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Some(String::new()),
        Err(e) => return Err(e),
    };
    if found.as_deref() != Some(text) {
        let ours = fs::read_to_string(rendered).unwrap_or_default();
        if let Some(found) =
            found.filter(|f| self::hash(f) != ours.trim() && !render::only_codex_wrote(f, text, rendered))
            && let Some(kept) = keep_edit(path, &found)?
        {
            notes.push(format!(
                "{} was edited by hand and has been rendered again; the edit is in {}: move it to [agents.NAME.codex]",
                path.display(),
                kept.display()
            ));
        }
        write_atomically(path, text.as_bytes())?;
    }
    if fs::read_to_string(rendered).is_ok_and(|t| t.trim() == hash) {
        Ok(())
    } else {
        write_rendered(rendered, &hash, text)
    }
}

fn write_rendered(rendered: &Path, hash: &str, text: &str) -> io::Result<()> {
    write_atomically(&rendered.with_extension("toml"), text.as_bytes())?;
    write_atomically(rendered, format!("{hash}\n").as_bytes())
}

/// Keeps `found` aside, unless the newest kept edit is the same.
fn keep_edit(path: &Path, found: &str) -> io::Result<Option<PathBuf>> {
    if newest_aside(path, "edited").is_some_and(|p| fs::read_to_string(p).is_ok_and(|kept| kept == found)) {
        return Ok(None);
    }
    let aside = aside(path, "edited", EDITED_MAX);
    // A copy by bytes, not a rename: the configuration must exist at every moment.
    fs::copy(path, &aside)?;
    Ok(Some(aside))
}

/// The next free name `PATH.WORD-N`; if more than `max` exist, the oldest is removed.
pub(crate) fn aside(path: &Path, word: &str, max: u32) -> PathBuf {
    let numbers = asides(path, word);
    let next = numbers.last().map_or(1, |n| n + 1);
    if numbers.len() >= max as usize
        && let Some(oldest) = numbers.first()
    {
        drop(fs::remove_file(aside_name(path, word, *oldest)));
    }
    aside_name(path, word, next)
}

fn newest_aside(path: &Path, word: &str) -> Option<PathBuf> {
    asides(path, word).last().map(|n| aside_name(path, word, *n))
}

fn aside_name(path: &Path, word: &str, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{word}-{n}"));
    PathBuf::from(name)
}

fn asides(path: &Path, word: &str) -> Vec<u32> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return Vec::new();
    };
    let prefix = format!("{name}.{word}-");
    let mut numbers: Vec<u32> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix(&prefix)?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}

/// Makes a folder and those above it, 0700 where they are new.
pub(crate) fn make_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Replaces a file in one step, 0600: a reader sees the old or the new, also after a crash.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temporary = PathBuf::from(name);
    drop(fs::remove_file(&temporary));
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&temporary, path)
}

fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().fold(String::with_capacity(64), |mut out, byte| {
        for half in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(half), 16).unwrap_or('0'));
        }
        out
    })
}

/// Removes Codex' log databases; it makes them anew at its next start. Only while no Codex lives: an open one would go on
/// writing into a file without a name. Returns the bytes that were freed.
pub fn remove_logs(codex_home: &Path) -> u64 {
    let mut freed = 0;
    for entry in fs::read_dir(codex_home).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_log = name.starts_with("logs_")
            && [".sqlite", ".sqlite-wal", ".sqlite-shm"].iter().any(|ending| name.ends_with(ending));
        let Ok(data) = entry.metadata() else { continue };
        if is_log && data.is_file() && fs::remove_file(entry.path()).is_ok() {
            freed += data.len();
        }
    }
    freed
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Lab {
        dir: tempfile::TempDir,
    }

    impl Lab {
        fn path(&self) -> PathBuf {
            self.dir.path().join("config.toml")
        }

        fn renew(&self, text: &str) -> Vec<String> {
            let mut notes = Vec::new();
            renew(&self.path(), &self.dir.path().join("rendered"), text, &mut notes).unwrap();
            assert_eq!(fs::read_to_string(self.path()).unwrap(), text);
            notes
        }

        fn edits(&self) -> Vec<u32> {
            asides(&self.path(), "edited")
        }
    }

    #[test]
    fn a_hand_edit_is_kept_and_reported_once() {
        let lab = Lab { dir: tempfile::tempdir().unwrap() };
        assert!(lab.renew("a = 1\n").is_empty());
        assert!(lab.renew("a = 2\n").is_empty(), "our own text is no edit");
        fs::write(lab.path(), "a = 3\n").unwrap();
        assert_eq!(lab.renew("a = 2\n").len(), 1);
        assert_eq!(fs::read_to_string(lab.dir.path().join("config.toml.edited-1")).unwrap(), "a = 3\n");
        fs::write(lab.path(), "a = 3\n").unwrap();
        assert!(lab.renew("a = 2\n").is_empty(), "the same edit again");
        assert_eq!(lab.edits(), [1]);
        for n in 10..30 {
            fs::write(lab.path(), format!("a = {n}\n")).unwrap();
            lab.renew("a = 2\n");
        }
        assert_eq!(lab.edits().len(), EDITED_MAX as usize);
    }

    #[test]
    fn what_is_no_text_or_no_toml_is_kept_too() {
        let lab = Lab { dir: tempfile::tempdir().unwrap() };
        lab.renew("a = 1\n");
        fs::write(lab.path(), b"\xff\xfe").unwrap();
        assert_eq!(lab.renew("a = 1\n").len(), 1);
        assert_eq!(fs::read(lab.dir.path().join("config.toml.edited-1")).unwrap(), b"\xff\xfe");
        fs::write(lab.path(), "= not toml").unwrap();
        assert_eq!(lab.renew("a = 1\n").len(), 1);
    }

    #[test]
    fn what_codex_itself_adds_is_no_edit() {
        let lab = Lab { dir: tempfile::tempdir().unwrap() };
        lab.renew("a = 1\n");
        fs::write(lab.path(), "a = 1\n[projects.\"/x\"]\ntrust_level = \"trusted\"\n").unwrap();
        assert!(lab.renew("a = 1\n").is_empty());
        assert!(lab.edits().is_empty());
        fs::write(lab.path(), "a = 1\n[notice]\nhide = true\n").unwrap();
        assert!(lab.renew("a = 2\n").is_empty(), "also when the rendering changed meanwhile");
    }
}
