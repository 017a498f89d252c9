//! `upgrade`: a new program takes the supervisor's place, then workers follow one by one.
//!
//! ```text
//!   ask the supervisor --> checked --> it leaves --> somebody answers again --> workers: k of n --> done
//! ```
//! The command only asks and watches: if it is stopped, what it asked for goes on.

use super::ask::unasked;
use super::exit::{Exit, Failure};
use super::screen::Screen;
use super::{Flag, clock, setup};
use crate::control::{Client, ClientError};
use protocol::AgentName;
use protocol::control::{AgentRow, AgentState, Health, Reply, Request};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

/// How long the old supervisor may take to check the new program: three questions of 10 s, and its own leave.
const CHECK_WITHIN: Duration = Duration::from_secs(45);

/// How long the new supervisor may take to answer. It migrates the ledger first.
const ANSWER_WITHIN: Duration = Duration::from_mins(1);

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks for the new supervisor.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Between two looks at the workers.
const WORKERS_PAUSE: Duration = Duration::from_millis(250);

/// Replaces the supervisor by `program`, by default the one that runs this command.
pub(super) fn upgrade(flag: Flag<'_>, screen: &Screen, program: Option<PathBuf>, wait: bool) -> Result<(), Failure> {
    let socket = setup::load_folders(flag, screen)?.control_socket();
    let program = absolute(program)?;
    let before = runs(&rows(&socket)?);
    let request = Request::Upgrade(program.display().to_string());
    let mut client = Client::ask(&socket, &request, Some(CHECK_WITHIN))?;
    loop {
        match client.next_reply() {
            Ok(Reply::Note(note)) => screen.print_foreign(&note)?,
            Ok(Reply::Refused(refused)) => return Err(refused.into()),
            Ok(Reply::Done) | Err(ClientError::Left) => break,
            Ok(other) => return Err(unasked(&other)),
            Err(error) => return Err(error.into()),
        }
    }
    let left = clock::Watch::start();
    let health = answered(&socket, left).ok_or_else(|| {
        let words = format!(
            "the new supervisor does not answer after {} s; workers run on: look at its log, and start it or the old one \
             with `cofferdam run`",
            ANSWER_WITHIN.as_secs()
        );
        Failure::new(Exit::Failed, words)
    })?;
    let gap = left.seconds();
    if let Some(why) = health.upgrade_failed {
        return Err(Failure::new(Exit::Failed, format!("the supervisor was not replaced: {why}")));
    }
    screen.print(&format!("supervisor replaced in {gap:.3} s: {}", health.version))?;
    workers(&socket, screen, &before, wait)
}

/// An absolute path: the supervisor's folder is another one.
fn absolute(program: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let path = match program {
        Some(program) => std::path::absolute(program),
        None => std::env::current_exe(),
    };
    path.map_err(|error| Failure::because(Exit::Failed, "find the new program", &error))
}

/// Waits for a supervisor that takes messages. The old one, as long as it answers, refuses: it is on its way out.
fn answered(socket: &Path, since: clock::Watch) -> Option<Health> {
    while since.seconds() < ANSWER_WITHIN.as_secs_f64() {
        if let Ok(Reply::Health(health)) = ask(socket, &Request::Health) {
            return Some(health);
        }
        sleep(LOOK_PAUSE);
    }
    None
}

fn ask(socket: &Path, request: &Request) -> Result<Reply, ClientError> {
    Client::ask(socket, request, Some(PATIENCE))?.next_reply()
}

fn rows(socket: &Path) -> Result<Vec<AgentRow>, Failure> {
    match ask(socket, &Request::Ps)? {
        Reply::Ps(rows) => Ok(rows),
        Reply::Refused(refused) => Err(refused.into()),
        other @ (Reply::Health(_)
        | Reply::Event(_)
        | Reply::Turns(_)
        | Reply::Turn(_)
        | Reply::Queue(_)
        | Reply::Guests(_)
        | Reply::Note(_)
        | Reply::Done) => Err(unasked(&other)),
    }
}

/// The run of each agent's worker.
fn runs(rows: &[AgentRow]) -> BTreeMap<AgentName, u64> {
    rows.iter().filter_map(|row| Some((row.agent.clone(), row.incarnation?))).collect()
}

/// Tells how many workers have been replaced, until all are, or once if nobody waits.
fn workers(socket: &Path, screen: &Screen, before: &BTreeMap<AgentName, u64>, wait: bool) -> Result<(), Failure> {
    let mut told = None;
    loop {
        let rows = rows(socket)?;
        let settling = rows.iter().any(|row| row.wanted == "up" && !is_settled(row));
        let old: Vec<&str> = rows.iter().filter(|row| row.outdated).map(|row| row.agent.as_str()).collect();
        let replaced = |row: &&AgentRow| before.get(&row.agent).is_some_and(|run| row.incarnation != Some(*run));
        let done = rows.iter().filter(replaced).filter(|row| !row.outdated).count();
        if !settling && told != Some(done) {
            told = Some(done);
            let rest = match old.as_slice() {
                [] => "done".to_owned(),
                old => format!("of an earlier build, until nothing of theirs runs: {}", old.join(", ")),
            };
            screen.print(&format!("workers replaced: {done} of {}; {rest}", done + old.len()))?;
        }
        if !settling && (old.is_empty() || !wait) {
            return Ok(());
        }
        sleep(WORKERS_PAUSE);
    }
}

/// Whether an agent's worker is where it stays for now. One that was given up is the operator's, and `ps` tells.
const fn is_settled(row: &AgentRow) -> bool {
    match row.state {
        AgentState::Ready | AgentState::Busy | AgentState::Failed | AgentState::Backoff | AgentState::Down => true,
        AgentState::Draining => row.running > 0,
        AgentState::Adopting | AgentState::Starting | AgentState::Stopping => false,
    }
}
