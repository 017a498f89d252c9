//! Whether the operator is heard while the agents are busy or wedged.

use super::ask::{Asker, PATIENCE};
use super::clock::{ms, now, until};
use super::life::workers_in_order;
use super::table::{Budget, Samples, Table};
use super::{Fault, Plan, agent, agents, host, started};
use crate::processes;
use nix::sys::signal::Signal;
use protocol::control::{Health, HealthStatus, Reply};
use protocol::frame;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::Barrier;

/// Callers at once.
const CALLERS: usize = 64;
/// Commands at once.
const COMMANDS: usize = 8;
/// Agents of these worlds.
const AGENTS: u32 = 50;

/// 25 workers stopped, 25 with a turn that hangs; and the socket alone for comparison.
pub(super) fn health(plan: &Plan, table: &mut Table) -> Result<(), Fault> {
    let lines = "runtime = \"codex-cli\"\nheartbeat_timeout = \"1h\"";
    let (world, asker) = started(agents(plan.world(), AGENTS as usize, lines), AGENTS)?;
    let rounds = plan.rounds(200);
    Table::heading("control");
    Table::row("health, 64 callers, 50 agents idle, ms", &callers(&world.socket(), rounds)?);
    let workers = workers_in_order(&asker, AGENTS as usize)?;
    let (stopped, busy) = workers.split_at(workers.len() / 2);
    for index in stopped.len()..workers.len() {
        asker.send(&agent(index), "c", "[[hang]]")?;
    }
    let hanging = until(PATIENCE, || (world.model.count("[[hang]]") >= busy.len()).then_some(()));
    hanging.ok_or_else(|| Fault("the turns did not reach the model".into()))?;
    for pid in stopped {
        processes::signal(*pid, Signal::SIGSTOP);
    }
    for index in 0..stopped.len() {
        asker.send(&agent(index), "c", "hello")?;
    }
    let all_busy = until(PATIENCE, || (asker.count("busy") == AGENTS).then_some(()));
    all_busy.ok_or_else(|| Fault("not every agent became busy".into()))?;
    table.judged(
        "health, 64 callers, 25 agents wedged and 25 busy, ms",
        &callers(&world.socket(), rounds)?,
        Budget::P99(5.0),
    );
    let wedged = stopped.iter().filter(|pid| processes::state(**pid) == Some('T')).count();
    Table::note(&format!("{wedged} workers in state T, {} agents busy in health's words", asker.count("busy")));
    let socket = world.root().join("echo.sock");
    Table::row("  floor: 64 callers of an echo of the same size, ms", &echo(&socket, rounds)?);
    Ok(())
}

/// The latencies of [`CALLERS`] callers, each of which asks again as soon as it has its answer.
pub(super) fn callers(socket: &Path, rounds: usize) -> Result<Samples, Fault> {
    let asker = Asker::new(socket.to_owned());
    let gate = Barrier::new(CALLERS);
    let one = || -> Result<Vec<f64>, Fault> {
        gate.wait();
        let mut all = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let begin = now();
            asker.health()?;
            all.push(ms(begin.elapsed()));
        }
        Ok(all)
    };
    at_once(CALLERS, one)
}

/// The same callers at a socket whose other end answers without any thought.
fn echo(socket: &Path, rounds: usize) -> Result<Samples, Fault> {
    let health = Reply::Health(Health {
        status: HealthStatus::Ok,
        version: String::new(),
        uptime_s: 1,
        agents: [("ready".to_owned(), AGENTS)].into(),
        ledger: "ok".into(),
        channels: Vec::new(),
        upgrade_failed: None,
    });
    let mut bytes = Vec::new();
    for reply in [health, Reply::Done] {
        let frame = reply.to_frame().map_err(|error| Fault(error.to_string()))?;
        bytes.extend(frame::encode(frame.kind, &frame.body).map_err(|error| Fault(error.to_string()))?);
    }
    let listener = UnixListener::bind(socket)?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A caller that has gone is measured by nobody.
            drop(answer(stream, &bytes));
        }
    });
    callers(socket, rounds)
}

fn answer(mut stream: UnixStream, bytes: &[u8]) -> std::io::Result<()> {
    let mut request = [0; 256];
    let _read: usize = stream.read(&mut request)?;
    stream.write_all(bytes)
}

/// `cofferdam health` as a process, 8 at once, beside a program that does nothing.
pub(super) fn command(plan: &Plan, table: &mut Table) -> Result<(), Fault> {
    let (world, _asker) = started(agents(plan.world(), AGENTS as usize, ""), AGENTS)?;
    let rounds = plan.rounds(50);
    let run = |mut command: std::process::Command| -> Result<f64, Fault> {
        let begin = now();
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        let took = ms(begin.elapsed());
        if status.success() { Ok(took) } else { Err(Fault(format!("the command ended {status}"))) }
    };
    let health = || (0..rounds).map(|_| run(world.command(&["health"]))).collect();
    let nothing = || (0..rounds).map(|_| run(world.other("/bin/true"))).collect();
    Table::heading("control, as a command");
    table.judged("cofferdam health, 8 at once, ms", &at_once(COMMANDS, health)?, Budget::Median(8.0));
    Table::row("  floor: /bin/true, 8 at once, ms", &at_once(COMMANDS, nothing)?);
    Table::row("cofferdam health, one after another, ms", &at_once(1, health)?);
    Table::row("  supervisor: PSS with 50 idle agents, MiB", &Samples::one(host::memory(world.pid()).pss));
    Ok(())
}

/// What `count` callers measure at once.
pub(super) fn at_once(count: usize, one: impl Fn() -> Result<Vec<f64>, Fault> + Sync) -> Result<Samples, Fault> {
    let mut all = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(&one)).collect();
        for thread in threads {
            all.extend(thread.join().map_err(|_| Fault("a caller panicked".into()))??);
        }
        Ok::<(), Fault>(())
    })?;
    Ok(Samples::new(all))
}
