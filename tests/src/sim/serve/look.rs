//! What a worker sees of its agent: the vitals of Codex, what its processes use, how large its folder is.

use super::{Proc, ToProc};
use crate::sim::codex::Key;
use crate::sim::world::{Event, Mood, World};
use protocol::{AgentName, FromWorker, Incarnation};
use worker::machine::io::{Amount, Input, Load, Sample, Vitals, Written};

/// Bytes of an answer that come in within a millisecond.
const STREAM_BYTES: u64 = 10;
/// What a Codex uses of memory, within its bound.
const MEMORY_BYTES: u64 = 50 << 20;
/// What it uses when it is to be retired, and when it has to go.
const MUCH_BYTES: [u64; 2] = [600 << 20, 2 << 30];

impl Proc {
    /// Keeps the latest progress of an attempt that runs.
    pub(super) fn remember(&mut self, news: &FromWorker) {
        match news {
            FromWorker::Progress(progress) => drop(self.latest.insert(progress.attempt, progress.clone())),
            FromWorker::Finished(end) => drop(self.latest.remove(&end.attempt)),
            _ => {}
        }
    }
}

impl World {
    /// One look at a child: tools that run, bytes that come in, threads that grow.
    pub(super) fn vitals(&self, agent: &AgentName, key: Key, threads: &[String]) -> Vitals {
        let place = &self.places[agent];
        let Some(child) = place.children.get(&key) else { return Vitals::default() };
        let mut vitals = Vitals { stopped: child.hangs, ..Vitals::default() };
        for run in child.runs.values().filter(|run| run.begun) {
            if run.tool {
                let load = Load { processes: 1, ..Load::default() };
                vitals.tools.insert(run.thread.clone(), load);
            }
            if run.streams && self.mood != Mood::Silent {
                vitals.received_bytes += self.tick * STREAM_BYTES;
            }
        }
        for thread in threads {
            let written = Written { bytes: place.disk.size(thread), at_ms: 0 };
            vitals.rollouts.insert(thread.clone(), written);
        }
        vitals
    }

    /// What the processes of an agent use.
    pub(super) fn sample(&mut self, agent: &AgentName, incarnation: Incarnation) -> Sample {
        let own = |key: &&Key| key.0 == incarnation;
        let children: Vec<Key> = self.places[agent].children.keys().filter(own).copied().collect();
        let wild = self.may_harm(agent);
        let mut sample = Sample::default();
        for key in children {
            let mut amount = Amount { rss_bytes: MEMORY_BYTES, processes: 5 };
            if wild && self.dice.one_in(150) {
                self.cover.fault("Codex takes too much memory");
                amount.rss_bytes = *self.dice.pick(&MUCH_BYTES);
            } else if wild && self.dice.one_in(300) {
                self.cover.fault("a fork bomb");
                amount.processes = 5_000;
            }
            sample.children.push((key.1, amount));
        }
        sample
    }

    /// The size of the folder is told after a while.
    pub(super) fn look_at_disk(&mut self, agent: &AgentName, incarnation: Incarnation) {
        let percent = if self.may_harm(agent) { 40 + self.dice.roll(80) } else { 40 };
        let bytes = self.limits.disk_max.expect("a limit of the disk") / 100 * percent;
        let pause = 1 + self.dice.roll(200);
        let told = ToProc::Child(Input::DiskLooked(bytes));
        self.later(pause, Event::Proc(agent.clone(), incarnation, told));
    }

    /// Codex' logs go while no Codex lives.
    pub(super) fn prune_logs(&mut self, agent: &AgentName, incarnation: Incarnation) {
        let lives = self.places[agent].children.iter().find(|(key, child)| key.0 == incarnation && !child.hangs);
        assert!(lives.is_none(), "the logs of {agent} are removed beside {:?}", lives.map(|(key, _)| key));
        self.cover.fault("a folder that is too large");
    }
}
