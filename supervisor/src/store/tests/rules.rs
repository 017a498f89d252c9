//! What the records mean: once is once, a bug stays alone, order is kept, an end is an end.

use super::super::record::number;
use super::super::{CloseError, EVENT_BYTES_MAX, QUEUED_BYTES_MAX};
use super::*;
use crate::machine::nouns::{Event, PostState, TurnEnd, UpdateEnd};
use protocol::{FailureClass, Finished, Outcome};

fn count(place: &Place, sql: &str) -> i64 {
    place.shell().query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn an_update_that_comes_again_changes_nothing_with_all_that_hangs_on_it() {
    let place = Place::new();
    let (store, _) = place.open();
    let first = vec![update(1, 500), Record::Turn(new_turn(1, Some(1)))];
    commit(&store, first).unwrap();
    let again = vec![
        update(2, 500),
        Record::Turn(new_turn(2, Some(2))),
        Record::Attempt(new_attempt(1, 2)),
        Record::AttemptEnded(Box::new(Finished::new(AttemptId(1), TurnId(2), Outcome::Completed)), NOW),
        Record::Post(new_post(1, Some(2), PostKind::Final)),
        Record::PostState(PostId(1), PostState::Sent(None), NOW),
        Record::TurnEnded(TurnId(2), TurnEnd::Outcome(Outcome::Completed), "x".into(), NOW),
        Record::UpdateEnded(UpdateId(2), UpdateEnd::Answered, NOW),
        update(3, 501),
    ];
    commit(&store, again).unwrap();
    assert_eq!(store.bugs(), 0);
    drop(store);
    assert_eq!(count(&place, "SELECT count(*) FROM updates"), 2);
    assert_eq!(count(&place, "SELECT count(*) FROM turns"), 1);
    assert_eq!(count(&place, "SELECT count(*) FROM attempts"), 0);
    assert_eq!(count(&place, "SELECT count(*) FROM posts"), 0);
}

#[test]
fn a_second_end_changes_nothing_and_is_told() {
    let place = Place::new();
    let (store, _) = place.open();
    let failed = Outcome::Failed(FailureClass::Auth);
    let ends = |outcome: Outcome, text: &str| {
        vec![
            Record::AttemptEnded(Box::new(Finished::new(AttemptId(1), TurnId(1), outcome)), NOW + 5),
            Record::TurnEnded(TurnId(1), TurnEnd::Outcome(outcome), text.into(), NOW + 5),
            Record::UpdateEnded(UpdateId(1), UpdateEnd::Answered, NOW + 5),
            Record::PostState(PostId(1), PostState::Sent(Some(9)), NOW + 5),
        ]
    };
    commit(
        &store,
        vec![
            update(1, 1),
            Record::Turn(new_turn(1, Some(1))),
            Record::Attempt(new_attempt(1, 1)),
            Record::Post(new_post(1, Some(1), PostKind::Final)),
        ],
    )
    .unwrap();
    commit(&store, ends(Outcome::Completed, "first")).unwrap();
    assert_eq!(store.bugs(), 0);
    commit(&store, ends(failed, "second")).unwrap();
    assert_eq!(store.bugs(), 4);
    let told = wait(store.turn(TurnId(1))).unwrap().unwrap();
    assert_eq!((told.answer.as_str(), told.row.state.as_str()), ("first", "completed"));
    drop(store);
    assert_eq!(count(&place, "SELECT count(*) FROM events WHERE what LIKE 'bug: %'"), 4);
}

#[test]
fn a_batch_that_breaks_a_rule_is_refused_alone_and_whole() {
    let place = Place::new();
    let (store, _) = place.open();
    commit(&store, vec![turn(1)]).unwrap();
    let good = store.commit(vec![turn(2)]);
    let bad = store.commit(vec![turn(3), Record::Attempt(new_attempt(1, 77))]);
    let twice = store.commit(vec![turn(1)]);
    let beyond = store.commit(vec![turn(u64::MAX)]);
    let later = store.commit(vec![turn(4)]);
    assert_eq!(good.blocking_wait(), Ok(()));
    assert_eq!(later.blocking_wait(), Ok(()));
    for bug in [bad, twice, beyond] {
        assert!(matches!(bug.blocking_wait(), Err(CommitError::Refused(_))));
    }
    assert_eq!(store.bugs(), 3);
    drop(store);
    let open: Vec<u64> = place.memory().turns.iter().map(|t| t.turn.id.0).collect();
    assert_eq!(open, [1, 2, 4]);
}

#[test]
fn what_a_worker_says_is_stored_however_absurd() {
    let place = Place::new();
    let (store, _) = place.open();
    let mut end = Finished::new(AttemptId(1), TurnId(1), Outcome::Failed(FailureClass::UsageLimit));
    end.resets_at = Some(u64::MAX);
    end.first_event_ms = Some(u64::MAX);
    (end.duration_ms, end.input_tokens, end.output_tokens) = (u64::MAX, u64::MAX, u64::MAX);
    end.detail = "\0'; DROP TABLE turns; --\u{202e}".into();
    end.ran = vec!["echo \"'\\\0".into()];
    commit(&store, vec![turn(1), Record::Attempt(new_attempt(1, 1)), Record::AttemptEnded(Box::new(end.clone()), NOW)])
        .unwrap();
    let told = wait(store.turn(TurnId(1))).unwrap().unwrap();
    assert_eq!(told.attempts[0].detail, end.detail);
    assert_eq!(told.attempts[0].ran, end.ran);
    assert_eq!(told.attempts[0].resets_at, Some(i64::MAX.cast_unsigned()));
    assert!(number(u64::MAX).is_err());
}

#[test]
fn an_event_is_cut() {
    let place = Place::new();
    let (store, _) = place.open();
    let event = Event { at: NOW, agent: None, turn: Some(TurnId(99)), what: "ä".repeat(EVENT_BYTES_MAX) };
    commit(&store, vec![Record::Event(event)]).unwrap();
    drop(store);
    let bytes = count(&place, "SELECT length(CAST(what AS BLOB)) FROM events");
    assert_eq!(bytes, i64::try_from(EVENT_BYTES_MAX).unwrap());
}

#[test]
fn closing_drains_and_then_refuses() {
    let place = Place::new();
    let (store, _) = place.open();
    let tickets: Vec<_> = (1..=2_000).map(|id| store.commit(vec![turn(id)])).collect();
    wait(store.close()).unwrap();
    for ticket in tickets {
        assert_eq!(ticket.blocking_wait(), Ok(()));
    }
    assert_eq!(commit(&store, vec![turn(9_999)]), Err(CommitError::Closed));
    wait(store.close()).unwrap();
    assert_eq!(std::fs::metadata(place.path().with_file_name("ledger.db-wal")).map_or(0, |m| m.len()), 0);
    // The lock is free as soon as the store says that it is closed.
    assert_eq!(place.memory().turns.len(), 2_000);
}

#[test]
fn dropping_drains_too() {
    let place = Place::new();
    let (store, _) = place.open();
    for id in 1..=500 {
        drop(store.commit(vec![turn(id)]));
    }
    drop(store);
    assert_eq!(place.memory().turns.len(), 500);
}

#[test]
fn what_waits_is_bounded() {
    let place = Place::new();
    let (store, _) = place.open();
    let shell = place.shell();
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();
    let long = |id| vec![Record::Turn(NewTurn { prompt: "x".repeat(9 << 20), ..new_turn(id, None) })];
    let taken: Vec<_> = (1..).map(|id| store.commit(long(id))).take(QUEUED_BYTES_MAX / (9 << 20)).collect();
    assert_eq!(commit(&store, long(90)), Err(CommitError::Overflow));
    shell.execute_batch("ROLLBACK").unwrap();
    for ticket in taken {
        assert_eq!(ticket.blocking_wait(), Ok(()));
    }
    commit(&store, long(91)).unwrap();
}

#[test]
fn a_closing_store_gives_a_locked_ledger_up_and_says_what_is_lost() {
    let place = Place::new();
    let (store, _) = place.open();
    let shell = place.shell();
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();
    let tickets = [store.commit(vec![turn(1)]), store.commit(vec![turn(2)])];
    assert!(matches!(wait(store.close()), Err(CloseError::Lost { batches: 2, .. })));
    for ticket in tickets {
        assert_eq!(ticket.blocking_wait(), Err(CommitError::Closed));
    }
    shell.execute_batch("ROLLBACK").unwrap();
    drop((store, shell));
    assert_eq!(place.memory().turns, []);
}

#[test]
fn what_ended_long_ago_is_forgotten_and_its_numbers_are_not_given_again() {
    let place = Place::new();
    let (store, _) = place.open();
    let old = NOW - 31 * 24 * 60 * 60 * 1000;
    let mut records = Vec::new();
    for id in 1..=3 {
        let mut turn = new_turn(id, Some(id));
        turn.at = old;
        records.extend([update(id, id.cast_signed()), Record::Turn(turn), Record::Attempt(new_attempt(id, id))]);
        records.push(Record::Post(Post { at: old, ..new_post(id, Some(id), PostKind::Final) }));
    }
    // The first is done, the second still has a post that waits, the third is open.
    let ended = TurnEnd::Outcome(Outcome::Completed);
    for id in 1..=2 {
        records.push(Record::TurnEnded(TurnId(id), ended.clone(), "done".into(), old));
        records.push(Record::UpdateEnded(UpdateId(id), UpdateEnd::Answered, old));
    }
    records.push(Record::PostState(PostId(1), PostState::Sent(Some(1)), old));
    records.push(Record::Event(Event { at: old, agent: None, turn: None, what: "old".into() }));
    commit(&store, records).unwrap();
    drop(store);
    drop(place.open());
    let ids = |table: &str| {
        let sql = format!("SELECT group_concat(id) FROM (SELECT id FROM {table} ORDER BY id)");
        place.shell().query_row(&sql, [], |row| row.get::<_, Option<String>>(0)).unwrap().unwrap_or_default()
    };
    assert_eq!((ids("turns"), ids("updates"), ids("posts")), ("2,3".into(), "2,3".into(), "2,3".into()));
    assert_eq!((ids("attempts"), ids("events")), ("2,3".into(), String::new()));
    place.shell().execute_batch("DELETE FROM turns; DELETE FROM updates;").unwrap();
    let last = place.memory().last;
    assert_eq!((last.turn, last.update, last.attempt, last.post), (3, 3, 3, 3));
}
