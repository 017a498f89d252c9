//! Where the looks of the machine find what they look at: the process of each child, the file of each thread.

use crate::codex::{rollout, vitals};
use crate::machine::io::{ChildId, Vitals};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Files of threads that are remembered; finding one again costs a walk over the folders of all days.
const FILES_MAX: usize = 64;

/// What is looked at.
#[derive(Debug, Default)]
pub(super) struct Looks {
    pids: BTreeMap<ChildId, u32>,
    files: BTreeMap<String, PathBuf>,
}

impl Looks {
    /// A child runs.
    pub(super) fn begin(&mut self, id: ChildId, pid: u32) {
        self.pids.insert(id, pid);
    }

    /// It is gone.
    pub(super) fn end(&mut self, id: ChildId) {
        self.pids.remove(&id);
    }

    /// Looks at a child and at the rollouts of these threads. One that is not there shows nothing.
    pub(super) fn look(&mut self, id: ChildId, codex_home: &Path, threads: &[String]) -> Vitals {
        let mut seen = self.pids.get(&id).map(|pid| vitals::look(*pid)).unwrap_or_default();
        for thread in threads {
            let known = self.files.get(thread).filter(|path| path.exists()).cloned();
            let Some(path) = known.or_else(|| rollout::find(codex_home, thread)) else { continue };
            if let Some(written) = vitals::written(&path) {
                seen.rollouts.insert(thread.clone(), written);
            }
            if self.files.len() >= FILES_MAX {
                self.files.clear();
            }
            self.files.insert(thread.clone(), path);
        }
        seen
    }
}
