//! The supervisor's binary: everything is in the library, so that the tests crate can build the same program.

fn main() -> std::process::ExitCode {
    supervisor::main(protocol::version::Release::of_source())
}
