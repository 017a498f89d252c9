//! Tests of one worker's life: tables of the named cases, then what must hold whatever happens.

#![expect(
    clippy::wildcard_enum_match_arm,
    clippy::struct_field_names,
    reason = "a question about one case is not about those to come; a life has a life"
)]

use super::*;
use crate::machine::nouns::Identity;
use crate::machine::restart::ENDS_MAX;
use crate::machine::words::Linked;
use proptest::prelude::*;
use protocol::hello::Accord;

/// A worker's life with a clock, and a count of the runs that were given.
struct Life {
    life: Lifecycle,
    now: u64,
    given: u64,
}

fn run(n: u64) -> Incarnation {
    Incarnation(n)
}

const PID: u32 = 100;

fn linked(incarnation: Incarnation, pid: u32, accord: Accord) -> Linked {
    let identity = Identity { boot: 1, pid, inode: 1, started: 1 };
    Linked { incarnation, pid, accord, nonce: 1, identity, protocol: 1, build: "now".into(), outdated: false }
}

impl Life {
    fn new(up: bool) -> Self {
        Self { life: Lifecycle::new(up, run(1)), now: 0, given: 1 }
    }

    fn give(&mut self, event: Event) -> Vec<Act> {
        let acts = self.life.handle(self.now, event, run(self.given + 1), 0);
        self.given += u64::try_from(acts.iter().filter(|act| matches!(act, Act::Spawn(_))).count()).unwrap();
        acts
    }

    fn after(&mut self, ms: u64, event: Event) -> Vec<Act> {
        self.now += ms;
        self.give(event)
    }

    /// Goes to the deadline.
    fn expire(&mut self) -> Vec<Act> {
        self.now = self.life.deadline().expect("a deadline").max(self.now);
        self.give(Event::Timeout)
    }

    fn link(&mut self, n: u64, accord: Accord) -> Vec<Act> {
        self.give(Event::Linked(linked(run(n), PID, accord)))
    }

    /// One that an earlier supervisor left nothing of, wanted up, and whose first run is on its way.
    fn starting() -> Self {
        let mut life = Self::new(true);
        assert_eq!(life.life.adopt(0), [Act::Dial(run(0))]);
        assert_eq!(life.give(Event::LinkFailed(run(0))), [Act::Sweep(run(1))]);
        assert_eq!(life.give(Event::Swept(run(1), 0)), [Act::Spawn(run(2))]);
        life
    }

    fn up() -> Self {
        let mut life = Self::starting();
        life.give(Event::Spawned(run(2), PID));
        life.link(2, Accord::Full);
        assert_eq!(life.give(Event::Ready(run(2))), [Act::Up]);
        life.now += 10_000;
        life
    }

    fn backoff() -> Self {
        let mut life = Self::starting();
        life.give(Event::Exited(run(2)));
        life.give(Event::Swept(run(2), 0));
        assert!(matches!(life.life.state(), State::Backoff { .. }));
        life
    }

    fn failed() -> Self {
        let mut life = Self::starting();
        for end in 0.. {
            let present = life.life.process().expect("a run").incarnation;
            life.give(Event::Exited(present));
            if life.give(Event::Swept(present, 0)) == [Act::Rest { gave_up: true }] {
                assert_eq!(end, ENDS_MAX);
                return life;
            }
            life.expire();
            let State::Sweeping { incarnation, .. } = *life.life.state() else { panic!("{:?}", life.life) };
            life.give(Event::Swept(incarnation, 0));
        }
        unreachable!("it gives up")
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Wanted {
    Up,
    Stopped,
    Killed,
    /// Stopped, then wanted up again before it had ended.
    Again,
}

#[derive(Clone, Copy, Debug)]
enum Ended {
    Ready,
    NotReady,
    Wedged,
    StartTooLong,
    NoSession,
}

/// What was wanted x how it ended.
#[test]
fn every_wish_meets_every_end() {
    use Ended::{NoSession, NotReady, Ready, StartTooLong, Wedged};
    use Wanted::{Again, Killed, Stopped, Up};
    for ended in [Ready, NotReady, Wedged, StartTooLong, NoSession] {
        for wanted in [Up, Stopped, Killed, Again] {
            let mut life = match ended {
                Ready | Wedged => Life::up(),
                NotReady | StartTooLong | NoSession => Life::starting(),
            };
            life.give(Event::Spawned(run(2), PID));
            match wanted {
                Up => {}
                Stopped => drop(life.give(Event::Stop(Some(1_000)))),
                Killed => assert_eq!(life.give(Event::Kill), [Act::Kill(PID)]),
                Again => {
                    life.give(Event::Stop(Some(1_000)));
                    assert_eq!(life.give(Event::Start), []);
                }
            }
            match ended {
                Ready | NotReady => {}
                Wedged => drop(life.give(Event::Wedged)),
                StartTooLong => drop(life.expire()),
                NoSession => drop(life.give(Event::LinkFailed(run(2)))),
            }
            assert_eq!(life.give(Event::Exited(run(2))), [Act::Sweep(run(2))], "{wanted:?} {ended:?}");
            let then = life.give(Event::Swept(run(2), 0));
            match (wanted, ended) {
                (Up, Ready | Wedged) => assert_eq!(then, [Act::Spawn(run(3))], "the first is immediate"),
                (Up, NotReady | StartTooLong | NoSession) => {
                    assert_eq!(then, []);
                    assert!(matches!(life.life.state(), State::Backoff { .. }), "{ended:?}");
                }
                (Again, Wedged) => assert!(matches!(life.life.state(), State::Backoff { .. })),
                (Again, _) => assert_eq!(then, [Act::Spawn(run(3))], "{ended:?}: a wish has no pause"),
                (Stopped | Killed, _) => assert_eq!(then, [Act::Rest { gave_up: false }], "{wanted:?} {ended:?}"),
            }
        }
    }
}

#[test]
fn a_stop_drains_then_terminates_then_kills() {
    let mut life = Life::up();
    assert_eq!(life.give(Event::Stop(Some(1_000))), [Act::Drain]);
    assert_eq!(life.give(Event::Stop(Some(5_000))), [], "a later stop does not lengthen the grace");
    assert_eq!(life.life.deadline(), Some(life.now + 1_000));
    assert_eq!(life.expire(), [Act::Terminate(PID)]);
    assert_eq!(life.expire(), [Act::Kill(PID)]);
    assert_eq!(life.expire(), [Act::Kill(PID), Act::Stuck(1)]);
    assert_eq!(life.give(Event::Exited(run(2))), [Act::Sweep(run(2))]);
    assert_eq!(life.give(Event::Swept(run(2), 0)), [Act::Rest { gave_up: false }]);
    assert_eq!(life.life.restarts(), 0);
}

#[test]
fn a_stop_in_a_pause_reads_the_journal_and_rests() {
    let mut life = Life::backoff();
    assert_eq!(life.give(Event::Stop(Some(1_000))), [Act::Sweep(run(2))]);
    assert_eq!(life.give(Event::Swept(run(2), 0)), [Act::Rest { gave_up: false }]);
    assert_eq!(life.life.deadline(), None);
}

#[test]
fn a_start_in_a_pause_does_not_wait_and_forgets_the_past() {
    let mut life = Life::backoff();
    assert_eq!(life.give(Event::Start), [Act::Sweep(run(2))]);
    assert_eq!(life.give(Event::Swept(run(2), 0)), [Act::Spawn(run(3))]);
}

#[test]
fn a_start_during_the_sweep_overrules_what_was_to_follow() {
    let mut life = Life::starting();
    life.give(Event::Exited(run(2)));
    assert_eq!(life.give(Event::Start), []);
    assert_eq!(life.give(Event::Swept(run(2), 0)), [Act::Spawn(run(3))]);
}

#[test]
fn a_stop_while_starting_terminates_even_before_the_pid_is_known() {
    let mut life = Life::starting();
    assert_eq!(life.give(Event::Stop(None)), []);
    assert_eq!(life.give(Event::Spawned(run(2), PID)), [Act::Terminate(PID)]);
    let mut life = Life::starting();
    assert_eq!(life.give(Event::Kill), []);
    assert_eq!(life.give(Event::Spawned(run(2), PID)), [Act::Kill(PID)]);
}

#[test]
fn a_kill_does_not_wait_for_a_drain() {
    let mut life = Life::up();
    life.give(Event::Stop(None));
    assert_eq!(life.give(Event::Kill), [Act::Kill(PID)]);
}

#[test]
fn an_old_worker_is_adopted() {
    let mut life = Life::new(true);
    life.life.adopt(0);
    assert_eq!(life.link(7, Accord::Full), []);
    assert_eq!(life.give(Event::Ready(run(7))), [Act::Up]);
    assert_eq!(life.life.process(), Some(Process { incarnation: run(7), pid: Some(PID) }));
}

#[test]
fn nobody_to_adopt_is_a_sweep_and_a_start() {
    Life::starting();
    let mut life = Life::new(true);
    life.life.adopt(0);
    assert_eq!(life.expire(), [Act::Sweep(run(1))], "no answer is an answer");
}

#[test]
fn one_found_silent_is_dialled_again_and_then_killed() {
    let mut life = Life::new(true);
    life.life.adopt(0);
    assert_eq!(life.give(Event::Found(run(7), PID)), []);
    for _ in 0..DIALS_MAX {
        assert_eq!(life.give(Event::LinkFailed(run(7))), [Act::Dial(run(7))]);
    }
    assert_eq!(life.give(Event::LinkFailed(run(7))), [Act::Kill(PID)]);
    assert_eq!(life.give(Event::Exited(run(7))), [Act::Sweep(run(7))]);
    // One that answers at last is adopted, or does what it would have done.
    let mut life = Life::new(true);
    life.life.adopt(0);
    life.give(Event::Found(run(7), PID));
    assert_eq!(life.link(7, Accord::DrainOnly), [Act::Drain]);
    let mut life = Life::new(true);
    life.life.adopt(0);
    life.give(Event::Kill);
    assert_eq!(life.give(Event::Found(run(7), PID)), [Act::Kill(PID)]);
}

#[test]
fn one_that_is_not_the_one_of_the_record_is_killed() {
    let mut life = Life::new(true);
    life.life.adopt(0);
    assert_eq!(life.give(Event::Impostor(run(7), PID)), [Act::Kill(PID)]);
    life.give(Event::Exited(run(7)));
    assert_eq!(life.give(Event::Swept(run(7), 0)), [Act::Spawn(run(2))], "it counts as no loss");
    let mut life = Life::starting();
    life.give(Event::Spawned(run(2), PID));
    assert_eq!(life.give(Event::Impostor(run(2), 999)), [Act::Kill(PID)], "ours is what we may kill");
    assert_eq!(Life::up().give(Event::Impostor(run(2), PID)), []);
}

#[test]
fn one_that_is_renewed_is_drained_and_replaced_at_once() {
    let mut life = Life::up();
    assert_eq!(life.give(Event::Renew(500)), [Act::Drain]);
    assert_eq!(life.life.deadline(), Some(life.now + 500));
    assert!(life.life.wanted_up());
    life.give(Event::Exited(run(2)));
    assert_eq!(life.give(Event::Swept(run(2), 0)), [Act::Spawn(run(3))]);
    assert_eq!(life.life.restarts(), 0);
    assert_eq!(Life::starting().give(Event::Renew(500)), []);
}

#[test]
fn one_of_another_protocol_drains_says_nothing_and_is_replaced() {
    let mut life = Life::new(true);
    life.life.adopt(0);
    assert_eq!(life.link(7, Accord::DrainOnly), [Act::Drain]);
    assert!(!life.life.is_heard(), "its silence means nothing");
    assert!(life.life.deadline().is_some());
    assert_eq!(life.give(Event::Exited(run(7))), [Act::Sweep(run(7))]);
    assert_eq!(life.give(Event::Swept(run(7), 0)), [Act::Spawn(run(2))]);
}

#[test]
fn one_found_alive_that_is_wanted_down_or_dead_goes() {
    let mut life = Life::new(false);
    life.life.adopt(0);
    assert_eq!(life.give(Event::Stop(Some(1_000))), []);
    assert_eq!(life.link(7, Accord::Full), [Act::Drain]);
    assert_eq!(life.life.deadline(), Some(1_000));
    let mut life = Life::new(true);
    life.life.adopt(0);
    assert_eq!(life.give(Event::Kill), []);
    assert_eq!(life.link(7, Accord::Full), [Act::Kill(PID)]);
}

#[test]
fn one_found_alive_that_never_gets_ready_is_replaced() {
    let mut life = Life::new(true);
    life.life.adopt(0);
    life.link(7, Accord::Full);
    assert_eq!(life.expire(), [Act::Kill(PID)]);
}

#[test]
fn a_lost_session_is_dialled_again_a_few_times_a_minute() {
    for state in [Life::up as fn() -> Life, || {
        let mut life = Life::up();
        life.give(Event::Stop(None));
        life
    }] {
        let mut life = state();
        let draining = matches!(life.life.state(), State::Draining { .. });
        for _ in 0..DIALS_MAX {
            assert_eq!(life.give(Event::LinkLost(run(2))), [Act::Dial(run(2))]);
            // A session that is there and lost again at once does not count as one.
            let again = life.link(2, Accord::Full);
            assert_eq!(again, if draining { vec![Act::Drain] } else { vec![] });
        }
        let given_up = life.give(Event::LinkLost(run(2)));
        assert_eq!(given_up, [if draining { Act::Terminate(PID) } else { Act::Kill(PID) }]);
    }
    let mut life = Life::up();
    for _ in 0..10 {
        assert_eq!(life.after(DIALS_PERIOD_MS + 1, Event::LinkLost(run(2))), [Act::Dial(run(2))]);
    }
}

#[test]
fn a_death_that_is_first_seen_as_a_lost_session_still_restarts_at_once() {
    let mut life = Life::up();
    life.give(Event::LinkLost(run(2)));
    for _ in 0..DIALS_MAX {
        life.give(Event::LinkFailed(run(2)));
    }
    assert!(matches!(life.life.state(), State::Killing { .. }));
    life.give(Event::Exited(run(2)));
    assert_eq!(life.give(Event::Swept(run(2), 0)), [Act::Spawn(run(3))]);
    assert_eq!(life.life.restarts(), 1);
}

#[test]
fn the_failed_dial_of_an_old_run_does_not_hurt_the_new_one() {
    let mut life = Life::up();
    life.give(Event::LinkLost(run(2)));
    life.give(Event::Exited(run(2)));
    life.give(Event::Swept(run(2), 0));
    assert_eq!(life.give(Event::LinkFailed(run(2))), []);
    assert_eq!(life.give(Event::LinkFailed(run(0))), []);
    assert!(matches!(life.life.state(), State::Starting { .. }));
}

#[test]
fn a_wedged_worker_is_killed_in_every_state_that_has_one() {
    assert_eq!(Life::up().give(Event::Wedged), [Act::Kill(PID)]);
    let mut life = Life::up();
    life.give(Event::Stop(None));
    assert_eq!(life.give(Event::Wedged), [Act::Kill(PID)]);
    assert_eq!(life.give(Event::Wedged), [], "once is enough");
    assert_eq!(Life::backoff().give(Event::Wedged), []);
}

#[test]
fn what_does_not_end_holds_the_agent_and_is_looked_for_again() {
    let mut life = Life::up();
    life.give(Event::Exited(run(2)));
    assert_eq!(life.give(Event::Swept(run(2), 3)), [Act::Stuck(3)]);
    assert_eq!(life.expire(), [Act::Dial(run(0))], "it may be a worker that was too slow to answer");
    assert_eq!(life.give(Event::LinkFailed(run(0))), [Act::Sweep(run(2))]);
    assert_eq!(life.give(Event::Swept(run(2), 0)), [Act::Spawn(run(3))]);
}

#[test]
fn a_sweep_that_is_never_answered_is_asked_for_again() {
    let mut life = Life::up();
    life.give(Event::Exited(run(2)));
    assert_eq!(life.expire(), [Act::Sweep(run(2))]);
}

#[test]
fn a_worker_that_cannot_start_pauses_and_is_given_up() {
    // Exit 75, a lock that is held, is one of these: never a quick loop.
    let mut life = Life::failed();
    assert_eq!(life.life.deadline(), None);
    assert!(life.now > 2_000, "{} ms of pauses", life.now);
    assert_eq!(life.give(Event::Timeout), []);
    let sweep = life.give(Event::Start);
    assert!(matches!(sweep[..], [Act::Sweep(_)]));
}

#[test]
fn one_that_never_listens_is_given_up_too() {
    let mut life = Life::starting();
    let mut spawned = 1;
    while !matches!(life.life.state(), State::Failed) {
        let present = life.life.process().expect("a run").incarnation;
        life.give(Event::Spawned(present, PID));
        assert_eq!(life.give(Event::LinkFailed(present)), [Act::Kill(PID)]);
        life.give(Event::Exited(present));
        life.give(Event::Swept(present, 0));
        if let State::Backoff { .. } = life.life.state() {
            life.expire();
            let State::Sweeping { incarnation, .. } = *life.life.state() else { panic!() };
            life.give(Event::Swept(incarnation, 0));
            spawned += 1;
        }
        assert!(spawned < 20, "a quick loop");
    }
}

#[test]
fn one_that_leaves_by_itself_is_sent_nothing_and_followed_at_once() {
    let mut life = Life::up();
    assert_eq!(life.give(Event::Leaving(run(1))), [], "an old one's word");
    assert_eq!(life.give(Event::Leaving(run(2))), [Act::Drain]);
    assert!(!life.life.is_up());
    life.give(Event::Exited(run(2)));
    assert_eq!(life.give(Event::Swept(run(2), 0)), [Act::Spawn(run(3))]);
}

#[test]
fn a_failed_one_that_is_stopped_rests() {
    assert_eq!(Life::failed().give(Event::Stop(None)), [Act::Rest { gave_up: false }]);
    assert_eq!(Life::failed().give(Event::Kill), [Act::Rest { gave_up: false }]);
}

/// Everything that can happen; the run is said as how many before the present one it is.
fn event() -> impl Strategy<Value = (u8, u64, u64)> {
    (0u8..25, 0u64..3, 0u64..40_000)
}

fn concrete((what, back, value): (u8, u64, u64), life: &Life) -> Event {
    let present = life.life.process().map_or(life.given, |p| p.incarnation.0);
    let n = run(present.saturating_sub(back));
    let linked = |accord| Event::Linked(linked(n, PID + u32::try_from(n.0).unwrap(), accord));
    match what {
        0 => Event::Start,
        1 => Event::Stop((value % 2 == 0).then_some(value)),
        2 => Event::Kill,
        3..=4 => Event::Spawned(n, PID + u32::try_from(n.0).unwrap()),
        5 => Event::SpawnFailed(n),
        6..=7 => linked(Accord::Full),
        8 => linked(Accord::DrainOnly),
        9 => Event::LinkFailed(n),
        10 => Event::LinkFailed(run(0)),
        11 => Event::LinkLost(n),
        12..=13 => Event::Ready(n),
        14..=15 => Event::Exited(n),
        16..=17 => Event::Swept(n, 0),
        18 => Event::Swept(n, 2),
        19 => Event::Leaving(n),
        20 => Event::Wedged,
        21 => Event::Found(n, PID + u32::try_from(n.0).unwrap()),
        22 => Event::Impostor(n, PID + u32::try_from(n.0).unwrap()),
        23 => Event::Renew(value),
        _ => Event::Timeout,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens(up in any::<bool>(), steps in prop::collection::vec(event(), 0..120)) {
        let mut life = Life::new(up);
        life.life.adopt(0);
        // The run that was swept clean last, and the run that lives by our own doing.
        let mut spawned: Vec<Incarnation> = Vec::new();
        for step in steps {
            let before = life.life.clone();
            let event = concrete(step, &life);
            life.now += step.2;
            let swept_clean = match &event {
                Event::Swept(n, 0) => matches!(before.state(), State::Sweeping { incarnation, .. } if incarnation == n),
                _ => false,
            };
            let old = match &event {
                Event::Spawned(n, _) | Event::SpawnFailed(n) | Event::LinkLost(n) | Event::Ready(n)
                | Event::Exited(n) | Event::Leaving(n) => !before.is_present(*n),
                Event::LinkFailed(n) => n.0 != 0 && !before.is_present(*n),
                _ => false,
            };
            let timeout = event == Event::Timeout;
            let acts = life.give(event.clone());
            if old {
                prop_assert_eq!(&acts, &Vec::new(), "{:?} in {:?}", event, before);
                prop_assert_eq!(before.state(), life.life.state());
            }
            for act in &acts {
                match act {
                    // Never two: a spawn follows a sweep that left nothing, and its run is a new one.
                    Act::Spawn(n) => {
                        prop_assert!(swept_clean, "{:?} in {:?}", event, before);
                        prop_assert!(!spawned.contains(n));
                        spawned.push(*n);
                        prop_assert!(life.life.wanted_up());
                    }
                    Act::Kill(pid) | Act::Terminate(pid) => {
                        prop_assert_eq!(life.life.process().and_then(|p| p.pid), Some(*pid));
                    }
                    Act::Rest { gave_up } => {
                        prop_assert_eq!(*gave_up, matches!(life.life.state(), State::Failed));
                        prop_assert!(life.life.deadline().is_none() && life.life.process().is_none());
                    }
                    Act::Up => prop_assert!(life.life.is_up()),
                    Act::Sweep(_) => prop_assert!(life.life.process().is_none(), "nobody is swept alive"),
                    Act::Dial(_) | Act::Drain | Act::Stuck(_) => {}
                }
            }
            // Rest leads nowhere by itself.
            if timeout && matches!(before.state(), State::Down | State::Failed) {
                prop_assert_eq!(acts, Vec::new());
            }
            match life.life.state() {
                State::Down | State::Failed | State::Up { .. } => {}
                State::Adopting { .. } | State::Sweeping { .. } | State::Starting { .. } | State::Draining { .. }
                | State::Stopping { .. } | State::Killing { .. } | State::Backoff { .. } => {
                    let by = life.life.deadline();
                    prop_assert!(by.is_some());
                }
            }
            // A deadline that has come leads to another one, or to none: no loop.
            if timeout {
                prop_assert!(life.life.deadline().is_none_or(|by| by > life.now), "{:?}", life.life);
            }
        }
    }

    /// Left alone with an obliging world, every life comes to what is wanted.
    #[test]
    fn an_obliging_world_brings_what_is_wanted(up in any::<bool>(), steps in prop::collection::vec(event(), 0..60)) {
        let mut life = Life::new(up);
        life.life.adopt(0);
        for step in steps {
            let event = concrete(step, &life);
            life.now += step.2;
            life.give(event);
        }
        for _ in 0..30 {
            let wanted = life.life.wanted_up();
            let there = |n: Incarnation| Event::Linked(linked(n, PID, Accord::Full));
            match life.life.state().clone() {
                State::Down => prop_assert!(!wanted || life.given == 1),
                State::Failed | State::Up { .. } => {}
                State::Adopting { process: None, .. } => drop(life.give(Event::LinkFailed(run(0)))),
                State::Starting { process: Process { incarnation, pid: None }, .. } => {
                    life.give(Event::Spawned(incarnation, PID));
                    life.give(there(incarnation));
                }
                State::Starting { process, .. } | State::Adopting { process: Some(process), .. } => {
                    life.give(Event::Ready(process.incarnation));
                }
                State::Draining { process, .. } | State::Stopping { process, .. } | State::Killing { process, .. } => {
                    life.give(Event::Exited(process.incarnation));
                }
                State::Sweeping { incarnation, .. } => drop(life.give(Event::Swept(incarnation, 0))),
                State::Backoff { .. } => drop(life.expire()),
            }
        }
        let reached = match life.life.state() {
            State::Up { .. } | State::Failed => life.life.wanted_up(),
            State::Down => !life.life.wanted_up(),
            _ => false,
        };
        prop_assert!(reached, "{:?}", life.life);
    }
}
