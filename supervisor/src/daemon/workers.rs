//! Worker processes and the sessions with them, as the loop holds them.

use super::{Daemon, Word, served, texts};
use crate::link::{self, Dialled, Happened, News, Session, Target, Undialled};
use crate::machine::nouns::Identity;
use crate::machine::words::{Input, Linked};
use crate::process::cgroup::Groups;
use crate::process::folder::Owner;
use crate::process::signal::Handle;
use crate::process::spawn::{self, WorkerSpec};
use crate::process::{adopt, folder, identity, sweep};
use protocol::hello::{Accord, Hello};
use protocol::version::Release;
use protocol::{AgentName, FromWorker, Incarnation, Text, ToWorker};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a worker may take from its start to its bound socket. The machine's own limit is longer.
const LISTEN_WITHIN: Duration = Duration::from_secs(15);

/// Between two looks for the socket of a process that lives.
const NOBODY_PAUSE: Duration = Duration::from_millis(50);

/// One worker of the present.
#[derive(Debug)]
pub(super) struct Worker {
    incarnation: Incarnation,
    handle: Handle,
    session: Option<Session>,
}

impl Daemon {
    pub(super) fn spawn(&mut self, agent: AgentName, incarnation: Incarnation, nonce: u64) {
        let config = self.config.clone();
        let (spawns, words, groups) = (self.spawns.clone(), self.words.clone(), self.groups.clone());
        tokio::spawn(async move {
            // The semaphore is never closed; without a permit the start is merely unbounded.
            let permit = spawns.acquire_owned().await;
            let program = spawn::worker_program(config.worker_command.as_deref());
            let started = program.map_err(|e| e.to_string()).and_then(|program| {
                let user = owner(&config, &agent);
                let spec = WorkerSpec {
                    cgroup: groups.as_deref().and_then(|groups| group(groups, &agent, user)),
                    program,
                    agent: agent.clone(),
                    incarnation,
                    agent_dir: config.agent_dir(&agent),
                    socket: config.agent_socket(&agent),
                    supervisor_uid: nix::unistd::getuid().as_raw(),
                    user,
                    nonce,
                };
                spawn::spawn_worker(&spec).map_err(|e| chain(&e))
            });
            let running = match started {
                Ok(running) => running,
                Err(why) => {
                    say(&words, Word::Input(Input::SpawnFailed(agent, incarnation, why))).await;
                    return;
                }
            };
            say(&words, Word::Spawned(agent.clone(), incarnation, running.handle.clone())).await;
            watch(&words, agent.clone(), incarnation, running.exited);
            let listening = tokio::time::timeout(LISTEN_WITHIN, running.listening).await;
            drop(permit);
            let word = match listening {
                Ok(Ok(())) => {
                    let target = target(&config, agent.clone(), incarnation);
                    match link::dial(&target).await {
                        Ok(dialled) => of_our_release(dialled),
                        Err(failed) => Word::Input(Input::LinkFailed(agent, incarnation, failed.error.words())),
                    }
                }
                Ok(Err(why)) => Word::Input(Input::LinkFailed(agent, incarnation, why)),
                Err(_) => {
                    let why = format!("it did not listen within {LISTEN_WITHIN:?}");
                    Word::Input(Input::LinkFailed(agent, incarnation, why))
                }
            };
            say(&words, word).await;
        });
    }

    pub(super) fn spawned(&mut self, agent: &AgentName, incarnation: Incarnation, handle: Handle) {
        let identity = identity::of(&handle).unwrap_or_else(|error| {
            // It has ended and was reaped already: its end is on its way to us.
            tracing::debug!(%agent, %error, "a worker that was started cannot be looked at");
            Identity { boot: 0, pid: handle.pid(), inode: 0, started: 0 }
        });
        self.workers.insert(agent.clone(), Worker { incarnation, handle, session: None });
        self.handle(Input::Spawned(agent.clone(), incarnation, identity));
    }

    /// Dials a worker that is there already: one of an earlier supervisor, or ours after a lost session.
    pub(super) fn dial(&mut self, agent: AgentName, incarnation: Incarnation) {
        let search = Search {
            target: target(&self.config, agent.clone(), incarnation),
            agent_dir: self.config.agent_dir(&agent),
            held: self.workers.get(&agent).map(|worker| worker.handle.clone()),
            remembered: self.machine.remembered(&agent),
        };
        let words = self.words.clone();
        tokio::spawn(async move {
            match search.dial().await {
                Ok((dialled, handle)) => {
                    if let Some(handle) = &handle {
                        watch(&words, agent, dialled.hello.incarnation, adopt::exited(handle.clone()));
                    }
                    say(&words, Word::Dialled(Box::new(dialled), handle)).await;
                }
                Err((error, silent)) => {
                    let mut incarnation = incarnation;
                    if let Some((handle, run)) = silent {
                        incarnation = run;
                        watch(&words, agent.clone(), run, adopt::exited(handle.clone()));
                        say(&words, Word::Found(agent.clone(), run, handle)).await;
                    }
                    say(&words, Word::Input(Input::LinkFailed(agent, incarnation, error))).await;
                }
            }
        });
    }

    /// The process of an old worker is known although it said no good hello.
    pub(super) fn found(&mut self, agent: AgentName, incarnation: Incarnation, handle: Handle) {
        let pid = handle.pid();
        self.workers.insert(agent.clone(), Worker { incarnation, handle, session: None });
        self.handle(Input::Found(agent, incarnation, pid));
    }

    pub(super) fn dialled(&mut self, dialled: Dialled, handle: Option<Handle>) {
        let agent = dialled.hello.agent.clone();
        let incarnation = dialled.hello.incarnation;
        let adopted = handle.is_some();
        if let Some(handle) = handle {
            self.workers.insert(agent.clone(), Worker { incarnation, handle, session: None });
        }
        let Some(worker) = self.workers.get_mut(&agent).filter(|worker| worker.incarnation == incarnation) else {
            return self.handle(Input::LinkFailed(agent, incarnation, "another run of the worker answered".into()));
        };
        let Ok(identity) = identity::of(&worker.handle) else {
            return self.handle(Input::LinkFailed(agent, incarnation, "the worker ended after its hello".into()));
        };
        let Hello { protocol, build, nonce, .. } = dialled.hello.clone();
        // One that we have started ourselves is as new as can be had.
        let release = Release { protocol, build: build.clone() };
        let outdated = adopted && (release != *Release::current() || identity::is_replaced(identity.pid));
        let outdated = outdated || self.machine.is_outdated(&agent, incarnation);
        let accord = dialled.accord;
        let linked = Linked { incarnation, pid: dialled.pid, accord, nonce, identity, protocol, build, outdated };
        // One that is not the worker of the record is not listened to: its outcomes bear the numbers of others.
        if self.machine.knows(&agent, &linked) {
            worker.session = Some(dialled.begin(self.news.clone()));
        }
        self.handle(Input::Linked(agent, linked));
    }

    pub(super) fn configure(&self, agent: &AgentName) {
        let configs = [Some(&*self.config), self.guests.as_deref()];
        let found = configs.into_iter().flatten().find_map(|config| Some((config, config.agents.get(agent)?)));
        let Some((config, policy)) = found else { return };
        let configure = served::configure(config, &self.environment, policy, self.ledger);
        for refused in self.groups.iter().flat_map(|groups| groups.limit(agent, &configure.limits)) {
            tracing::warn!(%agent, "{refused}");
        }
        self.tell(agent, ToWorker::Configure(configure));
    }

    pub(super) fn tell(&self, agent: &AgentName, message: ToWorker) {
        let Some(session) = self.workers.get(agent).and_then(|worker| worker.session.as_ref()) else { return };
        let dir = self.config.agent_dir(agent).join("texts");
        let mut message = message;
        if let ToWorker::Ack(attempt) = &message {
            texts::forget(&dir, *attempt);
        } else if let ToWorker::Begin(begin) = &mut message {
            begin.prompt = texts::spill(&dir, &texts::prompt(begin.attempt), begin.prompt.clone());
        } else if let ToWorker::Steer(steer) = &mut message {
            steer.text = texts::spill(&dir, &texts::steer(steer.attempt, steer.turn), steer.text.clone());
        }
        if let Err(error) = session.tell(&message) {
            tracing::warn!(%agent, %error, "a message to the worker was not taken");
        }
    }

    pub(super) fn signal(&mut self, agent: &AgentName, pid: u32, kill: bool) {
        let Some(worker) = self.workers.get(agent).filter(|worker| worker.handle.pid() == pid) else { return };
        let sent = if kill { worker.handle.kill() } else { worker.handle.terminate() };
        if let Err(error) = sent {
            tracing::warn!(%agent, pid, %error, "the worker could not be signalled");
        }
    }

    /// Asks the session of a silent worker whether anything has arrived. Without a session there is nothing to read.
    pub(super) fn read_out(&mut self, agent: AgentName, incarnation: Incarnation) {
        let worker = self.workers.get(&agent).filter(|worker| worker.incarnation == incarnation);
        let asked = worker.and_then(|worker| worker.session.as_ref()).is_some_and(Session::read_out);
        if !asked {
            let words = self.words.clone();
            tokio::spawn(async move { say(&words, Word::Input(Input::ReadOut(agent, incarnation))).await });
        }
    }

    pub(super) fn sweep(&mut self, agent: AgentName, incarnation: Incarnation) {
        self.workers.remove(&agent);
        let (dir, ledger) = (self.config.agent_dir(&agent), self.ledger);
        self.task(async move {
            let swept = sweep::sweep(&dir, ledger).await;
            Word::Input(Input::Swept(agent, incarnation, swept))
        });
    }

    /// Something about a worker. An answer that lies in a file is read before the machine hears of it.
    pub(super) fn news(&mut self, news: News) {
        let (agent, incarnation) = (news.agent.clone(), news.incarnation);
        match news.happened.clone() {
            Happened::Lost(why) => {
                if let Some(worker) = self.workers.get_mut(&agent).filter(|w| w.incarnation == incarnation) {
                    worker.session = None;
                }
                self.handle(Input::LinkLost(agent, incarnation, why));
            }
            Happened::Said(FromWorker::Finished(mut end)) if matches!(end.text, Text::File(_)) => {
                let dir = self.config.agent_dir(&agent);
                self.task(async move {
                    end.text = texts::read(&dir, end.text).await;
                    drop(news);
                    Word::Input(Input::Said(agent, incarnation, FromWorker::Finished(end)))
                });
            }
            Happened::ReadOut => self.handle(Input::ReadOut(agent, incarnation)),
            Happened::Said(word) => self.handle(Input::Said(agent, incarnation, word)),
        }
    }
}

/// Where agents get cgroups. Without any they run on another rung, and `ps` says on which.
pub(super) fn groups(config: &crate::config::Config) -> Option<Arc<Groups>> {
    let found = Groups::find(&served::wish(config), &config.state_dir);
    match found.and_then(|groups| groups.prepare().map(|()| groups)) {
        Ok(groups) => {
            tracing::info!(group = %groups.root().display(), controllers = ?groups.controllers(), "agents have cgroups");
            Some(Arc::new(groups))
        }
        Err(error) => {
            tracing::info!("agents have no cgroups: {}", chain(&error));
            None
        }
    }
}

/// The group of an agent whose worker is about to start. Without one it starts all the same, on the next rung.
fn group(groups: &Groups, agent: &AgentName, user: Option<Owner>) -> Option<std::path::PathBuf> {
    let made = groups.make(agent, user);
    if let Err(error) = &made {
        tracing::warn!(%agent, %error, "the agent has no cgroup");
    }
    made.ok()
}

/// A worker that we have just started will never be ready if it is of another protocol: only an old one may drain.
fn of_our_release(dialled: Dialled) -> Word {
    if dialled.accord == Accord::Full {
        return Word::Dialled(Box::new(dialled), None);
    }
    let Hello { agent, incarnation, protocol: theirs, build, .. } = dialled.hello;
    let ours = Release::current();
    let why = format!(
        "the worker that was started is of release {build} (protocol {theirs}), this supervisor is of {} \
         (protocol {}): install both of one release",
        ours.build, ours.protocol
    );
    Word::Input(Input::LinkFailed(agent, incarnation, why))
}

/// The user of an agent that has one of its own.
fn owner(config: &crate::config::Config, agent: &AgentName) -> Option<Owner> {
    let user = config.agents.get(agent)?.user.as_ref()?;
    Some(Owner { uid: user.uid, gid: user.gid })
}

/// Lets the users of agents reach what is theirs. Nobody's way is closed but at a start: workers whose agent has lost its user
/// serve it until they are replaced.
pub(super) fn let_through(config: &crate::config::Config, is_start: bool) {
    let others = config.agents.values().any(|agent| agent.user.is_some());
    if (others || is_start)
        && let Err(error) = folder::let_through(&config.state_dir, &config.runtime_dir, others)
    {
        tracing::error!(%error, "the rights of state_dir and runtime_dir cannot be set");
    }
}

fn target(config: &crate::config::Config, agent: AgentName, incarnation: Incarnation) -> Target {
    let socket = config.agent_socket(&agent);
    let uid = owner(config, &agent).map_or_else(|| nix::unistd::getuid().as_raw(), |owner| owner.uid);
    Target { socket, agent, incarnation, uid }
}

/// A look for one agent's worker.
struct Search {
    target: Target,
    agent_dir: PathBuf,
    /// The process, if it is ours to signal already.
    held: Option<Handle>,
    /// The process that the ledger names.
    remembered: Option<Identity>,
}

/// The process behind a failed dial, with its run.
type Silent = Option<(Handle, Incarnation)>;

impl Search {
    /// Dials; a process that is not ours to signal yet is taken over by its number.
    async fn dial(&self) -> Result<(Dialled, Option<Handle>), (String, Silent)> {
        let agent = &self.target.agent;
        let dialled = self.patient().await.map_err(|failed| {
            let silent = if self.target.incarnation.0 == 0 { self.silent(failed.peer) } else { None };
            (failed.error.words(), silent)
        })?;
        let held = self.held.as_ref().is_some_and(|handle| handle.pid() == dialled.pid);
        if self.target.incarnation.0 != 0 || held {
            return Ok((dialled, None));
        }
        match adopt::adopt(dialled.pid, agent, dialled.hello.incarnation) {
            Ok(handle) => Ok((dialled, Some(handle))),
            Err(error) => Err((format!("the worker cannot be taken over: {error}"), None)),
        }
    }

    /// A process that lives and has no socket yet, or none at this moment, gets as long as one that is slow to answer.
    async fn patient(&self) -> Result<Dialled, Undialled> {
        let patience = Duration::from_millis(link::HELLO_MS);
        let there = || match &self.held {
            Some(held) => identity::of(held).is_ok(),
            None => self.remembered.is_some_and(|process| identity::find(&process).is_some_and(|h| h.reap().is_none())),
        };
        let nobody = |dialled: &Result<Dialled, Undialled>| {
            dialled.as_ref().err().is_some_and(|failed| failed.error.is_nobody()) && there()
        };
        let mut dialled = link::dial(&self.target).await;
        let again = async {
            while nobody(&dialled) {
                tokio::time::sleep(NOBODY_PAUSE).await;
                dialled = link::dial(&self.target).await;
            }
        };
        // The last word stands if it takes too long.
        drop(tokio::time::timeout(patience, again).await);
        dialled
    }

    /// The worker behind a failed dial: the peer of the connection, the process that the ledger remembers, the holder of
    /// the agent's lock. None of them counts unless its command line is that of a worker of this agent and folder.
    fn silent(&self, peer: Option<u32>) -> Silent {
        let remembered = self.remembered.as_ref().and_then(identity::find).map(|handle| handle.pid());
        let holder = identity::holder(&self.agent_dir.join(sweep::LOCK_FILE));
        let pids = [peer, remembered, holder].into_iter().flatten();
        let mut workers = pids.filter_map(|pid| adopt::silent(pid, &self.target.agent, &self.agent_dir).ok());
        workers.next()
    }
}

fn watch(
    words: &mpsc::Sender<Word>,
    agent: AgentName,
    incarnation: Incarnation,
    exited: impl Future<Output = String> + Send + 'static,
) {
    let words = words.clone();
    tokio::spawn(async move {
        let how = exited.await;
        say(&words, Word::Input(Input::Exited(agent, incarnation, how))).await;
    });
}

async fn say(words: &mpsc::Sender<Word>, word: Word) {
    // The loop is gone: so is the need for the word.
    drop(words.send(word).await);
}

/// An error with all its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words.push_str(": ");
        words.push_str(&cause.to_string());
        source = cause.source();
    }
    words
}
