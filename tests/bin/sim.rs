//! `cofferdam-sim`: the simulation by hand, with as many seeds as wanted.
//!
//! ```text
//! cargo run --release --bin cofferdam-sim -- [--seeds N] [--from SEED] [--threads N]
//! ```
//! Prints what was reached. Exit code 1: a promise was broken, the seed and its story are printed; or a thousand seeds and
//! more left a gap.

use clap::Parser;
use cofferdam_tests::sim;
use std::process::ExitCode;

/// Simulates supervisor and workers in virtual time.
#[derive(Debug, Parser)]
#[command(name = "cofferdam-sim", version)]
struct Cli {
    /// How many seeds
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    seeds: u64,
    /// The first of them
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,
    /// Threads that share them; else one a core
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

#[expect(clippy::print_stdout, reason = "a command tells its person what it found")]
fn main() -> ExitCode {
    let cli = Cli::parse();
    let threads = cli.threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    // A broken promise is a panic that the run catches and tells.
    std::panic::set_hook(Box::new(|_| {}));
    let runs = sim::many(cli.from, cli.seeds, threads);
    println!("{}", runs.table());
    for why in &runs.broken {
        println!("{why}\n");
    }
    let gaps = if cli.seeds < 1_000 { Vec::new() } else { runs.cover.gaps() };
    for gap in &gaps {
        println!("gap: {gap}");
    }
    if runs.broken.is_empty() && gaps.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
