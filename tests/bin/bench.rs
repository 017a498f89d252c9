//! `cofferdam-bench`: measures what is promised in figures and prints a table.
//!
//! ```text
//! cargo build --release --bin cofferdam --bin cofferdam-bench
//! cargo build --profile worker --bin cofferdam-worker && cp target/worker/cofferdam-worker target/release/
//! target/release/cofferdam-bench [budgets|disturb|all|peers] [--agents N] [--quick] [--only WORD]
//! ```
//!
//! | argument | means |
//! |---|---|
//! | `budgets` | every figure that has a budget: idle costs, starts, deaths, control, turns, a flood (about 6 minutes) |
//! | `disturb` | the turns of 13 agents while a 14th compacts for ever, a 15th floods and a 16th is stopped (3 minutes) |
//! | `all` | both; the default |
//! | `peers` | Cofferdam and those of supervisord, s6, runit, pm2 and pueue that are on `PATH`, on the same work (8 minutes) |
//! | `--agents N` | also N idle agents at once: 1000 needs 2 GiB; with `peers`: children of each, else 10 |
//! | `--quick` | a tenth of the rounds, to see that it works |
//! | `--only WORD` | only measures with this in their name |
//!
//! It needs `cofferdam` and `cofferdam-worker` beside itself (or `--supervisor`, `--worker`) and a real Codex, found as the
//! tests find it (`$COFFERDAM_TEST_CODEX`, `codex` on `PATH`, `target/codex`). The model is the stand-in, in this
//! process. It writes below `/var/tmp` and takes everything away again.
//!
//! How to read the table: `n` is the number of samples; percentiles are samples (nearest rank); `load` is the load
//! average of the last minute when the row was printed: above the number of cores, latencies say more about the
//! neighbours than about us. Ratios compare figures of the same run, taken in turns. Exit code 1: a budget was missed.

use clap::{Parser, ValueEnum};
use cofferdam_tests::bench::{self, Plan, Which, fake};
use cofferdam_tests::world::Binaries;
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures Cofferdam on this machine.
#[derive(Debug, Parser)]
#[command(name = "cofferdam-bench", version)]
struct Cli {
    /// What to measure
    #[arg(value_enum, default_value = "all")]
    which: Group,
    /// Also measure so many idle agents at once; with `peers`: children of each, else 10
    #[arg(long, value_name = "N")]
    agents: Option<usize>,
    /// A tenth of the rounds
    #[arg(long)]
    quick: bool,
    /// Only measures with this in their name
    #[arg(long, value_name = "WORD")]
    only: Option<String>,
    /// The supervisor; else `cofferdam` beside this program
    #[arg(long, value_name = "PATH")]
    supervisor: Option<PathBuf>,
    /// The worker; else `cofferdam-worker` beside this program
    #[arg(long, value_name = "PATH")]
    worker: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Group {
    Budgets,
    Disturb,
    All,
    Peers,
}

impl From<Group> for Which {
    fn from(group: Group) -> Self {
        match group {
            Group::Budgets => Self::Budgets,
            Group::Disturb => Self::Disturb,
            Group::All => Self::All,
            Group::Peers => Self::Peers,
        }
    }
}

#[expect(clippy::print_stderr, reason = "a command tells its person what went wrong")]
fn main() -> ExitCode {
    // A world may run this very program as its Codex.
    if std::env::args().nth(1).is_some_and(|word| fake::play(&word)) {
        return ExitCode::SUCCESS;
    }
    let cli = Cli::parse();
    let supervisor = cli.supervisor.or_else(|| bench::beside("cofferdam"));
    let worker = cli.worker.or_else(|| bench::beside("cofferdam-worker"));
    let (Some(supervisor), Some(worker)) = (supervisor, worker) else {
        eprintln!("cofferdam-bench: cofferdam and cofferdam-worker must lie beside it: build them with --release");
        return ExitCode::FAILURE;
    };
    let binaries = Binaries { supervisor, worker };
    let plan = Plan { which: cli.which.into(), agents: cli.agents, quick: cli.quick, only: cli.only, binaries };
    if bench::run(&plan) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
