//! Decides when a worker hangs: it is stopped, or spins, and its own loop says nothing any more.
//!
//! ```text
//!   heard ---- heartbeat_timeout without a word ----> asked for: read its socket out
//!     ^              ^                                   |               |
//!     |              | we lagged: counted anew           | it had spoken | still nothing
//!     +--------------+-----------------------------------+               v
//!                                       one a second, the longest silent first: killed with its tree, replaced
//! ```
//! A worker writes its beat from its loop, every third of the timeout. It is judged only after everything that has
//! arrived from it was read, and only by a supervisor whose own loop was on time for the whole window: a lag of a second
//! or more begins every window anew. So a supervisor that is starved, stopped or asleep kills nobody, and one that errs
//! all the same kills one worker a second. While the ledger takes nothing, nobody is judged: what a worker must hear
//! before it speaks (how its agent is served, after a lost session) waits behind a commit.

use super::Machine;
use super::lifecycle::Event as Life;
use super::nouns::Now;
use super::words::Effect;
use protocol::{AgentName, Incarnation};

/// Timeout of an agent that is no longer configured, and drains. Milliseconds.
const HEARTBEAT_MS: u64 = 15_000;
/// Between two workers that are given up as hung. Milliseconds.
pub(super) const HUNG_PAUSE_MS: u64 = 1_000;
/// Reading out a socket takes as long as its session is throttled, a quarter of a second; so long, and it is asked for
/// again. Milliseconds.
const READ_OUT_WITHIN_MS: u64 = 5_000;

/// What is known of one worker's beat beside its [`super::Agent::heard_at`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heart {
    /// Its socket was asked for at this tick.
    read_out: Option<u64>,
    /// Until when our own loop is known to have lagged: no silence before it counts.
    lagged_until: u64,
    /// It is not looked at before: another one comes first, or was given up a moment ago.
    not_before: u64,
}

impl Machine {
    /// Our own loop came round so many milliseconds late: words of workers may have waited as long, and they and we may
    /// have been starved alike. Whatever was to come within a time gets that time again.
    pub(super) fn lagged(&mut self, now: Now, late_ms: u64) {
        let names: Vec<AgentName> = self.agents.keys().cloned().collect();
        for name in &names {
            if let Some(agent) = self.agents.get_mut(name) {
                agent.heart.lagged_until = now.tick;
                agent.life.forgive(late_ms);
            }
            for id in self.ids_of(name) {
                let Some(turn) = self.turns.get_mut(&id) else { continue };
                turn.until = turn.until.saturating_add(late_ms);
                if let Some((_, by)) = &mut turn.stopping {
                    *by = by.saturating_add(late_ms);
                }
            }
        }
    }

    /// The ledger takes again what it is given: whatever waited behind it reaches the workers only from here on.
    pub(super) fn hear_anew(&mut self, now: Now) {
        let names: Vec<AgentName> = self.agents.keys().cloned().collect();
        for name in &names {
            if let Some(agent) = self.agents.get_mut(name) {
                agent.heart.lagged_until = now.tick;
            }
        }
    }

    /// Takes a word of this run as a sign of life; whether it is the present one.
    pub(super) fn hear(&mut self, name: &AgentName, incarnation: Incarnation, now: Now) -> bool {
        let Some(agent) = self.agents.get_mut(name).filter(|a| a.life.is_present(incarnation)) else { return false };
        agent.heard_at = now.tick;
        agent.heart.read_out = None;
        true
    }

    /// Asks for the socket of the worker that has been silent for the longest, if it was for too long.
    pub(super) fn look_for_hung(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let is_due = |name: &&AgentName| self.heart_due(name).is_some_and(|by| by <= now.tick);
        if !self.agents.touched().iter().any(|name| is_due(&name)) {
            return;
        }
        let due: Vec<AgentName> = self.agents.keys().filter(is_due).cloned().collect();
        let Some(oldest) = due.iter().min_by_key(|name| self.agents.get(*name).map(|agent| agent.heard_at)) else {
            return;
        };
        for name in due.iter().filter(|name| *name != oldest) {
            if let Some(agent) = self.agents.get_mut(name) {
                agent.heart.not_before = self.next_hung_at.max(now.tick + 1);
            }
        }
        let Some(agent) = self.agents.get_mut(oldest) else { return };
        agent.heart.read_out = Some(now.tick);
        if let Some(process) = agent.life.process() {
            effects.push(Effect::ReadOut(oldest.clone(), process.incarnation));
        }
    }

    /// Everything that had arrived from this run has been heard: if it is silent still, it hangs.
    pub(super) fn read_out(&mut self, now: Now, name: &AgentName, incarnation: Incarnation, effects: &mut Vec<Effect>) {
        let timeout = self.heartbeat_of(name);
        let silent_until = self.silent_until(name);
        let Some(agent) = self.agents.get_mut(name).filter(|a| a.life.is_present(incarnation)) else { return };
        if agent.heart.read_out.take().is_none() || silent_until.is_none_or(|by| by > now.tick) {
            return;
        }
        if self.ledger_stuck.is_some() {
            agent.heart.lagged_until = now.tick;
            return;
        }
        if self.next_hung_at > now.tick {
            agent.heart.not_before = self.next_hung_at;
            return;
        }
        self.next_hung_at = now.tick + HUNG_PAUSE_MS;
        let seconds = timeout / 1_000;
        self.wedged(now, name, &format!("it gave no sign of life for {seconds} s: stopped, or it spins"), effects);
    }

    /// A worker that gives no sign of life is killed; its replacement reads its journal.
    pub(super) fn wedged(&mut self, now: Now, name: &AgentName, why: &str, effects: &mut Vec<Effect>) {
        if let Some(agent) = self.agents.get_mut(name) {
            agent.heard_at = now.tick;
            agent.heart.read_out = None;
            why.clone_into(&mut agent.exit);
            agent.streak.worker(why, now.wall);
            Self::event(now, Some(name), None, format!("worker given up: {why}"), effects);
            self.live(now, name, Life::Wedged, effects);
        }
    }

    fn heartbeat_of(&self, name: &AgentName) -> u64 {
        self.setup.agents.get(name).map_or(HEARTBEAT_MS, |policy| policy.heartbeat_ms)
    }

    /// When the present silence of a worker is too long.
    fn silent_until(&self, name: &AgentName) -> Option<u64> {
        let agent = self.agents.get(name).filter(|agent| agent.life.is_heard())?;
        Some(agent.heard_at.max(agent.heart.lagged_until).saturating_add(self.heartbeat_of(name)))
    }

    /// When a worker is to be looked at.
    pub(super) fn heart_due(&self, name: &AgentName) -> Option<u64> {
        let heart = self.agents.get(name)?.heart;
        let asked = heart.read_out.map_or(0, |at| at + READ_OUT_WITHIN_MS);
        Some(self.silent_until(name)?.max(asked).max(heart.not_before))
    }
}
