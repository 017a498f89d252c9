//! One look at a Codex child: what its tree has used up, what has come in for it, whether it is stopped.
//!
//! ```text
//!  wrapper -- pid 1 -- codex                      own
//!                        |-- sandbox -- bash ...  a tool: the first that carries CODEX_THREAD_ID, and all below it
//!                        '-- anything else        own; counted as unmarked too
//! ```

use super::{connections, namespace};
use crate::machine::io::{Load, Vitals, Written};
use crate::sweep;
use crate::usage::{self, Usage};
use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Codex gives each command of a turn this variable.
const THREAD: &[u8] = b"CODEX_THREAD_ID=";

/// Processes of a tree that are looked at: a fork bomb must not hold up its worker. Those behind them are alive anyway.
const PROCESSES_MAX: usize = 1024;

/// Whose a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Whose {
    Own,
    Tool(String),
}

/// Looks at the child whose first process, wrapper or Codex itself, is `root`.
pub fn look(root: u32) -> Vitals {
    let codex = namespace::codex_pid(root).unwrap_or(root);
    let mut vitals = Vitals::default();
    let mut own = Vec::new();
    let mut waiting = vec![(root, Whose::Own, false)];
    let mut looked = 0;
    while let Some((pid, whose, below)) = waiting.pop() {
        let Some(process) = usage::of_process(pid) else { continue };
        looked += 1;
        if pid == codex {
            vitals.stopped = matches!(process.state, 'T' | 't');
        }
        let load = load(process.usage);
        match &whose {
            Whose::Tool(thread) => {
                let sum = vitals.tools.entry(thread.clone()).or_default();
                *sum = sum.and(load);
            }
            Whose::Own => {
                vitals.own = vitals.own.and(load);
                vitals.unmarked += u32::from(below);
                own.push(pid);
            }
        }
        if looked + waiting.len() < PROCESSES_MAX {
            let below = below || pid == codex;
            let children = sweep::children_of(pid).into_iter();
            waiting.extend(children.map(|child| (child, whose_is(child, &whose, below), below)));
        }
    }
    vitals.received_bytes = connections::received(&own);
    vitals
}

/// How a rollout lies on the disk.
pub fn written(path: &Path) -> Option<Written> {
    let meta = fs::metadata(path).ok()?;
    let at = meta.modified().ok()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Some(Written { bytes: meta.len(), at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX) })
}

/// What a tool starts is a part of it; what Codex starts is one if it carries a thread.
fn whose_is(pid: u32, parent: &Whose, below: bool) -> Whose {
    match parent {
        Whose::Tool(_) => parent.clone(),
        Whose::Own if below => thread_of(pid).map_or(Whose::Own, Whose::Tool),
        Whose::Own => Whose::Own,
    }
}

fn thread_of(pid: u32) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value = environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(THREAD))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

const fn load(usage: Usage) -> Load {
    Load { cpu_ms: usage.cpu_ms, io_bytes: usage.io_bytes, processes: usage.processes }
}
