//! Tests of the whole: real processes, the real Codex, the outside world played by the stand-ins.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what fails in a test fails the test, helpers included")]

mod standin;
mod tidy;
mod wire;
