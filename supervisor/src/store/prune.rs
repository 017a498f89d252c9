//! Forgets what ended long ago, a little at a time, before the machine starts. Nothing open and nothing that waits is
//! touched, and no number is given again.

use super::record::amount;
use crate::machine::nouns::Wall;
use rusqlite::{Connection, Result};

/// How long what ended is kept, in milliseconds: 30 days, so that last month's bill can still be explained.
const KEPT_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// Most rows that one statement forgets: its transaction stays small and its log beside the ballast.
const ROWS_MAX: usize = 500;

/// Most transactions at one start: the start of the supervisor must not wait for a year of leavings.
const ROUNDS_MAX: usize = 40;

/// In this order: what refers to a row goes before it.
const OLD: &[&str] = &[
    "DELETE FROM posts WHERE id IN (
         SELECT id FROM posts WHERE changed_at < ?1 AND state <> 'waiting' AND turn_id IS NULL LIMIT ?2)",
    "DELETE FROM turns WHERE id IN (
         SELECT id FROM turns WHERE ended_at < ?1
            AND NOT EXISTS (SELECT 1 FROM posts WHERE posts.turn_id = turns.id AND posts.state = 'waiting') LIMIT ?2)",
    "DELETE FROM updates WHERE id IN (
         SELECT id FROM updates WHERE ended_at < ?1
            AND NOT EXISTS (SELECT 1 FROM turns WHERE turns.update_id = updates.id) LIMIT ?2)",
    "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE at < ?1 LIMIT ?2)",
];

/// Forgets; returns how many rows.
pub(super) fn prune(ledger: &mut Connection, now: Wall) -> Result<usize> {
    let before = amount(now.saturating_sub(KEPT_MS));
    let mut gone = 0;
    for _ in 0..ROUNDS_MAX {
        let transaction = ledger.transaction()?;
        let mut round = 0;
        for sql in OLD {
            round += transaction.prepare_cached(sql)?.execute((before, amount(ROWS_MAX as u64)))?;
        }
        transaction.commit()?;
        gone += round;
        if round == 0 {
            break;
        }
    }
    Ok(gone)
}
