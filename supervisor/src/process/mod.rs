//! Starts worker processes, watches them, ends them, and proves that nothing of a dead one is left.
//!
//! ```text
//!   spawn.rs --- child ------.                      .--- exited, in words
//!                             >-- signal.rs: Handle +
//!   adopt.rs --- no child ---'     (a pidfd)        '--- terminate, kill
//!
//!   cgroup.rs  a group of the kernel for each agent, where it can be had
//!   folder.rs  opens what lies in an agent's folder, which another user may own
//!   identity.rs   who a process is: boot, number, start; who holds a lock
//!   sweep.rs   what carries a dead worker's mark is ended, its journal is read
//!   unit.rs    the systemd unit around us: why it stops, and its cgroup
//!   usage.rs   memory and number of processes of each agent
//! ```
//! Promise: a signal goes to a pidfd that was opened while the process was known, so a number that the kernel has
//! given to somebody else is never hit; and nothing is found by its name.

pub mod adopt;
pub mod cgroup;
pub mod exit;
pub mod folder;
pub mod identity;
pub mod signal;
pub mod spawn;
pub mod sweep;
pub mod unit;
pub mod usage;
