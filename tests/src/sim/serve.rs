//! A worker's process: its machine, and its loop as the driver drives it.
//!
//! It performs effects as the driver does, in their order; a journal that cannot be written ends it, and it can be killed
//! between any two effects, in the middle of a record too. What reaches a stopped process waits for it.

mod look;
mod talk;

use super::codex::Key;
use super::host::Word;
use super::link::Side;
use super::world::{Event, World};
use protocol::from_worker::{Beat, Isolation, Progress};
use protocol::hello::{Accord, Hello, Role};
use protocol::journal::{Record, Standing};
use protocol::{AgentName, AttemptId, FromWorker, Incarnation};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use supervisor::machine::nouns::Identity;
use supervisor::machine::words::Input as HostInput;
use worker::machine::Machine;
use worker::machine::io::{Effect, Input, Rollout, SpawnFailure, Tick};

/// Between two beats while something runs, in milliseconds.
const BEAT_BUSY_MS: u64 = 2_000;
/// Longest pause between two beats, in milliseconds.
const BEAT_MS_MAX: u64 = 30_000;
/// Beats within the time after which a silent worker is given up.
const BEATS_PER_TIMEOUT: u64 = 3;
/// News that are kept while there is no supervisor.
const WAITING_MAX: usize = 256;

/// What reaches a worker process.
#[derive(Debug)]
pub(crate) enum ToProc {
    Hello(u64, FromWorker),
    Bytes(u64, Vec<u8>),
    Closed(u64),
    Child(Input),
    Terminate,
}

/// A worker process.
#[derive(Debug)]
pub(crate) struct Proc {
    pub(crate) incarnation: Incarnation,
    pub(crate) identity: Identity,
    pub(crate) protocol: u16,
    build: u64,
    pub(crate) nonce: u64,
    pub(crate) machine: Machine,
    pub(crate) listening: bool,
    /// Stopped by SIGSTOP.
    pub(crate) stopped: bool,
    /// When it last went on.
    pub(crate) went_on_at: u64,
    pub(crate) left: bool,
    /// The life of the supervisor that will hear of its end.
    pub(crate) watched_by: Option<u64>,
    /// It is killed before so many more effects.
    pub(crate) dies_in: Option<u32>,
    pub(crate) not_before: u64,
    pub(crate) session: Option<(u64, Accord)>,
    linked: bool,
    recovered: Vec<Standing>,
    journaled: BTreeSet<AttemptId>,
    waiting: VecDeque<FromWorker>,
    /// The latest progress of each running attempt, told again to a new supervisor.
    latest: BTreeMap<AttemptId, Progress>,
    backlog: VecDeque<ToProc>,
    beat_due: u64,
}

impl Proc {
    /// When it beats next.
    pub(crate) fn beat_due(&self) -> u64 {
        self.beat_due
    }

    fn beat_pause_ms(&self) -> u64 {
        let busy = self.machine.running() > 0 || self.machine.children() > 0;
        let longest = if busy { BEAT_BUSY_MS } else { BEAT_MS_MAX };
        (self.machine.heartbeat_ms() / BEATS_PER_TIMEOUT).min(longest)
    }

    /// What it says first to whoever dials.
    pub(crate) fn hello(&self, agent: &AgentName) -> Hello {
        let (protocol, nonce, build) = (self.protocol, self.nonce, self.build.to_string());
        Hello { protocol, nonce, build, ..Hello::new(Role::Worker, agent.clone(), self.incarnation) }
    }
}

/// Whether a process lives on after an effect.
type Alive<T> = Result<T, Dead>;
pub(crate) struct Dead;

impl World {
    fn process(&mut self, agent: &AgentName, incarnation: Incarnation) -> Option<&mut Proc> {
        let process = self.places.get_mut(agent)?.process.as_mut();
        process.filter(|process| process.incarnation == incarnation && !process.left)
    }

    /// A worker process starts: it reads the journal, then listens.
    pub(crate) fn born(&mut self, life: u64, agent: &AgentName, incarnation: Incarnation, given: u64) {
        if life != self.host.life || self.host.machine.is_none() {
            return;
        }
        let pid = 1_000 + u32::try_from(self.number()).expect("few");
        self.note("born", u64::from(pid), || format!("{agent} {incarnation}"));
        let (protocol, build, now) = (self.host.protocol, self.host.build, self.tick);
        let identity = Identity { boot: 1, pid, inode: u64::from(pid), started: now };
        let wrong = self.may_harm(agent) && self.dice.one_in(60);
        let nonce = if wrong { given ^ 1 } else { given };
        if wrong {
            self.cover.fault("a worker says another nonce");
        }
        let place = self.places.get_mut(agent).expect("a place");
        assert!(place.process.is_none(), "a second process of {agent}: {incarnation}");
        assert!(place.children.is_empty(), "{incarnation} of {agent} starts beside {:?}", place.children.keys());
        let reading = place.disk.open();
        let mut machine = Machine::new(incarnation.0);
        machine.set_isolation(Isolation::Namespace);
        place.process = Some(Proc {
            incarnation,
            identity,
            protocol,
            build,
            nonce,
            machine,
            listening: false,
            stopped: false,
            went_on_at: now,
            left: false,
            watched_by: Some(life),
            dies_in: None,
            not_before: 0,
            session: None,
            linked: false,
            recovered: reading.open.into_values().collect(),
            journaled: BTreeSet::new(),
            waiting: VecDeque::new(),
            latest: BTreeMap::new(),
            backlog: VecDeque::new(),
            beat_due: now,
        });
        self.host_knows(agent, incarnation, identity);
        let pause = 1 + self.dice.roll(8);
        self.later(pause, Event::Listens(life, agent.clone(), incarnation));
    }

    /// A worker process ends, by a signal or by itself.
    pub(crate) fn dies(&mut self, agent: &AgentName, pid: u32, how: &'static str) {
        let Some(process) = self.places.get(agent).and_then(|place| place.process.as_ref()) else { return };
        if process.identity.pid == pid {
            self.die(agent, how);
        }
    }

    pub(crate) fn die(&mut self, agent: &AgentName, how: &'static str) {
        let place = self.places.get_mut(agent).expect("a place");
        let Some(process) = place.process.take() else { return };
        self.note("dies", u64::from(process.identity.pid), || format!("{agent} {} {how}", process.incarnation));
        let with_it = how == "left" || self.dice.one_in(2);
        let place = self.places.get_mut(agent).expect("a place");
        if with_it {
            place.children.clear();
        } else if !place.children.is_empty() {
            self.cover.fault("Codex goes on after its worker");
        }
        let open = self.links.iter().filter(|(_, link)| link.worker_open && link.agent == *agent);
        let open: Vec<u64> =
            open.filter(|(_, link)| link.incarnation == process.incarnation).map(|(id, _)| *id).collect();
        for link in open {
            self.close(link, Side::Worker);
        }
        if process.watched_by == Some(self.host.life) {
            let pause = if self.may_harm(agent) { self.dice.roll(40) } else { 1 };
            let word = Word::Input(HostInput::Exited(agent.clone(), process.incarnation, how.to_owned()));
            self.soon(pause, word);
        }
    }

    /// Something reaches a process, at once or when it goes on.
    pub(crate) fn reach(&mut self, agent: &AgentName, incarnation: Incarnation, what: ToProc) {
        let Some(process) = self.process(agent, incarnation) else { return };
        if process.stopped {
            process.backlog.push_back(what);
            return;
        }
        match what {
            ToProc::Hello(link, hello) => self.send(link, Side::Host, &hello.to_frame().expect("a frame")),
            ToProc::Bytes(link, bytes) => self.worker_reads(link, &bytes),
            ToProc::Closed(link) => {
                if process.session.is_some_and(|(session, _)| session == link) {
                    process.session = None;
                    self.unlink(agent, incarnation);
                }
            }
            ToProc::Child(input) => self.take(agent, incarnation, input),
            ToProc::Terminate => self.take(agent, incarnation, Input::Terminate),
        }
    }

    /// A stopped process goes on with what waited for it.
    pub(crate) fn go_on(&mut self, agent: &AgentName, incarnation: Incarnation) {
        let now = self.tick;
        let Some(process) = self.process(agent, incarnation) else { return };
        (process.stopped, process.went_on_at) = (false, now);
        for what in std::mem::take(&mut process.backlog) {
            self.reach(agent, incarnation, what);
        }
    }

    pub(crate) fn worker_timeout(&mut self, agent: &AgentName) {
        let Some(process) = self.places.get_mut(agent).and_then(|place| place.process.as_mut()) else { return };
        // A deadline that stays due waits a millisecond.
        process.not_before = self.tick + 1;
        let incarnation = process.incarnation;
        self.take(agent, incarnation, Input::Timeout);
    }

    pub(crate) fn beat(&mut self, agent: &AgentName) {
        let now = self.tick;
        let Some(process) = self.places.get_mut(agent).and_then(|place| place.process.as_mut()) else { return };
        process.beat_due = now + process.beat_pause_ms();
        let beat = Beat { running: process.machine.running(), children: process.machine.children() };
        let incarnation = process.incarnation;
        if process.linked {
            self.say(agent, incarnation, FromWorker::Beat(beat));
        }
    }

    /// One input and what it answers at once.
    pub(crate) fn take(&mut self, agent: &AgentName, incarnation: Incarnation, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let now = Tick(self.tick);
            let Some(process) = self.process(agent, incarnation) else { return };
            let standings = process.machine.standings();
            self.cover.worker(&standings, &input);
            self.note("worker", 0, || format!("{agent} {incarnation} <- {input:?}"));
            let Some(process) = self.process(agent, incarnation) else { return };
            let mut effects = Vec::new();
            process.machine.handle(now, input, &mut effects);
            self.note("worker", effects.len() as u64, || format!("{agent} {incarnation} -> {effects:?}"));
            for effect in effects {
                match self.act(agent, incarnation, effect) {
                    Ok(answer) => inputs.extend(answer),
                    Err(Dead) => return,
                }
            }
            if let Some(process) = self.process(agent, incarnation) {
                process.beat_due = process.beat_due.min(now.0 + process.beat_pause_ms());
            }
            self.check_worker(agent);
        }
    }

    fn act(&mut self, agent: &AgentName, incarnation: Incarnation, effect: Effect) -> Alive<Option<Input>> {
        let cut = self.dice.index(40);
        let Some(process) = self.process(agent, incarnation) else { return Err(Dead) };
        if let Some(left) = &mut process.dies_in {
            if *left == 0 {
                if let Effect::Journal(record) = &effect {
                    self.cover.fault("torn journal");
                    self.places.get_mut(agent).expect("a place").disk.tear(record, cut);
                }
                self.die(agent, "killed by signal 9");
                return Err(Dead);
            }
            *left -= 1;
        }
        if effect == Effect::Leave {
            self.leave(agent, incarnation);
            return Ok(None);
        }
        if let Effect::End(child) = effect {
            self.end_codex(agent, Key(incarnation, child), false);
            return Ok(None);
        }
        match effect {
            Effect::Journal(record) => self.journal(agent, &record)?,
            Effect::Spawn(child, spec) => return Ok(self.spawn_codex(agent, Key(incarnation, child), &spec)),
            Effect::Write(child, line) => self.codex_reads(agent, Key(incarnation, child), &line),
            Effect::Kill(child) => self.end_codex(agent, Key(incarnation, child), true),
            Effect::ReadRollout { attempt, thread, from_bytes } => {
                let deeds = self.places[agent].disk.deeds(&thread, from_bytes);
                if self.may_harm(agent) && self.dice.one_in(20) {
                    self.cover.fault("slow rollout");
                    return Ok(None);
                }
                let deeds = deeds.filter(|_| !self.dice.one_in(20));
                let read = deeds.is_some();
                let ran = deeds.unwrap_or_default();
                let rollout = Rollout { read, only_words: read && ran.is_empty(), ran };
                return Ok(Some(Input::RolloutRead(attempt, rollout)));
            }
            Effect::Tell(news) => {
                self.check_news(agent, &news);
                self.say(agent, incarnation, news);
            }
            Effect::Finish(mut end, text) => {
                if self.process(agent, incarnation).is_some_and(|process| process.journaled.insert(end.attempt)) {
                    end.text = protocol::Text::Inline(text);
                    self.journal(agent, &Record::Ended(end.clone()))?;
                }
                self.say(agent, incarnation, FromWorker::Finished(end));
            }
            Effect::Look(child, threads) => {
                let vitals = self.vitals(agent, Key(incarnation, child), &threads);
                return Ok(Some(Input::Looked(child, Box::new(vitals))));
            }
            Effect::Measure => return Ok(Some(Input::Measured(self.sample(agent, incarnation)))),
            Effect::LookAtDisk => self.look_at_disk(agent, incarnation),
            Effect::PruneLogs => self.prune_logs(agent, incarnation),
            // No run is as long as a rollout must lie to be old.
            Effect::FindOld(_) => return Ok(Some(Input::OldFound(Vec::new()))),
            Effect::Leave | Effect::End(_) => panic!("the ends stand above"),
        }
        Ok(None)
    }

    /// A record is on disk when this returns; a worker that cannot write ends.
    fn journal(&mut self, agent: &AgentName, record: &Record) -> Alive<()> {
        let place = self.places.get_mut(agent).expect("a place");
        if place.disk.append(record) {
            return Ok(());
        }
        self.cover.fault("journal ENOSPC");
        place.children.clear();
        self.die(agent, "exit code 74");
        Err(Dead)
    }

    fn say(&mut self, agent: &AgentName, incarnation: Incarnation, news: FromWorker) {
        let Some(process) = self.process(agent, incarnation) else { return };
        process.remember(&news);
        let Some((link, accord)) = process.session.filter(|_| process.linked) else {
            if matches!(news, FromWorker::Steered(_) | FromWorker::Note(_) | FromWorker::Alert(_)) {
                if process.waiting.len() >= WAITING_MAX {
                    process.waiting.pop_front();
                }
                process.waiting.push_back(news);
            }
            return;
        };
        let ends = matches!(news, FromWorker::Finished(_));
        if accord == Accord::Full || ends {
            let frame = news.to_frame().expect("a frame");
            self.send(link, Side::Host, &frame);
            if ends && self.may_harm(agent) && self.dice.one_in(8) {
                self.cover.fault("outcome told twice");
                self.send(link, Side::Host, &frame);
            }
        }
    }

    fn leave(&mut self, agent: &AgentName, incarnation: Incarnation) {
        let Some(process) = self.process(agent, incarnation) else { return };
        process.left = true;
        let pid = process.identity.pid;
        let pause = 1 + self.dice.roll(20);
        self.later(pause, Event::Dies(agent.clone(), pid, "left"));
    }

    /// An attempt for whose child no program can be started.
    pub(crate) fn no_codex(&mut self, agent: &AgentName, key: Key) -> Option<Input> {
        if !self.places[agent].codex_missing {
            return None;
        }
        let failure = if self.dice.one_in(2) {
            SpawnFailure::Missing("codex: not found".into())
        } else {
            SpawnFailure::Failed("codex: cannot be run".into())
        };
        self.cover.fault("Codex cannot be started");
        Some(Input::SpawnFailed(key.1, failure))
    }
}
