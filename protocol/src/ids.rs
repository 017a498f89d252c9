//! Names and numbers that travel: a newtype each, checked once where they enter.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest agent name, in bytes: the name is part of a socket path, which may hold 107 bytes in all on Linux.
pub const AGENT_NAME_BYTES_MAX: usize = 32;

/// The name of an agent: `[a-z][a-z0-9_-]{0,31}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct AgentName(String);

/// Why a text is no agent name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an agent name is a small letter and then at most 31 of a-z, 0-9, _ and -")]
pub struct BadAgentName;

impl AgentName {
    /// Checks `text` against the rule of the type.
    pub fn parse(text: &str) -> Result<Self, BadAgentName> {
        let mut bytes = text.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase());
        let rest = bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        if first && rest && text.len() <= AGENT_NAME_BYTES_MAX { Ok(Self(text.to_owned())) } else { Err(BadAgentName) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for AgentName {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// One prompt and its answer, as the ledger numbers it.
    TurnId
}
number! {
    /// One try of a turn on one route. Never used twice in a ledger, so it names an outcome for ever.
    AttemptId
}
number! {
    /// One run of a worker process. Later runs have larger numbers.
    Incarnation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "research", "a-b_9", &"x".repeat(32)] {
            assert_eq!(AgentName::parse(good).map(|n| n.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "A", "9a", "-a", "a.b", "a/b", "ä", &"x".repeat(33)] {
            assert_eq!(AgentName::parse(bad), Err(BadAgentName), "{bad:?}");
        }
    }
}
