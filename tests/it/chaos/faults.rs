//! What goes wrong, and how it is set right again. What was stopped goes on after a few steps, and at the end in any case.

use super::{AGENTS, Chaos};
use cofferdam_tests::processes::{self, kill9};
use cofferdam_tests::standin::telegram::{Bot, Fault, FaultKind};
use nix::sys::signal::Signal;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;

/// How many kinds [`Faults::one`] draws from.
const KINDS: u64 = 14;

/// What was done so far, and what is still wrong.
#[derive(Default)]
pub(super) struct Faults {
    done: BTreeMap<&'static str, u64>,
    /// Stopped processes, and how many steps they stay so.
    stopped: Vec<(u32, u64)>,
    /// Steps that the disk stays full; nothing is wrong with it at 0.
    full: u64,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} faults:", self.total())?;
        self.done.iter().try_for_each(|(kind, times)| write!(f, " {kind} {times};"))
    }
}

impl Faults {
    /// How many there were.
    pub(super) fn total(&self) -> u64 {
        self.done.values().sum()
    }

    /// How many of one kind.
    pub(super) fn of(&self, kind: &str) -> u64 {
        self.done.get(kind).copied().unwrap_or_default()
    }

    /// Does one, drawn by the dice.
    pub(super) fn one(&mut self, chaos: &mut Chaos) {
        let name = match chaos.dice.throw(KINDS) {
            0 => Some(kill_supervisor(chaos)),
            1 => self.leave_supervisor(chaos),
            2 => Some(stop_supervisor(chaos)),
            3 => worker(chaos).map(kill9).map(|()| "SIGKILL worker"),
            4 => worker(chaos).map(terminate).map(|()| "SIGTERM worker"),
            5 => self.stop_worker(chaos),
            6 => codex(chaos).map(kill9).map(|()| "SIGKILL Codex"),
            7 => codex(chaos).map(terminate).map(|()| "SIGTERM Codex"),
            8 => self.stop_codex(chaos),
            9 => kill_tools(chaos),
            10 => cut_session(chaos),
            11 => self.fill_disk(chaos),
            12 => Some(break_telegram(chaos)),
            13 => Some(operate(chaos)),
            side => panic!("a die with a side {side}"),
        };
        if let Some(name) = name {
            *self.done.entry(name).or_default() += 1;
        }
    }

    /// One step later: what was wrong for long enough is set right.
    pub(super) fn heal_some(&mut self, chaos: &mut Chaos) {
        for (pid, steps) in &mut self.stopped {
            *steps = steps.saturating_sub(1);
            if *steps == 0 {
                processes::signal(*pid, Signal::SIGCONT);
            }
        }
        self.stopped.retain(|(_, steps)| *steps > 0);
        if self.full > 0 {
            self.full -= 1;
            if self.full == 0 {
                free_disk(chaos);
            }
        }
    }

    /// Sets everything right but Telegram, whose faults use themselves up.
    pub(super) fn heal_all_but_telegram(&mut self, chaos: &Chaos) {
        self.stopped.drain(..).for_each(|(pid, _)| processes::signal(pid, Signal::SIGCONT));
        if std::mem::take(&mut self.full) > 0 {
            free_disk(chaos);
        }
        chaos.wait_up();
        for (agent, _, _) in AGENTS {
            let row = chaos.world.ps(agent);
            if row["state"] == "failed" || row["wanted"] == "down" {
                // As an operator does who reads that an agent was given up.
                chaos.world.cli(&["start", agent]);
            }
        }
    }

    /// Sets everything right.
    pub(super) fn heal_all(&mut self, chaos: &mut Chaos) {
        self.heal_all_but_telegram(chaos);
        chaos.bots.iter().for_each(Bot::no_faults);
    }

    fn stop(&mut self, pid: u32, steps: u64) {
        processes::signal(pid, Signal::SIGSTOP);
        self.stopped.push((pid, steps));
    }

    fn leave_supervisor(&self, chaos: &mut Chaos) -> Option<&'static str> {
        // A full disk may keep it from its last commit: a unit would kill it then, which is the fault before this one.
        if self.full > 0 {
            return None;
        }
        // One that has not begun to listen to signals dies of it: nothing was begun by it either.
        let code = chaos.world.end_supervisor(Signal::SIGTERM);
        assert!(matches!(code, Some(0) | None), "{code:?} {}", chaos.world.story());
        chaos.world.run();
        Some("SIGTERM supervisor")
    }

    fn stop_worker(&mut self, chaos: &mut Chaos) -> Option<&'static str> {
        let steps = 1 + chaos.dice.throw(20);
        worker(chaos).map(|pid| self.stop(pid, steps)).map(|()| "SIGSTOP worker")
    }

    fn stop_codex(&mut self, chaos: &mut Chaos) -> Option<&'static str> {
        let steps = 1 + chaos.dice.throw(10);
        codex(chaos).map(|pid| self.stop(pid, steps)).map(|()| "SIGSTOP Codex")
    }

    fn fill_disk(&mut self, chaos: &mut Chaos) -> Option<&'static str> {
        let disk = chaos.disk.as_ref()?;
        let mut filler = File::create(disk.at.join("filler")).ok()?;
        let block = vec![0_u8; 1 << 20];
        while filler.write_all(&block).is_ok() {}
        self.full = 1 + chaos.dice.throw(6);
        Some("full disk")
    }
}

fn agent(chaos: &mut Chaos) -> &'static str {
    AGENTS[usize::try_from(chaos.dice.throw(AGENTS.len() as u64)).unwrap()].0
}

fn worker(chaos: &mut Chaos) -> Option<u32> {
    let agent = agent(chaos);
    chaos.world.ps(agent)["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())
}

fn codex(chaos: &mut Chaos) -> Option<u32> {
    let agent = agent(chaos);
    crate::scenes::codex_pids(&chaos.world, agent).first().copied()
}

fn terminate(pid: u32) {
    processes::signal(pid, Signal::SIGTERM);
}

fn kill_supervisor(chaos: &mut Chaos) -> &'static str {
    chaos.world.kill_supervisor();
    chaos.world.run();
    "SIGKILL supervisor"
}

/// Stands still for as long as a look at the ledger takes: the command line of the next step would wait for it.
fn stop_supervisor(chaos: &mut Chaos) -> &'static str {
    let pid = chaos.world.pid();
    processes::signal(pid, Signal::SIGSTOP);
    chaos.count("SELECT count(*) FROM turns");
    processes::signal(pid, Signal::SIGCONT);
    "SIGSTOP supervisor"
}

fn kill_tools(chaos: &Chaos) -> Option<&'static str> {
    let tools = chaos.world.codex_processes().into_iter().filter(|pid| {
        let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        exe.file_name().is_some_and(|name| name != "codex" && name != "bwrap")
    });
    let killed = tools.map(kill9).count();
    (killed > 0).then_some("SIGKILL tool")
}

/// Cuts the supervisor's sessions with its workers: takes its end of a socket and shuts it down.
fn cut_session(chaos: &mut Chaos) -> Option<&'static str> {
    let pid = Pid::from_raw(i32::try_from(chaos.world.pid()).ok()?)?;
    let supervisor = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let entries = fs::read_dir(format!("/proc/{}/fd", chaos.world.pid())).ok()?.flatten();
    let sockets: Vec<i32> = entries
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:")))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    let connected: Vec<_> = sockets
        .into_iter()
        .filter_map(|fd| pidfd_getfd(supervisor.as_fd(), fd, PidfdGetfdFlags::empty()).ok())
        .filter(|socket| is_session(socket.as_fd()))
        .collect();
    let at = usize::try_from(chaos.dice.throw(connected.len().max(1) as u64)).ok()?;
    rustix::net::shutdown(connected.get(at)?, rustix::net::Shutdown::Both).ok()?;
    Some("cut session")
}

/// Whether this end of a socket is connected to an agent's socket.
fn is_session(socket: std::os::fd::BorrowedFd<'_>) -> bool {
    let Ok(Some(peer)) = rustix::net::getpeername(socket) else { return false };
    let Ok(peer) = rustix::net::SocketAddrUnix::try_from(peer) else { return false };
    peer.path_bytes().is_some_and(|path| String::from_utf8_lossy(path).contains("/agents/"))
}

fn free_disk(chaos: &Chaos) {
    if let Some(disk) = &chaos.disk {
        drop(fs::remove_file(disk.at.join("filler")));
    }
}

fn break_telegram(chaos: &mut Chaos) -> &'static str {
    let bot = &chaos.bots[usize::try_from(chaos.dice.throw(2)).unwrap()];
    let (name, fault) = match chaos.dice.throw(7) {
        0 => ("telegram 429", Fault::on("sendMessage", FaultKind::flood(1))),
        1 => ("telegram 502", Fault::next(FaultKind::bad_gateway()).times(2)),
        2 => ("telegram cut before", Fault::next(FaultKind::CutBefore)),
        3 => ("telegram cut after send", Fault::on("sendMessage", FaultKind::CutAfter)),
        4 => ("telegram cut after poll", Fault::on("getUpdates", FaultKind::CutAfter)),
        5 => ("telegram page", Fault::next(FaultKind::Html { code: 503 })),
        _ => ("telegram slow", Fault::next(FaultKind::Delay { ms: 700 }).times(3)),
    };
    bot.fault(fault);
    name
}

fn operate(chaos: &mut Chaos) -> &'static str {
    let agent = agent(chaos);
    let (name, arguments) = match chaos.dice.throw(6) {
        0 => ("restart", vec!["restart", agent]),
        1 => ("kill and start", vec!["kill", agent]),
        2 => ("interrupt", vec!["interrupt", agent]),
        3 => ("reload", vec!["reload"]),
        4 => ("health", vec!["health"]),
        _ => ("queue", vec!["queue", agent]),
    };
    let ran = chaos.world.cli(&arguments);
    assert!(ran.code != 70, "{arguments:?}: {ran:?}");
    if name == "kill and start" {
        chaos.world.cli(&["start", agent]);
    }
    name
}
