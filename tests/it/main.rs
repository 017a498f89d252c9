//! Tests of the whole: real processes, the real Codex, the outside world played by the stand-ins.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what fails in a test fails the test, helpers included")]

mod bot_api;
mod both;
mod chaos;
mod config;
mod control;
mod crash;
mod drill;
mod failure;
mod isolation;
mod message;
mod outlive;
mod readme;
mod scenes;
mod sim;
mod standin;
mod telegram;
mod tidy;
mod wire;

/// What is tested: the binaries of this package, which call the same main functions as the shipped ones.
pub(crate) fn binaries() -> cofferdam_tests::world::Binaries {
    cofferdam_tests::world::Binaries {
        supervisor: env!("CARGO_BIN_EXE_supervisor-under-test").into(),
        worker: env!("CARGO_BIN_EXE_worker-under-test").into(),
    }
}
