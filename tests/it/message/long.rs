//! Texts that are too long for a frame, or no texts at all.

use crate::both::{AGENTS, answer, ask, both};
use cofferdam_tests::world::{Ran, World};
use std::io::Write as _;
use std::process::Stdio;

/// Longer than a frame carries inline.
const LONG: usize = 300 * 1024;

fn send_stdin(world: &World, agent: &str, bytes: &[u8]) -> Ran {
    let mut child = world
        .command(&["send", agent, "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let input = bytes.to_vec();
    // Whoever refuses what it reads may close its input early.
    let writer = std::thread::spawn(move || drop(pipe.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_long_prompt_arrives_whole() {
    let world = both("", "").start();
    for agent in AGENTS {
        let prompt = format!("{}the end", "words ".repeat(LONG / 6));
        let ran = send_stdin(&world, agent, prompt.as_bytes());
        assert_eq!(ran.code, 0, "{}\n{}", ran.stderr, world.story());
        let end = ran.json_lines().pop().unwrap();
        assert_eq!(answer(&world, &end), format!("echo: {prompt}"));
        let turn = end["turn"].as_u64().unwrap();
        assert!(prompt.starts_with(world.turn(turn)["prompt"].as_str().unwrap()));
    }
    let dirs = AGENTS.map(|agent| world.state().join("agents").join(agent).join("texts"));
    let left: Vec<_> =
        dirs.iter().chain([&world.state().join("texts")]).flat_map(std::fs::read_dir).flatten().flatten().collect();
    assert!(left.is_empty(), "files of texts that were answered: {left:?}");
    world.shut_down();
}

#[test]
fn a_long_answer_arrives_whole() {
    let world = both("", "").start();
    for (agent, size, bytes) in
        [("app", "300K", LONG), ("cli", "300K", LONG), ("app", "5M", 5 << 20), ("cli", "5M", 5 << 20)]
    {
        let text = ask(&world, agent, "c", &format!("[[big {size}]] after it"));
        assert_eq!(text.len(), bytes + "echo: after it".len());
        assert!(text.starts_with("All work") && text.ends_with("echo: after it"));
    }
    // The same on standard output for people.
    let ran = world.cli(&["send", "cli", "[[big 300K]] end"]);
    assert_eq!((ran.code, ran.stdout.len()), (0, LONG + "echo: end\n".len()), "{}", ran.stderr);
    world.shut_down();
}

#[test]
fn what_is_no_message_is_refused() {
    let world = both("", "").start();
    for (bytes, code, why) in [(&b""[..], 64, "empty"), (b" \n\t ", 64, "empty"), (b"caf\xe9", 64, "UTF-8")] {
        let ran = send_stdin(&world, "app", bytes);
        assert_eq!(ran.code, code, "{bytes:?}: {ran:?}");
        assert!(ran.stderr.contains(why), "{bytes:?}: {ran:?}");
    }
    let ran = world.cli(&["send", "app", "   "]);
    assert_eq!(ran.code, 64, "{ran:?}");
    let ran = world.cli(&["send", "nobody", "hello", "--json"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("there is no agent nobody"), "{ran:?}");
    let refused = ran.json_lines();
    assert_eq!(refused.len(), 1, "one refusal, said once: {refused:?}");
    assert_eq!(refused[0]["event"], "refused");
    let ran = world.cli(&["send", "app", "hello", "--conversation", ""]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let ran = send_stdin(&world, "app", &vec![b'x'; 17 << 20]);
    assert_eq!(ran.code, 75, "{} {}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("larger than 16 MiB"), "{ran:?}");
    assert_eq!(world.cli(&["turns", "--json"]).json(), serde_json::json!([]), "nothing was accepted");
    assert_eq!(ask(&world, "app", "c", "still there"), "echo: still there");
    world.shut_down();
}
