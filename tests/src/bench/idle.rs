//! What agents cost that do nothing.

use super::ask::Asker;
use super::clock::{ms, now, pause};
use super::table::{Budget, Samples, Table};
use super::{Fault, Plan, agents, control, host, started};
use crate::world::World;
use std::time::Duration;

/// How long wakeups and processor time are watched.
const WATCHED: Duration = Duration::from_secs(20);
/// What a start leaves behind is over by then.
const SETTLED: Duration = Duration::from_secs(2);

/// 50 idle agents: each worker, and the supervisor.
pub(super) fn fifty(plan: &Plan, table: &mut Table) -> Result<(), Fault> {
    let (world, asker) = started(agents(plan.world(), 50, ""), 50)?;
    Table::heading("50 idle agents");
    pause(SETTLED);
    let workers: Vec<u32> = asker.workers()?.into_iter().map(|(_, pid)| pid).collect();
    let memory: Vec<host::Memory> = workers.iter().map(|pid| host::memory(*pid)).collect();
    let pss = Samples::new(memory.iter().map(|memory| memory.pss).collect());
    let private = Samples::new(memory.iter().map(|memory| memory.private).collect());
    table.judged("worker: PSS, MiB", &pss, Budget::Median(1.1));
    table.judged("worker: private, MiB", &private, Budget::Median(0.3));
    let watched = if plan.quick { WATCHED / 5 } else { WATCHED };
    let before: Vec<f64> = workers.iter().map(|pid| host::switches(*pid)).collect();
    let (cpu, begin) = (host::cpu_ms(world.pid()), now());
    pause(watched);
    let passed = begin.elapsed();
    let cpu = (host::cpu_ms(world.pid()) - cpu) / ms(passed) * 100.0;
    let per_second = |(pid, before): (&u32, &f64)| (host::switches(*pid) - before) / passed.as_secs_f64();
    let wakeups = Samples::new(workers.iter().zip(&before).map(per_second).collect());
    table.judged("worker: wakeups, 1/s", &wakeups, Budget::Max(2.0));
    let supervisor = host::memory(world.pid());
    table.judged("supervisor: PSS, MiB", &Samples::one(supervisor.pss), Budget::Max(20.0));
    Table::row("supervisor: private, MiB", &Samples::one(supervisor.private));
    table.judged("supervisor: processor, % of a core", &Samples::one(cpu), Budget::Max(0.3));
    Ok(())
}

/// 11 idle agents, everything together.
pub(super) fn eleven(plan: &Plan, table: &mut Table) -> Result<(), Fault> {
    let (world, asker) = started(agents(plan.world(), 11, ""), 11)?;
    pause(SETTLED);
    let all = whole(&world, &asker)?;
    table.judged("11 idle agents: PSS of all processes, MiB", &Samples::one(all), Budget::Max(40.0));
    Ok(())
}

/// As many idle agents as were asked for.
pub(super) fn many(plan: &Plan, table: &mut Table) -> Result<(), Fault> {
    let count = plan.agents.unwrap_or(0);
    let wanted = u32::try_from(count).unwrap_or(u32::MAX);
    Table::heading(&format!("{count} idle agents"));
    let mut world = agents(plan.world(), count, "").build();
    let asker = Asker::new(world.socket());
    let begin = now();
    world.run();
    asker.until_ready(wanted)?;
    let ready = begin.elapsed();
    // The budgets are those of a thousand agents.
    table.judged("supervisor's start to all ready, s", &Samples::one(ready.as_secs_f64()), Budget::Max(10.0));
    pause(SETTLED);
    let all = whole(&world, &asker)?;
    table.judged("PSS of all processes, GiB", &Samples::one(all / 1024.0), Budget::Max(1.2));
    Table::row("supervisor: PSS, MiB", &Samples::one(host::memory(world.pid()).pss));
    let health = control::callers(&world.socket(), plan.rounds(100))?;
    table.judged("health, 64 callers, ms", &health, Budget::P99(5.0));
    Ok(())
}

/// PSS of the supervisor and all below it.
fn whole(world: &World, asker: &Asker) -> Result<f64, Fault> {
    let workers = asker.workers()?;
    let pids = workers.iter().map(|(_, pid)| *pid).chain([world.pid()]);
    Ok(Samples::new(pids.map(|pid| host::memory(pid).pss).collect()).sum())
}
