//! The worker as tests run it: the same main function as the shipped binary.

fn main() -> std::process::ExitCode {
    worker::main()
}
