//! What people are told, and that telling them never holds the writer up.

use super::*;
use crate::machine::nouns::{Event, PostState, TurnEnd};
use protocol::control::{Reply, Turns};
use protocol::{FailureClass, Finished, Outcome};

fn listing(store: &Store, name: Option<&str>, failed: bool, most: u32) -> Vec<(u64, String)> {
    let rows = wait(store.turns(Turns { agent: name.map(agent), failed, most })).unwrap();
    rows.into_iter().map(|row| (row.turn.0, row.state)).collect()
}

fn of(name: &str, id: u64) -> Record {
    let conversation = Conversation { agent: agent(name), name: "console:default".into() };
    Record::Turn(NewTurn { conversation, source: Source::Console, ..new_turn(id, None) })
}

fn failed(attempt: u64, turn: u64, class: FailureClass) -> Finished {
    Finished::new(AttemptId(attempt), TurnId(turn), Outcome::Failed(class))
}

#[test]
fn turns_are_listed_latest_first_with_their_state() {
    let place = Place::new();
    let (store, _) = place.open();
    let mut records = vec![of("a", 1), of("a", 2), of("b", 3), of("a", 4), of("a", 5)];
    records.push(Record::Attempt(new_attempt(1, 2)));
    records.push(Record::Attempt(new_attempt(2, 3)));
    records.push(Record::AttemptEnded(Box::new(failed(2, 3, FailureClass::Network)), NOW));
    records.push(Record::TurnEnded(TurnId(4), TurnEnd::Outcome(Outcome::Failed(FailureClass::Auth)), "no".into(), NOW));
    records.push(Record::TurnEnded(TurnId(5), TurnEnd::Joined(TurnId(2)), String::new(), NOW));
    commit(&store, records).unwrap();
    let states = |rows: Vec<(u64, String)>| rows.iter().map(|(id, s)| format!("{id} {s}")).collect::<Vec<_>>();
    assert_eq!(
        states(listing(&store, None, false, 99)),
        ["5 joined", "4 failed", "3 waiting", "2 running", "1 queued"]
    );
    assert_eq!(states(listing(&store, Some("a"), false, 2)), ["5 joined", "4 failed"]);
    assert_eq!(states(listing(&store, None, true, 99)), ["4 failed"]);
    assert_eq!(states(listing(&store, Some("b"), true, 99)), [""; 0]);
    assert_eq!(wait(store.turn(TurnId(6))).unwrap(), None);
    assert_eq!(wait(store.turn(TurnId(u64::MAX))).unwrap(), None);
}

#[test]
fn a_story_is_whole() {
    let place = Place::new();
    let (store, _) = place.open();
    let mut end = failed(8, 12, FailureClass::CodexExit);
    end.thread = Some("t-new".into());
    (end.detail, end.stderr) = ("it fell".into(), "panic".into());
    (end.ran, end.exit_code, end.replay_safe) = (vec!["ls".into()], Some(-3), true);
    (end.signal, end.resets_at, end.first_event_ms) = (Some(9), Some(77), Some(40));
    (end.input_tokens, end.output_tokens, end.codex_version) = (10, 20, Some("0.169.0".into()));
    let waiting = PostState::Waiting {
        not_before: NOW + 9,
        sent_pieces: 1,
        tries: 2,
        maybe_repeated: true,
        plain: false,
        why: "timed out".into(),
    };
    let turn = NewTurn { retry_of: Some(TurnId(11)), ..new_turn(12, None) };
    let event = Event { at: NOW + 3, agent: None, turn: Some(TurnId(12)), what: "tried again".into() };
    commit(
        &store,
        vec![
            Record::Turn(turn),
            Record::Attempt(new_attempt(8, 12)),
            Record::AttemptStarted(AttemptId(8), "t-first".into(), NOW + 2),
            Record::AttemptStarted(AttemptId(8), "t-second".into(), NOW + 4),
            Record::AttemptEnded(Box::new(end), NOW + 5),
            Record::Event(event),
            Record::Post(new_post(4, Some(12), PostKind::Final)),
            Record::PostState(PostId(4), waiting, NOW + 6),
            Record::TurnEnded(
                TurnId(12),
                TurnEnd::Outcome(Outcome::Failed(FailureClass::CodexExit)),
                "sorry".into(),
                NOW + 5,
            ),
        ],
    )
    .unwrap();
    let told = wait(store.turn(TurnId(12))).unwrap().unwrap();
    assert_eq!(told.source, "telegram:helper:-100");
    assert_eq!((told.retry_of, told.prompt.as_str()), (Some(TurnId(11)), "question 12\nand more"));
    assert_eq!((told.row.prompt.as_str(), told.answer.as_str()), ("question 12", "sorry"));
    assert_eq!(told.row.class.as_deref(), Some("codex_exit"));
    assert_eq!((told.row.accepted_at, told.row.ended_at, told.row.attempts), (NOW, Some(NOW + 5), 1));
    let next = told.next_step.unwrap();
    assert_eq!(next, "read the stderr in `cofferdam turns show 12`; `cofferdam retry` it");
    assert_eq!(told.events, [(NOW + 3, "tried again".to_owned())]);
    let posted = "final to telegram:helper:-100, 2 tries, may be repeated: timed out";
    assert_eq!(told.posts, [("waiting".to_owned(), posted.to_owned())]);
    let tried = &told.attempts[0];
    assert_eq!((tried.attempt, tried.incarnation), (AttemptId(8), 3));
    assert_eq!((tried.runtime.as_str(), tried.model.as_str()), ("codex-cli", "openai/gpt-5.5"));
    assert_eq!((tried.thread.as_deref(), tried.state.as_str()), (Some("t-new"), "failed"));
    assert_eq!((tried.detail.as_str(), tried.stderr.as_str()), ("it fell", "panic"));
    assert_eq!((&tried.ran[..], tried.exit_code, tried.signal), (&["ls".to_owned()][..], Some(-3), Some(9)));
    assert!(tried.replay_safe);
    assert_eq!((tried.begun_at, tried.started_at, tried.ended_at), (NOW + 1, Some(NOW + 2), Some(NOW + 5)));
    assert_eq!((tried.first_event_ms, tried.tokens, tried.resets_at), (Some(40), (10, 20), Some(77)));
    assert_eq!(tried.codex_version.as_deref(), Some("0.169.0"));
}

#[test]
fn the_next_step_names_the_agent() {
    let place = Place::new();
    let (store, _) = place.open();
    let end = TurnEnd::Outcome(Outcome::Failed(FailureClass::ModelUnknown));
    commit(&store, vec![turn(1), Record::TurnEnded(TurnId(1), end, "no".into(), NOW)]).unwrap();
    let next = wait(store.turn(TurnId(1))).unwrap().unwrap().next_step.unwrap();
    assert_eq!(next, "correct `model` of research and `cofferdam reload`");
}

#[test]
fn the_largest_answers_fit_into_a_frame() {
    let place = Place::new();
    let (store, _) = place.open();
    let long = "äöü \u{1f980} ".repeat(30_000);
    let mut records =
        vec![Record::Turn(NewTurn { prompt: long.clone(), retry_of: Some(TurnId(1)), ..new_turn(1, None) })];
    for id in 1..=40 {
        let mut end = failed(id, 1, FailureClass::ModelError);
        (end.detail, end.stderr) = (long.clone(), long.clone());
        end.ran = vec!["x".into(); 50_000];
        records.push(Record::Attempt(new_attempt(id, 1)));
        records.push(Record::AttemptEnded(Box::new(end), NOW));
        let dead = PostState::Dead(long.clone());
        records.push(Record::Post(new_post(id, Some(1), PostKind::Final)));
        records.push(Record::PostState(PostId(id), dead, NOW));
    }
    for _ in 0..300 {
        records.push(Record::Event(Event { at: NOW, agent: None, turn: Some(TurnId(1)), what: long.clone() }));
    }
    let end = TurnEnd::Outcome(Outcome::Failed(FailureClass::ModelError));
    records.push(Record::TurnEnded(TurnId(1), end, long.clone(), NOW));
    for id in 2..=1_200 {
        records.push(Record::Turn(NewTurn { prompt: long[..900].to_owned(), ..new_turn(id, None) }));
    }
    commit(&store, records).unwrap();
    let told = wait(store.turn(TurnId(1))).unwrap().unwrap();
    assert_eq!(told.attempts.last().unwrap().attempt, AttemptId(40));
    assert!(told.attempts[0].stderr.ends_with("\u{1f980} "));
    let rows = wait(store.turns(Turns { agent: None, failed: false, most: u32::MAX })).unwrap();
    assert_eq!(rows.len(), 1_000);
    for reply in [Reply::Turn(Box::new(told)), Reply::Turns(rows)] {
        let frame = reply.to_frame().unwrap();
        assert!(frame.body.len() < 1024 * 1024, "{}", frame.body.len());
    }
}

#[test]
fn people_can_look_with_their_own_shell_and_while_nothing_can_be_written() {
    let place = Place::new();
    let (store, _) = place.open();
    commit(&store, vec![turn(1), Record::Attempt(new_attempt(1, 1))]).unwrap();
    let shell = place.shell();
    let sql = "SELECT agent || ' ' || state || ' ' || asked FROM turn_overview";
    let seen: String = shell.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(seen, "research running question 1 and more");
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();
    let ticket = store.commit(vec![turn(2)]);
    until(&store, |s| matches!(s, StoreState::Stuck(why) if why.contains("locked by another program")));
    assert_eq!(listing(&store, None, false, 9).len(), 1);
    shell.execute_batch("COMMIT").unwrap();
    assert_eq!(ticket.blocking_wait(), Ok(()));
    until(&store, |s| *s == StoreState::Well);
    assert_eq!(listing(&store, None, false, 9).len(), 2);
}

#[test]
fn a_story_tells_what_happened_to_the_agent_meanwhile() {
    let place = Place::new();
    let (store, _) = place.open();
    let event = |at, name: &str, turn, what: &str| {
        Record::Event(Event { at, agent: Some(agent(name)), turn, what: what.into() })
    };
    let end = TurnEnd::Outcome(Outcome::Completed);
    let began = new_turn(1, None).at;
    commit(
        &store,
        vec![
            of("a", 1),
            event(began - 1, "a", None, "before"),
            event(began + 1, "a", None, "worker ended"),
            event(began + 1, "b", None, "another's"),
            event(began + 2, "a", Some(TurnId(1)), "its own"),
            Record::TurnEnded(TurnId(1), end, "yes".into(), began + 5),
            event(began + 6, "a", None, "after"),
        ],
    )
    .unwrap();
    let told: Vec<String> =
        wait(store.turn(TurnId(1))).unwrap().unwrap().events.into_iter().map(|(_, what)| what).collect();
    assert_eq!(told, ["worker ended", "its own"]);
}
