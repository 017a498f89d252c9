//! The bot's token is in the supervisor and nowhere else; the provider's key is in Codex' environment and nowhere else.

use super::environment;
use crate::scenes::{appears, codex_pids, ended, on, on_both_runtimes, world};
use cofferdam_tests::processes;
use cofferdam_tests::standin::telegram::TelegramServer;
use cofferdam_tests::world::{MODEL_KEY, World};
use std::fs;
use std::path::{Path, PathBuf};

const TOKEN: &str = "424242:this-token-must-stay-where-it-is-aaaa";

on_both_runtimes!(a_token_and_a_key_stay_where_they_belong);

fn holds(bytes: &[u8], text: &str) -> bool {
    String::from_utf8_lossy(bytes).contains(text)
}

fn files_with(dir: &Path, text: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files_with(&path, text, found);
        } else if kind.is_file() && holds(&fs::read(&path).unwrap_or_default(), text) {
            found.push(path);
        }
    }
}

/// Files below the world's folder that hold `text`.
fn written(world: &World, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files_with(world.root(), text, &mut found);
    found
}

/// Processes of the world whose arguments or environment hold `text`.
fn carried(world: &World, text: &str) -> Vec<u32> {
    let mark = world.root().display().to_string();
    let holds_it = |pid: &u32| {
        ["environ", "cmdline"]
            .iter()
            .any(|file| holds(&fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default(), text))
    };
    processes::marked(&mark).into_iter().filter(holds_it).collect()
}

fn a_token_and_a_key_stay_where_they_belong(runtime: &str) {
    let telegram = TelegramServer::start().unwrap();
    telegram.bot(TOKEN, "bot");
    let world =
        world().agent("a", &on(runtime)).bot("bot", "a", TOKEN, &telegram, 7).top("[log]\nfilter = \"trace\"").start();
    let (flag, go) = (world.workspace("a").join("flag"), world.workspace("a").join("go"));
    let wait = format!("until [ -e {} ]; do sleep 0.02; done", go.display());
    let script = format!("env; cat /proc/self/environ; echo here > {}; {wait}", flag.display());
    let sending = world.sending("a", "c", &format!("[[tool {script}]] hunt"));
    appears(&world, &flag);
    assert_eq!(written(&world, TOKEN), [world.config()], "only the operator's own file holds the token");
    assert!(carried(&world, TOKEN).is_empty());
    assert_eq!(written(&world, MODEL_KEY), Vec::<PathBuf>::new());
    let mut allowed = codex_pids(&world, "a");
    assert!(!allowed.is_empty() && allowed.iter().all(|pid| environment(*pid)["STANDIN_KEY"] == MODEL_KEY));
    // Whoever started the supervisor has it too, and so has the command that sends.
    allowed.extend([world.pid(), sending.id()]);
    for pid in carried(&world, MODEL_KEY) {
        assert!(allowed.contains(&pid), "{} holds the key", processes::command_line(pid));
    }
    fs::write(&go, "").unwrap();
    let said = ended(&world, sending);
    let words = format!("{:?}", said.lines);
    assert!(words.contains("HOME="), "the hunt found something: {words}");
    assert!(!words.contains(MODEL_KEY) && !words.contains(TOKEN), "{words}");
    // A failure's story neither.
    let failed = world.send("a", "c", "[[401]] refused");
    assert_eq!(failed["outcome"], "failed");
    let listings: [&[&str]; 5] =
        [&["ps", "--json"], &["health", "--json"], &["turns", "show", "2", "--json"], &["check"], &["logs", "a"]];
    for words in listings {
        let ran = world.cli(words);
        let told = format!("{}{}", ran.stdout, ran.stderr);
        assert!(!told.contains(TOKEN) && !told.contains(MODEL_KEY), "{words:?}: {told}");
    }
    let ended = (written(&world, TOKEN), written(&world, MODEL_KEY));
    assert_eq!(ended, (vec![world.config()], Vec::new()));
    world.shut_down();
}

#[test]
fn a_key_reaches_agents_whose_routes_use_it() {
    // The variable is one that the supervisor has and that is on no list.
    let other = "[providers.other]\nbase_url = \"http://127.0.0.1:9/v1\"\napi_key_env = \"NO_COLOR\"";
    let world = world()
        .agent("a", &on("codex"))
        .agent("b", &format!("{}\nfallbacks = [\"other/gpt-5.5\"]", on("codex")))
        .rest(other)
        .start();
    for agent in ["a", "b"] {
        assert_eq!(world.send(agent, "c", "warm")["outcome"], "completed");
        let codex = codex_pids(&world, agent);
        assert_eq!(codex.len(), 1);
        assert_eq!(environment(codex[0]).contains_key("NO_COLOR"), agent == "b", "{agent}");
    }
    world.shut_down();
}
