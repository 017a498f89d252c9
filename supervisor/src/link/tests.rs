//! Sessions with workers that behave badly.

use super::*;
use protocol::frame::{self, FrameReader};
use protocol::from_worker::{Beat, Phase, Progress};
use protocol::hello::{Accord, Role};
use protocol::to_worker::Begin;
use protocol::{AgentName, AttemptId, FromWorker, Hello, Incarnation, Route, Runtime, Text, ToWorker, TurnId};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

fn name(name: &str) -> AgentName {
    AgentName::parse(name).unwrap()
}

/// A worker's socket and who dials it.
struct Place {
    _dir: tempfile::TempDir,
    listener: UnixListener,
    target: Target,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("a.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let uid = nix::unistd::getuid().as_raw();
    Place { _dir: dir, listener, target: Target { socket, agent: name("a"), incarnation: Incarnation(0), uid } }
}

fn hello() -> Hello {
    Hello::new(Role::Worker, name("a"), Incarnation(4))
}

fn bytes(said: &FromWorker) -> Vec<u8> {
    let frame = said.to_frame().unwrap();
    frame::encode(frame.kind, &frame.body).unwrap()
}

fn beat(children: u32) -> FromWorker {
    FromWorker::Beat(Beat { running: 1, children })
}

fn progress(detail: String) -> FromWorker {
    FromWorker::Progress(Progress { attempt: AttemptId(1), phase: Phase::Tool, detail, dropped: 0, for_ms: 0 })
}

fn begin(text: String) -> ToWorker {
    ToWorker::Begin(Box::new(Begin {
        attempt: AttemptId(1),
        turn: TurnId(1),
        thread: None,
        prompt: Text::Inline(text),
        route: Route { runtime: Runtime::Codex, provider: "p".into(), model: "m".into() },
        begun: false,
    }))
}

/// Dials a worker that greets with these bytes; its end of the stream comes back.
async fn dialled(target: &Target) -> Result<Dialled, DialError> {
    dial(target).await.map_err(|failed| failed.error)
}

async fn meet(place: &Place, greeting: Vec<u8>) -> (Result<Dialled, DialError>, UnixStream) {
    let worker = async {
        let (mut stream, _) = place.listener.accept().await.unwrap();
        stream.write_all(&greeting).await.unwrap();
        stream
    };
    tokio::join!(dialled(&place.target), worker)
}

async fn session(place: &Place, news: mpsc::Sender<News>) -> (Session, UnixStream) {
    let (dialled, worker) = meet(place, bytes(&FromWorker::Hello(hello()))).await;
    (dialled.unwrap().begin(news), worker)
}

async fn next(news: &mut mpsc::Receiver<News>) -> Happened {
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, news.recv()).await.expect("news came in time").expect("the session told").happened
}

async fn lost(news: &mut mpsc::Receiver<News>) -> String {
    loop {
        if let Happened::Lost(why) = next(news).await {
            return why;
        }
    }
}

#[tokio::test]
async fn hellos_and_messages_pass_both_ways() {
    let place = place();
    let mut greeting = bytes(&FromWorker::Hello(hello()));
    greeting.extend(bytes(&beat(1)));
    let (dialled, mut worker) = meet(&place, greeting).await;
    let dialled = dialled.unwrap();
    assert_eq!((dialled.hello.incarnation, dialled.accord), (Incarnation(4), Accord::Full));
    assert_eq!(dialled.pid, std::process::id());
    let (sender, mut news) = mpsc::channel(8);
    let session = dialled.begin(sender);
    assert_eq!(next(&mut news).await, Happened::Said(beat(1)));
    session.tell(&ToWorker::Drain).unwrap();
    let mut reader = FrameReader::new();
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let mut chunk = [0; 4096];
        let read = worker.read(&mut chunk).await.unwrap();
        reader.push(&chunk[..read]);
        while let Some(frame) = reader.next_frame().unwrap() {
            heard.push(ToWorker::from_frame(&frame).unwrap().unwrap());
        }
    }
    assert!(matches!(&heard[0], ToWorker::Hello(hello) if hello.role == Role::Supervisor));
    assert_eq!(heard[1], ToWorker::Drain);
}

#[tokio::test]
async fn nobody_is_known_at_once() {
    let place = place();
    drop(place.listener);
    assert!(dialled(&place.target).await.unwrap_err().is_nobody());
    let none = Target { socket: PathBuf::from("/nonexistent/a.sock"), ..place.target };
    assert!(dialled(&none).await.unwrap_err().is_nobody());
}

#[tokio::test]
async fn strangers_and_liars_are_refused_with_words() {
    let place = place();
    let stranger = Target { uid: place.target.uid + 1, ..place.target.clone() };
    assert!(matches!(dialled(&stranger).await, Err(DialError::Stranger { .. })));
    drop(place.listener.accept().await.unwrap());
    let other = Hello { agent: name("b"), ..hello() };
    let cases = [
        (bytes(&FromWorker::Hello(other)), "serves agent b"),
        (bytes(&beat(1)), "not a hello"),
        (vec![0xff; 64], "larger than the limit"),
        (frame::encode(1, b"nonsense").unwrap(), "cannot be understood"),
    ];
    for (greeting, words) in cases {
        let (dialled, _worker) = meet(&place, greeting).await;
        let told = dialled.unwrap_err().words();
        assert!(told.contains(words), "{told}");
    }
    let closing = async {
        drop(place.listener.accept().await.unwrap());
    };
    let (dialled, ()) = tokio::join!(dialled(&place.target), closing);
    let error = dialled.unwrap_err();
    // A close before our hello was written shows in the write.
    assert!(matches!(error, DialError::Closed | DialError::Socket(..)), "{error:?}");
}

#[tokio::test]
async fn a_worker_that_says_nothing_is_given_up() {
    let place = place();
    let failed = dial(&place.target).await.unwrap_err();
    assert!(matches!(failed.error, DialError::Silent));
    assert_eq!(failed.peer, Some(std::process::id()), "the kernel names the one that says nothing");
}

#[tokio::test]
async fn an_old_release_hears_the_stable_words_alone() {
    let place = place();
    let (dialled, mut worker) = meet(&place, bytes(&FromWorker::Hello(Hello { protocol: 99, ..hello() }))).await;
    let dialled = dialled.unwrap();
    assert_eq!(dialled.accord, Accord::DrainOnly);
    let (sender, mut news) = mpsc::channel(8);
    let session = dialled.begin(sender);
    assert_eq!(session.tell(&begin("x".into())), Err(TellError::NotStable));
    session.tell(&ToWorker::Drain).unwrap();
    // A body of another release, then a stable one.
    worker.write_all(&frame::encode(38, b"\xff\xff").unwrap()).await.unwrap();
    let end = protocol::Finished::new(AttemptId(1), TurnId(1), protocol::Outcome::Completed);
    worker.write_all(&bytes(&FromWorker::Finished(Box::new(end.clone())))).await.unwrap();
    assert_eq!(next(&mut news).await, Happened::Said(FromWorker::Finished(Box::new(end))));
    assert_eq!(session.unknown(), 1);
}

#[tokio::test]
async fn a_worker_that_never_reads_loses_its_session_and_nobody_waits() {
    let place = place();
    let (sender, mut news) = mpsc::channel(8);
    let (session, _worker) = session(&place, sender).await;
    let large = "x".repeat(200_000);
    let mut told = 0;
    let full = loop {
        match session.tell(&begin(large.clone())) {
            Ok(()) => told += 1,
            Err(error) => break error,
        }
        // Gives the writer every chance.
        tokio::task::yield_now().await;
        assert!(told < 1000, "the queue grows without end");
    };
    assert_eq!(full, TellError::Full);
    assert!(told <= OUT_BYTES_MAX / large.len() + 4, "{told} were taken");
    assert!(lost(&mut news).await.contains("does not read"));
    assert!(news.recv().await.is_none() || session.tell(&ToWorker::Drain).is_err());
}

#[tokio::test]
async fn bad_frames_end_the_session_with_words() {
    let cases: [(Vec<u8>, &str); 4] = [
        (vec![0xff; 64], "no frame"),
        (frame::encode(38, b"\xff").unwrap(), "kind 38"),
        (bytes(&FromWorker::Hello(hello())), "hello twice"),
        (vec![9, 0, 0, 0, 1], "closed in the middle"),
    ];
    for (garbage, words) in cases {
        let place = place();
        let (sender, mut news) = mpsc::channel(8);
        let (_session, mut worker) = session(&place, sender).await;
        worker.write_all(&garbage).await.unwrap();
        worker.shutdown().await.unwrap();
        let why = lost(&mut news).await;
        assert!(why.contains(words), "{why} for {words}");
    }
}

#[tokio::test]
async fn unknown_kinds_are_counted_and_skipped() {
    let place = place();
    let (sender, mut news) = mpsc::channel(8);
    let (session, mut worker) = session(&place, sender).await;
    worker.write_all(&frame::encode(4000, b"later").unwrap()).await.unwrap();
    worker.write_all(&bytes(&beat(3))).await.unwrap();
    assert_eq!(next(&mut news).await, Happened::Said(beat(3)));
    assert_eq!(session.unknown(), 1);
}

#[tokio::test]
async fn half_a_frame_and_then_nothing_ends_the_session() {
    let place = place();
    let (sender, mut news) = mpsc::channel(8);
    let (dialled, mut worker) = meet(&place, bytes(&FromWorker::Hello(hello()))).await;
    let _session = Session::begin(dialled.unwrap(), sender, Duration::from_millis(50));
    let whole = bytes(&progress("x".repeat(1000)));
    worker.write_all(&whole[..500]).await.unwrap();
    assert!(lost(&mut news).await.contains("stopped in the middle"));
}

#[tokio::test]
async fn a_flood_of_progress_is_thinned_and_the_end_arrives() {
    let place = place();
    let (sender, mut news) = mpsc::channel(64);
    let (_session, mut worker) = session(&place, sender).await;
    let flood = tokio::spawn(async move {
        for n in 0..600 {
            worker.write_all(&bytes(&progress(format!("{n}")))).await.unwrap();
        }
        worker.write_all(&bytes(&beat(9))).await.unwrap();
        worker
    });
    // Nobody listens: no more than the gate lets through may be on its way.
    let worker = tokio::time::timeout(Duration::from_secs(10), flood).await.expect("the reader goes on").unwrap();
    assert!(news.len() <= NEWS_AT_ONCE_MAX, "{} news wait", news.len());
    // Progress that is held while the gate is shut may come behind the beat, but every one is told or counted.
    let (mut came, mut dropped, mut beats) = (0, 0, 0);
    while came + dropped < 600 || beats == 0 {
        match next(&mut news).await {
            Happened::Said(FromWorker::Progress(progress)) => (came, dropped) = (came + 1, dropped + progress.dropped),
            Happened::Said(said) => {
                assert_eq!(said, beat(9));
                beats += 1;
            }
            Happened::ReadOut => panic!("nobody asked"),
            Happened::Lost(why) => panic!("{why}"),
        }
    }
    assert!(came + dropped == 600 && beats == 1 && came < 100, "{came} came, {dropped} were dropped");
    drop(worker);
}

#[tokio::test]
async fn a_flood_that_must_arrive_is_pushed_back_and_starves_nobody() {
    let (loud, quiet) = (place(), place());
    let (sender, mut news) = mpsc::channel(16);
    let (_loud_session, mut shouting) = session(&loud, sender.clone()).await;
    let (_quiet_session, mut whispering) = session(&quiet, sender).await;
    let flood = tokio::spawn(async move {
        let note = bytes(&FromWorker::Note("x".repeat(10_000)));
        while shouting.write_all(&note).await.is_ok() {}
    });
    // The flood stands at the gate before the other worker speaks.
    while news.len() < NEWS_AT_ONCE_MAX {
        tokio::task::yield_now().await;
    }
    whispering.write_all(&bytes(&beat(5))).await.unwrap();
    let mut before = 0;
    while next(&mut news).await != Happened::Said(beat(5)) {
        before += 1;
        assert!(before <= 2 * NEWS_AT_ONCE_MAX + 16, "one worker starves the other");
    }
    flood.abort();
}

#[tokio::test]
async fn reading_out_is_answered_behind_all_that_had_arrived() {
    let place = place();
    let (sender, mut news) = mpsc::channel(64);
    let (session, mut worker) = session(&place, sender).await;
    assert!(session.read_out());
    assert_eq!(next(&mut news).await, Happened::ReadOut, "nothing had arrived");
    for n in 0..20 {
        worker.write_all(&bytes(&beat(n))).await.unwrap();
    }
    assert!(session.read_out());
    for n in 0..20 {
        assert_eq!(next(&mut news).await, Happened::Said(beat(n)));
    }
    assert_eq!(next(&mut news).await, Happened::ReadOut);
    // A frame that is cut off in the middle is no word.
    let whole = bytes(&beat(1));
    worker.write_all(&whole[..whole.len() - 1]).await.unwrap();
    assert!(session.read_out());
    assert_eq!(next(&mut news).await, Happened::ReadOut);
}

#[tokio::test]
async fn last_words_are_written_and_a_dropped_session_is_not_news() {
    let place = place();
    let (sender, mut news) = mpsc::channel(8);
    let (session, mut worker) = session(&place, sender).await;
    session.tell(&ToWorker::Kill).unwrap();
    drop(session);
    let mut heard = Vec::new();
    worker.read_to_end(&mut heard).await.unwrap();
    let kill = ToWorker::Kill.to_frame().unwrap();
    assert!(heard.ends_with(&frame::encode(kill.kind, &kill.body).unwrap()));
    drop(worker);
    assert!(news.recv().await.is_none());
}
