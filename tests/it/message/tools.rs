//! Tools: what they see, what they may touch, and how much they may say.

use crate::both::{AGENTS, ask, both, last_attempt};
use cofferdam_tests::standin::telegram::TelegramServer;
use cofferdam_tests::world::{MODEL_KEY, World};

const TOKEN: &str = "123456789:AAFakeTokenOfATestThatNoToolMaySee0";

#[test]
fn a_tool_runs_and_is_recorded() {
    let world = both("", "").start();
    for agent in AGENTS {
        let end = world.send(agent, "c", "[[tool echo hi; exit 3]] x");
        // A tool that fails is no failed turn.
        assert_eq!(end["outcome"], "completed", "{end}");
        assert_eq!(end["text"], "tool exit 3: hi\necho: x");
        let attempt = last_attempt(&world, end["turn"].as_u64().unwrap());
        let ran = attempt["ran"].as_array().unwrap();
        assert!(ran.len() == 1 && ran[0].as_str().unwrap().contains("echo hi; exit 3"), "{attempt}");
    }
    world.shut_down();
}

#[test]
fn a_tool_sees_its_own_home_and_no_secret() {
    let telegram = TelegramServer::start().unwrap();
    telegram.bot(TOKEN, "a_bot");
    let world = both("", "").bot("a_bot", "app", TOKEN, &telegram, 11_111_111).start();
    for agent in AGENTS {
        let env = ask(&world, agent, "c", "[[tool env]] x");
        let home = world.state().join("agents").join(agent).join("home");
        let home = home.canonicalize().unwrap();
        assert!(env.contains(&format!("HOME={}\n", home.display())), "{env}");
        assert!(env.contains(&format!("TMPDIR={}/tmp\n", home.display())), "{env}");
        // Codex' own processes are inside the same namespace, so their environments may hold the key; no file may, and
        // neither may what a tool is given. The bot's token is in no process of an agent at all.
        assert!(!env.contains(MODEL_KEY) && !env.contains("STANDIN_KEY"), "{env}");
        let all = ask(&world, agent, "c", "[[tool cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n']] x");
        assert!(all.contains("HOME=") && !all.contains("AAFakeToken"), "{all}");
    }
    world.shut_down();
}

#[test]
fn a_tool_cannot_read_the_ledger_or_another_agent() {
    let world = both("", "").start();
    let root = world.root().to_owned();
    for (agent, other) in [("app", "cli"), ("cli", "app")] {
        // Each has a secret of its own, and is there to be looked at.
        let mine = ask(&world, agent, "c", "[[tool echo secret > ~/secret; cat ~/secret; pwd]] x");
        assert!(mine.starts_with("tool exit 0: secret\n"), "{mine}");
        assert!(mine.contains(&world.workspace(agent).canonicalize().unwrap().display().to_string()), "{mine}");
        assert_eq!(ask(&world, other, "c", "[[tool echo secret > ~/secret]] x").lines().next(), Some("tool exit 0: "));
        let state = world.state().canonicalize().unwrap();
        for path in [
            state.join("ledger.db"),
            state.join(format!("agents/{other}/home/secret")),
            state.join(format!("agents/{other}/codex-home/config.toml")),
            state.join(format!("agents/{agent}/journal")),
            state.join("run/control.sock"),
        ] {
            assert!(path.exists(), "{}", path.display());
            let text = ask(&world, agent, "c", &format!("[[tool test -e {}]] x", path.display()));
            assert_eq!(text, "tool exit 1: \necho: x", "{} must not be seen", path.display());
        }
        let own = state.join(format!("agents/{agent}/home/secret"));
        assert_eq!(ask(&world, agent, "c", &format!("[[tool test -e {}]] x", own.display())), "tool exit 0: \necho: x");
        let config = ask(&world, agent, "c", &format!("[[tool cat {}/cofferdam.toml]] x", root.display()));
        assert!(!config.contains("state_dir"), "the configuration may hold tokens: {config}");
    }
    world.shut_down();
}

/// Peak memory of a process in kB.
fn peak_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_flood_of_output_is_survived() {
    let world = both("", "").start();
    for agent in AGENTS {
        let flood = "head -c 100000000 /dev/zero | tr '\\0' x | fold -w 200; echo; echo the end";
        let text = ask(&world, agent, "c", &format!("[[tool {flood}]] survived"));
        assert!(text.starts_with("tool exit 0: ") && text.ends_with("echo: survived"), "{} bytes", text.len());
        let peak = peak_kb(world.worker(agent));
        assert!(peak < 128 * 1024, "the worker of {agent} took {peak} kB");
        assert_eq!(world.ps(agent)["restarts"], 0);
    }
    assert!(peak_kb(world.pid()) < 128 * 1024, "the supervisor took {} kB", peak_kb(world.pid()));
    world.shut_down();
}

/// Writes from a tool at first and in a resumed thread; what came of each.
fn writes(world: &World, agent: &str, path: &str) -> [bool; 2] {
    [1, 2].map(|round| {
        let file = format!("{path}/{agent}-{round}");
        let text = ask(world, agent, path, &format!("[[tool touch {file}]] x"));
        assert!(text.starts_with("tool exit "), "{text}");
        let written = text.starts_with("tool exit 0:");
        assert_eq!(std::path::Path::new(&file).exists(), written, "{text}");
        written
    })
}

#[test]
fn a_sandbox_holds_in_resumed_threads_too() {
    for (sandbox, inside) in [("read-only", false), ("workspace-write", true)] {
        let world = both(&format!("sandbox = \"{sandbox}\""), "").start();
        // The stand-in of somebody's files: beside the workspaces, not below them, and not below /tmp.
        let outside = world.root().join("home").canonicalize().unwrap().display().to_string();
        for agent in AGENTS {
            let workspace = world.workspace(agent).canonicalize().unwrap().display().to_string();
            assert_eq!(writes(&world, agent, &workspace), [inside; 2], "{agent} {sandbox} workspace");
            assert_eq!(writes(&world, agent, &outside), [false; 2], "{agent} {sandbox} outside");
            let home = ask(&world, agent, "h", "[[tool touch ~/x && touch $TMPDIR/x]] x");
            assert_eq!(home.starts_with("tool exit 0:"), inside, "{agent} {sandbox} home: {home}");
        }
        world.shut_down();
    }
}
