//! Codex without us, for comparison: the same program with the same arguments, homes and environment, learned from a
//! child of a worker by `/proc`.

use super::Fault;
use super::clock::{ms, now};
use super::host;
use rustix::process::{Pid, setpriority_process};
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Niceness of a worker's children, which a fair comparison shares.
const NICENESS: i32 = 10;

/// How a Codex child was started.
#[derive(Clone, Debug)]
pub(crate) struct Bare {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: PathBuf,
}

impl Bare {
    /// Learns from the child of `worker` that runs Codex with `word` as its first argument.
    pub(crate) fn of_worker(worker: u32, word: &str) -> Result<Self, Fault> {
        let mut all = host::tree(worker).into_iter().filter_map(|pid| Self::of(pid, word));
        all.next().ok_or_else(|| Fault(format!("no child runs codex {word}")))
    }

    fn of(pid: u32, word: &str) -> Option<Self> {
        let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let words = |bytes: &[u8]| -> Vec<OsString> {
            let parts = bytes.split(|byte| *byte == 0).filter(|part| !part.is_empty());
            parts.map(|part| OsStr::from_bytes(part).to_owned()).collect()
        };
        let mut args = words(&read("cmdline"));
        if args.get(1).is_none_or(|first| first != word) {
            return None;
        }
        let program = PathBuf::from(args.remove(0));
        let pair = |variable: OsString| {
            let bytes = variable.as_bytes();
            let at = bytes.iter().position(|byte| *byte == b'=')?;
            let (name, value) = bytes.split_at(at);
            Some((OsStr::from_bytes(name).to_owned(), OsStr::from_bytes(value.get(1..)?).to_owned()))
        };
        let env = words(&read("environ")).into_iter().filter_map(pair).collect();
        Some(Self { program, args, env, dir: fs::read_link(format!("/proc/{pid}/cwd")).ok()? })
    }

    #[expect(clippy::disallowed_methods, reason = "what is measured is a start")]
    fn spawn(&self) -> Result<Child, Fault> {
        // A session of its own, as a worker's children have: many kernels share the processor out by sessions.
        let mut command = Command::new("setsid");
        command
            .arg(&self.program)
            .args(&self.args)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(&self.dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        // Before it has a second thread: threads inherit it.
        setpriority_process(pid, NICENESS).map_err(|error| Fault(format!("cannot be nice: {error}")))?;
        Ok(child)
    }

    /// One turn of `codex exec`, from its start to its end, in milliseconds.
    pub(crate) fn exec(&self, prompt: &str) -> Result<f64, Fault> {
        let begin = now();
        let mut child = self.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(prompt.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        let took = ms(begin.elapsed());
        if output.status.success() { Ok(took) } else { Err(Fault(format!("bare codex exec ended {}", output.status))) }
    }

    /// Starts `codex app-server` and opens a thread with the settings that a worker asks for.
    pub(crate) fn app_server(&self, provider: &str, model: &str) -> Result<Talk, Fault> {
        let mut child = self.spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Fault("no pipes".into()));
        };
        let mut talk = Talk { child, stdin, lines: BufReader::new(stdout), thread: String::new(), last: 0 };
        let capabilities = json!({"experimentalApi": true});
        talk.request(
            "initialize",
            &json!({"clientInfo": {"name": "bench", "title": "bench", "version": "0"}, "capabilities": capabilities}),
        )?;
        talk.write(&json!({"method": "initialized"}))?;
        let answer = talk.request(
            "thread/start",
            &json!({"model": model, "modelProvider": provider, "approvalPolicy": "never",
                "approvalsReviewer": "user", "sandbox": "danger-full-access"}),
        )?;
        answer["thread"]["id"].as_str().unwrap_or_default().clone_into(&mut talk.thread);
        Ok(talk)
    }
}

/// A conversation with a bare app-server.
#[derive(Debug)]
pub(crate) struct Talk {
    child: Child,
    stdin: ChildStdin,
    lines: BufReader<ChildStdout>,
    thread: String,
    last: u64,
}

impl Talk {
    /// One turn, from the request to `turn/completed`, in milliseconds.
    pub(crate) fn turn(&mut self, prompt: &str) -> Result<f64, Fault> {
        let begin = now();
        let params = json!({"threadId": self.thread, "input": [{"type": "text", "text": prompt}]});
        self.request("turn/start", &params)?;
        loop {
            let line = self.line()?;
            if line["method"] == "turn/completed" {
                let took = ms(begin.elapsed());
                let status = &line["params"]["turn"]["status"];
                return if status == "completed" {
                    Ok(took)
                } else {
                    Err(Fault(format!("a bare turn ended {status}")))
                };
            }
        }
    }

    fn request(&mut self, method: &str, params: &Value) -> Result<Value, Fault> {
        self.last += 1;
        self.write(&json!({"id": self.last, "method": method, "params": params}))?;
        loop {
            let mut line = self.line()?;
            if line["id"] == self.last && line["method"].is_null() {
                if line["result"].is_null() {
                    return Err(Fault(format!("{method}: {}", line["error"])));
                }
                return Ok(line["result"].take());
            }
        }
    }

    fn write(&mut self, message: &Value) -> Result<(), Fault> {
        Ok(self.stdin.write_all(format!("{message}\n").as_bytes())?)
    }

    fn line(&mut self) -> Result<Value, Fault> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            return Err(Fault("the bare app-server has gone".into()));
        }
        serde_json::from_str(&line).map_err(|error| Fault(format!("the bare app-server wrote no JSON: {error}")))
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        // It may have gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
