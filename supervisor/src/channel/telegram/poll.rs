//! Hears one bot: asks for updates for ever, and confirms none before the ledger has it.
//!
//! ```text
//!            +-- Fault (typed, with its streak) <-- pause, growing, jittered --+
//!            v                                                                  |
//!   getMe --> getUpdates(offset) --> Batch --> wait for `committed` --ok--> offset = next_offset
//!     |            ^                                            \--dropped--> NotCommitted
//!     +-- Started  +-------------------- the next poll confirms what was committed
//! ```
//!
//! The poll ends only when the receiver of the news has gone; to stop it earlier, drop the future (abort its task). It
//! may be dropped anywhere: what was not committed is asked for again. A webhook is reported and never removed, for it
//! may be the working half of another installation.

use super::api::{ANSWER_BYTES_MAX, ApiError, Bot};
use super::decode;
use super::fault::{Pace, PollFault, seed_of};
use crate::channel::Update;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

/// Most updates of one poll: Telegram's own limit.
const BATCH_UPDATES_MAX: u32 = 100;

/// Longest answer to getUpdates, in bytes: 100 updates of 80 KiB each, which is several times what a message with a
/// quoted reply and all its entities takes.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How long getMe may take.
const INTRODUCTION_TIMEOUT: Duration = Duration::from_secs(20);

/// What is asked for: whatever a person does to the bot. Kinds that a server does not know are ignored by it; inline
/// queries are left out, for they come with each key that a stranger presses.
const ALLOWED_UPDATES: [&str; 6] =
    ["message", "edited_message", "channel_post", "edited_channel_post", "callback_query", "my_chat_member"];

/// News of one bot.
#[derive(Debug)]
pub struct Heard {
    /// The bot's name in the configuration.
    pub bot: Arc<str>,
    /// What there is.
    pub news: News,
}

/// What a poll has to tell.
#[derive(Debug)]
pub enum News {
    /// The token works, and this is whose it is. Once, before the first batch.
    Started(BotName),
    /// Updates to record.
    Batch(Batch),
    /// Something is wrong; it is tried again after `next_try`. Comes with every failure, so that the streak is known.
    Fault {
        /// What is wrong.
        fault: PollFault,
        /// How many failures in a row, whatever their kinds; this one is counted.
        streak: u32,
        /// The pause before the next try.
        next_try: Duration,
    },
    /// Polling works again.
    Recovered {
        /// How many failures there were in a row.
        failures: u32,
    },
}

/// Whose token it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BotName {
    /// The bot's own user number.
    pub id: i64,
    /// The name after the `@`, for `/command@name` and mentions.
    pub username: String,
    /// The name that people see.
    pub first_name: String,
    /// Whether it hears every message of a group (privacy mode off).
    pub hears_groups: bool,
}

/// Updates that belong together: commit all of them and `next_offset`, then fire `committed`.
#[derive(Debug)]
pub struct Batch {
    /// In Telegram's order. Some may have come before: a batch that was not confirmed comes again.
    pub updates: Vec<Update>,
    /// How many more could not be counted and are lost, for they had no number.
    pub malformed: u32,
    /// The beginning of the first of those.
    pub sample: Option<String>,
    /// What to start with after a restart. It may be lower than an earlier one: Telegram restarts its numbers.
    pub next_offset: i64,
    /// Fire it after the commit. Dropped unfired, the updates stay with Telegram and are asked for again after a pause.
    pub committed: oneshot::Sender<()>,
}

/// Nobody listens.
struct Gone;

/// Hears `bot` from `start_offset` on (0: from the oldest update that Telegram still has), for ever.
pub async fn poll(bot: Bot, start_offset: i64, pace: Pace, news: mpsc::Sender<Heard>) {
    let seed = seed_of(bot.name());
    let mut poll = Poll { bot, pace, news, seed, streak: 0, offset: start_offset, limit: BATCH_UPDATES_MAX };
    // The end of the listener is the lawful end of the poll.
    let Gone = poll.run().await;
}

struct Poll {
    bot: Bot,
    pace: Pace,
    news: mpsc::Sender<Heard>,
    seed: u64,
    streak: u32,
    offset: i64,
    limit: u32,
}

impl Poll {
    async fn run(&mut self) -> Gone {
        if let Err(gone) = self.introduce().await {
            return gone;
        }
        loop {
            let round = match self.ask().await {
                Ok(decoded) => self.hand_over(decoded).await,
                Err(fault) => self.fail(fault).await,
            };
            if let Err(gone) = round {
                return gone;
            }
        }
    }

    async fn introduce(&mut self) -> Result<(), Gone> {
        loop {
            match self.bot.call("getMe", &json!({}), INTRODUCTION_TIMEOUT, ANSWER_BYTES_MAX).await {
                Ok(me) => {
                    let me: Value = serde_json::from_str(me.get()).unwrap_or_default();
                    let text = |key| me.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
                    let name = BotName {
                        id: me.get("id").and_then(Value::as_i64).unwrap_or_default(),
                        username: text("username"),
                        first_name: text("first_name"),
                        hears_groups: me.get("can_read_all_group_messages").and_then(Value::as_bool).unwrap_or(false),
                    };
                    self.tell(News::Started(name)).await?;
                    return self.succeed().await;
                }
                Err(error) => self.fail(PollFault::from_api(error)).await?,
            }
        }
    }

    async fn ask(&mut self) -> Result<decode::Decoded, PollFault> {
        let params = json!({
            "offset": self.offset,
            "limit": self.limit,
            "timeout": self.pace.poll_timeout.as_secs(),
            "allowed_updates": ALLOWED_UPDATES,
        });
        let timeout = self.pace.poll_timeout + self.pace.grace;
        match self.bot.call("getUpdates", &params, timeout, BATCH_BYTES_MAX).await {
            Ok(result) => {
                self.limit = BATCH_UPDATES_MAX;
                decode::updates(&result).ok_or_else(|| PollFault::NotApi("the updates are no list".into()))
            }
            Err(error) => {
                // What one answer cannot carry may pass in smaller ones.
                if matches!(
                    error,
                    ApiError::TooLong { .. } | ApiError::Timeout(_) | ApiError::NotJson { html: false, .. }
                ) {
                    self.limit = (self.limit / 2).max(1);
                }
                Err(PollFault::from_api(error))
            }
        }
    }

    async fn hand_over(&mut self, decoded: decode::Decoded) -> Result<(), Gone> {
        let decode::Decoded { updates, malformed, sample, next_offset } = decoded;
        let Some(next_offset) = next_offset else {
            if malformed > 0 {
                let sample = sample.unwrap_or_default();
                return self.fail(PollFault::Malformed { count: malformed, sample }).await;
            }
            self.succeed().await?;
            sleep(self.pace.empty).await;
            return Ok(());
        };
        let (committed, commit) = oneshot::channel();
        self.tell(News::Batch(Batch { updates, malformed, sample, next_offset, committed })).await?;
        // Without a limit of its own: the daemon answers or drops it, and until then the updates are safe at Telegram.
        if commit.await.is_err() {
            return self.fail(PollFault::NotCommitted).await;
        }
        self.offset = next_offset;
        self.succeed().await
    }

    async fn succeed(&mut self) -> Result<(), Gone> {
        match std::mem::take(&mut self.streak) {
            0 => Ok(()),
            failures => self.tell(News::Recovered { failures }).await,
        }
    }

    async fn fail(&mut self, fault: PollFault) -> Result<(), Gone> {
        self.streak = self.streak.saturating_add(1);
        let next_try = self.pace.pause(&fault, self.streak, self.seed);
        self.tell(News::Fault { fault, streak: self.streak, next_try }).await?;
        sleep(next_try).await;
        Ok(())
    }

    async fn tell(&self, news: News) -> Result<(), Gone> {
        self.news.send(Heard { bot: Arc::clone(self.bot.name()), news }).await.map_err(|_| Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::super::stub::{Answer, Stub, refusal};
    use super::*;
    use tokio::task::JoinHandle;

    const PACE: Pace = Pace {
        poll_timeout: Duration::from_secs(1),
        grace: Duration::from_secs(20),
        first: Duration::from_millis(1),
        longest: Duration::from_millis(4),
        slow: Duration::from_millis(8),
        empty: Duration::from_millis(1),
    };

    struct Rig {
        stub: Stub,
        news: mpsc::Receiver<Heard>,
        task: JoinHandle<()>,
    }

    impl Rig {
        /// A poll from offset 5 whose getMe has gone well, before `script`.
        async fn start(script: impl IntoIterator<Item = Answer>) -> Self {
            let me = Answer::Ok(json!({"id": 9, "username": "the_bot", "first_name": "Bot"}));
            let mut rig = Self::start_raw(std::iter::once(me).chain(script), PACE).await;
            assert_eq!(rig.stub.heard().await.0, "getMe");
            let News::Started(name) = rig.next().await else { panic!("started") };
            assert_eq!((name.id, name.username.as_str(), name.hears_groups), (9, "the_bot", false));
            rig
        }

        async fn start_raw(script: impl IntoIterator<Item = Answer>, pace: Pace) -> Self {
            let stub = Stub::serve(script).await;
            let (tell, news) = mpsc::channel(1);
            let task = tokio::spawn(poll(stub.bot(), 5, pace, tell));
            Self { stub, news, task }
        }

        async fn next(&mut self) -> News {
            let patience = Duration::from_secs(20);
            let heard = tokio::time::timeout(patience, self.news.recv()).await.expect("news in time").expect("a poll");
            assert_eq!(&*heard.bot, "test");
            assert!(!format!("{heard:?}").contains("SECRET"), "{heard:?}");
            heard.news
        }

        async fn fault(&mut self) -> (PollFault, u32) {
            let news = self.next().await;
            let News::Fault { fault, streak, .. } = news else { panic!("{news:?}") };
            (fault, streak)
        }

        async fn batch(&mut self) -> Batch {
            let news = self.next().await;
            let News::Batch(batch) = news else { panic!("{news:?}") };
            batch
        }

        async fn asked_from(&mut self) -> i64 {
            let (method, params) = self.stub.heard().await;
            assert_eq!(method, "getUpdates");
            params["offset"].as_i64().expect("an offset")
        }
    }

    fn updates(ids: &[i64]) -> Answer {
        Answer::Ok(ids.iter().map(|id| json!({"update_id": id, "novelty": {}})).collect())
    }

    #[tokio::test]
    async fn the_offset_moves_after_the_commit_and_not_before() {
        let mut rig = Rig::start([updates(&[5, 6]), updates(&[5, 6]), updates(&[7])]).await;
        assert_eq!(rig.asked_from().await, 5);
        let batch = rig.batch().await;
        assert_eq!((batch.updates.len(), batch.next_offset), (2, 7));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(rig.stub.is_idle(), "asked before the commit");
        drop(batch.committed);
        assert_eq!(rig.fault().await, (PollFault::NotCommitted, 1));
        assert_eq!(rig.asked_from().await, 5);
        rig.batch().await.committed.send(()).expect("a poll waits");
        assert!(matches!(rig.next().await, News::Recovered { failures: 1 }));
        assert_eq!(rig.asked_from().await, 7);
        assert_eq!(rig.batch().await.next_offset, 8);
    }

    #[tokio::test]
    async fn asks_for_what_people_do_in_one_long_poll() {
        let mut rig = Rig::start([]).await;
        let (_, params) = rig.stub.heard().await;
        assert_eq!(params, json!({"offset": 5, "limit": 100, "timeout": 1, "allowed_updates": ALLOWED_UPDATES}));
    }

    #[tokio::test]
    async fn every_fault_is_told_and_survived() {
        let script = [
            refusal(409, "Conflict: terminated by other getUpdates request", Value::Null),
            refusal(409, "Conflict: can't use getUpdates method while webhook is active", Value::Null),
            refusal(401, "Unauthorized", Value::Null),
            refusal(429, "Too Many Requests", json!({"retry_after": 0})),
            Answer::Body(502, "<html>Bad Gateway</html>".into()),
            Answer::Body(200, "<html>log in</html>".into()),
            Answer::CutUnread,
            Answer::CutRead,
            Answer::CutHalf,
            Answer::Ok(json!({"no": "list"})),
            Answer::Ok(json!([{"update": 1}, 7])),
            updates(&[5]),
        ];
        let mut rig = Rig::start(script).await;
        let expected = [
            "conflict",
            "webhook",
            "unauthorized",
            "flood",
            "server",
            "not_api",
            "network",
            "network",
            "network",
            "not_api",
            "malformed",
        ];
        for (name, count) in expected.into_iter().zip(1..) {
            let (fault, streak) = rig.fault().await;
            assert_eq!((fault.name(), streak), (name, count), "{fault}");
            assert!(!fault.advice().text.is_empty());
        }
        rig.batch().await.committed.send(()).expect("a poll waits");
        assert!(matches!(rig.next().await, News::Recovered { failures: 11 }));
        assert!(!rig.task.is_finished());
    }

    #[tokio::test]
    async fn an_introduction_that_fails_is_repeated() {
        let refused = refusal(404, "Not Found", Value::Null);
        let mut rig = Rig::start_raw([refused, Answer::Ok(json!({"id": 1}))], PACE).await;
        assert_eq!(rig.fault().await.0.name(), "unauthorized");
        assert!(matches!(rig.next().await, News::Started(_)));
        assert!(matches!(rig.next().await, News::Recovered { failures: 1 }));
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_left_after_the_time() {
        let pace = Pace { poll_timeout: Duration::ZERO, grace: Duration::from_millis(50), ..PACE };
        let mut rig = Rig::start_raw([Answer::Ok(json!({})), Answer::Hang, updates(&[5])], pace).await;
        assert!(matches!(rig.next().await, News::Started(_)));
        assert_eq!(rig.fault().await.0.name(), "network");
        assert_eq!(rig.stub.heard().await.0, "getMe");
        assert_eq!(rig.stub.heard().await.1["limit"], 100);
        assert_eq!(rig.stub.heard().await.1["limit"], 50);
        rig.batch().await;
    }

    #[tokio::test]
    async fn garbage_in_a_batch_costs_only_itself() {
        let batch = json!([{"x": 1}, null, {"update_id": 6, "message": {"chat": 3}}, {"update_id": 8}]);
        let mut rig = Rig::start([Answer::Ok(batch), Answer::Ok(json!([])), Answer::Hang]).await;
        assert_eq!(rig.asked_from().await, 5);
        let batch = rig.batch().await;
        assert_eq!((batch.updates.len(), batch.malformed, batch.next_offset), (2, 2, 9));
        batch.committed.send(()).expect("a poll waits");
        // An empty answer is no news: the next poll follows.
        assert_eq!((rig.asked_from().await, rig.asked_from().await), (9, 9));
    }

    #[tokio::test]
    async fn ends_when_nobody_listens() {
        let mut rig = Rig::start([updates(&[5])]).await;
        assert_eq!(rig.asked_from().await, 5);
        drop(rig.news);
        rig.task.await.expect("an end without a panic");
    }
}
