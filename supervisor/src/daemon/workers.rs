//! Worker processes and the sessions with them, as the loop holds them.

use super::{Daemon, Word, served, texts};
use crate::link::{self, Dialled, Happened, News, Session, Target};
use crate::machine::words::{Input, Linked};
use crate::process::cgroup::Groups;
use crate::process::signal::Handle;
use crate::process::spawn::{self, WorkerSpec};
use crate::process::{adopt, sweep};
use protocol::hello::{Accord, Hello};
use protocol::{AgentName, FromWorker, Incarnation, Text, ToWorker, version};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a worker may take from its start to its bound socket. The machine's own limit is longer.
const LISTEN_WITHIN: Duration = Duration::from_secs(15);

/// One worker of the present.
#[derive(Debug)]
pub(super) struct Worker {
    incarnation: Incarnation,
    handle: Handle,
    session: Option<Session>,
}

impl Daemon {
    pub(super) fn spawn(&mut self, agent: AgentName, incarnation: Incarnation) {
        let config = self.config.clone();
        let (spawns, words, groups) = (self.spawns.clone(), self.words.clone(), self.groups.clone());
        tokio::spawn(async move {
            // The semaphore is never closed; without a permit the start is merely unbounded.
            let permit = spawns.acquire_owned().await;
            let program = spawn::worker_program(config.worker_command.as_deref());
            let started = program.map_err(|e| e.to_string()).and_then(|program| {
                let spec = WorkerSpec {
                    cgroup: groups.as_deref().and_then(|groups| group(groups, &agent)),
                    program,
                    agent: agent.clone(),
                    incarnation,
                    agent_dir: config.agent_dir(&agent),
                    socket: config.agent_socket(&agent),
                    supervisor_uid: nix::unistd::getuid().as_raw(),
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
                Ok(Ok(())) => of_our_release(dialled(&target(&config, agent, incarnation), None).await),
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
        let pid = handle.pid();
        self.workers.insert(agent.clone(), Worker { incarnation, handle, session: None });
        self.handle(Input::Spawned(agent.clone(), incarnation, pid));
    }

    /// Dials a worker that is there already: one of an earlier supervisor, or ours after a lost session.
    pub(super) fn dial(&mut self, agent: AgentName, incarnation: Incarnation) {
        let target = target(&self.config, agent.clone(), incarnation);
        let known = self.workers.get(&agent).map(|worker| worker.handle.pid());
        let words = self.words.clone();
        tokio::spawn(async move {
            let word = dialled(&target, known).await;
            if let Word::Dialled(dialled, Some(handle)) = &word {
                watch(&words, agent, dialled.hello.incarnation, adopt::exited(handle.clone()));
            }
            say(&words, word).await;
        });
    }

    pub(super) fn dialled(&mut self, dialled: Dialled, handle: Option<Handle>) {
        let agent = dialled.hello.agent.clone();
        let incarnation = dialled.hello.incarnation;
        let linked = Linked { incarnation, pid: dialled.pid, accord: dialled.accord };
        if let Some(handle) = handle {
            self.workers.insert(agent.clone(), Worker { incarnation, handle, session: None });
        }
        let Some(worker) = self.workers.get_mut(&agent).filter(|worker| worker.incarnation == incarnation) else {
            return self.handle(Input::LinkFailed(agent, incarnation, "another run of the worker answered".into()));
        };
        worker.session = Some(dialled.begin(self.news.clone()));
        // What the machine wants said comes after the worker knows how its agent is served.
        if linked.accord == Accord::Full {
            self.configure(&agent);
        }
        self.handle(Input::Linked(agent, linked));
    }

    pub(super) fn configure(&self, agent: &AgentName) {
        let Some(policy) = self.config.agents.get(agent) else { return };
        let configure = served::configure(&self.config, &self.environment, policy, self.ledger);
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
        let dir = self.config.agent_dir(&agent);
        self.task(async move {
            let swept = sweep::sweep(&dir).await;
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
fn group(groups: &Groups, agent: &AgentName) -> Option<std::path::PathBuf> {
    let made = groups.make(agent);
    if let Err(error) = &made {
        tracing::warn!(%agent, %error, "the agent has no cgroup");
    }
    made.ok()
}

/// A worker that we have just started will never be ready if it is of another protocol: only an old one may drain.
fn of_our_release(word: Word) -> Word {
    match word {
        Word::Dialled(dialled, _) if dialled.accord == Accord::DrainOnly => {
            let Hello { agent, incarnation, protocol: theirs, build, .. } = dialled.hello;
            let why = format!(
                "the worker that was started is of release {build} (protocol {theirs}), this supervisor is of {} \
                 (protocol {}): install both of one release",
                version::BUILD,
                version::PROTOCOL
            );
            Word::Input(Input::LinkFailed(agent, incarnation, why))
        }
        Word::Dialled(..) | Word::Input(_) | Word::Spawned(..) | Word::Reloaded(..) => word,
    }
}

fn target(config: &crate::config::Config, agent: AgentName, incarnation: Incarnation) -> Target {
    let socket = config.agent_socket(&agent);
    Target { socket, agent, incarnation, uid: nix::unistd::getuid().as_raw() }
}

/// Dials; a process that is not `known` and not our child is taken over by its pid.
async fn dialled(target: &Target, known: Option<u32>) -> Word {
    let failed = |why: String| Word::Input(Input::LinkFailed(target.agent.clone(), target.incarnation, why));
    match link::dial(target).await {
        Err(error) => failed(error.words()),
        Ok(dialled) if target.incarnation.0 != 0 || known == Some(dialled.pid) => {
            Word::Dialled(Box::new(dialled), None)
        }
        Ok(dialled) => match adopt::adopt(dialled.pid, &target.agent, dialled.hello.incarnation) {
            Ok(handle) => Word::Dialled(Box::new(dialled), Some(handle)),
            Err(error) => failed(format!("the worker cannot be taken over: {error}")),
        },
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
