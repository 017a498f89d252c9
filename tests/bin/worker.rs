//! The worker as tests run it: the same main function as the shipped binary, and another release where a test wants one.

fn main() -> std::process::ExitCode {
    worker::main(cofferdam_tests::release::wanted())
}
