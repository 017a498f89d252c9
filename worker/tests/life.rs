//! The real worker, driven over its socket, with a shell script in the place of Codex. What is proven here needs real
//! processes: the lock, the environment, the masks, and that no tree outlives its turn or its worker.
//!
//! Namespaces need a bwrap: the one beside `$COFFERDAM_TEST_CODEX`, or one on PATH.

use protocol::frame::{self, FrameReader};
use protocol::from_worker::Isolation;
use protocol::hello::{Hello, Role};
use protocol::to_worker::{
    Approval, Auth, Begin, Clocks, Configure, Home, Interrupt, InterruptReason, Limits, Reviewer, Sandbox,
};
use protocol::{
    AgentName, AttemptId, FailureClass, Finished, FromWorker, Incarnation, Outcome, Route, Runtime, Text, ToWorker,
    TurnId,
};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Every wait of these tests ends here.
const PATIENCE: Duration = Duration::from_secs(20);

/// What stands in for Codex: it does what the prompt says, and answers.
const CODEX: &str = r#"#!/bin/sh
prompt=$(cat)
lab=$(dirname "$TMPDIR")
echo '{"type":"thread.started","thread_id":"01a1fbc7-8572-7912-8443-0902aca60801"}'
echo '{"type":"turn.started"}'
case "$prompt" in
*env*) env > "$lab/env" ;;
*look*) { ls "$MASKED"; cat "$TOKEN"; ls -A "$lab/.."; } > "$lab/seen" 2>&1 ;;
*flood*)
    head -c 70000000 /dev/zero | tr '\0' x; echo
    printf '{"type":"item.completed","item":{"id":"i","type":"agent_message","text":"a\377b"}}\n' ;;
esac
case "$prompt" in
*daemon*)
    setsid sh -c 'while :; do sleep 1; done' "$lab-1" >/dev/null 2>&1 &
    (env -i setsid sh -c 'while :; do sleep 1; done' "$lab-2" >/dev/null 2>&1 &)
    (setsid sh -c '(setsid sh -c "while :; do sleep 1; done" "$0" &)' "$lab-3" &) ;;
esac
case "$prompt" in
*polite*) trap 'echo yes > "$lab/interrupted"; exit 1' INT; echo up > "$lab/up"; while :; do sleep 0.1; done ;;
*stubborn*) trap '' INT TERM; echo up > "$lab/up"; while :; do sleep 0.1; done ;;
*hang*) sleep 1; echo up > "$lab/up"; while :; do sleep 1; done ;;
esac
echo '{"type":"item.completed","item":{"id":"item_1","type":"agent_message","text":"done"}}'
echo '{"type":"turn.completed","usage":{"input_tokens":1,"cached_input_tokens":0,"output_tokens":1}}'
"#;

struct Lab {
    root: tempfile::TempDir,
}

impl Lab {
    /// A folder with a Codex package whose bwrap is the real one, or one that fails.
    fn new(contained: bool) -> Self {
        let root = tempfile::tempdir().unwrap();
        let lab = Self { root };
        let codex = lab.path("codex/bin/codex");
        fs::create_dir_all(codex.parent().unwrap()).unwrap();
        fs::write(&codex, CODEX).unwrap();
        let bwrap = lab.path("codex/codex-resources/bwrap");
        fs::create_dir_all(bwrap.parent().unwrap()).unwrap();
        if contained {
            symlink(real_bwrap(), &bwrap).unwrap();
        } else {
            fs::write(&bwrap, "#!/bin/sh\necho no namespaces here >&2\nexit 1\n").unwrap();
            fs::set_permissions(&bwrap, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::set_permissions(&codex, fs::Permissions::from_mode(0o755)).unwrap();
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().canonicalize().unwrap().join(name)
    }

    fn agent(&self, name: &str) -> PathBuf {
        self.path("state/agents/a").join(name)
    }

    fn configure(&self) -> Configure {
        // A bwrap of the host must not be found where a test wants none.
        let path = format!("{}:/usr/bin:/bin", self.path("codex/codex-resources").display());
        Configure {
            ledger: 7,
            workspace: self.agent("workspace").display().to_string(),
            codex_command: self.path("codex/bin/codex").display().to_string(),
            default_route: route(),
            providers: vec![],
            auth: Auth::None,
            sandbox: Sandbox::DangerFullAccess,
            network: true,
            writable: vec![],
            approval: Approval::Never,
            reviewer: Reviewer::User,
            home: Home::Private,
            real_home: "/nonexistent".into(),
            home_share: vec![],
            env: vec![("PATH".into(), path)],
            env_secret: vec![],
            codex_extra: String::new(),
            masked: vec![],
            limits: Limits::default(),
            max_turns: 3,
            clocks: Clocks {
                first_event_ms: 60_000,
                silence_ms: 600_000,
                turn_ms: 3_600_000,
                compaction_ms: 600_000,
                idle_after_ms: 600_000,
                orphan_after_ms: 600_000,
                stop_grace_ms: 500,
            },
        }
    }

    fn start(&self, incarnation: u64) -> Worker<'_> {
        let mut child = self.command(incarnation).spawn().unwrap();
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "listening\n");
        let mut worker = Worker { lab: self, child, stream: None, reader: FrameReader::new(), incarnation };
        worker.dial();
        worker
    }

    #[expect(clippy::disallowed_methods, reason = "a test starts the program that it tests")]
    fn command(&self, incarnation: u64) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam-worker"));
        let uid = rustix::process::geteuid().as_raw().to_string();
        command.args(["--agent", "a", "--incarnation", &incarnation.to_string(), "--supervisor-uid", &uid]);
        command.arg("--agent-dir").arg(self.agent("")).arg("--socket").arg(self.path("run/a.sock"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("LEAK", "this must not reach a child");
        command
    }

    /// Processes that the script left and that still run: they carry the lab's folder in their arguments.
    fn survivors(&self) -> Vec<String> {
        let mark = format!("{}-", self.agent("home").display());
        let processes = fs::read_dir("/proc").unwrap().flatten().map(|e| e.path().join("cmdline"));
        processes.filter_map(|p| fs::read_to_string(p).ok()).filter(|line| line.contains(&mark)).collect()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.agent("home").join(name)).unwrap_or_default()
    }
}

struct Worker<'lab> {
    lab: &'lab Lab,
    child: Child,
    stream: Option<UnixStream>,
    reader: FrameReader,
    incarnation: u64,
}

impl Worker<'_> {
    fn dial(&mut self) {
        let stream = UnixStream::connect(self.lab.path("run/a.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        self.stream = Some(stream);
        self.reader = FrameReader::new();
        self.say(&ToWorker::Hello(Hello::new(Role::Supervisor, name("a"), Incarnation(0))));
        let FromWorker::Hello(hello) = self.next() else { panic!("a hello comes first") };
        assert_eq!((hello.role, hello.incarnation.0), (Role::Worker, self.incarnation));
    }

    fn say(&mut self, message: &ToWorker) {
        let frame = message.to_frame().unwrap();
        let bytes = frame::encode(frame.kind, &frame.body).unwrap();
        self.stream.as_ref().unwrap().write_all(&bytes).unwrap();
    }

    fn next(&mut self) -> FromWorker {
        let mut buffer = [0; 4096];
        loop {
            if let Some(frame) = self.reader.next_frame().unwrap() {
                return FromWorker::from_frame(&frame).unwrap().unwrap();
            }
            let count = self.stream.as_ref().unwrap().read(&mut buffer).unwrap();
            assert!(count > 0, "the worker closed the connection");
            self.reader.push(&buffer[..count]);
        }
    }

    fn ready(&mut self, configure: Configure) -> Vec<FromWorker> {
        self.say(&ToWorker::Configure(Box::new(configure)));
        let mut before = Vec::new();
        loop {
            match self.next() {
                FromWorker::Ready(_) => return before,
                other => before.push(other),
            }
        }
    }

    fn begin(&mut self, attempt: u64, prompt: &str) {
        let prompt = Text::Inline(prompt.to_owned());
        let (attempt, turn) = (AttemptId(attempt), TurnId(attempt));
        self.say(&ToWorker::Begin(Box::new(Begin { attempt, turn, thread: None, prompt, route: route() })));
    }

    fn finished(&mut self) -> Box<Finished> {
        loop {
            if let FromWorker::Finished(end) = self.next() {
                return end;
            }
        }
    }

    fn turn(&mut self, attempt: u64, prompt: &str) -> Box<Finished> {
        self.begin(attempt, prompt);
        let end = self.finished();
        self.say(&ToWorker::Ack(AttemptId(attempt)));
        end
    }

    fn started(&mut self) -> Isolation {
        loop {
            match self.next() {
                FromWorker::Started(started) => return started.isolation,
                FromWorker::Finished(end) => panic!("it ended: {end:?}"),
                FromWorker::Note(note) => assert!(note.contains("namespace"), "{note}"),
                _ => {}
            }
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_for("the worker leaves", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn name(text: &str) -> AgentName {
    AgentName::parse(text).unwrap()
}

fn route() -> Route {
    Route { runtime: Runtime::CodexCli, provider: "mock".into(), model: "m".into() }
}

fn real_bwrap() -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    let codex = std::env::var("COFFERDAM_TEST_CODEX").unwrap_or_else(|_| "codex".into());
    let beside = worker::codex::locate::locate(&codex, &path).and_then(|located| located.bwraps.into_iter().next());
    let on_path = || path.split(':').map(|dir| Path::new(dir).join("bwrap")).find(|p| p.exists());
    beside.or_else(on_path).expect("a bwrap is needed: set COFFERDAM_TEST_CODEX to a Codex, or install bubblewrap")
}

#[expect(clippy::disallowed_methods, reason = "a test waits for a condition with a limit")]
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_turn_runs_in_a_namespace_with_an_environment_by_allow_list() {
    let lab = Lab::new(true);
    let mut worker = lab.start(1);
    let mut configure = lab.configure();
    configure.env.push(("GIVEN".into(), "x y".into()));
    worker.ready(configure);
    let end = worker.turn(1, "env");
    assert_eq!((end.outcome, end.text.head()), (Outcome::Completed, "done"), "{end:?}");
    let text = lab.read("env");
    let mut names: Vec<_> = text.lines().filter_map(|l| l.split_once('=')).map(|(name, _)| name).collect();
    // What the wrapper and the shell add by themselves.
    names.retain(|name| !["PWD", "_", "SHLVL", "OLDPWD"].contains(name));
    names.sort_unstable();
    assert_eq!(names, ["CODEX_HOME", "COFFERDAM_CHILD", "GIVEN", "HOME", "PATH", "REAL_HOME", "TMPDIR"]);
    wait_for("an acknowledged journal is empty", || fs::metadata(lab.agent("journal")).unwrap().len() == 0);
}

#[test]
fn masked_paths_and_the_agents_own_records_cannot_be_seen() {
    let lab = Lab::new(true);
    fs::create_dir_all(lab.path("state/agents/b")).unwrap();
    fs::write(lab.path("state/ledger.db"), "l").unwrap();
    fs::write(lab.path("token"), "SECRET").unwrap();
    let mut worker = lab.start(1);
    let mut configure = lab.configure();
    let text = |name: &str| lab.path(name).display().to_string();
    configure.masked = vec![text("state"), text("token"), text("absent")];
    configure.env.extend([("MASKED".into(), text("state/agents")), ("TOKEN".into(), text("token"))]);
    worker.ready(configure);
    assert_eq!(worker.turn(1, "look").outcome, Outcome::Completed);
    let seen = lab.read("seen");
    assert!(!seen.contains("SECRET"), "{seen}");
    let names: Vec<_> = seen.lines().filter(|l| !l.contains(' ')).collect();
    assert_eq!(names, ["a", "codex-home", "home", "workspace"], "{seen}");
    assert!(!lab.path("absent").exists());
    assert_eq!(fs::read_to_string(lab.path("token")).unwrap(), "SECRET");
}

#[test]
fn nothing_outlives_its_turn_its_kill_or_its_worker() {
    for contained in [true, false] {
        let lab = Lab::new(contained);
        let mut worker = lab.start(1);
        worker.ready(lab.configure());
        assert_eq!(worker.turn(1, "daemon").outcome, Outcome::Completed);
        wait_for("nothing is left of the turn", || lab.survivors().is_empty());

        worker.begin(2, "daemon hang");
        let isolation = worker.started();
        assert_eq!(isolation, if contained { Isolation::Namespace } else { Isolation::BestEffort });
        wait_for("the tools run", || lab.survivors().len() >= 3);
        worker.say(&ToWorker::Kill);
        assert_eq!(worker.finished().outcome, Outcome::Failed(FailureClass::Shutdown));
        worker.say(&ToWorker::Ack(AttemptId(2)));
        assert_eq!(worker.wait().code(), Some(0));
        assert_eq!(lab.survivors(), [""; 0], "contained: {contained}");
    }
}

#[test]
fn a_killed_worker_takes_its_namespaces_along_and_its_successor_tells_the_end() {
    let lab = Lab::new(true);
    let mut worker = lab.start(1);
    worker.ready(lab.configure());
    worker.begin(1, "daemon hang");
    worker.started();
    wait_for("the tools run", || lab.survivors().len() >= 3);
    worker.signal(rustix::process::Signal::KILL);
    assert_eq!(worker.wait().signal(), Some(9));
    wait_for("nothing is left", || lab.survivors().is_empty());
    let mut next = lab.start(2);
    next.say(&ToWorker::Configure(Box::new(lab.configure())));
    let end = next.finished();
    assert_eq!((end.attempt.0, end.outcome), (1, Outcome::Failed(FailureClass::WorkerLost)));
}

#[test]
fn a_second_worker_touches_nothing() {
    let lab = Lab::new(true);
    let mut worker = lab.start(1);
    let output = lab.command(2).output().unwrap();
    assert_eq!(output.status.code(), Some(75));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("another worker serves this agent"));
    worker.dial();
    worker.ready(lab.configure());
}

#[test]
fn a_stale_socket_is_replaced_and_a_newer_supervisor_takes_over() {
    let lab = Lab::new(true);
    fs::create_dir_all(lab.path("run")).unwrap();
    fs::write(lab.path("run/a.sock"), "stale").unwrap();
    let mut worker = lab.start(1);
    worker.ready(lab.configure());
    let mut older = worker.stream.take().unwrap();
    worker.dial();
    worker.ready(lab.configure());
    assert_eq!(older.read(&mut [0; 64]).unwrap(), 0, "the older session is closed");
    // A caller who means another agent is turned away, and the supervisor stays.
    let mut stranger = UnixStream::connect(lab.path("run/a.sock")).unwrap();
    let hello = ToWorker::Hello(Hello::new(Role::Supervisor, name("b"), Incarnation(0))).to_frame().unwrap();
    stranger.write_all(&frame::encode(hello.kind, &hello.body).unwrap()).unwrap();
    let mut rest = Vec::new();
    stranger.read_to_end(&mut rest).unwrap();
    assert_eq!(worker.turn(1, "").outcome, Outcome::Completed);
}

#[test]
fn unequal_protocols_drain() {
    let lab = Lab::new(true);
    let mut worker = lab.start(1);
    worker.ready(lab.configure());
    worker.begin(1, "hang");
    worker.started();
    worker.stream = Some(UnixStream::connect(lab.path("run/a.sock")).unwrap());
    worker.reader = FrameReader::new();
    let hello = Hello { protocol: 999, ..Hello::new(Role::Supervisor, name("a"), Incarnation(0)) };
    worker.say(&ToWorker::Hello(hello));
    assert!(matches!(worker.next(), FromWorker::Hello(_)));
    // A message that is not stable is skipped; the drain is in force.
    worker.begin(2, "");
    worker.say(&ToWorker::Kill);
    assert_eq!(worker.next().clone(), FromWorker::Finished(worker_end(&lab)));
    assert_eq!(worker.wait().code(), Some(0));
}

/// The outcome that the journal holds.
fn worker_end(lab: &Lab) -> Box<Finished> {
    let reading = protocol::journal::read(&fs::read(lab.agent("journal")).unwrap());
    reading.open.into_values().next().and_then(|standing| standing.ended).unwrap()
}

#[test]
fn a_huge_line_and_bad_bytes_do_no_harm() {
    let lab = Lab::new(true);
    let mut worker = lab.start(1);
    worker.ready(lab.configure());
    let end = worker.turn(1, "flood");
    assert_eq!((end.outcome, end.text.head()), (Outcome::Completed, "done"), "{end:?}");
    let status = fs::read_to_string(format!("/proc/{}/status", worker.child.id())).unwrap();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB");
    assert!(peak.parse::<u64>().unwrap() < 200 * 1024, "{peak} kB");
}

#[test]
fn an_interrupt_reaches_codex_itself_and_the_ladder_ends_what_does_not_listen() {
    for contained in [true, false] {
        let lab = Lab::new(contained);
        let mut worker = lab.start(1);
        worker.ready(lab.configure());
        for (attempt, prompt) in [(1, "polite"), (2, "stubborn")] {
            drop(fs::remove_file(lab.agent("home/up")));
            worker.begin(attempt, prompt);
            wait_for("the script waits", || lab.read("up") == "up\n");
            let reason = InterruptReason::Asked;
            worker.say(&ToWorker::Interrupt(Interrupt { attempt: AttemptId(attempt), reason }));
            assert_eq!(worker.finished().outcome, Outcome::Interrupted);
        }
        assert_eq!(lab.read("interrupted"), "yes\n", "contained: {contained}");
    }
}

#[test]
fn terminate_ends_in_order_and_leaves_the_outcome_in_the_journal() {
    let lab = Lab::new(true);
    let mut worker = lab.start(1);
    worker.ready(lab.configure());
    worker.begin(1, "polite");
    wait_for("the script waits", || lab.read("up") == "up\n");
    worker.stream = None;
    worker.signal(rustix::process::Signal::TERM);
    assert_eq!(worker.wait().code(), Some(0));
    assert_eq!(worker_end(&lab).outcome, Outcome::Failed(FailureClass::Shutdown));
    assert!(!lab.path("run/a.sock").exists());
}
