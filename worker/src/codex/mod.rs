//! Starts, feeds, contains and ends Codex children.
//!
//! ```text
//!  locate.rs      name or path -> native binary (npm launcher skipped) and its bwrap
//!  cgroup.rs      a group of the kernel for each child, where the supervisor has made one for the agent
//!  namespace.rs   what a child may see: a PID and mount namespace, masked paths
//!  nursery.rs     what children share; which rung of containment this host grants
//!  spawn.rs       the only Command::new
//!  child.rs       one child's life: lines, the ladder of its end, proof that its tree is gone
//!  pipe.rs        stdout as bounded lines, the tail of stderr
//!  rollout.rs     what a turn left in its thread's file
//!  vitals.rs      one look at a child: what its tree has used up, what has come in
//!  connections.rs bytes that came in over the TCP connections of a process
//! ```

pub mod cgroup;
pub mod child;
pub mod connections;
pub mod locate;
pub mod namespace;
pub mod nursery;
pub mod pipe;
pub mod rollout;
pub mod spawn;
pub mod vitals;
