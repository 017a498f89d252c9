//! How a worker comes into the ledger, and how the one that answers is known to be it.
//!
//! ```text
//!   Incarnation, Worker(nonce) --> Spawn --> Spawned: Worker(process) --> Linked: nonce? process? --> Worker(protocol)
//!          commit                                commit                        |                         commit
//!                                                                              | no                        v
//!                                                                              v                       Configure
//!                                                                 ended with its tree, replaced            v
//!                                                                                                        Ready
//! ```
//! A supervisor may die at any arrow: the next one finds the intent, and by it whoever came of it. A worker that no
//! record names (of another ledger, of a ledger that was restored from a copy) is not talked to: its attempts bear the
//! numbers of others.

use super::Machine;
use super::nouns::{Identity, Now, Record, WorkerRecord};
use super::words::{Effect, Linked};
use protocol::hello::Accord;
use protocol::{AgentName, Incarnation};

impl Machine {
    /// The intent to start a worker, then the start.
    pub(super) fn intend(&mut self, now: Now, name: &AgentName, incarnation: Incarnation, effects: &mut Vec<Effect>) {
        // Fits into SQLite's numbers, and is never 0.
        let nonce = (self.random() >> 1).max(1);
        let record = WorkerRecord { incarnation, nonce, identity: None, release: None };
        effects.push(Effect::Record(Record::Incarnation(name.clone(), incarnation, now.wall)));
        effects.push(Effect::Record(Record::Worker(name.clone(), Box::new(record.clone()), now.wall)));
        effects.push(Effect::Spawn(name.clone(), incarnation, nonce));
        if let Some(agent) = self.agents.get_mut(name) {
            agent.known = Some(record);
            agent.outdated = false;
        }
    }

    /// Its process runs.
    pub(super) fn born(
        &mut self,
        now: Now,
        name: &AgentName,
        incarnation: Incarnation,
        identity: Identity,
        effects: &mut Vec<Effect>,
    ) {
        let Some(agent) = self.agents.get_mut(name) else { return };
        let Some(known) = agent.known.as_mut().filter(|known| known.incarnation == incarnation) else { return };
        known.identity = Some(identity);
        effects.push(Effect::Record(Record::Worker(name.clone(), Box::new(known.clone()), now.wall)));
    }

    /// Whether the one that answers is the one of the record. The daemon asks before it listens to it.
    pub fn knows(&self, name: &AgentName, linked: &Linked) -> bool {
        let known = self.agents.get(name).and_then(|agent| agent.known.as_ref());
        known.is_some_and(|known| {
            known.incarnation == linked.incarnation
                && known.nonce == linked.nonce
                && known.identity.is_none_or(|process| process == linked.identity)
        })
    }

    /// Whether this run was found to be of an earlier build before.
    pub fn is_outdated(&self, name: &AgentName, incarnation: Incarnation) -> bool {
        self.agents.get(name).is_some_and(|agent| agent.outdated && agent.life.is_present(incarnation))
    }

    /// The process that the record names, for one that does not answer.
    pub fn remembered(&self, name: &AgentName) -> Option<Identity> {
        self.agents.get(name)?.known.as_ref()?.identity
    }

    /// The one of the record answers: what is new of it is written down, and then it may hear how its agent is served.
    pub(super) fn met(&mut self, now: Now, name: &AgentName, linked: &Linked, effects: &mut Vec<Effect>) {
        let Some(agent) = self.agents.get_mut(name) else { return };
        agent.outdated = linked.outdated;
        if let Some(known) = &mut agent.known {
            let before = known.clone();
            known.identity = Some(linked.identity);
            known.release = Some((linked.protocol, linked.build.clone()));
            if *known != before {
                effects.push(Effect::Record(Record::Worker(name.clone(), Box::new(known.clone()), now.wall)));
            }
        }
        if linked.accord == Accord::Full {
            effects.push(Effect::Configure(name.clone()));
        }
    }
}
