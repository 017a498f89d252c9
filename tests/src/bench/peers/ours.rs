//! Cofferdam as one of the contestants: its children are idle workers, and the one that floods is a tool of an agent.

use super::super::ask::{Asker, PATIENCE};
use super::super::clock::until;
use super::super::flood::{TOOL, read_by};
use super::super::table::Samples;
use super::super::{Fault, Plan, host};
use super::lab::{scan, timed};
use super::measure::Contestant;
use crate::world::World;
use protocol::control::Verb;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

/// The agent that floods.
const FLOODER: &str = "flood";
/// It floods once its processes have read so much, in MiB.
const FLOODS_MIB: f64 = 16.0;

/// Samples of `health` as a command, for the remark.
const HEALTH_ROUNDS: usize = 20;

/// A world of its own.
#[derive(Debug)]
pub(super) struct Ours {
    world: World,
    worker: String,
    asker: Asker,
    count: u32,
}

impl Ours {
    pub(super) fn prepare(plan: &Plan, names: &[String]) -> Self {
        let flooder = plan.world().agent(FLOODER, "runtime = \"codex\"\nturn_timeout = \"1h\"");
        let world = names.iter().fold(flooder, |builder, name| builder.agent(name, "")).build();
        let worker = plan.binaries.worker.to_string_lossy().into_owned();
        let asker = Asker::new(world.socket());
        Self { world, worker, asker, count: u32::try_from(names.len()).unwrap_or(u32::MAX) }
    }

    /// All workers of this world, those of the flooder too.
    fn workers(&self, known: &BTreeSet<u32>) -> Vec<(String, u32)> {
        let root = self.world.root().to_string_lossy().into_owned();
        scan(known, |words| {
            let mine = words.first()? == &self.worker && words.iter().any(|word| word.starts_with(&root));
            let agent = words.iter().position(|word| word == "--agent")?;
            mine.then(|| words.get(agent + 1).cloned())?
        })
    }
}

impl Contestant for Ours {
    fn title(&self) -> String {
        format!("cofferdam {}", env!("CARGO_PKG_VERSION"))
    }

    fn start(&mut self) -> Result<(), Fault> {
        self.world.run();
        self.asker.until_ready(self.count + 1)
    }

    fn again(&mut self) -> Result<(), Fault> {
        self.world.run();
        self.asker.until_ready(self.count)
    }

    fn children(&self) -> Vec<(String, u32)> {
        let mut all = self.workers(&BTreeSet::new());
        all.retain(|(name, _)| name != FLOODER);
        all
    }

    fn restarts(&self) -> bool {
        true
    }

    fn is_replaced(&self, name: &str, known: &BTreeSet<u32>) -> bool {
        // A new worker runs, so the death was noticed; and all are ready, so the new one is. The flooder counts.
        self.workers(known).iter().any(|(found, _)| found == name) && self.asker.count("ready") == self.count + 1
    }

    fn status(&self) -> Command {
        self.world.command(&["ps"])
    }

    fn own(&self) -> Vec<u32> {
        let workers = self.workers(&BTreeSet::new()).into_iter().map(|(_, pid)| pid);
        workers.chain([self.world.pid()]).collect()
    }

    fn kill(&mut self) -> Result<(), Fault> {
        self.world.kill_supervisor();
        Ok(())
    }

    fn warm(&mut self) -> Result<(), Fault> {
        self.asker.answer(FLOODER, "c", "warm").map(drop)
    }

    fn flood(&mut self) -> Result<(), Fault> {
        let worker = self.asker.worker(FLOODER)?;
        let before = read_by(worker);
        self.asker.send(FLOODER, "c", TOOL)?;
        let floods = until(PATIENCE, || (read_by(worker) - before >= FLOODS_MIB).then_some(()));
        floods.ok_or_else(|| Fault("the tool does not flood".into()))
    }

    fn calm(&mut self) -> Result<(), Fault> {
        self.asker.change(Verb::Kill, FLOODER)
    }

    fn folder(&self) -> PathBuf {
        self.world.root().to_owned()
    }

    fn remark(&self) -> String {
        let supervisor = host::memory(self.world.pid()).pss;
        let health = (0..HEALTH_ROUNDS).filter_map(|_| timed(self.world.command(&["health"])).ok()).collect();
        let health = Samples::new(health).median();
        format!(
            "cofferdam: children are idle workers, in place when ready; own processes are the supervisor ({supervisor:.1} \
             MiB of that) and every worker; a tool of one more agent floods, the real Codex reads it; status: cofferdam ps \
             (cofferdam health, one: {health:.2} ms)"
        )
    }
}
