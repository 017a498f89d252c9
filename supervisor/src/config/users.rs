//! The user that an agent runs as: who that is, and whether it reaches what it needs.

use super::agents::Base;
use super::model::Agent;
use super::read::Span;
use super::report::{Problem, Sink};
use super::section::Section;
use super::value::echo;
use super::words::Auth;
use protocol::AgentName;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Right to read, in the mode of others.
const READ: u32 = 0o4;
/// Right to write into a folder.
const WRITE: u32 = 0o2;
/// Right to pass through a folder.
const PASS: u32 = 0o1;

/// A user of the host, never root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// As the host knows it.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// The number of its own group; it is in no other.
    pub gid: u32,
    /// Its home by the host's word: what `home = "real"` means.
    pub home: PathBuf,
}

/// The user that the agent's table names, by name or number. `root`: whether we may become somebody else.
pub(super) fn user(section: &Section<'_>, root: bool, sink: &mut Sink) -> Option<User> {
    let found = section.found::<String>("user")?;
    if !root {
        let problem = Problem::error(&found.span, "only a supervisor of root can run an agent as another user");
        let problem = problem.label("cannot be had here");
        sink.push(problem.help("run cofferdam as root (see deploy/install.md), or drop the line"));
        return None;
    }
    let known = match found.value.parse::<u32>() {
        Ok(uid) => nix::unistd::User::from_uid(uid.into()),
        Err(_) => nix::unistd::User::from_name(&found.value),
    };
    let Some(known) = known.ok().flatten() else {
        let problem = Problem::error(&found.span, format!("this host has no user {}", echo(&found.value)));
        sink.push(problem.label("unknown user").help("`useradd --system --user-group NAME` makes one"));
        return None;
    };
    if known.uid.is_root() || known.gid.as_raw() == 0 {
        let problem = Problem::error(&found.span, "an agent cannot run as root").label("has the powers of root");
        sink.push(problem.help("name an ordinary user that nothing else runs as, or drop the line"));
        return None;
    }
    Some(User { name: known.name, uid: known.uid.as_raw(), gid: known.gid.as_raw(), home: known.dir })
}

/// Says so if an agent before this one runs as the same user.
pub(super) fn alone(agent: &Agent, before: &BTreeMap<AgentName, Agent>, span: &Span, sink: &mut Sink) {
    let Some(user) = &agent.user else { return };
    let same = |other: &&Agent| other.user.as_ref().is_some_and(|other| other.uid == user.uid);
    if let Some(other) = before.values().find(same) {
        let message = format!("agents `{}` and `{}` run as one user, {}", other.name, agent.name, user.name);
        let problem = Problem::warning(span, message).label("what is one's is the other's");
        sink.push(problem.help("give each a user of its own"));
    }
}

/// Says what the agent's user cannot reach and needs.
pub(super) fn reach(agent: &Agent, section: &Section<'_>, base: &Base<'_>, sink: &mut Sink) {
    let (Some(user), Some(found)) = (&agent.user, section.found::<String>("user")) else { return };
    let mut say = |what: &str, path: &Path, obstacle: &Path, help: String| {
        let message = format!("user {} cannot {what} {}", user.name, path.display());
        let label = format!("the rights of {} do not allow it", obstacle.display());
        sink.push(Problem::error(&found.span, message).label(label).help(help));
    };
    // The folder itself is opened for it at the start.
    if let Some(above) = base.state_dir.parent()
        && let Some(at) = obstacle(user, above, PASS)
    {
        let help = "set `state_dir` to a place that everybody can pass to, such as /var/lib/cofferdam";
        say("pass to", base.state_dir, &at, help.to_owned());
    }
    if agent.workspace_explicit
        && let Some(at) = obstacle(user, &agent.workspace, READ | WRITE | PASS)
    {
        let path = agent.workspace.display();
        say(
            "use the workspace",
            &agent.workspace,
            &at,
            format!("`chown -R {}: {path}`, or drop `workspace`", user.name),
        );
    }
    let login = base.world.env.shared_login();
    if agent.auth == Auth::Shared
        && let Some(at) = obstacle(user, &login, READ)
    {
        let name = &agent.name;
        say("read the shared login", &login, &at, format!("set `auth = \"own\"` and run `cofferdam login {name}`"));
    }
}

/// What keeps the user from `path`: the first folder on the way that it cannot pass, or the path itself. What does not exist
/// keeps nobody away.
fn obstacle(user: &User, path: &Path, rights: u32) -> Option<PathBuf> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    let way = above.into_iter().map(|dir| (dir, PASS)).chain([(path.as_path(), rights)]);
    way.into_iter().find(|(path, rights)| !may(user, path, *rights)).map(|(path, _)| path.to_owned())
}

fn may(user: &User, path: &Path, rights: u32) -> bool {
    let Ok(data) = fs::metadata(path) else { return true };
    let shift = match (data.uid() == user.uid, data.gid() == user.gid) {
        (true, _) => 6,
        (false, true) => 3,
        (false, false) => 0,
    };
    data.mode() >> shift & rights == rights
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_first_obstacle_on_the_way_is_named() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let file = dir.path().join("a/b");
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(&file, "").unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let user = User { name: "x".into(), uid: u32::MAX - 1, gid: u32::MAX - 1, home: "/".into() };
        mode(dir.path(), 0o700);
        assert_eq!(obstacle(&user, &file, READ).as_deref(), Some(dir.path()));
        mode(dir.path(), 0o711);
        mode(&file, 0o600);
        assert_eq!(obstacle(&user, &file, READ), Some(file.clone()));
        mode(&file, 0o604);
        assert_eq!(obstacle(&user, &file, READ), None);
        assert_eq!(obstacle(&user, &dir.path().join("a/none"), READ), None);
        let owner = User { uid: fs::metadata(&file).unwrap().uid(), ..user };
        mode(&file, 0o044);
        assert_eq!(obstacle(&owner, &file, READ), Some(file));
    }
}
