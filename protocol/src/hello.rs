//! The first frame each way, and the rule of versions.

use crate::ids::{AgentName, Incarnation};
use crate::version::Release;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The supervisor, which dials.
    Supervisor,
    /// A worker, which listens.
    Worker,
}

/// The first frame each way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Who speaks.
    pub role: Role,
    /// The protocol that the speaker's build knows, see [`crate::version`].
    pub protocol: u16,
    /// The agent that is served, or that is looked for.
    pub agent: AgentName,
    /// The worker's run; the supervisor names the one that it expects, or 0 when it has just started.
    pub incarnation: Incarnation,
    /// The speaker's build, for people.
    pub build: String,
    /// What the worker was given at birth, 0 if nothing: proof that it is the one of its record in the ledger. The
    /// supervisor says 0.
    pub nonce: u64,
}

/// What two hellos make possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accord {
    /// Equal protocols: everything may be said.
    Full,
    /// Unequal protocols: only the stable messages; the worker drains and its outcomes are taken.
    DrainOnly,
}

/// Why a hello is refused. The session ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Both ends say that they are the same.
    #[error("the other end says that it is a {0:?} too")]
    SameRole(Role),
    /// The socket belongs to another agent.
    #[error("the other end serves agent {found}, not {wanted}: remove the socket if no worker should own it")]
    OtherAgent {
        /// Whom the other end serves.
        found: AgentName,
        /// Whom it should serve.
        wanted: AgentName,
    },
}

impl Hello {
    /// The hello of this build.
    pub fn new(role: Role, agent: AgentName, incarnation: Incarnation) -> Self {
        let Release { protocol, build } = Release::current().clone();
        Self { role, protocol, agent, incarnation, build, nonce: 0 }
    }

    /// What may be said after `theirs` has answered ours.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn meet(&self, theirs: &Self) -> Result<Accord, Refusal> {
        if self.role == theirs.role {
            return Err(Refusal::SameRole(theirs.role));
        }
        if self.agent != theirs.agent {
            return Err(Refusal::OtherAgent { found: theirs.agent.clone(), wanted: self.agent.clone() });
        }
        Ok(if self.protocol == theirs.protocol { Accord::Full } else { Accord::DrainOnly })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_names_decide() {
        let name = |n| AgentName::parse(n).unwrap();
        let ours = Hello::new(Role::Supervisor, name("a"), Incarnation(0));
        let theirs = Hello::new(Role::Worker, name("a"), Incarnation(4));
        assert_eq!(ours.meet(&theirs), Ok(Accord::Full));
        assert_eq!(ours.meet(&Hello { protocol: 9, ..theirs.clone() }), Ok(Accord::DrainOnly));
        assert!(matches!(ours.meet(&Hello { agent: name("b"), ..theirs }), Err(Refusal::OtherAgent { .. })));
        assert_eq!(ours.meet(&ours.clone()), Err(Refusal::SameRole(Role::Supervisor)));
    }
}
