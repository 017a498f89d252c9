//! The composition root and the only loop: wait, decide, commit, perform.
//!
//! ```text
//!            +------------------------- perform: leaves and their tasks -------------------------+
//!            v                                                                                   |
//!   words, news, callers, updates, signals, deadline --> machine --> records --> ledger --> effects
//!                                                          |
//!                                                          +--> urgent effects, answers from memory (at once)
//! ```
//! The loop never waits for a leaf: what takes time runs in a task of its own and comes back as an input. Groups of
//! effects are performed in the order in which they were decided, each after the commit of its records.

mod close;
mod guests;
mod hear;
mod log;
mod looks;
mod perform;
mod pulse;
mod served;
mod telegram;
mod texts;
mod upgrade;
mod waits;
mod workers;

use crate::channel::telegram::{Heard, Http};
use crate::clock::Clock;
use crate::config::{Config, Environment, Loaded};
use crate::control::{self, Callers};
use crate::link::News;
use crate::machine::Machine;
use crate::machine::nouns::{CallerId, ReceiptId};
use crate::machine::words::{Effect, Input};
use crate::notify::{self, Watchdog};
use crate::process::cgroup::Groups;
use crate::process::signal::Handle;
use crate::process::usage::Sampler;
use crate::store::{CommitTicket, Store, StoreState};
use protocol::AgentName;
use std::collections::{BTreeMap, VecDeque};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

pub use served::child_environment;

/// Words of our own tasks that may wait: each is small, and a task that waits holds up nobody but itself.
const WORDS_MAX: usize = 1024;
/// News of workers that may wait: each session is bounded by itself, see [`crate::link`].
const NEWS_MAX: usize = 256;
/// Requests of the command line that may wait.
const ASKED_MAX: usize = 256;
/// Batches of the bots that may wait.
const HEARD_MAX: usize = 64;

/// How long what still runs outside the loop may take once everything is closed.
const LAST_TASKS: Duration = Duration::from_secs(1);

/// Exit code of a bug, as sysexits.h has it.
const EXIT_BUG: u8 = 70;
/// Exit code of what may work later: another supervisor holds the folders.
const EXIT_LATER: u8 = 75;
/// Exit code of a system that cannot be used: no ledger.
const EXIT_CONFIG: u8 = 78;

/// What our own tasks tell the loop.
#[derive(Debug)]
enum Word {
    /// Something for the machine alone.
    Input(Input),
    /// A worker process runs; the handle is ours to keep.
    Spawned(AgentName, protocol::Incarnation, Handle),
    /// An old worker that says no good hello; the handle is ours to keep.
    Found(AgentName, protocol::Incarnation, Handle),
    /// Whether another program can take our place.
    Successor(CallerId, Result<upgrade::Successor, String>),
    /// A worker said hello; the handle is there if the process is not our child.
    Dialled(Box<crate::link::Dialled>, Option<Handle>),
    /// The configuration was read again.
    Reloaded(Option<CallerId>, Box<Loaded>),
    /// A caller's guests may begin; the configuration is theirs alone.
    Hosted(CallerId, Box<Config>),
}

/// Effects that wait for their commit, or for those before them.
#[derive(Debug)]
struct Group {
    ticket: Option<CommitTicket>,
    effects: Vec<Effect>,
}

struct Daemon {
    clock: Clock,
    machine: Machine,
    store: Arc<Store>,
    config: Arc<Config>,
    /// Of the present guests, if there are some.
    guests: Option<Box<Config>>,
    environment: Arc<Environment>,
    ledger: u64,
    words: mpsc::Sender<Word>,
    news: mpsc::Sender<News>,
    heard: mpsc::Sender<Heard>,
    callers: Callers,
    pending: VecDeque<Group>,
    workers: BTreeMap<AgentName, workers::Worker>,
    spawns: Arc<Semaphore>,
    http: Option<Http>,
    bots: BTreeMap<String, hear::Hearing>,
    receipts: BTreeMap<ReceiptId, hear::Receipt>,
    last_receipt: u64,
    sampler: Arc<Mutex<Sampler>>,
    /// Where agents have cgroups, if they can.
    groups: Option<Arc<Groups>>,
    pulse: pulse::Pulse,
    leaving: bool,
    /// The tick at which we leave even if the ledger takes nothing.
    leave_by: Option<u64>,
    /// The program that takes our place once we have left.
    successor: Option<upgrade::Successor>,
    /// Why the last one could not.
    upgrade_failed: Option<String>,
}

/// The receiving ends of the loop.
struct Inbox {
    words: mpsc::Receiver<Word>,
    news: mpsc::Receiver<News>,
    heard: mpsc::Receiver<Heard>,
    asked: mpsc::Receiver<control::Event>,
    ledger: watch::Receiver<StoreState>,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// Runs the supervisor until it is told to leave.
pub fn run(loaded: Loaded) -> ExitCode {
    log::begin(&loaded.config.log);
    let environment = Environment::of_process();
    // Two threads: one for the loop, one so that TLS and rendering do not hold it.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime {
        Ok(runtime) => {
            let (code, successor) = runtime.block_on(serve(loaded, environment));
            runtime.shutdown_timeout(LAST_TASKS);
            match successor {
                Some(successor) => successor.take_over(),
                None => code,
            }
        }
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            ExitCode::from(EXIT_BUG)
        }
    }
}

async fn serve(loaded: Loaded, environment: Environment) -> (ExitCode, Option<upgrade::Successor>) {
    let started = match start(loaded.config, environment).await {
        Ok(started) => started,
        Err((code, error)) => {
            tracing::error!("cannot start: {error}");
            return (ExitCode::from(code), None);
        }
    };
    let (mut daemon, mut inbox, first, server) = started;
    let (asked, asked_receiver) = mpsc::channel(ASKED_MAX);
    inbox.asked = asked_receiver;
    let serving = tokio::spawn(server.run(asked, daemon.callers.clone()));
    daemon.queue(first);
    notify::ready();
    tracing::info!(
        config = %daemon.config.path.display(),
        socket = %daemon.config.control_socket().display(),
        agents = daemon.config.agents.len(),
        "ready; SIGTERM leaves and workers stay, SIGINT drains and ends everything, a second one kills"
    );
    let code = daemon.rounds(&mut inbox).await;
    let successor = daemon.successor.take();
    if successor.is_none() {
        notify::stopping();
    } else {
        notify::reloading();
    }
    daemon.close().await;
    serving.abort();
    (code, successor)
}

type Started = (Daemon, Inbox, Vec<Effect>, control::Server);

async fn start(config: Config, environment: Environment) -> Result<Started, (u8, String)> {
    let clock = Clock::start();
    let uid = nix::unistd::getuid().as_raw();
    let unusable = |error: &dyn std::error::Error| (EXIT_CONFIG, workers::chain(error));
    let server = control::Server::bind(&config.runtime_dir, uid).map_err(|e| match e {
        control::BindError::Running { .. } => (EXIT_LATER, workers::chain(&e)),
        control::BindError::Stranger { .. } | control::BindError::Folder(..) | control::BindError::Bind(..) => {
            unusable(&e)
        }
    })?;
    workers::let_through(&config, true);
    texts::tidy(&config.state_dir.join("texts"));
    guests::clear_old(&config).await;
    let (path, ballast) = (config.ledger(), config.ballast_bytes);
    let wall = clock.now().wall;
    let opened = tokio::task::spawn_blocking(move || Store::open(&path, ballast, wall)).await;
    let (store, memory) = opened.map_err(|e| unusable(&e))?.map_err(|e| unusable(&e))?;
    let ledger = memory.ledger;
    let setup = served::setup(&config, &environment, ledger);
    let now = clock.now();
    let (machine, first) = Machine::recover(now, setup, memory, now.wall ^ ledger);
    let groups = workers::groups(&config);
    let sampler = Sampler::new().map_err(|e| unusable(&e))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (words, words_receiver) = mpsc::channel(WORDS_MAX);
    let (news, news_receiver) = mpsc::channel(NEWS_MAX);
    let (heard, heard_receiver) = mpsc::channel(HEARD_MAX);
    let (_, no_callers) = mpsc::channel(1);
    let signal = |kind| signal(kind).map_err(|e| unusable(&e));
    let inbox = Inbox {
        words: words_receiver,
        news: news_receiver,
        heard: heard_receiver,
        asked: no_callers,
        ledger: store.state(),
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
        hangup: signal(SignalKind::hangup())?,
    };
    let daemon = Daemon {
        clock,
        machine,
        store: Arc::new(store),
        config: Arc::new(config),
        guests: None,
        environment: Arc::new(environment),
        ledger,
        words,
        news,
        heard,
        callers: Callers::new(),
        pending: VecDeque::new(),
        workers: BTreeMap::new(),
        spawns: Arc::new(Semaphore::new(cores * 2)),
        http: None,
        bots: BTreeMap::new(),
        receipts: BTreeMap::new(),
        last_receipt: 0,
        sampler: Arc::new(Mutex::new(sampler)),
        groups,
        pulse: pulse::Pulse::begin(clock.now().tick),
        leaving: false,
        leave_by: None,
        successor: None,
        upgrade_failed: upgrade::failed_before(),
    };
    Ok((daemon, inbox, first, server))
}

impl Daemon {
    /// The loop. Ends when the machine wants to leave, or when the ledger has left us.
    async fn rounds(&mut self, inbox: &mut Inbox) -> ExitCode {
        let mut watchdog = Watchdog::of_process();
        loop {
            self.flush();
            if self.leaving {
                return ExitCode::SUCCESS;
            }
            let now = self.clock.now();
            if self.leave_by.is_some_and(|by| by <= now.tick) {
                tracing::error!(
                    "leaving before the ledger has taken everything: what it did not take was told to nobody"
                );
                return ExitCode::SUCCESS;
            }
            let due = self.machine.deadline().map_or(u64::MAX, |(tick, _)| tick);
            let due = due.min(self.leave_by.unwrap_or(u64::MAX));
            let wait = Clock::until(now, due.min(self.pulse.due()));
            tokio::select! {
                committed = waits::front(&mut self.pending) => {
                    if let Err(error) = committed {
                        tracing::error!(%error, "memory is ahead of the ledger: leaving to start again from it");
                        return ExitCode::from(EXIT_BUG);
                    }
                }
                Some(word) = inbox.words.recv() => self.word(word),
                Some(news) = inbox.news.recv() => self.news(news),
                Some(heard) = inbox.heard.recv() => self.heard(heard),
                Some(event) = inbox.asked.recv() => self.asked(event),
                Ok(()) = inbox.ledger.changed() => {
                    let state = inbox.ledger.borrow_and_update().clone();
                    self.handle(match state {
                        StoreState::Well => Input::LedgerWell,
                        StoreState::Stuck(why) => Input::LedgerStuck(why),
                    });
                }
                Some(()) = inbox.terminate.recv() => self.handle(Input::Leave),
                Some(()) = inbox.interrupt.recv() => self.handle(Input::ShutDown),
                Some(()) = inbox.hangup.recv() => self.reload(None),
                () = tokio::time::sleep(wait) => self.timeout(due),
                () = notify::fed(watchdog.as_mut(), || self.store.pulse()) => notify::alive(),
            }
        }
    }

    /// Gives an input to the machine and queues what it wants.
    fn handle(&mut self, input: Input) {
        self.feel_pulse();
        let now = self.clock.now();
        let mut effects = Vec::new();
        tracing::trace!(?input, state = self.machine.word(), "input");
        self.machine.handle(now, input, &mut effects);
        self.queue(effects);
    }

    /// Urgent effects are performed at once; so are answers that rest on no record. The rest waits for its commit.
    fn queue(&mut self, effects: Vec<Effect>) {
        let (mut records, mut rest) = (Vec::new(), Vec::new());
        let records_none = !effects.iter().any(|effect| matches!(effect, Effect::Record(_)));
        for effect in effects {
            if let Effect::Record(record) = effect {
                records.push(record);
            } else if effect.is_urgent() || (records_none && matches!(effect, Effect::Reply(..))) {
                self.perform(effect);
            } else {
                if matches!(effect, Effect::Exit) {
                    // Behind a commit that may never come: a full disk must not keep a service from being restarted.
                    self.leave_by = Some(close::leave_by(self.clock.now().tick));
                }
                rest.push(effect);
            }
        }
        let ticket = (!records.is_empty()).then(|| self.store.commit(records));
        if ticket.is_some() || !rest.is_empty() {
            self.pending.push_back(Group { ticket, effects: rest });
        }
    }

    /// Performs the groups at the front that wait for nothing.
    fn flush(&mut self) {
        while self.pending.front().is_some_and(|group| group.ticket.is_none()) {
            let Some(group) = self.pending.pop_front() else { break };
            for effect in group.effects {
                self.perform(effect);
            }
        }
    }

    fn word(&mut self, word: Word) {
        match word {
            Word::Input(input) => self.handle(input),
            Word::Spawned(agent, incarnation, handle) => self.spawned(&agent, incarnation, handle),
            Word::Found(agent, incarnation, handle) => self.found(agent, incarnation, handle),
            Word::Successor(caller, successor) => self.succeeded(caller, successor),
            Word::Dialled(dialled, handle) => self.dialled(*dialled, handle),
            Word::Reloaded(caller, loaded) => self.reloaded(caller, *loaded),
            Word::Hosted(caller, config) => self.hosted(caller, config),
        }
    }

    fn asked(&mut self, event: control::Event) {
        match event {
            control::Event::Asked(caller, request) => self.ask(caller, request),
            control::Event::Gone(caller) => self.handle(Input::CallerGone(caller)),
        }
    }

    /// A task of ours that ends with one word for the loop.
    fn task(&self, job: impl Future<Output = Word> + Send + 'static) {
        let words = self.words.clone();
        tokio::spawn(async move {
            let word = job.await;
            // The loop is gone: so is the need for the word.
            drop(words.send(word).await);
        });
    }
}

/// A sender whose receiver waits for a commit.
type Committed = oneshot::Sender<()>;
