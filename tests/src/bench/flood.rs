//! What the supervisor holds while one agent says more than anybody can read.

use super::ask::Asker;
use super::clock::{now, pause};
use super::table::{Budget, Samples, Table};
use super::{Fault, Plan, host, started};
use crate::world::World;
use protocol::control::Verb;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long each flood runs.
const FLOOD: Duration = Duration::from_secs(20);
/// Between two looks at the supervisor's memory.
const LOOK: Duration = Duration::from_millis(100);
/// A tool that prints 100 MB, again and again.
pub(super) const TOOL: &str = "[[loop head -c 100000000 /dev/zero | tr '\\0' x]]";
/// An answer without end, for as long as is looked: pieces of 16 KiB as fast as Codex takes them.
const ENDLESS: &str = "[[big 100M]] flood";
/// An answer of 8 MiB, half of the largest that is kept.
const LONG: &str = "[[big 8M]] flood";

/// A tool's output without end, an answer without end, then long answers that end.
pub(super) fn flood(plan: &Plan, table: &mut Table) -> Result<(), Fault> {
    let lines = "runtime = \"codex\"\nturn_timeout = \"1h\"";
    let builder = plan.world().agent("tool", lines).agent("endless", lines).agent("long", lines);
    let (world, asker) = started(builder, 3)?;
    Table::heading("one agent floods");
    for agent in ["tool", "endless", "long"] {
        asker.answer(agent, "c", "warm")?;
    }
    let time = if plan.quick { FLOOD / 4 } else { FLOOD };
    for (agent, text, what) in [("tool", TOOL, "a tool's output"), ("endless", ENDLESS, "an answer")] {
        let worker = asker.worker(agent)?;
        let turn = asker.send(agent, "c", text)?;
        let (grown, read) = watched(&world, worker, time);
        let still = asker.story(turn).is_some_and(|story| story.row.ended_at.is_none());
        let what = format!("supervisor while {what} floods: growth of PSS, MiB");
        table.judged(&what, &Samples::one(grown), Budget::Max(4.0));
        Table::note(&format!("{read:.0} MiB were read by that agent's processes; the turn runs on: {still}"));
        asker.change(Verb::Kill, agent)?;
    }
    let worker = asker.worker("long")?;
    let before = host::memory(world.pid()).pss;
    let done = AtomicBool::new(false);
    let (grown, read, turns) = std::thread::scope(|scope| {
        let words = scope.spawn(|| words(&asker, &done));
        let (grown, read) = watched(&world, worker, time);
        done.store(true, Ordering::Relaxed);
        (grown, read, words.join())
    });
    let turns = turns.map_err(|_| Fault("the words panicked".into()))??;
    Table::row("supervisor while answers of 8 MiB end: growth of PSS, MiB", &Samples::one(grown));
    let kept = host::memory(world.pid()).pss - before;
    Table::row("  and when they have ended, MiB", &Samples::one(kept));
    Table::note(&format!("{read:.0} MiB were read by that agent's processes in {turns} answers"));
    Ok(())
}

fn words(asker: &Asker, done: &AtomicBool) -> Result<u32, Fault> {
    let mut turns = 0;
    while !done.load(Ordering::Relaxed) {
        // A conversation of its own: a thread would send all its answers back to the model.
        asker.answer("long", &format!("c{turns}"), LONG)?;
        turns += 1;
    }
    Ok(turns)
}

/// How much the supervisor grew at the most, and how much the processes below `worker` read, in MiB.
fn watched(world: &World, worker: u32, time: Duration) -> (f64, f64) {
    let read = || read_by(worker);
    let (memory, bytes, begin) = (host::memory(world.pid()).pss, read(), now());
    let mut most = memory;
    while begin.elapsed() < time {
        pause(LOOK);
        most = most.max(host::memory(world.pid()).pss);
    }
    (most - memory, read() - bytes)
}

/// What the living processes of a worker have read, in MiB.
pub(super) fn read_by(worker: u32) -> f64 {
    host::tree(worker).into_iter().map(host::read_mib).sum()
}
