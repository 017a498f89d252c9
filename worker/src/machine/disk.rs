//! What the size of the agent's folder leads to: nothing, Codex' log databases removed between turns, owners told.
//!
//! ```text
//!   a turn has ended --> look, at most once a minute --> below 80 %: nothing
//!                                                        80 %, 100 %: told once each, Codex retired when no turn runs,
//!                                                        and while no Codex lives its logs are removed, at most hourly
//!                                                        still 80 %: old rollouts go to the archive (archive.rs)
//! ```
//! Codex makes its logs anew. What it needs to go on (threads, state) and what the agent made are never touched: whoever
//! is told decides about them.

use super::Machine;
use super::io::{Effect, Tick};
use protocol::FromWorker;

/// Least pause between two looks, in milliseconds: a folder of 100,000 files takes a tenth of a second.
const LOOK_PAUSE_MS: u64 = 60_000;

/// Least pause between two removals, in milliseconds: each costs the agent its warm Codex.
const PRUNE_PAUSE_MS: u64 = 3_600_000;

/// Where owners are told and the logs go, in percent of the limit.
const HIGH_PERCENT: u64 = 80;

/// Below this the next rise is told again, in percent of the limit.
const CALM_PERCENT: u64 = 70;

/// What is known of the agent's folder.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// A turn has ended since the last look.
    stirred: bool,
    looking: bool,
    look_from: Option<Tick>,
    prune_from: Option<Tick>,
    /// The logs go as soon as no Codex lives.
    prune: bool,
    /// The percentage that was told last: 0, 80 or 100.
    told: u64,
}

impl Disk {
    /// When a look is due, if one is.
    fn look_by(&self) -> Option<Tick> {
        (self.stirred && !self.looking).then_some(self.look_from.unwrap_or(Tick(0)))
    }
}

impl Machine {
    /// A turn has ended: the folder may have grown.
    pub(super) fn stir_disk(&mut self) {
        self.disk.stirred = true;
        self.archive.stir();
    }

    pub(super) fn disk_deadline(&self) -> Option<(Tick, &'static str)> {
        let idle = self.turns.is_empty() && self.disk_max().is_some();
        self.disk.look_by().filter(|_| idle).map(|by| (by, "disk"))
    }

    fn disk_max(&self) -> Option<u64> {
        self.configure.as_ref().and_then(|configure| configure.limits.disk_max)
    }

    /// Looks, or removes the logs, if it is time and nobody waits for an answer.
    pub(super) fn keep_disk(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        if self.disk_deadline().is_some_and(|(by, _)| by <= now) {
            self.disk.looking = true;
            self.disk.stirred = false;
            self.disk.look_from = Some(Tick(now.0.saturating_add(LOOK_PAUSE_MS)));
            effects.push(Effect::LookAtDisk);
        }
        if self.disk.prune && self.children.is_empty() {
            self.disk.prune = false;
            // What is left is looked at anew at once: at most hourly, as the removal.
            self.disk.stirred = true;
            self.disk.look_from = None;
            self.disk.prune_from = Some(Tick(now.0.saturating_add(PRUNE_PAUSE_MS)));
            effects.push(Effect::PruneLogs);
        }
    }

    /// The folder holds so many bytes.
    pub(super) fn disk_looked(&mut self, now: Tick, bytes: u64, effects: &mut Vec<Effect>) {
        self.disk.looking = false;
        let Some(max) = self.disk_max() else { return };
        let percent = bytes.saturating_mul(100) / max.max(1);
        let level = if percent >= 100 { 100 } else { percent / HIGH_PERCENT * HIGH_PERCENT };
        if percent < CALM_PERCENT {
            self.disk.told = 0;
        }
        if level == 0 {
            return;
        }
        if level > self.disk.told {
            self.disk.told = level;
            let words = format!(
                "its folder holds {} MiB, {percent} % of limits.disk_max; Codex' logs are removed between turns \
                 and threads that no conversation goes on with are moved to codex-home/archived_sessions, which you may empty; \
                 the rest (threads in use, files of its tools) is yours to judge",
                bytes >> 20
            );
            effects.push(Effect::Tell(FromWorker::Alert(words)));
        }
        if self.disk.prune_from.is_none_or(|from| from <= now) {
            self.disk.prune = true;
            if let Some(session) = &mut self.session {
                session.heavy = true;
            }
        } else {
            self.press_archive(now, effects);
        }
    }
}
