//! The control socket inside the daemon.
//!
//! ```text
//!   bind: lock of the folder -- held --> refused, the holder's pid is named
//!           | ours: a socket that is left over is removed
//!   accept -- stranger or 257th --> refused
//!           | one frame within 5 s            (the rest of the connection is answers)
//!         Asked --> daemon
//!           | answers ... Done            the caller closes first: Gone --> daemon
//! ```

use super::callers::{Callers, Queue, encode};
use crate::machine::nouns::CallerId;
use interprocess::local_socket::tokio::prelude::*;
use interprocess::local_socket::tokio::{Listener, Stream};
use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName};
use protocol::control::{Refused, RefusedKind, Reply, Request};
use protocol::frame::FrameReader;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Connections at once: people and scripts of one host. Each is a small task and a bounded queue.
pub const CALLERS_MAX: usize = 256;

/// From the connection to its whole request, in milliseconds. A client writes it at once.
pub const REQUEST_MS: u64 = 5000;

/// How long a caller may take to read what it was sent last, in milliseconds.
const LAST_WORDS_MS: u64 = 5000;

/// Pause after a failed accept, in milliseconds: the process is out of descriptors, and a loop would only burn.
const ACCEPT_PAUSE_MS: u64 = 50;

/// What a caller does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It asks.
    Asked(CallerId, Request),
    /// It closed before its last answer.
    Gone(CallerId),
}

/// Why the socket is not ours.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another supervisor lives.
    #[error("a supervisor is already running here{} and answers at {}: stop it first, or set another runtime_dir",
        .pid.map_or_else(String::new, |pid| format!(" (pid {pid})")), .socket.display())]
    Running {
        /// Its number, if it could be learned.
        pid: Option<u32>,
        /// Where.
        socket: PathBuf,
    },
    /// The folder belongs to somebody else.
    #[error("{} belongs to user {found}, not to {wanted}: set another runtime_dir", .dir.display())]
    Stranger {
        /// Which folder.
        dir: PathBuf,
        /// Whose.
        found: u32,
        /// Who we are.
        wanted: u32,
    },
    /// The folder cannot be made or used.
    #[error("the folder {} cannot be used for sockets", .0.display())]
    Folder(PathBuf, #[source] io::Error),
    /// The socket cannot be bound.
    #[error("the control socket {} cannot be bound", .0.display())]
    Bind(PathBuf, #[source] io::Error),
}

/// The bound socket. Dropping it removes the socket and frees the folder.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    uid: u32,
    /// Held for as long as we are the supervisor of this folder.
    _lock: File,
}

impl Server {
    /// Binds `control.sock` in `runtime_dir`, which is made (0700) if it does not exist. Needs a tokio runtime.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(runtime_dir: &Path, uid: u32) -> Result<Self, BindError> {
        let socket = runtime_dir.join("control.sock");
        let folder = |error| BindError::Folder(runtime_dir.to_owned(), error);
        DirBuilder::new().recursive(true).mode(0o700).create(runtime_dir).map_err(folder)?;
        let found = fs::metadata(runtime_dir).map_err(folder)?.uid();
        if found != uid {
            return Err(BindError::Stranger { dir: runtime_dir.to_owned(), found, wanted: uid });
        }
        // 0711 lets users of agents pass, whose workers must not lose their sockets while we start.
        if fs::metadata(runtime_dir).map_err(folder)?.permissions().mode() & 0o777 != 0o711 {
            fs::set_permissions(runtime_dir, Permissions::from_mode(0o700)).map_err(folder)?;
        }
        let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(runtime_dir.join("control.lock"));
        let lock = lock.map_err(folder)?;
        let answering = peer_of(&socket);
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() || answering.is_some() {
            return Err(BindError::Running { pid: answering.and_then(|peer| peer.pid), socket });
        }
        let bind = |error| BindError::Bind(socket.clone(), error);
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(bind(error)),
            Ok(()) | Err(_) => {}
        }
        let name = socket.as_path().to_fs_name::<GenericFilePath>().map_err(bind)?;
        let listener = ListenerOptions::new().name(name).create_tokio().map_err(bind)?;
        fs::set_permissions(&socket, Permissions::from_mode(0o600)).map_err(bind)?;
        Ok(Self { listener, uid, _lock: lock })
    }

    /// Trusts another user than the one that it runs as.
    #[cfg(test)]
    pub(super) const fn pretend_uid(&mut self, uid: u32) {
        self.uid = uid;
    }

    /// Hears callers for ever: what they ask goes to `events`, what they get comes from `callers`.
    pub async fn run(self, events: mpsc::Sender<Event>, callers: Callers) {
        let room = Arc::new(Semaphore::new(CALLERS_MAX));
        let mut last = 0;
        loop {
            let Ok(Stream::UdSocket(stream)) = self.listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                continue;
            };
            let stream: UnixStream = stream.into();
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                refuse(&stream, &format!("more than {CALLERS_MAX} commands are connected: try again"));
                continue;
            };
            if !is_trusted(&stream, self.uid) {
                refuse(&stream, "only the user that the supervisor runs as, and root, may ask it");
                continue;
            }
            last += 1;
            let connection = Connection { caller: CallerId(last), events: events.clone(), callers: callers.clone() };
            tokio::spawn(connection.serve(stream, permit));
        }
    }
}

/// Somebody who answers at a socket.
struct Peer {
    pid: Option<u32>,
}

fn peer_of(socket: &Path) -> Option<Peer> {
    use interprocess::local_socket::prelude::*;
    let name = socket.to_fs_name::<GenericFilePath>().ok()?;
    let stream = interprocess::local_socket::Stream::connect(name).ok()?;
    let pid = stream.peer_creds().ok().and_then(|peer| peer.pid());
    Some(Peer { pid: pid.and_then(|pid| u32::try_from(pid).ok()) })
}

fn is_trusted(stream: &UnixStream, uid: u32) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == uid || peer.uid() == 0)
}

/// Says no without waiting: the words fit into the socket's buffer, and if not, the closed connection says it.
fn refuse(stream: &UnixStream, why: &str) {
    let refused = Refused { kind: RefusedKind::Later, why: why.to_owned() };
    drop(stream.try_write(&encode(&Reply::Refused(refused))));
}

struct Connection {
    caller: CallerId,
    events: mpsc::Sender<Event>,
    callers: Callers,
}

impl Connection {
    async fn serve(self, stream: UnixStream, _permit: OwnedSemaphorePermit) {
        let limit = Duration::from_millis(REQUEST_MS);
        let (read, write) = stream.into_split();
        let request = match tokio::time::timeout(limit, read_request(&read)).await {
            Ok(Ok(request)) => request,
            Ok(Err(why)) => return refuse(write.as_ref(), &why),
            Err(_) => return refuse(write.as_ref(), "no whole request came in time"),
        };
        let queue = self.callers.add(self.caller);
        if self.events.send(Event::Asked(self.caller, request)).await.is_err() {
            return refuse(write.as_ref(), "the supervisor is leaving");
        }
        let told_all = tokio::select! {
            told_all = write_replies(write, queue) => told_all,
            () = closed(&read) => false,
        };
        self.callers.remove(self.caller);
        if !told_all {
            // Nobody listens if the daemon has ended.
            drop(self.events.send(Event::Gone(self.caller)).await);
        }
    }
}

async fn read_request(read: &OwnedReadHalf) -> Result<Request, String> {
    let mut reader = FrameReader::new();
    loop {
        match reader.next_frame() {
            Ok(None) => {}
            Ok(Some(frame)) => {
                return match Request::from_frame(&frame) {
                    Ok(Some(request)) if !reader.is_mid_frame() => Ok(request),
                    Ok(Some(_)) => Err("more than one request came in a connection".to_owned()),
                    Ok(None) => Err(format!("a frame of kind {} is no request", frame.kind)),
                    Err(error) => Err(format!(
                        "the request cannot be understood ({error}): the command and the supervisor may be of \
                         different releases, see `cofferdam version`"
                    )),
                };
            }
            Err(error) => return Err(error.to_string()),
        }
        read.readable().await.map_err(|e| e.to_string())?;
        match read_some(read, &mut reader) {
            Ok(0) => return Err("the connection was closed before its request".to_owned()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// How much is read at once, in bytes. On the stack: a waiting caller holds no buffer.
const READ_BYTES: usize = 16 * 1024;

fn read_some(read: &OwnedReadHalf, reader: &mut FrameReader) -> io::Result<usize> {
    let mut bytes = [0; READ_BYTES];
    let length = read.try_read(&mut bytes)?;
    reader.push(bytes.get(..length).unwrap_or_default());
    Ok(length)
}

/// Writes what is answered; `true`: the queue was closed behind the last answer and all of it is written.
async fn write_replies(mut write: OwnedWriteHalf, mut queue: Queue) -> bool {
    while let Some(mut bytes) = queue.replies.recv().await {
        // What waits goes with it: an answer and its end are one write, and one read of the caller.
        while let Ok(more) = queue.replies.try_recv() {
            bytes.extend(more);
        }
        let written = async {
            let writing = write.write_all(&bytes);
            tokio::pin!(writing);
            loop {
                match tokio::time::timeout(Duration::from_millis(LAST_WORDS_MS), &mut writing).await {
                    Ok(written) => return written.is_ok(),
                    // The queue is closed: these are last words, or those to a caller that was cut.
                    Err(_) if queue.replies.is_closed() => return false,
                    Err(_) => {}
                }
            }
        };
        if !written.await {
            return false;
        }
        queue.waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
    }
    true
}

/// Resolves when the caller closes, or says more than its one request.
async fn closed(read: &OwnedReadHalf) {
    loop {
        if read.readable().await.is_err() {
            return;
        }
        let mut byte = [0];
        match read.try_read(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => return,
        }
    }
}
