//! A small world around the machine: ledger, workers, channel, command line and time, all virtual.
//!
//! It performs effects as the daemon does: the records of an input commit together, what rests on them comes after, in
//! order; urgent effects come at once. Words of our own tasks come in order, news of each worker in theirs.

use super::ledger::Ledger;
use super::worker::{Place, Process};
use crate::machine::lifecycle::State;
use crate::machine::nouns::*;
use crate::machine::setup::{Agent as Policy, Bot as BotPolicy, QueueMode, Setup};
use crate::machine::words::{Asker, Delivery, Effect, Input, Linked, Swept};
use crate::machine::{Caller, Going, Machine, Stage};
use protocol::control::{Reply, Request, Send, SendEvent};
use protocol::hello::Accord;
use protocol::{AgentName, AttemptId, FailureClass, Incarnation, Outcome, Route, Runtime, Text, ToWorker, TurnId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub const WALL: u64 = 1_790_000_000_000;
pub const FRIEND: i64 = 11;
pub const OWNER: i64 = 1;

/// A word of one of our own tasks.
pub enum Word {
    Input(Input),
    /// A dial is answered, by whoever lives there then.
    Dialled(AgentName, Incarnation),
    /// A sweep looks.
    Sweep(AgentName, Incarnation),
    Recall(Asker),
    /// A silent worker's socket is read out.
    ReadOut(AgentName, Incarnation),
}

pub struct Group {
    pub records: Vec<Record>,
    pub effects: Vec<Effect>,
}

pub struct World {
    pub machine: Machine,
    pub setup: Setup,
    pub tick: u64,
    pub ledger: Ledger,
    pub pending: VecDeque<Group>,
    pub words: VecDeque<Word>,
    pub places: BTreeMap<AgentName, Place>,
    pub replies: BTreeMap<CallerId, Vec<Reply>>,
    pub in_flight: Vec<Post>,
    pub typing: u32,
    pub edits: Vec<String>,
    /// Everything that a bot was ever sent; whether its receipt was given.
    pub channel: Vec<(Update, bool)>,
    /// Receipts that are awaited, with the place in the channel.
    pub receipts: BTreeMap<ReceiptId, usize>,
    pub heard: BTreeSet<String>,
    pub gone: bool,
    /// Whether a begun turn starts by itself.
    pub starts: bool,
    /// Agents whose processes cannot be started.
    pub broken: BTreeSet<AgentName>,
    callers: u64,
    last_receipt: u64,
    pids: u32,
    messages: i64,
}

pub fn name(name: &str) -> AgentName {
    AgentName::parse(name).unwrap()
}

pub fn route(runtime: Runtime, model: &str) -> Route {
    Route { runtime, provider: "openai".into(), model: model.into() }
}

/// The process of a number: nobody reuses one here.
pub fn identity(pid: u32) -> Identity {
    Identity { boot: 1, pid, inode: u64::from(pid), started: 1 }
}

/// What a living worker says of itself.
pub fn linked(process: &Process) -> Linked {
    Linked {
        incarnation: process.incarnation,
        pid: process.pid,
        accord: Accord::Full,
        nonce: process.nonce,
        identity: identity(process.pid),
        protocol: 1,
        build: "now".into(),
        outdated: process.outdated,
    }
}

/// Two agents with a bot each.
pub fn setup() -> Setup {
    let policy = Policy {
        routes: vec![route(Runtime::Codex, "first"), route(Runtime::CodexCli, "sec_ond")],
        max_turns: 3,
        queue_max: 4,
        queue: QueueMode::Queue,
        stop_grace_ms: 5_000,
        turn_ms: 3_600_000,
        heartbeat_ms: 15_000,
        served: 0,
    };
    let bot = |agent| BotPolicy { agent: name(agent), allow: [FRIEND].into(), owners: [OWNER].into(), heard: 0 };
    Setup {
        max_turns: 4,
        starts_max: 4,
        alert_after: 3,
        agents: BTreeMap::from([(name("a"), policy.clone()), (name("b"), policy)]),
        bots: BTreeMap::from([("abot".to_owned(), bot("a")), ("bbot".to_owned(), bot("b"))]),
    }
}

impl World {
    /// Two agents that are up.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = setup();
        change(&mut setup);
        let mut world = Self::asleep(setup);
        world.settle();
        world
    }

    /// Nothing has happened yet.
    pub fn asleep(setup: Setup) -> Self {
        let now = Now { tick: 0, wall: WALL };
        let (machine, first) = Machine::recover(now, setup.clone(), Memory::default(), 1);
        let mut world = Self {
            machine,
            tick: 0,
            ledger: Ledger::default(),
            pending: VecDeque::new(),
            words: VecDeque::new(),
            places: setup.agents.keys().map(|n| (n.clone(), Place::default())).collect(),
            replies: BTreeMap::new(),
            in_flight: Vec::new(),
            typing: 0,
            edits: Vec::new(),
            channel: Vec::new(),
            receipts: BTreeMap::new(),
            heard: BTreeSet::new(),
            gone: false,
            starts: true,
            broken: BTreeSet::new(),
            callers: 0,
            last_receipt: 0,
            pids: 1_000,
            messages: 0,
            setup,
        };
        world.queue(first);
        world
    }

    pub fn now(&self) -> Now {
        Now { tick: self.tick, wall: WALL + self.tick }
    }

    /// Gives the machine an input and looks whether it still keeps its promises.
    pub fn give(&mut self, input: Input) {
        let mut effects = Vec::new();
        let after = input.clone();
        self.machine.handle(self.now(), input, &mut effects);
        self.queue(effects);
        self.check(&after);
    }

    /// As the daemon does it.
    fn queue(&mut self, effects: Vec<Effect>) {
        let none = !effects.iter().any(|effect| matches!(effect, Effect::Record(_)));
        let mut group = Group { records: Vec::new(), effects: Vec::new() };
        for effect in effects {
            match effect {
                Effect::Record(record) => group.records.push(record),
                effect @ Effect::Reply(..) if none => self.perform(effect),
                effect if effect.is_urgent() => self.perform(effect),
                effect => group.effects.push(effect),
            }
        }
        self.pending.push_back(group);
    }

    /// Commits the oldest batch and performs what rests on it.
    pub fn commit(&mut self) -> bool {
        let Some(group) = self.pending.pop_front() else { return false };
        self.ledger.commit(group.records);
        group.effects.into_iter().for_each(|effect| self.perform(effect));
        true
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Record(_) | Effect::Look(..) | Effect::Configure(_) | Effect::Reload(_) | Effect::Upgrade(..) => {}
            Effect::Receipt(receipt) => {
                let at = self.receipts.remove(&receipt).expect("a receipt that is awaited");
                let update = &self.channel[at].0;
                let known = |u: &NewUpdate| u.update.bot == update.bot && u.update.external == update.external;
                let known = self.ledger.updates.values().any(|(u, _)| known(u));
                assert!(
                    known || !self.setup.bots.contains_key(&update.bot),
                    "{update:?} is confirmed and not recorded"
                );
                self.channel[at].1 = true;
            }
            Effect::Reply(caller, reply) => self.reply(caller, reply),
            Effect::Recall(asker) => self.words.push_back(Word::Recall(asker)),
            Effect::Spawn(agent, incarnation, nonce) => self.spawn(&agent, incarnation, nonce),
            Effect::Dial(agent, incarnation) => self.words.push_back(Word::Dialled(agent, incarnation)),
            Effect::ReadOut(agent, incarnation) => self.words.push_back(Word::ReadOut(agent, incarnation)),
            Effect::Sweep(agent, incarnation) => self.words.push_back(Word::Sweep(agent, incarnation)),
            Effect::Tell(agent, word) => {
                if let ToWorker::Begin(begin) = &word {
                    let (new, end) = &self.ledger.attempts[&begin.attempt];
                    assert!(end.is_none() && new.turn == begin.turn && new.thread == begin.thread, "{begin:?}");
                }
                self.places.get_mut(&agent).expect("an agent's folder").take(word);
            }
            Effect::Terminate(agent, pid) => {
                if self.process(&agent).is_some_and(|p| p.pid == pid) && !self.places[&agent].stopped {
                    self.leave(&agent);
                }
            }
            Effect::Kill(agent, pid) => {
                if self.process(&agent).is_some_and(|p| p.pid == pid) {
                    self.die(&agent, "killed by signal 9");
                }
            }
            Effect::Hear(bot, _) => drop(self.heard.insert(bot)),
            Effect::Unhear(bot) => drop(self.heard.remove(&bot)),
            Effect::Deliver(post) => {
                assert!(self.ledger.posts.contains_key(&post.id), "{post:?} is sent and not recorded");
                assert!(!self.in_flight.iter().any(|p| p.to == post.to), "two posts in one chat at once");
                self.in_flight.push(post);
            }
            Effect::EditStatus { text, .. } => self.edits.push(text),
            Effect::Typing(_) => self.typing += 1,
            Effect::Host(caller, guests) => {
                let policy = self.setup.agents[&name("a")].clone();
                let policies = guests.agents.into_iter().map(|guest| (guest.agent, policy.clone())).collect();
                self.words.push_back(Word::Input(Input::Hosted(caller, policies)));
            }
            Effect::Clear(agent) => {
                let place = self.places.remove(&agent).expect("a guest's folder");
                assert!(place.process.is_none(), "{agent} is cleared while it runs");
                self.words.push_back(Word::Input(Input::Cleared(agent)));
            }
            Effect::Exit => self.gone = true,
        }
    }

    fn reply(&mut self, caller: CallerId, reply: Reply) {
        match &reply {
            Reply::Event(SendEvent::Accepted { turn }) => assert!(self.ledger.turns.contains_key(turn)),
            Reply::Event(SendEvent::Finished(event)) => assert!(self.ledger.turns[&event.turn].end.is_some()),
            _ => {}
        }
        let said = self.replies.entry(caller).or_default();
        let over = said.iter().any(|r| matches!(r, Reply::Done | Reply::Refused(_)));
        assert!(!over, "{caller:?} has its last answer and gets {reply:?}");
        said.push(reply);
    }

    fn spawn(&mut self, agent: &AgentName, incarnation: Incarnation, nonce: u64) {
        assert!(self.ledger.incarnations.contains(&incarnation.0), "{incarnation} runs and is not recorded");
        if self.broken.contains(agent) {
            let why = "no such program".to_owned();
            return self.words.push_back(Word::Input(Input::SpawnFailed(agent.clone(), incarnation, why)));
        }
        self.pids += 1;
        let place = self.places.entry(agent.clone()).or_default();
        assert!(place.process.is_none(), "a second process of {agent}");
        place.process = Some(Process {
            incarnation,
            pid: self.pids,
            nonce,
            outdated: false,
            session: false,
            draining: false,
            knows: false,
            turns: BTreeMap::new(),
        });
        place.stopped = false;
        self.words.push_back(Word::Input(Input::Spawned(agent.clone(), incarnation, identity(self.pids))));
        self.words.push_back(Word::Dialled(agent.clone(), incarnation));
    }

    pub fn process(&self, agent: &AgentName) -> Option<&Process> {
        self.places.get(agent)?.process.as_ref()
    }

    /// A process ends, whatever it did.
    pub fn die(&mut self, agent: &AgentName, how: &str) {
        let place = self.places.get_mut(agent).expect("an agent's folder");
        let Some(process) = place.process.take() else { return };
        place.said.clear();
        place.stopped = false;
        let incarnation = process.incarnation;
        if process.session {
            self.words.push_back(Word::Input(Input::LinkLost(agent.clone(), incarnation, "closed".into())));
        }
        self.words.push_back(Word::Input(Input::Exited(agent.clone(), incarnation, how.into())));
    }

    /// A process is told to end: what runs fails, and it goes once that was heard.
    fn leave(&mut self, agent: &AgentName) {
        let place = self.places.get_mut(agent).expect("an agent's folder");
        for (attempt, _) in place.running() {
            place.end(attempt, Outcome::Failed(FailureClass::Shutdown), "everything ends");
        }
        if let Some(process) = &mut place.process {
            process.draining = true;
        }
    }

    pub fn lose_session(&mut self, agent: &AgentName) {
        let place = self.places.get_mut(agent).expect("an agent's folder");
        let Some(process) = place.process.as_mut().filter(|p| p.session) else { return };
        process.session = false;
        place.said.clear();
        let lost = Input::LinkLost(agent.clone(), process.incarnation, "lost".into());
        self.words.push_back(Word::Input(lost));
    }

    /// Delivers the next word of our own tasks.
    pub fn word(&mut self) -> bool {
        let Some(word) = self.words.pop_front() else { return false };
        match word {
            Word::Input(input) => self.give(input),
            Word::Dialled(agent, asked) => {
                let place = self.places.entry(agent.clone()).or_default();
                let fits = |p: &&Process| asked.0 == 0 || p.incarnation == asked;
                let found = place.process.as_ref().filter(fits).map(linked).filter(|_| !place.stopped);
                if let Some(linked) = found {
                    place.link();
                    self.give(Input::Linked(agent, linked));
                } else {
                    self.give(Input::LinkFailed(agent, asked, "nobody answers".into()));
                }
            }
            Word::Sweep(agent, incarnation) => {
                let place = self.places.entry(agent.clone()).or_default();
                let held = place.process.is_some();
                let journal = (!held).then(|| place.reading());
                let swept = Swept { ended: 0, left: u32::from(held), journal };
                self.give(Input::Swept(agent, incarnation, swept));
            }
            Word::ReadOut(agent, incarnation) => {
                // What it said before it was stopped is read before the answer.
                while self.process(&agent).is_some_and(|p| p.incarnation == incarnation && p.session) {
                    let Some(word) = self.places.get_mut(&agent).and_then(|place| place.said.pop_front()) else {
                        break;
                    };
                    self.give(Input::Said(agent.clone(), incarnation, word));
                }
                self.give(Input::ReadOut(agent, incarnation));
            }
            Word::Recall(asker) => {
                let found = match &asker {
                    Asker::Caller(_, id) => self.ledger.recall(*id),
                    Asker::Chat(_, conversation, _) => self.ledger.latest(conversation),
                };
                self.give(Input::Recalled(asker, found.map(Box::new)));
            }
        }
        true
    }

    /// Delivers the next news of a worker; one that has said all and drains goes.
    pub fn news(&mut self, agent: &AgentName) -> bool {
        let Some(place) = self.places.get_mut(agent).filter(|place| !place.stopped) else { return false };
        let Some(process) = &place.process else { return false };
        let incarnation = process.incarnation;
        if let Some(word) = place.said.pop_front() {
            self.give(Input::Said(agent.clone(), incarnation, word));
            return true;
        }
        if process.draining && process.turns.is_empty() {
            self.die(agent, "left");
            return true;
        }
        false
    }

    /// Codex goes on by one step wherever it may: prompts are taken, stops obeyed.
    pub fn codex(&mut self, agent: &AgentName) -> bool {
        let starts = self.starts;
        let Some(place) = self.places.get_mut(agent).filter(|place| !place.stopped) else { return false };
        let turns = place.process.iter().flat_map(|p| p.turns.iter());
        let next =
            turns.map(|(id, live)| (*id, live.stop, live.started)).find(|(_, stop, on)| *stop || (starts && !on));
        match next {
            Some((attempt, true, _)) => place.end(attempt, Outcome::Interrupted, ""),
            Some((attempt, false, _)) => place.start(attempt),
            None => return false,
        }
        true
    }

    /// Everything that needs no time happens, in a fixed order.
    pub fn settle(&mut self) {
        let names: Vec<AgentName> = self.places.keys().cloned().collect();
        for _ in 0..100_000 {
            if self.gone {
                return;
            }
            let mut on = self.commit() || self.word();
            for agent in &names {
                on = on || self.news(agent) || self.codex(agent);
            }
            if !on {
                return;
            }
        }
        panic!("the world does not come to rest");
    }

    /// So much time passes; whatever becomes due meanwhile happens. Workers beat.
    pub fn pass(&mut self, ms: u64) {
        let end = self.tick + ms;
        while !self.gone {
            self.settle();
            let beat = self.tick - self.tick % 2_000 + 2_000;
            let due = self.machine.deadline().map_or(u64::MAX, |(at, _)| at).max(self.tick);
            let next = due.min(beat);
            if next > end {
                break;
            }
            self.tick = next;
            self.beat();
            if due <= self.tick {
                self.timeout();
            }
        }
        self.tick = self.tick.max(end);
    }

    /// Every worker that can says that it lives.
    pub fn beat(&mut self) {
        let names: Vec<AgentName> = self.places.keys().cloned().collect();
        for agent in names {
            let stopped = self.places[&agent].stopped;
            if let Some(p) = self.process(&agent).filter(|p| p.session && !stopped) {
                let beat = protocol::from_worker::Beat { running: 0, children: 0 };
                let word = protocol::FromWorker::Beat(beat);
                self.give(Input::Said(agent.clone(), p.incarnation, word));
            }
        }
    }

    pub fn timeout(&mut self) {
        self.give(Input::Timeout);
        if let Some((at, what)) = self.machine.deadline() {
            assert!(
                at > self.tick || self.machine.going == Going::Gone,
                "the deadline of a {what} leads nowhere: a busy loop"
            );
        }
    }

    /// The supervisor dies, or leaves: only what was committed is known to the next one. Workers stay.
    pub fn restart(&mut self) {
        self.pending.clear();
        self.words.clear();
        self.receipts.clear();
        self.in_flight.clear();
        self.heard.clear();
        self.replies.clear();
        self.gone = false;
        for place in self.places.values_mut() {
            place.said.clear();
            if let Some(process) = &mut place.process {
                process.session = false;
            }
        }
        let (machine, first) = Machine::recover(self.now(), self.setup.clone(), self.ledger.memory(), self.tick);
        self.machine = machine;
        self.queue(first);
        self.check(&"recovery");
        // The next supervisor waits for exits of adopted processes by their pid: one that dies unseen is not dialled.
        for at in 0..self.channel.len() {
            if !self.channel[at].1 {
                self.deliver(at);
            }
        }
    }

    /// The channel hands an update over, for the first time or again.
    pub fn deliver(&mut self, at: usize) {
        self.last_receipt += 1;
        let receipt = ReceiptId(self.last_receipt);
        self.receipts.insert(receipt, at);
        self.give(Input::Update(receipt, Box::new(self.channel[at].0.clone())));
    }

    pub fn chat(bot: &str, chat: i64) -> Chat {
        Chat { bot: bot.into(), chat, topic: None }
    }

    /// A person writes to a bot.
    pub fn write(&mut self, bot: &str, user: i64, text: &str) {
        self.messages += 1;
        let from = ChatMessage { chat: Self::chat(bot, user), message: self.messages, user };
        let kind = UpdateKind::Text { from, private: true, text: text.into() };
        self.update(bot, kind);
    }

    pub fn update(&mut self, bot: &str, kind: UpdateKind) {
        let external = i64::try_from(self.channel.len()).unwrap() + 500;
        let update = Update { bot: bot.into(), external, kind, raw: "{}".into() };
        self.channel.push((update, false));
        self.deliver(self.channel.len() - 1);
    }

    /// A request of the command line.
    pub fn ask(&mut self, request: Request) -> CallerId {
        self.callers += 1;
        let caller = CallerId(self.callers);
        self.replies.insert(caller, Vec::new());
        self.give(Input::Asked(caller, request));
        caller
    }

    pub fn send(&mut self, agent: &str, conversation: &str, text: &str) -> CallerId {
        let text = Text::Inline(text.into());
        self.ask(Request::Send(Send { agent: name(agent), conversation: conversation.into(), text, wait: true }))
    }

    /// Ends the attempt of a turn that runs.
    pub fn end(&mut self, turn: u64, outcome: Outcome) {
        self.end_with(turn, outcome, "");
    }

    pub fn end_with(&mut self, turn: u64, outcome: Outcome, detail: &str) {
        let (agent, attempt) = self.attempt(turn);
        self.places.get_mut(&agent).unwrap().end(attempt, outcome, detail);
        self.settle();
    }

    pub fn attempt(&self, turn: u64) -> (AgentName, AttemptId) {
        let runs = |place: &Place| place.running().into_iter().find(|(_, of)| of.0 == turn).map(|(id, _)| id);
        let found = self.places.iter().find_map(|(agent, place)| Some((agent.clone(), runs(place)?)));
        found.unwrap_or_else(|| panic!("turn {turn} does not run"))
    }

    pub fn runs(&self, turn: u64) -> bool {
        self.places.values().any(|place| place.running().iter().any(|(_, of)| of.0 == turn))
    }

    /// Every post in flight arrives.
    pub fn arrive(&mut self) -> Vec<Post> {
        let mut all = Vec::new();
        loop {
            self.settle();
            let Some(post) = self.in_flight.pop() else { return all };
            let message = Some(10_000 + i64::try_from(post.id.0).unwrap());
            self.give(Input::Delivered(post.id, Delivery::Sent { message, more: false }));
            all.push(post);
        }
    }

    pub fn turn_end(&self, turn: u64) -> Option<&TurnEnd> {
        self.ledger.turns[&TurnId(turn)].end.as_ref().map(|(end, _, _)| end)
    }

    pub fn turn_text(&self, turn: u64) -> &str {
        self.ledger.turns[&TurnId(turn)].end.as_ref().map_or("", |(_, text, _)| text)
    }

    /// What must hold after every input.
    pub fn check(&self, after: &dyn std::fmt::Debug) {
        if self.machine.going == Going::Gone {
            return;
        }
        self.check_turns(after);
        self.check_agents(after);
        self.check_callers(after);
    }

    fn check_turns(&self, after: &dyn std::fmt::Debug) {
        let machine = &self.machine;
        for (id, turn) in &machine.turns {
            let agent = &turn.new.conversation.agent;
            let agent = machine.agents.get(agent).unwrap_or_else(|| panic!("turn {id} is nobody's after {after:?}"));
            let lane = agent.lanes.get(&turn.new.conversation.name);
            let place = lane.and_then(|lane| lane.iter().position(|waiting| waiting == id));
            let place = place.unwrap_or_else(|| panic!("turn {id} is in no lane after {after:?}"));
            match &turn.stage {
                Stage::Running { attempt, .. } => {
                    assert_eq!(place, 0, "turn {id} runs out of its order after {after:?}");
                    assert_eq!(machine.attempts.get(attempt), Some(id), "after {after:?}");
                    // Somebody owns it: a worker, or what will become one.
                    let state = agent.life.state();
                    assert!(!matches!(state, State::Down | State::Failed), "turn {id} runs on nobody after {after:?}");
                }
                Stage::Pausing { .. } => assert_eq!(place, 0, "after {after:?}"),
                Stage::Offered => {
                    let head = lane.and_then(|lane| lane.front()).and_then(|head| machine.turns.get(head));
                    assert!(head.is_some_and(|head| place > 0 && head.stage != Stage::Offered), "after {after:?}");
                }
                Stage::Queued => {}
            }
            if !matches!(turn.stage, Stage::Running { .. }) {
                assert!(machine.turn_deadline(&turn.new.conversation.agent).is_some());
            }
        }
        for (attempt, id) in &machine.attempts {
            let runs = machine.turns.get(id).map(|t| &t.stage);
            assert!(
                matches!(runs, Some(Stage::Running { attempt: a, .. }) if a == attempt),
                "{attempt} after {after:?}"
            );
        }
    }

    fn check_agents(&self, after: &dyn std::fmt::Debug) {
        let machine = &self.machine;
        for (name, agent) in &machine.agents {
            // What is kept up agent by agent is what a look at it finds.
            assert_eq!(machine.overview.row(name), machine.row(name), "{name} after {after:?}");
            assert_eq!(machine.admission.demand(name), machine.demand(name), "{name} after {after:?}");
            for (lane, turns) in &agent.lanes {
                assert!(!turns.is_empty(), "lane {lane} of {name} is empty after {after:?}");
                assert!(turns.iter().all(|id| machine.turns.contains_key(id)), "{lane} of {name} after {after:?}");
                assert!(
                    turns.iter().zip(turns.iter().skip(1)).all(|(x, y)| x < y),
                    "the order of {lane} after {after:?}"
                );
            }
            if matches!(agent.life.state(), State::Failed) {
                assert!(agent.lanes.is_empty(), "turns wait for {name}, which has failed, after {after:?}");
            }
        }
    }

    fn check_callers(&self, after: &dyn std::fmt::Debug) {
        let machine = &self.machine;
        for (caller, waits) in &machine.callers {
            match waits {
                Caller::Turn(id) => {
                    let turn = machine.turns.get(id);
                    assert!(turn.is_some_and(|turn| turn.callers.contains(caller)), "{caller:?} after {after:?}");
                }
                Caller::Agents { verb, pending, .. } => {
                    for name in pending {
                        let Some(agent) = machine.agents.get(name) else { panic!("{verb:?} {name} after {after:?}") };
                        let rests = matches!(agent.life.state(), State::Down | State::Failed);
                        assert!(!rests, "{verb:?} of {name} waits at rest after {after:?}");
                    }
                }
                Caller::Shutdown => assert_eq!(machine.going, Going::Ending),
                Caller::Guests => {}
                Caller::Ping(name) => {
                    let agent = machine.agents.get(name);
                    assert!(agent.is_some_and(|agent| agent.life.process().is_some()), "{caller:?} after {after:?}");
                }
            }
        }
    }
}
