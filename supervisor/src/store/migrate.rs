//! Brings a ledger to this release's version: each migration in one transaction, counted by `PRAGMA user_version`.

use rusqlite::{Connection, TransactionBehavior};

/// `PRAGMA application_id` of every ledger: "Coff".
pub(super) const APPLICATION_ID: i64 = 0x436f_6666;

/// In order; a ledger's version is how many of them it has. One that was released is never changed.
const MIGRATIONS: &[&str] = &[include_str!("migrations/0001_initial.sql"), include_str!("migrations/0002_workers.sql")];

/// The version that this release writes.
pub(super) const fn newest() -> i64 {
    MIGRATIONS.len().cast_signed() as i64
}

/// The version of a ledger; 0 for an empty file.
pub(super) fn version(ledger: &Connection) -> rusqlite::Result<i64> {
    ledger.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Brings the ledger to the newest version. A failure leaves it at the version before the migration that failed.
pub(super) fn migrate(ledger: &mut Connection) -> rusqlite::Result<()> {
    apply(ledger, MIGRATIONS)
}

fn apply(ledger: &mut Connection, migrations: &[&str]) -> rusqlite::Result<()> {
    let has = usize::try_from(version(ledger)?).unwrap_or(0);
    for (done, sql) in migrations.iter().enumerate().skip(has) {
        let transaction = ledger.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", (done + 1).cast_signed() as i64)?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_becomes_a_ledger_and_a_ledger_stays_one() {
        let mut ledger = Connection::open_in_memory().unwrap();
        migrate(&mut ledger).unwrap();
        assert_eq!(version(&ledger).unwrap(), newest());
        let id: i64 = ledger.pragma_query_value(None, "application_id", |row| row.get(0)).unwrap();
        assert_eq!(id, APPLICATION_ID);
        let identity = |l: &Connection| l.query_row("SELECT value FROM meta", [], |r| r.get::<_, i64>(0)).unwrap();
        let before = identity(&ledger);
        assert!(before >= 0);
        migrate(&mut ledger).unwrap();
        assert_eq!(identity(&ledger), before);
    }

    #[test]
    fn every_table_is_strict() {
        let mut ledger = Connection::open_in_memory().unwrap();
        migrate(&mut ledger).unwrap();
        let loose: i64 = ledger
            .query_row(
                "SELECT count(*) FROM pragma_table_list
                 WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite%' AND strict = 0",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(loose, 0);
    }

    #[test]
    fn a_failing_migration_leaves_the_version_before_it() {
        let mut ledger = Connection::open_in_memory().unwrap();
        let first = "CREATE TABLE a (x INTEGER) STRICT;";
        let second = "ALTER TABLE a ADD COLUMN y INTEGER; INSERT INTO nowhere VALUES (1);";
        apply(&mut ledger, &[first, second]).unwrap_err();
        assert_eq!(version(&ledger).unwrap(), 1);
        ledger.execute("INSERT INTO a (x) VALUES (1)", []).unwrap();
        apply(&mut ledger, &[first, "ALTER TABLE a ADD COLUMN y INTEGER NOT NULL DEFAULT 7;"]).unwrap();
        assert_eq!(version(&ledger).unwrap(), 2);
        assert_eq!(ledger.query_row("SELECT y FROM a", [], |r| r.get::<_, i64>(0)).unwrap(), 7);
    }
}
