//! Bots as the loop holds them: polls, batches that wait for their commit, posts on their way.

use super::{Committed, Daemon, Word, telegram};
use crate::channel::telegram::{self as leaf, Bot, Command, Heard, Http, Pace, Request};
use crate::machine::nouns::{Post, ReceiptId};
use crate::machine::words::{Delivery, Input};
use tokio::task::JoinHandle;

/// A bot that is heard.
#[derive(Debug)]
pub(super) struct Hearing {
    bot: Bot,
    poll: JoinHandle<()>,
}

impl Hearing {
    /// Stops to hear it.
    pub(super) fn end(self) {
        self.poll.abort();
    }
}

/// A batch that waits for the commits of its updates.
#[derive(Debug)]
pub(super) struct Receipt {
    left: usize,
    committed: Option<Committed>,
}

impl Daemon {
    pub(super) fn hear(&mut self, name: &str, offset: i64) {
        self.unhear(name);
        match self.bot(name) {
            Ok(bot) => {
                let poll = tokio::spawn(leaf::poll(bot.clone(), offset, Pace::TELEGRAM, self.heard.clone()));
                self.bots.insert(name.to_owned(), Hearing { bot, poll });
            }
            Err(why) => {
                let words = self.words.clone();
                let input = Input::Polling(name.to_owned(), Err(why));
                tokio::spawn(async move { drop(words.send(Word::Input(input)).await) });
            }
        }
    }

    fn bot(&mut self, name: &str) -> Result<Bot, String> {
        let bot = self.config.bots.get(name).ok_or("it is not configured")?;
        let http = match &self.http {
            Some(http) => http.clone(),
            None => self.http.insert(Http::new().map_err(|e| e.to_string())?).clone(),
        };
        Bot::new(&http, name, bot.token.reveal(), &bot.api_root).map_err(|e| e.to_string())
    }

    pub(super) fn unhear(&mut self, name: &str) {
        if let Some(hearing) = self.bots.remove(name) {
            hearing.end();
        }
    }

    pub(super) fn heard(&mut self, heard: Heard) {
        let name = heard.bot.to_string();
        match heard.news {
            leaf::News::Started(who) => {
                tracing::info!(bot = name, username = who.username, "bot is heard");
                self.fleeting(&name, Request::Commands(commands()));
                self.handle(Input::Polling(name, Ok(())));
            }
            leaf::News::Recovered { failures } => {
                tracing::info!(bot = name, failures, "bot is heard again");
                self.handle(Input::Polling(name, Ok(())));
            }
            leaf::News::Fault { fault, .. } => {
                let words = format!("{fault}: {}", fault.advice().text);
                self.handle(Input::Polling(name, Err(words)));
            }
            leaf::News::Batch(batch) => {
                if batch.malformed > 0 {
                    tracing::error!(
                        bot = name,
                        count = batch.malformed,
                        sample = batch.sample,
                        "updates without a number"
                    );
                }
                self.batch(&name, batch);
            }
        }
    }

    fn batch(&mut self, name: &str, batch: leaf::Batch) {
        self.last_receipt += 1;
        let receipt = ReceiptId(self.last_receipt);
        let left = batch.updates.len();
        if left == 0 {
            return confirm(batch.committed);
        }
        self.receipts.insert(receipt, Receipt { left, committed: Some(batch.committed) });
        for update in batch.updates {
            self.handle(Input::Update(receipt, Box::new(telegram::update(name, update))));
        }
    }

    pub(super) fn receipt(&mut self, id: ReceiptId) {
        let Some(receipt) = self.receipts.get_mut(&id) else { return };
        receipt.left = receipt.left.saturating_sub(1);
        if receipt.left == 0 {
            if let Some(committed) = receipt.committed.take() {
                confirm(committed);
            }
            self.receipts.remove(&id);
        }
    }

    pub(super) fn deliver(&mut self, post: Post) {
        let bot = match self.bots.get(&post.to.bot) {
            Some(hearing) => Ok(hearing.bot.clone()),
            None => self.bot(&post.to.bot),
        };
        self.task(async move {
            let delivery = match bot {
                Ok(bot) => telegram::deliver(&bot, &post).await,
                Err(why) => Delivery::Failed(format!("bot {} cannot send: {why}", post.to.bot)),
            };
            Word::Input(Input::Delivered(post.id, delivery))
        });
    }

    pub(super) fn fleeting(&self, bot: &str, request: Request) {
        let Some(hearing) = self.bots.get(bot) else { return };
        let (fleeting, name, words) =
            (telegram::fleeting(hearing.bot.clone(), request), bot.to_owned(), self.words.clone());
        tokio::spawn(async move {
            if let Some(ms) = fleeting.await {
                // The loop is gone: so is the need for the word.
                drop(words.send(Word::Input(Input::Flooded(name, ms))).await);
            }
        });
    }
}

fn confirm(committed: Committed) {
    if committed.send(()).is_err() {
        tracing::debug!("the poller is gone: its updates come again and are known");
    }
}

fn commands() -> Vec<Command> {
    let command = |name: &str, text: &str| Command { name: name.into(), description: text.into() };
    vec![
        command("status", "what the agent does, since when, what waits"),
        command("stop", "stop what runs in this chat"),
        command("new", "begin a fresh conversation"),
        command("retry", "try the last message again"),
        command("help", "what can be ordered here"),
    ]
}
