//! Who waits for answers, and the bounded queue of each.
//!
//! ```text
//!   reply() --> queue (256 replies, 4 MiB) --> connection      full: an event is dropped, anything else cuts the caller
//!      `-- Done or Refused: the queue closes behind it
//! ```

use crate::machine::nouns::CallerId;
use protocol::control::{Refused, RefusedKind, Reply, SendEvent};
use protocol::frame;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// Replies that may wait for a caller: it reads as fast as it prints.
pub const OUT_REPLIES_MAX: usize = 256;

/// Bytes that may wait for a caller: four replies of the largest size. 256 callers that do not read hold 1 GiB at the
/// very worst, and then only if each asked for the longest story there is.
pub const OUT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The callers that wait for answers. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Callers(Arc<Mutex<BTreeMap<CallerId, Caller>>>);

#[derive(Debug)]
struct Caller {
    out: mpsc::Sender<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
}

/// The other end of a caller's queue.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) replies: mpsc::Receiver<Vec<u8>>,
    pub(super) waiting: Arc<AtomicUsize>,
}

impl Callers {
    /// Nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers a caller. Never waits. `false`: it is gone, or was cut because it does not read.
    pub fn reply(&self, caller: CallerId, reply: &Reply) -> bool {
        let bytes = encode(reply);
        let mut all = self.lock();
        let Some(known) = all.get(&caller) else { return false };
        let waiting = known.waiting.fetch_add(bytes.len(), Ordering::Relaxed);
        let length = bytes.len();
        let fits = waiting + length <= OUT_BYTES_MAX && known.out.try_send(bytes).is_ok();
        if !fits {
            known.waiting.fetch_sub(length, Ordering::Relaxed);
        }
        let keep = if fits { !is_last(reply) } else { may_be_dropped(reply) };
        if !keep {
            all.remove(&caller);
        }
        fits || keep
    }

    /// How many wait.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn add(&self, caller: CallerId) -> Queue {
        let (out, replies) = mpsc::channel(OUT_REPLIES_MAX);
        let waiting = Arc::new(AtomicUsize::new(0));
        self.lock().insert(caller, Caller { out, waiting: Arc::clone(&waiting) });
        Queue { replies, waiting }
    }

    /// Forgets a caller; whether it was known.
    pub(super) fn remove(&self, caller: CallerId) -> bool {
        self.lock().remove(&caller).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<CallerId, Caller>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of a reply. One that passes the frame limit becomes a refusal that says so.
pub(super) fn encode(reply: &Reply) -> Vec<u8> {
    let bytes = |reply: &Reply| reply.to_frame().ok().and_then(|f| frame::encode(f.kind, &f.body).ok());
    let too_large = || {
        let why = "the answer is larger than a frame: ask for less, or read the ledger with sqlite3".to_owned();
        bytes(&Reply::Refused(Refused { kind: RefusedKind::Failed, why }))
    };
    bytes(reply).or_else(too_large).unwrap_or_default()
}

const fn is_last(reply: &Reply) -> bool {
    match reply {
        Reply::Done | Reply::Refused(_) => true,
        Reply::Health(_)
        | Reply::Ps(_)
        | Reply::Event(_)
        | Reply::Turns(_)
        | Reply::Turn(_)
        | Reply::Queue(_)
        | Reply::Guests(_)
        | Reply::Note(_) => false,
    }
}

/// News that the next one replaces.
const fn may_be_dropped(reply: &Reply) -> bool {
    match reply {
        Reply::Event(event) => match event {
            SendEvent::Progress { .. } | SendEvent::Delta { .. } | SendEvent::Queued { .. } => true,
            SendEvent::Accepted { .. }
            | SendEvent::Joined { .. }
            | SendEvent::Refused { .. }
            | SendEvent::Finished(_) => false,
        },
        Reply::Health(_)
        | Reply::Ps(_)
        | Reply::Turns(_)
        | Reply::Turn(_)
        | Reply::Queue(_)
        | Reply::Guests(_)
        | Reply::Note(_)
        | Reply::Done
        | Reply::Refused(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::TurnId;

    const CALLER: CallerId = CallerId(1);

    fn progress(text: &str) -> Reply {
        Reply::Event(SendEvent::Delta { turn: TurnId(1), text: text.to_owned() })
    }

    #[test]
    fn a_full_queue_drops_news_and_keeps_the_caller() {
        let callers = Callers::new();
        let mut queue = callers.add(CALLER);
        for _ in 0..OUT_REPLIES_MAX * 2 {
            assert!(callers.reply(CALLER, &progress("x")));
        }
        assert_eq!(callers.count(), 1);
        assert!(!callers.reply(CALLER, &Reply::Note("must arrive".into())));
        assert_eq!(callers.count(), 0);
        assert!(!callers.reply(CALLER, &Reply::Done));
        let mut kept = 0;
        while queue.replies.try_recv().is_ok() {
            kept += 1;
        }
        assert_eq!(kept, OUT_REPLIES_MAX);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let callers = Callers::new();
        let queue = callers.add(CALLER);
        let large = "x".repeat(1_000_000);
        for _ in 0..100 {
            callers.reply(CALLER, &progress(&large));
        }
        assert!(queue.waiting.load(Ordering::Relaxed) <= OUT_BYTES_MAX);
        assert!(queue.replies.len() <= OUT_BYTES_MAX / large.len());
    }

    #[test]
    fn the_last_reply_closes_the_queue() {
        let callers = Callers::new();
        let mut queue = callers.add(CALLER);
        assert!(callers.reply(CALLER, &Reply::Done));
        assert!(!callers.reply(CALLER, &Reply::Done));
        assert!(queue.replies.try_recv().is_ok());
        assert_eq!(queue.replies.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
    }

    #[test]
    fn an_answer_that_fits_no_frame_becomes_a_refusal() {
        let bytes = encode(&Reply::Note("x".repeat(frame::FRAME_BYTES_MAX)));
        let mut reader = frame::FrameReader::new();
        reader.push(&bytes);
        let frame = reader.next_frame().unwrap().unwrap();
        assert!(matches!(Reply::from_frame(&frame), Ok(Some(Reply::Refused(_)))));
    }
}
