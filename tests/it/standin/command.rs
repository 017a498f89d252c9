//! `cofferdam-standin` as a person runs it.

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

#[expect(clippy::disallowed_methods, reason = "tests start the real command")]
fn standin() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam-standin"));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

#[tokio::test]
async fn a_person_talks_to_a_bot_and_ends_it_all() {
    let mut server = standin();
    server
        .args(["--model-port", "0", "--telegram-port", "0", "--bot", "42:secret:research_bot"])
        .stdout(Stdio::piped());
    let mut server = server.spawn().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let model = lines.next_line().await.unwrap().unwrap();
    assert!(model.starts_with("model    http://127.0.0.1:") && model.ends_with("/v1"), "{model}");
    let telegram = lines.next_line().await.unwrap().unwrap();
    let port = telegram.rsplit(':').next().unwrap().to_owned();
    let place = ["--port", &port, "--bot", "42:secret", "--chat", "-7"];
    assert!(standin().arg("say").args(place).args(["good", "morning"]).status().await.unwrap().success());
    let read = standin().arg("read").args(place).output().await.unwrap();
    assert_eq!(String::from_utf8(read.stdout).unwrap(), "    1 you: good morning\n");
    let lost = standin().args(["read", "--port", &port, "--bot", "9:none", "--chat", "1"]).output().await.unwrap();
    assert_eq!((lost.status.code(), lost.stderr), (Some(1), b"no such bot\n".to_vec()));
    let pid = Pid::from_raw(server.id().unwrap().try_into().unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(server.wait().await.unwrap().success());
    let gone = standin().arg("say").args(place).arg("hello").output().await.unwrap();
    assert!(String::from_utf8(gone.stderr).unwrap().contains("start one with: cofferdam-standin"));
}
