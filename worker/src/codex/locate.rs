//! From the configured name to the program that runs: the native binary behind npm's launcher, and the bwrap beside it.
//!
//! The launcher is a Node script; on a Node without `execve` it stays as a parent of 42 MB that a SIGKILL orphans from
//! Codex. So the native binary is run directly where it can be found, else what was named.

use std::env::consts::ARCH;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A Codex that can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The program.
    pub program: PathBuf,
    /// Sandbox helpers to try, in order: the one of the package, then the system's.
    pub bwraps: Vec<PathBuf>,
}

/// Finds `command`, a name on `path` or a path.
pub fn locate(command: &str, path: &str) -> Option<Located> {
    let named = if command.contains('/') {
        Some(PathBuf::from(command)).filter(|p| is_program(p))
    } else {
        on_path(command, path)
    }?;
    let program = native(&named).unwrap_or(named);
    let real = program.canonicalize().unwrap_or_else(|_| program.clone());
    let beside = real.parent().and_then(Path::parent).map(|dir| dir.join("codex-resources/bwrap"));
    let mut bwraps: Vec<PathBuf> = beside.filter(|p| is_program(p)).into_iter().collect();
    // Some hosts grant user namespaces to their own bwrap alone, by its path.
    bwraps.extend(on_path("bwrap", path));
    bwraps.dedup();
    Some(Located { program, bwraps })
}

fn on_path(name: &str, path: &str) -> Option<PathBuf> {
    path.split(':').filter(|dir| dir.starts_with('/')).map(|dir| Path::new(dir).join(name)).find(|p| is_program(p))
}

/// The native binary behind npm's launcher, if `named` is one.
fn native(named: &Path) -> Option<PathBuf> {
    let real = named.canonicalize().ok()?;
    let package = real.parent()?.parent()?;
    if real.file_name()? != "codex.js" {
        return None;
    }
    let short = if ARCH == "aarch64" { "arm64" } else { "x64" };
    let platform = format!("codex-linux-{short}");
    let places =
        [package.join("node_modules/@openai").join(&platform), package.parent()?.join(&platform), package.to_owned()];
    let triple = format!("{ARCH}-unknown-linux-musl");
    places
        .iter()
        .map(|place| place.join("vendor").join(&triple))
        .flat_map(|vendor| [vendor.join("bin/codex"), vendor.join("codex/codex")])
        .find(|p| is_program(p))
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn program(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn looks_behind_the_launcher_in_each_layout() {
        let short = if ARCH == "aarch64" { "arm64" } else { "x64" };
        let vendor = format!("vendor/{ARCH}-unknown-linux-musl");
        for native in [
            format!("@openai/codex-linux-{short}/{vendor}/bin/codex"),
            format!("@openai/codex/node_modules/@openai/codex-linux-{short}/{vendor}/bin/codex"),
            format!("@openai/codex/{vendor}/codex/codex"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let modules = dir.path().canonicalize().unwrap().join("node_modules");
            program(&modules.join("@openai/codex/bin/codex.js"));
            let bin = modules.join(".bin");
            fs::create_dir_all(&bin).unwrap();
            symlink("../@openai/codex/bin/codex.js", bin.join("codex")).unwrap();
            let path = bin.display().to_string();
            let launcher = locate("codex", &path).unwrap();
            assert!(launcher.program.ends_with(".bin/codex"), "without a native binary the launcher runs");
            program(&modules.join(&native));
            assert_eq!(locate("codex", &path).unwrap().program, modules.join(&native));
        }
    }

    #[test]
    fn finds_a_path_and_the_helper_beside_it_first() {
        let dir = tempfile::tempdir().unwrap();
        let codex = dir.path().join("x/bin/codex");
        assert_eq!(locate(codex.to_str().unwrap(), ""), None);
        program(&codex);
        program(&dir.path().join("x/codex-resources/bwrap"));
        let located = locate(codex.to_str().unwrap(), "relative:").unwrap();
        assert_eq!(located.program, codex);
        assert!(located.bwraps[0].ends_with("x/codex-resources/bwrap"));
        fs::set_permissions(&codex, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(locate(codex.to_str().unwrap(), ""), None);
    }
}
