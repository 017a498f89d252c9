//! What the supervisor says to a worker, as the worker's loop takes it.

use crate::sim::link::Side;
use crate::sim::world::World;
use protocol::hello::Accord;
use protocol::to_worker::{Begin, Configure};
use protocol::{AgentName, FailureClass, Finished, FromWorker, Incarnation, Outcome, ToWorker};
use worker::machine::io::Input;

impl World {
    /// A message of the supervisor.
    pub(crate) fn worker_hears(&mut self, agent: &AgentName, incarnation: Incarnation, link: u64, message: ToWorker) {
        let Some(process) = self.process(agent, incarnation) else { return };
        if let ToWorker::Hello(theirs) = message {
            let accord = process.hello(agent).meet(&theirs).expect("our supervisor");
            return self.up(agent, incarnation, link, accord);
        }
        if process.session.is_none_or(|(session, _)| session != link) {
            return;
        }
        let input = match message {
            ToWorker::Ack(attempt) => {
                process.journaled.remove(&attempt);
                Input::Acked(attempt)
            }
            ToWorker::Drain => Input::Drain,
            ToWorker::Configure(configure) => return self.configured(agent, incarnation, configure),
            ToWorker::Begin(begin) => {
                let known = process.machine.knows(begin.attempt);
                if self.places[agent].disk.full && !known {
                    return self.refuse_for_room(agent, incarnation, &begin);
                }
                let wall_ms = self.now().wall;
                let place = &self.places[agent];
                let rollout_bytes = begin.thread.as_deref().map_or(0, |thread| place.disk.size(thread));
                if self.may_harm(agent) && self.dice.one_in(60) {
                    self.cover.fault("prompt lost");
                    Input::PromptLost { begin, why: "no such file".into() }
                } else {
                    let prompt = begin.prompt.head().to_owned();
                    Input::Begin { begin, prompt, rollout_bytes, wall_ms }
                }
            }
            ToWorker::Steer(steer) => {
                Input::Steer { attempt: steer.attempt, turn: steer.turn, text: steer.text.head().to_owned() }
            }
            ToWorker::Interrupt(interrupt) => Input::Interrupt(interrupt.attempt, interrupt.reason),
            ToWorker::Kill => Input::Terminate,
            ToWorker::Archive(threads) => Input::Spared(threads),
            ToWorker::Ping(nonce) => return self.say(agent, incarnation, FromWorker::Pong(nonce)),
            ToWorker::Hello(_) => return,
        };
        self.take(agent, incarnation, input);
    }

    /// A supervisor has said hello: a newer one replaces the older.
    fn up(&mut self, agent: &AgentName, incarnation: Incarnation, link: u64, accord: Accord) {
        let Some(process) = self.process(agent, incarnation) else { return };
        let older = process.session.replace((link, accord));
        if let Some((older, _)) = older {
            self.close(older, Side::Worker);
            self.unlink(agent, incarnation);
        }
        if let Some(link) = self.links.get_mut(&link) {
            link.accord = Some(accord);
        }
        if accord == Accord::DrainOnly {
            self.recover(agent, incarnation);
            self.link(agent, incarnation);
            self.take(agent, incarnation, Input::Drain);
        }
    }

    fn link(&mut self, agent: &AgentName, incarnation: Incarnation) {
        let Some(process) = self.process(agent, incarnation) else { return };
        process.linked = true;
        self.take(agent, incarnation, Input::LinkUp);
        let Some(process) = self.process(agent, incarnation) else { return };
        for news in std::mem::take(&mut process.waiting) {
            self.say(agent, incarnation, news);
        }
        let Some(process) = self.process(agent, incarnation) else { return };
        for progress in process.latest.clone().into_values() {
            self.say(agent, incarnation, FromWorker::Progress(progress));
        }
    }

    /// Nothing is begun that could not be journaled, and nothing of this is either.
    fn refuse_for_room(&mut self, agent: &AgentName, incarnation: Incarnation, begin: &Begin) {
        self.cover.fault("no room for a turn");
        let class = Outcome::Failed(FailureClass::DiskFull);
        let mut end = Finished::new(begin.attempt, begin.turn, class);
        end.replay_safe = true;
        self.say(agent, incarnation, FromWorker::Finished(Box::new(end)));
    }

    pub(super) fn unlink(&mut self, agent: &AgentName, incarnation: Incarnation) {
        let Some(process) = self.process(agent, incarnation) else { return };
        if std::mem::replace(&mut process.linked, false) {
            self.take(agent, incarnation, Input::LinkDown);
        }
    }

    fn configured(&mut self, agent: &AgentName, incarnation: Incarnation, configure: Box<Configure>) {
        let deaf = self.places[agent].deaf;
        self.recover(agent, incarnation);
        if deaf {
            self.say(agent, incarnation, FromWorker::Note("the agent's homes cannot be made".into()));
        } else {
            let wall = self.now().wall;
            if let Some(process) = self.process(agent, incarnation) {
                process.machine.set_local_time(wall, 0);
            }
            self.take(agent, incarnation, Input::Configured(configure));
        }
        if self.process(agent, incarnation).is_some_and(|process| !process.linked) {
            self.link(agent, incarnation);
        }
    }

    /// Tells the machine what the last run left, once.
    fn recover(&mut self, agent: &AgentName, incarnation: Incarnation) {
        let Some(process) = self.process(agent, incarnation) else { return };
        let standings = std::mem::take(&mut process.recovered);
        if !standings.is_empty() {
            let ended = standings.iter().filter(|standing| standing.ended.is_some());
            process.journaled.extend(ended.map(|standing| standing.begun.attempt));
            self.take(agent, incarnation, Input::Recovered(standings));
        }
    }
}
