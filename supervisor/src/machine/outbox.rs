//! What goes out next, by which bot, and what follows a failure.
//!
//! ```text
//!   made --> waiting --> in flight --> sent
//!              ^            |--- later (the server's own pause, kept exactly) --> waiting
//!              |            |--- failed, uncertain (growing pause) -------------> waiting
//!              +------------+--- impossible, or too many tries -----------------> dead
//! ```
//! * A bot's posts never wait for another bot's.
//! * In a chat one post is in flight, in the order in which they were made; status messages give way to the rest.
//! * A pause that the server asked for holds the whole bot, exactly as long, across restarts.

use super::nouns::{Chat, Now, OpenPost, Post, PostId, PostKind, PostState, Record};
use super::words::{Delivery, Effect};
use std::collections::{BTreeMap, BTreeSet};

/// Tries of one piece before the post is dead. With the pauses below that is a day.
pub const TRIES_MAX: u32 = 60;
/// First pause after a failure. Milliseconds.
const PAUSE_FIRST_MS: u64 = 1_000;
/// Longest pause after a failure. Milliseconds.
const PAUSE_MAX_MS: u64 = 30 * 60 * 1_000;
/// Posts of a bot in flight at once: below the Bot API's 30 messages a second even if each takes 0.3 s.
const IN_FLIGHT_MAX: usize = 8;
/// A post that is as old and still meets trouble is dead, however often the server asked for one more pause.
/// Milliseconds.
const AGE_MAX_MS: u64 = 3 * 24 * 60 * 60 * 1_000;
/// Longest pause of the server that is believed; a longer one is kept in parts. Milliseconds.
const LATER_MAX_MS: u64 = 24 * 60 * 60 * 1_000;

#[derive(Clone, Debug)]
struct Waiting {
    post: Post,
    /// Tick before which it must not be tried.
    not_before: u64,
    in_flight: bool,
    /// Tick since which we try.
    since: u64,
}

/// Every post that is not at its end.
#[derive(Clone, Debug, Default)]
pub struct Outbox {
    posts: BTreeMap<PostId, Waiting>,
    /// Ticks until which a bot has to pause.
    paused: BTreeMap<String, u64>,
    last: u64,
    /// When something may be sent next, unless what is above has changed since that was found.
    next: Option<u64>,
    changed: bool,
}

/// What the end of a post means to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// As it was.
    pub post: Post,
    /// Telegram's id, if it was sent.
    pub message: Option<i64>,
    /// Why it is dead, if it is.
    pub dead: Option<String>,
}

impl Outbox {
    /// Without posts; `last` is the largest number given so far.
    pub fn after(last: u64) -> Self {
        Self { last, ..Self::default() }
    }

    /// What the ledger remembers. Posts that were in flight when we ended may have arrived.
    pub fn recover(&mut self, now: Now, posts: Vec<OpenPost>, effects: &mut Vec<Effect>) {
        for open in posts {
            if open.message.is_none() {
                let not_before = now.tick + open.not_before.saturating_sub(now.wall).min(LATER_MAX_MS);
                if open.post.tries == 0 && not_before > now.tick {
                    // Only the server asks for a pause before anything has failed.
                    let paused = self.paused.entry(open.post.to.bot.clone()).or_default();
                    *paused = not_before.max(*paused);
                }
                let waiting = Waiting { post: open.post, not_before, in_flight: false, since: now.tick };
                self.posts.insert(waiting.post.id, waiting);
            }
        }
        self.doubt(now, effects);
        self.changed = true;
    }

    /// What was due when the last supervisor ended may have been sent, and it did not live to write that down. In each
    /// chat that is the first post, and the first status message: whatever is behind them had to wait. A pause of the bot
    /// proves nothing: it may have begun while they were on their way.
    fn doubt(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let mut first: BTreeSet<(Chat, bool)> = BTreeSet::new();
        let due: BTreeSet<PostId> =
            self.posts.values().filter(|w| w.not_before <= now.tick).map(|w| w.post.id).collect();
        for waiting in self.posts.values_mut() {
            let post = &mut waiting.post;
            let first = first.insert((post.to.clone(), post.kind == PostKind::Status));
            if first && due.contains(&post.id) && !post.maybe_repeated {
                post.maybe_repeated = true;
                let why = "the supervisor ended while it may have been on its way".to_owned();
                let state = PostState::Waiting {
                    not_before: now.wall + waiting.not_before.saturating_sub(now.tick),
                    sent_pieces: post.sent_pieces,
                    tries: post.tries,
                    maybe_repeated: true,
                    plain: post.plain,
                    why,
                };
                effects.push(Effect::Record(Record::PostState(post.id, state, now.wall)));
            }
        }
    }

    /// The server wants a pause of the bot, in answer to something that is no post.
    pub fn flooded(&mut self, now: Now, bot: &str, ms: u64) {
        self.changed = true;
        let until = self.paused.entry(bot.to_owned()).or_default();
        *until = (now.tick + ms.min(LATER_MAX_MS)).max(*until);
    }

    /// Whether the bot has to pause.
    pub fn is_paused(&self, bot: &str, tick: u64) -> bool {
        self.paused.get(bot).is_some_and(|until| *until > tick)
    }

    /// Makes a post; its record commits before it is delivered.
    pub fn post(&mut self, now: Now, draft: Draft, effects: &mut Vec<Effect>) -> PostId {
        self.last += 1;
        self.changed = true;
        let post = Post {
            id: PostId(self.last),
            turn: draft.turn,
            kind: draft.kind,
            to: draft.to,
            reply_to: draft.reply_to,
            edits: draft.edits,
            body: draft.body,
            sent_pieces: 0,
            tries: 0,
            maybe_repeated: false,
            plain: false,
            at: now.wall,
        };
        let id = post.id;
        effects.push(Effect::Record(Record::Post(post.clone())));
        self.posts.insert(id, Waiting { post, not_before: now.tick, in_flight: false, since: now.tick });
        id
    }

    /// Withdraws a post that is not in flight, if nothing of it was sent.
    pub fn withdraw(&mut self, now: Now, id: PostId, why: &str, effects: &mut Vec<Effect>) -> bool {
        let free = self.posts.get(&id).is_some_and(|w| !w.in_flight && w.post.sent_pieces == 0);
        if free {
            self.changed = true;
            self.posts.remove(&id);
            effects.push(Effect::Record(Record::PostState(id, PostState::Dead(why.to_owned()), now.wall)));
        }
        free
    }

    /// Posts of a bot that wait.
    pub fn waiting(&self, bot: &str) -> u32 {
        u32::try_from(self.posts.values().filter(|w| w.post.to.bot == bot).count()).unwrap_or(u32::MAX)
    }

    /// Sends what may be sent. The posts are looked at only if they have changed or one of them is due.
    pub fn pump(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if !self.changed && self.next.is_none_or(|at| at > now.tick) {
            return;
        }
        for id in self.due(now.tick) {
            if let Some(waiting) = self.posts.get_mut(&id) {
                waiting.in_flight = true;
                effects.push(Effect::Deliver(waiting.post.clone()));
            }
        }
        self.next = self.look();
        self.changed = false;
    }

    fn due(&self, tick: u64) -> Vec<PostId> {
        let mut in_flight = self.in_flight();
        let mut due = Vec::new();
        for waiting in self.heads() {
            let of_bot = in_flight.entry(&waiting.post.to.bot).or_default();
            if self.not_before(waiting) <= tick && *of_bot < IN_FLIGHT_MAX {
                *of_bot += 1;
                due.push(waiting.post.id);
            }
        }
        due
    }

    /// Posts in flight of each bot.
    fn in_flight(&self) -> BTreeMap<&str, usize> {
        let mut bots: BTreeMap<&str, usize> = BTreeMap::new();
        for waiting in self.posts.values().filter(|w| w.in_flight) {
            *bots.entry(&waiting.post.to.bot).or_default() += 1;
        }
        bots
    }

    /// The next post of each chat in which none is in flight. It holds its place even if it must pause: order per chat.
    fn heads(&self) -> Vec<&Waiting> {
        let mut chats: BTreeSet<&Chat> = self.posts.values().filter(|w| w.in_flight).map(|w| &w.post.to).collect();
        // Status messages come last: an end must not wait behind one.
        let rank = |w: &&Waiting| (w.post.kind == PostKind::Status, w.post.id);
        let mut order: Vec<&Waiting> = self.posts.values().filter(|w| !w.in_flight).collect();
        order.sort_by_key(rank);
        order.into_iter().filter(|waiting| chats.insert(&waiting.post.to)).collect()
    }

    fn not_before(&self, waiting: &Waiting) -> u64 {
        waiting.not_before.max(self.paused.get(&waiting.post.to.bot).copied().unwrap_or(0))
    }

    /// Takes what became of a piece. The end of a post is returned.
    pub fn delivered(
        &mut self,
        now: Now,
        id: PostId,
        delivery: Delivery,
        jitter: u64,
        effects: &mut Vec<Effect>,
    ) -> Option<Ended> {
        let waiting = self.posts.get_mut(&id).filter(|w| w.in_flight)?;
        waiting.in_flight = false;
        self.changed = true;
        let post = &mut waiting.post;
        let (pause, why) = match delivery {
            Delivery::Sent { message, more: false } => {
                return self.end(now, id, PostState::Sent(message), message, None, effects);
            }
            Delivery::Sent { more: true, .. } => {
                post.sent_pieces += 1;
                (post.tries, post.maybe_repeated) = (0, false);
                (0, String::new())
            }
            Delivery::Later(ms) => {
                let ms = ms.min(LATER_MAX_MS);
                self.paused.insert(post.to.bot.clone(), now.tick + ms);
                // The server is there: failures count anew. Without any, the ledger shows the pause as the server's.
                post.tries = 0;
                (ms, "the server asked for a pause".to_owned())
            }
            Delivery::Failed(why) => (Self::pause(post, jitter), why),
            Delivery::Uncertain(why) => {
                post.maybe_repeated = true;
                (Self::pause(post, jitter), why)
            }
            Delivery::Unformatted(why) if !post.plain => {
                post.plain = true;
                (0, why)
            }
            Delivery::Unformatted(why) | Delivery::Impossible(why) => {
                return self.end(now, id, PostState::Dead(why.clone()), None, Some(why), effects);
            }
        };
        if post.tries >= TRIES_MAX || now.tick >= waiting.since + AGE_MAX_MS {
            let why = format!("given up after too many tries: {why}");
            return self.end(now, id, PostState::Dead(why.clone()), None, Some(why), effects);
        }
        waiting.not_before = now.tick + pause;
        let state = PostState::Waiting {
            not_before: now.wall + pause,
            sent_pieces: waiting.post.sent_pieces,
            tries: waiting.post.tries,
            maybe_repeated: waiting.post.maybe_repeated,
            plain: waiting.post.plain,
            why,
        };
        effects.push(Effect::Record(Record::PostState(id, state, now.wall)));
        None
    }

    fn pause(post: &mut Post, jitter: u64) -> u64 {
        let pause = PAUSE_FIRST_MS.saturating_mul(1 << post.tries.min(20)).min(PAUSE_MAX_MS);
        post.tries += 1;
        pause + jitter % (pause / 10 + 1)
    }

    fn end(
        &mut self,
        now: Now,
        id: PostId,
        state: PostState,
        message: Option<i64>,
        dead: Option<String>,
        effects: &mut Vec<Effect>,
    ) -> Option<Ended> {
        let waiting = self.posts.remove(&id)?;
        effects.push(Effect::Record(Record::PostState(id, state, now.wall)));
        Some(Ended { post: waiting.post, message, dead })
    }

    /// When something may be sent again that has to wait. What waits for a post in flight is none of it.
    pub fn deadline(&self) -> Option<u64> {
        if self.changed { self.look() } else { self.next }
    }

    fn look(&self) -> Option<u64> {
        let in_flight = self.in_flight();
        let free = |w: &&Waiting| in_flight.get(w.post.to.bot.as_str()).is_none_or(|n| *n < IN_FLIGHT_MAX);
        self.heads().into_iter().filter(free).map(|w| self.not_before(w)).min()
    }
}

/// A post before it has a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// See [`Post`].
    pub turn: Option<protocol::TurnId>,
    /// See [`Post`].
    pub kind: PostKind,
    /// See [`Post`].
    pub to: Chat,
    /// See [`Post`].
    pub reply_to: Option<i64>,
    /// See [`Post`].
    pub edits: Option<i64>,
    /// See [`Post`].
    pub body: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(bot: &str, chat: i64) -> Chat {
        Chat { bot: bot.into(), chat, topic: None }
    }

    fn at(tick: u64) -> Now {
        Now { tick, wall: 1_000_000 + tick }
    }

    fn draft(bot: &str, to: i64, kind: PostKind) -> Draft {
        Draft { turn: None, kind, to: chat(bot, to), reply_to: None, edits: None, body: "x".into() }
    }

    fn sent(effects: &mut Vec<Effect>) -> Vec<u64> {
        let ids = effects.iter().filter_map(|e| if let Effect::Deliver(p) = e { Some(p.id.0) } else { None }).collect();
        effects.clear();
        ids
    }

    #[test]
    fn order_holds_in_a_chat_and_a_status_gives_way() {
        let (mut outbox, mut effects) = (Outbox::default(), Vec::new());
        outbox.post(at(0), draft("b", 1, PostKind::Status), &mut effects);
        outbox.post(at(0), draft("b", 1, PostKind::Final), &mut effects);
        outbox.post(at(0), draft("b", 1, PostKind::Notice), &mut effects);
        outbox.post(at(0), draft("b", 2, PostKind::Notice), &mut effects);
        outbox.pump(at(0), &mut effects);
        assert_eq!(sent(&mut effects), [2, 4]);
        let end = outbox.delivered(at(1), PostId(2), Delivery::Sent { message: Some(9), more: false }, 0, &mut effects);
        assert_eq!(end.unwrap().message, Some(9));
        outbox.pump(at(1), &mut effects);
        assert_eq!(sent(&mut effects), [3]);
    }

    #[test]
    fn a_pause_of_the_server_is_kept_exactly_and_by_that_bot_alone() {
        let (mut outbox, mut effects) = (Outbox::default(), Vec::new());
        outbox.post(at(0), draft("slow", 1, PostKind::Final), &mut effects);
        outbox.pump(at(0), &mut effects);
        outbox.delivered(at(10), PostId(1), Delivery::Later(7_000), 0, &mut effects);
        assert!(effects.iter().any(|e| matches!(e, Effect::Record(Record::PostState(
            PostId(1), PostState::Waiting { not_before, tries: 0, .. }, _)) if *not_before == 1_000_000 + 7_010)));
        outbox.post(at(11), draft("slow", 2, PostKind::Final), &mut effects);
        outbox.post(at(11), draft("quick", 1, PostKind::Final), &mut effects);
        effects.clear();
        outbox.pump(at(11), &mut effects);
        assert_eq!(sent(&mut effects), [3]);
        outbox.pump(at(7_009), &mut effects);
        assert_eq!(sent(&mut effects), [] as [u64; 0]);
        assert_eq!(outbox.deadline(), Some(7_010));
        outbox.pump(at(7_010), &mut effects);
        assert_eq!(sent(&mut effects), [1, 2]);
    }

    #[test]
    fn a_lost_answer_marks_the_repetition_and_pieces_go_on_where_they_stood() {
        let (mut outbox, mut effects) = (Outbox::default(), Vec::new());
        outbox.post(at(0), draft("b", 1, PostKind::Final), &mut effects);
        outbox.pump(at(0), &mut effects);
        outbox.delivered(at(1), PostId(1), Delivery::Sent { message: Some(5), more: true }, 0, &mut effects);
        outbox.pump(at(1), &mut effects);
        outbox.delivered(at(2), PostId(1), Delivery::Uncertain("cut".into()), 0, &mut effects);
        effects.clear();
        outbox.pump(at(2), &mut effects);
        assert_eq!(sent(&mut effects), [] as [u64; 0]);
        outbox.pump(at(1_002), &mut effects);
        let Some(Effect::Deliver(post)) = effects.first() else { panic!("nothing sent") };
        assert!(post.maybe_repeated);
        assert_eq!((post.sent_pieces, post.tries), (1, 1));
    }

    #[test]
    fn formatting_falls_back_to_plain_and_tries_have_an_end() {
        let (mut outbox, mut effects) = (Outbox::default(), Vec::new());
        outbox.post(at(0), draft("b", 1, PostKind::Final), &mut effects);
        outbox.pump(at(0), &mut effects);
        assert_eq!(outbox.delivered(at(0), PostId(1), Delivery::Unformatted("x".into()), 0, &mut effects), None);
        let mut tick = 0;
        for turn in 0.. {
            effects.clear();
            outbox.pump(at(tick), &mut effects);
            let Some(Effect::Deliver(post)) = effects.first() else { panic!("nothing sent at try {turn}") };
            assert!(post.plain);
            if let Some(end) = outbox.delivered(at(tick), PostId(1), Delivery::Failed("503".into()), 0, &mut effects) {
                assert!(end.dead.unwrap().contains("503"));
                assert_eq!(turn + 1, u64::from(TRIES_MAX));
                return;
            }
            tick = outbox.deadline().unwrap();
        }
    }

    fn open_post(id: u64, to: i64, kind: PostKind, not_before: u64) -> OpenPost {
        let Draft { turn, kind, to, reply_to, edits, body } = draft("b", to, kind);
        let post = Post {
            id: PostId(id),
            turn,
            kind,
            to,
            reply_to,
            edits,
            body,
            sent_pieces: 0,
            tries: 1,
            maybe_repeated: false,
            plain: false,
            at: 0,
        };
        OpenPost { post, not_before, message: None }
    }

    #[test]
    fn after_a_restart_only_what_can_have_been_on_its_way_is_in_doubt() {
        let (mut outbox, mut effects) = (Outbox::default(), Vec::new());
        let posts = vec![
            open_post(1, 1, PostKind::Status, 0),
            open_post(2, 1, PostKind::Final, 0),
            open_post(3, 1, PostKind::Final, 0),
            open_post(4, 2, PostKind::Final, at(500).wall),
            open_post(5, 2, PostKind::Final, 0),
        ];
        outbox.recover(at(0), posts, &mut effects);
        let written = |effect: Effect| {
            let Effect::Record(Record::PostState(id, PostState::Waiting { maybe_repeated, .. }, _)) = effect else {
                return None;
            };
            maybe_repeated.then_some(id.0)
        };
        assert_eq!(effects.drain(..).filter_map(written).collect::<Vec<_>>(), [1, 2], "the doubt is written down");
        let doubts: Vec<u64> = outbox.posts.values().filter(|w| w.post.maybe_repeated).map(|w| w.post.id.0).collect();
        assert_eq!(doubts, [1, 2], "a status may have gone before the end was made; 4 had to wait, and 5 behind it");
        outbox.pump(at(0), &mut effects);
        assert_eq!(sent(&mut effects), [2]);
    }

    #[test]
    fn a_pause_that_began_while_a_post_was_on_its_way_takes_no_doubt_away() {
        let (mut outbox, mut effects) = (Outbox::default(), Vec::new());
        let mut asked_to_wait = open_post(1, 1, PostKind::Final, at(500).wall);
        asked_to_wait.post.tries = 0;
        outbox.recover(at(0), vec![asked_to_wait, open_post(2, 2, PostKind::Final, 0)], &mut effects);
        assert!(outbox.is_paused("b", 499));
        let doubts: Vec<u64> = outbox.posts.values().filter(|w| w.post.maybe_repeated).map(|w| w.post.id.0).collect();
        assert_eq!(doubts, [2]);
    }

    #[test]
    fn a_pause_may_come_in_answer_to_anything() {
        let (mut outbox, mut effects) = (Outbox::default(), Vec::new());
        outbox.flooded(at(0), "b", 3_000);
        outbox.flooded(at(0), "b", 1_000);
        outbox.post(at(0), draft("b", 1, PostKind::Final), &mut effects);
        outbox.pump(at(2_999), &mut effects);
        assert_eq!(sent(&mut effects), [] as [u64; 0]);
        assert!(outbox.is_paused("b", 2_999) && !outbox.is_paused("b", 3_000) && !outbox.is_paused("c", 0));
        outbox.pump(at(outbox.deadline().unwrap()), &mut effects);
        assert_eq!(sent(&mut effects), [1]);
    }
}
