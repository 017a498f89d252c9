//! A world for one test: a folder, a stand-in model, a real supervisor with real workers and the real Codex.
//!
//! ```text
//!   World::builder(binaries).agent("a", "runtime = \"codex-cli\"").start()
//!      config.toml, workspaces      model stand-in      supervisor-under-test run ---> worker-under-test ---> codex
//! ```
//! When it is dropped everything that it started is killed, and a process that is left over fails the test.

mod builder;

pub use builder::Builder;

use crate::processes;
use crate::standin::model::ModelServer;
use crate::wait::{LIMIT, until};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use supervisor::process::cgroup::{self, Groups, Wish};
use tempfile::TempDir;

/// The key that the stand-in model's provider is given; tools must never see it.
pub const MODEL_KEY: &str = "standin-secret-key";

/// Which binaries are tested.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// The supervisor, which is the command line too.
    pub supervisor: PathBuf,
    /// The worker.
    pub worker: PathBuf,
}

/// What a command of the command line did.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Exit code, or -1 after a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Standard output as one JSON value.
    ///
    /// # Panics
    /// When it is none.
    #[expect(clippy::panic, reason = "what fails in a test fails the test")]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// Standard output as one JSON value a line.
    ///
    /// # Panics
    /// When a line is none.
    #[expect(clippy::panic, reason = "what fails in a test fails the test")]
    pub fn json_lines(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}")))
            .collect()
    }
}

/// A running world.
#[derive(Debug)]
pub struct World {
    dir: TempDir,
    binaries: Binaries,
    /// The stand-in model.
    pub model: ModelServer,
    supervisor: Option<Child>,
}

impl World {
    /// A world with the real Codex and no agents yet.
    pub fn builder(binaries: Binaries) -> Builder {
        Builder::new(binaries)
    }

    /// The world's folder.
    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.root().join("cofferdam.toml")
    }

    /// The state folder.
    pub fn state(&self) -> PathBuf {
        self.root().join("s")
    }

    /// An agent's workspace.
    pub fn workspace(&self, agent: &str) -> PathBuf {
        self.root().join(format!("work-{agent}"))
    }

    /// Writes the configuration, readable by its owner alone.
    ///
    /// # Panics
    /// When it cannot be written.
    #[expect(clippy::expect_used, reason = "what fails in a test fails the test")]
    pub fn write_config(&self, text: &str) {
        fs::write(self.config(), text).expect("the configuration is written");
        fs::set_permissions(self.config(), fs::Permissions::from_mode(0o600)).expect("the configuration is private");
    }

    /// A command of the binary under test in this world, not started yet.
    #[expect(clippy::disallowed_methods, reason = "tests start what they test")]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binaries.supervisor);
        command
            .arg("--config")
            .arg(self.config())
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.root().join("home"))
            .env("LANG", "C.UTF-8")
            .env("TZ", "UTC")
            .env("STANDIN_KEY", MODEL_KEY)
            .env("NO_COLOR", "1")
            .current_dir(self.root());
        command
    }

    /// Another program with the environment of [`World::command`], not started yet.
    #[expect(clippy::disallowed_methods, reason = "a benchmark compares what it measures with something else")]
    pub fn other(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.root().join("home"))
            .env("LANG", "C.UTF-8")
            .current_dir(self.root());
        command
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.state().join("run/control.sock")
    }

    /// Starts the supervisor; its log goes to a file of the world.
    ///
    /// # Panics
    /// When it cannot be started.
    #[expect(clippy::expect_used, reason = "what fails in a test fails the test")]
    pub fn run(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_path()).expect("a log");
        let child = self
            .command(&["run"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("the supervisor starts");
        self.supervisor = Some(child);
    }

    fn log_path(&self) -> PathBuf {
        self.root().join("supervisor.log")
    }

    /// The supervisor's pid.
    ///
    /// # Panics
    /// When none was started.
    #[expect(clippy::expect_used, reason = "what fails in a test fails the test")]
    pub fn pid(&self) -> u32 {
        self.supervisor.as_ref().expect("a supervisor runs").id()
    }

    /// `kill -9` of the supervisor, and waits until it is gone. Workers stay.
    pub fn kill_supervisor(&mut self) {
        if let Some(mut child) = self.supervisor.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Signals the supervisor, waits for its end and gives its exit code.
    ///
    /// # Panics
    /// When it does not end.
    #[expect(clippy::expect_used, reason = "what fails in a test fails the test")]
    pub fn end_supervisor(&mut self, signal: nix::sys::signal::Signal) -> Option<i32> {
        processes::signal(self.pid(), signal);
        let mut child = self.supervisor.take().expect("a supervisor runs");
        until("the supervisor's end", LIMIT, || self.story(), || child.try_wait().ok().flatten()).code()
    }

    /// Waits until the supervisor has ended by itself.
    ///
    /// # Panics
    /// When it does not.
    #[expect(clippy::expect_used, reason = "what fails in a test fails the test")]
    pub fn wait_ended(&mut self) -> Option<i32> {
        let mut child = self.supervisor.take().expect("a supervisor runs");
        until("the supervisor's end", LIMIT, || self.story(), || child.try_wait().ok().flatten()).code()
    }

    /// Runs a command of the command line to its end.
    pub fn cli(&self, arguments: &[&str]) -> Ran {
        self.cli_with(arguments, "")
    }

    /// The same with this standard input.
    ///
    /// # Panics
    /// When it cannot be started.
    #[expect(clippy::expect_used, reason = "what fails in a test fails the test")]
    pub fn cli_with(&self, arguments: &[&str], stdin: &str) -> Ran {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command line starts");
        let mut pipe = child.stdin.take().expect("a pipe");
        let input = stdin.as_bytes().to_vec();
        // A command that does not read its input closes it: that is no error of the test.
        let writer = std::thread::spawn(move || drop(pipe.write_all(&input)));
        let output = child.wait_with_output().expect("the command line ends");
        drop(writer.join());
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts `send --json` and does not wait for its end.
    ///
    /// # Panics
    /// When it cannot be started.
    #[expect(clippy::expect_used, reason = "what fails in a test fails the test")]
    pub fn sending(&self, agent: &str, conversation: &str, text: &str) -> Child {
        self.command(&["send", agent, text, "--conversation", conversation, "--json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the command line starts")
    }

    /// Sends a message, waits for its end and gives the `finished` object.
    ///
    /// # Panics
    /// When there is none.
    #[expect(clippy::panic, reason = "what fails in a test fails the test")]
    pub fn send(&self, agent: &str, conversation: &str, text: &str) -> Value {
        let ran = self.cli(&["send", agent, text, "--conversation", conversation, "--json"]);
        let lines = ran.json_lines();
        let finished = lines.into_iter().find(|line| line["event"] == "finished");
        finished.unwrap_or_else(|| panic!("no end: {ran:?}\n{}", self.story()))
    }

    /// The row of an agent as `ps --json` prints it.
    pub fn ps(&self, agent: &str) -> Value {
        let ran = self.cli(&["ps", "--json"]);
        let rows: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
        rows.as_array().into_iter().flatten().find(|row| row["agent"] == agent).cloned().unwrap_or_default()
    }

    /// The pid of an agent's worker.
    ///
    /// # Panics
    /// When it has none.
    pub fn worker(&self, agent: &str) -> u32 {
        let pid = || self.ps(agent)["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        until(&format!("a worker of {agent}"), LIMIT, || self.story(), pid)
    }

    /// Waits until a row of `ps` is as wanted.
    pub fn wait_ps(&self, agent: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(what, LIMIT, || self.story(), || Some(self.ps(agent)).filter(|row| wanted(row)))
    }

    /// Waits until every agent is ready.
    pub fn wait_ready(&self) {
        let ready = || {
            let ran = self.cli(&["ps", "--json"]);
            let rows: Value = serde_json::from_str(&ran.stdout).ok()?;
            let rows = rows.as_array()?;
            rows.iter().all(|row| row["state"] == "ready" || row["wanted"] == "down").then_some(())
        };
        until("every agent to be ready", LIMIT, || self.story(), ready);
    }

    /// The story of a turn as `turns show --json` prints it.
    pub fn turn(&self, id: u64) -> Value {
        self.cli(&["turns", "show", &id.to_string(), "--json"]).json()
    }

    /// Processes that Codex started for this world's agents, and the Codex ones themselves.
    pub fn codex_processes(&self) -> Vec<u32> {
        processes::marked(&format!("COFFERDAM_CHILD={}/", self.state().join("agents").display()))
    }

    /// What a failed wait should tell: the supervisor's log, the workers' logs, what the model saw.
    pub fn story(&self) -> String {
        let mut parts = vec![format!("--- supervisor.log\n{}", tail(&self.log_path()))];
        let agents = fs::read_dir(self.state().join("agents")).into_iter().flatten().flatten();
        for agent in agents {
            for file in ["log/worker.log", "log/worker.stderr"] {
                let path = agent.path().join(file);
                parts.push(format!("--- {}\n{}", path.display(), tail(&path)));
            }
        }
        parts.push(format!("--- model\n{}", self.model.story()));
        parts.join("\n")
    }

    /// Ends everything that carries this world's folder in its environment or command line.
    fn end_all(&mut self) {
        self.kill_supervisor();
        let mark = self.root().to_string_lossy().into_owned();
        processes::marked(&mark).into_iter().for_each(processes::kill9);
        cgroup::remove_all(&self.state());
    }

    /// Shuts the world down as an operator would, and checks that nothing is left.
    ///
    /// # Panics
    /// When a process or a cgroup is left over.
    pub fn shut_down(mut self) {
        let ran = self.cli(&["shutdown", "--now"]);
        assert_eq!(ran.code, 0, "{ran:?}\n{}", self.story());
        assert_eq!(self.wait_ended(), Some(0), "{}", self.story());
        let mark = self.root().to_string_lossy().into_owned();
        let left: Vec<String> = processes::marked(&mark).into_iter().map(processes::command_line).collect();
        assert!(left.is_empty(), "left over: {left:?}\n{}", self.story());
        if let Ok(groups) = Groups::find(&Wish::Auto, &self.state()) {
            assert!(!groups.root().exists(), "cgroups are left over: {}\n{}", groups.root().display(), self.story());
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.end_all();
    }
}

fn tail(path: &Path) -> String {
    let text = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
