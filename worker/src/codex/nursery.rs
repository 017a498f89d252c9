//! Where Codex children are born: what they share, which rung of containment this host grants, how one is started.
//!
//! ```text
//!  Start -> program located -> rung probed (once, before the first child) -> spawned -> child.rs
//!                                    '- bwrap runs itself in the very view of the child
//! ```

use super::child::{Born, Event};
use super::locate::{self, Located};
use super::namespace::View;
use super::pipe::Purse;
use super::spawn::{self, Plan};
use crate::args::Args;
use crate::machine::io::{ChildId, ChildSpec, SpawnFailure};
use crate::sweep;
use protocol::from_worker::Isolation;
use rustix::fs::Mode;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long the probe of the namespace may take; it takes 3 ms where it works.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// What may wait for a child's stdin, in bytes: two of the longest prompts.
const STDIN_BYTES_MAX: usize = 128 * 1024 * 1024;

/// What every child of this worker shares.
#[derive(Debug)]
pub struct Nursery {
    /// What marks this worker's children: unlike any other worker's, also of another supervisor on this host.
    marker: String,
    /// The mask of the children's files.
    pub umask: Mode,
    /// Children that somebody waits for.
    own: Mutex<BTreeSet<u32>>,
    /// What the waiting lines of all children may hold.
    pub(super) purse: Purse,
    rung: tokio::sync::Mutex<Option<Rung>>,
}

/// How children are contained on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rung {
    Namespace(PathBuf),
    BestEffort,
}

/// All that a start needs beside the machine's words.
#[derive(Clone, Debug)]
pub struct Start {
    /// The machine's words.
    pub spec: ChildSpec,
    /// Name or path of Codex.
    pub command: String,
    /// What it sees.
    pub view: View,
    /// From a polite step to the next, harder one.
    pub stop_grace: Duration,
}

/// What the driver wants of a child.
pub(super) enum Order {
    Write(String),
    End,
    Kill,
}

/// The driver's hand on a child. Dropping it kills the child.
#[derive(Debug)]
pub struct Handle {
    orders: mpsc::UnboundedSender<Order>,
    waiting: Arc<AtomicUsize>,
}

impl Handle {
    /// Writes a line to its stdin. A child that does not read is ended.
    pub fn write(&self, mut line: String) {
        line.push('\n');
        let waiting = self.waiting.fetch_add(line.len(), Ordering::Relaxed) + line.len();
        self.order(if waiting > STDIN_BYTES_MAX { Order::Kill } else { Order::Write(line) });
    }

    /// Begins its polite end.
    pub fn end(&self) {
        self.order(Order::End);
    }

    /// Ends it and its tree.
    pub fn kill(&self) {
        self.order(Order::Kill);
    }

    /// A child that has gone takes no orders, and its exit is on its way.
    fn order(&self, order: Order) {
        drop(self.orders.send(order));
    }
}

impl Nursery {
    /// No children, nothing probed.
    pub fn new(args: &Args, umask: Mode) -> Arc<Self> {
        Arc::new(Self {
            marker: sweep::marker_of(&args.agent_dir, args.incarnation),
            umask,
            own: Mutex::default(),
            purse: Purse::default(),
            rung: tokio::sync::Mutex::default(),
        })
    }

    /// Starts a child; its life is told to `events`.
    pub fn start(self: &Arc<Self>, id: ChildId, start: Start, events: mpsc::Sender<Event>) -> Handle {
        let (orders, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let handle = Handle { orders, waiting: Arc::clone(&waiting) };
        let nursery = Arc::clone(self);
        tokio::spawn(async move {
            let last = match nursery.spawn(id, &start, &events).await {
                Ok(born) => born.live(&nursery, start, receiver, waiting, &events).await,
                Err(failure) => Event::SpawnFailed(id, failure),
            };
            drop(events.send(last).await);
        });
        handle
    }

    /// Collects orphans that have ended.
    pub fn reap(&self) {
        sweep::reap_orphans(&self.own());
    }

    /// Children that somebody waits for.
    pub(super) fn own(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The marker of a child and of all that inherits from it.
    pub(super) fn marker(&self, id: ChildId) -> String {
        format!("{}{}", self.marker, id.0)
    }

    async fn spawn(&self, id: ChildId, start: &Start, events: &mpsc::Sender<Event>) -> Result<Born, SpawnFailure> {
        let path = start.view.env.iter().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value);
        let command = start.spec.command.as_deref().unwrap_or(&start.command);
        let located = locate::locate(command, path).ok_or_else(|| SpawnFailure::Missing(command.to_owned()))?;
        let rung = self.rung(&located, &start.view, events).await;
        let marker = (sweep::MARKER.to_owned(), self.marker(id));
        let mut view = start.view.clone();
        view.env.push(marker.clone());
        let plan = Plan {
            program: located.program,
            args: start.spec.args.iter().map(Into::into).collect(),
            env: view.env.clone(),
            workspace: view.workspace.clone(),
            umask: self.umask,
        };
        let started = match &rung {
            Rung::Namespace(bwrap) => spawn::contained(&plan, bwrap, &view.arguments(), &marker),
            Rung::BestEffort => spawn::plain(&plan),
        };
        let child =
            started.map_err(|e| SpawnFailure::Failed(format!("cannot start {}: {e}", plan.program.display())))?;
        let pid = child.id().unwrap_or(0);
        self.own().insert(pid);
        drop(events.send(Event::Spawned(id, pid)).await);
        Ok(Born::new(id, pid, child, matches!(rung, Rung::Namespace(_))))
    }

    /// The rung of this host, probed before the first child.
    async fn rung(&self, located: &Located, view: &View, events: &mpsc::Sender<Event>) -> Rung {
        let mut known = self.rung.lock().await;
        if let Some(rung) = known.as_ref().filter(|rung| !matches!(rung, Rung::Namespace(path) if !path.exists())) {
            return rung.clone();
        }
        let mut why = "there is no bwrap".to_owned();
        let mut found = Rung::BestEffort;
        for bwrap in &located.bwraps {
            match self.probe(bwrap.clone(), view).await {
                Ok(()) => {
                    found = Rung::Namespace(bwrap.clone());
                    break;
                }
                Err(error) => why = format!("{}: {error}", bwrap.display()),
            }
        }
        let event = match &found {
            Rung::Namespace(_) => Event::Rung(Isolation::Namespace, None),
            Rung::BestEffort => Event::Rung(Isolation::BestEffort, Some(why)),
        };
        drop(events.send(event).await);
        *known = Some(found.clone());
        found
    }

    /// Runs the helper inside itself.
    async fn probe(&self, bwrap: PathBuf, view: &View) -> Result<(), String> {
        let plan = Plan {
            program: bwrap.clone(),
            args: vec!["--version".into()],
            env: Vec::new(),
            workspace: view.workspace.clone(),
            umask: self.umask,
        };
        let marker = (sweep::MARKER.to_owned(), format!("{}probe", self.marker));
        let child = spawn::contained(&plan, &bwrap, &view.arguments(), &marker).map_err(|e| e.to_string())?;
        let pid = child.id().unwrap_or(0);
        self.own().insert(pid);
        let ended = timeout(PROBE_TIMEOUT, child.wait_with_output()).await;
        self.own().remove(&pid);
        sweep::round(&marker.1, &self.own(), false);
        match ended {
            Ok(Ok(output)) if output.status.success() => Ok(()),
            Ok(Ok(output)) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it did not answer".to_owned()),
        }
    }
}
