//! One Codex child's life, from its spawn to the proof that nothing of it is left.
//!
//! ```text
//!  probe (once) -> spawn -> Spawned -> Line* ------------------------------------> Exited
//!                              |                                                    ^
//!        End: SIGINT, grace -------------------------------> tree killed            |
//!        End: stdin closed, grace -> SIGTERM, grace -------> tree killed            |
//!        Kill: ----------------------------------------------tree killed            |
//!                              '-> Codex gone -> orphans ended, pid 1 reaped -> stdout read
//! ```
//! The namespace's pid 1 comes to us when its wrapper has gone (we are its subreaper), and it can be reaped only after
//! everything inside has ended: that is the proof. Without a namespace the proof is a look at every process' marker.

use super::locate::{self, Located};
use super::namespace::{self, View};
use super::pipe::{Cutter, LINE_BYTES_MAX, Line, Purse, Tail};
use super::spawn::{self, Plan};
use crate::machine::io::{ChildId, ChildSpec, Exit, Polite, SpawnFailure};
use crate::sweep;
use protocol::from_worker::Isolation;
use rustix::fs::Mode;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Sleep, sleep, timeout};

/// How long the probe of the namespace may take; it takes 3 ms where it works.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a silent stdout is waited for after the exit: somebody who escaped may hold it open.
const STDOUT_GRACE: Duration = Duration::from_secs(2);

/// Pause between two looks for what is left of a tree.
const SWEEP_PAUSE: Duration = Duration::from_millis(3);

/// Looks for what is left before the exit is told all the same: 5 s. Longer is a process that no signal reaches.
const SWEEPS_MAX: u32 = 1600;

/// What may wait for a child's stdin, in bytes: two of the longest prompts.
const STDIN_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;

/// What every child of this worker shares.
#[derive(Debug)]
pub struct Nursery {
    /// The run of the worker, part of the marker.
    pub incarnation: u64,
    /// The mask of the children's files.
    pub umask: Mode,
    /// Children that somebody waits for.
    own: Mutex<BTreeSet<u32>>,
    purse: Purse,
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

/// What a child tells the driver.
#[derive(Debug)]
pub enum Event {
    /// The rung that was found, and why if it is not the full one.
    Rung(Isolation, Option<String>),
    /// It runs.
    Spawned(ChildId, u32),
    /// It does not.
    SpawnFailed(ChildId, SpawnFailure),
    /// It said a line. What it holds is given back with the permit.
    Line(ChildId, Line, Option<OwnedSemaphorePermit>),
    /// It and its tree are gone.
    Exited(ChildId, Exit),
}

enum Order {
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
    pub fn new(incarnation: u64, umask: Mode) -> Arc<Self> {
        Arc::new(Self {
            incarnation,
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

    fn own(&self) -> std::sync::MutexGuard<'_, BTreeSet<u32>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn marker(&self, id: ChildId) -> String {
        format!("{}.{}", self.incarnation, id.0)
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
        Ok(Born { id, pid, child, contained: matches!(rung, Rung::Namespace(_)), oom_kills: oom_kills() })
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
        let marker = (sweep::MARKER.to_owned(), format!("{}.probe", self.incarnation));
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

/// A child that was started.
struct Born {
    id: ChildId,
    pid: u32,
    child: Child,
    contained: bool,
    oom_kills: u64,
}

impl Born {
    async fn live(
        mut self,
        nursery: &Nursery,
        start: Start,
        mut orders: mpsc::UnboundedReceiver<Order>,
        waiting: Arc<AtomicUsize>,
        events: &mpsc::Sender<Event>,
    ) -> Event {
        let mut stdin = Some(feed(self.child.stdin.take(), &start.spec, waiting));
        let read = Arc::new(AtomicU64::new(0));
        let lines =
            Reader { id: self.id, purse: nursery.purse.clone(), events: events.clone(), read: Arc::clone(&read) };
        let stdout = self.child.stdout.take().map(|pipe| tokio::spawn(lines.run(pipe)));
        let tail = Arc::new(Mutex::new(Tail::default()));
        let stderr = self.child.stderr.take().map(|pipe| tokio::spawn(listen(self.id, pipe, Arc::clone(&tail))));
        let mut ladder = Ladder { step: 0, due: None };
        let mut killed = false;
        if !start.spec.stdin_open {
            stdin = None;
        }
        let status = loop {
            tokio::select! {
                status = self.child.wait() => break status,
                order = orders.recv() => match order {
                    Some(Order::Write(line)) => drop(stdin.as_ref().map(|pipe| pipe.send(line))),
                    Some(Order::End) if ladder.due.is_none() && !killed => {
                        killed = self.climb(&mut ladder, &start, &mut stdin);
                    }
                    Some(Order::End) => {}
                    Some(Order::Kill) | None => { self.kill_tree(); killed = true; }
                },
                () = ladder.wait(), if !killed => killed = self.climb(&mut ladder, &start, &mut stdin),
            }
            if killed {
                // Orders mean nothing any more, and a closed channel must not keep this loop awake.
                break self.child.wait().await;
            }
        };
        drop(stdin);
        nursery.own().remove(&self.pid);
        self.end_orphans(nursery).await;
        drain(stdout, &read).await;
        drain(stderr, &AtomicU64::new(0)).await;
        let mut exit = self.exit(status, killed);
        exit.stderr = tail.lock().unwrap_or_else(PoisonError::into_inner).text();
        Event::Exited(self.id, exit)
    }

    /// The next step of the ladder. Returns whether it was the last: the tree is killed.
    fn climb(&mut self, ladder: &mut Ladder, start: &Start, stdin: &mut Option<mpsc::UnboundedSender<String>>) -> bool {
        let step = ladder.step;
        ladder.step += 1;
        ladder.due = Some(Box::pin(sleep(start.stop_grace)));
        match (start.spec.polite, step) {
            (Polite::Interrupt, 0) => self.signal(Signal::INT),
            (Polite::CloseStdin, 0) => *stdin = None,
            (Polite::CloseStdin, 1) => self.signal(Signal::TERM),
            (Polite::Interrupt | Polite::CloseStdin, _) => {
                self.kill_tree();
                return true;
            }
        }
        false
    }

    /// A signal to Codex itself, not to its wrapper.
    fn signal(&self, signal: Signal) {
        if self.contained {
            if let Some((init, codex)) = namespace::init_pid(self.pid).zip(namespace::codex_pid(self.pid)) {
                sweep::signal_child_of(init, codex, signal);
            }
        } else {
            sweep::signal_child_of(std::process::id(), self.pid, signal);
        }
    }

    fn kill_tree(&mut self) {
        for pid in sweep::tree_of(self.pid).into_iter().skip(1) {
            sweep::kill(pid);
        }
        // It may have ended by itself meanwhile.
        drop(self.child.start_kill());
    }

    /// Ends what is left until nothing is.
    async fn end_orphans(&self, nursery: &Nursery) {
        let marker = nursery.marker(self.id);
        for _ in 0..SWEEPS_MAX {
            let own = nursery.own().clone();
            if !sweep::round(&marker, &own, !self.contained) {
                return;
            }
            sleep(SWEEP_PAUSE).await;
        }
        tracing::warn!(child = self.id.0, "processes of a child could not be ended");
    }

    fn exit(&self, status: io::Result<std::process::ExitStatus>, killed: bool) -> Exit {
        use std::os::unix::process::ExitStatusExt;
        let status = status.ok();
        let mut code = status.and_then(|s| s.code());
        let mut signal = status.and_then(|s| s.signal());
        if let Some(wrapped) = code.filter(|c| self.contained && (129..=192).contains(c)) {
            // The wrapper tells a signal inside as shells do.
            signal = Some(wrapped - 128);
            code = None;
        }
        let out_of_memory = !killed && signal == Some(9) && oom_kills() > self.oom_kills;
        Exit { code, signal, stderr: String::new(), out_of_memory }
    }
}

struct Ladder {
    step: u8,
    due: Option<Pin<Box<Sleep>>>,
}

impl Ladder {
    async fn wait(&mut self) {
        match &mut self.due {
            Some(due) => due.await,
            None => std::future::pending().await,
        }
    }
}

/// Gives a child its stdin in the order of the orders. It ends when the sender goes and everything is written.
fn feed(pipe: Option<ChildStdin>, spec: &ChildSpec, waiting: Arc<AtomicUsize>) -> mpsc::UnboundedSender<String> {
    let (sender, mut receiver) = mpsc::unbounded_channel::<String>();
    let first = spec.stdin.clone();
    tokio::spawn(async move {
        let Some(mut pipe) = pipe else { return };
        if pipe.write_all(first.as_bytes()).await.is_err() {
            return;
        }
        while let Some(line) = receiver.recv().await {
            waiting.fetch_sub(line.len().min(waiting.load(Ordering::Relaxed)), Ordering::Relaxed);
            // A child that closed its stdin is about to exit, and that is told.
            if pipe.write_all(line.as_bytes()).await.is_err() {
                return;
            }
        }
    });
    sender
}

struct Reader {
    id: ChildId,
    purse: Purse,
    events: mpsc::Sender<Event>,
    read: Arc<AtomicU64>,
}

impl Reader {
    async fn run(self, mut pipe: impl AsyncRead + Unpin) {
        let mut cutter = Cutter::new(LINE_BYTES_MAX);
        let mut buffer = vec![0; READ_BYTES];
        let mut lines = Vec::new();
        loop {
            let count = pipe.read(&mut buffer).await.unwrap_or(0);
            cutter.push(buffer.get(..count).unwrap_or_default(), &mut lines);
            if count == 0 {
                lines.extend(cutter.finish());
            }
            for line in lines.drain(..) {
                let permit = self.purse.pay(line.bytes()).await;
                if self.events.send(Event::Line(self.id, line, permit)).await.is_err() {
                    return;
                }
                self.read.fetch_add(1, Ordering::Relaxed);
            }
            if count == 0 {
                return;
            }
            self.read.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn listen(id: ChildId, mut pipe: impl AsyncRead + Unpin, tail: Arc<Mutex<Tail>>) {
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        let lines = tail.lock().unwrap_or_else(PoisonError::into_inner).push(buffer.get(..count).unwrap_or_default());
        for line in lines {
            tracing::info!(child = id.0, stderr = line);
        }
    }
}

/// Waits for a reader as long as it makes progress.
async fn drain(reader: Option<JoinHandle<()>>, read: &AtomicU64) {
    let Some(mut reader) = reader else { return };
    let mut before = u64::MAX;
    while timeout(STDOUT_GRACE, &mut reader).await.is_err() {
        let at = read.load(Ordering::Relaxed);
        if at == before {
            reader.abort();
            return;
        }
        before = at;
    }
}

/// How often the kernel ended something of this cgroup for its use of memory.
fn oom_kills() -> u64 {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(group) = groups.lines().find_map(|line| line.strip_prefix("0::")) else { return 0 };
    let events = std::fs::read_to_string(format!("/sys/fs/cgroup{group}/memory.events")).unwrap_or_default();
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}
