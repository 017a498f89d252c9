//! Stand-ins for the two services of the outside world: a model behind Codex, and Telegram.
//!
//! Each is a real HTTP server on 127.0.0.1 with a thread and a runtime of its own, so a test may block as it likes, and
//! dropping it ends every open connection, as an outage does.
//!
//! ```text
//!   test --- Rust API ----+                                  person: cofferdam-standin say | read, curl
//!                         v                                           |
//!   +---------------------+--------------------+                      | /_standin/...  (the side door)
//!   | board: one state behind one lock,        | <--------------------+
//!   | and a bell that rings at each change     |
//!   +------------^-----------------^-----------+
//!     /v1/...    |                 |   /bot<TOKEN>/METHOD
//!              Codex           cofferdam
//! ```
//!
//! Tests wait for the bell, never for a time: `hold` markers and faults keep a request open until the test releases it.

mod board;
pub mod client;
pub mod model;
mod serve;
pub mod telegram;
