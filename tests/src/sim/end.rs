//! The end of a run: silence must end every turn by the clocks alone; where everything obliges, everything has its end.

use super::setup::{NAMES, name};
use super::world::{Event, Mood, World};
use protocol::Outcome;
use protocol::control::{Request, Verb};
use supervisor::machine::lifecycle::{Lifecycle, State};
use supervisor::machine::nouns::{PostKind, Source, TurnEnd, UpdateEnd};
use supervisor::machine::words::Input;

/// Silence ends a queue of turns, one behind the other, each with its tries.
const SILENT_MS: u64 = 2 * 60 * 60 * 1_000;
/// A whole run has its end within this: the longest pause of a post, and a chain of turns and restarts.
const KIND_MS: u64 = 3 * 60 * 60 * 1_000;

impl World {
    /// Chaos, perhaps silence, then peace.
    pub(crate) fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            if !self.step(u64::MAX) {
                break;
            }
        }
        if self.calm.is_none() && self.dice.one_in(4) {
            self.silence();
        }
        self.peace();
        self.all_is_over();
    }

    /// Codex says nothing more, nobody writes, nothing else is wrong: the clocks end what runs.
    fn silence(&mut self) {
        self.cover.fault("everything goes silent");
        self.mood = Mood::Silent;
        self.mend();
        let end = self.tick + SILENT_MS;
        let mut wanted = None;
        while self.step(end) {
            self.want_all(&mut wanted);
            let open = self.ledger.turns.values().any(|turn| turn.end.is_none());
            if !open && self.host.is_settled() {
                return;
            }
        }
        let open: Vec<_> = self.ledger.turns.iter().filter(|(_, turn)| turn.end.is_none()).map(|(id, _)| id).collect();
        panic!("silence does not end the turns {open:?}");
    }

    /// Every fault is taken back.
    fn mend(&mut self) {
        for place in self.places.values_mut() {
            (place.disk.full, place.broken, place.codex_missing, place.deaf, place.slow_ms) = Default::default();
            if let Some(process) = &mut place.process {
                process.dies_in = None;
            }
        }
        self.host.dies_in = None;
        self.host_goes_on(self.host.life);
        self.mend_ledger();
        let stopped: Vec<_> = self
            .places
            .iter()
            .filter_map(|(agent, place)| Some((agent.clone(), place.process.as_ref()?)))
            .filter(|(_, process)| process.stopped)
            .map(|(agent, process)| (agent, process.incarnation))
            .collect();
        for (agent, incarnation) in stopped {
            self.later(0, Event::Continue(agent, incarnation));
        }
        let mut setup = self.host.setup.clone();
        setup.agents.append(&mut self.removed);
        self.host.setup = setup.clone();
        self.give(Input::Reloaded(None, Box::new(setup)));
    }

    /// From here on everything obliges.
    fn peace(&mut self) {
        self.mood = Mood::Kind;
        self.mend();
        let end = self.tick + KIND_MS;
        let mut wanted = None;
        let mut looked = 0;
        while self.step(end) {
            let staying = self.want_all(&mut wanted);
            looked += 1;
            if looked % 16 == 0 && staying && self.is_quiet() {
                return;
            }
        }
        panic!("peace does not come: {}", self.unrest());
    }

    /// Wants every agent up, once of each supervisor that stays; whether one stays.
    fn want_all(&mut self, wanted: &mut Option<u64>) -> bool {
        // An order that waited for it comes first.
        let on_time = !self.host.is_behind();
        let staying = on_time && self.host.machine.as_ref().is_some_and(|machine| machine.word() == "staying");
        if staying && *wanted != Some(self.host.life) {
            *wanted = Some(self.host.life);
            for agent in NAMES {
                self.ask(Request::Agents(Verb::Start, vec![name(agent)]));
            }
        }
        staying
    }

    fn is_quiet(&self) -> bool {
        let open = |agent| {
            let life = self.host.machine.as_ref().and_then(|machine| machine.life(agent));
            !life.is_some_and(Lifecycle::is_up)
        };
        let works = |place: &super::world::Place| place.process.as_ref().is_some_and(|p| p.machine.running() > 0);
        self.host.is_idle()
            && !self.places.values().any(works)
            && self.outside.awaited().is_none()
            && self.ledger.posts.values().all(|post| post.end.is_some())
            && !self.places.keys().any(open)
    }

    fn unrest(&self) -> String {
        let turns: Vec<_> = self.ledger.turns.iter().filter(|(_, turn)| turn.end.is_none()).map(|(id, _)| id).collect();
        let posts: Vec<_> = self.ledger.posts.values().filter(|p| p.end.is_none()).map(|p| &p.open.post).collect();
        let lives: Vec<_> = self
            .places
            .keys()
            .map(|a| self.host.machine.as_ref().and_then(|m| m.life(a)).map(Lifecycle::state))
            .collect();
        format!("turns {turns:?}, posts {posts:?}, awaited {:?}, workers {lives:?}", self.outside.awaited())
    }

    fn all_is_over(&self) {
        for (id, turn) in &self.ledger.turns {
            let (end, _, _) = turn.end.as_ref().unwrap_or_else(|| panic!("turn {id} never ended"));
            self.joined_texts_were_given(end, &turn.new.prompt);
            let Source::Telegram(_) = turn.new.source else { continue };
            // The sender saw the end of what was not made part of another turn.
            let finals = self.ledger.posts.values().map(|post| &post.open.post);
            let finals = finals.filter(|post| post.turn == Some(*id) && post.kind == PostKind::Final).count();
            let joined = matches!(end, TurnEnd::Joined(_));
            assert_eq!(finals, usize::from(!joined), "the ends that the sender of turn {id} saw");
        }
        for (id, (update, end)) in &self.ledger.updates {
            let end = end.as_ref().unwrap_or_else(|| panic!("update {id} never ended: {update:?}"));
            let turn = self.ledger.turns.values().find(|turn| turn.new.update == Some(*id));
            if let Some((ended, _, _)) = turn.and_then(|turn| turn.end.as_ref()) {
                assert!(fits(ended, end), "update {id} ended {end:?}, its turn {ended:?}");
            }
        }
        for agent in self.places.keys() {
            let state = self.host.machine.as_ref().and_then(|machine| machine.life(agent)).map(Lifecycle::state);
            assert!(matches!(state, Some(State::Up { .. })), "{agent} ends as {state:?}");
            let place = &self.places[agent];
            let left = place.disk.read().open;
            let unknown = left.values().find(|s| s.ended.is_none());
            assert!(unknown.is_none(), "the journal of {agent} holds {unknown:?}");
        }
    }

    /// A text that became part of another turn was given to Codex with it.
    fn joined_texts_were_given(&self, end: &TurnEnd, text: &str) {
        let TurnEnd::Joined(into) = end else { return };
        let into = &self.ledger.turns[into];
        let completed = matches!(into.end, Some((TurnEnd::Outcome(Outcome::Completed), _, _)));
        if let (true, Some(last)) = (completed, into.attempts.last()) {
            assert!(self.truth.was_given(*last, text), "{text:?} joined turn {} and never reached Codex", into.new.id);
        }
    }
}

fn fits(turn: &TurnEnd, update: &UpdateEnd) -> bool {
    match turn {
        TurnEnd::Outcome(Outcome::Completed) => matches!(update, UpdateEnd::Answered),
        TurnEnd::Outcome(Outcome::Failed(_)) => matches!(update, UpdateEnd::Failed),
        TurnEnd::Outcome(Outcome::Interrupted) | TurnEnd::Cancelled(_) => matches!(update, UpdateEnd::Cancelled(_)),
        TurnEnd::Joined(into) => *update == UpdateEnd::Joined(*into),
    }
}
