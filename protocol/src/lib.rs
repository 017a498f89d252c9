//! What the processes of Cofferdam say to each other. No I/O, no clock, no runtime: bytes and values only.
//!
//! ```text
//!  supervisor                                  worker (owns the socket, one agent)
//!      | --- dial ------------------------------> |
//!      | <-- Hello -- incarnation, protocol ----- |   stable.rs: never changes
//!      | --- Hello -----------------------------> |
//!      | --- Configure -------------------------> |   homes are rendered
//!      | <-- Begun | Finished (journal) --------- |   what it missed
//!      | <-- Ready ------------------------------ |
//!      | --- Begin(attempt) --------------------> |   journaled before Codex starts
//!      | <-- Begun, Started, Progress, Delta ---- |   may be dropped under pressure, but never the next
//!      | <-- Finished(outcome) ------------------ |   repeated until it is acknowledged
//!      | --- Ack(attempt) ----------------------> |   sent after the ledger has committed
//! ```
//!
//! * [`frame`] turns bytes into frames: `u32` length, `u16` kind, body.
//! * [`codec`] turns values into bytes; it is the only file that names bincode.
//! * [`stable`] encodes by hand the five messages that every release understands.
//! * [`to_worker`] and [`from_worker`] are the two halves of the conversation, [`control`] is the command line's.
//! * [`envelope`] is the table of an agent's limits and of what holds them.
//! * [`journal`] is the worker's record on disk, readable by either side.
//!
//! Promises: a length is checked before anything is allocated, trailing bytes are refused, an unknown kind is
//! skipped and counted, and nothing that arrives can panic the reader.

pub mod codec;
pub mod control;
pub mod envelope;
pub mod failure;
pub mod frame;
pub mod from_worker;
pub mod guest;
pub mod hello;
pub mod ids;
pub mod journal;
pub mod route;
pub mod stable;
pub mod text;
pub mod to_worker;
pub mod version;

pub use failure::{FailureClass, Fault};
pub use from_worker::FromWorker;
pub use hello::Hello;
pub use ids::{AgentName, AttemptId, Incarnation, TurnId};
pub use route::{Route, Runtime};
pub use stable::{Finished, Outcome};
pub use text::Text;
pub use to_worker::ToWorker;
