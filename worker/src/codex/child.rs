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

use super::cgroup::Leaf;
use super::namespace;
use super::nursery::{Nursery, Order, Start};
use super::pipe::{Cutter, LINE_BYTES_MAX, Line, Purse, Tail};
use crate::machine::io::{ChildId, ChildSpec, Exit, Polite, SpawnFailure};
use crate::sweep;
use protocol::from_worker::Isolation;
use rustix::process::Signal;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Sleep, sleep, timeout};

/// How long a silent stdout is waited for after the exit: somebody who escaped may hold it open.
const STDOUT_GRACE: Duration = Duration::from_secs(2);

/// Pause between two looks for what is left of a tree.
const SWEEP_PAUSE: Duration = Duration::from_millis(3);

/// Looks for what is left before the exit is told all the same: 5 s. Longer is a process that no signal reaches.
const SWEEPS_MAX: u32 = 1600;

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;

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

/// A child that was started.
pub(super) struct Born {
    id: ChildId,
    pid: u32,
    child: Child,
    contained: bool,
    leaf: Option<Arc<Leaf>>,
    oom_kills: u64,
}

impl Born {
    /// A child whose process has this id; `contained` if that is the wrapper of a namespace.
    pub(super) fn new(id: ChildId, pid: u32, child: Child, contained: bool, leaf: Option<Arc<Leaf>>) -> Self {
        Self { id, pid, child, contained, leaf, oom_kills: oom_kills() }
    }

    /// Its whole life; the last event is its exit.
    pub(super) async fn live(
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
        let out_of_memory = self.ran_out_of_memory(killed);
        self.end_orphans(nursery).await;
        nursery.buried(self.id);
        drain(stdout, &read).await;
        drain(stderr, &AtomicU64::new(0)).await;
        let mut exit = self.exit(status, out_of_memory);
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

    /// Whether the kernel ended something of it for its use of memory, before anybody else did.
    fn ran_out_of_memory(&self, killed: bool) -> bool {
        !killed && self.leaf.as_ref().map_or_else(|| oom_kills() > self.oom_kills, |leaf| leaf.ran_out_of_memory())
    }

    fn kill_tree(&mut self) {
        if let Some(leaf) = &self.leaf {
            leaf.kill();
        }
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
            let populated = self.leaf.as_ref().is_some_and(|leaf| {
                leaf.kill();
                leaf.is_populated()
            });
            if !sweep::round(&marker, &own, !self.contained) && !populated {
                if let Some(leaf) = &self.leaf {
                    leaf.remove();
                }
                return;
            }
            sleep(SWEEP_PAUSE).await;
        }
        tracing::warn!(child = self.id.0, "processes of a child could not be ended");
    }

    fn exit(&self, status: io::Result<std::process::ExitStatus>, out_of_memory: bool) -> Exit {
        use std::os::unix::process::ExitStatusExt;
        let status = status.ok();
        let mut code = status.and_then(|s| s.code());
        let mut signal = status.and_then(|s| s.signal());
        if let Some(wrapped) = code.filter(|c| self.contained && (129..=192).contains(c)) {
            // The wrapper tells a signal inside as shells do.
            signal = Some(wrapped - 128);
            code = None;
        }
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
