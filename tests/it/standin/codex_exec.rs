//! Every script of the model stand-in, driven by the real `codex exec --json`.
//!
//! The tests wait for what the model saw or for what Codex printed; no time is measured.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use cofferdam_tests::codex::native_codex;
use cofferdam_tests::standin::model::{Fate, Kind, ModelServer};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// How long any single wait may take before the test fails: far more than a loaded machine needs.
const WAIT: Duration = Duration::from_mins(1);

/// A private home and workspace for Codex, and a model for it.
struct Bench {
    model: ModelServer,
    dir: TempDir,
    config: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        let model = ModelServer::start().unwrap();
        let dir = TempDir::new().unwrap();
        for name in ["codex-home", "workspace"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let config = format!(
            r#"model = "gpt-5.5"
model_provider = "standin"
check_for_update_on_startup = false
approval_policy = "never"
sandbox_mode = "danger-full-access"
cli_auth_credentials_store = "file"
[analytics]
enabled = false
[feedback]
enabled = false
[history]
persistence = "none"
[features]
plugins = false
remote_plugin = false
apps = false
shell_snapshot = false
unbounded_connection_retries = false
[model_providers.standin]
name = "standin"
base_url = "{}"
wire_api = "responses"
env_key = "STANDIN_KEY"
requires_openai_auth = false
supports_websockets = false
request_max_retries = 0
stream_max_retries = 1
stream_idle_timeout_ms = 1000
"#,
            model.base_url()
        );
        std::fs::write(dir.path().join("codex-home/config.toml"), config).unwrap();
        Self { model, dir, config: Vec::new() }
    }

    fn with(mut self, config: &str) -> Self {
        self.config.push(config.to_owned());
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    #[expect(clippy::disallowed_methods, reason = "tests start the real Codex")]
    fn spawn(&self, resume: Option<&str>, prompt: &str) -> Child {
        let mut command = Command::new(native_codex());
        command.args(["exec", "--json", "--skip-git-repo-check"]);
        for config in &self.config {
            command.args(["-c", config]);
        }
        if let Some(thread) = resume {
            command.args(["resume", thread]);
        }
        command
            .arg(prompt)
            .current_dir(self.path("workspace"))
            .env("CODEX_HOME", self.path("codex-home"))
            .env("STANDIN_KEY", "key")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command.spawn().unwrap()
    }

    async fn run(&self, prompt: &str) -> Turn {
        self.end(self.spawn(None, prompt)).await
    }

    async fn resume(&self, thread: &str, prompt: &str) -> Turn {
        self.end(self.spawn(Some(thread), prompt)).await
    }

    async fn end(&self, child: Child) -> Turn {
        match tokio::time::timeout(WAIT, child.wait_with_output()).await {
            Ok(output) => Turn::read(&output.unwrap()),
            Err(late) => panic!("codex did not end: {late}; {}", self.model.story()),
        }
    }
}

/// What `codex exec --json` printed.
#[derive(Debug)]
struct Turn {
    code: Option<i32>,
    events: Vec<Value>,
    stderr: String,
}

impl Turn {
    fn read(output: &Output) -> Self {
        let stdout = String::from_utf8_lossy(&output.stdout);
        Self {
            code: output.status.code(),
            events: stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn thread(&self) -> &str {
        self.events[0]["thread_id"].as_str().unwrap()
    }

    fn items(&self, kind: &str) -> Vec<&Value> {
        let completed = self.events.iter().filter(|event| event["type"] == "item.completed");
        completed.map(|event| &event["item"]).filter(|item| item["type"] == kind).collect()
    }

    /// The answer of a turn that completed.
    fn answer(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:#?}");
        assert_eq!(self.events.last().unwrap()["type"], "turn.completed", "{self:#?}");
        self.items("agent_message").last().unwrap()["text"].as_str().unwrap()
    }

    /// The message of a turn that failed.
    fn failure(&self) -> &str {
        assert_eq!(self.code, Some(1), "{self:#?}");
        let last = self.events.last().unwrap();
        assert_eq!(last["type"], "turn.failed", "{self:#?}");
        last["error"]["message"].as_str().unwrap()
    }
}

#[tokio::test]
async fn it_echoes_and_remembers_the_thread() {
    let bench = Bench::new();
    let first = bench.run("good morning").await;
    assert_eq!(first.answer(), "echo: good morning");
    let second = bench.resume(first.thread(), "[[recall]] what did I say").await;
    assert_eq!(second.answer(), r#"recall: ["good morning"]"#);
    assert_eq!(second.thread(), first.thread());
    let requests = bench.model.requests();
    assert_eq!(requests.len(), 2, "{}", bench.model.story());
    assert!(requests.iter().all(|request| request.fate == Fate::Answered && request.kind == Kind::Turn));
    assert_eq!(requests[0].thread.as_deref(), Some(first.thread()));
    assert_eq!(requests[0].headers["authorization"], "Bearer key");
    assert_eq!(bench.model.count_prompt("good"), 1);
    assert_eq!(bench.model.count("good morning"), 2);
}

#[tokio::test]
async fn it_writes_slowly_at_length_and_with_reasons() {
    let bench = Bench::new();
    assert_eq!(bench.run("[[slow 3x5ms]] [[limits 80]] go").await.answer(), "1 2 3 echo: go");
    assert_eq!(bench.run("[[big 2M]] [[say end]]").await.answer().len(), (2 << 20) + 3);
    let reasoned = bench.run("[[reason because]] [[delay 5ms]] why").await;
    assert_eq!(reasoned.answer(), "echo: why");
    assert_eq!(reasoned.items("reasoning")[0]["text"], "because");
}

#[tokio::test]
async fn it_runs_commands_and_quotes_them() {
    let bench = Bench::new();
    let turn = bench.run("[[tool echo hi; exit 3]] done").await;
    assert_eq!(turn.answer(), "tool exit 3: hi\necho: done");
    assert_eq!(turn.items("command_execution")[0]["exit_code"], 3);
    let two = bench.run("[[tools echo a ;; echo b]] [[tool echo c]] both").await;
    assert_eq!(two.answer(), "tool exit 0: a\ntool exit 0: b\ntool exit 0: c\necho: both");
    let escalated = bench.run("[[escalate touch x]] up").await;
    assert!(escalated.answer().contains("approval policy is"), "{escalated:#?}");
    let patch = "*** Begin Patch\n*** Add File: new.txt\n+line\n*** End Patch";
    let patched = bench.run(&format!("[[custom apply_patch {patch}]] patched")).await;
    assert!(patched.answer().ends_with("echo: patched"), "{patched:#?}");
    assert_eq!(std::fs::read_to_string(bench.path("workspace/new.txt")).unwrap(), "line\n");
    let called = bench.run(r#"[[call update_plan {"plan":[]}]] planned"#).await;
    assert!(called.answer().contains("unsupported call"), "{called:#?}");
}

#[tokio::test]
async fn a_command_in_the_background_is_not_waited_for() {
    let bench = Bench::new();
    let turn = bench.run("[[background sleep 600]] started").await;
    assert!(turn.answer().ends_with("echo: started"), "{turn:#?}");
    assert_eq!(turn.items("command_execution").len(), 0, "{turn:#?}");
}

#[tokio::test]
async fn a_command_that_outlasts_its_first_answer_is_waited_for() {
    let bench = Bench::new();
    let command = r#"{"cmd":"echo one; sleep 1; echo two; exit 4","yield_time_ms":250}"#;
    let turn = bench.run(&format!("[[call exec_command {command}]] over")).await;
    assert_eq!(turn.answer(), "tool exit 4: one\ntwo\necho: over");
}

#[tokio::test]
async fn a_loop_goes_on_until_it_is_stopped() {
    let bench = Bench::new();
    let child = bench.spawn(None, "[[loop true]] round");
    bench.model.next(4, WAIT, |request| request.prompt.contains("round")).await;
    drop(child);
    let seen = bench.model.requests();
    let last = seen.last().unwrap();
    assert_ne!(bench.model.wait_end(last.seq, WAIT).await, Fate::Open);
}

#[tokio::test]
async fn held_requests_wait_for_the_test() {
    let bench = Bench::new();
    let child = bench.spawn(None, "[[hold before]] [[hold-stream within]] hello");
    bench.model.wait_held("before", WAIT).await;
    assert_eq!(bench.model.requests()[0].fate, Fate::Open);
    bench.model.release("before");
    bench.model.wait_held("within", WAIT).await;
    bench.model.release("within");
    assert_eq!(bench.end(child).await.answer(), "echo: hello");
}

#[tokio::test]
async fn a_hang_ends_when_codex_is_gone() {
    let bench = Bench::new();
    let child = bench.spawn(None, "[[hang]]");
    let request = bench.model.next_prompt("[[hang]]", WAIT).await;
    drop(child);
    assert_eq!(bench.model.wait_end(request.seq, WAIT).await, Fate::Gone);
    let silent = bench.run("[[hang-stream]]").await;
    assert!(silent.failure().contains("idle timeout waiting for SSE"), "{silent:#?}");
    assert_eq!(bench.model.count_prompt("[[hang-stream]]"), 2);
}

#[tokio::test]
async fn a_model_may_be_a_script() {
    let bench = Bench::new().with("model=\"standin-401\"");
    let turn = bench.run("hello").await;
    assert!(turn.failure().contains("401 Unauthorized"), "{turn:#?}");
    let door = Bench::new();
    door.model.script("gpt-5.5", Some("[[404 x1]]"));
    assert!(door.run("hello").await.failure().contains("does not exist"));
    assert_eq!(door.run("hello").await.answer(), "echo: hello");
}

/// Each failure: its marker, what Codex says of it, how many requests it makes (with one retry of a stream).
const FAILURES: [(&str, &str, usize); 19] = [
    ("[[usage-limit at 1900000000]]", "You’ve hit your usage limit", 1),
    ("[[429]]", "exceeded retry limit, last status: 429 Too Many Requests", 2),
    ("[[quota]]", "Quota exceeded. Check your plan and billing details.", 1),
    ("[[401]]", "unexpected status 401 Unauthorized", 2),
    ("[[403]]", "Cloudflare Ray ID", 2),
    ("[[blocked]]", "Access blocked by Cloudflare", 2),
    ("[[404]]", "The model `gpt-5.5` does not exist", 1),
    ("[[400]]", "the stand-in finds this invalid", 1),
    ("[[context]]", "ran out of room in the model's context window", 1),
    ("[[500]]", "currently experiencing high demand", 2),
    ("[[503]]", "Selected model is at capacity", 1),
    ("[[drop]]", "stream disconnected before completion: error sending request", 2),
    ("[[cut]]", "stream disconnected before completion", 2),
    ("[[incomplete]]", "Incomplete response returned, reason: max_output_tokens", 1),
    ("[[failed rate_limit_exceeded]]", "Rate limit reached", 2),
    ("[[failed server_error]]", "The stand-in failed the response", 2),
    ("[[failed context_length_exceeded]]", "ran out of room in the model's context window", 1),
    ("[[failed insufficient_quota]]", "Quota exceeded", 1),
    ("[[failed server_is_overloaded]]", "Selected model is at capacity", 1),
];

#[tokio::test]
async fn every_failure_reads_as_codex_tells_it() {
    let bench = Bench::new();
    let mut wrong = Vec::new();
    for (marker, says, requests) in FAILURES {
        let turn = bench.run(&format!("{marker} please")).await;
        let asked = bench.model.count_prompt(marker);
        if turn.code != Some(1) || !turn.failure().contains(says) || asked != requests {
            wrong.push(format!("{marker}: {asked} requests, {turn:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), bench.model.story());
}

#[tokio::test]
async fn a_failure_may_pass() {
    let bench = Bench::new();
    assert_eq!(bench.run("[[500 x1]] retry").await.answer(), "echo: retry");
    assert_eq!(bench.model.count_prompt("retry"), 2);
    let turn = bench.run("[[tool echo hi]] [[cut x1]] again").await;
    assert_eq!(turn.answer(), "tool exit 0: hi\necho: again");
}

#[tokio::test]
async fn a_full_thread_is_compacted() {
    let bench = Bench::new().with("model_auto_compact_token_limit=20000");
    let first = bench.run("[[tokens 50000]] one").await;
    let second = bench.resume(first.thread(), "[[recall]] two").await;
    assert_eq!(second.answer(), r#"recall: ["[[tokens 50000]] one"]"#);
    let kinds: Vec<_> = bench.model.requests().iter().map(|request| request.kind).collect();
    assert_eq!(kinds, [Kind::Turn, Kind::Compaction, Kind::Turn], "{}", bench.model.story());
    assert_eq!(bench.model.count("summary of 1 prompts"), 1);
}

#[tokio::test]
async fn a_compaction_in_the_middle_of_a_turn_does_not_repeat_its_tools() {
    let bench = Bench::new().with("model_auto_compact_token_limit=20000");
    let turn = bench.run("[[tokens 50000]] [[tool echo once >> log]] done").await;
    assert_eq!(turn.answer(), "echo: done");
    assert_eq!(std::fs::read_to_string(bench.path("workspace/log")).unwrap(), "once\n");
    assert!(bench.model.requests().iter().any(|request| request.kind == Kind::Compaction), "{}", bench.model.story());
}

#[tokio::test]
async fn a_compaction_may_fail_hang_and_be_held() {
    let bench = Bench::new().with("model_auto_compact_token_limit=20000");
    let failed = bench.run("[[tokens 50000]] [[compact-500 x2]] one").await;
    let turn = bench.resume(failed.thread(), "two").await;
    assert!(turn.failure().contains("currently experiencing high demand"), "{turn:#?}");
    assert!(turn.stderr.contains("Failed to run pre-sampling compact"), "{turn:#?}");
    assert_eq!(bench.resume(failed.thread(), "three").await.answer(), "echo: three");

    let hung = bench.run("[[tokens 50000]] [[compact-hang x1]] four").await;
    let child = bench.spawn(Some(hung.thread()), "five");
    let seen = bench.model.next(0, WAIT, |request| request.played == ["compact-hang x1"]).await;
    assert_eq!((seen.kind, seen.fate), (Kind::Compaction, Fate::Open));
    drop(child);
    assert_eq!(bench.model.wait_end(seen.seq, WAIT).await, Fate::Gone);

    let held = bench.run("[[tokens 50000]] [[compact-hold gate]] six").await;
    let child = bench.spawn(Some(held.thread()), "seven");
    bench.model.wait_held("gate", WAIT).await;
    bench.model.release("gate");
    assert_eq!(bench.end(child).await.answer(), "echo: seven");
}
