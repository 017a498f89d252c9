//! Messages that come while a turn of their conversation runs: given to it, collected into the next, or its end.
//!
//! ```text
//!   steer      Offered --- taken ----> joined to the running turn
//!                 `------- refused, or that turn ended ---> waits for its own
//!   collect    all that wait -----> joined to the next turn, as it begins
//!   interrupt  the running turn is stopped
//! ```
//! A joined text is part of the turn from then on: a later try says it again. The ledger knows it by the turn that it
//! joined.

use super::nouns::{Now, TurnEnd, UpdateEnd};
use super::setup::QueueMode;
use super::words::{Effect, JOINT, PROMPT_BYTES_MAX};
use super::{Caller, Machine, Stage, Turn};
use protocol::control::{Reply, SendEvent};
use protocol::from_worker::Steered;
use protocol::to_worker::Steer;
use protocol::{AgentName, Runtime, Text, ToWorker, TurnId};

impl Machine {
    /// A message came while its lane was busy: the agent's queue mode decides.
    pub(super) fn during_a_turn(&mut self, now: Now, agent: &AgentName, id: TurnId, effects: &mut Vec<Effect>) {
        let Some(mode) = self.setup.agents.get(agent).map(|a| a.queue) else { return };
        let Some(running) = self.runner_before(id) else { return };
        match mode {
            QueueMode::Queue | QueueMode::Collect => {}
            QueueMode::Interrupt => self.stop_turn(now, running, "a newer message", effects),
            QueueMode::Steer => self.offer(agent, running, id, effects),
        }
    }

    /// The running head of the lane of `id`.
    fn runner_before(&self, id: TurnId) -> Option<TurnId> {
        let turn = self.turns.get(&id)?;
        let head = *self.agents.get(&turn.new.conversation.agent)?.lanes.get(&turn.new.conversation.name)?.front()?;
        let runs = matches!(self.turns.get(&head)?.stage, Stage::Running { .. });
        (runs && head != id).then_some(head)
    }

    fn offer(&mut self, agent: &AgentName, running: TurnId, id: TurnId, effects: &mut Vec<Effect>) {
        let Some(Stage::Running { attempt, thread: Some(_), .. }) = self.turns.get(&running).map(|t| t.stage.clone())
        else {
            return;
        };
        let steerable = self.turns.get(&running).is_some_and(|t| {
            t.stopping.is_none() && t.tries.last().is_some_and(|last| last.route.runtime == Runtime::Codex)
        });
        let Some(turn) = self.turns.get_mut(&id) else { return };
        if steerable {
            turn.stage = Stage::Offered;
            let text = Text::Inline(turn.new.prompt.clone());
            effects.push(Effect::Tell(agent.clone(), ToWorker::Steer(Steer { attempt, turn: id, text })));
        }
    }

    /// Whether an offered text was taken.
    pub(super) fn steered(&mut self, now: Now, name: &AgentName, steered: &Steered, effects: &mut Vec<Effect>) {
        let Steered { turn: id, attempt, taken } = *steered;
        let into = self.turn_of(attempt, name).map(|turn| (turn.new.id, turn.new.conversation.clone()));
        let offered = |turn: &&mut Turn| turn.of(name) && turn.stage == Stage::Offered;
        let Some(turn) = self.turns.get_mut(&id).filter(offered) else { return };
        turn.stage = Stage::Queued;
        let conversation = turn.new.conversation.clone();
        match into {
            Some((into, its)) if taken && its == conversation => self.join(now, id, into, effects),
            Some(_) | None => {
                let before = self.lane_of(&conversation).iter().position(|waiting| *waiting == id).unwrap_or(0);
                self.show_place(now, id, u32::try_from(before).unwrap_or(u32::MAX), effects);
            }
        }
    }

    /// Ends `id` as a part of `into`: its text is in every later try of that turn.
    fn join(&mut self, now: Now, id: TurnId, into: TurnId, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turns.get_mut(&id) else { return };
        let callers = std::mem::take(&mut turn.callers);
        let text = turn.new.prompt.clone();
        for caller in &callers {
            effects.push(Effect::Reply(*caller, Reply::Event(SendEvent::Joined { turn: id, into })));
            self.callers.insert(*caller, Caller::Turn(into));
        }
        if let Some(target) = self.turns.get_mut(&into) {
            target.callers.extend(callers);
            if target.new.prompt.len() + text.len() < PROMPT_BYTES_MAX {
                target.new.prompt.push_str(JOINT);
                target.new.prompt.push_str(&text);
            }
        }
        self.close(now, id, &TurnEnd::Joined(into), String::new(), UpdateEnd::Joined(into), effects);
    }

    /// In collect mode all that wait in the lane become part of its head.
    pub(super) fn collect(&mut self, now: Now, name: &AgentName, head: TurnId, effects: &mut Vec<Effect>) {
        if self.setup.agents.get(name).is_none_or(|a| a.queue != QueueMode::Collect) {
            return;
        }
        let Some(conversation) = self.turns.get(&head).map(|t| t.new.conversation.clone()) else { return };
        for id in self.lane_of(&conversation).into_iter().skip(1) {
            let fits =
                |text: usize| self.turns.get(&head).is_some_and(|t| t.new.prompt.len() + text < PROMPT_BYTES_MAX);
            if self.turns.get(&id).is_some_and(|t| t.stage == Stage::Queued && fits(t.new.prompt.len())) {
                self.join(now, id, head, effects);
            }
        }
    }
}
