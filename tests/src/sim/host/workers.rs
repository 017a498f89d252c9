//! Worker processes and the sessions with them, as the supervisor's loop holds them.

use super::{Seen, Word};
use crate::sim::link::Side;
use crate::sim::serve::ToProc;
use crate::sim::setup::configure;
use crate::sim::world::{Event, World};
use protocol::hello::{Accord, Role};
use protocol::{AgentName, Hello, Incarnation, ToWorker};
use supervisor::machine::nouns::Identity;
use supervisor::machine::words::{Input, Linked, Swept};

impl World {
    pub(super) fn spawn(&mut self, agent: AgentName, incarnation: Incarnation, nonce: u64) {
        let place = self.places.get_mut(&agent).expect("a place");
        if place.broken {
            return self.tell_host(Input::SpawnFailed(agent, incarnation, "no such program".into()));
        }
        let pause = place.slow_ms + self.dice.roll(10);
        self.later(pause, Event::Born(self.host.life, agent, incarnation, nonce));
    }

    /// The worker that was started has said that it listens.
    pub(crate) fn listens(&mut self, life: u64, agent: &AgentName, incarnation: Incarnation) {
        let process = self.places.get_mut(agent).and_then(|place| place.process.as_mut());
        if let Some(process) = process.filter(|process| process.incarnation == incarnation) {
            process.listening = true;
            if life == self.host.life && self.host.machine.is_some() {
                self.dial(agent, incarnation, None);
            }
        }
    }

    /// A worker process that the supervisor has started runs.
    pub(crate) fn host_knows(&mut self, agent: &AgentName, incarnation: Incarnation, identity: Identity) {
        self.host.seen.insert(agent.clone(), Seen { incarnation, pid: identity.pid, link: None });
        self.soon(0, Word::Input(Input::Spawned(agent.clone(), incarnation, identity)));
    }

    /// Whether the process of an agent's worker is known, so that it gets time to listen.
    pub(crate) fn is_known_to_live(&self, agent: &AgentName) -> bool {
        let Some(process) = self.places[agent].process.as_ref() else { return false };
        let held = self.host.seen.get(agent).is_some_and(|seen| seen.pid == process.identity.pid);
        let remembered = self.host.machine.as_ref().and_then(|machine| machine.remembered(agent));
        held || remembered == Some(process.identity)
    }

    /// A dial brought no good hello. If any run would have done, whoever holds the agent is looked for.
    pub(crate) fn undialled(&mut self, agent: &AgentName, dialled: Incarnation, why: &str) {
        let mut incarnation = dialled;
        let life = self.host.life;
        let process = self.places.get_mut(agent).and_then(|place| place.process.as_mut());
        if let Some(process) = process.filter(|_| dialled.0 == 0) {
            process.watched_by = Some(life);
            incarnation = process.incarnation;
            let pid = process.identity.pid;
            self.soon(0, Word::Found(agent.clone(), incarnation, pid));
        }
        self.soon(0, Word::Input(Input::LinkFailed(agent.clone(), incarnation, why.to_owned())));
    }

    /// The process of an old worker is known although it said no good hello.
    pub(super) fn found(&mut self, agent: AgentName, incarnation: Incarnation, pid: u32) {
        self.host.seen.insert(agent.clone(), Seen { incarnation, pid, link: None });
        self.give(Input::Found(agent, incarnation, pid));
    }

    /// The hello of a worker has come.
    pub(crate) fn meet(&mut self, id: u64, hello: &Hello) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.met = true;
        let (agent, dialled, incarnation, first) = (link.agent.clone(), link.dialled, link.incarnation, link.first);
        let ours = Hello { protocol: self.host.protocol, ..Hello::new(Role::Supervisor, agent.clone(), dialled) };
        let accord = ours.meet(hello).expect("a worker of this agent");
        if first && accord == Accord::DrainOnly {
            self.close(id, Side::Host);
            return self.dial_failed(&agent, dialled, "of another release");
        }
        let process = self.places.get_mut(&agent).and_then(|place| place.process.as_mut());
        let alive = process.filter(|process| process.incarnation == incarnation).map(|process| {
            process.watched_by = Some(self.host.life);
            process.identity
        });
        let held = alive.is_some_and(|alive| self.host.seen.get(&agent).is_some_and(|seen| seen.pid == alive.pid));
        let adopted = dialled.0 == 0 && !held;
        if adopted {
            let Some(Identity { pid, .. }) = alive else {
                self.close(id, Side::Host);
                return self.dial_failed(&agent, dialled, "the worker cannot be taken over");
            };
            self.host.seen.insert(agent.clone(), Seen { incarnation, pid, link: None });
        }
        let known = self.host.seen.get(&agent).is_some_and(|seen| seen.incarnation == incarnation);
        let (Some(identity), true) = (alive, known) else {
            self.close(id, Side::Host);
            let why = if known { "the worker ended after its hello" } else { "another run of the worker answered" };
            return self.give(Input::LinkFailed(agent, incarnation, why.into()));
        };
        let Hello { protocol, build, nonce, .. } = hello.clone();
        let newer = protocol != self.host.protocol || build != self.host.build.to_string();
        let machine = self.host.machine.as_ref().expect("a supervisor that hears");
        let outdated = (adopted && newer) || machine.is_outdated(&agent, incarnation);
        let linked = Linked { incarnation, pid: identity.pid, accord, nonce, identity, protocol, build, outdated };
        if machine.knows(&agent, &linked) {
            let older = self.host.seen.get_mut(&agent).and_then(|seen| seen.link.replace(id));
            if let Some(older) = older {
                self.close(older, Side::Host);
            }
        } else {
            self.close(id, Side::Host);
        }
        self.give(Input::Linked(agent, linked));
    }

    /// The ledger is one of a copy: it names another worker than the one that lives.
    pub(super) fn lose_a_record(&mut self) {
        for (agent, record) in &mut self.ledger.workers {
            if self.mood == crate::sim::world::Mood::Wild && self.calm.is_none() && self.dice.one_in(24) {
                record.nonce ^= 1;
                let lives = self.places[agent].process.as_ref().is_some_and(|p| p.incarnation == record.incarnation);
                if lives {
                    self.cover.fault("a worker that no record names");
                }
            }
        }
    }

    pub(super) fn configure(&mut self, agent: &AgentName) {
        if let Some(policy) = self.host.setup.agents.get(agent) {
            let message = ToWorker::Configure(Box::new(configure(policy, self.limits)));
            self.check_listener(agent);
            self.tell(agent, &message);
        }
    }

    pub(super) fn tell(&mut self, agent: &AgentName, message: &ToWorker) {
        if let Some(link) = self.host.seen.get(agent).and_then(|seen| seen.link) {
            self.send(link, Side::Worker, &message.to_frame().expect("a frame"));
        }
    }

    pub(super) fn signal(&mut self, agent: &AgentName, pid: u32, kill: bool) {
        if self.host.seen.get(agent).is_none_or(|seen| seen.pid != pid) {
            return;
        }
        let Some(process) = self.places[agent].process.as_ref().filter(|process| process.identity.pid == pid) else {
            return;
        };
        let incarnation = process.incarnation;
        if kill {
            let pause = self.dice.roll(5);
            self.later(pause, Event::Dies(agent.clone(), pid, "killed by signal 9"));
        } else {
            self.reach(agent, incarnation, ToProc::Terminate);
        }
    }

    /// What a dead worker left is ended, and its journal read; a living one holds the lock.
    pub(super) fn sweep(&mut self, agent: &AgentName, incarnation: Incarnation) {
        let place = self.places.get_mut(agent).expect("a place");
        let held = place.process.is_some();
        let swept = if held {
            Swept { ended: 0, left: 1, journal: None }
        } else {
            let ended = u32::try_from(place.children.len()).expect("few");
            place.children.clear();
            let reading = place.disk.read();
            if reading.open.values().any(|standing| standing.ended.is_some()) {
                self.cover.fault("a journal hands an outcome over");
            }
            Swept { ended, left: 0, journal: Some(reading) }
        };
        self.give(Input::Swept(agent.clone(), incarnation, swept));
    }
}
