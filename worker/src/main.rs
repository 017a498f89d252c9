//! The worker's binary: everything is in the library, so that the tests crate can build the same program.

use std::process::ExitCode;

fn main() -> ExitCode {
    worker::main(protocol::version::Release::of_source())
}
