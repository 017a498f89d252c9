//! Finds the real Codex for tests and benchmarks. A missing Codex fails: a suite that skips it proves nothing.

use std::env;
use std::path::{Path, PathBuf};

/// Names a Codex binary or its npm launcher, and wins over every other place.
pub const CODEX_VARIABLE: &str = "COFFERDAM_TEST_CODEX";

/// The Codex that tests run: `$COFFERDAM_TEST_CODEX`, else `codex` on `PATH`, else the one that `tests/run.sh` installs below
/// `target/codex`.
///
/// # Panics
/// If there is none, with the places searched and the remedy.
pub fn codex_binary() -> PathBuf {
    let installed = workspace_root().join("target/codex/node_modules/.bin/codex");
    let mut searched = Vec::new();
    match find(env::var_os(CODEX_VARIABLE).as_deref(), env::var_os("PATH").as_deref(), &installed, &mut searched) {
        Some(found) => found,
        None => missing(&searched),
    }
}

/// The native program behind [`codex_binary`]: what a test must run that ends Codex by its pid, for npm's launcher is another
/// process, and a kill of it leaves Codex behind.
///
/// # Panics
/// As [`codex_binary`] does.
pub fn native_codex() -> PathBuf {
    let named = codex_binary();
    worker::codex::locate::locate(&named.to_string_lossy(), "").map_or(named, |located| located.program)
}

/// The folder that holds the workspace's `Cargo.toml`.
pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

fn find(
    named: Option<&std::ffi::OsStr>,
    path: Option<&std::ffi::OsStr>,
    installed: &Path,
    searched: &mut Vec<String>,
) -> Option<PathBuf> {
    if let Some(named) = named {
        // Whoever names one wants that one: falling through to another would test the wrong Codex.
        searched.push(format!("${CODEX_VARIABLE} = {}", Path::new(named).display()));
        return is_executable(Path::new(named)).then(|| PathBuf::from(named));
    }
    searched.push("codex on PATH".to_owned());
    let on_path =
        path.and_then(|path| env::split_paths(path).map(|dir| dir.join("codex")).find(|at| is_executable(at)));
    searched.push(installed.display().to_string());
    on_path.or_else(|| is_executable(installed).then(|| installed.to_path_buf()))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[expect(clippy::panic, reason = "a suite without Codex must fail, not skip")]
fn missing(searched: &[String]) -> ! {
    panic!(
        "no Codex to test with; searched: {}.\nRun tests/run.sh, which installs the pinned release below target/codex, or set {CODEX_VARIABLE} to a codex binary",
        searched.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_codex_wins_and_a_wrong_name_is_not_papered_over() {
        let mut searched = Vec::new();
        let found = find(Some("/bin/sh".as_ref()), Some("/nowhere".as_ref()), Path::new("/nope"), &mut searched);
        assert_eq!(found, Some(PathBuf::from("/bin/sh")));
        let lost = find(Some("/nope/codex".as_ref()), None, Path::new("/bin/sh"), &mut searched);
        assert_eq!(lost, None);
        assert!(searched.last().unwrap().contains("/nope/codex"), "{searched:?}");
    }

    #[test]
    fn the_installed_one_is_the_last_resort() {
        let mut searched = Vec::new();
        let found = find(None, Some("/nowhere".as_ref()), Path::new("/bin/sh"), &mut searched);
        assert_eq!(found, Some(PathBuf::from("/bin/sh")));
        assert_eq!(searched.len(), 2);
    }
}
