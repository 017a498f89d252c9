//! A Telegram Bot API server for many bots, with people who write to them and everything that can go wrong.
//!
//! Set a bot's `api_root` to [`TelegramServer::url`]. Tests use [`Bot`]; a person uses `cofferdam-standin say` and `read`.
//! A chat comes into being when somebody writes to it first, the person or the bot (where the real server would refuse a bot
//! whom nobody has written to, set a fault).
//!
//! ```text
//!   person --say--> updates --getUpdates--> cofferdam --sendMessage--> chat --read--> person
//!                                              |
//!                                   each call meets the first fault set for it
//! ```
//!
//! Methods: getMe getUpdates sendMessage sendDocument editMessageText editMessageReplyMarkup deleteMessage sendChatAction
//! setMessageReaction answerCallbackQuery getWebhookInfo setWebhook deleteWebhook setMyCommands getMyCommands deleteMyCommands
//! getChat getFile close logOut. A second poller ends the first with 409, as the real server does. Unknown tokens get 401,
//! unknown methods 404.
//!
//! ```text
//! GET    /_standin/bots                     POST /_standin/bots {"token":T,"username":U}
//! POST   /_standin/bot/T/say {"chat":1,"text":"hi","user":..,"kind":"supergroup","thread":..,"reply_to":..,"edit":MESSAGE}
//! POST   /_standin/bot/T/press {"chat":1,"message_id":5,"data":"yes","user":..}      POST /_standin/bot/T/update RAW
//! GET    /_standin/bot/T/chat/1             the messages that stand, and every event in order
//! GET    /_standin/bot/T/chat/1/next?after=SEQ&wait_ms=N          later events, waited for
//! GET    /_standin/bot/T/calls?method=M
//! POST   /_standin/bot/T/fault {"method":M,"times":N,"kind":KIND} DELETE /_standin/bot/T/fault
//! POST   /_standin/release/NAME             GET  /_standin/held
//! KIND   {"error":{"code":429,"description":"..","retry_after":3}} {"html":{"code":502}} "cut_before" "cut_after"
//!        {"delay":{"ms":100}} {"hold":"NAME"} {"hold_after":"NAME"} "hang"
//! ```

mod account;
mod chat;
mod door;
mod fault;
mod http;
mod markup;
mod methods;
mod params;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

pub use account::{Account, CALLS_KEPT_MAX, Call, Writing, Written};
pub use chat::{Chat, Event, Shown, What};
pub use fault::{Fault, FaultKind};
pub use markup::{CAPTION_UNITS_MAX, TEXT_UNITS_MAX};
pub use params::Upload;

use super::board::Board;
use super::serve::Serving;

/// A Bot API server on 127.0.0.1; ends when dropped.
#[derive(Debug)]
pub struct TelegramServer {
    board: Arc<Board<Hall>>,
    serving: Serving,
}

/// A bot of the server: the hand of the people who write to it, and the eyes of the test.
#[derive(Debug, Clone)]
pub struct Bot {
    board: Arc<Board<Hall>>,
    token: String,
}

#[derive(Debug, Default)]
struct Hall {
    bots: BTreeMap<String, Account>,
    held: BTreeMap<String, u32>,
    released: BTreeSet<String>,
    talkative: bool,
}

impl Hall {
    fn add(&mut self, token: &str, username: Option<&str>) {
        let name = username.map_or_else(|| format!("bot_{}", self.bots.len() + 1), str::to_owned);
        self.bots.entry(token.to_owned()).or_insert_with(|| Account::new(token, &name));
    }

    #[expect(clippy::print_stdout, reason = "the demo's log")]
    fn say(&self, token: &str, method: &str, params: &params::Params) {
        if self.talkative && !method.eq_ignore_ascii_case("getUpdates") {
            let name = self.bots.get(token).map_or("unknown bot", |account| account.username.as_str());
            let text: String = params.text("text").unwrap_or_default().chars().take(60).collect();
            println!("telegram {name} {method} {} {text:?}", params.text("chat_id").unwrap_or_default());
        }
    }
}

impl TelegramServer {
    /// Starts on any free port.
    pub fn start() -> io::Result<Self> {
        Self::start_on(0, false)
    }

    /// Starts on `port`; a talkative one prints a line per call (polls left out).
    pub fn start_on(port: u16, talkative: bool) -> io::Result<Self> {
        let board = Arc::new(Board::new(Hall { talkative, ..Hall::default() }));
        let serving = Serving::start(port, http::router(Arc::clone(&board)))?;
        Ok(Self { board, serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.serving.address()
    }

    /// What a bot's `api_root` has to be.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Adds a bot (or finds the one with this token).
    pub fn bot(&self, token: &str, username: &str) -> Bot {
        self.board.change(|hall| hall.add(token, Some(username)));
        Bot { board: Arc::clone(&self.board), token: token.to_owned() }
    }

    /// Lets every call go that is, or will be, held under `name`.
    pub fn release(&self, name: &str) {
        self.board.change(|hall| hall.released.insert(name.to_owned()));
    }

    /// Waits until a call is held under `name`.
    ///
    /// # Panics
    /// If none is within `limit`, with the story of every bot.
    pub async fn wait_held(&self, name: &str, limit: Duration) {
        let found = |hall: &mut Hall| hall.held.get(name).is_some_and(|count| *count > 0).then_some(());
        if self.board.until_within(limit, found).await.is_none() {
            fail(&self.board, &format!("no call is held as {name} within {limit:?}"));
        }
    }
}

impl Bot {
    /// Its token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A person writes to it in private.
    pub fn says(&self, person: i64, text: &str) -> Written {
        self.writes(Writing::private(person, text))
    }

    /// A person writes anywhere.
    pub fn writes(&self, writing: Writing) -> Written {
        self.with(|account| account.hear(writing))
    }

    /// A person changes a message; its update's id, or none if there is no such message.
    pub fn edits(&self, chat: i64, message_id: i64, text: &str) -> Option<i64> {
        self.with(|account| account.rewrite(chat, message_id, text))
    }

    /// A person presses a button; the update's id, or none if there is no such message.
    pub fn presses(&self, chat: i64, message_id: i64, user: i64, data: &str) -> Option<i64> {
        self.with(|account| account.press(chat, message_id, user, data))
    }

    /// Queues any update, garbage included; answers its id.
    pub fn update(&self, raw: Value) -> i64 {
        self.with(|account| account.push(raw))
    }

    /// Sets a fault for the calls to come, behind those already set.
    pub fn fault(&self, fault: Fault) {
        self.with(|account| account.faults.push(fault));
    }

    /// Takes all faults away.
    pub fn no_faults(&self) {
        self.with(|account| account.faults.clear());
    }

    /// Gives `getFile` something to find.
    pub fn file(&self, file_id: &str, content: &[u8]) {
        let content = axum::body::Bytes::copy_from_slice(content);
        self.with(|account| account.files.insert(file_id.to_owned(), content));
    }

    /// Looks at the account.
    pub fn look<R>(&self, look: impl FnOnce(&Account) -> R) -> R {
        self.board.look(|hall| look(&*account(hall, &self.token)))
    }

    /// The texts of the bot's messages that stand in a chat, oldest first.
    pub fn texts(&self, chat: i64) -> Vec<String> {
        let texts = |chat: &Chat| chat.from_bot().into_iter().map(|shown| shown.text.clone()).collect();
        self.look(|account| account.chat(chat).map(texts).unwrap_or_default())
    }

    /// Everything that happened in a chat, in order.
    pub fn events(&self, chat: i64) -> Vec<Event> {
        self.look(|account| account.chat(chat).map(|chat| chat.events.clone()).unwrap_or_default())
    }

    /// The calls of one method, oldest first; of every method by `""`.
    pub fn calls(&self, method: &str) -> Vec<Call> {
        let asked = |call: &&Call| method.is_empty() || call.method.eq_ignore_ascii_case(method);
        self.look(|account| account.calls().filter(asked).cloned().collect())
    }

    /// Waits until `found` finds something in the account.
    ///
    /// # Panics
    /// If it does not within `limit`; tells `what` was waited for and the whole story.
    pub async fn wait_for<T>(&self, what: &str, limit: Duration, mut found: impl FnMut(&Account) -> Option<T>) -> T {
        match self.board.until_within(limit, |hall| found(&*account(hall, &self.token))).await {
            Some(result) => result,
            None => fail(&self.board, &format!("{what}: not within {limit:?}")),
        }
    }

    /// Waits until a message of the bot that holds `text` stands in a chat.
    ///
    /// # Panics
    /// If none does within `limit`, with the whole story.
    pub async fn wait_text(&self, chat: i64, text: &str, limit: Duration) -> Shown {
        let holds = |account: &Account| {
            let shown = account.chat(chat)?.from_bot().into_iter().find(|shown| shown.text.contains(text));
            shown.cloned()
        };
        self.wait_for(&format!("a message with {text:?} in chat {chat}"), limit, holds).await
    }

    /// Waits until the bot has confirmed an update: it has taken the message for its own.
    ///
    /// # Panics
    /// If it has not within `limit`, with the whole story.
    pub async fn wait_confirmed(&self, update_id: i64, limit: Duration) {
        let confirmed = |account: &Account| (account.confirmed() >= update_id).then_some(());
        self.wait_for(&format!("update {update_id} confirmed"), limit, confirmed).await;
    }

    /// Waits until a poll of the bot is open: it hears.
    ///
    /// # Panics
    /// If none is within `limit`, with the whole story.
    pub async fn wait_polling(&self, limit: Duration) {
        self.wait_for("an open poll", limit, |account| (account.polls_open() > 0).then_some(())).await;
    }

    fn with<R>(&self, act: impl FnOnce(&mut Account) -> R) -> R {
        self.board.change(|hall| act(account(hall, &self.token)))
    }
}

fn account<'a>(hall: &'a mut Hall, token: &str) -> &'a mut Account {
    hall.bots.entry(token.to_owned()).or_insert_with(|| Account::new(token, "lost"))
}

#[expect(clippy::panic, reason = "a wait that fails is a test that fails")]
fn fail(board: &Board<Hall>, why: &str) -> ! {
    let story = board.look(|hall| hall.bots.values().map(Account::story).collect::<String>());
    panic!("{why}; {story}")
}
