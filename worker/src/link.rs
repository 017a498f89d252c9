//! The socket to the supervisor: the worker owns it and listens, so that a new supervisor finds the old workers.
//!
//! ```text
//!  accept -> uid checked -> hello both ways -> meet --- Full ------> every message
//!                 |               |             '------ DrainOnly -> stable messages alone
//!                 '-> closed      '-> closed after 5 s or on a refusal
//! ```
//! One supervisor at a time: a newer one that has said a valid hello replaces the older. Each session has a queue out
//! of bounded size; when it is full, what may be dropped is dropped, and what may not ends the session, because it is
//! said again to the next one.

use crate::args::Args;
use interprocess::local_socket::tokio::{Listener, Stream, prelude::*};
use interprocess::local_socket::{GenericFilePath, ListenerOptions};
use protocol::frame::{self, FrameReader};
use protocol::hello::{Accord, Hello, Role};
use protocol::{AttemptId, FromWorker, ToWorker};
use std::collections::{BTreeMap, VecDeque};
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::AbortHandle;

/// Longest socket path, in bytes: the kernel's 108 with the closing zero.
pub const PATH_BYTES_MAX: usize = 107;

/// How long a caller may take for its hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Callers at once, the current supervisor included.
const SESSIONS_MAX: usize = 8;

/// Above this, news that may be dropped are, in bytes: minutes of progress of a busy agent.
const DROP_BYTES: usize = 1024 * 1024;

/// Above this the session ends, in bytes: an outcome is at most a frame, and there are few at once.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Pause after a failed accept (no more descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The path does not fit.
    #[error("the socket path {} is longer than {PATH_BYTES_MAX} bytes: choose a shorter runtime_dir", .0.display())]
    TooLong(PathBuf),
    /// The system refused.
    #[error("cannot listen on {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What happens on the link.
#[derive(Debug)]
pub enum LinkEvent {
    /// A supervisor has said a valid hello.
    Up(Session),
    /// It said something.
    Message(u64, ToWorker),
    /// It is gone, and why.
    Down(u64, String),
}

/// A supervisor that is connected.
#[derive(Debug)]
pub struct Session {
    /// Number of the session.
    pub id: u64,
    /// What may be said.
    pub accord: Accord,
    /// The way out.
    pub outbox: Outbox,
    task: AbortHandle,
}

impl Session {
    /// Ends it without a word.
    pub fn close(&self) {
        self.task.abort();
    }
}

/// Binds the socket. Call it with the agent's lock held: whatever lies at the path then is stale.
pub fn listen(path: &Path) -> Result<Listener, LinkError> {
    if path.as_os_str().len() > PATH_BYTES_MAX {
        return Err(LinkError::TooLong(path.to_owned()));
    }
    let bind = || {
        if let Some(dir) = path.parent() {
            crate::home::make_private_dir(dir)?;
        }
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => {}
        }
        // The process' mask keeps others out from the first moment on; this is the mode that all our files have.
        // Whoever drops a listener must not remove the socket of the next one at the same path.
        let options = ListenerOptions::new().name(path.to_fs_name::<GenericFilePath>()?).reclaim_name(false);
        let listener = options.create_tokio()?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    bind().map_err(|source| LinkError::Io { path: path.to_owned(), source })
}

/// Takes callers for ever. `binding` counts how often the socket was bound, so that no two sessions bear one number.
pub async fn serve(listener: Listener, args: Args, events: mpsc::Sender<LinkEvent>, binding: u64) {
    let room = Arc::new(Semaphore::new(SESSIONS_MAX));
    let mut next = binding << 32;
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok(stream) if is_supervisor(&stream, args.supervisor_uid) => {
                next += 1;
                let caller = Caller { id: next, ours: ours(&args), events: events.clone() };
                tokio::spawn(async move {
                    caller.converse(stream).await;
                    drop(permit);
                });
            }
            Ok(_) => tracing::warn!("a caller of another user was turned away"),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a caller");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_supervisor(stream: &Stream, uid: u32) -> bool {
    stream.peer_creds().ok().and_then(|creds| creds.euid()) == Some(uid)
}

fn ours(args: &Args) -> Hello {
    Hello { nonce: args.nonce, ..Hello::new(Role::Worker, args.agent.clone(), args.incarnation) }
}

struct Caller {
    id: u64,
    ours: Hello,
    events: mpsc::Sender<LinkEvent>,
}

impl Caller {
    async fn converse(self, stream: Stream) {
        let mut frames = Frames { reader: FrameReader::new(), buffer: vec![0; 8 * 1024] };
        let greeted = tokio::time::timeout(HELLO_TIMEOUT, self.greet(&mut &stream, &mut &stream, &mut frames)).await;
        let accord = match greeted {
            Ok(Ok(accord)) => accord,
            Ok(Err(why)) => return tracing::warn!(why, "a caller said no valid hello"),
            Err(_) => return tracing::warn!("a caller said no hello in time"),
        };
        let outbox = Outbox::default();
        let (id, events) = (self.id, self.events.clone());
        let (told, is_told) = tokio::sync::oneshot::channel::<()>();
        let queue = outbox.clone();
        let task = tokio::spawn(async move {
            // The driver hears of the session before its first message.
            drop(is_told.await);
            let (mut from, mut to) = (&stream, &stream);
            let why = tokio::select! {
                why = self.hear(&mut from, &mut frames, accord) => why,
                why = queue.write_to(&mut to) => why,
            };
            drop(self.events.send(LinkEvent::Down(self.id, why)).await);
        });
        let session = Session { id, accord, outbox, task: task.abort_handle() };
        if events.send(LinkEvent::Up(session)).await.is_err() {
            task.abort();
        }
        drop(told);
        drop(task.await);
    }

    async fn greet(
        &self,
        from: &mut (impl AsyncReadExt + Unpin),
        to: &mut (impl AsyncWriteExt + Unpin),
        frames: &mut Frames,
    ) -> Result<Accord, String> {
        let hello = bytes_of(&FromWorker::Hello(self.ours.clone())).ok_or("our own hello does not fit")?;
        to.write_all(&hello).await.map_err(|e| e.to_string())?;
        match frames.next(from, true).await? {
            ToWorker::Hello(theirs) => self.ours.meet(&theirs).map_err(|e| e.to_string()),
            ToWorker::Ack(_)
            | ToWorker::Drain
            | ToWorker::Kill
            | ToWorker::Configure(_)
            | ToWorker::Begin(_)
            | ToWorker::Steer(_)
            | ToWorker::Interrupt(_)
            | ToWorker::Archive(_)
            | ToWorker::Ping(_) => Err("something else came first".to_owned()),
        }
    }

    /// Hands on what it says until it goes.
    async fn hear(&self, from: &mut (impl AsyncReadExt + Unpin), frames: &mut Frames, accord: Accord) -> String {
        loop {
            match frames.next(from, accord == Accord::DrainOnly).await {
                Ok(message) => {
                    if self.events.send(LinkEvent::Message(self.id, message)).await.is_err() {
                        return "the worker leaves".to_owned();
                    }
                }
                Err(why) => return why,
            }
        }
    }
}

struct Frames {
    reader: FrameReader,
    buffer: Vec<u8>,
}

impl Frames {
    /// Kinds below this are the stable ones.
    const STABLE_KINDS_END: u16 = 16;

    /// The next message; kinds that are not known here, or may not be used, are skipped.
    async fn next(&mut self, from: &mut (impl AsyncReadExt + Unpin), stable_only: bool) -> Result<ToWorker, String> {
        loop {
            while let Some(frame) = self.reader.next_frame().map_err(|e| e.to_string())? {
                if stable_only && frame.kind >= Self::STABLE_KINDS_END {
                    tracing::info!(kind = frame.kind, "a frame of another protocol was skipped");
                } else if let Some(message) = ToWorker::from_frame(&frame).map_err(|e| e.to_string())? {
                    return Ok(message);
                } else {
                    tracing::info!(kind = frame.kind, "a frame of an unknown kind was skipped");
                }
            }
            match from.read(&mut self.buffer).await.map_err(|e| e.to_string())? {
                0 => return Err("it closed the connection".to_owned()),
                count => self.reader.push(self.buffer.get(..count).unwrap_or_default()),
            }
        }
    }
}

/// What waits to be written to one supervisor.
#[derive(Clone, Debug, Default)]
pub struct Outbox {
    queue: Arc<Mutex<Queue>>,
    filled: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<(Option<AttemptId>, Vec<u8>)>,
    bytes: usize,
    dropped: BTreeMap<AttemptId, u32>,
    broken: bool,
}

impl Outbox {
    /// Puts a message in. Returns whether it is in, or was dropped as it may be; `false` ends the session.
    pub fn push(&self, message: FromWorker) -> bool {
        let pushed = self.held().push(message);
        self.filled.notify_one();
        pushed
    }

    /// Waits until everything is written, at most as long as the caller likes.
    pub async fn written(&self) {
        while !self.held().is_done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn write_to(&self, to: &mut (impl AsyncWriteExt + Unpin)) -> String {
        loop {
            let Some(bytes) = self.held().front() else {
                if self.held().broken {
                    return "it does not read what it must know".to_owned();
                }
                self.filled.notified().await;
                continue;
            };
            if let Err(error) = to.write_all(&bytes).await {
                return error.to_string();
            }
            self.held().take(bytes.len());
        }
    }

    fn held(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn push(&mut self, mut message: FromWorker) -> bool {
        let droppable = droppable(&message);
        if let FromWorker::Progress(progress) = &mut message {
            progress.dropped += self.dropped.get(&progress.attempt).copied().unwrap_or(0);
        }
        let Some(bytes) = bytes_of(&message) else {
            tracing::warn!("a message larger than a frame was dropped");
            return droppable.is_some();
        };
        if self.bytes + bytes.len() > DROP_BYTES {
            if let Some(attempt) = droppable {
                *self.dropped.entry(attempt).or_default() += 1;
                return true;
            }
            self.make_room();
        }
        if let FromWorker::Progress(progress) = &message {
            self.dropped.remove(&progress.attempt);
        }
        if self.bytes + bytes.len() > QUEUE_BYTES_MAX {
            self.frames.clear();
            self.broken = true;
            return false;
        }
        self.bytes += bytes.len();
        self.frames.push_back((droppable, bytes));
        true
    }

    /// Drops what may be dropped, but for the frame that is being written.
    fn make_room(&mut self) {
        let mut first = true;
        let (bytes, dropped) = (&mut self.bytes, &mut self.dropped);
        self.frames.retain(|(droppable, frame)| {
            let keep = std::mem::replace(&mut first, false) || droppable.is_none();
            if let Some(attempt) = droppable.filter(|_| !keep) {
                *bytes -= frame.len();
                *dropped.entry(attempt).or_default() += 1;
            }
            keep
        });
    }

    fn front(&mut self) -> Option<Vec<u8>> {
        self.frames.front_mut().map(|(droppable, bytes)| {
            *droppable = None;
            bytes.clone()
        })
    }

    fn take(&mut self, bytes: usize) {
        if self.frames.pop_front().is_some() {
            self.bytes -= bytes;
        }
    }

    fn is_done(&self) -> bool {
        self.frames.is_empty()
    }
}

/// The attempt of a message that may be dropped.
fn droppable(message: &FromWorker) -> Option<AttemptId> {
    match message {
        FromWorker::Progress(progress) => Some(progress.attempt),
        FromWorker::Delta(delta) => Some(delta.attempt),
        FromWorker::Hello(_)
        | FromWorker::Finished(_)
        | FromWorker::Ready(_)
        | FromWorker::Begun(_)
        | FromWorker::Started(_)
        | FromWorker::Steered(_)
        | FromWorker::Beat(_)
        | FromWorker::Note(_)
        | FromWorker::Alert(_)
        | FromWorker::Spare(_)
        | FromWorker::Pong(_) => None,
    }
}

fn bytes_of(message: &FromWorker) -> Option<Vec<u8>> {
    let frame = message.to_frame().ok()?;
    frame::encode(frame.kind, &frame.body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::from_worker::{Delta, Phase, Progress};
    use protocol::{Finished, Outcome, TurnId};

    fn delta(size: usize) -> FromWorker {
        FromWorker::Delta(Delta { attempt: AttemptId(1), text: "x".repeat(size) })
    }

    fn finished(size: usize) -> FromWorker {
        let mut end = Finished::new(AttemptId(1), TurnId(1), Outcome::Completed);
        end.text = protocol::Text::Inline("x".repeat(size));
        FromWorker::Finished(Box::new(end))
    }

    #[test]
    fn under_pressure_progress_goes_and_outcomes_stay() {
        let mut queue = Queue::default();
        for _ in 0..30 {
            assert!(queue.push(delta(100_000)));
        }
        assert!(queue.bytes <= DROP_BYTES && queue.dropped[&AttemptId(1)] == 20);
        assert!(queue.push(finished(200_000)));
        let kept: Vec<bool> = queue.frames.iter().map(|(d, _)| d.is_none()).collect();
        assert_eq!(kept.iter().filter(|k| **k).count(), 1);
        assert_eq!(queue.bytes, queue.frames.iter().map(|(_, b)| b.len()).sum::<usize>());
        let progress =
            Progress { attempt: AttemptId(1), phase: Phase::Tool, detail: String::new(), dropped: 0, for_ms: 0 };
        assert!(queue.push(FromWorker::Progress(progress)));
        let (_, last) = queue.frames.back().unwrap();
        let mut reader = FrameReader::new();
        reader.push(last);
        let frame = reader.next_frame().unwrap().unwrap();
        let Some(FromWorker::Progress(progress)) = FromWorker::from_frame(&frame).unwrap() else { panic!() };
        assert_eq!(progress.dropped, 29);
        assert!(queue.dropped.is_empty());
    }

    #[test]
    fn outcomes_that_nobody_reads_end_the_session() {
        let mut queue = Queue::default();
        let room = (0..1000).take_while(|_| queue.push(finished(200_000))).count();
        assert_eq!(room, QUEUE_BYTES_MAX / 200_000);
        assert!(queue.broken && queue.frames.is_empty());
    }
}
