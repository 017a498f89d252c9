//! What people ask the ledger: listings and stories, read on a thread and a connection of their own. Every text is cut
//! so that an answer fits into one frame of the control socket (1 MiB).

use super::recall::{maybe_unsigned, unsigned};
use super::record::amount;
use super::{LookError, again};
use crate::machine::nouns::Conversation;
use crate::machine::words::Recalled;
use protocol::control::{AttemptStory, TurnRow, TurnStory, Turns};
use protocol::text::{HEAD_BYTES_MAX, INLINE_BYTES_MAX, clip};
use protocol::{AttemptId, FailureClass, TurnId};
use rusqlite::{Connection, OptionalExtension as _, Result, Row, params};
use tokio::sync::{mpsc, oneshot};

/// Most rows of a listing: 400 bytes each fill half a frame.
const ROWS_MAX: u32 = 1_000;
/// Longest first line of a prompt in a listing, in bytes: wider than any terminal.
const LINE_BYTES_MAX: usize = 160;
/// Longest conversation name in a listing, in bytes: the longest of ours is below 80.
const NAME_BYTES_MAX: usize = 120;
/// Most attempts of a story, the latest: more than any list of fallbacks and retries makes.
const ATTEMPTS_MAX: u32 = 20;
/// Longest text of an attempt in a story, in bytes: three of them for each of 20 attempts fill half a frame.
const ATTEMPT_TEXT_BYTES_MAX: usize = 8 * 1024;
/// Most events of a story, the latest.
const EVENTS_MAX: u32 = 100;
/// Longest event in a story, in bytes.
const EVENT_TEXT_BYTES_MAX: usize = 512;
/// Most posts of a story, the latest.
const POSTS_MAX: u32 = 50;

/// A question, and who waits for its answer.
#[derive(Debug)]
pub(super) enum Ask {
    Turns(Turns, oneshot::Sender<Result<Vec<TurnRow>, LookError>>),
    Turn(TurnId, oneshot::Sender<Result<Option<TurnStory>, LookError>>),
    Again(TurnId, oneshot::Sender<Result<Option<Recalled>, LookError>>),
    Latest(Conversation, oneshot::Sender<Result<Option<Recalled>, LookError>>),
}

/// Answers until nobody can ask. An asker that has gone is no error.
pub(super) fn serve(mut ledger: Connection, mut asks: mpsc::Receiver<Ask>) {
    while let Some(ask) = asks.blocking_recv() {
        match ask {
            Ask::Turns(which, answer) => drop(answer.send(turns(&ledger, &which).map_err(LookError::from))),
            Ask::Turn(id, answer) => drop(answer.send(turn(&mut ledger, id).map_err(LookError::from))),
            Ask::Again(id, answer) => drop(answer.send(again::by_number(&ledger, id).map_err(LookError::from))),
            Ask::Latest(of, answer) => drop(answer.send(again::latest(&ledger, &of).map_err(LookError::from))),
        }
    }
}

/// The turn's own events, and what happened to its agent meanwhile: a worker that ended explains more than the turn can.
const EVENTS: &str = "SELECT * FROM events WHERE turn_id = ?1
    UNION
    SELECT events.* FROM events JOIN turns ON turns.id = ?1
     WHERE events.turn_id IS NULL AND events.agent = turns.agent
       AND events.at BETWEEN turns.accepted_at AND coalesce(turns.ended_at, 9223372036854775807)
    ORDER BY id DESC LIMIT ?2";

const ROW: &str = "SELECT turns.*, turn_state.state, turn_state.attempts AS tries
                   FROM turns JOIN turn_state ON turn_state.turn = turns.id ";

fn row(row: &Row<'_>) -> Result<TurnRow> {
    let prompt: String = row.get("prompt")?;
    let conversation: String = row.get("conversation")?;
    Ok(TurnRow {
        turn: TurnId(unsigned(row, "id")?),
        agent: row.get("agent")?,
        conversation: clip(&conversation, NAME_BYTES_MAX).to_owned(),
        state: row.get("state")?,
        class: row.get("class")?,
        accepted_at: unsigned(row, "accepted_at")?,
        ended_at: maybe_unsigned(row, "ended_at")?,
        attempts: row.get("tries")?,
        prompt: clip(prompt.trim_start().lines().next().unwrap_or(""), LINE_BYTES_MAX).to_owned(),
    })
}

fn turns(ledger: &Connection, which: &Turns) -> Result<Vec<TurnRow>> {
    let sql = format!(
        "{ROW} WHERE (?1 IS NULL OR turns.agent = ?1) AND (NOT ?2 OR turns.outcome = 'failed')
         ORDER BY turns.id DESC LIMIT ?3"
    );
    ledger
        .prepare_cached(&sql)?
        .query_map(
            params![which.agent.as_ref().map(protocol::AgentName::as_str), which.failed, which.most.min(ROWS_MAX)],
            row,
        )?
        .collect()
}

/// One snapshot, so that the parts of the story fit together.
fn turn(ledger: &mut Connection, id: TurnId) -> Result<Option<TurnStory>> {
    let snapshot = ledger.transaction()?;
    let number = amount(id.0);
    let story = snapshot.prepare_cached(&format!("{ROW} WHERE turns.id = ?"))?.query_row([number], story).optional()?;
    let Some(mut story) = story else { return Ok(None) };
    story.attempts = latest(
        &snapshot,
        "SELECT * FROM attempts WHERE turn_id = ?1 ORDER BY id DESC LIMIT ?2",
        number,
        ATTEMPTS_MAX,
        attempt,
    )?;
    story.events = latest(&snapshot, EVENTS, number, EVENTS_MAX, event)?;
    story.posts =
        latest(&snapshot, "SELECT * FROM posts WHERE turn_id = ?1 ORDER BY id DESC LIMIT ?2", number, POSTS_MAX, post)?;
    Ok(Some(story))
}

/// The latest rows of a turn, in the order in which they were made.
fn latest<T>(ledger: &Connection, sql: &str, turn: i64, most: u32, read: fn(&Row<'_>) -> Result<T>) -> Result<Vec<T>> {
    let mut rows = ledger.prepare_cached(sql)?.query_map((turn, most), read)?.collect::<Result<Vec<_>>>()?;
    rows.reverse();
    Ok(rows)
}

fn story(of: &Row<'_>) -> Result<TurnStory> {
    let row = row(of)?;
    let class = row.class.as_deref().and_then(FailureClass::parse);
    let next_step =
        class.map(|class| class.policy().next_step.replace("AGENT", &row.agent).replace("ID", &row.turn.to_string()));
    let source = match (of.get::<_, Option<String>>("bot")?, of.get::<_, Option<i64>>("chat")?) {
        (Some(bot), Some(chat)) => format!("telegram:{bot}:{chat}"),
        (None, _) | (_, None) => of.get("source")?,
    };
    let why: Option<String> = of.get("why")?;
    let joined = maybe_unsigned(of, "joined_turn")?.map(|into| format!("joined turn {into}"));
    let answer = of.get::<_, Option<String>>("answer")?.filter(|text| !text.is_empty()).or(why).or(joined);
    let prompt: String = of.get("prompt")?;
    Ok(TurnStory {
        row,
        source,
        retry_of: maybe_unsigned(of, "retry_of")?.map(TurnId),
        prompt: clip(&prompt, HEAD_BYTES_MAX).to_owned(),
        answer: clip(answer.as_deref().unwrap_or(""), INLINE_BYTES_MAX).to_owned(),
        next_step,
        attempts: Vec::new(),
        events: Vec::new(),
        posts: Vec::new(),
    })
}

fn cut(row: &Row<'_>, column: &str, bytes_max: usize) -> Result<String> {
    row.get::<_, String>(column).map(|text| clip(&text, bytes_max).to_owned())
}

/// The end of a text: the last lines of a stderr tell the most.
fn tail(text: &str, bytes_max: usize) -> &str {
    let from = text.len().saturating_sub(bytes_max);
    let start = (from..=text.len()).find(|i| text.is_char_boundary(*i)).unwrap_or(text.len());
    text.get(start..).unwrap_or("")
}

fn attempt(row: &Row<'_>) -> Result<AttemptStory> {
    let mut left = ATTEMPT_TEXT_BYTES_MAX;
    let ran: Vec<String> = serde_json::from_str(&row.get::<_, String>("ran")?).unwrap_or_default();
    let ran =
        ran.into_iter().take_while(|what| left.checked_sub(what.len() + 8).inspect(|rest| left = *rest).is_some());
    Ok(AttemptStory {
        attempt: AttemptId(unsigned(row, "id")?),
        incarnation: unsigned(row, "incarnation")?,
        runtime: row.get("runtime")?,
        model: format!("{}/{}", row.get::<_, String>("provider")?, row.get::<_, String>("model")?),
        thread: row.get::<_, Option<String>>("thread")?.or(row.get("resumed_thread")?),
        state: row.get::<_, Option<String>>("outcome")?.unwrap_or_else(|| "running".to_owned()),
        class: row.get("class")?,
        detail: cut(row, "detail", ATTEMPT_TEXT_BYTES_MAX)?,
        ran: ran.collect(),
        replay_safe: row.get("replay_safe")?,
        exit_code: row.get("exit_code")?,
        signal: row.get("signal")?,
        stderr: tail(&row.get::<_, String>("stderr")?, ATTEMPT_TEXT_BYTES_MAX).to_owned(),
        begun_at: unsigned(row, "begun_at")?,
        started_at: maybe_unsigned(row, "started_at")?,
        ended_at: maybe_unsigned(row, "ended_at")?,
        first_event_ms: maybe_unsigned(row, "first_event_ms")?,
        tokens: (unsigned(row, "input_tokens")?, unsigned(row, "output_tokens")?),
        codex_version: row.get("codex_version")?,
        resets_at: maybe_unsigned(row, "resets_at")?,
    })
}

fn event(row: &Row<'_>) -> Result<(u64, String)> {
    Ok((unsigned(row, "at")?, cut(row, "what", EVENT_TEXT_BYTES_MAX)?))
}

/// `(sent, "final to telegram:BOT:CHAT, 2 tries, may be repeated: the last try's words")`.
fn post(row: &Row<'_>) -> Result<(String, String)> {
    let kind: String = row.get("kind")?;
    let mut words = format!("{kind} to telegram:{}:{}", row.get::<_, String>("bot")?, row.get::<_, i64>("chat")?);
    let tries: u32 = row.get("tries")?;
    if tries > 0 {
        words.push_str(", ");
        words.push_str(&tries.to_string());
        words.push_str(" tries");
    }
    if row.get("maybe_repeated")? {
        words.push_str(", may be repeated");
    }
    let why = cut(row, "why", EVENT_TEXT_BYTES_MAX)?;
    if !why.is_empty() {
        words.push_str(": ");
        words.push_str(&why);
    }
    Ok((row.get("state")?, words))
}
