//! The envelope with the real Codex: what an agent's tools may use, and what happens when they use more. It holds on every host;
//! what differs is who holds it, and that is what `ps` and `doctor` must say.

use crate::scenes::{on, on_both_runtimes, swept_within, world};
use cofferdam_tests::wait::LIMIT;
use cofferdam_tests::world::World;
use serde_json::Value;

on_both_runtimes!(a_memory_hog_ends_out_of_memory_and_a_fork_bomb_as_budget, what_holds_each_limit_is_told);

fn bounded(runtime: &str, limits: &str) -> World {
    world().agent("a", &format!("{}\nlimits = {{ {limits} }}", on(runtime))).agent("b", &on(runtime)).start()
}

fn a_memory_hog_ends_out_of_memory_and_a_fork_bomb_as_budget(runtime: &str) {
    let world = bounded(runtime, "memory_max = \"700M\", pids_max = 300");
    let neighbour = world.worker("b");
    let end = world.send("a", "c", "[[tool head -c 3000000000 /dev/zero | tail -c 2900000000 | wc -c]] eat");
    assert_eq!((&end["outcome"], &end["class"]), (&"failed".into(), &"out_of_memory".into()), "{end}");
    assert!(end["text"].as_str().unwrap().contains("ran out of memory"), "{end}");
    let story = world.turn(end["turn"].as_u64().unwrap());
    let detail = story["attempts"][0]["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("limits.memory_max") || detail.contains("kernel"), "{story:#}");
    swept_within(&world, LIMIT);
    // It doubles every 50 ms, so that a host on which it is not stopped lives long enough to show it.
    let bomb = "[[tool b() { sleep 0.05; b & b & wait; }; export -f b; setsid bash -c b & sleep 600]] bomb";
    let end = world.send("a", "d", bomb);
    assert_eq!((&end["outcome"], &end["class"]), (&"failed".into(), &"budget".into()), "{end}\n{}", world.story());
    swept_within(&world, LIMIT);
    assert_eq!(world.send("a", "c", "well?")["text"], "echo: well?");
    assert_eq!(world.send("b", "c", "and you?")["text"], "echo: and you?");
    assert_eq!(world.worker("b"), neighbour);
    world.shut_down();
}

fn what_holds_each_limit_is_told(runtime: &str) {
    let limits =
        "memory_max = \"2G\", memory_high = \"1G\", cpu_max = 150, pids_max = 400, cpu_weight = 50, open_files = 512";
    let world = bounded(runtime, limits);
    let end = world.send("a", "c", "[[tool ulimit -n; ulimit -c]] look");
    assert_eq!(end["text"], "tool exit 0: 512\n0\necho: look", "{end}");
    let row = world.ps("a");
    let by = |name: &str| {
        let rows = row["limits"].as_array().unwrap().iter();
        let found: Vec<&Value> = rows.filter(|bound| bound["limit"] == name).collect();
        assert_eq!(found.len(), 1, "{name}: {row}");
        found[0]["by"].as_str().unwrap().to_owned()
    };
    let doctor = world.cli(&["doctor", "--json"]).json();
    let level = |what: &str| {
        let mut all = doctor.as_array().unwrap().iter();
        all.find(|f| f["about"] == "a" && f["what"] == what).unwrap_or_else(|| panic!("{what}: {doctor:#}"))["level"]
            .clone()
    };
    assert_eq!((by("open_files"), level("limits.open_files")), ("rlimit".into(), "ok".into()));
    let group =
        row["isolation"].as_str().unwrap().contains("cgroup").then(|| crate::isolation::group_of(world.worker("a")));
    for (limit, controller, otherwise) in [
        ("memory_max", "memory.max", "sampling"),
        ("pids_max", "pids.max", "sampling"),
        ("cpu_max", "cpu.max", "nothing"),
    ] {
        // Where the controller is, the kernel has the number; where it is not, nobody says that it has.
        let file = group.as_ref().map(|group| group.parent().unwrap().join(controller)).filter(|file| file.exists());
        let level = level(&format!("limits.{limit}"));
        if let Some(file) = file {
            let wanted =
                row["limits"].as_array().unwrap().iter().find(|b| b["limit"] == limit).unwrap()["value"].clone();
            let held = std::fs::read_to_string(file).unwrap();
            let first = held.split_whitespace().next().unwrap().parse::<u64>().unwrap();
            let wanted = wanted.as_u64().unwrap() * if limit == "cpu_max" { 1000 } else { 1 };
            assert_eq!((by(limit), level, first), ("kernel".to_owned(), "ok".into(), wanted));
        } else {
            let expected = if otherwise == "nothing" { "fail" } else { "warn" };
            assert_eq!((by(limit), level), (otherwise.to_owned(), expected.into()), "{limit}");
        }
    }
    // Exit code 1 exactly if something is not held.
    let ran = world.cli(&["doctor"]);
    assert_eq!(ran.code == 1, ran.stdout.contains("fail"), "{ran:?}");
    assert!(ran.stdout.contains("limits.cpu_max"), "{ran:?}");
    world.shut_down();
}
