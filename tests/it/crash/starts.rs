//! Workers that end while idle, again and again, or that do not even begin well: every state is defined, and the other agent
//! does not notice.

use crate::scenes::{ended, on, world};
use crate::{binaries, scenes};
use cofferdam_tests::processes::kill9;
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::World;
use protocol::frame;
use protocol::hello::{Hello, Role};
use protocol::{AgentName, FromWorker, Incarnation};
use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Ends within a minute that an agent bears, see `supervisor/src/machine/restart.rs`.
const ENDS_BORNE: u64 = 5;

#[test]
fn an_idle_worker_is_replaced_and_counted() {
    let world = world().agent("a", &on("codex")).agent("b", &on("codex")).start();
    let (a, b) = (world.worker("a"), world.worker("b"));
    kill9(a);
    let row = world.wait_ps("a", "a replacement", |row| row["state"] == "ready" && row["pid"] != a);
    assert_eq!(row["restarts"], 1);
    assert!(row["last_error"]["text"].as_str().unwrap().contains("SIGKILL"), "{row}");
    assert_eq!((world.worker("b"), &world.ps("b")["restarts"]), (b, &0.into()), "the other one is untouched");
    assert_eq!(world.send("a", "c", "well?")["text"], "echo: well?");
    world.shut_down();
}

#[test]
fn too_many_ends_are_given_up_with_words_and_start_heals() {
    let world = world().agent("a", &on("codex")).agent("b", &on("codex")).start();
    let b = world.worker("b");
    let mut killed = 0;
    for end in 1..=ENDS_BORNE + 1 {
        let fresh = |row: &Value| row["state"] == "ready" && row["pid"] != killed;
        let row = world.wait_ps("a", &format!("worker {end}"), fresh);
        killed = u32::try_from(row["pid"].as_u64().unwrap()).unwrap();
        kill9(killed);
    }
    let row = world.wait_ps("a", "the agent to be given up", |row| row["state"] == "failed");
    assert_eq!((&row["wanted"], &row["pid"]), (&"up".into(), &Value::Null), "{row}");
    assert!(row["last_error"]["text"].as_str().unwrap().contains("SIGKILL"), "{row}");
    let refused = world.cli(&["send", "a", "hello"]);
    assert_eq!(refused.code, 75, "{refused:?}");
    assert!(refused.stderr.contains("SIGKILL") && refused.stderr.contains("cofferdam start a"), "{refused:?}");
    assert_eq!(world.cli(&["health", "--json"]).json()["status"], "degraded");
    assert_eq!(world.send("b", "c", "you?")["text"], "echo: you?");
    assert_eq!(world.worker("b"), b);
    let started = world.cli(&["start", "a"]);
    assert_eq!(started.code, 0, "{started:?}");
    assert_eq!(world.send("a", "c", "well?")["text"], "echo: well?");
    world.shut_down();
}

/// A world whose agent `bad` is served by `script` and whose agent `good` by the worker under test. The script finds the words
/// that a worker is started with in `$@`; `$8` is the socket.
fn with_bad_worker(script: &str, before: impl FnOnce(&World)) -> World {
    let real = binaries().worker;
    let mut world = World::builder(binaries()).agent("bad", &on("codex")).agent("good", &on("codex")).build();
    let program = world.root().join("worker");
    let text = format!("#!/bin/sh\nif [ \"$2\" = bad ]; then\n{script}\nfi\nexec {} \"$@\"\n", real.display());
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let text = fs::read_to_string(world.config()).unwrap();
    world.write_config(&text.replace(&real.display().to_string(), &program.display().to_string()));
    before(&world);
    world.run();
    world.wait_ps("good", "the good agent", |row| row["state"] == "ready");
    world
}

/// The bad agent was tried again, says why, and holds up nobody.
fn ails_alone(world: &World, why: &str) {
    let tried = |row: &Value| row["restarts"].as_u64() >= Some(2);
    let row = world.wait_ps("bad", "the bad agent to be tried again", tried);
    let state = row["state"].as_str().unwrap();
    assert!(["starting", "backoff", "stopping", "failed"].contains(&state), "{row}");
    let told = row["last_error"]["text"].as_str().unwrap_or_default();
    assert!(told.contains(why), "the operator must read {why:?}: {row}\n{}", world.story());
    let good = world.ps("good");
    assert_eq!((&good["state"], &good["restarts"]), (&"ready".into(), &0.into()));
    assert_eq!(world.send("good", "c", "you?")["text"], "echo: you?");
    let killed = world.cli(&["kill", "bad"]);
    assert_eq!((killed.code, &world.ps("bad")["state"]), (0, &"down".into()), "{killed:?}");
}

#[test]
fn a_worker_that_exits_at_once_is_given_up() {
    let world = with_bad_worker("echo broken >&2; exec >&-; exit 3", |_| ());
    ails_alone(&world, "log/worker.stderr");
    let started = world.cli(&["start", "bad"]);
    assert_eq!(started.code, 1, "{started:?}");
    assert!(started.stderr.contains("cofferdam logs bad"), "{started:?}");
    let row = world.ps("bad");
    assert_eq!(row["state"], "failed", "{row}");
    // Each start begins a history of its own.
    assert!(row["restarts"].as_u64() > Some(ENDS_BORNE), "{row}");
    world.shut_down();
}

#[test]
fn a_worker_that_closes_its_stdout_is_tried_with_pauses() {
    let world = with_bad_worker("exec >&-; exec sleep 600", |_| ());
    ails_alone(&world, "before it listened");
    world.shut_down();
}

#[test]
fn a_worker_that_babbles_is_tried_with_pauses() {
    let world = with_bad_worker("echo hello, I am a worker; exec sleep 600", |_| ());
    ails_alone(&world, "where it should say that it listens");
    world.shut_down();
}

#[test]
fn a_worker_that_never_listens_is_ended() {
    let world = with_bad_worker("exec sleep 600", |_| ());
    let row = world.ps("bad");
    assert_eq!((&row["state"], row["pid"].is_number()), (&"starting".into(), true), "{row}");
    // Its messages wait, and stop cancels nothing but the start.
    let waiting = world.sending("bad", "c", "hello");
    world.wait_ps("bad", "a message to wait", |row| row["queued"] == 1);
    let row = world.wait_ps("bad", "the first try to be over", |row| row["restarts"].as_u64() >= Some(1));
    assert!(row["last_error"]["text"].as_str().unwrap_or_default().contains("did not listen"), "{row}");
    let stopped = world.cli(&["stop", "bad"]);
    assert_eq!((stopped.code, &world.ps("bad")["state"]), (0, &"down".into()), "{stopped:?}");
    assert_eq!(world.cli(&["queue", "bad", "--json"]).json().as_array().map(Vec::len), Some(1), "it still waits");
    world.shut_down();
    drop(waiting.wait_with_output());
}

/// How a false worker meets the supervisor.
type Manners = fn(&mut UnixStream, Incarnation);

/// A world whose bad worker says that it listens, and whose socket is served by this test. Counts the calls.
fn with_false_worker(manners: Manners) -> (World, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let script = "echo $4 > \"$6/run\"; echo listening; exec sleep 600";
    let world = with_bad_worker(script, |world| {
        let folder = world.state().join("run/agents");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).unwrap();
        let listener = UnixListener::bind(folder.join("bad.sock")).unwrap();
        let run = world.state().join("agents/bad/run");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
                let run = fs::read_to_string(&run).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
                let mut stream = stream.unwrap();
                std::thread::spawn(move || manners(&mut stream, Incarnation(run)));
            }
        });
    });
    (world, calls)
}

fn say(stream: &mut UnixStream, message: &FromWorker) {
    let frame = message.to_frame().unwrap();
    // The supervisor may have left already.
    drop(stream.write_all(&frame::encode(frame.kind, &frame.body).unwrap()));
}

fn hello(agent: &str, run: Incarnation) -> Hello {
    Hello::new(Role::Worker, AgentName::parse(agent).unwrap(), run)
}

/// Reads until the other end leaves.
fn listen(stream: &mut UnixStream) {
    drop(stream.read_to_end(&mut Vec::new()));
}

#[test]
fn a_worker_that_says_garbage_is_tried_with_pauses() {
    let (world, _) = with_false_worker(|stream, _| {
        drop(stream.write_all(&[0xff; 64]));
        listen(stream);
    });
    ails_alone(&world, "hello cannot be read");
    world.shut_down();
}

#[test]
fn a_worker_that_says_nothing_is_tried_with_pauses() {
    let (world, _) = with_false_worker(|stream, _| listen(stream));
    ails_alone(&world, "did not say hello");
    world.shut_down();
}

#[test]
fn a_worker_that_hangs_up_is_tried_with_pauses() {
    let (world, _) = with_false_worker(|_, _| ());
    ails_alone(&world, "closed the connection before its hello");
    world.shut_down();
}

#[test]
fn a_worker_of_another_agent_is_not_talked_to() {
    let (world, _) = with_false_worker(|stream, run| {
        say(stream, &FromWorker::Hello(hello("good", run)));
        listen(stream);
    });
    ails_alone(&world, "serves agent good, not bad");
    world.shut_down();
}

#[test]
fn a_worker_of_another_protocol_is_told_apart() {
    let (world, _) = with_false_worker(|stream, run| {
        say(stream, &FromWorker::Hello(Hello { protocol: 9999, ..hello("bad", run) }));
        listen(stream);
    });
    ails_alone(&world, "(protocol 9999)");
    world.shut_down();
}

#[test]
fn a_worker_that_turns_to_garbage_after_its_hello_ends_its_session_alone() {
    let (world, calls) = with_false_worker(|stream, run| {
        say(stream, &FromWorker::Hello(hello("bad", run)));
        drop(stream.write_all(&[0xff; 64]));
        listen(stream);
    });
    until("calls", LIMIT, || world.story(), || (calls.load(Ordering::SeqCst) > 1).then_some(()));
    ails_alone(&world, "");
    world.shut_down();
}

#[test]
fn a_worker_that_dies_while_codex_starts_has_asked_nobody() {
    for runtime in ["codex-cli", "codex"] {
        let dir = tempfile::Builder::new().prefix("cfd-slow-").tempdir_in("/var/tmp").unwrap();
        let codex = slow_codex(dir.path());
        let world = world().codex(&codex).agent("a", &on(runtime)).start();
        let sending = world.sending("a", "c", "hello");
        scenes::appears(&world, &dir.path().join("came"));
        kill9(world.worker("a"));
        fs::write(dir.path().join("go"), "go").unwrap();
        let said = ended(&world, sending);
        let finished = said.event("finished");
        // `codex exec` takes the prompt with its start: nobody can tell that it never read it.
        if finished["outcome"] == "completed" {
            assert_eq!((&finished["text"], &finished["attempts"]), (&"echo: hello".into(), &2.into()));
            assert_eq!(world.model.count_prompt("hello"), 1, "{}", world.model.story());
        } else {
            assert_eq!((runtime, &finished["class"]), ("codex-cli", &"worker_lost".into()), "{finished}");
            assert_eq!(world.model.count_prompt("hello"), 0, "{}", world.model.story());
        }
        world.shut_down();
    }
}

/// A Codex that says that it came, and begins once it is allowed to.
fn slow_codex(dir: &std::path::Path) -> PathBuf {
    let real = cofferdam_tests::codex::codex_binary();
    let codex = dir.join("bin/codex");
    fs::create_dir_all(codex.parent().unwrap()).unwrap();
    fs::create_dir_all(dir.join("codex-resources")).unwrap();
    let bwrap = real.canonicalize().unwrap().parent().unwrap().join("../codex-resources/bwrap");
    if bwrap.exists() {
        std::os::unix::fs::symlink(bwrap, dir.join("codex-resources/bwrap")).unwrap();
    }
    let (came, go) = (dir.join("came"), dir.join("go"));
    let text = format!(
        "#!/bin/sh\necho came > {}\nuntil [ -e {} ]; do sleep 0.02; done\nexec {} \"$@\"\n",
        came.display(),
        go.display(),
        real.display()
    );
    fs::write(&codex, text).unwrap();
    fs::set_permissions(&codex, fs::Permissions::from_mode(0o755)).unwrap();
    codex
}
