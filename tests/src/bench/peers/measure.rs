//! The same work for each contestant, and its row.
//!
//! ```text
//!   start all -> settle -> memory -> status, one and 8 at once -> each child killed once -> one child floods
//!             -> supervisor killed -> who lives -> supervisor again, settle -> who lives, twice or not at all
//! ```

use super::super::clock::{ms, now, pause, until};
use super::super::control::at_once;
use super::super::table::Samples;
use super::super::{Fault, Plan, host};
use super::FLOOD;
use super::lab::{WAIT_LIMIT, pids, timed};
use crate::processes;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What a start or a restart sets in motion is over by then: the slowest of them looks every 5 s at the most.
const SETTLED: Duration = Duration::from_secs(6);
/// Children of a supervisor that was killed and that die of it have died by then.
const ORPHANED: Duration = Duration::from_secs(2);
/// Between two kills.
const BREATH: Duration = Duration::from_millis(150);
/// Between two looks at memory.
const LOOK: Duration = Duration::from_millis(100);
/// Commands at once.
const CALLERS: usize = 8;

/// What competes: Cofferdam and its peers.
pub(super) trait Contestant: Sync {
    /// Name and version.
    fn title(&self) -> String;
    /// Starts the supervisor, and waits until all its children run.
    fn start(&mut self) -> Result<(), Fault>;
    /// Starts a supervisor after the first one was killed.
    fn again(&mut self) -> Result<(), Fault>;
    /// The living children by name: one that runs twice is there twice.
    fn children(&self) -> Vec<(String, u32)>;
    /// Whether a dead child is replaced at all.
    fn restarts(&self) -> bool;
    /// Whether a child of that name runs (Cofferdam: is ready) whose pid is not `known`.
    fn is_replaced(&self, name: &str, known: &BTreeSet<u32>) -> bool;
    /// The command that says how its children are.
    fn status(&self) -> Command;
    /// The supervisor's processes, without the work that they supervise.
    fn own(&self) -> Vec<u32>;
    /// `kill -9` of the supervisor, until it is gone.
    fn kill(&mut self) -> Result<(), Fault>;
    /// Prepares the flood.
    fn warm(&mut self) -> Result<(), Fault> {
        Ok(())
    }
    /// Lets one more child flood its standard output for [`FLOOD`] at the least.
    fn flood(&mut self) -> Result<(), Fault>;
    /// Ends the flood, if it does not end by itself.
    fn calm(&mut self) -> Result<(), Fault> {
        Ok(())
    }
    /// Where everything lies that it writes.
    fn folder(&self) -> PathBuf;
    /// What its row does not say.
    fn remark(&self) -> String;
}

/// Everything that was measured of one contestant.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) title: String,
    pub(super) start_ms: f64,
    pub(super) processes: usize,
    pub(super) pss: f64,
    pub(super) one: Samples,
    pub(super) eight: Samples,
    /// None: nothing is replaced.
    pub(super) replaced: Option<Samples>,
    pub(super) flood: Flood,
    pub(super) crash: Crash,
    pub(super) remark: String,
}

/// What a flood did.
#[derive(Debug)]
pub(super) struct Flood {
    /// Private memory of the supervisor's processes at the most, above that before; MiB.
    pub(super) grown: f64,
    /// Status, one after another while it floods; ms.
    pub(super) status: Samples,
    /// What it left on disk, MiB.
    pub(super) disk: f64,
}

/// What the death of the supervisor did.
#[derive(Debug)]
pub(super) struct Crash {
    pub(super) children: usize,
    /// Children that lived on without it.
    pub(super) alive: usize,
    /// Of these, under the next one.
    pub(super) same: usize,
    /// Processes beside these.
    pub(super) new: usize,
}

impl Crash {
    /// What it comes to.
    pub(super) fn verdict(&self) -> &'static str {
        let kept = self.same == self.children;
        match (kept, self.new) {
            (true, 0) => "kept",
            (true, _) => "twice",
            (false, _) if self.same + self.new > self.children => "some twice",
            (false, new) if self.same + new == self.children => "replaced",
            (false, _) => "lost",
        }
    }
}

/// Measures one contestant from its start to the restart of its supervisor.
pub(super) fn measure(plan: &Plan, one: &mut dyn Contestant) -> Result<Row, Fault> {
    let title = one.title();
    let begin = now();
    one.start()?;
    let start_ms = ms(begin.elapsed());
    pause(SETTLED);
    let own = one.own();
    let pss = Samples::new(own.iter().map(|pid| host::memory(*pid).pss).collect()).sum();
    let remark = one.remark();
    let (single, eight) = status(plan, one)?;
    let replaced = if one.restarts() { Some(kills(plan, one)?) } else { None };
    let flood = flood(one)?;
    let crash = crash(one)?;
    Ok(Row { title, start_ms, processes: own.len(), pss, one: single, eight, replaced, flood, crash, remark })
}

fn status(plan: &Plan, one: &dyn Contestant) -> Result<(Samples, Samples), Fault> {
    let rounds = if plan.quick { 5 } else { 20 };
    let single: Result<Vec<f64>, Fault> = (0..rounds).map(|_| timed(one.status())).collect();
    let each = if plan.quick { 1 } else { 3 };
    let eight = at_once(CALLERS, || (0..each).map(|_| timed(one.status())).collect())?;
    Ok((Samples::new(single?), eight))
}

/// Each child once: whoever pauses before a second restart is not measured in its pause.
fn kills(plan: &Plan, one: &dyn Contestant) -> Result<Samples, Fault> {
    let mut all = Vec::new();
    let children = one.children();
    for (name, pid) in children.iter().take(plan.rounds(children.len()).max(3)) {
        pause(BREATH);
        let known = pids();
        let begin = now();
        processes::kill9(*pid);
        let replaced = until(WAIT_LIMIT, || one.is_replaced(name, &known).then_some(()));
        all.push(ms(begin.elapsed()));
        replaced.ok_or_else(|| Fault(format!("{name} was killed and not replaced")))?;
    }
    Ok(Samples::new(all))
}

fn flood(one: &mut dyn Contestant) -> Result<Flood, Fault> {
    one.warm()?;
    pause(BREATH);
    let own = one.own();
    let private = || own.iter().map(|pid| host::memory(*pid).private).sum::<f64>();
    let (before, disk) = (private(), disk_mib(&one.folder()));
    one.flood()?;
    let begin = now();
    let shared: &dyn Contestant = one;
    let (most, status) = std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let mut all = Vec::new();
            while begin.elapsed() < FLOOD {
                all.push(timed(shared.status())?);
            }
            Ok::<_, Fault>(all)
        });
        let mut most = before;
        while begin.elapsed() < FLOOD || !asked.is_finished() {
            most = most.max(private());
            pause(LOOK);
        }
        (most, asked.join())
    });
    let status = status.map_err(|_| Fault("the callers panicked".into()))??;
    let disk = disk_mib(&one.folder()) - disk;
    one.calm()?;
    Ok(Flood { grown: most - before, status: Samples::new(status), disk })
}

fn crash(one: &mut dyn Contestant) -> Result<Crash, Fault> {
    pause(SETTLED);
    let before: BTreeSet<(String, u32)> = one.children().into_iter().collect();
    one.kill()?;
    pause(ORPHANED);
    let left = |one: &dyn Contestant| one.children().into_iter().filter(|child| before.contains(child)).count();
    let alive = left(one);
    one.again()?;
    pause(SETTLED);
    let same = left(one);
    let new = one.children().len() - same;
    Ok(Crash { children: before.len(), alive, same, new })
}

/// Size of all files of a folder, in MiB; what cannot be read counts nothing.
fn disk_mib(folder: &Path) -> f64 {
    let mut bytes = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => folders.push(entry.path()),
                Ok(found) if found.is_file() => bytes += found.len(),
                Ok(_) | Err(_) => {}
            }
        }
    }
    f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX)) / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_has_one_word() {
        let of = |same, new| Crash { children: 10, alive: 10, same, new }.verdict();
        assert_eq!(of(10, 0), "kept");
        assert_eq!(of(10, 10), "twice");
        assert_eq!(of(4, 10), "some twice");
        assert_eq!(of(0, 10), "replaced");
        assert_eq!(of(3, 0), "lost");
    }

    #[test]
    fn a_folder_is_as_large_as_its_files() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/b"), vec![0; 1 << 20]).unwrap();
        fs::write(dir.path().join("c"), vec![0; 1 << 19]).unwrap();
        std::os::unix::fs::symlink("a/b", dir.path().join("d")).unwrap();
        assert!((disk_mib(dir.path()) - 1.5).abs() < f64::EPSILON);
    }
}
