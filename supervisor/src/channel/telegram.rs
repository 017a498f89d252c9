//! Telegram: hears by long polling, speaks by single requests, and decides nothing about turns, queues or retries.
//!
//! ```text
//!   api     one HTTP request: token, limits, deadlines, and an error that says how far it came
//!   decode  getUpdates' answer -> Update values, each update on its own
//!   poll    one task per bot: ask, hand over, wait for the commit, ask with the next offset; typed faults, backoff
//!   send    Request -> SendResult
//!   text    Markdown -> plain text + entities -> messages of at most 4096 UTF-16 units
//! ```
//!
//! The client is our own thin one on reqwest, for the eight or so methods that are used. The crate tgbot (0.48.1) was
//! read for this and fails where it matters here: its errors lose the HTTP status of an answer that is not JSON, it
//! reads answers without a limit, `Payload` cannot be built outside the crate (so there is no `getUpdates` that decodes
//! each update on its own, and one bad number poisons the batch), and it brings a second TLS provider.
//!
//! One HTTP client serves all bots: it speaks HTTP/1.1 only and has no bound on connections, so every request in
//! flight has a connection of its own and no bot waits for another; what is shared is the parsed root certificates.

mod api;
mod decode;
mod fault;
mod poll;
mod send;
#[cfg(test)]
mod stub;
pub mod text;

pub use api::{API_ROOT_DEFAULT, ApiError, Bot, BotError, Http};
pub use fault::{Advice, Pace, PollFault};
pub use poll::{Batch, BotName, Heard, News, poll};
pub use send::{Command, Request, SendResult, perform};
