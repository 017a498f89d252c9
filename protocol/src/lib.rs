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

//!
//! Promises: a length is checked before anything is allocated, trailing bytes are refused, an unknown kind is
//! skipped and counted, and nothing that arrives can panic the reader.

pub mod codec;
pub mod frame;
pub mod ids;
pub mod route;
pub mod text;
pub mod version;

pub use ids::{AgentName, AttemptId, Incarnation, TurnId};
pub use route::{Route, Runtime};
pub use text::Text;
