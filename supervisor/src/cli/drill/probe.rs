//! What is measured while somebody is hurt: threads that ask again and again, each with its own samples.

use super::fleet::Fleet;
use super::stats::Sample;
use super::verdict::Probe;
use crate::cli::clock::Watch;
use protocol::AgentName;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Each other agent begins a turn that often, in seconds: a tenth of a core for both of them.
const TURN_EVERY_S: f64 = 0.4;
/// Callers that ask for `health` at once, and the pause of each between two questions, in seconds.
const CALLERS: usize = 8;
const HEALTH_EVERY_S: f64 = 0.05;
/// One configured worker after the other is pinged, each that long after the one before, in seconds.
const PING_EVERY_S: f64 = 0.05;
/// A turn that takes so long has failed for whoever waits.
const TURN_WITHIN: Duration = Duration::from_secs(30);

/// Measurements that are being taken.
#[derive(Debug)]
pub(super) struct Probes {
    done: Arc<AtomicBool>,
    threads: Vec<(Probe, JoinHandle<Vec<Sample>>)>,
}

impl Probes {
    /// Begins to measure turns of `others` and the `workers` of configured agents; times are told by `watch`.
    pub(super) fn start(
        fleet: &Fleet,
        others: &[AgentName],
        workers: Vec<AgentName>,
        talk: &str,
        watch: Watch,
    ) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (index, agent) in others.iter().enumerate() {
            let count = u32::try_from(others.len()).unwrap_or(1);
            let first = TURN_EVERY_S / f64::from(count) * f64::from(u32::try_from(index).unwrap_or(0));
            let (fleet, agent, talk) = (fleet.clone(), agent.clone(), talk.to_owned());
            let ask = move |fleet: &Fleet| {
                fleet.answer(&agent, &talk, "hello", TURN_WITHIN).is_ok_and(|end| end.outcome == "completed")
            };
            threads.push((Probe::Turns, series(fleet, Arc::clone(&done), watch, first, TURN_EVERY_S, ask)));
        }
        for _ in 0..CALLERS {
            let ask = |fleet: &Fleet| fleet.health().is_ok();
            threads.push((Probe::Health, series(fleet.clone(), Arc::clone(&done), watch, 0.0, HEALTH_EVERY_S, ask)));
        }
        if !workers.is_empty() {
            let next = AtomicUsize::new(0);
            let ask = move |fleet: &Fleet| {
                let agent = workers.get(next.fetch_add(1, Ordering::Relaxed) % workers.len());
                agent.is_some_and(|agent| fleet.ping(agent).is_ok())
            };
            threads.push((Probe::Workers, series(fleet.clone(), Arc::clone(&done), watch, 0.0, PING_EVERY_S, ask)));
        }
        Self { done, threads }
    }

    /// Ends all of it; the samples of each probe, in the order of their begin.
    pub(super) fn end(self) -> Vec<(Probe, Vec<Sample>)> {
        self.done.store(true, Ordering::Relaxed);
        let mut all: Vec<(Probe, Vec<Sample>)> = Probe::ALL.map(|probe| (probe, Vec::new())).into();
        for (probe, thread) in self.threads {
            let samples = thread.join().unwrap_or_default();
            if let Some((_, sum)) = all.iter_mut().find(|(of, _)| *of == probe) {
                sum.extend(samples);
            }
        }
        for (_, samples) in &mut all {
            samples.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        }
        all
    }
}

/// One thread that asks every so many seconds, or as soon as the last answer is there if that takes longer.
fn series(
    fleet: Fleet,
    done: Arc<AtomicBool>,
    watch: Watch,
    first_s: f64,
    every_s: f64,
    ask: impl Fn(&Fleet) -> bool + Send + 'static,
) -> JoinHandle<Vec<Sample>> {
    std::thread::spawn(move || {
        let mut samples = Vec::new();
        let mut due = watch.seconds() + first_s;
        loop {
            let over = !fleet.pause((due - watch.seconds()).max(0.0));
            if over || done.load(Ordering::Relaxed) {
                return samples;
            }
            let at_s = watch.seconds();
            let ok = ask(&fleet);
            let took = watch.seconds() - at_s;
            // What failed because all is over says nothing.
            if fleet.flags.is_over() {
                return samples;
            }
            samples.push(Sample { at_s, ms: took * 1000.0, ok });
            due = (due + every_s).max(watch.seconds());
        }
    })
}
