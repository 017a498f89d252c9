//! Becomes the user of its agent, for good.
//!
//! ```text
//!  root: session, oom score, cgroup  ->  no groups, gid, uid  ->  lock, log, socket, homes, Codex: all as that user
//! ```
//! Before it nothing in the agent's folder is touched: that folder is the user's, who could lead root elsewhere by a link.

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid, setuid};
use rustix::process::DumpableBehavior;
use std::io;

/// Gives up root. Afterwards this process and all that it starts are `uid` and `gid`, without further groups.
///
/// # Errors
/// When the kernel refuses, or root could be had again. The process must end then.
pub fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[])?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)?;
    if user.is_root() || setuid(Uid::from_raw(0)).is_ok() {
        return Err(io::Error::other("root was not given up"));
    }
    // The change of user made /proc/self root's, and the scores of Codex children are written there.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    Ok(())
}
