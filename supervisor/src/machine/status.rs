//! What a chat sees while its turn runs: typing while there is evidence of life, and one message that tells what the
//! turn does once it takes long.
//!
//! ```text
//!   queued -------- "queued: 2 before this" (at once) --+
//!   running 5 s --- "in a tool: make, 12 s" -------------------+--> edited at most every 5 s --> removed at the end
//! ```

use super::nouns::{Chat, Now, PostId, PostKind, Source};
use super::outbox::{Draft, Ended};
use super::words::Effect;
use super::{Machine, Stage, Turn};
use protocol::{AgentName, TurnId};

/// A turn that takes so long gets a status message. Milliseconds.
const SHOWN_AFTER_MS: u64 = 5_000;
/// Between two edits of a status message: far below the 20 messages a minute that a group may get. Milliseconds.
const EDIT_PAUSE_MS: u64 = 5_000;
/// Telegram shows typing for 5 s. Milliseconds.
const TYPING_EVERY_MS: u64 = 4_500;
/// Evidence of life that is older does not count: workers beat every 2 s. Milliseconds.
const ALIVE_WITHIN_MS: u64 = 6_000;

/// What the chat of a turn sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The post of the status message, while it is on its way.
    pub(super) post: Option<PostId>,
    /// Telegram's id of it.
    pub(super) message: Option<i64>,
    pub(super) shown: String,
    pub(super) edit_at: u64,
    pub(super) typing_at: u64,
    /// When the turn was first seen running.
    pub(super) running_since: Option<u64>,
}

impl Machine {
    /// Tells a sender at once that the message waits.
    pub(super) fn show_place(&mut self, now: Now, id: TurnId, before: u32, effects: &mut Vec<Effect>) {
        let waits = self.turns.get(&id).is_some_and(|turn| turn.stage == Stage::Queued);
        if before > 0 && waits {
            self.post_status(now, id, effects);
        }
    }

    fn post_status(&mut self, now: Now, id: TurnId, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turns.get(&id) else { return };
        let Source::Telegram(from) = &turn.new.source else { return };
        let text = self.doing_text(now, turn);
        let draft = Draft {
            turn: Some(id),
            kind: PostKind::Status,
            to: from.chat.clone(),
            reply_to: Some(from.message),
            edits: None,
            body: text.clone(),
        };
        let post = self.outbox.post(now, draft, effects);
        if let Some(turn) = self.turns.get_mut(&id) {
            turn.status.post = Some(post);
            turn.status.shown = text;
            turn.status.edit_at = now.tick + EDIT_PAUSE_MS;
        }
    }

    /// The status message of a turn arrived, or will never.
    pub(super) fn status_sent(&mut self, now: Now, ended: &Ended, effects: &mut Vec<Effect>) {
        if ended.post.kind != PostKind::Status {
            return;
        }
        let turn = ended.post.turn.and_then(|id| self.turns.get_mut(&id));
        match (turn, ended.message) {
            (Some(turn), Some(message)) => {
                turn.status.post = None;
                turn.status.message = Some(message);
            }
            // It cannot be sent, or not be changed: no other is tried.
            (Some(turn), None) => (turn.status.post, turn.status.edit_at) = (None, u64::MAX),
            // The turn ended while its status message was on its way.
            (None, Some(message)) => self.remove(now, ended.post.turn, ended.post.to.clone(), message, effects),
            (None, None) => {}
        }
    }

    /// A turn ends: its status message goes.
    pub(super) fn end_status(&mut self, now: Now, id: TurnId, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turns.get_mut(&id) else { return };
        let status = std::mem::take(&mut turn.status);
        let Source::Telegram(from) = &turn.new.source else { return };
        let chat = from.chat.clone();
        if let Some(post) = status.post {
            self.outbox.withdraw(now, post, "its turn is over", effects);
        }
        if let Some(message) = status.message {
            self.remove(now, Some(id), chat, message, effects);
        }
    }

    fn remove(&mut self, now: Now, turn: Option<TurnId>, to: Chat, message: i64, effects: &mut Vec<Effect>) {
        let draft =
            Draft { turn, kind: PostKind::Remove, to, reply_to: None, edits: Some(message), body: String::new() };
        self.outbox.post(now, draft, effects);
    }

    pub(super) fn show_status(&mut self, now: Now, name: &AgentName, effects: &mut Vec<Effect>) {
        for id in self.ids_of(name) {
            if self.turns.get(&id).is_some_and(|turn| matches!(turn.new.source, Source::Telegram(_))) {
                self.show_typing(now, id, effects);
                self.show_message(now, id, effects);
            }
        }
    }

    fn show_typing(&mut self, now: Now, id: TurnId, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turns.get_mut(&id) else { return };
        if !matches!(turn.stage, Stage::Running { .. }) {
            return;
        }
        turn.status.running_since.get_or_insert(now.tick);
        let alive = self
            .agents
            .get(&turn.new.conversation.agent)
            .is_some_and(|agent| agent.life.is_up() && now.tick < agent.heard_at + ALIVE_WITHIN_MS);
        if turn.status.typing_at <= now.tick {
            // Without a sign of life the next look is as far away: a silent worker must not keep us awake.
            turn.status.typing_at = now.tick + TYPING_EVERY_MS;
            if let (true, Source::Telegram(from)) = (alive, &turn.new.source)
                && !self.outbox.is_paused(&from.chat.bot, now.tick)
            {
                effects.push(Effect::Typing(from.chat.clone()));
            }
        }
    }

    fn show_message(&mut self, now: Now, id: TurnId, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turns.get(&id) else { return };
        let long = turn.status.running_since.is_some_and(|since| since + SHOWN_AFTER_MS <= now.tick);
        if turn.status.post.is_none() && turn.status.message.is_none() {
            if long && turn.status.edit_at <= now.tick {
                self.post_status(now, id, effects);
            }
            return;
        }
        let (Some(message), true) = (turn.status.message, turn.status.edit_at <= now.tick) else { return };
        let text = self.doing_text(now, turn);
        let Some(turn) = self.turns.get_mut(&id) else { return };
        turn.status.edit_at = now.tick + EDIT_PAUSE_MS;
        if turn.status.shown != text
            && let Source::Telegram(from) = &turn.new.source
            && !self.outbox.is_paused(&from.chat.bot, now.tick)
        {
            effects.push(Effect::EditStatus { chat: from.chat.clone(), message, text: text.clone() });
            turn.status.shown = text;
        }
    }

    /// See [`Machine::show_status`].
    pub(super) fn status_deadline(&self, name: &AgentName) -> Option<u64> {
        if !self.agents.get(name).is_some_and(|agent| agent.life.is_up()) {
            return None;
        }
        let of = |turn: &Turn| {
            let status = &turn.status;
            let shows = status.message.is_some().then_some(status.edit_at);
            let runs = matches!(turn.stage, Stage::Running { .. });
            let types = runs.then_some(status.typing_at);
            let first = (runs && status.post.is_none() && status.message.is_none())
                .then(|| (status.running_since.unwrap_or(0) + SHOWN_AFTER_MS).max(status.edit_at));
            [shows, types, first].into_iter().flatten().min()
        };
        let in_chat = |turn: &&Turn| matches!(turn.new.source, Source::Telegram(_));
        self.turns_of(name).filter(in_chat).filter_map(of).min()
    }

    /// What a turn does, in one line.
    pub(super) fn doing_text(&self, now: Now, turn: &Turn) -> String {
        let lane = self.lane_of(&turn.new.conversation);
        let place = lane.iter().position(|id| *id == turn.new.id).unwrap_or(0);
        let waiting = lane.len().saturating_sub(place + 1);
        let mut text = match (&turn.stage, &turn.doing) {
            (Stage::Queued | Stage::Offered, _) if place > 0 => format!("⏳ queued: {place} before this"),
            (Stage::Queued | Stage::Offered, _) => "⏳ queued: waits for a free place".to_owned(),
            (Stage::Pausing { until }, _) => {
                format!("⏳ a try failed; the next one in {}", span(until.saturating_sub(now.tick)))
            }
            (Stage::Running { .. }, None) => "⏳ starting".to_owned(),
            (Stage::Running { .. }, Some(doing)) => {
                format!("⏳ {}, {}", doing.phase.with(&doing.detail), span(doing.age(now)))
            }
        };
        if let Some(since) = turn.status.running_since {
            say(&mut text, format_args!(" · {} in all", span(now.tick.saturating_sub(since))));
        }
        if waiting > 0 {
            say(&mut text, format_args!(" · {waiting} waiting"));
        }
        text
    }
}

/// `42 s`, `3 m 10 s`, `2 h 5 m`.
fn span(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => format!("{} m {} s", s / 60, s % 60),
        _ => format!("{} h {} m", s / 3_600, s % 3_600 / 60),
    }
}

/// Adds words to a text.
pub(super) fn say(text: &mut String, words: std::fmt::Arguments<'_>) {
    text.push_str(&words.to_string());
}
