//! One process, always up, knows nothing of Codex.
//!
//! ```text
//!   cli        the command line; `run` starts the daemon, the rest asks one
//!   config     TOML text to a Config that cannot be invalid
//!   daemon     the composition root and the only loop
//!   machine    decides; pure
//!   channel    hears and speaks Telegram
//!   store      remembers: the ledger
//!   process    starts, signals, watches and sweeps processes
//!   link       talks to workers
//!   control    talks to the command line
//!   clock      the only reader of time            notify   tells systemd how we are
//! ```

pub mod channel;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod daemon;
pub mod link;
pub mod machine;
pub mod notify;
pub mod process;
pub mod store;

use protocol::version::Release;
use std::process::ExitCode;

/// The program: reads the command line and does what it says.
pub fn main(release: Release) -> ExitCode {
    release.begin();
    cli::main(daemon::run)
}
