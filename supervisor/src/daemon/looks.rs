//! Questions that need more than the machine's memory: the ledger's, the kernel's, a file's.

use super::{Daemon, Word, texts};
use crate::machine::nouns::CallerId;
use crate::machine::words::{Asker, Input, Look};
use protocol::Text;
use protocol::control::{AgentRow, Refused, RefusedKind, Reply, Request};
use std::time::Duration;

/// How long the last answers may take to be read when we leave.
const LAST_ANSWERS: Duration = Duration::from_millis(300);

impl Daemon {
    /// A request of the command line. A text that lies in a file is read first.
    pub(super) fn ask(&mut self, caller: CallerId, request: Request) {
        let Request::Send(mut send) = request else { return self.handle(Input::Asked(caller, request)) };
        let Text::File(file) = &send.text else {
            return self.handle(Input::Asked(caller, Request::Send(send)));
        };
        let (file, dir) = (file.clone(), self.config.state_dir.join("texts"));
        let (words, callers) = (self.words.clone(), self.callers.clone());
        tokio::spawn(async move {
            match texts::whole(&dir, &file).await {
                Ok(text) => {
                    send.text = Text::Inline(text);
                    // The loop is gone: so is the need for the word.
                    drop(words.send(Word::Input(Input::Asked(caller, Request::Send(send)))).await);
                }
                Err(why) => {
                    let why = format!("the message cannot be taken: {why}");
                    callers.reply(caller, &Reply::Refused(Refused { kind: RefusedKind::Later, why }));
                }
            }
        });
    }

    pub(super) fn look(&mut self, caller: CallerId, look: Look) {
        let (store, callers) = (self.store.clone(), self.callers.clone());
        tokio::spawn(async move {
            let reply = match look {
                Look::Turns(which) => store.turns(which).await.map(Reply::Turns),
                Look::Turn(id) => store.turn(id).await.map(|story| match story {
                    Some(found) => Reply::Turn(Box::new(found)),
                    None => refused(format!("there is no turn {id}; `cofferdam turns` lists them")),
                }),
            };
            let reply = reply.unwrap_or_else(|error| refused(error.to_string()));
            let last = matches!(reply, Reply::Refused(_));
            if callers.reply(caller, &reply) && !last {
                callers.reply(caller, &Reply::Done);
            }
        });
    }

    pub(super) fn recall(&mut self, asker: Asker) {
        let store = self.store.clone();
        self.task(async move {
            let found = match &asker {
                Asker::Caller(_, id) => store.recall_turn(*id).await,
                Asker::Chat(_, conversation, _) => store.recall_latest(conversation.clone()).await,
            };
            let found = found.unwrap_or_else(|error| {
                tracing::error!(%error, "the ledger could not be asked");
                None
            });
            Word::Input(Input::Recalled(asker, found.map(Box::new)))
        });
    }

    /// Fills in what the kernel knows of each worker and its descendants.
    pub(super) fn ps(&mut self, caller: CallerId, mut rows: Vec<AgentRow>) {
        let (sampler, callers) = (self.sampler.clone(), self.callers.clone());
        tokio::task::spawn_blocking(move || {
            let workers: Vec<_> = rows.iter().filter_map(|row| Some((row.agent.clone(), row.pid?))).collect();
            let mut sampler = sampler.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let usage = sampler.sample(&workers);
            drop(sampler);
            for row in &mut rows {
                if let Some(used) = usage.get(&row.agent) {
                    (row.rss_bytes, row.processes) = (used.rss_bytes, used.processes);
                }
            }
            if callers.reply(caller, &Reply::Ps(rows)) {
                callers.reply(caller, &Reply::Done);
            }
        });
    }

    /// Lets the last answers out before the process ends.
    pub(super) async fn callers_end(&self) {
        let none_left = async {
            while self.callers.count() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(LAST_ANSWERS, none_left).await.is_err() {
            tracing::debug!("command lines that still wait are cut off");
        }
    }
}

fn refused(why: String) -> Reply {
    Reply::Refused(Refused { kind: RefusedKind::Failed, why })
}
