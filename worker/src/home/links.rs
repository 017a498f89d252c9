//! Links into what is the operator's: the shared login, and the shared names of a private HOME.

use protocol::to_worker::Auth;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

/// Makes `auth` what the configuration says: a link, the agent's own file, or nothing. A real login is never removed:
/// it waits beside as `auth.json.own` and comes back with `own`.
pub(super) fn auth(path: &Path, auth: &Auth, notes: &mut Vec<String>) -> io::Result<()> {
    let own = path.with_extension("json.own");
    let found = fs::symlink_metadata(path).ok();
    let is_link = found.as_ref().is_some_and(|m| m.file_type().is_symlink());
    match auth {
        Auth::Own => {
            if is_link {
                fs::remove_file(path)?;
            }
            if (is_link || found.is_none()) && own.exists() {
                fs::rename(&own, path)?;
            }
        }
        Auth::None | Auth::Shared(_) => {
            if found.is_some() && !is_link {
                fs::rename(path, &own)?;
                notes.push(format!("the agent's own login is kept in {}", own.display()));
            }
        }
    }
    match auth {
        Auth::Shared(target) => share_auth(path, Path::new(target), notes),
        Auth::None if is_link => fs::remove_file(path),
        Auth::None | Auth::Own => Ok(()),
    }
}

fn share_auth(path: &Path, target: &Path, notes: &mut Vec<String>) -> io::Result<()> {
    if !target.exists() {
        notes.push(format!("there is no login in {}: run `codex login` or `cofferdam login`", target.display()));
    }
    if fs::read_link(path).is_ok_and(|t| t == target) { Ok(()) } else { link(target, path) }
}

/// A link that replaces whatever link was there, in one step.
fn link(target: &Path, path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temporary = PathBuf::from(name);
    drop(fs::remove_file(&temporary));
    symlink(target, &temporary)?;
    fs::rename(&temporary, path)
}

/// Links every shared name that exists in the real home, and removes links to names that are not shared.
/// A real file is never replaced, and no name leads out of the home.
pub(super) fn share(home: &Path, real_home: &Path, names: &[String], notes: &mut Vec<String>) {
    unshare(home, real_home, names);
    for name in names {
        if let Err(why) = share_one(home, real_home, name) {
            notes.push(format!("cannot share {name:?} with the agent's home: {why}"));
        }
    }
}

fn share_one(home: &Path, real_home: &Path, name: &str) -> Result<(), String> {
    if name.is_empty() || !Path::new(name).components().all(|c| matches!(c, Component::Normal(_))) {
        return Err("it must be a name below the home, without `..`".to_owned());
    }
    let (target, path) = (real_home.join(name), home.join(name));
    if !target.exists() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        // A parent that is itself a link would put the new link into the real home.
        if parent.canonicalize().is_ok_and(|p| !home.canonicalize().is_ok_and(|h| p.starts_with(h))) {
            return Err("the name above it is shared already".to_owned());
        }
        super::make_private_dir(parent).map_err(|e| e.to_string())?;
    }
    match fs::symlink_metadata(&path) {
        Ok(found) if !found.file_type().is_symlink() => Err(format!("{} is a file of the agent's own", path.display())),
        Ok(_) if fs::read_link(&path).is_ok_and(|t| t == target) => Ok(()),
        Ok(_) | Err(_) => link(&target, &path).map_err(|e| e.to_string()),
    }
}

/// Removes links at the top of `home` and one folder below that point into the real home and are shared no more.
fn unshare(home: &Path, real_home: &Path, names: &[String]) {
    let below = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect::<Vec<_>>();
    for path in below(home) {
        let mut candidates = vec![path.clone()];
        if fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir()) {
            candidates.extend(below(&path));
        }
        for path in candidates {
            let Ok(name) = path.strip_prefix(home) else { continue };
            let ours = fs::read_link(&path).is_ok_and(|target| target == real_home.join(name));
            if ours && !names.iter().any(|n| Path::new(n) == name) {
                drop(fs::remove_file(&path));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_linked_and_an_own_one_is_kept_aside_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        let shared = dir.path().join("real.json");
        let mut notes = Vec::new();
        fs::write(&path, "own").unwrap();
        auth(&path, &Auth::Shared(shared.display().to_string()), &mut notes).unwrap();
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[1].contains("cofferdam login"));
        fs::write(&shared, "shared").unwrap();
        notes.clear();
        auth(&path, &Auth::Shared(shared.display().to_string()), &mut notes).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), notes.len()), ("shared", 0));
        auth(&path, &Auth::Own, &mut notes).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "own");
        auth(&path, &Auth::None, &mut notes).unwrap();
        assert!(fs::symlink_metadata(&path).is_err());
        assert_eq!(fs::read_to_string(&shared).unwrap(), "shared");
    }

    #[test]
    fn shares_names_that_exist_and_never_leaves_the_home() {
        let dir = tempfile::tempdir().unwrap();
        let (home, real) = (dir.path().join("home"), dir.path().join("real"));
        fs::create_dir_all(real.join(".config/gh")).unwrap();
        fs::create_dir_all(&home).unwrap();
        fs::write(real.join(".gitconfig"), "g").unwrap();
        fs::write(home.join("mine"), "m").unwrap();
        fs::write(real.join("mine"), "theirs").unwrap();
        let names: Vec<String> =
            [".gitconfig", ".config/gh", "absent", "../evil", "/etc", "mine"].map(str::to_owned).to_vec();
        let mut notes = Vec::new();
        share(&home, &real, &names, &mut notes);
        assert_eq!(notes.len(), 3, "{notes:?}");
        assert_eq!(fs::read_to_string(home.join(".gitconfig")).unwrap(), "g");
        assert_eq!(fs::read_link(home.join(".config/gh")).unwrap(), real.join(".config/gh"));
        assert_eq!(fs::read_to_string(home.join("mine")).unwrap(), "m");
        share(&home, &real, &[], &mut notes);
        assert!(fs::symlink_metadata(home.join(".gitconfig")).is_err());
        assert!(fs::symlink_metadata(home.join(".config/gh")).is_err());
        assert!(real.join(".config/gh").exists() && home.join("mine").exists());
    }
}
