//! The supervisor's process: its machine, and its loop as the daemon drives it.
//!
//! It performs effects as the daemon does: the records of an input commit together, what rests on them comes after, in
//! order; urgent effects come at once. Its death loses all but what was committed; a commit under way may be.

mod pulse;
mod workers;

use super::link::Side;
use super::world::{Event, World};
use protocol::{AgentName, Incarnation};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use supervisor::machine::Machine;
use supervisor::machine::nouns::{CallerId, ReceiptId, Record};
use supervisor::machine::setup::Setup;
use supervisor::machine::words::{Asker, Effect, Input};

/// A word of one of the supervisor's own tasks.
#[derive(Debug)]
pub(crate) enum Word {
    Input(Input),
    /// A dial that began at this tick.
    Dial(AgentName, Incarnation, u64),
    /// The process of an old worker that says no good hello.
    Found(AgentName, Incarnation, u32),
    Sweep(AgentName, Incarnation),
    Recall(Asker),
    Reload(Option<CallerId>),
}

/// What one input brought and is not done.
#[derive(Debug)]
struct Group {
    records: Option<Vec<Record>>,
    effects: Vec<Effect>,
}

/// A worker as the supervisor knows it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) incarnation: Incarnation,
    pid: u32,
    pub(crate) link: Option<u64>,
}

/// The supervisor.
#[derive(Debug)]
pub(crate) struct Host {
    /// Which of the supervisors that follow one another.
    pub(crate) life: u64,
    pub(crate) machine: Option<Machine>,
    pub(crate) setup: Setup,
    /// The number that its release speaks.
    pub(crate) protocol: u16,
    /// Which build of it.
    pub(crate) build: u64,
    /// Commits wait.
    pub(crate) stuck: bool,
    /// It is killed before so many more effects.
    pub(crate) dies_in: Option<u32>,
    pub(crate) heard: BTreeSet<String>,
    pub(crate) receipts: BTreeMap<ReceiptId, usize>,
    pending: VecDeque<Group>,
    pub(crate) seen: BTreeMap<AgentName, Seen>,
    committed_at: u64,
    parked: u32,
    pulse: pulse::Pulse,
}

impl Host {
    pub(crate) fn new(setup: Setup) -> Self {
        Self {
            life: 0,
            machine: None,
            setup,
            protocol: 1,
            build: 1,
            stuck: false,
            dies_in: None,
            heard: BTreeSet::new(),
            receipts: BTreeMap::new(),
            pending: VecDeque::new(),
            seen: BTreeMap::new(),
            committed_at: 0,
            parked: 0,
            pulse: pulse::Pulse::default(),
        }
    }

    pub(crate) fn forget_session(&mut self, agent: &AgentName, link: u64) {
        if let Some(seen) = self.seen.get_mut(agent).filter(|seen| seen.link == Some(link)) {
            seen.link = None;
        }
    }

    /// Whether nothing waits for the ledger.
    pub(crate) fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether its process is stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.pulse.is_stopped()
    }

    /// Whether it has not taken up everything that waited for it.
    pub(crate) fn is_behind(&self) -> bool {
        self.pulse.is_behind()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.machine.as_ref().is_some_and(Machine::is_quiet)
    }
}

impl World {
    /// A supervisor starts from what the ledger remembers.
    pub(crate) fn boot(&mut self) {
        self.note("boot", self.host.life, String::new);
        let seed = self.dice.next();
        let (machine, first) = Machine::recover(self.now(), self.host.setup.clone(), self.ledger.memory(), seed);
        self.host.machine = Some(machine);
        self.host.committed_at = self.tick;
        self.queue(first);
        self.check_host("recovery");
    }

    /// The supervisor ends without a word: what was not committed is lost, but for a commit under way.
    pub(crate) fn kill_host(&mut self) {
        if self.host.machine.take().is_none() {
            return;
        }
        self.note("kill supervisor", self.host.life, String::new);
        let batches = self.host.pending.iter().filter(|group| group.records.is_some()).count();
        let mut done = self.dice.index(batches + 1);
        while let Some(group) = self.host.pending.pop_front() {
            if let Some(records) = group.records.filter(|_| done > 0) {
                done -= 1;
                self.commit_records(records);
            }
        }
        self.host_gone();
    }

    /// What is left of a supervisor that has ended.
    fn host_gone(&mut self) {
        self.host.life += 1;
        self.host.pending.clear();
        self.host.heard.clear();
        self.host.receipts.clear();
        (self.host.dies_in, self.host.parked, self.host.stuck) = (None, 0, false);
        self.outside.callers_lost();
        self.host.seen.clear();
        self.host.pulse = pulse::Pulse::default();
        self.lose_a_record();
        let open: Vec<u64> = self.links.iter().filter(|(_, link)| link.host_open).map(|(id, _)| *id).collect();
        for link in open {
            self.close(link, Side::Host);
        }
        let pause = self.dice.roll(3_000);
        self.later(pause, Event::Boot);
    }

    /// Gives the machine an input and looks whether it still keeps its promises.
    pub(crate) fn give(&mut self, input: Input) {
        if self.host.machine.is_none() {
            return;
        }
        let Some(input) = self.on_time(input) else { return };
        let before = self.before(&input);
        let now = self.now();
        let mut effects = Vec::new();
        let word = super::cover::input_word(&input);
        self.note("supervisor", 0, || format!("<- {input:?}"));
        if let Some(machine) = &mut self.host.machine {
            machine.handle(now, input, &mut effects);
        }
        self.after(&before, &effects);
        self.note(word, effects.len() as u64, || format!("-> {effects:?}"));
        self.queue(effects);
        self.check_host(word);
    }

    /// As the daemon does it.
    fn queue(&mut self, effects: Vec<Effect>) {
        let life = self.host.life;
        let none = !effects.iter().any(|effect| matches!(effect, Effect::Record(_)));
        let mut group = Group { records: None, effects: Vec::new() };
        let mut at_once = Vec::new();
        for effect in effects {
            match effect {
                Effect::Record(record) => group.records.get_or_insert_default().push(record),
                effect @ Effect::Reply(..) if none => at_once.push(effect),
                effect if effect.is_urgent() => at_once.push(effect),
                effect => group.effects.push(effect),
            }
        }
        if group.records.is_some() {
            let delay =
                if self.may_harm_all() && self.dice.one_in(30) { self.dice.roll(500) } else { self.dice.roll(3) };
            self.host.committed_at = self.host.committed_at.max(self.tick + delay);
            self.at(self.host.committed_at, Event::Commit(life));
        }
        if group.records.is_some() || !group.effects.is_empty() {
            self.host.pending.push_back(group);
        }
        for effect in at_once {
            if self.host.life == life {
                self.perform(effect);
            }
        }
        self.flush(life);
    }

    /// What waits for no commit is performed.
    fn flush(&mut self, life: u64) {
        while self.host.life == life && self.host.pending.front().is_some_and(|group| group.records.is_none()) {
            let Some(group) = self.host.pending.pop_front() else { return };
            for effect in group.effects {
                if self.host.life == life {
                    self.perform(effect);
                }
            }
        }
    }

    /// The oldest batch is in the ledger: what rests on it follows.
    pub(crate) fn commit(&mut self, life: u64) {
        if life != self.host.life || self.host.machine.is_none() {
            return;
        }
        if self.host.stuck {
            self.host.parked += 1;
            return;
        }
        let Some(front) = self.host.pending.front_mut() else { return };
        let records = front.records.take().expect("a batch at the front");
        self.commit_records(records);
        self.flush(life);
    }

    /// The ledger can be written again.
    pub(crate) fn unstick(&mut self) {
        self.host.stuck = false;
        for _ in 0..std::mem::take(&mut self.host.parked) {
            self.later(0, Event::Commit(self.host.life));
        }
    }

    /// A word of a task of the supervisor, after a while.
    pub(crate) fn soon(&mut self, ms: u64, word: Word) {
        self.later(ms, Event::Word(self.host.life, Box::new(word)));
    }

    pub(crate) fn tell_host(&mut self, input: Input) {
        let pause = self.dice.roll(3);
        self.soon(pause, Word::Input(input));
    }

    pub(crate) fn word(&mut self, life: u64, word: Word) {
        if life != self.host.life || self.host.machine.is_none() {
            return;
        }
        match word {
            Word::Input(input) => self.give(input),
            Word::Dial(agent, incarnation, since) => self.dial(&agent, incarnation, Some(since)),
            Word::Found(agent, incarnation, pid) => self.found(agent, incarnation, pid),
            Word::Sweep(agent, incarnation) => self.sweep(&agent, incarnation),
            Word::Recall(asker) => {
                let found = match &asker {
                    Asker::Caller(_, id) => self.ledger.recall(*id),
                    Asker::Chat(_, conversation, _) => self.ledger.latest(conversation),
                };
                self.give(Input::Recalled(asker, found.map(Box::new)));
            }
            Word::Reload(caller) => self.reload(caller),
        }
    }

    /// Performs one effect, or dies before it.
    fn perform(&mut self, effect: Effect) {
        if let Some(left) = &mut self.host.dies_in {
            if *left == 0 {
                return self.kill_host();
            }
            *left -= 1;
        }
        self.check_effect(&effect);
        match effect {
            Effect::Receipt(receipt) => self.receipt(receipt),
            Effect::Reply(caller, reply) => self.reply(caller, &reply),
            Effect::Look(caller, _) => self.outside.answered(caller),
            Effect::Recall(asker) => {
                let pause = self.dice.roll(20);
                self.soon(pause, Word::Recall(asker));
            }
            Effect::Spawn(agent, incarnation, nonce) => self.spawn(agent, incarnation, nonce),
            Effect::Dial(agent, incarnation) => {
                let pause = self.dice.roll(3);
                self.soon(pause, Word::Dial(agent, incarnation, self.tick + pause));
            }
            Effect::Tell(agent, message) => self.tell(&agent, &message),
            Effect::Configure(agent) => self.configure(&agent),
            Effect::Terminate(agent, pid) => self.signal(&agent, pid, false),
            Effect::Kill(agent, pid) => self.signal(&agent, pid, true),
            Effect::Sweep(agent, incarnation) => {
                self.host.seen.remove(&agent);
                let pause = 1 + self.dice.roll(30);
                self.soon(pause, Word::Sweep(agent, incarnation));
            }
            Effect::ReadOut(agent, incarnation) => {
                // What has arrived is heard as it arrives; a session that is throttled takes its time.
                let pause = self.dice.roll(250);
                self.soon(pause, Word::Input(Input::ReadOut(agent, incarnation)));
            }
            Effect::Hear(bot, _) => self.hear(bot),
            Effect::Unhear(bot) => drop(self.host.heard.remove(&bot)),
            Effect::Deliver(post) => self.deliver(post),
            Effect::Reload(caller) => self.soon(1, Word::Reload(caller)),
            Effect::Exit => self.exit(),
            // Records were taken out before; the rest changes nothing here, or is wanted of nobody here.
            Effect::Record(_)
            | Effect::EditStatus { .. }
            | Effect::Typing(_)
            | Effect::Upgrade(..)
            | Effect::Host(..)
            | Effect::Clear(_) => {}
        }
    }

    /// It leaves in order: everything commits, and what rests on it is performed.
    fn exit(&mut self) {
        self.note("exit", self.host.life, String::new);
        let life = self.host.life;
        self.host.machine = None;
        while let Some(group) = self.host.pending.pop_front() {
            self.commit_records(group.records.unwrap_or_default());
            for effect in group.effects {
                if self.host.life == life {
                    self.perform(effect);
                }
            }
        }
        if self.host.life == life {
            self.host_gone();
        }
    }
}
