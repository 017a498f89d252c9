//! What the machine wants, given to the leaf that can do it.

use super::{Daemon, Word};
use crate::channel::telegram::Request as Post;
use crate::channel::telegram::text::Chunk;
use crate::config::{Config, Loaded};
use crate::machine::nouns::CallerId;
use crate::machine::words::{Effect, Input};
use protocol::control::{Reply, SendEvent};

impl Daemon {
    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            // Records were taken out before; they are the store's.
            Effect::Record(_) => {}
            Effect::Receipt(receipt) => self.receipt(receipt),
            Effect::Reply(caller, reply) => self.reply(caller, reply),
            Effect::Look(caller, look) => self.look(caller, look),
            Effect::Recall(asker) => self.recall(asker),
            Effect::Spawn(agent, incarnation, nonce) => self.spawn(agent, incarnation, nonce),
            Effect::Dial(agent, incarnation) => self.dial(agent, incarnation),
            Effect::Tell(agent, message) => self.tell(&agent, message),
            Effect::Configure(agent) => self.configure(&agent),
            Effect::Terminate(agent, pid) => self.signal(&agent, pid, false),
            Effect::Kill(agent, pid) => self.signal(&agent, pid, true),
            Effect::ReadOut(agent, incarnation) => self.read_out(agent, incarnation),
            Effect::Sweep(agent, incarnation) => self.sweep(agent, incarnation),
            Effect::Hear(bot, offset) => self.hear(&bot, offset),
            Effect::Unhear(bot) => self.unhear(&bot),
            Effect::Deliver(post) => self.deliver(post),
            Effect::EditStatus { chat, message, text } => {
                let body = Chunk::plain(text);
                self.fleeting(&chat.bot, Post::Edit { chat: chat.chat, message_id: message, body });
            }
            Effect::Typing(chat) => self.fleeting(&chat.bot, Post::Typing { chat: chat.chat, topic: chat.topic }),
            Effect::Reload(caller) => self.reload(caller),
            Effect::Upgrade(caller, program) => self.upgrade(caller, program.into()),
            Effect::Host(caller, guests) => self.host(caller, &guests),
            Effect::Clear(agent) => self.clear(agent),
            Effect::Exit => self.leaving = true,
        }
    }

    /// Answers the command line. Rows of `ps` get their memory first, long answers go by file.
    fn reply(&mut self, caller: CallerId, reply: Reply) {
        if let Reply::Ps(rows) = reply {
            self.ps(caller, rows);
        } else if let Reply::Health(mut health) = reply {
            health.upgrade_failed.clone_from(&self.upgrade_failed);
            self.answer(caller, &Reply::Health(health));
        } else if let Reply::Event(SendEvent::Finished(mut event)) = reply {
            let dir = self.config.state_dir.join("texts");
            event.text = super::texts::spill(&dir, &format!("answer-{}-{}", event.turn, caller.0), event.text);
            self.answer(caller, &Reply::Event(SendEvent::Finished(event)));
        } else {
            self.answer(caller, &reply);
        }
    }

    pub(super) fn answer(&self, caller: CallerId, reply: &Reply) {
        if !self.callers.reply(caller, reply) {
            tracing::debug!(caller = caller.0, "the command line is gone or does not read");
        }
    }

    pub(super) fn reload(&mut self, caller: Option<CallerId>) {
        let (config, environment) = (self.config.clone(), self.environment.clone());
        self.task(async move {
            let path = config.path.clone();
            let loaded = tokio::task::spawn_blocking(move || Config::load(&path, &environment)).await;
            let refused = |why: String| Word::Input(Input::ReloadRefused(caller, why));
            match loaded {
                Ok(Ok(loaded)) if moved(&config, &loaded.config) => {
                    refused("state_dir and runtime_dir cannot change while cofferdam runs: shut it down first".into())
                }
                Ok(Ok(loaded)) => Word::Reloaded(caller, Box::new(loaded)),
                Ok(Err(report)) => refused(report.render(false)),
                Err(error) => refused(error.to_string()),
            }
        });
    }

    pub(super) fn reloaded(&mut self, caller: Option<CallerId>, loaded: Loaded) {
        let setup = super::served::setup(&loaded.config, &self.environment, self.ledger);
        super::workers::let_through(&loaded.config, false);
        self.config = std::sync::Arc::new(loaded.config);
        self.handle(Input::Reloaded(caller, Box::new(setup)));
    }
}

fn moved(old: &Config, new: &Config) -> bool {
    old.state_dir != new.state_dir || old.runtime_dir != new.runtime_dir
}
