//! Talks to workers: one session a worker, bounded both ways.
//!
//! ```text
//!   dial.rs     socket -> peer's uid and pid -> Hello both ways -> accord
//!      v
//!   session.rs  tell() --> queue (1,024 frames, 8 MiB) --> socket      full: the session ends, nobody waits
//!               socket --> gate.rs: 8 news of a session at once --> the daemon's channel
//!                             |  progress and deltas are joined or dropped while the gate is shut
//!                             `- everything else waits, and with it the reading of this worker alone
//! ```
//! Promise: whatever a worker sends, or does not read, costs its own session at most.

mod dial;
mod gate;
mod session;
mod write;

pub use dial::{DialError, Dialled, HELLO_MS, Target, Undialled, dial};
pub use gate::{COST_PER_WINDOW_MAX, NEWS_AT_ONCE_MAX, WINDOW_MS};
pub use session::{FRAME_REST_MS, Happened, News, OUT_BYTES_MAX, OUT_FRAMES_MAX, Session, TellError};

#[cfg(test)]
mod tests;
