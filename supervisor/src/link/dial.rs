//! From a socket path to a worker that said hello: fails at once if nobody is there, and never waits long.

use super::session::{FRAME_REST_MS, News, Session};
use interprocess::local_socket::tokio::Stream;
use interprocess::local_socket::tokio::prelude::*;
use interprocess::local_socket::{GenericFilePath, ToFsName};
use protocol::frame::{FrameError, FrameReader};
use protocol::hello::{Accord, Refusal, Role};
use protocol::to_worker::MessageError;
use protocol::{AgentName, FromWorker, Hello, Incarnation, ToWorker, frame};
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// From the connection to the worker's hello, in milliseconds. A hello is the first thing that a worker does, so that
/// one which takes longer is stopped or wedged.
pub const HELLO_MS: u64 = 2000;

/// Whom to dial.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where the worker listens.
    pub socket: PathBuf,
    /// Whom it must serve.
    pub agent: AgentName,
    /// The run that is expected, or 0 if any will do.
    pub incarnation: Incarnation,
    /// The user that the worker must run as.
    pub uid: u32,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nobody listens: there is no such socket, or nobody behind it.
    #[error("no worker listens at {}", .0.display())]
    Nobody(PathBuf),
    /// The socket cannot be used.
    #[error("the worker's socket {} cannot be used", .0.display())]
    Socket(PathBuf, #[source] io::Error),
    /// The process behind the socket runs as somebody else.
    #[error("the process behind {} runs as user {found}, not {wanted}: remove the socket", .socket.display())]
    Stranger {
        /// Which socket.
        socket: PathBuf,
        /// As whom it runs.
        found: u32,
        /// As whom it should.
        wanted: u32,
    },
    /// It took the connection and said nothing.
    #[error("the worker did not say hello within {HELLO_MS} ms: it is stopped or wedged")]
    Silent,
    /// It closed the connection before its hello.
    #[error("the worker closed the connection before its hello")]
    Closed,
    /// It said something else.
    #[error("the worker's first frame is of kind {0}, not a hello")]
    NoHello(u16),
    /// Its bytes are no frame.
    #[error("the worker's hello cannot be read")]
    Frame(#[from] FrameError),
    /// Its hello is malformed.
    #[error("the worker's hello cannot be understood")]
    Message(#[from] MessageError),
    /// It is not whom we look for.
    #[error("the worker was refused")]
    Refused(#[from] Refusal),
}

impl DialError {
    /// The whole chain of causes in one line.
    pub fn words(&self) -> String {
        let mut words = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            words.push_str(": ");
            words.push_str(&cause.to_string());
            source = cause.source();
        }
        words
    }

    /// Whether nothing at all is behind the socket, so that the agent may have no worker.
    pub const fn is_nobody(&self) -> bool {
        match self {
            Self::Nobody(_) => true,
            Self::Socket(..)
            | Self::Stranger { .. }
            | Self::Silent
            | Self::Closed
            | Self::NoHello(_)
            | Self::Frame(_)
            | Self::Message(_)
            | Self::Refused(_) => false,
        }
    }
}

/// A worker that said hello. Nothing is read from it until [`Dialled::begin`].
#[derive(Debug)]
pub struct Dialled {
    /// What it said.
    pub hello: Hello,
    /// What may be said.
    pub accord: Accord,
    /// Its process, by the kernel's word.
    pub pid: u32,
    pub(super) stream: UnixStream,
    pub(super) reader: FrameReader,
}

impl Dialled {
    /// Begins the session: what the worker says goes to `news`, under its own word of the incarnation.
    pub fn begin(self, news: mpsc::Sender<News>) -> Session {
        Session::begin(self, news, Duration::from_millis(FRAME_REST_MS))
    }
}

/// A dial that led to no session.
#[derive(Debug)]
pub struct Undialled {
    /// Why.
    pub error: DialError,
    /// The process behind the socket, by the kernel's word, if there was one: it is known from the connection on, also of
    /// one that is stopped.
    pub peer: Option<u32>,
}

/// Dials a worker and exchanges hellos.
///
/// # Errors
/// See [`DialError`].
pub async fn dial(target: &Target) -> Result<Dialled, Undialled> {
    let mut peer = None;
    let limit = Duration::from_millis(HELLO_MS);
    let met = tokio::time::timeout(limit, meet(target, &mut peer)).await.unwrap_or(Err(DialError::Silent));
    met.map_err(|error| Undialled { error, peer })
}

async fn meet(target: &Target, peer: &mut Option<u32>) -> Result<Dialled, DialError> {
    let broken = |error| DialError::Socket(target.socket.clone(), error);
    let (mut stream, pid) = connect(target).await?;
    *peer = Some(pid).filter(|pid| *pid != 0);
    let ours = Hello::new(Role::Supervisor, target.agent.clone(), target.incarnation);
    let first = ToWorker::Hello(ours.clone()).to_frame().map_err(MessageError::from)?;
    let hung_up =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
    let written = stream.write_all(&frame::encode(first.kind, &first.body)?).await;
    written.map_err(|error| if hung_up(&error) { DialError::Closed } else { broken(error) })?;
    let mut reader = FrameReader::new();
    let answer = loop {
        if let Some(answer) = reader.next_frame()? {
            break answer;
        }
        stream.readable().await.map_err(broken)?;
        match read_some(&stream, &mut reader) {
            Ok(0) => return Err(DialError::Closed),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if hung_up(&error) => return Err(DialError::Closed),
            Err(error) => return Err(broken(error)),
        }
    };
    let Some(FromWorker::Hello(hello)) = FromWorker::from_frame(&answer)? else {
        return Err(DialError::NoHello(answer.kind));
    };
    let accord = ours.meet(&hello)?;
    Ok(Dialled { hello, accord, pid, stream, reader })
}

async fn connect(target: &Target) -> Result<(UnixStream, u32), DialError> {
    let broken = |error| DialError::Socket(target.socket.clone(), error);
    let name = target.socket.as_path().to_fs_name::<GenericFilePath>().map_err(broken)?;
    let stream = Stream::connect(name).await.map_err(|error| {
        if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
            DialError::Nobody(target.socket.clone())
        } else {
            broken(error)
        }
    })?;
    let peer = stream.peer_creds().map_err(broken)?;
    let found = peer.euid().unwrap_or(u32::MAX);
    if found != target.uid {
        return Err(DialError::Stranger { socket: target.socket.clone(), found, wanted: target.uid });
    }
    let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default();
    let Stream::UdSocket(stream) = stream;
    Ok((stream.into(), pid))
}

/// How much is read at once, in bytes. On the stack, so that an idle session holds no buffer.
const READ_BYTES: usize = 16 * 1024;

/// Takes what has arrived. `Ok(0)`: the other end closed.
pub(super) fn read_some(stream: &UnixStream, reader: &mut FrameReader) -> io::Result<usize> {
    let mut bytes = [0; READ_BYTES];
    let read = stream.try_read(&mut bytes)?;
    reader.push(bytes.get(..read).unwrap_or_default());
    Ok(read)
}
