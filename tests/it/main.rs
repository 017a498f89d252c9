//! Tests of the whole: real processes, the real Codex, the outside world played by the stand-ins.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what fails in a test fails the test, helpers included")]

mod both;
mod failure;
mod message;
mod readme;
mod standin;
mod telegram;
mod tidy;
mod wire;

use cofferdam_tests::world::Binaries;

/// The binaries of this build: the shipped main functions.
fn binaries() -> Binaries {
    Binaries {
        supervisor: env!("CARGO_BIN_EXE_supervisor-under-test").into(),
        worker: env!("CARGO_BIN_EXE_worker-under-test").into(),
    }
}
