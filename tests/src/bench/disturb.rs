//! What thirteen agents feel while three others misbehave, as a ratio to the same thirteen undisturbed.
//!
//! ```text
//!   a0 .. a12    a short turn every 2 s each, in both phases: measured
//!   a13          compacts for ever          proof: the model holds its request for a summary all the time
//!   a14          floods 100 MB per tool     proof: bytes that its processes have read
//!   a15          its worker is stopped      proof: the kernel's state letter T
//! ```

use super::ask::{Asker, PATIENCE};
use super::clock::{ms, now, pause, until};
use super::flood::{TOOL, read_by};
use super::table::{Budget, Samples, Table};
use super::{Fault, Plan, agent, agents, control, host, started};
use crate::processes;
use crate::standin::model::{Fate, Kind};
use crate::world::World;
use nix::sys::signal::Signal;
use std::time::Duration;

/// Agents that are measured.
const OTHERS: usize = 13;
/// Agents in the world.
const ALL: usize = 16;
/// Each agent begins a turn that often: together a third of two cores.
const PERIOD: Duration = Duration::from_secs(2);
/// Turns of each agent in a phase.
const TURNS: usize = 30;
/// Rounds of each of the 64 callers in a phase.
const HEALTH_ROUNDS: usize = 50;

/// Both phases and their ratio.
pub(super) fn disturb(plan: &Plan, table: &mut Table) -> Result<(), Fault> {
    let lines = "runtime = \"codex\"\nidle_after = \"1h\"\nturn_timeout = \"1h\"\nsilence_timeout = \"1h\"\ncompaction_timeout = \"1h\"\nheartbeat_timeout = \"1h\"";
    let builder = agents(plan.world(), OTHERS, lines)
        .agent(&agent(13), &format!("{lines}\n[agents.a13.codex]\nmodel_auto_compact_token_limit = 20000"))
        .agent(&agent(14), lines)
        .agent(&agent(15), lines);
    let (world, asker) = started(builder, 16)?;
    for index in 0..ALL {
        asker.answer(&agent(index), "c", "warm")?;
    }
    Table::heading("16 agents, a short turn each every 2 s; then 3 misbehave");
    let turns = plan.rounds(TURNS);
    let quiet = phase(&asker, ALL, turns)?;
    Table::row("quiet: turns of the 13, ms", &quiet);
    let quiet_health = control::callers(&world.socket(), plan.rounds(HEALTH_ROUNDS))?;
    Table::row("quiet: health, 64 callers, ms", &quiet_health);
    let harm = Harm::begin(&world, &asker)?;
    let loud = phase(&asker, OTHERS, turns)?;
    Table::row("disturbed: turns of the 13, ms", &loud);
    let loud_health = control::callers(&world.socket(), plan.rounds(HEALTH_ROUNDS))?;
    table.judged("disturbed: health, 64 callers, ms", &loud_health, Budget::P99(5.0));
    harm.proven(&world)?;
    let median = Samples::one(loud.median() / quiet.median());
    let tail = Samples::one(loud.percentile(99) / quiet.percentile(99));
    if host::enforces_cpu_weight() {
        table.judged("ratio of the medians", &median, Budget::Max(1.1));
        table.judged("ratio of the p99", &tail, Budget::Max(1.5));
    } else {
        Table::row("ratio of the medians (cpu.weight off: no budget)", &median);
        Table::row("ratio of the p99 (cpu.weight off: no budget)", &tail);
    }
    Ok(())
}

/// The latencies of the measured agents while the first `answering` of all answer.
fn phase(asker: &Asker, answering: usize, turns: usize) -> Result<Samples, Fault> {
    let begin = now();
    let one = |index: usize| -> Result<Vec<f64>, Fault> {
        let share = u32::try_from(index).unwrap_or(0);
        let mut due = PERIOD / u32::try_from(ALL).unwrap_or(1) * share;
        let mut all = Vec::with_capacity(turns);
        for _ in 0..turns {
            pause(due.saturating_sub(begin.elapsed()));
            all.push(ms(asker.answer(&agent(index), "c", "hello")?.took));
            due += PERIOD;
        }
        Ok(all)
    };
    let mut measured = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..answering).map(|index| scope.spawn(move || one(index))).collect();
        for (index, thread) in threads.into_iter().enumerate() {
            let all = thread.join().map_err(|_| Fault("an agent's thread panicked".into()))??;
            if index < OTHERS {
                measured.extend(all);
            }
        }
        Ok::<(), Fault>(())
    })?;
    Ok(Samples::new(measured))
}

/// The three that misbehave.
struct Harm {
    compaction: u64,
    flooding: u32,
    read_before: f64,
    stopped: u32,
}

impl Harm {
    fn begin(world: &World, asker: &Asker) -> Result<Self, Fault> {
        asker.answer(&agent(13), "c", "[[tokens 50000]] [[compact-hang]] full")?;
        asker.send(&agent(13), "c", "and now")?;
        let pending = until(PATIENCE, || compaction(world));
        let compaction = pending.ok_or_else(|| Fault("no compaction began".into()))?;
        let flooding = asker.worker(&agent(14))?;
        let read_before = read_by(flooding);
        asker.send(&agent(14), "c", TOOL)?;
        asker.send(&agent(15), "c", "[[hang]]")?;
        let hanging = until(PATIENCE, || (world.model.count_prompt("[[hang]]") > 0).then_some(()));
        hanging.ok_or_else(|| Fault("the turn to be stopped did not begin".into()))?;
        let stopped = asker.worker(&agent(15))?;
        processes::signal(stopped, Signal::SIGSTOP);
        Ok(Self { compaction, flooding, read_before, stopped })
    }

    /// Says what was seen, and fails if it was no harm.
    fn proven(&self, world: &World) -> Result<(), Fault> {
        let pending = compaction(world) == Some(self.compaction);
        let read = read_by(self.flooding) - self.read_before;
        let state = processes::state(self.stopped);
        Table::note(&format!("a13: the same request for a summary is open from begin to end: {pending}"));
        Table::note(&format!("a14: its processes read {read:.0} MiB"));
        Table::note(&format!("a15: its worker is in state {}", state.unwrap_or('?')));
        let harmed = pending && read >= 100.0 && state == Some('T');
        if harmed { Ok(()) } else { Err(Fault("the disturbance was none".into())) }
    }
}

/// The number of an open request for a summary.
fn compaction(world: &World) -> Option<u64> {
    let all = world.model.requests();
    all.iter().find(|request| request.kind == Kind::Compaction && request.fate == Fate::Open).map(|request| request.seq)
}
