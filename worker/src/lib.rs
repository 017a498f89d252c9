//! The worker: one process that serves one agent. It knows Codex and nothing of channels.
//!
//! ```text
//!  args -> lock -> link (binds, says `listening`) -> driver ----------------------------.
//!                                                     |  one loop: Input -> machine ->  |
//!   supervisor ==frames== link.rs ------------------->|           Effects, in order     |
//!   codex child -- codex/pipe.rs <- codex/child.rs -->|                                 |
//!   deadlines, SIGTERM ------------------------------>|                                 |
//!                                                     '-> journal.rs, texts.rs, home/, codex/
//! ```
//!
//! * [`args`], [`user`], [`lock`]: who am I, and am I the only one.
//! * [`link`]: the socket to the supervisor.
//! * [`driver`]: the only loop, and the only place where the machine meets the world.
//! * `machine/`: decides.
//! * [`journal`], [`texts`]: what must survive this process.
//! * [`home`]: the agent's `CODEX_HOME` and `HOME`.
//! * [`codex`]: starts, feeds, contains and ends Codex children; [`sweep`] finds what they left,
//!   [`usage`] what they use.
//! * [`clock`], [`log`]: the only reader of time, the only writer of the agent's log.

pub mod args;
pub mod clock;
pub mod codex;
pub mod driver;
pub mod home;
pub mod journal;
pub mod link;
pub mod lock;
pub mod log;
pub mod machine;
pub mod sweep;
pub mod texts;
pub mod usage;
pub mod user;

use args::Args;
use codex::cgroup::Group;
use protocol::version::Release;
use rustix::fs::Mode;
use std::io::Write;
use std::process::ExitCode;

/// Exit codes of a worker.
pub mod exit {
    /// It left because everything was done.
    pub const DONE: u8 = 0;
    /// It was started in a wrong way.
    pub const USAGE: u8 = 64;
    /// A bug.
    pub const BUG: u8 = 70;
    /// Its own folder or socket cannot be used.
    pub const IO: u8 = 74;
    /// Another worker serves this agent; nothing was touched.
    pub const HELD: u8 = 75;
}

/// What is added to the kernel's wish to end this process when memory is short: an agent goes before its supervisor.
const OOM_SCORE_ADDED: i32 = 100;

/// The worker's program.
pub fn main(release: Release) -> ExitCode {
    release.begin();
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some("probe") {
        return probe(&words.next().unwrap_or_default());
    }
    match Args::parse(std::env::args().skip(1)).map_err(|e| (exit::USAGE, e.to_string())).and_then(|args| serve(&args))
    {
        Ok(()) => ExitCode::from(exit::DONE),
        Err((code, text)) => {
            // The supervisor owns stderr and shows its tail; there is nobody else to tell.
            drop(writeln!(std::io::stderr(), "cofferdam-worker: {text}"));
            ExitCode::from(code)
        }
    }
}

/// Says on stdout how Codex children would be contained here, for `cofferdam doctor`: `namespace BWRAP`, `none WHY` or
/// `missing COMMAND`.
fn probe(command: &str) -> ExitCode {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::from(exit::IO);
    };
    let line = match runtime.block_on(codex::nursery::Nursery::try_host(command)) {
        Some(Ok(bwrap)) => format!("namespace {}", bwrap.display()),
        Some(Err(why)) => format!("none {}", why.lines().next().unwrap_or_default()),
        None => format!("missing {command}"),
    };
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => ExitCode::from(exit::DONE),
        Err(_) => ExitCode::from(exit::IO),
    }
}

fn serve(args: &Args) -> Result<(), (u8, String)> {
    let umask = settle();
    let mut entered = None;
    if let Some((uid, gid)) = args.user {
        // The kernel asks who puts a process into a group; afterwards it would be nobody who may.
        entered = args.cgroup.as_deref().map(Group::enter);
        user::become_user(uid, gid).map_err(|e| (exit::IO, format!("cannot become user {uid}, group {gid}: {e}")))?;
    }
    let held = lock::Lock::take(&args.agent_dir).map_err(|e| {
        let code = if matches!(e, lock::LockError::Held(_)) { exit::HELD } else { exit::IO };
        (code, e.to_string())
    })?;
    log::install(&args.agent_dir, args.incarnation);
    let group = args.cgroup.as_deref().and_then(|dir| {
        let entered = entered.unwrap_or_else(|| Group::enter(dir));
        if let Err(error) = &entered {
            tracing::warn!(%error, group = %dir.display(), "this worker has no cgroup");
        }
        entered.ok()
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| (exit::IO, format!("cannot start the event loop: {e}")))?;
    let ended =
        runtime.block_on(driver::run(args, driver::Start { umask, group })).map_err(|e| (exit::IO, e.to_string()));
    drop(held);
    ended
}

/// Makes this process a session of its own, the reaper of its orphans, and private in what it writes.
/// All but the mask is best effort: a worker without them still works, and its containment says how well.
fn settle() -> Mode {
    let before = rustix::process::umask(Mode::from_raw_mode(0o077));
    // A process that leads a group already cannot make a session; the supervisor starts it so that it does not.
    rustix::process::setsid().ok();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).ok();
    let path = "/proc/self/oom_score_adj";
    let score = std::fs::read_to_string(path).ok().and_then(|t| t.trim().parse::<i32>().ok()).unwrap_or(0);
    drop(std::fs::write(path, (score + OOM_SCORE_ADDED).min(1000).to_string()));
    before
}
