//! Talks to the command line: one request a connection, answers until the last one.
//!
//! ```text
//!   cofferdam ps --- client.rs ===== control.sock (0600, in a folder 0700) ===== server.rs --- Asked, Gone ---> daemon
//!                                                                              callers.rs <--- reply() ---------'
//! ```
//! Promises: only our own user and root are heard; a caller that does not read, sends garbage or hangs costs nothing
//! but its own connection; two supervisors never share a socket.

mod callers;
mod client;
mod server;

pub use callers::{Callers, OUT_BYTES_MAX, OUT_REPLIES_MAX};
pub use client::{Client, ClientError};
pub use server::{BindError, CALLERS_MAX, Event, REQUEST_MS, Server};

#[cfg(test)]
mod tests;
