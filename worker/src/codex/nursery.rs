//! Where Codex children are born: what they share, which rung of containment this host grants, how one is started.
//!
//! ```text
//!  Start -> program located -> rung probed (once, before the first child) -> spawned -> child.rs
//!                                    '- bwrap runs itself in the very view of the child
//! ```

use super::cgroup::{Group, Leaf};
use super::child::{Born, Event};
use super::locate::{self, Located};
use super::namespace::View;
use super::pipe::Purse;
use super::spawn::{self, Bounds, Door, Plan};
use crate::args::Args;
use crate::machine::io::{Amount, ChildId, ChildSpec, Sample, SpawnFailure};
use crate::sweep;
use crate::usage::{self, Usage};
use protocol::envelope::Controllers;
use protocol::from_worker::Isolation;
use protocol::to_worker::Limits;
use rustix::fs::Mode;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
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
    /// The agent's cgroup, if there is one.
    group: Option<Group>,
    /// Forks that the kernel had refused at the last look.
    refused: AtomicU64,
    /// Children that somebody waits for.
    own: Mutex<BTreeSet<u32>>,
    /// The same by their names, with their groups.
    living: Mutex<Living>,
    /// What the waiting lines of all children may hold.
    pub(super) purse: Purse,
    rung: tokio::sync::Mutex<Option<Rung>>,
}

/// Children by their names: the pid of each, and its group.
type Living = BTreeMap<ChildId, (u32, Option<Arc<Leaf>>)>;

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
    /// Limits of the agent.
    pub limits: Limits,
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
    pub fn new(args: &Args, umask: Mode, group: Option<Group>) -> Arc<Self> {
        Arc::new(Self::of(sweep::marker_of(&args.agent_dir, args.incarnation), umask, group))
    }

    fn of(marker: String, umask: Mode, group: Option<Group>) -> Self {
        Self {
            marker,
            umask,
            refused: AtomicU64::new(group.as_ref().map_or(0, Group::forks_refused)),
            group,
            own: Mutex::default(),
            living: Mutex::default(),
            purse: Purse::default(),
            rung: tokio::sync::Mutex::default(),
        }
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
        view.fixed.extend(self.group.as_ref().and_then(Group::mount));
        let plan = Plan {
            program: located.program,
            args: start.spec.args.iter().map(Into::into).collect(),
            env: view.env.clone(),
            workspace: view.workspace.clone(),
            umask: self.umask,
            bounds: Bounds::of(&start.limits, self.controllers()),
        };
        let (leaf, door) = self.leaf(id, events).await;
        let started = match &rung {
            Rung::Namespace(bwrap) => spawn::contained(&plan, door, bwrap, &view.arguments(), &marker),
            Rung::BestEffort => spawn::plain(&plan, door),
        };
        let child = started.map_err(|e| {
            if let Some(leaf) = &leaf {
                leaf.remove();
            }
            SpawnFailure::Failed(format!("cannot start {}: {e}", plan.program.display()))
        })?;
        let pid = child.id().unwrap_or(0);
        self.own().insert(pid);
        self.living().insert(id, (pid, leaf.clone()));
        let contained = matches!(rung, Rung::Namespace(_));
        drop(events.send(Event::Rung(Isolation::of(contained, leaf.is_some()), None)).await);
        drop(events.send(Event::Spawned(id, pid)).await);
        Ok(Born::new(id, pid, child, contained, leaf))
    }

    /// What the kernel holds of the agent's limits.
    pub fn controllers(&self) -> Controllers {
        self.group.as_ref().map(Group::controllers).unwrap_or_default()
    }

    /// What every child and what has left its child use at this moment. Reads `/proc`: 0.2 ms for an ordinary tree.
    pub fn look(&self) -> Sample {
        let amount = |used: Usage| Amount { rss_bytes: used.rss_bytes, processes: used.processes };
        let living = self.living().clone();
        let children = living.iter().map(|(id, (pid, leaf))| {
            // What has left its parents is still in the group.
            let used = leaf.as_ref().map_or_else(|| usage::of_tree(*pid), |leaf| usage::of(&leaf.members()));
            (*id, amount(used))
        });
        let children = children.collect();
        let own = self.own().clone();
        let grouped: BTreeSet<u32> =
            living.values().filter_map(|(_, leaf)| leaf.as_ref()).flat_map(|leaf| leaf.members()).collect();
        let mut others = Usage::default();
        for pid in sweep::children_of(std::process::id()) {
            if !own.contains(&pid) && !grouped.contains(&pid) {
                others.add(usage::of_tree(pid));
            }
        }
        let refused = self.group.as_ref().map_or(0, Group::forks_refused);
        let forks_refused = refused > self.refused.swap(refused, Ordering::Relaxed);
        Sample { children, others: amount(others), forks_refused }
    }

    /// A group for a child. Without one the child runs all the same, on the rung below, and the operator is told.
    async fn leaf(&self, id: ChildId, events: &mpsc::Sender<Event>) -> (Option<Arc<Leaf>>, Door) {
        let Some(group) = &self.group else { return (None, Door::default()) };
        match group.leaf(id).and_then(|leaf| Ok((leaf.door()?, leaf))) {
            Ok((door, leaf)) => (Some(Arc::new(leaf)), Door::into_group(Some(door))),
            Err(error) => {
                let why = format!("a Codex child has no cgroup: {error}");
                drop(events.send(Event::Rung(Isolation::BestEffort, Some(why))).await);
                (None, Door::default())
            }
        }
    }

    /// A child has gone.
    pub(super) fn buried(&self, id: ChildId) {
        self.living().remove(&id);
    }

    fn living(&self) -> MutexGuard<'_, Living> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rung of this host, probed before the first child.
    async fn rung(&self, located: &Located, view: &View, events: &mpsc::Sender<Event>) -> Rung {
        let mut known = self.rung.lock().await;
        if let Some(rung) = known.as_ref().filter(|rung| !matches!(rung, Rung::Namespace(path) if !path.exists())) {
            return rung.clone();
        }
        let tried = self.bwrap_that_works(located, view).await;
        if let Err(why) = &tried {
            let isolation = Isolation::of(false, self.group.is_some());
            let why = format!("Codex children have no namespace of their own: {why}");
            drop(events.send(Event::Rung(isolation, Some(why))).await);
        }
        let found = tried.map_or(Rung::BestEffort, Rung::Namespace);
        *known = Some(found.clone());
        found
    }

    async fn bwrap_that_works(&self, located: &Located, view: &View) -> Result<PathBuf, String> {
        let mut why = "there is no bwrap".to_owned();
        for bwrap in &located.bwraps {
            match self.probe(bwrap.clone(), view).await {
                Ok(()) => return Ok(bwrap.clone()),
                Err(error) => why = format!("{}: {error}", bwrap.display()),
            }
        }
        Err(why)
    }

    /// Tries, for `doctor`, what is tried before a first child: the helper that works, or why none does; `None` if there is
    /// no such Codex.
    pub async fn try_host(command: &str) -> Option<Result<PathBuf, String>> {
        let path = std::env::var("PATH").unwrap_or_default();
        let located = locate::locate(command, &path)?;
        let nursery = Self::of(format!("doctor#{}.", std::process::id()), Mode::from_raw_mode(0o077), None);
        let root = rustix::process::geteuid().is_root();
        let view = View { workspace: "/".into(), root, ..View::default() };
        Some(nursery.bwrap_that_works(&located, &view).await)
    }

    /// Runs the helper inside itself.
    async fn probe(&self, bwrap: PathBuf, view: &View) -> Result<(), String> {
        let plan = Plan {
            program: bwrap.clone(),
            args: vec!["--version".into()],
            env: Vec::new(),
            workspace: view.workspace.clone(),
            umask: self.umask,
            bounds: Bounds::default(),
        };
        let marker = (sweep::MARKER.to_owned(), format!("{}probe", self.marker));
        let child =
            spawn::contained(&plan, Door::default(), &bwrap, &view.arguments(), &marker).map_err(|e| e.to_string())?;
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
