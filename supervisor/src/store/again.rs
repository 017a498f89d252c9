//! An ended turn as it was asked, for whoever wants it tried again.

use super::recall::{turn, with_joined};
use crate::machine::nouns::Conversation;
use crate::machine::words::Recalled;
use protocol::TurnId;
use rusqlite::{Connection, OptionalExtension as _, Result, Row, params};

const WITH_STATE: &str = "SELECT turns.*, turn_state.state FROM turns JOIN turn_state ON turn_state.turn = turns.id";

fn whole(ledger: &Connection, found: Option<Recalled>) -> Result<Option<Recalled>> {
    found.map(|found| Ok(Recalled { turn: with_joined(ledger, found.turn)?, ..found })).transpose()
}

fn recalled(row: &Row<'_>) -> Result<Recalled> {
    Ok(Recalled { turn: turn(row)?, state: row.get("state")? })
}

/// A turn by its number.
pub(super) fn by_number(ledger: &Connection, id: TurnId) -> Result<Option<Recalled>> {
    // A number beyond SQLite's integers is no turn's number.
    let Ok(id) = i64::try_from(id.0) else { return Ok(None) };
    let sql = format!("{WITH_STATE} WHERE turns.id = ?1");
    whole(ledger, ledger.prepare_cached(&sql)?.query_row(params![id], recalled).optional()?)
}

/// The latest turn of a conversation that is not part of another.
pub(super) fn latest(ledger: &Connection, conversation: &Conversation) -> Result<Option<Recalled>> {
    let sql = format!(
        "{WITH_STATE} WHERE turns.agent = ?1 AND turns.conversation = ?2 AND turns.outcome IS NOT 'joined'
         ORDER BY turns.id DESC LIMIT 1"
    );
    let of = params![conversation.agent.as_str(), conversation.name];
    whole(ledger, ledger.prepare_cached(&sql)?.query_row(of, recalled).optional()?)
}
