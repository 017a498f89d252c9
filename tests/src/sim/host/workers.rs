//! Worker processes and the sessions with them, as the supervisor's loop holds them.

use super::{Seen, Word};
use crate::sim::link::Side;
use crate::sim::serve::ToProc;
use crate::sim::setup::configure;
use crate::sim::world::{Event, World};
use protocol::hello::{Accord, Role};
use protocol::{AgentName, Hello, Incarnation, ToWorker};
use supervisor::machine::words::{Input, Linked, Swept};

impl World {
    pub(super) fn spawn(&mut self, agent: AgentName, incarnation: Incarnation) {
        let place = self.places.get_mut(&agent).expect("a place");
        if place.broken {
            return self.tell_host(Input::SpawnFailed(agent, incarnation, "no such program".into()));
        }
        let pause = place.slow_ms + self.dice.roll(10);
        self.later(pause, Event::Born(self.host.life, agent, incarnation));
    }

    /// The worker that was started has said that it listens.
    pub(crate) fn listens(&mut self, life: u64, agent: &AgentName, incarnation: Incarnation) {
        let process = self.places.get_mut(agent).and_then(|place| place.process.as_mut());
        if let Some(process) = process.filter(|process| process.incarnation == incarnation) {
            process.listening = true;
            if life == self.host.life && self.host.machine.is_some() {
                self.dial(agent, incarnation, true);
            }
        }
    }

    /// A worker process that the supervisor has started runs.
    pub(crate) fn host_knows(&mut self, agent: &AgentName, incarnation: Incarnation, pid: u32) {
        self.host.seen.insert(agent.clone(), Seen { incarnation, pid, link: None });
        self.soon(0, Word::Input(Input::Spawned(agent.clone(), incarnation, pid)));
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
            process.pid
        });
        let known = self.host.seen.get(&agent).map(|seen| (seen.incarnation, seen.pid));
        if dialled.0 == 0 {
            let Some(pid) = alive else {
                self.close(id, Side::Host);
                return self.dial_failed(&agent, dialled, "the worker cannot be taken over");
            };
            self.host.seen.insert(agent.clone(), Seen { incarnation, pid, link: None });
        }
        let pid = alive.or(known.map(|(_, pid)| pid)).unwrap_or_default();
        let Some(seen) = self.host.seen.get_mut(&agent).filter(|seen| seen.incarnation == incarnation) else {
            self.close(id, Side::Host);
            return self.give(Input::LinkFailed(agent, incarnation, "another run of the worker answered".into()));
        };
        if let Some(older) = seen.link.replace(id) {
            self.close(older, Side::Host);
        }
        if accord == Accord::Full {
            self.configure(&agent);
        }
        self.give(Input::Linked(agent, Linked { incarnation, pid, accord }));
    }

    pub(super) fn configure(&mut self, agent: &AgentName) {
        if let Some(policy) = self.host.setup.agents.get(agent) {
            let message = ToWorker::Configure(Box::new(configure(policy)));
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
        let Some(process) = self.places[agent].process.as_ref().filter(|process| process.pid == pid) else { return };
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
