//! A thousand seeds of both machines joined by real frames: deaths, stops, cuts, full disks, jumping clocks, in every order.

use cofferdam_tests::sim;

/// Seeds that failed once: always run first.
const KEPT: &str = include_str!("sim/seeds.txt");
/// Threads that share the seeds.
const SHARDS: usize = 4;

fn kept() -> Vec<u64> {
    let lines = KEPT.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(|line| line.parse().unwrap()).collect()
}

#[test]
fn seeds_that_failed_once_do_not_fail_again() {
    for seed in kept() {
        sim::run(seed).unwrap_or_else(|why| panic!("{why}"));
    }
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    for seed in 0..20 {
        let hash = || sim::run(seed).unwrap_or_else(|why| panic!("{why}")).hash;
        assert_eq!(hash(), hash(), "seed {seed}");
    }
}

#[test]
fn a_thousand_seeds_break_no_promise_and_reach_every_pair() {
    let count = std::env::var("COFFERDAM_SIM_SEEDS").map_or(1_000, |text| text.parse().unwrap());
    let runs = sim::many(0, count, SHARDS);
    println!("{}", runs.table());
    assert!(runs.broken.is_empty(), "{}", runs.broken.join("\n\n"));
    let gaps = runs.cover.gaps();
    assert!(count < 1_000 || gaps.is_empty(), "{} gaps:\n  {}", gaps.len(), gaps.join("\n  "));
}
