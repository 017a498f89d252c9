//! `cofferdam drill`: hurts one agent on purpose and measures what the others and the control plane feel.
//!
//! ```text
//!   flags, busy? --> model (this process, loopback) --> guests: a victim, two others --> each answers once
//!      for each kind:   before | during: harm.rs beside probe.rs | after: recover   --> report.rs, chart.rs
//!   connection closed --> the supervisor ends and removes the guests --> report.json, latency.svg
//! ```
//! | file | what |
//! |---|---|
//! | `plan` `stats` `verdict` `report` `chart` | pure: what is done, what figures mean, how they look |
//! | `fleet` `guests` `model` `host` | the supervisor, the throw-away agents, their model, the kernel |
//! | `probe` `harm` | measures, hurts |
//!
//! Promises: without `--agent` nothing configured is touched; the victim is let go and the guests are removed whatever
//! happens, by this process or, if that dies, by the supervisor.

mod chart;
mod fleet;
mod guests;
mod harm;
mod host;
mod model;
mod plan;
mod probe;
mod report;
mod stats;
mod verdict;

pub(super) use plan::words;

use super::args::Drill as Arguments;
use super::clock::{Watch, wall_ms};
use super::exit::{Exit, Failure};
use super::screen::Screen;
use super::{Flag, setup};
use crate::config::Config;
use chart::Panel;
use fleet::{Flags, Fleet};
use guests::Guests;
use harm::{FORCE_WITHIN_S, Gate, Hurt};
use host::Machine;
use model::Model;
use plan::{Kind, Times};
use probe::Probes;
use protocol::AgentName;
use protocol::control::{AgentRow, AgentState};
use protocol::guest::GUEST_PREFIX;
use report::{Drill, Probed, Proof, Report};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use verdict::{Ground, Verdict, worst};

/// Runs the drills that the arguments name.
pub(super) fn drill(flag: Flag<'_>, screen: &Screen, arguments: &Arguments) -> Result<Exit, Failure> {
    let config = setup::load_folders(flag, screen)?;
    let kinds = plan::kinds(&arguments.kinds);
    let flags = Arc::new(Flags::default());
    let fleet = Fleet { socket: config.control_socket(), flags: Arc::clone(&flags) };
    let rows = fleet.ps()?;
    may_begin(screen, arguments, &kinds, &rows)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::because(Exit::Failed, "start a drill", &error))?;
    let model = runtime.block_on(Model::start());
    let model = model.map_err(|error| Failure::because(Exit::Failed, "serve a model on loopback", &error))?;
    runtime.spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            // A second one does not wait for anything.
            if flags.stopped.swap(true, Ordering::Relaxed) {
                std::process::exit(i32::from(Exit::Failed.code()));
            }
        }
    });
    let stage = Stage { screen, arguments, config: &config, fleet: &fleet, model: &model };
    let ended = stage.play(&kinds, rows.len());
    runtime.shutdown_background();
    ended
}

/// Everything that can be known before anything is started.
fn may_begin(screen: &Screen, arguments: &Arguments, kinds: &[Kind], rows: &[AgentRow]) -> Result<(), Failure> {
    let free = host::memory_free();
    if kinds.contains(&Kind::Oom) && free < plan::HOG_FREE_BYTES {
        let (free, need) = (super::screen::bytes(free), super::screen::bytes(plan::HOG_FREE_BYTES));
        return Err(Failure::new(
            Exit::Later,
            format!("oom needs {need} of free memory, there is {free}: leave it out"),
        ));
    }
    let Some(agent) = &arguments.agent else { return Ok(()) };
    plan::may_hurt(agent.as_str(), kinds).map_err(|why| Failure::new(Exit::Usage, why))?;
    let Some(row) = rows.iter().find(|row| row.agent == *agent) else {
        return Err(Failure::new(Exit::Failed, format!("there is no agent {agent}; `cofferdam ps` lists them")));
    };
    if row.pid.is_none() {
        let words = format!("agent {agent} has no worker ({}): there is nothing to hurt", row.state.as_str());
        return Err(Failure::new(Exit::Failed, words));
    }
    let open = row.running + row.queued;
    if open == 0 || arguments.even_if_busy || is_allowed(screen, agent, open) {
        return Ok(());
    }
    let words = format!("agent {agent} is busy ({open} turns run or wait): try again later, or --even-if-busy");
    Err(Failure::new(Exit::Later, words))
}

/// Asks the person at the terminal, if there is one.
fn is_allowed(screen: &Screen, agent: &AgentName, open: u32) -> bool {
    if !io::stdin().is_terminal() || !screen.err_is_terminal() {
        return false;
    }
    screen.err(&format!("agent {agent} is busy: {open} turns run or wait, and some may be lost. Hurt it? [y/N] "));
    let mut said = String::new();
    io::stdin().read_line(&mut said).is_ok() && said.trim().eq_ignore_ascii_case("y")
}

/// What a drill needs.
struct Stage<'a> {
    screen: &'a Screen,
    arguments: &'a Arguments,
    config: &'a Config,
    fleet: &'a Fleet,
    model: &'a Model,
}

impl Stage<'_> {
    fn play(&self, kinds: &[Kind], agents: usize) -> Result<Exit, Failure> {
        let nonce = wall_ms();
        self.screen.note("making throw-away agents; their first turns take a moment");
        let real = self.arguments.agent.as_ref();
        let guests = Guests::make(self.fleet, self.model.base_url(), real.is_none())?;
        let Some(victim) = real.or(guests.victim.as_ref()).cloned() else {
            return Err(Failure::new(Exit::Bug, "there is nobody to hurt"));
        };
        if let Err(failure) = guests.prepare(self.fleet, &format!("warm {nonce}")) {
            let left = guests.part(self.fleet, self.config);
            return Err(self.given_up(&failure, left));
        }
        let mut machine = Machine::look(self.is_weighted(&victim, &guests));
        let ground = Ground { weighted: machine.cpu_weight, busy: machine.was_busy() };
        let mut drills = Vec::new();
        let mut panels = Vec::new();
        let mut failed = None;
        for kind in kinds {
            match self.one(*kind, &victim, &guests, ground, nonce) {
                Ok((drill, panel)) => {
                    if !self.arguments.json {
                        self.screen.print(&format!("\n{}", report::table(&drill, &self.screen.look)))?;
                    }
                    drills.push(drill);
                    panels.push(panel);
                }
                Err(failure) => {
                    failed = Some(failure);
                    break;
                }
            }
        }
        machine.load_after = host::load();
        let left = guests.part(self.fleet, self.config);
        if let Some(failure) = failed {
            return Err(self.given_up(&failure, left));
        }
        if let Some(left) = left {
            self.screen.note(&left);
        }
        let report = Report {
            version: protocol::version::BUILD,
            at: nonce,
            machine,
            agents,
            seconds: self.arguments.seconds,
            verdict: worst(drills.iter().map(|drill| drill.verdict)),
            drills,
        };
        self.tell(&report, &panels)
    }

    /// The end of a drill that does not go on, in words that say what became of those it hurt.
    fn given_up(&self, failure: &Failure, left: Option<String>) -> Failure {
        let flags = &self.fleet.flags;
        let left = left.map_or_else(String::new, |left| format!("\n{left}"));
        if let Some(why) = flags.lost() {
            let left = if left.is_empty() { "\nnothing is left of the drill" } else { &left };
            let words =
                format!("the supervisor left in the middle of the drill ({why}); who was hurt has been let go{left}");
            return Failure::new(Exit::NoSupervisor, words);
        }
        if flags.stopped.load(Ordering::Relaxed) {
            return Failure::new(Exit::Failed, format!("interrupted; who was hurt has been let go{left}"));
        }
        Failure::new(failure.exit, format!("{}{left}", failure.words))
    }

    fn is_weighted(&self, victim: &AgentName, guests: &Guests) -> bool {
        let pid = |agent: &AgentName| self.fleet.row(agent).ok().and_then(|row| row.pid);
        let other = guests.others.first().and_then(&pid);
        pid(victim).zip(other).is_some_and(|(victim, other)| host::has_own_share(victim, other))
    }

    /// One kind of harm, measured.
    fn one(
        &self,
        kind: Kind,
        victim: &AgentName,
        guests: &Guests,
        ground: Ground,
        nonce: u64,
    ) -> Result<(Drill, Panel), Failure> {
        let seconds = self.arguments.seconds;
        let talk = format!("{} {nonce}", kind.as_str());
        for other in &guests.others {
            // The thread of this conversation is begun before it is measured.
            self.fleet.answer(other, &talk, "hello", FIRST_TURN_WITHIN)?;
        }
        let hurt = Hurt {
            fleet: self.fleet,
            model: self.model,
            victim,
            kind,
            guest: guests.victim.as_ref() == Some(victim),
            seconds,
            talk: format!("{talk} victim"),
        };
        let rows = self.fleet.ps()?;
        let is_well = |row: &AgentRow| matches!(row.state, AgentState::Ready | AgentState::Busy);
        let is_other = |row: &AgentRow| row.agent != *victim && !row.agent.as_str().starts_with(GUEST_PREFIX);
        let well = rows.into_iter().filter(|row| is_well(row) && is_other(row));
        let workers = well.map(|row| row.agent).collect();
        let watch = Watch::start();
        let probes = Probes::start(self.fleet, &guests.others, workers, &talk, watch);
        let measured = self.phases(&hurt, watch);
        let series = probes.end();
        let Measured { times, proof, recovered_s } = measured?;
        if self.fleet.flags.is_over() {
            return Err(Failure::new(Exit::Failed, "the drill was ended"));
        }
        let told = series.iter().map(|(probe, samples)| Probed::of(*probe, kind, samples, &times, ground));
        let drill = Drill {
            kind,
            victim: victim.to_string(),
            times,
            proof,
            recovered_s,
            probes: told.collect(),
            verdict: Verdict::TooFew,
        };
        let panel = Panel {
            title: format!("{} {victim}: {}", kind.as_str(), kind.about()),
            times,
            series,
            recovered_at: recovered_s.map(|seconds| times.ended + seconds),
        };
        Ok((drill.judged(), panel))
    }

    /// The three phases, while the probes run.
    fn phases(&self, hurt: &Hurt<'_>, watch: Watch) -> Result<Measured, Failure> {
        let seconds = hurt.seconds;
        let (fleet, kind) = (self.fleet, hurt.kind.as_str());
        let length = f64::from(u32::try_from(seconds).unwrap_or(u32::MAX));
        self.screen.note(&format!("{kind}: before, {seconds} s"));
        fleet.pause(length);
        let gate = Gate::default();
        let mut times = Times { hurt: watch.seconds(), ..Times::default() };
        std::thread::scope(|scope| {
            let hurting = scope.spawn(|| hurt.run(&gate));
            let begun = Watch::start();
            while !gate.is_in_force() && !hurting.is_finished() && begun.seconds() < FORCE_WITHIN_S {
                if !fleet.pause(fleet::LOOK.as_secs_f64()) {
                    break;
                }
            }
            if gate.is_in_force() {
                self.screen.note(&format!("{kind}: during, {seconds} s: {}", hurt.kind.about()));
                fleet.pause(length);
            }
            gate.end();
            let proof = hurting.join().unwrap_or_else(|_| Err(Failure::new(Exit::Bug, "the harm panicked")));
            times.ended = watch.seconds();
            self.screen.note(&format!("{kind}: after, {seconds} s"));
            let recovering = scope.spawn(|| hurt.recover());
            fleet.pause(if proof.is_ok() { length } else { 0.0 });
            let recovered_s = recovering.join().unwrap_or_default();
            times.over = watch.seconds();
            proof.map(|proof| Measured { times, proof, recovered_s })
        })
    }

    /// Prints what was found and writes it down.
    fn tell(&self, report: &Report, panels: &[Panel]) -> Result<Exit, Failure> {
        let at = self.screen.look.at(report.at);
        let dir = self.arguments.report.clone().unwrap_or_else(|| self.folder(&at));
        let json = serde_json::to_string_pretty(report)
            .map_err(|error| Failure::because(Exit::Bug, "write the report", &error))?;
        let head = format!("cofferdam drill, {at}: {}", report.verdict.as_str().to_lowercase());
        let write = || {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            write(&dir.join("report.json"), &json)?;
            write(&dir.join("latency.svg"), &chart::chart(&head, panels))
        };
        write().map_err(|error| Failure::because(Exit::Failed, &format!("write to {}", dir.display()), &error))?;
        if self.arguments.json {
            self.screen.json(report)?;
        } else {
            self.screen.print(&format!("\n{}", report::closing(report, &self.screen.look)))?;
            self.screen.print(&format!("report: {}", dir.join("report.json").display()))?;
            self.screen.print(&format!("chart:  {}", dir.join("latency.svg").display()))?;
        }
        Ok(match report.verdict {
            Verdict::NoBudget | Verdict::Within | Verdict::TooFew => Exit::Done,
            Verdict::Busy => Exit::Later,
            Verdict::Missed => Exit::Failed,
        })
    }

    fn folder(&self, at: &str) -> PathBuf {
        let name: String = at.chars().map(|c| if c.is_ascii_digit() { c } else { '-' }).collect();
        self.config.state_dir.join("drills").join(name)
    }
}

/// What the three phases gave.
struct Measured {
    times: Times,
    proof: Proof,
    recovered_s: Option<f64>,
}

/// How long the first turn of a conversation may take.
const FIRST_TURN_WITHIN: std::time::Duration = std::time::Duration::from_mins(1);

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
