//! Steps 3 to 6 of the loop: what the machine wants is done, in its order.

use super::{BURIAL, Driver, FAREWELL, WAITING_MAX};
use crate::args::Args;
use crate::clock;
use crate::codex::child::Event;
use crate::codex::namespace::View;
use crate::codex::nursery::{Handle, Start};
use crate::codex::rollout;
use crate::home::{self, Homes};
use crate::journal::JournalError;
use crate::machine::io::{ChildId, ChildSpec, Effect, Input, SpawnFailure};
use crate::usage;
use protocol::hello::Accord;
use protocol::journal::Record;
use protocol::to_worker::Configure;
use protocol::{Finished, FromWorker, Text};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

impl Driver {
    /// Steps 3 to 6 for one input and for what it answers at once.
    pub(super) fn take(&mut self, input: Input) -> Result<(), JournalError> {
        let mut inputs = VecDeque::from([input]);
        let mut effects = Vec::new();
        while let Some(input) = inputs.pop_front() {
            let name = name_of(&input);
            self.machine.handle(self.clock.now(), input, &mut effects);
            let (running, children) = (self.machine.running(), self.machine.children());
            if matches!(name, "line" | "looked" | "measured" | "timeout") {
                // Many a second while Codex talks: they would bury the rest.
                tracing::debug!(input = name, effects = effects.len(), running, children);
            } else {
                tracing::info!(input = name, effects = effects.len(), running, children);
            }
            for effect in effects.drain(..) {
                inputs.extend(self.perform(effect)?);
            }
        }
        Ok(())
    }

    fn perform(&mut self, effect: Effect) -> Result<Option<Input>, JournalError> {
        match effect {
            Effect::Journal(record) => {
                if let Record::Begun(begun) = &record {
                    tracing::info!(turn = %begun.turn, attempt = %begun.attempt, "turn begins");
                }
                self.journal.append(&record)?;
            }
            Effect::Spawn(id, spec) => return Ok(self.spawn(id, spec)),
            Effect::Write(id, line) => self.with_child(id, |child| child.write(line)),
            Effect::End(id) => self.with_child(id, Handle::end),
            Effect::Kill(id) => self.with_child(id, Handle::kill),
            Effect::ReadRollout { attempt, thread, from_bytes } => {
                let read = rollout::read(&self.args.agent_dir.join("codex-home"), &thread, from_bytes);
                return Ok(Some(Input::RolloutRead(attempt, read)));
            }
            Effect::Look(id, threads) => {
                let vitals = self.looks.look(id, &self.args.agent_dir.join("codex-home"), &threads);
                return Ok(Some(Input::Looked(id, Box::new(vitals))));
            }
            Effect::Tell(news) => self.tell(news),
            Effect::Finish(end, text) => self.finish(end, text)?,
            Effect::Measure => return Ok(Some(Input::Measured(self.nursery.look()))),
            Effect::LookAtDisk => self.look_at_disk(),
            Effect::PruneLogs => self.prune_logs(),
            Effect::FindOld(for_ms) => self.find_old(for_ms),
            Effect::Leave => self.left = true,
        }
        Ok(None)
    }

    /// Walks through the agent's folder on a thread of its own: it may hold a hundred thousand files.
    fn look_at_disk(&self) {
        let (dir, sender) = (self.args.agent_dir.clone(), self.disk_sender.clone());
        tokio::task::spawn_blocking(move || {
            // The loop is gone: so is the need for the number.
            sender.blocking_send(Input::DiskLooked(usage::of_folder(&dir))).ok();
        });
    }

    /// The same for old rollouts; the first line of each is read.
    fn find_old(&self, for_ms: u64) {
        let (home, sender) = (self.args.agent_dir.join("codex-home"), self.disk_sender.clone());
        let before_ms = clock::wall_ms().saturating_sub(for_ms);
        tokio::task::spawn_blocking(move || {
            sender.blocking_send(Input::OldFound(rollout::older(&home, before_ms))).ok();
        });
    }

    fn prune_logs(&mut self) {
        let freed = home::remove_logs(&self.args.agent_dir.join("codex-home"));
        if freed > 0 {
            self.tell(FromWorker::Note(format!("log databases of Codex were removed: {} KiB", freed >> 10)));
        }
    }

    fn with_child(&self, id: ChildId, act: impl FnOnce(&Handle)) {
        if let Some(child) = self.children.get(&id) {
            act(child);
        }
    }

    fn spawn(&mut self, id: ChildId, spec: ChildSpec) -> Option<Input> {
        let Some(configure) = &self.configure else {
            return Some(Input::SpawnFailed(id, SpawnFailure::Failed("the worker is not configured".to_owned())));
        };
        let start = Start {
            command: configure.codex_command.clone(),
            view: view(&self.args, configure),
            limits: configure.limits,
            stop_grace: Duration::from_millis(configure.clocks.stop_grace_ms),
            spec,
        };
        self.children.insert(id, self.nursery.start(id, start, self.child_sender.clone()));
        self.beat_due = self.beat_by(self.clock.now());
        None
    }

    fn finish(&mut self, mut end: Box<Finished>, text: String) -> Result<(), JournalError> {
        if let Some(kept) = self.journaled.get(&end.attempt) {
            end.text = kept.clone().unwrap_or(Text::Inline(text));
        } else {
            end.text = self.texts.keep(end.attempt, text).unwrap_or_else(|error| {
                // The outcome is worth more than the rest of its text.
                tracing::warn!(%error, "a long answer could not be written");
                end.detail = format!("the whole answer could not be kept: {error}");
                Text::Inline(String::new())
            });
            self.journal.append(&Record::Ended(end.clone()))?;
            tracing::info!(turn = %end.turn, attempt = %end.attempt, outcome = end.outcome.as_str(), "turn ends");
            let kept = matches!(end.text, Text::File(_)).then(|| end.text.clone());
            self.journaled.insert(end.attempt, kept);
        }
        self.tell(FromWorker::Finished(end));
        Ok(())
    }

    /// Says it to the supervisor, or keeps it if nobody hears and the machine will not say it again.
    pub(super) fn tell(&mut self, news: FromWorker) {
        self.remember(&news);
        let Some(session) = self.session.as_ref().filter(|_| self.linked) else {
            if matches!(news, FromWorker::Steered(_) | FromWorker::Note(_) | FromWorker::Alert(_)) {
                if self.waiting.len() >= WAITING_MAX {
                    self.waiting.pop_front();
                }
                self.waiting.push_back(news);
            }
            return;
        };
        let stable = matches!(news, FromWorker::Hello(_) | FromWorker::Finished(_));
        if session.accord == Accord::Full || stable {
            session.outbox.push(news);
        }
    }

    /// Ends what still runs and lets the last words out.
    pub(super) async fn leave(mut self, events: &mut mpsc::Receiver<Event>) {
        self.children.values().for_each(Handle::kill);
        let burial = async {
            while !self.children.is_empty() {
                if let Some(Event::Exited(id, _) | Event::SpawnFailed(id, _)) = events.recv().await {
                    self.children.remove(&id);
                }
            }
        };
        if timeout(BURIAL, burial).await.is_err() {
            tracing::warn!("a child did not go in time");
        }
        if let Some(session) = &self.session
            && timeout(FAREWELL, session.outbox.written()).await.is_err()
        {
            tracing::warn!("the supervisor did not read the last words");
        }
        tracing::info!("left");
    }
}

/// What a child sees: the agent's folder is masked but for its homes.
fn view(args: &Args, configure: &Configure) -> View {
    let homes = Homes::of(&args.agent_dir, configure);
    let paths = |texts: &[String]| texts.iter().map(PathBuf::from).collect::<Vec<_>>();
    let mut masked = paths(&configure.masked);
    masked.push(args.agent_dir.clone());
    let private = args.agent_dir.join("home");
    let mut shown = vec![homes.codex_home.clone(), private, homes.tmp.clone(), homes.workspace.clone()];
    shown.extend(paths(&configure.writable));
    let added = [
        ("HOME", homes.home.display().to_string()),
        ("CODEX_HOME", homes.codex_home.display().to_string()),
        ("TMPDIR", homes.tmp.display().to_string()),
        ("REAL_HOME", configure.real_home.clone()),
    ];
    let given = configure.env.iter().filter(|(name, _)| added.iter().all(|(ours, _)| ours != name)).cloned();
    let env = given.chain(added.clone().map(|(name, value)| (name.to_owned(), value))).collect();
    View {
        masked,
        fixed: Vec::new(),
        shown,
        workspace: homes.workspace,
        env,
        root: rustix::process::geteuid().is_root(),
    }
}

/// The input's kind, for the log: never what it holds.
const fn name_of(input: &Input) -> &'static str {
    match input {
        Input::Configured(_) => "configured",
        Input::Begin { .. } => "begin",
        Input::PromptLost { .. } => "prompt lost",
        Input::Steer { .. } => "steer",
        Input::Interrupt(..) => "interrupt",
        Input::Acked(_) => "acked",
        Input::Drain => "drain",
        Input::Terminate => "terminate",
        Input::LinkUp => "link up",
        Input::LinkDown => "link down",
        Input::Spawned(..) => "spawned",
        Input::SpawnFailed(..) => "spawn failed",
        Input::Line(..) => "line",
        Input::LineTooLong(..) => "line too long",
        Input::Exited(..) => "exited",
        Input::RolloutRead(..) => "rollout read",
        Input::Looked(..) => "looked",
        Input::Recovered(_) => "recovered",
        Input::DiskLooked(_) => "disk looked",
        Input::OldFound(_) => "old found",
        Input::Spared(_) => "spared",
        Input::Measured(_) => "measured",
        Input::Timeout => "timeout",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::tests::configure;
    use std::path::Path;

    #[test]
    fn what_the_worker_adds_to_the_environment_wins() {
        let args = Args::parse(
            "--agent a --incarnation 1 --agent-dir /d --socket /s --supervisor-uid 0".split(' ').map(str::to_owned),
        )
        .unwrap();
        let mut configure = configure(Path::new("/d"));
        configure.env.push(("HOME".into(), "/evil".into()));
        let view = view(&args, &configure);
        let homes: Vec<_> = view.env.iter().filter(|(name, _)| name == "HOME").collect();
        assert_eq!(homes, [&("HOME".to_owned(), "/d/home".to_owned())]);
        assert_eq!(view.env.len(), 5);
    }
}
