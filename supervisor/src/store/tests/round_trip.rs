//! Whatever happened, the ledger recalls what a plain model of it recalls.

use super::super::recall::{ENDINGS_MAX, SEEN_BELOW_OFFSET, SEEN_WITHIN_MS};
use super::*;
use crate::machine::nouns::{
    Identity, LastNumbers, OldAttempt, OpenPost, OpenTurn, PostState, TurnEnd, UpdateEnd, WorkerRecord,
};
use crate::machine::words::JOINT;
use proptest::prelude::*;
use protocol::{FailureClass, Finished, Outcome};
use std::collections::{BTreeMap, BTreeSet};

const AGENTS: [&str; 3] = ["a", "b", "c"];
const BOTS: [&str; 2] = ["one", "two"];

/// What happens next; the numbers choose among what there is.
#[derive(Clone, Debug)]
struct Step {
    what: u8,
    which: usize,
    value: u64,
    ends_batch: bool,
    reopens: bool,
}

fn step() -> impl Strategy<Value = Step> {
    (0..16_u8, any::<usize>(), 0..5_000_u64, prop::bool::weighted(0.4), prop::bool::weighted(0.05))
        .prop_map(|(what, which, value, ends_batch, reopens)| Step { what, which, value, ends_batch, reopens })
}

/// How a turn ended, the text, when.
type End = (TurnEnd, String, u64);

/// Everything that was ever said, in the plainest form.
#[derive(Default)]
struct Model {
    last: LastNumbers,
    updates: BTreeMap<(String, i64), (UpdateId, u64)>,
    open_updates: BTreeSet<UpdateId>,
    turns: Vec<(OpenTurn, Option<End>)>,
    posts: Vec<(OpenPost, Option<bool>)>,
    threads: BTreeMap<Conversation, String>,
    wanted: BTreeMap<AgentName, bool>,
    offsets: BTreeMap<String, i64>,
    workers: BTreeMap<AgentName, WorkerRecord>,
}

fn pick<T>(from: &[T], which: usize) -> Option<&T> {
    if from.is_empty() { None } else { from.get(which % from.len()) }
}

impl Model {
    /// Times run up to two `SEEN_WITHIN_MS` back, so that some updates are too old to be seen again.
    fn at(step: &Step) -> u64 {
        NOW - step.value * (SEEN_WITHIN_MS / 2_500)
    }

    fn conversation(step: &Step) -> Conversation {
        Conversation { agent: agent(AGENTS[step.which % 3]), name: format!("console:{}", step.value % 2) }
    }

    fn open_turn(&self, which: usize) -> Option<usize> {
        let open: Vec<usize> = (0..self.turns.len()).filter(|i| self.turns[*i].1.is_none()).collect();
        pick(&open, which).copied()
    }

    fn waiting_post(&self, which: usize) -> Option<usize> {
        let waiting: Vec<usize> = (0..self.posts.len()).filter(|i| self.posts[*i].1.is_none()).collect();
        pick(&waiting, which).copied()
    }

    /// The records of a step, and what they change.
    fn take(&mut self, step: &Step) -> Vec<Record> {
        match step.what {
            0..=2 => self.update(step),
            3 => self.update_ended(step),
            4 => {
                let bot = BOTS[step.which % 2];
                self.offsets.insert(bot.into(), step.value.cast_signed());
                vec![Record::Offset(bot.into(), step.value.cast_signed())]
            }
            5..=6 => self.attempt(step),
            7 => self.attempt_ended(step),
            8 => self.turn_ended(step),
            9 => {
                let conversation = Self::conversation(step);
                let thread = (!step.value.is_multiple_of(3)).then(|| format!("t-{}", step.value));
                match &thread {
                    Some(thread) => drop(self.threads.insert(conversation.clone(), thread.clone())),
                    None => drop(self.threads.remove(&conversation)),
                }
                vec![Record::Thread(conversation, thread)]
            }
            10..=11 => self.post(step),
            12..=13 => self.post_state(step),
            14 => {
                let (name, up) = (agent(AGENTS[step.which % 3]), step.value.is_multiple_of(2));
                self.wanted.insert(name.clone(), up);
                vec![Record::Wanted(name, up)]
            }
            _ => {
                self.last.incarnation += 1;
                let name = agent(AGENTS[step.which % 3]);
                let incarnation = Incarnation(self.last.incarnation);
                let odd = |n: u64| step.value.is_multiple_of(n);
                let process =
                    Identity { boot: u128::MAX - u128::from(step.value), pid: 7, inode: u64::MAX, started: 9 };
                let worker = WorkerRecord {
                    incarnation,
                    nonce: step.value + 1,
                    identity: (!odd(2)).then_some(process),
                    release: (!odd(3)).then(|| (2, "0.2.0".to_owned())),
                };
                self.workers.insert(name.clone(), worker.clone());
                let at = Self::at(step);
                vec![Record::Incarnation(name.clone(), incarnation, at), Record::Worker(name, Box::new(worker), at)]
            }
        }
    }

    fn update(&mut self, step: &Step) -> Vec<Record> {
        let (bot, external) = (BOTS[step.which % 2].to_owned(), (step.value % 2_500).cast_signed());
        let id = UpdateId(self.last.update + 1);
        let kind = if step.value.is_multiple_of(7) {
            UpdateKind::Other { what: "photo".into(), from: None }
        } else {
            UpdateKind::Text { from: message(), private: true, text: "t".into() }
        };
        let at = Self::at(step);
        let new = NewUpdate { id, update: Update { bot: bot.clone(), external, kind, raw: "{}".into() }, at };
        // The machine never gives a number twice: the turn of a doubled update has one that comes to nothing.
        let doubled = self.updates.contains_key(&(bot.clone(), external));
        let number = if doubled { 900_000 + id.0 } else { self.last.turn + 1 };
        let turn = NewTurn {
            conversation: Self::conversation(step),
            source: if step.value.is_multiple_of(2) { Source::Console } else { Source::Telegram(message()) },
            retry_of: step.value.is_multiple_of(5).then_some(TurnId(1)),
            at,
            ..new_turn(number, Some(id.0))
        };
        if !doubled {
            self.updates.insert((bot, external), (id, at));
            self.open_updates.insert(id);
            self.last.turn += 1;
            self.turns.push((OpenTurn { turn: turn.clone(), attempts: Vec::new() }, None));
        }
        // Its number is used up even if the update changes nothing.
        self.last.update += 1;
        vec![Record::Update(new), Record::Turn(turn)]
    }

    fn update_ended(&mut self, step: &Step) -> Vec<Record> {
        let open: Vec<UpdateId> = self.open_updates.iter().copied().collect();
        let Some(id) = pick(&open, step.which) else { return Vec::new() };
        self.open_updates.remove(id);
        let end = match step.value % 5 {
            0 => UpdateEnd::Answered,
            1 => UpdateEnd::Joined(TurnId(step.value)),
            2 => UpdateEnd::Refused("no".into()),
            3 => UpdateEnd::Cancelled("console".into()),
            _ => UpdateEnd::Failed,
        };
        vec![Record::UpdateEnded(*id, end, Self::at(step))]
    }

    fn attempt(&mut self, step: &Step) -> Vec<Record> {
        let Some(at) = self.open_turn(step.which) else { return Vec::new() };
        self.last.attempt += 1;
        let mut new = new_attempt(self.last.attempt, self.turns[at].0.turn.id.0);
        if step.value.is_multiple_of(2) {
            new.route.runtime = Runtime::Codex;
            new.thread = None;
        }
        let started = !step.value.is_multiple_of(3);
        self.turns[at].0.attempts.push(OldAttempt { attempt: new.clone(), outcome: None, started });
        let mut records = vec![Record::Attempt(new.clone())];
        if started {
            records.push(Record::AttemptStarted(new.id, "t".into(), NOW));
        }
        records
    }

    fn outcome(step: &Step) -> Outcome {
        match step.value % 4 {
            0 => Outcome::Completed,
            1 => Outcome::Interrupted,
            _ => Outcome::Failed(*pick(FailureClass::ALL, step.which).unwrap()),
        }
    }

    fn attempt_ended(&mut self, step: &Step) -> Vec<Record> {
        let Some(at) = self.open_turn(step.which) else { return Vec::new() };
        let turn = self.turns[at].0.turn.id;
        let Some(open) = self.turns[at].0.attempts.iter_mut().find(|a| a.outcome.is_none()) else { return Vec::new() };
        let outcome = Self::outcome(step);
        open.outcome = Some(outcome);
        vec![Record::AttemptEnded(Box::new(Finished::new(open.attempt.id, turn, outcome)), NOW)]
    }

    fn turn_ended(&mut self, step: &Step) -> Vec<Record> {
        let Some(at) = self.open_turn(step.which) else { return Vec::new() };
        let end = match step.value % 6 {
            0 => TurnEnd::Cancelled("by hand".into()),
            1 => TurnEnd::Joined(TurnId(7)),
            _ => TurnEnd::Outcome(Self::outcome(step)),
        };
        let text = format!("text {}", step.value);
        let record = Record::TurnEnded(self.turns[at].0.turn.id, end.clone(), text.clone(), Self::at(step));
        self.turns[at].1 = Some((end, text, Self::at(step)));
        vec![record]
    }

    fn post(&mut self, step: &Step) -> Vec<Record> {
        self.last.post += 1;
        let turn = pick(&self.turns, step.which).filter(|_| !step.value.is_multiple_of(4)).map(|t| t.0.turn.id.0);
        let kind = if step.value.is_multiple_of(2) { PostKind::Status } else { PostKind::Final };
        let post = Post { edits: step.value.is_multiple_of(3).then_some(5), ..new_post(self.last.post, turn, kind) };
        self.posts.push((OpenPost { post: post.clone(), not_before: 0, message: None }, None));
        vec![Record::Post(post)]
    }

    fn post_state(&mut self, step: &Step) -> Vec<Record> {
        let Some(at) = self.waiting_post(step.which) else { return Vec::new() };
        let (open, end) = &mut self.posts[at];
        let state = match step.value % 4 {
            0 => PostState::Dead("gone".into()),
            1 | 2 => PostState::Sent((!step.value.is_multiple_of(3)).then_some(step.value.cast_signed())),
            _ => PostState::Waiting {
                not_before: NOW + step.value,
                sent_pieces: 2,
                tries: 3,
                maybe_repeated: step.which.is_multiple_of(2),
                plain: step.which.is_multiple_of(3),
                why: "429".into(),
            },
        };
        match &state {
            PostState::Dead(_) => *end = Some(false),
            PostState::Sent(message) => (open.message, *end) = (*message, Some(true)),
            PostState::Waiting { not_before, sent_pieces, tries, maybe_repeated, plain, why: _ } => {
                open.not_before = *not_before;
                (open.post.sent_pieces, open.post.tries) = (*sent_pieces, *tries);
                (open.post.maybe_repeated, open.post.plain) = (*maybe_repeated, *plain);
            }
        }
        vec![Record::PostState(open.post.id, state, NOW)]
    }

    fn endings(&self) -> Vec<(AgentName, Option<FailureClass>, String, u64)> {
        let mut all = Vec::new();
        for name in AGENTS.map(agent) {
            let mut of: Vec<_> = self
                .turns
                .iter()
                .filter(|(t, _)| t.turn.conversation.agent == name)
                .filter_map(|(t, end)| end.as_ref().map(|end| (t.turn.id, end)))
                .filter_map(|(id, (end, text, at))| match end {
                    TurnEnd::Outcome(Outcome::Completed) => Some((*at, id, None, String::new())),
                    TurnEnd::Outcome(Outcome::Failed(class)) => Some((*at, id, Some(*class), text.clone())),
                    TurnEnd::Outcome(Outcome::Interrupted) | TurnEnd::Cancelled(_) | TurnEnd::Joined(_) => None,
                })
                .collect();
            of.sort_by_key(|(at, id, _, _)| std::cmp::Reverse((*at, *id)));
            of.truncate(ENDINGS_MAX as usize);
            all.extend(of.into_iter().map(|(at, _, class, text)| (name.clone(), class, text, at)));
        }
        all
    }

    fn memory(&self, ledger: u64) -> Memory {
        let mut open: Vec<OpenTurn> =
            self.turns.iter().filter(|(_, end)| end.is_none()).map(|(t, _)| t.clone()).collect();
        for turn in &mut open {
            turn.turn.prompt.push_str(&self.joined(turn.turn.id));
        }
        let is_open = |id: Option<TurnId>| open.iter().any(|t| Some(t.turn.id) == id);
        let posts = self.posts.iter().filter(|(p, end)| match end {
            None => true,
            Some(sent) => *sent && p.post.kind == PostKind::Status && is_open(p.post.turn),
        });
        let seen = self.updates.iter().filter(|((bot, external), (_, at))| {
            *at >= NOW - SEEN_WITHIN_MS && self.offsets.get(bot).is_none_or(|o| *external >= o - SEEN_BELOW_OFFSET)
        });
        Memory {
            ledger,
            last: self.last,
            posts: posts.map(|(p, _)| p.clone()).collect(),
            threads: self.threads.clone().into_iter().collect(),
            endings: self.endings(),
            down: self.wanted.iter().filter(|(_, up)| !**up).map(|(name, _)| name.clone()).collect(),
            offsets: self.offsets.clone().into_iter().collect(),
            workers: self.workers.clone().into_iter().collect(),
            seen: seen.map(|(key, _)| key.clone()).collect(),
            turns: open,
            // Every update of this model brings a turn.
            stranded: Vec::new(),
        }
    }

    /// What joined a turn, in the order in which it did.
    fn joined(&self, into: TurnId) -> String {
        let mut texts: Vec<_> = self
            .turns
            .iter()
            .filter_map(|(t, end)| end.as_ref().map(|(end, _, at)| (*at, t.turn.id, end, &t.turn.prompt)))
            .filter(|(_, id, end, _)| **end == TurnEnd::Joined(into) && *id > into)
            .collect();
        texts.sort_by_key(|(at, id, _, _)| (*at, *id));
        texts.into_iter().flat_map(|(_, _, _, prompt)| [JOINT, prompt.as_str()]).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_recalls_what_the_model_recalls(steps in prop::collection::vec(step(), 0..120)) {
        let place = Place::new();
        let (mut store, first) = place.open();
        let mut model = Model::default();
        let mut batch = Vec::new();
        for step in &steps {
            batch.extend(model.take(step));
            if step.ends_batch {
                drop(store.commit(std::mem::take(&mut batch)));
            }
            if step.reopens {
                prop_assert_eq!(commit(&store, std::mem::take(&mut batch)), Ok(()));
                prop_assert_eq!(store.bugs(), 0);
                drop(store);
                let (again, memory) = place.open();
                store = again;
                prop_assert_eq!(memory, model.memory(first.ledger));
            }
        }
        prop_assert_eq!(commit(&store, batch), Ok(()));
        prop_assert_eq!(store.bugs(), 0);
        drop(store);
        prop_assert_eq!(place.memory(), model.memory(first.ledger));
    }
}

#[test]
fn what_joined_a_turn_is_part_of_it_and_is_not_what_retry_means() {
    let place = Place::new();
    let (store, _) = place.open();
    let joined = Record::TurnEnded(TurnId(2), TurnEnd::Joined(TurnId(1)), String::new(), NOW);
    commit(&store, vec![turn(1), turn(2), joined]).unwrap();
    let conversation = new_turn(1, None).conversation;
    let latest = wait(store.recall_latest(conversation)).unwrap().unwrap();
    let prompt = "question 1\nand more\n\nquestion 2\nand more";
    assert_eq!((latest.turn.id, latest.turn.prompt.as_str()), (TurnId(1), prompt));
    drop(store);
    assert_eq!(place.memory().turns[0].turn.prompt, prompt);
}

#[test]
fn an_update_that_led_to_nothing_is_told() {
    let place = Place::new();
    let (store, _) = place.open();
    let with_turn = Record::Turn(new_turn(1, Some(2)));
    commit(&store, vec![update(1, 1), update(2, 2), with_turn, update(3, 3)]).unwrap();
    commit(&store, vec![Record::UpdateEnded(UpdateId(3), UpdateEnd::Answered, NOW)]).unwrap();
    drop(store);
    let stranded = place.memory().stranded;
    assert_eq!(stranded.len(), 1);
    assert_eq!((stranded[0].update, stranded[0].from.clone()), (UpdateId(1), Some(message())));
}
