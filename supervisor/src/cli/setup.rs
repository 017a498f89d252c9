//! Finds and reads the configuration for a command.

use super::exit::{Exit, Failure};
use super::screen::Screen;
use crate::config::{Config, Environment, Loaded, Report, find};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// How much of a broken configuration is searched for the folders, in bytes.
const HEAD_BYTES_MAX: u64 = 1 << 20;

/// Where the configuration is.
pub(super) fn path(flag: Option<&Path>) -> Result<PathBuf, Failure> {
    find(flag, &Environment::of_process(), Path::exists).map_err(|e| Failure::new(Exit::Config, e.to_string()))
}

/// The whole configuration, or everything that is wrong with it.
pub(super) fn load(flag: Option<&Path>, screen: &Screen) -> Result<Loaded, Failure> {
    let path = path(flag)?;
    Config::load(&path, &Environment::of_process()).map_err(|report| broken(&report, screen))
}

/// The failure that a report is.
pub(super) fn broken(report: &Report, screen: &Screen) -> Failure {
    Failure::new(Exit::Config, format!("the configuration is wrong\n{}", report.render(screen.err_colour())))
}

/// The configuration for a command that only needs the folders: while somebody edits the file, the supervisor that
/// runs must still be reached.
pub(super) fn load_folders(flag: Option<&Path>, screen: &Screen) -> Result<Config, Failure> {
    let path = path(flag)?;
    let env = Environment::of_process();
    match Config::load(&path, &env) {
        Ok(loaded) => Ok(loaded.config),
        Err(report) => {
            let salvaged = folders_of(&path).and_then(|source| Config::parse(&path, &source, false, &env).ok());
            let Some(loaded) = salvaged else { return Err(broken(&report, screen)) };
            screen.note("the configuration is wrong (see `cofferdam check`); only its folders are used");
            Ok(loaded.config)
        }
    }
}

/// The lines of a broken file that name the folders.
fn folders_of(path: &Path) -> Option<String> {
    let mut source = String::new();
    File::open(path).ok()?.take(HEAD_BYTES_MAX).read_to_string(&mut source).ok()?;
    let is_folder = |line: &&str| {
        let key = line.split('=').next().unwrap_or("").trim();
        matches!(key, "state_dir" | "runtime_dir")
    };
    let top = source.lines().take_while(|line| !line.trim_start().starts_with('['));
    Some(top.filter(is_folder).fold(String::new(), |text, line| text + line + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_of_a_broken_file_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, "state_dir = \"/s\"\nmodle = [\nruntime_dir= \"/r\"\n[x]\nstate_dir = \"/no\"\n")
            .unwrap();
        assert_eq!(folders_of(&file).as_deref(), Some("state_dir = \"/s\"\nruntime_dir= \"/r\"\n"));
        let screen = Screen::plain();
        let config = load_folders(Some(&file), &screen).unwrap();
        assert_eq!(config.runtime_dir, Path::new("/r"));
        assert_eq!(load(Some(&file), &screen).unwrap_err().exit, Exit::Config);
    }
}
