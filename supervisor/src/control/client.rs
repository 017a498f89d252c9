//! The control socket inside a command. Blocking: a command does one thing, and starts faster without a runtime.

use interprocess::local_socket::prelude::*;
use interprocess::local_socket::{GenericFilePath, Stream, ToFsName};
use protocol::codec::CodecError;
use protocol::control::{Reply, Request};
use protocol::frame::{self, FrameError, FrameReader};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How much is read at once, in bytes.
const READ_BYTES: usize = 16 * 1024;

/// Why the supervisor gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no supervisor is running: nothing answers at {}\nstart it with `cofferdam run`", .0.display())]
    NoSupervisor(PathBuf),
    /// The socket cannot be used.
    #[error("the control socket {} cannot be used", .0.display())]
    Socket(PathBuf, #[source] io::Error),
    /// It did not answer in time.
    #[error("the supervisor did not answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// It closed before the last answer.
    #[error("the supervisor left before it had answered")]
    Left,
    /// The question passes the frame limit.
    #[error("the request cannot be sent")]
    Request(#[source] CodecError),
    /// Its bytes are no frames.
    #[error("the supervisor's answer is no frame")]
    Frame(#[from] FrameError),
    /// Its answer is not understood.
    #[error("the supervisor's answer cannot be understood: it may be of another release, see `cofferdam version`")]
    Reply(#[source] Option<CodecError>),
}

/// A connection to the supervisor.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    stream: Stream,
    reader: FrameReader,
    patience: Option<Duration>,
}

impl Client {
    /// Connects and asks. `patience` is the longest wait for each answer; `None` waits for as long as it takes.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn ask(socket: &Path, request: &Request, patience: Option<Duration>) -> Result<Self, ClientError> {
        let broken = |error| ClientError::Socket(socket.to_owned(), error);
        let request = request.to_frame().map_err(ClientError::Request)?;
        let bytes = frame::encode(request.kind, &request.body)?;
        let name = socket.to_fs_name::<GenericFilePath>().map_err(broken)?;
        let stream = Stream::connect(name).map_err(|error| {
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
                ClientError::NoSupervisor(socket.to_owned())
            } else {
                broken(error)
            }
        })?;
        stream.set_recv_timeout(patience).map_err(broken)?;
        // A refusal may be waiting even if the request cannot be written.
        drop((&stream).write_all(&bytes));
        Ok(Self { socket: socket.to_owned(), stream, reader: FrameReader::new(), patience })
    }

    /// From the next answer on, another longest wait.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn wait_for(&mut self, patience: Option<Duration>) -> Result<(), ClientError> {
        self.patience = patience;
        self.stream.set_recv_timeout(patience).map_err(|error| ClientError::Socket(self.socket.clone(), error))
    }

    /// The next answer. [`Reply::Done`] and [`Reply::Refused`] are the last.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn next_reply(&mut self) -> Result<Reply, ClientError> {
        loop {
            if let Some(frame) = self.reader.next_frame()? {
                return match Reply::from_frame(&frame) {
                    Ok(Some(reply)) => Ok(reply),
                    Ok(None) => Err(ClientError::Reply(None)),
                    Err(error) => Err(ClientError::Reply(Some(error))),
                };
            }
            let mut bytes = [0; READ_BYTES];
            match (&self.stream).read(&mut bytes) {
                Ok(0) => return Err(ClientError::Left),
                Ok(read) => self.reader.push(bytes.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(ClientError::Left),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(ClientError::Silent(self.patience.unwrap_or_default()));
                }
                Err(error) => return Err(ClientError::Socket(self.socket.clone(), error)),
            }
        }
    }
}
