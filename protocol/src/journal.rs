//! The worker's record on disk: which attempts began, which prompts were written, how they ended.
//!
//! ```text
//!  record = u32 length | u32 crc32 of the body | body        body = u8 what | fields
//!
//!   Begun ----> Prompted ----> Ended ----> Acked
//!     |             |                        the file is cut when every attempt is here
//!     |             a replay may repeat an effect
//!     a replay is safe
//! ```
//! The file is only appended to. A tail that is cut (a crash in the middle of a write) is left out and changes nothing
//! before it. A record that is damaged is skipped: what follows it counts, and because nobody knows what it said, every
//! attempt that was open there counts as prompted, and one that later records name as begun. Written by the worker; read by its replacement or, if that will not start, by the
//! supervisor, before an attempt is called lost.

use crate::ids::{AttemptId, TurnId};
use crate::route::{Route, Runtime};
use crate::stable::{self, Finished};
use std::collections::BTreeMap;

/// Largest body of a record, in bytes: an outcome whose text stays inline, with all its details.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024;

/// One line of an attempt's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The attempt is ours; nothing was started for it. Synced before Codex is.
    Begun(Begun),
    /// Its prompt is about to be given to Codex, on this thread if one is resumed.
    Prompted(AttemptId),
    /// Codex named the thread.
    Thread(AttemptId, String),
    /// It ended. Synced before it is told.
    Ended(Box<Finished>),
    /// The ledger has the outcome.
    Acked(AttemptId),
}

/// What is known of an attempt at its begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Of which turn.
    pub turn: TurnId,
    /// Where it runs.
    pub route: Route,
    /// The thread that it resumes.
    pub thread: Option<String>,
    /// Size of that thread's rollout before this turn, in bytes: what lies behind it came of this turn.
    pub rollout_bytes: u64,
    /// When it began, in Unix milliseconds.
    pub at_ms: u64,
}

/// Where an attempt stands after a reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How it began.
    pub begun: Begun,
    /// Whether its prompt may have reached Codex.
    pub prompted: bool,
    /// Its thread, if one is known.
    pub thread: Option<String>,
    /// Its outcome, if it ended.
    pub ended: Option<Box<Finished>>,
}

/// What a journal holds that the ledger may not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Attempts that are not acknowledged, by number.
    pub open: BTreeMap<AttemptId, Standing>,
    /// Bytes from the start that are whole; what lies behind was cut off by a crash.
    pub whole_bytes: usize,
    /// Bytes behind the whole part.
    pub torn_bytes: usize,
    /// Bytes of the whole part, or behind it, that were written and are damaged.
    pub damaged_bytes: usize,
}

mod what {
    pub(super) const BEGUN: u8 = 1;
    pub(super) const PROMPTED: u8 = 2;
    pub(super) const THREAD: u8 = 3;
    pub(super) const ENDED: u8 = 4;
    pub(super) const ACKED: u8 = 5;
}

/// The bytes of a record, ready to be appended.
pub fn encode(record: &Record) -> Vec<u8> {
    let mut body = Vec::new();
    match record {
        Record::Begun(begun) => {
            body.push(what::BEGUN);
            encode_begun(begun, &mut body);
        }
        Record::Prompted(attempt) => {
            body.push(what::PROMPTED);
            body.extend_from_slice(&attempt.0.to_le_bytes());
        }
        Record::Thread(attempt, thread) => {
            body.push(what::THREAD);
            body.extend_from_slice(&attempt.0.to_le_bytes());
            body.extend_from_slice(thread.as_bytes());
        }
        Record::Ended(end) => {
            body.push(what::ENDED);
            body.extend_from_slice(&stable::encode_finished(end));
        }
        Record::Acked(attempt) => {
            body.push(what::ACKED);
            body.extend_from_slice(&attempt.0.to_le_bytes());
        }
    }
    let mut bytes = Vec::with_capacity(8 + body.len());
    bytes.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

fn encode_begun(begun: &Begun, body: &mut Vec<u8>) {
    for number in [begun.attempt.0, begun.turn.0, begun.rollout_bytes, begun.at_ms] {
        body.extend_from_slice(&number.to_le_bytes());
    }
    let thread = begun.thread.as_deref().unwrap_or("");
    for text in [begun.route.runtime.as_str(), &begun.route.provider, &begun.route.model, thread] {
        body.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
        body.extend_from_slice(text.as_bytes());
    }
}

/// Most bytes whose checksum is tried in the search for the record behind a damaged one: the whole of a large journal.
const SEARCH_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Reads a journal from its first byte. Damage is skipped; it is never an error.
pub fn read(bytes: &[u8]) -> Reading {
    let mut reading = Reading::default();
    let mut search = SEARCH_BYTES_MAX;
    let mut rest = bytes;
    loop {
        if let Some((record, after)) = next(rest) {
            reading.apply(record);
            rest = after;
            reading.whole_bytes = bytes.len() - rest.len();
        } else if let Some(after) = behind_damage(rest, &mut search) {
            reading.doubt(rest.len() - after.len());
            rest = after;
        } else {
            break;
        }
    }
    if let Some(length) = length(rest).filter(|length| rest.len() >= 8 + length) {
        // As long as a whole record: it was written, and is not what was written.
        reading.doubt(8 + length);
    }
    reading.torn_bytes = rest.len();
    reading
}

/// What begins with the next whole record behind a damaged one; `None` if there is none, or the search is too long.
fn behind_damage<'a>(bytes: &'a [u8], search: &mut usize) -> Option<&'a [u8]> {
    for at in 1..bytes.len() {
        let rest = bytes.get(at..)?;
        let Some(length) = length(rest).filter(|length| *length > 0 && rest.len() >= 8 + length) else { continue };
        if !rest.get(8).is_some_and(|what| (what::BEGUN..=what::ACKED).contains(what)) {
            continue;
        }
        *search = search.checked_sub(length)?;
        if next(rest).is_some() {
            return Some(rest);
        }
    }
    None
}

/// The length of the record that begins here, if it can be one.
fn length(bytes: &[u8]) -> Option<usize> {
    let (length, _) = bytes.split_first_chunk::<4>()?;
    Some(u32::from_le_bytes(*length) as usize).filter(|length| *length <= RECORD_BYTES_MAX)
}

impl Reading {
    fn apply(&mut self, record: Record) {
        match record {
            Record::Begun(begun) => {
                let thread = begun.thread.clone();
                self.open.entry(begun.attempt).or_insert(Standing { begun, prompted: false, thread, ended: None });
            }
            Record::Prompted(attempt) => self.standing(attempt, TurnId(0)).prompted = true,
            Record::Thread(attempt, thread) => self.standing(attempt, TurnId(0)).thread = Some(thread),
            Record::Ended(end) => {
                let (attempt, turn) = (end.attempt, end.turn);
                self.standing(attempt, turn).ended = Some(end);
            }
            Record::Acked(attempt) => {
                self.open.remove(&attempt);
            }
        }
    }
}

impl Reading {
    /// Something was written here and cannot be read: it may have been the prompt of any attempt that is open.
    fn doubt(&mut self, bytes: usize) {
        self.damaged_bytes += bytes;
        for standing in self.open.values_mut() {
            standing.prompted = true;
        }
    }

    /// Where an attempt stands. One whose begin was lost may have come any far.
    fn standing(&mut self, attempt: AttemptId, turn: TurnId) -> &mut Standing {
        let route = Route { runtime: Runtime::Codex, provider: String::new(), model: String::new() };
        let begun = Begun { attempt, turn, route, thread: None, rollout_bytes: 0, at_ms: 0 };
        self.open.entry(attempt).or_insert(Standing { begun, prompted: true, thread: None, ended: None })
    }
}

fn next(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let length = length(bytes)?;
    let (sum, rest) = bytes.get(4..)?.split_first_chunk::<4>()?;
    let (body, rest) = rest.split_at_checked(length)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
        return None;
    }
    decode(body).map(|record| (record, rest))
}

fn decode(body: &[u8]) -> Option<Record> {
    let (what, fields) = body.split_first()?;
    match *what {
        what::BEGUN => decode_begun(fields).map(Record::Begun),
        what::PROMPTED => number(fields).map(|(n, _)| Record::Prompted(AttemptId(n))),
        what::THREAD => {
            let (attempt, thread) = number(fields)?;
            Some(Record::Thread(AttemptId(attempt), String::from_utf8(thread.to_vec()).ok()?))
        }
        what::ENDED => stable::decode_finished(fields).ok().map(|end| Record::Ended(Box::new(end))),
        what::ACKED => number(fields).map(|(n, _)| Record::Acked(AttemptId(n))),
        _ => None,
    }
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*number), rest))
}

fn text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((String::from_utf8(text.to_vec()).ok()?, rest))
}

fn decode_begun(fields: &[u8]) -> Option<Begun> {
    let (attempt, rest) = number(fields)?;
    let (turn, rest) = number(rest)?;
    let (rollout_bytes, rest) = number(rest)?;
    let (at_ms, rest) = number(rest)?;
    let (runtime, rest) = text(rest)?;
    let (provider, rest) = text(rest)?;
    let (model, rest) = text(rest)?;
    let (thread, _) = text(rest)?;
    let route = Route { runtime: Runtime::parse(&runtime)?, provider, model };
    let thread = (!thread.is_empty()).then_some(thread);
    Some(Begun { attempt: AttemptId(attempt), turn: TurnId(turn), route, thread, rollout_bytes, at_ms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::FailureClass;
    use crate::stable::Outcome;
    use proptest::prelude::*;

    fn begun(n: u64) -> Record {
        let route = Route { runtime: Runtime::Codex, provider: "p".into(), model: "m".into() };
        Record::Begun(Begun {
            attempt: AttemptId(n),
            turn: TurnId(n + 100),
            route,
            thread: Some("t".into()),
            rollout_bytes: 5,
            at_ms: 9,
        })
    }

    fn life() -> Vec<Record> {
        let mut end = Finished::new(AttemptId(2), TurnId(102), Outcome::Failed(FailureClass::CodexExit));
        end.ran = vec!["ls".into()];
        vec![
            begun(1),
            Record::Prompted(AttemptId(1)),
            begun(2),
            Record::Thread(AttemptId(2), "named".into()),
            Record::Ended(Box::new(end)),
            begun(3),
            Record::Acked(AttemptId(3)),
        ]
    }

    #[test]
    fn tells_where_each_attempt_stands() {
        let bytes: Vec<u8> = life().iter().flat_map(encode).collect();
        let reading = read(&bytes);
        assert_eq!((reading.whole_bytes, reading.torn_bytes), (bytes.len(), 0));
        assert_eq!(reading.open.keys().map(|a| a.0).collect::<Vec<_>>(), [1, 2]);
        let first = &reading.open[&AttemptId(1)];
        assert!(first.prompted && first.ended.is_none());
        let second = &reading.open[&AttemptId(2)];
        assert_eq!(second.thread.as_deref(), Some("named"));
        assert_eq!(second.ended.as_ref().unwrap().ran, ["ls"]);
    }

    #[test]
    fn a_cut_anywhere_loses_only_the_record_that_it_cuts() {
        let records: Vec<Vec<u8>> = life().iter().map(encode).collect();
        let bytes: Vec<u8> = records.concat();
        for at in 0..=bytes.len() {
            let mut whole = 0;
            for record in &records {
                if whole + record.len() > at {
                    break;
                }
                whole += record.len();
            }
            let reading = read(&bytes[..at]);
            assert_eq!(
                (reading.whole_bytes, reading.torn_bytes, reading.damaged_bytes),
                (whole, at - whole, 0),
                "{at}"
            );
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_makes_nothing_safe_and_hides_nothing_else() {
        let records: Vec<Vec<u8>> = life().iter().map(encode).collect();
        let bytes: Vec<u8> = records.concat();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                let reading = read(&flipped);
                // The first was prompted, the second has ended: whichever record is damaged, neither may be begun anew.
                for attempt in [AttemptId(1), AttemptId(2)] {
                    let standing = reading.open.get(&attempt);
                    let known = standing.is_some_and(|standing| standing.prompted || standing.ended.is_some());
                    assert!(known, "byte {at}, bit {bit}: {attempt} {standing:?}");
                }
                assert!(reading.damaged_bytes + reading.torn_bytes > 0, "byte {at}, bit {bit}: unseen");
            }
        }
    }

    proptest! {
        #[test]
        fn a_cut_or_a_flipped_bit_loses_only_what_follows(cut in 0usize..400, bit in 0usize..8) {
            let records: Vec<Vec<u8>> = life().iter().map(encode).collect();
            let bytes: Vec<u8> = records.concat();
            let at = cut % bytes.len();
            let mut whole = 0;
            for record in &records {
                if whole + record.len() > at { break; }
                whole += record.len();
            }
            prop_assert_eq!(read(&bytes[..at]).whole_bytes, whole);
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            prop_assert!(read(&flipped).whole_bytes >= whole);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let reading = read(&bytes);
            prop_assert_eq!(reading.whole_bytes + reading.torn_bytes, bytes.len());
        }
    }
}
