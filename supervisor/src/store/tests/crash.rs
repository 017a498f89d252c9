//! What a dead supervisor leaves: whole batches only, and each one whose ticket had resolved.

use super::*;
use std::fs;

/// A batch of two: a reader must find both or neither.
fn pair(id: u64) -> Vec<Record> {
    vec![turn(id), Record::Attempt(new_attempt(id, id))]
}

fn copy(from: &Place, to: &Place, log_bytes: Option<usize>) {
    fs::create_dir_all(to.path().parent().unwrap()).unwrap();
    fs::copy(from.path(), to.path()).unwrap();
    let log = fs::read(from.path().with_file_name("ledger.db-wal")).unwrap();
    fs::write(to.path().with_file_name("ledger.db-wal"), &log[..log_bytes.unwrap_or(log.len())]).unwrap();
}

/// How many pairs a ledger holds, which must be a beginning of all that were given.
fn pairs(place: &Place) -> usize {
    let turns = place.memory().turns;
    for (at, open) in turns.iter().enumerate() {
        assert_eq!(open.turn.id.0, at as u64 + 1);
        assert_eq!(open.attempts.len(), 1, "half a batch");
    }
    turns.len()
}

#[test]
fn a_copy_taken_while_it_writes_holds_every_resolved_batch() {
    let place = Place::new();
    let (store, _) = place.open();
    // Few enough that SQLite does not move the log into the file meanwhile: then a copy of the one and, after it, of
    // the other is what a crash would leave.
    let tickets: Vec<_> = (1..=100).map(|id| store.commit(pair(id))).collect();
    let mut tickets = tickets.into_iter();
    for resolved in [20, 40, 60, 80] {
        for ticket in tickets.by_ref().take(20) {
            ticket.blocking_wait().unwrap();
        }
        let crashed = Place::new();
        copy(&place, &crashed, None);
        assert!(pairs(&crashed) >= resolved);
    }
}

#[test]
fn a_log_cut_anywhere_leaves_a_beginning() {
    let place = Place::new();
    let (store, _) = place.open();
    for id in 1..=12 {
        commit(&store, pair(id)).unwrap();
    }
    let bytes = usize::try_from(fs::metadata(place.path().with_file_name("ledger.db-wal")).unwrap().len()).unwrap();
    let mut found = Vec::new();
    for cut in (0..=bytes).step_by(bytes / 60).chain([bytes]) {
        let crashed = Place::new();
        copy(&place, &crashed, Some(cut));
        found.push(pairs(&crashed));
    }
    assert!(found.is_sorted());
    assert_eq!((found.first(), found.last()), (Some(&0), Some(&12)));
    assert!(found.iter().any(|n| (1..12).contains(n)), "no cut fell between batches: {found:?}");
}
