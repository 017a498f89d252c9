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

/// The configuration for a command that only needs the folders, perhaps without the agents: while somebody edits the
/// file, the supervisor that runs must still be reached; and to read 50 agents takes as long as the answer.
pub(super) fn load_folders(flag: Option<&Path>, screen: &Screen) -> Result<Config, Failure> {
    let path = path(flag)?;
    let env = Environment::of_process();
    if let Some(loaded) = head_of(&path).and_then(|head| Config::parse(&path, &head, false, &env).ok()) {
        return Ok(loaded.config);
    }
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

/// What stands before the first table: the folders can stand nowhere else. If a list or a text of several lines holds
/// something that looks like a heading, then this is no TOML, and the whole file must be read.
fn head_of(path: &Path) -> Option<String> {
    let source = begin_of(path)?;
    Some(source.split_inclusive('\n').take_while(|line| !line.trim_start().starts_with('[')).collect())
}

fn begin_of(path: &Path) -> Option<String> {
    let mut source = String::new();
    File::open(path).ok()?.take(HEAD_BYTES_MAX).read_to_string(&mut source).ok()?;
    Some(source)
}

/// The lines of a broken file that name the folders.
fn folders_of(path: &Path) -> Option<String> {
    let source = begin_of(path)?;
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

    #[test]
    fn the_folders_are_those_of_the_whole_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        let agent = "[agents.a]\nmodel = \"openai/gpt-5.5\"\n";
        for head in [
            "",
            "state_dir = \"s\"\n",
            "\"runtime_dir\" = \"/r\"\nmax_turns = 3\n",
            "'state_dir'='s'\n log.filter = \"\"\"\ninfo\"\"\"\nruntime_dir = \"r\" # [x]\n",
        ] {
            std::fs::write(&file, format!("{head}{agent}")).unwrap();
            let screen = Screen::plain();
            let (quick, whole) = (load_folders(Some(&file), &screen).unwrap(), load(Some(&file), &screen).unwrap());
            let folders = |config: &Config| (config.state_dir.clone(), config.control_socket());
            assert_eq!(folders(&quick), folders(&whole.config), "{head}");
        }
        std::fs::write(&file, format!("log.filter = \"\"\"\n[info]\"\"\"\nruntime_dir = \"/r\"\n{agent}")).unwrap();
        assert_eq!(load_folders(Some(&file), &Screen::plain()).unwrap().runtime_dir, Path::new("/r"));
    }
}
