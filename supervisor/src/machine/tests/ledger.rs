//! The ledger as a model: records in, memory out, and a complaint at every broken promise.

use crate::machine::nouns::{
    ChatMessage, Conversation, Event, LastNumbers, Memory, NewAttempt, NewTurn, NewUpdate, OldAttempt, OpenPost,
    OpenTurn, PostId, PostKind, PostState, Record, Stranded, TurnEnd, Update, UpdateEnd, UpdateId, UpdateKind, Wall,
    WorkerRecord,
};
use crate::machine::words::JOINT;
use crate::machine::words::Recalled;
use protocol::stable::Finished;
use protocol::{AgentName, AttemptId, Outcome, TurnId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug)]
pub struct OldTurn {
    pub new: NewTurn,
    pub end: Option<(TurnEnd, String, Wall)>,
    pub attempts: Vec<AttemptId>,
}

#[derive(Debug)]
pub struct OldPost {
    pub open: OpenPost,
    /// Whether it was sent.
    pub end: Option<bool>,
}

#[derive(Debug, Default)]
pub struct Ledger {
    pub updates: BTreeMap<UpdateId, (NewUpdate, Option<UpdateEnd>)>,
    pub turns: BTreeMap<TurnId, OldTurn>,
    pub attempts: BTreeMap<AttemptId, (NewAttempt, Option<Finished>)>,
    pub posts: BTreeMap<PostId, OldPost>,
    pub threads: BTreeMap<Conversation, String>,
    pub wanted: BTreeMap<AgentName, bool>,
    pub offsets: BTreeMap<String, i64>,
    pub incarnations: BTreeSet<u64>,
    pub workers: BTreeMap<AgentName, WorkerRecord>,
    pub started: BTreeSet<AttemptId>,
    pub events: Vec<Event>,
    last: LastNumbers,
}

impl Ledger {
    pub fn commit(&mut self, records: Vec<Record>) {
        for record in records {
            self.apply(record);
        }
        for (id, (_, end)) in &self.updates {
            // With its batch an update has an end, a turn that will bring it, or a question on its way (/retry).
            let turn = self.turns.values().find(|turn| turn.new.update == Some(*id));
            if let (None, Some(turn)) = (end, turn) {
                assert!(turn.end.is_none(), "update {id} is open and its turn {} is not", turn.new.id);
            }
        }
    }

    fn apply(&mut self, record: Record) {
        match record {
            Record::Update(new) => {
                let key = (&new.update.bot, new.update.external);
                let twice = self.updates.values().any(|(u, _)| (&u.update.bot, u.update.external) == key);
                assert!(!twice, "update {key:?} is taken twice");
                self.last.update = self.last.update.max(new.id.0);
                assert!(self.updates.insert(new.id, (new, None)).is_none());
            }
            Record::UpdateEnded(id, end, _) => {
                let (_, old) = self.updates.get_mut(&id).expect("the update of an end");
                assert_eq!(*old, None, "update {id} ends twice, then {end:?}");
                *old = Some(end);
            }
            Record::Offset(bot, next) => drop(self.offsets.insert(bot, next)),
            Record::Turn(new) => {
                self.last.turn = self.last.turn.max(new.id.0);
                let id = new.id;
                let old = self.turns.insert(id, OldTurn { new, end: None, attempts: Vec::new() });
                assert!(old.is_none(), "turn {id} is accepted twice");
            }
            Record::TurnEnded(id, end, text, at) => {
                let turn = self.turns.get_mut(&id).expect("the turn of an end");
                assert!(turn.end.is_none(), "turn {id} ends twice: {:?}, then {end:?}", turn.end);
                for attempt in &turn.attempts {
                    assert!(self.attempts[attempt].1.is_some(), "turn {id} ends {end:?} before its attempt {attempt}");
                }
                turn.end = Some((end, text, at));
            }
            Record::Attempt(new) => self.attempt(new),
            Record::AttemptStarted(id, _, _) => {
                assert!(self.attempts.contains_key(&id));
                self.started.insert(id);
            }
            Record::AttemptEnded(end, _) => {
                let (_, old) = self.attempts.get_mut(&end.attempt).expect("the attempt of an end");
                assert_eq!(*old, None, "attempt {} ends twice", end.attempt);
                *old = Some(*end);
            }
            Record::Thread(conversation, Some(thread)) => drop(self.threads.insert(conversation, thread)),
            Record::Thread(conversation, None) => drop(self.threads.remove(&conversation)),
            Record::Post(post) => {
                self.last.post = self.last.post.max(post.id.0);
                let id = post.id;
                let open = OpenPost { post, not_before: 0, message: None };
                assert!(self.posts.insert(id, OldPost { open, end: None }).is_none());
            }
            Record::PostState(id, state, _) => self.post_state(id, &state),
            Record::Wanted(name, up) => drop(self.wanted.insert(name, up)),
            Record::Incarnation(_, incarnation, _) => {
                assert!(self.incarnations.insert(incarnation.0), "run {incarnation} is given twice");
                self.last.incarnation = self.last.incarnation.max(incarnation.0);
            }
            Record::Worker(name, worker, _) => drop(self.workers.insert(name, *worker)),
            Record::Event(event) => self.events.push(event),
        }
    }

    /// Only what is safe to repeat is tried again, and never beside another try.
    fn attempt(&mut self, new: NewAttempt) {
        self.last.attempt = self.last.attempt.max(new.id.0);
        let turn = self.turns.get_mut(&new.turn).expect("the turn of an attempt");
        assert!(turn.end.is_none(), "turn {} has ended and is tried", new.turn);
        for before in &turn.attempts {
            let (_, end) = &self.attempts[before];
            let end = end.as_ref().unwrap_or_else(|| panic!("attempt {} beside {before}", new.id));
            assert!(matches!(end.outcome, Outcome::Failed(_)) && end.replay_safe, "{} after {end:?}", new.id);
        }
        turn.attempts.push(new.id);
        assert!(self.attempts.insert(new.id, (new, None)).is_none());
    }

    fn post_state(&mut self, id: PostId, state: &PostState) {
        let OldPost { open, end } = self.posts.get_mut(&id).expect("the post of a state");
        assert_eq!(*end, None, "post {id} ends twice");
        match *state {
            PostState::Waiting { not_before, sent_pieces, tries, maybe_repeated, plain, .. } => {
                open.not_before = not_before;
                (open.post.sent_pieces, open.post.tries) = (sent_pieces, tries);
                (open.post.maybe_repeated, open.post.plain) = (maybe_repeated, plain);
            }
            PostState::Sent(message) => (open.message, *end) = (message, Some(true)),
            PostState::Dead(_) => *end = Some(false),
        }
    }

    /// A turn as the store gives it: with what joined it.
    fn whole(&self, turn: &OldTurn) -> NewTurn {
        let mut new = turn.new.clone();
        let mut joined: Vec<_> = self
            .turns
            .values()
            .filter_map(|t| match &t.end {
                Some((TurnEnd::Joined(into), _, at)) if *into == new.id => Some((*at, t.new.id, &t.new.prompt)),
                _ => None,
            })
            .collect();
        joined.sort();
        for (_, _, prompt) in joined {
            new.prompt.push_str(JOINT);
            new.prompt.push_str(prompt);
        }
        new
    }

    pub fn memory(&self) -> Memory {
        let open = |turn: &&OldTurn| turn.end.is_none();
        let turns = self.turns.values().filter(open).map(|turn| OpenTurn {
            turn: self.whole(turn),
            attempts: turn
                .attempts
                .iter()
                .map(|id| &self.attempts[id])
                .map(|(new, end)| OldAttempt {
                    attempt: new.clone(),
                    outcome: end.as_ref().map(|end| end.outcome),
                    started: self.started.contains(&new.id),
                })
                .collect(),
        });
        let is_open = |id: Option<TurnId>| id.is_some_and(|id| self.turns[&id].end.is_none());
        let posts = self.posts.values().filter(|post| {
            let status = post.open.post.kind == PostKind::Status && is_open(post.open.post.turn);
            post.end.is_none() || (post.end == Some(true) && status)
        });
        let stranded = self
            .updates
            .iter()
            .filter(|(id, (_, end))| end.is_none() && !self.turns.values().any(|turn| turn.new.update == Some(**id)));
        Memory {
            ledger: 1,
            last: self.last,
            turns: turns.collect(),
            posts: posts.map(|post| post.open.clone()).collect(),
            threads: self.threads.clone().into_iter().collect(),
            endings: self.endings(),
            down: self.wanted.iter().filter(|(_, up)| !**up).map(|(name, _)| name.clone()).collect(),
            workers: self.workers.clone().into_iter().collect(),
            offsets: self.offsets.clone().into_iter().collect(),
            stranded: stranded.map(|(id, (new, _))| Stranded { update: *id, from: sender(&new.update) }).collect(),
            seen: self.updates.values().map(|(u, _)| (u.update.bot.clone(), u.update.external)).collect(),
        }
    }

    fn endings(&self) -> Vec<(AgentName, Option<protocol::FailureClass>, String, Wall)> {
        let mut all: Vec<_> = self
            .turns
            .values()
            .filter_map(|turn| {
                let (TurnEnd::Outcome(outcome), text, at) = turn.end.as_ref()? else { return None };
                let name = turn.new.conversation.agent.clone();
                match outcome {
                    Outcome::Interrupted => None,
                    Outcome::Completed => Some((name, turn.new.id, None, String::new(), *at)),
                    Outcome::Failed(class) => Some((name, turn.new.id, Some(*class), text.clone(), *at)),
                }
            })
            .collect();
        all.sort_by_key(|(name, id, _, _, at)| (name.clone(), std::cmp::Reverse((*at, *id))));
        all.into_iter().map(|(name, _, class, text, at)| (name, class, text, at)).collect()
    }

    fn recalled(&self, turn: &OldTurn) -> Recalled {
        let state = match &turn.end {
            Some((end, _, _)) => end.as_str(),
            None if turn.attempts.is_empty() => "queued",
            None => "running",
        };
        Recalled { turn: self.whole(turn), state: state.to_owned() }
    }

    pub fn recall(&self, id: TurnId) -> Option<Recalled> {
        self.turns.get(&id).map(|turn| self.recalled(turn))
    }

    pub fn latest(&self, conversation: &Conversation) -> Option<Recalled> {
        let joined = |t: &&OldTurn| matches!(t.end, Some((TurnEnd::Joined(_), _, _)));
        let of = |t: &&OldTurn| t.new.conversation == *conversation && !joined(t);
        self.turns.values().rfind(of).map(|turn| self.recalled(turn))
    }
}

fn sender(update: &Update) -> Option<ChatMessage> {
    match &update.kind {
        UpdateKind::Text { from, .. } => Some(from.clone()),
        UpdateKind::Other { from, .. } => from.clone(),
    }
}
