//! Callers that behave badly, and two supervisors.

use super::*;
use crate::machine::nouns::CallerId;
use protocol::control::{Refused, RefusedKind, Reply, Request};
use protocol::frame::{self, FrameReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

struct Daemon {
    dir: tempfile::TempDir,
    events: mpsc::Receiver<Event>,
    callers: Callers,
    task: tokio::task::JoinHandle<()>,
}

fn uid() -> u32 {
    nix::unistd::getuid().as_raw()
}

fn daemon_of(uid: u32) -> Daemon {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::bind(&dir.path().join("run"), self::uid()).unwrap();
    server.pretend_uid(uid);
    let (sender, events) = mpsc::channel(8);
    let callers = Callers::new();
    let task = tokio::spawn(server.run(sender, callers.clone()));
    Daemon { dir, events, callers, task }
}

impl Daemon {
    fn socket(&self) -> PathBuf {
        self.dir.path().join("run/control.sock")
    }

    async fn dial(&self) -> UnixStream {
        UnixStream::connect(self.socket()).await.unwrap()
    }

    async fn event(&mut self) -> Event {
        tokio::time::timeout(Duration::from_secs(20), self.events.recv()).await.unwrap().unwrap()
    }

    async fn asked(&mut self) -> (CallerId, Request) {
        match self.event().await {
            Event::Asked(caller, request) => (caller, request),
            Event::Gone(caller) => panic!("{caller} is gone"),
        }
    }
}

fn bytes(request: &Request) -> Vec<u8> {
    let frame = request.to_frame().unwrap();
    frame::encode(frame.kind, &frame.body).unwrap()
}

/// Everything that is answered until the connection closes.
async fn answers(stream: &mut UnixStream) -> Vec<Reply> {
    let mut all = Vec::new();
    // A reset follows answers to a caller that said too much.
    drop(stream.read_to_end(&mut all).await);
    let mut reader = FrameReader::new();
    reader.push(&all);
    std::iter::from_fn(|| Some(Reply::from_frame(&reader.next_frame().ok()??).unwrap().unwrap())).collect()
}

fn refusal(replies: &[Reply]) -> &str {
    match replies {
        [Reply::Refused(refused)] => &refused.why,
        other => panic!("{other:?} is no refusal"),
    }
}

#[tokio::test]
async fn a_command_gets_all_its_answers() {
    let mut daemon = daemon_of(uid());
    let socket = daemon.socket();
    let command = std::thread::spawn(move || {
        let mut client = Client::ask(&socket, &Request::Health, Some(Duration::from_secs(20)))?;
        std::iter::from_fn(|| match client.next_reply() {
            Ok(Reply::Done) => None,
            other => Some(other),
        })
        .collect::<Result<Vec<_>, _>>()
    });
    let (caller, request) = daemon.asked().await;
    assert_eq!(request, Request::Health);
    assert!(daemon.callers.reply(caller, &Reply::Note("one".into())));
    assert!(daemon.callers.reply(caller, &Reply::Note("two".into())));
    assert!(daemon.callers.reply(caller, &Reply::Done));
    let heard = tokio::task::spawn_blocking(|| command.join().unwrap()).await.unwrap().unwrap();
    assert_eq!(heard, [Reply::Note("one".into()), Reply::Note("two".into())]);
    assert_eq!(daemon.callers.count(), 0);
}

#[tokio::test]
async fn the_socket_is_private_and_leaves_with_the_server() {
    let daemon = daemon_of(uid());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&daemon.socket()), mode(daemon.socket().parent().unwrap())), (0o600, 0o700));
    daemon.task.abort();
    assert!(daemon.task.await.unwrap_err().is_cancelled());
    assert!(!daemon.dir.path().join("run/control.sock").exists());
}

#[tokio::test]
async fn a_second_supervisor_is_refused_and_a_stale_socket_is_not() {
    let daemon = daemon_of(uid());
    let run = daemon.dir.path().join("run");
    let inode = std::fs::metadata(daemon.socket()).unwrap().ino();
    let again = {
        let run = run.clone();
        tokio::task::spawn_blocking(move || Server::bind(&run, self::uid()).map(drop)).await.unwrap()
    };
    let Err(BindError::Running { pid, socket }) = again else { panic!("{again:?}") };
    assert_eq!((pid, &socket), (Some(std::process::id()), &daemon.socket()));
    assert_eq!(std::fs::metadata(&socket).unwrap().ino(), inode);
    daemon.task.abort();
    assert!(daemon.task.await.is_err());
    // Left over by one that was killed.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    drop(Server::bind(&run, self::uid()).unwrap());
    assert!(matches!(Server::bind(&run, self::uid() + 1), Err(BindError::Stranger { .. })));
}

#[tokio::test]
async fn a_stranger_is_refused_unless_it_is_root() {
    let mut daemon = daemon_of(uid() + 1);
    let mut stream = daemon.dial().await;
    if uid() == 0 {
        stream.write_all(&bytes(&Request::Ps)).await.unwrap();
        assert_eq!(daemon.asked().await.1, Request::Ps);
    } else {
        assert!(refusal(&answers(&mut stream).await).contains("only the user"));
    }
}

#[tokio::test]
async fn hostile_requests_are_refused_with_words() {
    let daemon = daemon_of(uid());
    let mut two = bytes(&Request::Ps);
    two.extend(bytes(&Request::Ps));
    let cases: [(Vec<u8>, &str); 5] = [
        (vec![0xff; 64], "larger than the limit"),
        (vec![1, 0, 0, 0, 0], "no room"),
        (frame::encode(7, b"x").unwrap(), "kind 7"),
        (frame::encode(protocol::control::REQUEST_KIND, &[0xff; 40]).unwrap(), "different releases"),
        (two, "more than one request"),
    ];
    for (garbage, words) in cases {
        let mut stream = daemon.dial().await;
        stream.write_all(&garbage).await.unwrap();
        let replies = answers(&mut stream).await;
        assert!(refusal(&replies).contains(words), "{replies:?}");
    }
    assert_eq!(daemon.callers.count(), 0);
}

#[tokio::test]
async fn a_request_that_never_comes_is_given_up() {
    let daemon = daemon_of(uid());
    let mut stream = daemon.dial().await;
    stream.write_all(&bytes(&Request::Ps)[..3]).await.unwrap();
    assert!(refusal(&answers(&mut stream).await).contains("in time"));
}

#[tokio::test]
async fn a_caller_that_leaves_is_reported_once() {
    let mut daemon = daemon_of(uid());
    let mut stream = daemon.dial().await;
    stream.write_all(&bytes(&Request::Ps)).await.unwrap();
    let (caller, _) = daemon.asked().await;
    drop(stream);
    assert_eq!(daemon.event().await, Event::Gone(caller));
    assert!(!daemon.callers.reply(caller, &Reply::Done));
    // One that is done is not reported.
    let mut stream = daemon.dial().await;
    stream.write_all(&bytes(&Request::Ps)).await.unwrap();
    let (caller, _) = daemon.asked().await;
    daemon.callers.reply(caller, &Reply::Done);
    assert_eq!(answers(&mut stream).await, [Reply::Done]);
    assert!(daemon.events.try_recv().is_err());
}

#[tokio::test]
async fn a_caller_that_does_not_read_is_cut() {
    let mut daemon = daemon_of(uid());
    let mut stream = daemon.dial().await;
    stream.write_all(&bytes(&Request::Ps)).await.unwrap();
    let (caller, _) = daemon.asked().await;
    let large = Reply::Note("x".repeat(500_000));
    let mut taken = 0;
    while daemon.callers.reply(caller, &large) {
        taken += 1;
        tokio::task::yield_now().await;
        assert!(taken < 1000, "the queue grows without end");
    }
    assert!(taken <= 2 + OUT_BYTES_MAX / 500_000, "{taken} were taken");
    assert_eq!(daemon.event().await, Event::Gone(caller));
}

#[tokio::test]
async fn too_many_callers_are_told_to_come_again() {
    let mut daemon = daemon_of(uid());
    let mut waiting = Vec::new();
    for _ in 0..CALLERS_MAX {
        let mut stream = daemon.dial().await;
        stream.write_all(&bytes(&Request::Ps)).await.unwrap();
        daemon.asked().await;
        waiting.push(stream);
    }
    let mut late = daemon.dial().await;
    let replies = answers(&mut late).await;
    assert!(matches!(replies[..], [Reply::Refused(Refused { kind: RefusedKind::Later, .. })]), "{replies:?}");
    drop(waiting);
    for _ in 0..CALLERS_MAX {
        assert!(matches!(daemon.event().await, Event::Gone(_)));
    }
}

#[test]
fn a_command_without_a_supervisor_knows_it_at_once() {
    let socket = Path::new("/nonexistent/control.sock");
    assert!(matches!(Client::ask(socket, &Request::Ps, None), Err(ClientError::NoSupervisor(path)) if path == socket));
}

#[test]
fn a_command_survives_a_supervisor_that_is_wedged_or_mad() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let mut wedged = Client::ask(&socket, &Request::Ps, Some(Duration::from_millis(10))).unwrap();
    assert!(matches!(wedged.next_reply(), Err(ClientError::Silent(_))));
    let mut mad = Client::ask(&socket, &Request::Ps, None).unwrap();
    let accepted = [listener.accept().unwrap().0, listener.accept().unwrap().0];
    std::io::Write::write_all(&mut &accepted[1], &[0xff; 64]).unwrap();
    assert!(matches!(mad.next_reply(), Err(ClientError::Frame(_))));
    let mut left = Client::ask(&socket, &Request::Ps, None).unwrap();
    drop(listener);
    assert!(matches!(left.next_reply(), Err(ClientError::Left)));
}
