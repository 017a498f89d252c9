//! What people and the world do, by chance: messages, orders, deaths, stops, cuts, full disks, clocks that jump.

use super::serve::ToProc;
use super::setup::{FRIEND, NAMES, OWNER, name};
use super::world::{Event, Mood, World};
use protocol::control::{Request, Verb};
use protocol::to_worker::InterruptReason;
use protocol::{AgentName, TurnId};
use supervisor::machine::nouns::UpdateKind;
use supervisor::machine::words::Input;
use worker::machine::io::{Exit, Input as WorkerInput};

impl World {
    /// Somebody does something, and something else a while later.
    pub(crate) fn mischief(&mut self) {
        if self.mood != Mood::Wild {
            return;
        }
        let pause = self.dice.roll(900);
        self.later(pause, Event::Mischief);
        let agent = match self.calm {
            Some(_) => name("a"),
            None => name(self.dice.pick::<&str>(&NAMES)),
        };
        match self.dice.roll(100) {
            0..=49 => self.people(&agent),
            50..=77 => self.harm(&agent),
            78..=89 if self.calm.is_none() => self.harm_all(),
            90..=97 => self.operator(&agent),
            98 if self.calm.is_none() && self.dice.one_in(3) => self.end_everything(),
            _ => self.calm_message(),
        }
    }

    fn people(&mut self, agent: &AgentName) {
        let bot = format!("{agent}bot");
        match self.dice.roll(24) {
            0..=10 => {
                let user = *self.dice.pick(&[FRIEND, FRIEND, FRIEND, OWNER]);
                let text = self.text();
                self.write(&bot, user, &text);
            }
            11..=14 => {
                let conversation = *self.dice.pick::<&str>(&["x", "y"]);
                self.send_console(agent.as_str(), conversation);
            }
            15..=17 => self.order(&bot),
            18 => self.look(),
            19 => self.again(),
            20 => {
                self.cover.fault("a stranger writes");
                self.write(&bot, 99, "hello");
            }
            21 => self.update(&bot, UpdateKind::Other { what: "photo".into(), from: None }),
            22 => self.hang_up(),
            _ => self.calm_message(),
        }
    }

    /// The agent that no fault touches gets a message as soon as it has none.
    fn calm_message(&mut self) {
        let Some(agent) = self.calm.clone() else { return };
        let busy = self.ledger.turns.values().any(|t| t.end.is_none() && t.new.conversation.agent == agent);
        let under_way = self.outside.awaited().is_some() || !self.host.is_settled();
        if !busy && !under_way && self.tick > 2_000 {
            let text = self.text();
            self.write(&format!("{agent}bot"), FRIEND, &text);
        }
    }

    /// The channel hands over the latest updates once more.
    fn again(&mut self) {
        self.cover.fault("an update comes twice");
        let count = self.outside.channel.len();
        for at in count.saturating_sub(3)..count {
            self.later(1, Event::Update(at));
        }
    }

    fn harm(&mut self, agent: &AgentName) {
        let pid = self.places[agent].process.as_ref().map(|process| process.identity.pid);
        match self.dice.roll(28) {
            0..=4 => {
                if let Some(pid) = pid {
                    self.cover.fault("kill -9 of a worker");
                    self.dies(agent, pid, "killed by signal 9");
                }
            }
            5..=8 => {
                let effects = u32::try_from(self.dice.roll(14)).expect("small");
                if let Some(process) = self.places.get_mut(agent).and_then(|place| place.process.as_mut()) {
                    process.dies_in = Some(effects);
                    self.cover.fault("kill -9 of a worker between two effects");
                }
            }
            9..=11 => self.kill_codex(agent),
            12..=14 => self.stop(agent),
            15..=18 => {
                let open = self.links.iter().find(|(_, link)| link.agent == *agent).map(|(id, _)| *id);
                if let Some(link) = open {
                    self.cover.fault("a session is cut");
                    self.cut(link);
                }
            }
            19..=25 => self.toggle(agent),
            26 => {
                let incarnation = self.places[agent].process.as_ref().map(|process| process.incarnation);
                if let Some(incarnation) = incarnation {
                    self.cover.fault("SIGTERM of a worker");
                    self.reach(agent, incarnation, ToProc::Terminate);
                }
            }
            _ => self.stray_interrupt(agent),
        }
    }

    /// A supervisor of a later release may say that everything ends.
    fn stray_interrupt(&mut self, agent: &AgentName) {
        let process = self.places[agent].process.as_ref().filter(|process| !process.stopped);
        let Some(incarnation) = process.map(|process| process.incarnation) else { return };
        let running = process.and_then(|process| process.machine.standings().first().map(|s| s.attempt));
        if let Some(attempt) = running {
            self.cover.fault("an interrupt for a shutdown");
            self.take(agent, incarnation, WorkerInput::Interrupt(attempt, InterruptReason::Shutdown));
        }
    }

    fn kill_codex(&mut self, agent: &AgentName) {
        let children: Vec<_> = self.places[agent].children.keys().copied().collect();
        if !children.is_empty() {
            let key = *self.dice.pick(&children);
            self.cover.fault("kill -9 of a Codex child");
            self.exits(agent, key, Exit { signal: Some(9), ..Exit::default() }, 3);
        }
    }

    fn stop(&mut self, agent: &AgentName) {
        let long = self.dice.one_in(4);
        let pause = if long { 30_000 + self.dice.roll(120_000) } else { self.dice.roll(5_000) };
        let Some(process) = self.places.get_mut(agent).and_then(|place| place.process.as_mut()) else { return };
        if !std::mem::replace(&mut process.stopped, true) {
            let incarnation = process.incarnation;
            self.cover.fault(if long { "a long SIGSTOP of a worker" } else { "a short SIGSTOP of a worker" });
            self.later(pause, Event::Continue(agent.clone(), incarnation));
        }
    }

    /// Something of an agent's folder breaks, or works again.
    fn toggle(&mut self, agent: &AgentName) {
        let which = self.dice.roll(5);
        let slow = [0, 900, 25_000][self.dice.index(3)];
        let well = self.dice.one_in(2);
        let place = self.places.get_mut(agent).expect("a place");
        let fault = match which {
            _ if well => {
                (place.disk.full, place.broken, place.codex_missing, place.deaf, place.slow_ms) = Default::default();
                return;
            }
            0 => {
                place.disk.full = true;
                "a full disk"
            }
            1 => {
                place.broken = true;
                "a worker cannot be started"
            }
            2 => {
                place.codex_missing = true;
                "Codex is missing"
            }
            3 => {
                place.deaf = true;
                "a worker never gets ready"
            }
            _ => {
                place.slow_ms = slow;
                "a slow start of a worker"
            }
        };
        self.cover.fault(fault);
    }

    fn harm_all(&mut self) {
        let lives = self.host.machine.is_some();
        let alive = lives && !self.host.is_stopped();
        match self.dice.roll(14) {
            0..=2 if lives => {
                self.cover.fault("kill -9 of the supervisor");
                self.kill_host();
            }
            3..=5 if alive => {
                self.cover.fault("kill -9 of the supervisor between two effects");
                self.host.dies_in = Some(u32::try_from(self.dice.roll(10)).expect("small"));
            }
            6 if alive => {
                self.cover.fault("the supervisor leaves");
                self.give(Input::Leave);
            }
            7 if alive => {
                let build = self.dice.one_in(2);
                self.cover.fault(if build { "an upgrade to another build" } else { "an upgrade to another protocol" });
                if build {
                    self.host.build += 1;
                } else {
                    self.host.protocol += 1;
                }
                self.give(Input::Leave);
            }
            8 if alive && !self.host.stuck => {
                self.cover.fault("the ledger is stuck");
                self.host.stuck = true;
                if self.dice.one_in(2) {
                    self.give(Input::LedgerStuck("the disk is full".into()));
                }
            }
            8 | 9 if alive => self.mend_ledger(),
            10 => {
                self.cover.fault("the wall clock jumps");
                let minutes = self.dice.roll(600);
                let back = self.wall_shift.saturating_sub(minutes.min(60) * 60_000);
                self.wall_shift = if self.dice.one_in(2) { back } else { self.wall_shift + minutes * 60_000 };
            }
            11 => {
                self.cover.fault("the host sleeps");
                let pause = self.dice.roll(100_000);
                self.tick += pause;
                self.late(pause);
            }
            12 | 13 if alive => {
                self.cover.fault("a SIGSTOP of the supervisor");
                let pause = self.dice.roll(60_000);
                self.stop_host(pause);
            }
            _ => {}
        }
    }

    /// The ledger can be written again.
    pub(crate) fn mend_ledger(&mut self) {
        self.unstick();
        self.give(Input::LedgerWell);
    }

    fn operator(&mut self, agent: &AgentName) {
        let bot = format!("{agent}bot");
        let verb = *self.dice.pick(&[Verb::Start, Verb::Start, Verb::Start, Verb::Stop, Verb::Restart, Verb::Kill]);
        match self.dice.roll(12) {
            0..=5 => {
                self.cover.fault("an operator's order");
                self.ask(Request::Agents(verb, vec![agent.clone()]));
            }
            6 => self.ask(Request::Interrupt(agent.clone(), None)),
            7 | 8 => {
                let latest = self.ledger.turns.keys().next_back().map_or(0, |id| id.0);
                let turn = TurnId(1 + self.dice.roll(latest + 1));
                if self.calm.is_none() {
                    self.ask(Request::Retry(turn));
                }
            }
            9 if self.calm.is_none() => self.ask(Request::Reload),
            10 if self.host.machine.is_some() => {
                let well = self.dice.one_in(2);
                self.give(Input::Polling(bot, if well { Ok(()) } else { Err("a conflict".into()) }));
            }
            11 if self.host.machine.is_some() => {
                let pause = self.dice.roll(5_000);
                self.give(Input::Flooded(bot, pause));
            }
            _ => {}
        }
    }

    /// The configuration is read again: an agent may be gone, back, or served in another way.
    pub(crate) fn reload(&mut self, caller: Option<supervisor::machine::nouns::CallerId>) {
        if self.mood == Mood::Wild && self.dice.one_in(5) {
            return self.give(Input::ReloadRefused(caller, "line 3: unknown key".into()));
        }
        let mut setup = self.host.setup.clone();
        let agent = name(self.dice.pick::<&str>(&NAMES));
        if self.mood == Mood::Wild && self.dice.one_in(3) {
            self.cover.fault("an agent is removed");
            if let Some(policy) = setup.agents.remove(&agent) {
                self.removed.insert(agent, policy);
            }
        } else {
            setup.agents.append(&mut self.removed);
            for policy in setup.agents.values_mut() {
                policy.served += 1;
            }
        }
        self.host.setup = setup.clone();
        self.give(Input::Reloaded(caller, Box::new(setup)));
    }

    fn end_everything(&mut self) {
        self.cover.fault("a shutdown");
        if self.dice.one_in(2) {
            let now = self.dice.one_in(2);
            self.ask(Request::Shutdown { now });
        } else if self.host.machine.is_some() {
            self.give(Input::ShutDown);
        }
    }
}
