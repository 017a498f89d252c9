//! What the machine must know at the start, read from the ledger in one snapshot. The reverse of `record.rs`.

use super::record::amount;
use super::{EVENT_BYTES_MAX, workers};
use crate::machine::nouns::{
    Chat, ChatMessage, Conversation, LastNumbers, Memory, NewAttempt, NewTurn, OldAttempt, OpenPost, OpenTurn, Post,
    PostId, PostKind, Source, Stranded, UpdateId, Wall,
};
use crate::machine::words::{JOINT, PROMPT_BYTES_MAX};
use protocol::text::clip;
use protocol::{AgentName, AttemptId, FailureClass, Incarnation, Outcome, Route, Runtime, TurnId};
use rusqlite::types::{FromSql, FromSqlError, Type};
use rusqlite::{Connection, Error, Result, Row, params};
use std::collections::BTreeMap;

/// Most endings of one agent: the streak that `ps` shows need not count further.
pub(super) const ENDINGS_MAX: u32 = 100;

/// How long a bot may hand an update over again, in milliseconds: twice as long as Telegram keeps one.
pub(super) const SEEN_WITHIN_MS: u64 = 48 * 60 * 60 * 1000;

/// How far below a bot's offset an update may be seen again: ten times the most that Telegram hands over at once.
pub(super) const SEEN_BELOW_OFFSET: i64 = 1_000;

/// Most updates that may be seen again: 1.5 MB of memory, and more than any bot may be behind.
pub(super) const SEEN_MAX: u32 = 20_000;

/// A column that holds what no release writes.
pub(super) fn wrong(what: &'static str) -> Error {
    Error::FromSqlConversionFailure(0, Type::Text, Box::new(FromSqlError::Other(what.into())))
}

/// A number that only we wrote: never negative.
pub(super) fn unsigned(row: &Row<'_>, column: &str) -> Result<u64> {
    row.get::<_, i64>(column).map(|n| u64::try_from(n).unwrap_or(0))
}

pub(super) fn maybe_unsigned(row: &Row<'_>, column: &str) -> Result<Option<u64>> {
    row.get::<_, Option<i64>>(column).map(|n| n.and_then(|n| u64::try_from(n).ok()))
}

pub(super) fn agent(row: &Row<'_>) -> Result<AgentName> {
    AgentName::parse(&row.get::<_, String>("agent")?).map_err(|_| wrong("not an agent's name"))
}

/// Every row of a query without values.
fn all<T>(ledger: &Connection, sql: &str, read: impl FnMut(&Row<'_>) -> Result<T>) -> Result<Vec<T>> {
    ledger.prepare(sql)?.query_map([], read)?.collect()
}

fn one<T: FromSql>(ledger: &Connection, sql: &str) -> Result<T> {
    ledger.query_row(sql, [], |row| row.get(0))
}

/// Agent, class of a failure, its text, when.
type Ending = (AgentName, Option<FailureClass>, String, Wall);

/// Everything that [`Memory`] names.
pub(super) fn recall(ledger: &mut Connection, now: Wall) -> Result<Memory> {
    let snapshot = ledger.transaction()?;
    let memory = Memory {
        ledger: u64::try_from(one::<i64>(&snapshot, "SELECT value FROM meta WHERE name = 'ledger'")?).unwrap_or(0),
        last: last(&snapshot)?,
        turns: turns(&snapshot)?,
        posts: posts(&snapshot)?,
        threads: all(&snapshot, "SELECT * FROM threads ORDER BY agent, conversation", |row| {
            Ok((conversation(row)?, row.get("thread")?))
        })?,
        endings: endings(&snapshot)?,
        down: all(&snapshot, "SELECT agent FROM agents WHERE wanted_up = 0 ORDER BY agent", agent)?,
        workers: all(&snapshot, "SELECT * FROM workers ORDER BY agent", workers::read)?,
        offsets: all(&snapshot, "SELECT bot, next FROM offsets ORDER BY bot", |row| Ok((row.get(0)?, row.get(1)?)))?,
        stranded: stranded(&snapshot)?,
        seen: seen(&snapshot, now)?,
    };
    snapshot.commit()?;
    Ok(memory)
}

fn last(ledger: &Connection) -> Result<LastNumbers> {
    let given: BTreeMap<String, i64> =
        all(ledger, "SELECT name, seq FROM sqlite_sequence", |row| Ok((row.get(0)?, row.get(1)?)))?
            .into_iter()
            .collect();
    let of = |table: &str| given.get(table).and_then(|n| u64::try_from(*n).ok()).unwrap_or(0);
    let incarnation: i64 = one(ledger, "SELECT coalesce(max(incarnation), 0) FROM agents")?;
    Ok(LastNumbers {
        update: of("updates"),
        turn: of("turns"),
        attempt: of("attempts"),
        post: of("posts"),
        incarnation: u64::try_from(incarnation).unwrap_or(0),
    })
}

fn conversation(row: &Row<'_>) -> Result<Conversation> {
    Ok(Conversation { agent: agent(row)?, name: row.get("conversation")? })
}

fn chat(row: &Row<'_>) -> Result<Chat> {
    Ok(Chat { bot: row.get("bot")?, chat: row.get("chat")?, topic: row.get("topic")? })
}

/// A turn as it was accepted.
pub(super) fn turn(row: &Row<'_>) -> Result<NewTurn> {
    let source = match row.get::<_, String>("source")?.as_str() {
        "console" => Source::Console,
        "telegram" => {
            Source::Telegram(ChatMessage { chat: chat(row)?, message: row.get("message")?, user: row.get("user")? })
        }
        _ => return Err(wrong("not a source")),
    };
    Ok(NewTurn {
        id: TurnId(unsigned(row, "id")?),
        conversation: conversation(row)?,
        source,
        update: maybe_unsigned(row, "update_id")?.map(UpdateId),
        prompt: row.get("prompt")?,
        retry_of: maybe_unsigned(row, "retry_of")?.map(TurnId),
        at: unsigned(row, "accepted_at")?,
    })
}

fn attempt(row: &Row<'_>) -> Result<OldAttempt> {
    let runtime = Runtime::parse(&row.get::<_, String>("runtime")?).ok_or_else(|| wrong("not a runtime"))?;
    let attempt = NewAttempt {
        id: AttemptId(unsigned(row, "id")?),
        turn: TurnId(unsigned(row, "turn_id")?),
        incarnation: Incarnation(unsigned(row, "incarnation")?),
        route: Route { runtime, provider: row.get("provider")?, model: row.get("model")? },
        thread: row.get("resumed_thread")?,
        at: unsigned(row, "begun_at")?,
    };
    let class: Option<String> = row.get("class")?;
    let outcome = match row.get::<_, Option<String>>("outcome")? {
        None => None,
        Some(word) => Some(Outcome::parse(&word, class.as_deref()).ok_or_else(|| wrong("not an outcome"))?),
    };
    Ok(OldAttempt { attempt, outcome, started: row.get::<_, Option<i64>>("started_at")?.is_some() })
}

/// Adds to a prompt what joined it: the turn has to say it again if it is tried again.
pub(super) fn with_joined(ledger: &Connection, mut turn: NewTurn) -> Result<NewTurn> {
    let sql = "SELECT prompt FROM turns WHERE joined_turn = ? AND id > ? ORDER BY ended_at, id";
    let mut joined = ledger.prepare_cached(sql)?;
    let mut rows = joined.query([amount(turn.id.0), amount(turn.id.0)])?;
    while let Some(row) = rows.next()? {
        let text: String = row.get(0)?;
        if turn.prompt.len() + text.len() < PROMPT_BYTES_MAX {
            turn.prompt.push_str(JOINT);
            turn.prompt.push_str(&text);
        }
    }
    Ok(turn)
}

/// Updates that were taken and led to nothing: their command was on its way when we ended.
fn stranded(ledger: &Connection) -> Result<Vec<Stranded>> {
    let sql = "SELECT * FROM updates WHERE outcome IS NULL
               AND NOT EXISTS (SELECT 1 FROM turns WHERE turns.update_id = updates.id) ORDER BY id";
    all(ledger, sql, |row| {
        let known = row.get::<_, Option<i64>>("chat")?.is_some()
            && row.get::<_, Option<i64>>("message")?.is_some()
            && row.get::<_, Option<i64>>("user")?.is_some();
        let from = known
            .then(|| {
                Ok::<_, Error>(ChatMessage { chat: chat(row)?, message: row.get("message")?, user: row.get("user")? })
            })
            .transpose()?;
        Ok(Stranded { update: UpdateId(unsigned(row, "id")?), from })
    })
}

fn turns(ledger: &Connection) -> Result<Vec<OpenTurn>> {
    let mut attempts = ledger.prepare("SELECT * FROM attempts WHERE turn_id = ? ORDER BY id")?;
    all(ledger, "SELECT * FROM turns WHERE outcome IS NULL ORDER BY id", turn)?
        .into_iter()
        .map(|turn| {
            let turn = with_joined(ledger, turn)?;
            let attempts = attempts.query_map([amount(turn.id.0)], attempt)?.collect::<Result<_>>()?;
            Ok(OpenTurn { turn, attempts })
        })
        .collect()
}

fn posts(ledger: &Connection) -> Result<Vec<OpenPost>> {
    // Two indexes instead of one look at every post: the second half starts at the open turns.
    let sql = "SELECT * FROM posts WHERE state = 'waiting'
               UNION ALL
               SELECT posts.* FROM turns JOIN posts ON posts.turn_id = turns.id
               WHERE turns.outcome IS NULL AND posts.kind = 'status' AND posts.state = 'sent'
               ORDER BY id";
    all(ledger, sql, |row| {
        let post = Post {
            id: PostId(unsigned(row, "id")?),
            turn: maybe_unsigned(row, "turn_id")?.map(TurnId),
            kind: PostKind::parse(&row.get::<_, String>("kind")?).ok_or_else(|| wrong("not a kind of post"))?,
            to: chat(row)?,
            reply_to: row.get("reply_to")?,
            edits: row.get("edits")?,
            body: row.get("body")?,
            sent_pieces: row.get("sent_pieces")?,
            tries: row.get("tries")?,
            maybe_repeated: row.get("maybe_repeated")?,
            plain: row.get("plain")?,
            at: unsigned(row, "made_at")?,
        };
        Ok(OpenPost { post, not_before: unsigned(row, "not_before")?, message: row.get("sent_message")? })
    })
}

fn endings(ledger: &Connection) -> Result<Vec<Ending>> {
    let agents: Vec<String> =
        all(ledger, "SELECT DISTINCT agent FROM turns WHERE ended_at IS NOT NULL ORDER BY agent", |row| row.get(0))?;
    let mut latest = ledger.prepare(
        "SELECT agent, outcome, class, CASE outcome WHEN 'failed' THEN answer ELSE '' END AS text, ended_at
         FROM turns WHERE agent = ? AND ended_at IS NOT NULL AND outcome IN ('completed', 'failed')
         ORDER BY ended_at DESC, id DESC LIMIT ?",
    )?;
    let mut endings = Vec::new();
    for name in agents {
        let rows = latest.query_map(params![name, ENDINGS_MAX], |row| {
            let class: Option<String> = row.get("class")?;
            let outcome = Outcome::parse(&row.get::<_, String>("outcome")?, class.as_deref());
            let text: String = row.get("text")?;
            let class = outcome.and_then(Outcome::class);
            Ok((agent(row)?, class, clip(&text, EVENT_BYTES_MAX).to_owned(), unsigned(row, "ended_at")?))
        })?;
        for row in rows {
            endings.push(row?);
        }
    }
    Ok(endings)
}

fn seen(ledger: &Connection, now: Wall) -> Result<Vec<(String, i64)>> {
    let since = amount(now.saturating_sub(SEEN_WITHIN_MS));
    ledger
        .prepare(
            "SELECT latest.bot AS bot, latest.external AS external
             FROM (SELECT bot, external, received_at FROM updates ORDER BY id DESC LIMIT ?) AS latest
                  LEFT JOIN offsets ON offsets.bot = latest.bot
             WHERE latest.received_at >= ? AND (offsets.next IS NULL OR latest.external >= offsets.next - ?)
             ORDER BY bot, external",
        )?
        .query_map(params![SEEN_MAX, since, SEEN_BELOW_OFFSET], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}
