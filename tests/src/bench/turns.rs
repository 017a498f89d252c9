//! What we add to a turn.
//!
//! ```text
//!   message --> commit, begin --> ENTERED prompt READ .. LEFT --> outcome, commit --> answer
//!   `------ hand-over ------------------------'    fake.rs `--------- return ---------------'
//! ```

use super::ask::Asker;
use super::bare::Bare;
use super::clock::{ms, ms_between, now, until};
use super::table::{Budget, Samples, Table};
use super::{Fault, Plan, agent, agents, fake, host, started};
use crate::codex::codex_binary;
use crate::world::World;
use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::Duration;

/// Longest wait for a child of a worker to show up in `/proc`.
const SHOWN: Duration = Duration::from_mins(1);
/// Agents that answer at once.
const AT_ONCE: usize = 8;

/// With a Codex that costs nothing: what is left is ours.
pub(super) fn share(plan: &Plan, table: &mut Table) -> Result<(), Fault> {
    let dir = tempfile::Builder::new().prefix("cfd-fake-").tempdir_in("/var/tmp")?;
    let fake = fake_codex(dir.path())?;
    let builder =
        plan.world().codex(&fake).agent("warm", "runtime = \"codex\"").agent("cli", "runtime = \"codex-cli\"");
    let (world, asker) = started(builder, 2)?;
    let rounds = plan.rounds(300);
    Table::heading("our share of a turn, Codex itself costs nothing");
    asker.answer("warm", "c", "hello")?;
    let (mut there, mut back, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    let worker = asker.worker("warm")?;
    let cpu = host::cpu_ms(world.pid()) + host::cpu_ms(worker);
    for _ in 0..rounds {
        let turn = asker.answer("warm", "c", "hello")?;
        let [_, read, left] = times(turn.end.text.head())?;
        there.push(ms_between(turn.sent_us, read));
        back.push(ms_between(left, turn.got_us));
        whole.push(ms(turn.took));
    }
    let cpu = (host::cpu_ms(world.pid()) + host::cpu_ms(worker) - cpu) / f64::from(u32::try_from(rounds).unwrap_or(1));
    table.judged("codex: message to prompt in Codex' hands, ms", &Samples::new(there), Budget::Median(3.0));
    Table::row("codex: Codex' last word to the answer, ms", &Samples::new(back));
    Table::row("codex: whole, ms", &Samples::new(whole));
    table.judged("codex: processor of supervisor and worker a turn, ms", &Samples::one(cpu), Budget::Max(3.0));
    let worker = asker.worker("cli")?;
    asker.answer("cli", "warm", "hello")?;
    let (mut there, mut back, mut both) = (Vec::new(), Vec::new(), Vec::new());
    let cpu = host::cpu_ms(world.pid()) + host::cpu_ms(worker);
    for round in 0..rounds {
        let turn = asker.answer("cli", &format!("c{round}"), "hello")?;
        let [entered, _, left] = times(turn.end.text.head())?;
        let (first, second) = (ms_between(turn.sent_us, entered), ms_between(left, turn.got_us));
        there.push(first);
        back.push(second);
        both.push(first + second);
    }
    let cpu = (host::cpu_ms(world.pid()) + host::cpu_ms(worker) - cpu) / f64::from(u32::try_from(rounds).unwrap_or(1));
    Table::row("codex-cli: message to Codex' first instruction, ms", &Samples::new(there));
    Table::row("codex-cli: Codex' last instruction to the answer, ms", &Samples::new(back));
    table.judged("codex-cli: both, our share with its fsyncs, ms", &Samples::new(both), Budget::Median(10.0));
    table.judged("codex-cli: processor of supervisor and worker a turn, ms", &Samples::one(cpu), Budget::Max(3.0));
    Table::row("  one fsync of 4 KiB on the disk of the state, ms", &fsyncs(&world, rounds)?);
    Ok(())
}

/// A package of a Codex that is this very program, with the real helper beside it.
fn fake_codex(dir: &Path) -> Result<PathBuf, Fault> {
    for name in ["bin", "codex-resources"] {
        fs::create_dir(dir.join(name))?;
    }
    let program = dir.join("bin/codex");
    fs::copy(std::env::current_exe()?, &program)?;
    let real = codex_binary().canonicalize()?;
    let bwrap = real.parent().and_then(Path::parent).map(|package| package.join("codex-resources/bwrap"));
    if let Some(bwrap) = bwrap.filter(|path| path.is_file()) {
        symlink(bwrap, dir.join("codex-resources/bwrap"))?;
    }
    Ok(program)
}

fn times(answer: &str) -> Result<[u64; 3], Fault> {
    fake::times(answer).ok_or_else(|| Fault(format!("no times in {answer:?}")))
}

fn fsyncs(world: &World, rounds: usize) -> Result<Samples, Fault> {
    let mut file = File::create(world.state().join("fsync"))?;
    let mut all = Vec::new();
    for _ in 0..rounds {
        let begin = now();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        all.push(ms(begin.elapsed()));
    }
    Ok(Samples::new(all))
}

/// `codex exec` through us and by itself, in turns, in the same home.
pub(super) fn exec(plan: &Plan, table: &mut Table) -> Result<(), Fault> {
    let (world, asker) = started(plan.world().agent("a0", "runtime = \"codex-cli\""), 1)?;
    asker.answer("a0", "first", "warm")?;
    let bare = learn(&world, &asker, "a0", "exec")?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let worker = asker.worker("a0")?;
    let cpu = host::cpu_ms(world.pid()) + host::cpu_ms(worker);
    for round in 0..plan.rounds(50) {
        ours.push(ms(asker.answer("a0", &format!("c{round}"), "hello")?.took));
        theirs.push(bare.exec("hello")?);
    }
    let count = f64::from(u32::try_from(ours.len()).unwrap_or(1));
    let cpu = (host::cpu_ms(world.pid()) + host::cpu_ms(worker) - cpu) / count;
    let (ours, theirs) = (Samples::new(ours), Samples::new(theirs));
    Table::heading("turns with the real Codex");
    Table::row("codex-cli: message to answer, new thread, ms", &ours);
    Table::row("  bare codex exec, same arguments and home, ms", &theirs);
    Table::row("  difference of the medians, ms", &Samples::one(ours.median() - theirs.median()));
    Table::row("  ratio of the medians", &Samples::one(ours.median() / theirs.median()));
    table.judged("  processor of supervisor and worker a turn, ms", &Samples::one(cpu), Budget::Max(3.0));
    Ok(())
}

/// Warm turns of `codex app-server` through us and by itself, in turns.
pub(super) fn warm(plan: &Plan, table: &mut Table) -> Result<(), Fault> {
    let lines = "runtime = \"codex\"\nidle_after = \"1h\"";
    let (world, asker) = started(plan.world().agent("ours", lines).agent("bare", lines), 2)?;
    let bare = learn(&world, &asker, "bare", "app-server")?;
    asker.answer("ours", "c", "warm")?;
    // Its home is free only when its own app-server has gone.
    asker.change(protocol::control::Verb::Stop, "bare")?;
    let mut talk = bare.app_server("standin", "gpt-5.5")?;
    talk.turn("warm")?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let worker = asker.worker("ours")?;
    let cpu = host::cpu_ms(world.pid()) + host::cpu_ms(worker);
    for _ in 0..plan.rounds(100) {
        ours.push(ms(asker.answer("ours", "c", "hello")?.took));
        theirs.push(talk.turn("hello")?);
    }
    let count = f64::from(u32::try_from(ours.len()).unwrap_or(1));
    let cpu = (host::cpu_ms(world.pid()) + host::cpu_ms(worker) - cpu) / count;
    let (ours, theirs) = (Samples::new(ours), Samples::new(theirs));
    Table::row("codex, warm: message to answer, ms", &ours);
    Table::row("  bare app-server turn, ms", &theirs);
    table.judged("  ratio of the medians", &Samples::one(ours.median() / theirs.median()), Budget::Max(1.2));
    table.judged("  processor of supervisor and worker a turn, ms", &Samples::one(cpu), Budget::Max(3.0));
    Ok(())
}

/// Holds a turn of `agent` until its Codex child has been looked at.
fn learn(world: &World, asker: &Asker, agent: &str, mode: &str) -> Result<Bare, Fault> {
    let waiting = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let turn = asker.send(agent, "learn", "[[hold learn]]")?;
    waiting.block_on(world.model.wait_held("learn", SHOWN));
    let bare = Bare::of_worker(asker.worker(agent)?, mode);
    world.model.release("learn");
    let ended = until(SHOWN, || asker.story(turn).filter(|story| story.row.ended_at.is_some()));
    ended.ok_or_else(|| Fault("the turn to learn from did not end".into()))?;
    bare
}

/// 8 warm agents are asked at the same moment.
pub(super) fn eight(plan: &Plan, table: &mut Table) -> Result<(), Fault> {
    let lines = "runtime = \"codex\"\nidle_after = \"1h\"";
    let (_world, asker) = started(agents(plan.world(), AT_ONCE, lines), 8)?;
    for index in 0..AT_ONCE {
        asker.answer(&agent(index), "c", "warm")?;
    }
    let mut last = Vec::new();
    for _ in 0..plan.rounds(20) {
        let gate = Barrier::new(AT_ONCE);
        let (asker, gate) = (&asker, &gate);
        let slowest = std::thread::scope(|scope| {
            let ask = |index: usize| {
                gate.wait();
                asker.answer(&agent(index), "c", "hello").map(|turn| ms(turn.took))
            };
            let threads: Vec<_> = (0..AT_ONCE).map(|index| scope.spawn(move || ask(index))).collect();
            let mut slowest = 0.0_f64;
            for thread in threads {
                slowest = slowest.max(thread.join().map_err(|_| Fault("a caller panicked".into()))??);
            }
            Ok::<f64, Fault>(slowest)
        })?;
        last.push(slowest);
    }
    table.judged("8 agents at once, warm: the last answer, ms", &Samples::new(last), Budget::Median(600.0));
    Ok(())
}
