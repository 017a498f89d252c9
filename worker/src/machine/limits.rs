//! What a look at the agent's processes leads to: nothing, a Codex that is retired between turns, or the end of turns.
//!
//! ```text
//!   a child lives, and memory or processes are bounded
//!     --> look every 100 ms or 1 s --> memory > max     the largest child is killed, its turns end out_of_memory
//!                                      processes > max  the largest child is killed, its turns end budget
//!                                      memory > high    the app-server is retired as soon as no turn runs on it
//! ```
//! Where the kernel holds the bounds too, its word comes first, and this one ends what the kernel only refuses.

use super::Machine;
use super::io::{ChildId, Effect, Sample, Tick};
use super::verdict::{State, Verdict};
use protocol::to_worker::Limits;
use protocol::{FailureClass, FromWorker};

/// Between two looks while a turn runs, in milliseconds: a hog that takes 1 GiB a second passes its bound by 100 MiB, and
/// a fork bomb has some hundred processes by then. A look takes 0.2 ms.
const PAUSE_BUSY_MS: u64 = 100;

/// Between two looks at children that only wait, in milliseconds.
const PAUSE_IDLE_MS: u64 = 1000;

/// What a sample says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// All is within the bounds.
    Well,
    /// Codex is to be retired between turns, and why.
    Heavy(String),
    /// This child has to go now, and how its turns end.
    Over(ChildId, FailureClass, String),
}

/// Whether there is anything to look for.
pub(super) fn watches(limits: &Limits) -> bool {
    limits.memory_max.is_some() || limits.memory_high.is_some() || limits.pids_max.is_some()
}

/// Judges what all processes of the agent use together.
pub(super) fn judge(limits: &Limits, sample: &Sample) -> Judgement {
    let memory = sample.amounts().fold(0_u64, |sum, amount| sum.saturating_add(amount.rss_bytes));
    let processes = sample.amounts().fold(0_u32, |sum, amount| sum.saturating_add(amount.processes));
    let largest = |by: fn(&(ChildId, super::io::Amount)) -> u64| sample.children.iter().max_by_key(|c| by(c));
    let too_many = limits.pids_max.filter(|max| processes > *max || sample.forks_refused);
    if let (Some(max), Some((child, _))) = (too_many, largest(|(_, amount)| amount.processes.into())) {
        let words = format!(
            "the agent's tools started more processes and threads than it may have: its limit is {max} \
             (limits.pids_max), {processes} were seen; all of them were ended"
        );
        return Judgement::Over(*child, FailureClass::Budget, words);
    }
    let used = mib(memory);
    if let (Some(max), Some((child, _))) =
        (limits.memory_max.filter(|max| memory > *max), largest(|(_, amount)| amount.rss_bytes))
    {
        let words = format!(
            "the agent's processes used {used} MiB of memory, its limit is {} MiB (limits.memory_max)",
            mib(max)
        );
        return Judgement::Over(*child, FailureClass::OutOfMemory, words);
    }
    match limits.memory_high.filter(|high| memory > *high) {
        Some(high) => Judgement::Heavy(format!("its processes use {used} MiB of memory, more than {} MiB", mib(high))),
        None => Judgement::Well,
    }
}

const fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

impl Machine {
    /// Plans the next look, if there is anything to look at.
    pub(super) fn plan_look(&mut self, now: Tick) {
        let watches = self.configure.as_ref().is_some_and(|configure| watches(&configure.limits));
        if !watches || self.children.is_empty() {
            self.look_at = None;
            return;
        }
        let pause = if self.turns.is_empty() { PAUSE_IDLE_MS } else { PAUSE_BUSY_MS };
        let by = Tick(now.0.saturating_add(pause));
        // A turn that comes in makes the next look an earlier one.
        self.look_at = Some(self.look_at.map_or(by, |at| at.min(by)));
    }

    /// Looks if it is time.
    pub(super) fn look_if_due(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_at = None;
            effects.push(Effect::Measure);
        }
    }

    /// What a look has shown.
    pub(super) fn measured(&mut self, now: Tick, sample: &Sample, effects: &mut Vec<Effect>) {
        let Some(limits) = self.configure.as_ref().map(|configure| configure.limits) else { return };
        match judge(&limits, sample) {
            Judgement::Well => {}
            Judgement::Heavy(why) => self.retire_heavy(&why, effects),
            Judgement::Over(child, class, words) => {
                self.cut_down(now, child, &Verdict::failed(class, words), effects);
            }
        }
    }

    /// Kills a child; turns on it end with `verdict`, unless they were being stopped for another reason.
    fn cut_down(&mut self, now: Tick, child: ChildId, verdict: &Verdict, effects: &mut Vec<Effect>) {
        let by = self.step_by(now);
        if !self.children.get_mut(&child).is_some_and(|record| record.kill(by)) {
            return;
        }
        effects.push(Effect::Tell(FromWorker::Note(verdict.detail.clone())));
        effects.push(Effect::Kill(child));
        self.session_ending(child);
        for turn in self.turns.values_mut().filter(|turn| turn.child == Some(child)) {
            match turn.state {
                State::Opening(_) | State::Running => turn.state = State::Stopping(verdict.clone(), None),
                State::Waiting | State::Stopping(..) | State::Proving(..) => {}
            }
        }
    }

    /// Marks the app-server: it goes once no turn runs on it.
    fn retire_heavy(&mut self, why: &str, effects: &mut Vec<Effect>) {
        let Some(session) = self.session.as_mut().filter(|session| !session.heavy) else { return };
        session.heavy = true;
        let note = format!("{why} (limits.memory_high): its Codex is retired between turns");
        effects.push(Effect::Tell(FromWorker::Note(note)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::io::Amount;
    use super::*;

    const LIMITS: Limits = Limits {
        memory_max: Some(1000 << 20),
        memory_high: Some(500 << 20),
        pids_max: Some(100),
        cpu_weight: None,
        cpu_max: None,
        io_weight: None,
        open_files: None,
        core_size: None,
        file_size: None,
        disk_max: None,
    };

    fn sample(children: &[(u64, u32)], others: (u64, u32)) -> Sample {
        let amount = |(mib, processes): (u64, u32)| Amount { rss_bytes: mib << 20, processes };
        let children = (1..).map(ChildId).zip(children.iter().map(|c| amount(*c))).collect();
        Sample { children, others: amount(others), forks_refused: false }
    }

    #[test]
    fn all_processes_count_together_and_the_largest_goes() {
        let over = |sample: &Sample| match judge(&LIMITS, sample) {
            Judgement::Over(child, class, _) => Some((child.0, class)),
            Judgement::Well | Judgement::Heavy(_) => None,
        };
        assert_eq!(judge(&LIMITS, &sample(&[(100, 5)], (0, 0))), Judgement::Well);
        assert!(matches!(judge(&LIMITS, &sample(&[(300, 5)], (201, 0))), Judgement::Heavy(_)));
        assert_eq!(over(&sample(&[(300, 5), (400, 5)], (301, 0))), Some((2, FailureClass::OutOfMemory)));
        assert_eq!(over(&sample(&[(1, 60), (400, 5)], (0, 36))), Some((1, FailureClass::Budget)));
        let refused = Sample { forks_refused: true, ..sample(&[(1, 3)], (0, 0)) };
        assert_eq!(over(&refused), Some((1, FailureClass::Budget)));
        // Nothing is left that could be ended.
        assert_eq!(over(&sample(&[], (5000, 500))), None);
        assert_eq!(judge(&Limits::default(), &sample(&[(9000, 9000)], (9, 9))), Judgement::Well);
        assert!(!watches(&Limits { cpu_max: Some(1), ..Limits::default() }) && watches(&LIMITS));
    }
}
