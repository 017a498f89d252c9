//! How a process ended, in words for people.

use nix::sys::signal::Signal;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Words for a worker's exit: `exit code 75 (another worker holds the agent's lock)`.
pub fn words(status: ExitStatus) -> String {
    let plain = plain_words(status);
    status.code().map(meaning).map_or_else(|| plain.clone(), |meaning| format!("{plain} ({meaning})"))
}

/// Words for the exit of any program: `exit code 1`, `killed by signal 9 (SIGKILL)`.
pub fn plain_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => match Signal::try_from(signal) {
            Ok(name) => format!("killed by signal {signal} ({})", name.as_str()),
            Err(_) => format!("killed by signal {signal}"),
        },
        (None, None) => "unknown".to_owned(),
    }
}

/// What a worker means by its exit code.
const fn meaning(code: i32) -> &'static str {
    match code {
        0 => "it left",
        64 => "it was started with arguments that it does not know",
        70 | 101 => "a bug: see log/worker.stderr in the agent's folder",
        74 => "its own folder, journal or socket cannot be used: see log/worker.stderr in the agent's folder",
        75 => "another worker holds the agent's lock",
        // None of ours: what it wrote is all that there is.
        _ => "see log/worker.stderr in the agent's folder",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_codes_and_signals() {
        let tell = |raw| words(ExitStatus::from_raw(raw));
        assert_eq!(tell(0), "exit code 0 (it left)");
        assert_eq!(tell(75 << 8), "exit code 75 (another worker holds the agent's lock)");
        assert_eq!(tell(3 << 8), "exit code 3 (see log/worker.stderr in the agent's folder)");
        assert_eq!(tell(9), "killed by signal 9 (SIGKILL)");
        assert_eq!(tell(11), "killed by signal 11 (SIGSEGV)");
        assert_eq!(tell(40), "killed by signal 40");
    }
}
