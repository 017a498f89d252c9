//! Drives the real worker over its socket. Shared by the suites of this folder.
#![expect(dead_code, unreachable_pub, reason = "each suite takes what it needs")]

use protocol::frame::{self, FrameReader};
use protocol::from_worker::Isolation;
use protocol::hello::{Hello, Role};
use protocol::to_worker::{Approval, Auth, Begin, Clocks, Configure, Home, Limits, Reviewer, Sandbox};
use protocol::{AgentName, AttemptId, Finished, FromWorker, Incarnation, Route, Runtime, Text, ToWorker, TurnId};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Every wait of these tests ends here.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Lab {
    root: tempfile::TempDir,
    /// The agent's cgroup, if the worker gets one.
    pub group: Option<PathBuf>,
}

/// The top of cgroup v2, if it can be divided here.
pub fn cgroup_top() -> Option<PathBuf> {
    ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(PathBuf::from).into_iter().find(|top| {
        let probe = top.join(format!("cofferdam-probe-{}", std::process::id()));
        top.join("cgroup.procs").exists() && fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)).is_ok()
    })
}

impl Drop for Lab {
    fn drop(&mut self) {
        let Some(group) = &self.group else { return };
        drop(fs::write(group.join("cgroup.kill"), "1"));
        wait_for("an empty group", || {
            let inner = fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path());
            inner.filter(|path| path.is_dir()).for_each(|path| drop(fs::remove_dir(path)));
            fs::remove_dir(group).is_ok() || !group.exists()
        });
    }
}

impl Lab {
    /// A folder with a Codex package whose bwrap is the real one, or one that fails.
    pub fn new(codex_script: &str, contained: bool) -> Self {
        let root = tempfile::tempdir().unwrap();
        let lab = Self { root, group: None };
        let codex = lab.path("codex/bin/codex");
        fs::create_dir_all(codex.parent().unwrap()).unwrap();
        fs::write(&codex, codex_script).unwrap();
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

    /// The same with a cgroup for the agent. `None`: this host has none to give.
    pub fn grouped(codex_script: &str, contained: bool) -> Option<Self> {
        let mut lab = Self::new(codex_script, contained);
        let unique = lab.root.path().file_name().unwrap().to_str().unwrap().replace('.', "");
        let group = cgroup_top()?.join(format!("cofferdam-lab-{unique}"));
        fs::create_dir_all(group.join("worker")).unwrap();
        lab.group = Some(group);
        Some(lab)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().canonicalize().unwrap().join(name)
    }

    pub fn agent(&self, name: &str) -> PathBuf {
        self.path("state/agents/a").join(name)
    }

    pub fn configure(&self) -> Configure {
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
                heartbeat_ms: 15_000,
            },
        }
    }

    pub fn start(&self, incarnation: u64) -> Worker<'_> {
        let mut child = self.command(incarnation).spawn().unwrap();
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "listening\n");
        let mut worker = Worker { lab: self, child, stream: None, reader: FrameReader::new(), incarnation };
        worker.dial();
        worker
    }

    #[expect(clippy::disallowed_methods, reason = "a test starts the program that it tests")]
    pub fn command(&self, incarnation: u64) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam-worker"));
        let uid = rustix::process::geteuid().as_raw().to_string();
        command.args(["--agent", "a", "--incarnation", &incarnation.to_string(), "--supervisor-uid", &uid]);
        command.arg("--agent-dir").arg(self.agent("")).arg("--socket").arg(self.path("run/a.sock"));
        if let Some(group) = &self.group {
            command.arg("--cgroup").arg(group);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("LEAK", "this must not reach a child");
        command
    }

    /// Runs a program in the agent's homes, outside the worker.
    #[expect(clippy::disallowed_methods, reason = "a test asks Codex about what was rendered")]
    pub fn run(&self, program: &Path, args: &[&str]) -> std::process::Output {
        let mut command = Command::new(program);
        command.args(args).env("HOME", self.agent("home")).env("CODEX_HOME", self.agent("codex-home"));
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// Processes that the script left and that still run: they carry the lab's folder in their arguments.
    pub fn survivors(&self) -> Vec<String> {
        let mark = format!("{}-", self.agent("home").display());
        let processes = fs::read_dir("/proc").unwrap().flatten().map(|e| e.path().join("cmdline"));
        processes.filter_map(|p| fs::read_to_string(p).ok()).filter(|line| line.contains(&mark)).collect()
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.agent("home").join(name)).unwrap_or_default()
    }
}

pub struct Worker<'lab> {
    pub lab: &'lab Lab,
    pub child: Child,
    pub stream: Option<UnixStream>,
    pub reader: FrameReader,
    pub incarnation: u64,
}

impl Worker<'_> {
    pub fn dial(&mut self) {
        let stream = UnixStream::connect(self.lab.path("run/a.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        self.stream = Some(stream);
        self.reader = FrameReader::new();
        self.say(&ToWorker::Hello(Hello::new(Role::Supervisor, name("a"), Incarnation(0))));
        let FromWorker::Hello(hello) = self.next() else { panic!("a hello comes first") };
        assert_eq!((hello.role, hello.incarnation.0), (Role::Worker, self.incarnation));
    }

    pub fn say(&mut self, message: &ToWorker) {
        let frame = message.to_frame().unwrap();
        let bytes = frame::encode(frame.kind, &frame.body).unwrap();
        self.stream.as_ref().unwrap().write_all(&bytes).unwrap();
    }

    pub fn next(&mut self) -> FromWorker {
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

    pub fn ready(&mut self, configure: Configure) -> Vec<FromWorker> {
        self.say(&ToWorker::Configure(Box::new(configure)));
        let mut before = Vec::new();
        loop {
            match self.next() {
                FromWorker::Ready(_) => return before,
                other => before.push(other),
            }
        }
    }

    pub fn begin(&mut self, attempt: u64, prompt: &str) {
        let prompt = Text::Inline(prompt.to_owned());
        let (attempt, turn) = (AttemptId(attempt), TurnId(attempt));
        self.say(&ToWorker::Begin(Box::new(Begin {
            attempt,
            turn,
            thread: None,
            prompt,
            route: route(),
            begun: false,
        })));
    }

    pub fn finished(&mut self) -> Box<Finished> {
        loop {
            if let FromWorker::Finished(end) = self.next() {
                return end;
            }
        }
    }

    pub fn turn(&mut self, attempt: u64, prompt: &str) -> Box<Finished> {
        self.begin(attempt, prompt);
        let end = self.finished();
        self.say(&ToWorker::Ack(AttemptId(attempt)));
        end
    }

    pub fn started(&mut self) -> Isolation {
        loop {
            match self.next() {
                FromWorker::Started(started) => return started.isolation,
                FromWorker::Finished(end) => panic!("it ended: {end:?}"),
                FromWorker::Note(note) => assert!(note.contains("namespace"), "{note}"),
                _ => {}
            }
        }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn wait(&mut self) -> ExitStatus {
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

pub fn name(text: &str) -> AgentName {
    AgentName::parse(text).unwrap()
}

pub fn route() -> Route {
    Route { runtime: Runtime::CodexCli, provider: "mock".into(), model: "m".into() }
}

pub fn real_bwrap() -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    let codex = std::env::var("COFFERDAM_TEST_CODEX").unwrap_or_else(|_| "codex".into());
    let beside = worker::codex::locate::locate(&codex, &path).and_then(|located| located.bwraps.into_iter().next());
    let on_path = || path.split(':').map(|dir| Path::new(dir).join("bwrap")).find(|p| p.exists());
    beside.or_else(on_path).expect("a bwrap is needed: set COFFERDAM_TEST_CODEX to a Codex, or install bubblewrap")
}

#[expect(clippy::disallowed_methods, reason = "a test waits for a condition with a limit")]
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The outcome that the journal holds.
pub fn worker_end(lab: &Lab) -> Box<Finished> {
    let reading = protocol::journal::read(&fs::read(lab.agent("journal")).unwrap());
    reading.open.into_values().next().and_then(|standing| standing.ended).unwrap()
}
