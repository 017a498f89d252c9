//! One worker's session: a task that reads, a task that writes, and the handle by which the daemon speaks.
//!
//! ```text
//!   running --- the worker closes, sends a bad frame, stops in a frame, or its queue is full ---> lost (told once)
//!      `------ the handle is dropped: what waits is written within a second --------------------> ended (not told)
//! ```

use super::dial::{Dialled, read_some};
use super::gate::{COST_PER_WINDOW_MAX, HeldBack, NEWS_AT_ONCE_MAX, WINDOW_MS, cost, may_be_dropped};
use super::write::{lose, write_all};
use protocol::frame::{self, Frame, FrameReader};
use protocol::hello::Accord;
use protocol::stable::kind;
use protocol::{AgentName, FromWorker, Incarnation, ToWorker};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Sleep;

/// Frames that may wait for a worker. What is said to one is rare (a begin, an ack a turn), so that a full queue is a
/// worker that does not read.
pub const OUT_FRAMES_MAX: usize = 1024;

/// Bytes that may wait for a worker: eight frames of the largest size.
pub const OUT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How long the rest of a begun frame may take, in milliseconds. Local bytes arrive at once; a worker that was stopped
/// in the middle of a write gets the time that a person needs to let it go on.
pub const FRAME_REST_MS: u64 = 30_000;

/// Something about a worker. Dropping it lets the next news of the same worker pass: keep it until it has been handled.
#[derive(Debug)]
pub struct News {
    /// Whose worker.
    pub agent: AgentName,
    /// Its run, by its own word.
    pub incarnation: Incarnation,
    /// What happened.
    pub happened: Happened,
    _permit: Option<OwnedSemaphorePermit>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Happened {
    /// It said something.
    Said(FromWorker),
    /// All that had arrived was read and told before this, see [`Session::read_out`].
    ReadOut,
    /// The session is over; nothing follows.
    Lost(String),
}

/// Why something was not said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TellError {
    /// The worker does not read. The session is lost with this.
    #[error("the worker does not read: {OUT_FRAMES_MAX} messages or {OUT_BYTES_MAX} bytes wait for it")]
    Full,
    /// The session has ended.
    #[error("the session with the worker has ended")]
    Ended,
    /// The worker speaks another protocol and would not understand this.
    #[error("the worker is of another release: only a drain, a kill and an ack can be said to it")]
    NotStable,
    /// It passes the limit of a frame.
    #[error("the message is too large for a frame: {0}")]
    TooLarge(String),
}

/// The handle of a session. Dropping it ends the session.
#[derive(Debug)]
pub struct Session {
    accord: Accord,
    out: mpsc::Sender<Vec<u8>>,
    shared: Arc<Shared>,
    stop: watch::Sender<Stop>,
}

/// What the tasks must know of the handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Running,
    /// The queue was full, or writing failed.
    Lost(String),
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) out_bytes: AtomicUsize,
    unknown: AtomicU64,
    /// Somebody wants to know that everything that has arrived is read.
    read_out: Notify,
}

impl Session {
    /// `frame_rest`: how long the rest of a begun frame may take.
    pub(super) fn begin(dialled: Dialled, news: mpsc::Sender<News>, frame_rest: Duration) -> Self {
        let (read, write) = dialled.stream.into_split();
        let (out, queue) = mpsc::channel(OUT_FRAMES_MAX);
        let (stop, stopped) = watch::channel(Stop::Running);
        let shared = Arc::new(Shared::default());
        let incoming = Incoming {
            agent: dialled.hello.agent,
            incarnation: dialled.hello.incarnation,
            accord: dialled.accord,
            reader: dialled.reader,
            held: HeldBack::default(),
            gate: Arc::new(Semaphore::new(NEWS_AT_ONCE_MAX)),
            news,
            shared: Arc::clone(&shared),
            window: None,
            spent: 0,
            frame_rest,
            read_out: false,
        };
        tokio::spawn(incoming.run(read, stopped));
        tokio::spawn(write_all(write, queue, Arc::clone(&shared), stop.clone()));
        Self { accord: dialled.accord, out, shared, stop }
    }

    /// Says something to the worker. Never waits.
    ///
    /// # Errors
    /// See [`TellError`].
    pub fn tell(&self, message: &ToWorker) -> Result<(), TellError> {
        if self.accord == Accord::DrainOnly && !is_stable(message) {
            return Err(TellError::NotStable);
        }
        let frame = message.to_frame().map_err(|e| TellError::TooLarge(e.to_string()))?;
        let bytes = frame::encode(frame.kind, &frame.body).map_err(|e| TellError::TooLarge(e.to_string()))?;
        let length = bytes.len();
        let waiting = self.shared.out_bytes.fetch_add(length, Ordering::Relaxed);
        let sent = if waiting + length > OUT_BYTES_MAX {
            Err(TellError::Full)
        } else {
            self.out.try_send(bytes).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => TellError::Full,
                mpsc::error::TrySendError::Closed(_) => TellError::Ended,
            })
        };
        if let Err(error) = &sent {
            self.shared.out_bytes.fetch_sub(length, Ordering::Relaxed);
            if *error == TellError::Full {
                lose(&self.stop, error.to_string());
            }
        }
        sent
    }

    /// Asks for [`Happened::ReadOut`], behind the news of everything that has arrived by then. Whether somebody reads.
    pub fn read_out(&self) -> bool {
        let reads = self.stop.receiver_count() > 0;
        self.shared.read_out.notify_one();
        reads
    }

    /// Frames of unknown kinds that were skipped.
    pub fn unknown(&self) -> u64 {
        self.shared.unknown.load(Ordering::Relaxed)
    }
}

const fn is_stable(message: &ToWorker) -> bool {
    match message {
        ToWorker::Hello(_) | ToWorker::Ack(_) | ToWorker::Drain | ToWorker::Kill => true,
        ToWorker::Configure(_)
        | ToWorker::Begin(_)
        | ToWorker::Steer(_)
        | ToWorker::Interrupt(_)
        | ToWorker::Archive(_)
        | ToWorker::Ping(_) => false,
    }
}

/// The reading half.
struct Incoming {
    agent: AgentName,
    incarnation: Incarnation,
    accord: Accord,
    reader: FrameReader,
    held: HeldBack,
    gate: Arc<Semaphore>,
    news: mpsc::Sender<News>,
    shared: Arc<Shared>,
    /// Runs while frames of this window are counted.
    window: Option<Pin<Box<Sleep>>>,
    spent: u32,
    frame_rest: Duration,
    /// It was asked whether everything is read.
    read_out: bool,
}

/// Why reading ended.
enum End {
    /// The session is lost, in words.
    Lost(String),
    /// Nobody listens to its news.
    Unheard,
}

impl Incoming {
    /// Reads until the end, and tells it unless the handle was dropped.
    async fn run(mut self, read: tokio::net::unix::OwnedReadHalf, mut stopped: watch::Receiver<Stop>) {
        let lost = {
            let told = async {
                match stopped.wait_for(|state| *state != Stop::Running).await {
                    Ok(state) => match &*state {
                        Stop::Lost(why) => Some(why.clone()),
                        Stop::Running => None,
                    },
                    Err(_) => None,
                }
            };
            tokio::select! {
                why = told => why,
                end = self.read(read.as_ref()) => match end {
                    End::Lost(why) => Some(why),
                    End::Unheard => None,
                },
            }
        };
        if let Some(why) = lost {
            let (agent, incarnation) = (self.agent, self.incarnation);
            let news = News { agent, incarnation, happened: Happened::Lost(why), _permit: None };
            // Nobody listens if the daemon has ended.
            drop(self.news.send(news).await);
        }
    }

    async fn read(&mut self, stream: &tokio::net::UnixStream) -> End {
        loop {
            loop {
                match self.reader.next_frame() {
                    Ok(Some(frame)) => {
                        if let Err(end) = self.take(&frame).await {
                            return end;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return End::Lost(format!("the worker sent no frame: {error}")),
                }
            }
            if !self.reader.is_mid_frame() {
                // Gives back the room that a large frame took.
                self.reader = FrameReader::new();
            }
            if let Err(end) = self.tell_read_out(stream).await {
                return end;
            }
            if let Err(end) = self.wait(stream).await {
                return end;
            }
        }
    }

    /// Says that nothing is left to read, if somebody asked and nothing is. The kernel is asked itself: the event loop may
    /// not have heard yet of what has arrived.
    async fn tell_read_out(&mut self, stream: &tokio::net::UnixStream) -> Result<(), End> {
        if !self.read_out || rustix::io::ioctl_fionread(stream).is_ok_and(|bytes| bytes > 0) {
            return Ok(());
        }
        while !self.held.is_empty() {
            let permit = Arc::clone(&self.gate).acquire_owned().await.map_err(|_| End::Unheard)?;
            if let Some(said) = self.held.next() {
                self.send(said, permit).await?;
            }
        }
        self.read_out = false;
        let (agent, incarnation) = (self.agent.clone(), self.incarnation);
        let news = News { agent, incarnation, happened: Happened::ReadOut, _permit: None };
        self.news.send(news).await.map_err(|_| End::Unheard)
    }

    /// Waits for bytes and takes them; meanwhile lets held progress pass.
    async fn wait(&mut self, stream: &tokio::net::UnixStream) -> Result<(), End> {
        let mid_frame = self.reader.is_mid_frame();
        let shared = Arc::clone(&self.shared);
        tokio::select! {
            () = shared.read_out.notified() => {
                self.read_out = true;
                Ok(())
            }
            ready = stream.readable() => {
                let read = ready.and_then(|()| read_some(stream, &mut self.reader));
                match read {
                    Ok(0) if mid_frame => Err(End::Lost("the worker closed in the middle of a frame".to_owned())),
                    Ok(0) => Err(End::Lost("the worker closed the session".to_owned())),
                    Ok(_) => Ok(()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                    Err(error) => Err(End::Lost(format!("the worker cannot be read: {error}"))),
                }
            }
            permit = Arc::clone(&self.gate).acquire_owned(), if !self.held.is_empty() => {
                match (permit, self.held.next()) {
                    (Ok(permit), Some(said)) => self.send(said, permit).await,
                    _ => Ok(()),
                }
            }
            () = elapsed(&mut self.window), if self.window.is_some() => {
                self.window = None;
                self.spent = 0;
                Ok(())
            }
            () = tokio::time::sleep(self.frame_rest), if mid_frame => {
                Err(End::Lost("the worker stopped in the middle of a frame".to_owned()))
            }
        }
    }

    async fn take(&mut self, frame: &Frame) -> Result<(), End> {
        self.pace(frame).await;
        // The bodies of other kinds may differ in a worker of another release.
        let readable = self.accord == Accord::Full || matches!(frame.kind, kind::HELLO..=kind::FINISHED);
        let message = if readable { FromWorker::from_frame(frame) } else { Ok(None) };
        let said = match message {
            Ok(Some(FromWorker::Hello(_))) => return Err(End::Lost("the worker said hello twice".to_owned())),
            Ok(Some(said)) => said,
            Ok(None) => {
                self.shared.unknown.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Err(error) => {
                return Err(End::Lost(format!("a message of kind {} cannot be understood: {error}", frame.kind)));
            }
        };
        if !may_be_dropped(&said) {
            let permit = Arc::clone(&self.gate).acquire_owned().await.map_err(|_| End::Unheard)?;
            let said = self.held.with_losses(said);
            return self.send(said, permit).await;
        }
        if let Ok(permit) = Arc::clone(&self.gate).try_acquire_owned() {
            let said = self.held.with_losses(said);
            return self.send(said, permit).await;
        }
        self.held.hold(said);
        Ok(())
    }

    /// Counts what a frame costs; waits for the end of this window if it has cost too much.
    async fn pace(&mut self, frame: &Frame) {
        if self.spent >= COST_PER_WINDOW_MAX {
            elapsed(&mut self.window).await;
            self.window = None;
            self.spent = 0;
        }
        self.spent = self.spent.saturating_add(cost(frame));
        if self.window.is_none() {
            self.window = Some(Box::pin(tokio::time::sleep(Duration::from_millis(WINDOW_MS))));
        }
    }

    async fn send(&mut self, said: FromWorker, permit: OwnedSemaphorePermit) -> Result<(), End> {
        let happened = Happened::Said(said);
        let news = News { agent: self.agent.clone(), incarnation: self.incarnation, happened, _permit: Some(permit) };
        self.news.send(news).await.map_err(|_| End::Unheard)
    }
}

async fn elapsed(window: &mut Option<Pin<Box<Sleep>>>) {
    if let Some(window) = window {
        window.as_mut().await;
    }
}
