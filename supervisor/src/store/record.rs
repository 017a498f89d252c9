//! One batch of records as SQL. A batch is applied inside a savepoint: an error undoes all of it.
//!
//! An update that the ledger has (same bot, same external number) changes nothing, nor does what hangs on it in the
//! same batch: its end, its turn, and that turn's attempts, posts and end. Second ends change nothing either, and are
//! told as bugs.

use super::{EVENT_BYTES_MAX, TEXT_BYTES_MAX, workers};
use crate::machine::nouns::{
    Chat, ChatMessage, Event, NewAttempt, NewTurn, NewUpdate, Post, PostId, PostState, Record, Source, TurnEnd,
    UpdateEnd, UpdateId, UpdateKind, Wall,
};
use protocol::text::clip;
use protocol::{AttemptId, FailureClass, Finished, TurnId};
use rusqlite::{Connection, Error, Result, params};
use std::collections::BTreeSet;

/// A row's number as SQLite holds it. Ours count from 1, so one beyond its range is a bug.
pub(super) fn number(value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|error| Error::ToSqlConversionFailure(Box::new(error)))
}

/// A time or an amount, which may be a worker's nonsense: the largest possible instead of a refusal, because an outcome
/// that is refused comes again for ever.
pub(super) fn amount(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn maybe(value: Option<u64>) -> Result<Option<i64>> {
    value.map(number).transpose()
}

fn bounded(text: &str) -> &str {
    clip(text, TEXT_BYTES_MAX)
}

/// Applies a batch; returns the bugs that it showed.
pub(super) fn apply(ledger: &Connection, records: &[Record]) -> Result<Vec<String>> {
    let mut batch = Batch { ledger, twice: Twice::default(), bugs: Vec::new() };
    for record in records {
        batch.apply(record)?;
    }
    Ok(batch.bugs)
}

/// What hangs on an update that came twice.
#[derive(Default)]
struct Twice {
    updates: BTreeSet<UpdateId>,
    turns: BTreeSet<TurnId>,
    attempts: BTreeSet<AttemptId>,
    posts: BTreeSet<PostId>,
}

struct Batch<'a> {
    ledger: &'a Connection,
    twice: Twice,
    bugs: Vec<String>,
}

impl Batch<'_> {
    fn apply(&mut self, record: &Record) -> Result<()> {
        match record {
            Record::Update(new) => self.update(new),
            Record::UpdateEnded(id, end, at) => self.update_ended(*id, end, *at),
            Record::Offset(bot, next) => self.offset(bot, *next),
            Record::Turn(new) => self.turn(new),
            Record::TurnEnded(id, end, text, at) => self.turn_ended(*id, end, text, *at),
            Record::Attempt(new) => self.attempt(new),
            Record::AttemptStarted(id, thread, at) => self.attempt_started(*id, thread, *at),
            Record::AttemptEnded(end, at) => self.attempt_ended(end, *at),
            Record::Thread(conversation, thread) => {
                self.thread(conversation.agent.as_str(), &conversation.name, thread.as_deref())
            }
            Record::Post(post) => self.post(post),
            Record::PostState(id, state, at) => self.post_state(*id, state, *at),
            Record::Wanted(agent, up) => self.wanted(agent.as_str(), *up),
            Record::Incarnation(agent, incarnation, at) => self.incarnation(agent.as_str(), incarnation.0, *at),
            Record::Worker(agent, worker, at) => workers::write(self.ledger, agent, worker, *at),
            Record::Event(event) => self.event(event),
        }
    }

    /// Runs one statement; returns how many rows it changed.
    fn run(&self, sql: &str, values: impl rusqlite::Params) -> Result<usize> {
        self.ledger.prepare_cached(sql)?.execute(values)
    }

    fn bug(&mut self, what: String, at: Wall) -> Result<()> {
        self.run("INSERT INTO events (at, what) VALUES (?, ?)", params![amount(at), format!("bug: {what}")])?;
        self.bugs.push(what);
        Ok(())
    }

    fn update(&mut self, new: &NewUpdate) -> Result<()> {
        let update = &new.update;
        let (kind, from) = match &update.kind {
            UpdateKind::Text { from, .. } => ("text", Some(from)),
            UpdateKind::Other { what, from } => (what.as_str(), from.as_ref()),
        };
        let added = self.run(
            "INSERT INTO updates (id, bot, external, kind, chat, topic, message, user, raw, received_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (bot, external) DO NOTHING",
            params![
                number(new.id.0)?,
                update.bot,
                update.external,
                kind,
                from.map(|f| f.chat.chat),
                from.and_then(|f| f.chat.topic),
                from.map(|f| f.message),
                from.map(|f| f.user),
                bounded(&update.raw),
                amount(new.at),
            ],
        )?;
        if added == 0 {
            self.twice.updates.insert(new.id);
        }
        Ok(())
    }

    fn update_ended(&mut self, id: UpdateId, end: &UpdateEnd, at: Wall) -> Result<()> {
        if self.twice.updates.contains(&id) {
            return Ok(());
        }
        let (why, joined) = match end {
            UpdateEnd::Refused(why) | UpdateEnd::Cancelled(why) => (Some(bounded(why)), None),
            UpdateEnd::Joined(turn) => (None, Some(number(turn.0)?)),
            UpdateEnd::Answered | UpdateEnd::Failed => (None, None),
        };
        let changed = self.run(
            "UPDATE updates SET outcome = ?, why = ?, joined_turn = ?, ended_at = ? WHERE id = ? AND outcome IS NULL",
            params![end.as_str(), why, joined, amount(at), number(id.0)?],
        )?;
        if changed == 0 {
            self.bug(format!("update {id} was to end {} but is not open", end.as_str()), at)?;
        }
        Ok(())
    }

    fn offset(&self, bot: &str, next: i64) -> Result<()> {
        self.run(
            "INSERT INTO offsets (bot, next) VALUES (?, ?) ON CONFLICT (bot) DO UPDATE SET next = excluded.next",
            params![bot, next],
        )?;
        Ok(())
    }

    fn turn(&mut self, new: &NewTurn) -> Result<()> {
        if new.update.is_some_and(|id| self.twice.updates.contains(&id)) {
            self.twice.turns.insert(new.id);
            return Ok(());
        }
        let (source, from) = match &new.source {
            Source::Console => ("console", None),
            Source::Telegram(message) => ("telegram", Some(message)),
        };
        self.run(
            "INSERT INTO turns (id, agent, conversation, source, bot, chat, topic, message, user, update_id, prompt,
                                retry_of, accepted_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                number(new.id.0)?,
                new.conversation.agent.as_str(),
                new.conversation.name,
                source,
                from.map(|f: &ChatMessage| &f.chat.bot),
                from.map(|f| f.chat.chat),
                from.and_then(|f| f.chat.topic),
                from.map(|f| f.message),
                from.map(|f| f.user),
                maybe(new.update.map(|id| id.0))?,
                bounded(&new.prompt),
                maybe(new.retry_of.map(|id| id.0))?,
                amount(new.at),
            ],
        )?;
        Ok(())
    }

    fn turn_ended(&mut self, id: TurnId, end: &TurnEnd, text: &str, at: Wall) -> Result<()> {
        if self.twice.turns.contains(&id) {
            return Ok(());
        }
        let (why, joined) = match end {
            TurnEnd::Outcome(_) => (None, None),
            TurnEnd::Cancelled(why) => (Some(bounded(why)), None),
            TurnEnd::Joined(turn) => (None, Some(number(turn.0)?)),
        };
        let changed = self.run(
            "UPDATE turns SET outcome = ?, class = ?, why = ?, joined_turn = ?, answer = ?, ended_at = ?
             WHERE id = ? AND outcome IS NULL",
            params![
                end.as_str(),
                end.class().map(FailureClass::as_str),
                why,
                joined,
                bounded(text),
                amount(at),
                number(id.0)?
            ],
        )?;
        if changed == 0 {
            self.bug(format!("turn {id} was to end {} but is not open", end.as_str()), at)?;
        }
        Ok(())
    }

    fn attempt(&mut self, new: &NewAttempt) -> Result<()> {
        if self.twice.turns.contains(&new.turn) {
            self.twice.attempts.insert(new.id);
            return Ok(());
        }
        self.run(
            "INSERT INTO attempts (id, turn_id, incarnation, runtime, provider, model, resumed_thread, begun_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                number(new.id.0)?,
                number(new.turn.0)?,
                number(new.incarnation.0)?,
                new.route.runtime.as_str(),
                new.route.provider,
                new.route.model,
                new.thread,
                amount(new.at),
            ],
        )?;
        Ok(())
    }

    /// A worker says it again after a lost session: the first time stays.
    fn attempt_started(&self, id: AttemptId, thread: &str, at: Wall) -> Result<()> {
        self.run(
            "UPDATE attempts SET started_at = ?, thread = coalesce(thread, ?) WHERE id = ? AND started_at IS NULL",
            params![amount(at), thread, number(id.0)?],
        )?;
        Ok(())
    }

    fn attempt_ended(&mut self, end: &Finished, at: Wall) -> Result<()> {
        if self.twice.attempts.contains(&end.attempt) {
            return Ok(());
        }
        let ran = serde_json::to_string(&end.ran).unwrap_or_else(|_| "[]".to_owned());
        let changed = self.run(
            "UPDATE attempts SET outcome = ?, class = ?, detail = ?, ran = ?, replay_safe = ?, exit_code = ?,
                    signal = ?, stderr = ?, resets_at = ?, first_event_ms = ?, duration_ms = ?, input_tokens = ?,
                    output_tokens = ?, codex_version = ?, thread = coalesce(?, thread), ended_at = ?
             WHERE id = ? AND outcome IS NULL",
            params![
                end.outcome.as_str(),
                end.outcome.class().map(FailureClass::as_str),
                bounded(&end.detail),
                ran,
                end.replay_safe,
                end.exit_code,
                end.signal,
                bounded(&end.stderr),
                end.resets_at.map(amount),
                end.first_event_ms.map(amount),
                amount(end.duration_ms),
                amount(end.input_tokens),
                amount(end.output_tokens),
                end.codex_version,
                end.thread,
                amount(at),
                number(end.attempt.0)?,
            ],
        )?;
        if changed == 0 {
            let (attempt, outcome) = (end.attempt, end.outcome.as_str());
            self.bug(format!("attempt {attempt} was to end {outcome} but is not open"), at)?;
        }
        Ok(())
    }

    fn thread(&self, agent: &str, conversation: &str, thread: Option<&str>) -> Result<()> {
        match thread {
            Some(thread) => self.run(
                "INSERT INTO threads (agent, conversation, thread) VALUES (?, ?, ?)
                 ON CONFLICT (agent, conversation) DO UPDATE SET thread = excluded.thread",
                params![agent, conversation, thread],
            )?,
            None => {
                self.run("DELETE FROM threads WHERE agent = ? AND conversation = ?", params![agent, conversation])?
            }
        };
        Ok(())
    }

    fn post(&mut self, post: &Post) -> Result<()> {
        if post.turn.is_some_and(|id| self.twice.turns.contains(&id)) {
            self.twice.posts.insert(post.id);
            return Ok(());
        }
        let Chat { bot, chat, topic } = &post.to;
        self.run(
            "INSERT INTO posts (id, turn_id, kind, bot, chat, topic, reply_to, edits, body, made_at, sent_pieces,
                                tries, maybe_repeated, plain, changed_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                number(post.id.0)?,
                maybe(post.turn.map(|id| id.0))?,
                post.kind.as_str(),
                bot,
                chat,
                topic,
                post.reply_to,
                post.edits,
                bounded(&post.body),
                amount(post.at),
                post.sent_pieces,
                post.tries,
                post.maybe_repeated,
                post.plain,
                amount(post.at),
            ],
        )?;
        Ok(())
    }

    fn post_state(&mut self, id: PostId, state: &PostState, at: Wall) -> Result<()> {
        if self.twice.posts.contains(&id) {
            return Ok(());
        }
        let (now, row) = (amount(at), number(id.0)?);
        let changed = match state {
            PostState::Waiting { not_before, sent_pieces, tries, maybe_repeated, plain, why } => self.run(
                "UPDATE posts SET not_before = ?, sent_pieces = ?, tries = ?, maybe_repeated = ?, plain = ?, why = ?,
                        changed_at = ?
                 WHERE id = ? AND state = 'waiting'",
                params![amount(*not_before), sent_pieces, tries, maybe_repeated, plain, bounded(why), now, row],
            )?,
            PostState::Sent(message) => self.run(
                "UPDATE posts SET state = 'sent', sent_message = ?, why = '', changed_at = ?
                 WHERE id = ? AND state = 'waiting'",
                params![message, now, row],
            )?,
            PostState::Dead(why) => self.run(
                "UPDATE posts SET state = 'dead', why = ?, changed_at = ? WHERE id = ? AND state = 'waiting'",
                params![bounded(why), now, row],
            )?,
        };
        if changed == 0 {
            self.bug(format!("post {id} was to change but does not wait"), at)?;
        }
        Ok(())
    }

    fn wanted(&self, agent: &str, up: bool) -> Result<()> {
        self.run(
            "INSERT INTO agents (agent, wanted_up) VALUES (?, ?)
             ON CONFLICT (agent) DO UPDATE SET wanted_up = excluded.wanted_up",
            params![agent, up],
        )?;
        Ok(())
    }

    fn incarnation(&self, agent: &str, incarnation: u64, at: Wall) -> Result<()> {
        self.run(
            "INSERT INTO agents (agent, incarnation, incarnation_at) VALUES (?, ?, ?)
             ON CONFLICT (agent) DO UPDATE SET incarnation = max(incarnation, excluded.incarnation),
                                               incarnation_at = excluded.incarnation_at",
            params![agent, number(incarnation)?, amount(at)],
        )?;
        Ok(())
    }

    fn event(&self, event: &Event) -> Result<()> {
        self.run(
            "INSERT INTO events (at, agent, turn_id, what) VALUES (?, ?, ?, ?)",
            params![
                amount(event.at),
                event.agent.as_ref().map(protocol::AgentName::as_str),
                maybe(event.turn.map(|id| id.0))?,
                clip(&event.what, EVENT_BYTES_MAX),
            ],
        )?;
        Ok(())
    }
}
