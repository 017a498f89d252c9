//! Virtual time and everything in it: what happens next, and to whom.

use super::codex::{Child, Key};
use super::cover::Cover;
use super::dice::Dice;
use super::disk::Disk;
use super::host::{Host, Word};
use super::ledger::Ledger;
use super::link::{Link, Side};
use super::outside::Outside;
use super::serve::{Proc, ToProc};
use super::setup::{NAMES, limits, name, setup};
use super::truth::Truth;
use protocol::to_worker::Limits;
use protocol::{AgentName, Incarnation};
use std::collections::{BTreeMap, VecDeque};
use supervisor::machine::Machine;
use supervisor::machine::nouns::{Now, PostId};
use supervisor::machine::setup::Agent as Policy;
use supervisor::machine::words::Input;

/// Unix milliseconds at the beginning.
const WALL: u64 = 1_790_000_000_000;
/// Timeouts of one machine at one tick that are no busy loop: one of them may bring the next.
const TIMEOUTS_AT_ONCE_MAX: u32 = 20;
/// Lines of the story that are kept.
const STORY_MAX: usize = 120;
/// Bytes of a line of it.
const STORY_LINE_BYTES: usize = 500;

/// How the world is disposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Anything may happen.
    Wild,
    /// Codex says nothing more.
    Silent,
    /// Everything obliges.
    Kind,
}

/// What is to happen at a tick.
#[derive(Debug)]
pub(crate) enum Event {
    /// The oldest batch of this life of the supervisor commits.
    Commit(u64),
    /// A task of this life of the supervisor has a word for it.
    Word(u64, Box<Word>),
    /// A new supervisor starts.
    Boot,
    /// Bytes arrive.
    Bytes(u64, Side, Vec<u8>),
    /// A connection ends.
    Closed(u64, Side),
    /// A worker that was dialled has had time enough for its hello.
    HelloLimit(u64),
    /// A worker process starts, with its nonce.
    Born(u64, AgentName, Incarnation, u64),
    /// It listens.
    Listens(u64, AgentName, Incarnation),
    /// Something reaches a worker process.
    Proc(AgentName, Incarnation, ToProc),
    /// A stopped worker goes on.
    Continue(AgentName, Incarnation),
    /// This life of the supervisor goes on.
    HostContinue(u64),
    /// It takes up the next of what waited for it.
    CatchUp(u64),
    /// A turn of a Codex child goes on.
    Codex(AgentName, Key, String),
    /// A worker process ends.
    Dies(AgentName, u32, &'static str),
    /// What became of a post.
    Delivered(u64, PostId),
    /// The channel hands over an update.
    Update(usize),
    /// Somebody does something.
    Mischief,
}

/// An agent's folder and what lives in it.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub(crate) process: Option<Proc>,
    pub(crate) disk: Disk,
    /// Codex children, those of dead workers with them until a sweep.
    pub(crate) children: BTreeMap<Key, Child>,
    /// No process can be started.
    pub(crate) broken: bool,
    /// No Codex can be started.
    pub(crate) codex_missing: bool,
    /// A start takes so long, in milliseconds.
    pub(crate) slow_ms: u64,
    /// A worker never gets ready.
    pub(crate) deaf: bool,
}

/// The world.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) mood: Mood,
    /// No fault touches this agent, the supervisor or the ledger: its turns must take their usual time.
    pub(crate) calm: Option<AgentName>,
    pub(crate) tick: u64,
    pub(crate) wall_shift: u64,
    queue: BTreeMap<(u64, u64), Event>,
    events: u64,
    timeouts: (u64, u32),
    pub(crate) host: Host,
    pub(crate) ledger: Ledger,
    pub(crate) places: BTreeMap<AgentName, Place>,
    pub(crate) links: BTreeMap<u64, Link>,
    pub(crate) outside: Outside,
    pub(crate) truth: Truth,
    pub(crate) cover: Cover,
    /// What each agent may use.
    pub(crate) limits: Limits,
    /// Agents that are not in the configuration.
    pub(crate) removed: BTreeMap<AgentName, Policy>,
    pub(crate) numbers: u64,
    pub(crate) hash: u64,
    pub(crate) story: Option<VecDeque<String>>,
}

enum Due {
    Host,
    Worker(AgentName),
    Beat(AgentName),
}

impl World {
    pub(crate) fn new(seed: u64, told: bool) -> Self {
        let mut dice = Dice::new(seed);
        let calm = (seed % 4 == 3).then(|| name("b"));
        let setup = setup(&mut dice, calm.is_some());
        let mut world = Self {
            dice,
            mood: Mood::Wild,
            calm,
            tick: 0,
            wall_shift: 0,
            queue: BTreeMap::new(),
            events: 0,
            timeouts: (0, 0),
            host: Host::new(setup),
            ledger: Ledger::default(),
            places: NAMES.iter().map(|n| (name(n), Place::default())).collect(),
            links: BTreeMap::new(),
            outside: Outside::default(),
            truth: Truth::default(),
            cover: Cover::default(),
            limits: if seed % 8 == 5 { limits() } else { Limits::default() },
            removed: BTreeMap::new(),
            numbers: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            story: told.then(VecDeque::new),
        };
        world.later(0, Event::Boot);
        world.later(1, Event::Mischief);
        world
    }

    pub(crate) fn now(&self) -> Now {
        Now { tick: self.tick, wall: WALL + self.tick + self.wall_shift }
    }

    /// The next number of a kind that needs none of its own.
    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Makes `event` happen `ms` later; events of one tick keep their order.
    pub(crate) fn later(&mut self, ms: u64, event: Event) {
        self.at(self.tick + ms, event);
    }

    pub(crate) fn at(&mut self, tick: u64, event: Event) {
        self.events += 1;
        self.queue.insert((tick.max(self.tick), self.events), event);
    }

    /// Puts a step into the story and into the hash of the run.
    pub(crate) fn note(&mut self, word: &str, number: u64, more: impl FnOnce() -> String) {
        for byte in word.bytes().chain(self.tick.to_le_bytes()).chain(number.to_le_bytes()) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        if let Some(story) = &mut self.story {
            if story.len() >= STORY_MAX {
                story.pop_front();
            }
            story.push_back(format!("{:>8} {word} {}", self.tick, protocol::text::clip(&more(), STORY_LINE_BYTES)));
        }
    }

    /// What happens next happens; `false` if nothing ever does, or not before `until`.
    pub(crate) fn step(&mut self, until: u64) -> bool {
        let event = self.queue.first_key_value().map(|((tick, _), _)| *tick);
        let due = self.due();
        let next = event.into_iter().chain(due.as_ref().map(|(tick, _)| *tick)).min();
        let Some(next) = next.filter(|next| *next <= until) else { return false };
        self.tick = self.tick.max(next);
        match due {
            Some((tick, due)) if event.is_none_or(|event| tick <= event) => self.fire(due),
            Some(_) | None => {
                if let Some((_, event)) = self.queue.pop_first() {
                    self.happen(event);
                }
            }
        }
        true
    }

    fn due(&self) -> Option<(u64, Due)> {
        let host = self
            .host
            .machine
            .as_ref()
            .filter(|_| !self.host.is_stopped())
            .and_then(Machine::deadline)
            .map(|(at, _)| (at, Due::Host));
        let workers = self.places.iter().flat_map(|(agent, place)| {
            let process = place.process.as_ref().filter(|process| !process.stopped && !process.left);
            process.into_iter().flat_map(|process| {
                let deadline = process.machine.deadline().map(|(at, _)| at.0.max(process.not_before));
                let deadline = deadline.map(|at| (at, Due::Worker(agent.clone())));
                deadline.into_iter().chain([(process.beat_due(), Due::Beat(agent.clone()))])
            })
        });
        host.into_iter().chain(workers).min_by_key(|(at, _)| *at)
    }

    fn fire(&mut self, due: Due) {
        match due {
            Due::Host => {
                self.timeouts =
                    if self.timeouts.0 == self.tick { (self.tick, self.timeouts.1 + 1) } else { (self.tick, 1) };
                let why = self.host.machine.as_ref().and_then(Machine::deadline);
                assert!(self.timeouts.1 <= TIMEOUTS_AT_ONCE_MAX, "the deadline {why:?} leads nowhere: a busy loop");
                self.give(Input::Timeout);
            }
            Due::Worker(agent) => self.worker_timeout(&agent),
            Due::Beat(agent) => self.beat(&agent),
        }
    }

    fn happen(&mut self, event: Event) {
        let Some(event) = self.for_now(event) else { return };
        self.comes_about(event);
    }

    pub(crate) fn comes_about(&mut self, event: Event) {
        match event {
            Event::Commit(life) => self.commit(life),
            Event::Word(life, word) => self.word(life, *word),
            Event::Boot => self.boot(),
            Event::Bytes(link, side, bytes) => self.bytes(link, side, &bytes),
            Event::Closed(link, side) => self.closed(link, side),
            Event::HelloLimit(link) => self.hello_limit(link),
            Event::Born(life, agent, incarnation, nonce) => self.born(life, &agent, incarnation, nonce),
            Event::Listens(life, agent, incarnation) => self.listens(life, &agent, incarnation),
            Event::Proc(agent, incarnation, what) => self.reach(&agent, incarnation, what),
            Event::Continue(agent, incarnation) => self.go_on(&agent, incarnation),
            Event::HostContinue(life) => self.host_goes_on(life),
            Event::CatchUp(life) => self.catch_up(life),
            Event::Codex(agent, key, run) => self.codex(&agent, key, &run),
            Event::Dies(agent, pid, how) => self.dies(&agent, pid, how),
            Event::Delivered(life, post) => self.delivered(life, post),
            Event::Update(at) => self.hand_over(at),
            Event::Mischief => self.mischief(),
        }
    }

    /// Whether faults may touch an agent.
    pub(crate) fn may_harm(&self, agent: &AgentName) -> bool {
        self.mood == Mood::Wild && self.calm.as_ref() != Some(agent)
    }

    /// Whether faults may touch what all agents share.
    pub(crate) fn may_harm_all(&self) -> bool {
        self.mood == Mood::Wild && self.calm.is_none()
    }
}
