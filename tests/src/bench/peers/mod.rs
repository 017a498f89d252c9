//! Cofferdam beside other supervisors of processes, on the same work, in one run.
//!
//! ```text
//!   zoo.rs   supervisord, s6, runit, pm2, pueue: those on PATH ---+
//!   ours.rs  Cofferdam with as many idle agents ------------------+--> measure.rs --> a row each
//!   lab.rs   the scratch folder of one, its children, its end ----'
//! ```
//! One after another, never two at once. A child of a peer is a program that only sleeps, a child of Cofferdam is a whole
//! worker, whose memory counts as Cofferdam's own. What is not installed is named with the way to get it.

mod lab;
mod measure;
mod ours;
mod zoo;

use super::table::{Samples, Table, figure, line};
use super::{Fault, Plan, host};
use measure::{Contestant, Row, measure};
use ours::Ours;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use zoo::{PEERS, Running};

/// How long one child floods.
const FLOOD: Duration = Duration::from_secs(3);
/// Children of each, if nothing else was said.
const CHILDREN: usize = 10;
/// Width of the first column.
const TITLE_WIDTH: usize = 21;

/// Each contestant in its turn.
pub(super) fn peers(plan: &Plan, table: &mut Table) -> Result<(), Fault> {
    let count = plan.agents.unwrap_or(CHILDREN);
    if count == 0 {
        return Err(Fault("without children there is nothing to compare: --agents 1 at the least".into()));
    }
    // The laboratory knows children by this letter.
    let names: Vec<String> = (0..count).map(|index| format!("c{index}")).collect();
    let mut remarks = Vec::new();
    heading(count);
    let ours = || -> Result<Box<dyn Contestant>, Fault> { Ok(Box::new(Ours::prepare(plan, &names))) };
    contest(plan, table, "cofferdam", ours, &mut remarks);
    for peer in PEERS {
        if peer.is_installed() {
            let running = || -> Result<Box<dyn Contestant>, Fault> { Ok(Box::new(Running::prepare(peer, &names)?)) };
            contest(plan, table, peer.name, running, &mut remarks);
        } else {
            line(&format!("{:<TITLE_WIDTH$} not installed: {}", peer.name, peer.package));
        }
    }
    line("");
    for remark in remarks {
        Table::note(&remark);
    }
    Ok(())
}

/// One contestant from its preparation to its row; what fails is its own affair.
fn contest(
    plan: &Plan,
    table: &mut Table,
    name: &str,
    prepare: impl FnOnce() -> Result<Box<dyn Contestant>, Fault>,
    remarks: &mut Vec<String>,
) {
    let whole = || -> Result<Row, Fault> { measure(plan, prepare()?.as_mut()) };
    match catch_unwind(AssertUnwindSafe(whole)) {
        Ok(Ok(row)) => {
            print(&row);
            remarks.push(row.remark);
        }
        Ok(Err(fault)) => table.failed(name, &fault.to_string()),
        Err(_) => table.failed(name, "it panicked, see above"),
    }
}

fn heading(count: usize) {
    let title = format!("{count} children");
    line(&format!(
        "{title:<TITLE_WIDTH$} |     start | a dead child's    | status command    | own processes  | {:<38} | supervisor killed, started again      |",
        format!("one child floods for {} s", FLOOD.as_secs())
    ));
    line(&format!(
        "{:<TITLE_WIDTH$} | all,   ms | place filled, ms  | p50, ms           |                | memory    status p50      max     disk | children alive,                       |",
        ""
    ));
    line(&format!(
        "{:<TITLE_WIDTH$} |           |     p50       p99 |     one 8 at once |   n   PSS, MiB |   +MiB            ms       ms     +MiB | then same pids + others               | load",
        ""
    ));
}

fn print(row: &Row) {
    let replaced = |percent: usize| match &row.replaced {
        Some(samples) => figure(samples.percentile(percent)),
        None => "never".to_owned(),
    };
    let (flood, crash) = (&row.flood, &row.crash);
    let of = |samples: &Samples| figure(samples.median());
    let fate =
        format!("{} of {}, then {} + {}: {}", crash.alive, crash.children, crash.same, crash.new, crash.verdict());
    line(&format!(
        "{:<TITLE_WIDTH$} | {:>9} | {:>7} {:>9} | {:>7} {:>9} | {:>3} {:>10} | {:>6} {:>13} {:>8} {:>8} | {fate:<37} | {:.1}",
        row.title,
        figure(row.start_ms),
        replaced(50),
        replaced(99),
        of(&row.one),
        of(&row.eight),
        row.processes,
        figure(row.pss),
        figure(flood.grown),
        of(&flood.status),
        figure(flood.status.max()),
        figure(flood.disk),
        host::load_1(),
    ));
}
