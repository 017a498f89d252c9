//! Who a worker process is, as the ledger remembers it.
//!
//! ```text
//!   intent: run, nonce --commit--> spawn --> process: boot, pid, pidfd inode, start --commit--> hello: nonce, protocol
//! ```
//! A number alone proves nothing: the kernel gives it again. A number with its start time, within one boot of the host,
//! names one process for ever.

use protocol::Incarnation;

/// One process of one boot of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The host's boot id.
    pub boot: u128,
    /// Its number.
    pub pid: u32,
    /// Inode of its pidfd; the same for all processes where the kernel is older than 6.9.
    pub inode: u64,
    /// When it started, in clock ticks since that boot.
    pub started: u64,
}

/// What the ledger knows of an agent's latest worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerRecord {
    /// Its run.
    pub incarnation: Incarnation,
    /// What it was given at birth and says in its hello. Never 0.
    pub nonce: u64,
    /// Its process, once there was one.
    pub identity: Option<Identity>,
    /// Protocol and build of its hello, once it said one.
    pub release: Option<(u16, String)>,
}
