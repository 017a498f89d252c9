//! How a command ends: its exit code, and the words for standard error.

use crate::control::ClientError;
use protocol::control::{Refused, RefusedKind};
use std::error::Error;
use std::io;
use std::process::ExitCode;

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// The turn or the check failed, or there is no such thing.
    Failed,
    /// The command line is wrong.
    Usage,
    /// No supervisor is running.
    NoSupervisor,
    /// A bug.
    Bug,
    /// Later perhaps.
    Later,
    /// The configuration is wrong.
    Config,
}

impl Exit {
    /// The stable code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 64,
            Self::NoSupervisor => 69,
            Self::Bug => 70,
            Self::Later => 75,
            Self::Config => 78,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An end other than done, with its words. Empty words: everything has been said, or nobody reads.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    pub(super) words: String,
}

impl Failure {
    pub(super) fn new(exit: Exit, words: impl Into<String>) -> Self {
        Self { exit, words: words.into() }
    }

    pub(super) const fn silent(exit: Exit) -> Self {
        Self { exit, words: String::new() }
    }

    /// A failure that an error explains, with all its causes.
    pub(super) fn because(exit: Exit, doing: &str, error: &dyn Error) -> Self {
        Self::new(exit, format!("cannot {doing}: {}", chain(error)))
    }
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words.push_str(": ");
        words.push_str(&cause.to_string());
        source = cause.source();
    }
    words
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        let exit = match refused.kind {
            RefusedKind::Failed => Exit::Failed,
            RefusedKind::Later => Exit::Later,
            RefusedKind::Config => Exit::Config,
        };
        Self::new(exit, refused.why)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match error {
            ClientError::NoSupervisor(_) | ClientError::Left => Exit::NoSupervisor,
            ClientError::Silent(_) => Exit::Later,
            ClientError::Socket(..) | ClientError::Request(_) | ClientError::Frame(_) | ClientError::Reply(_) => {
                Exit::Failed
            }
        };
        Self::new(exit, chain(&error))
    }
}

impl From<io::Error> for Failure {
    /// An error of standard output. A closed pipe is a reader that has had enough.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::silent(Exit::Done)
        } else {
            Self::because(Exit::Failed, "print", &error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_those_that_scripts_know() {
        let all = [Exit::Done, Exit::Failed, Exit::Usage, Exit::NoSupervisor, Exit::Bug, Exit::Later, Exit::Config];
        assert_eq!(all.map(Exit::code), [0, 1, 64, 69, 70, 75, 78]);
    }

    #[test]
    fn nobody_at_the_socket_is_69_and_says_what_to_do() {
        let failure = Failure::from(ClientError::NoSupervisor("/run/x/control.sock".into()));
        assert_eq!(failure.exit, Exit::NoSupervisor);
        assert!(failure.words.contains("/run/x/control.sock") && failure.words.contains("`cofferdam run`"));
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit, failure.words.as_str()), (Exit::Done, ""));
    }
}
