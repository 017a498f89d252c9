//! The channel's words and the machine's, one to the other.

use crate::channel::telegram::text::{self, Rendered, Whole};
use crate::channel::telegram::{self as leaf, Bot, Request, SendResult};
use crate::channel::{ChatKind, Origin, Update as Heard};
use crate::machine::nouns::{Chat, ChatMessage, Post, PostKind, Update, UpdateKind};
use crate::machine::words::Delivery;
use std::time::Duration;

/// What precedes a piece that may have arrived before.
const MAYBE_REPEATED: &str = "(sent again: the first try may have arrived)\n\n";

/// An update as the machine takes it.
pub(super) fn update(bot: &str, heard: Heard) -> Update {
    let external = heard.id();
    let from = heard.origin().and_then(|origin| from(bot, origin));
    let private = heard.origin().is_some_and(|origin| origin.chat_kind == ChatKind::Private);
    match (heard, from) {
        (Heard::Text { text, reply_to, .. }, Some(from)) => {
            // What was quoted belongs to what is asked.
            let quoted =
                reply_to.and_then(|reply| reply.text).map(|quote| format!("> {}\n\n", quote.replace('\n', "\n> ")));
            let command = text.trim_start().starts_with('/');
            let text = if command { text } else { quoted.unwrap_or_default() + &text };
            Update { bot: bot.to_owned(), external, kind: UpdateKind::Text { from, private, text }, raw: String::new() }
        }
        (Heard::Text { text, .. }, None) => {
            let kind = UpdateKind::Other { what: "anonymous_text".into(), from: None };
            Update { bot: bot.to_owned(), external, kind, raw: text }
        }
        (Heard::Other { kind, raw, .. }, from) => {
            Update { bot: bot.to_owned(), external, kind: UpdateKind::Other { what: kind, from }, raw }
        }
    }
}

fn from(bot: &str, origin: &Origin) -> Option<ChatMessage> {
    // A bot that answers bots has no end.
    if origin.is_bot {
        return None;
    }
    let chat = Chat { bot: bot.to_owned(), chat: origin.chat, topic: origin.topic };
    Some(ChatMessage { chat, message: origin.message_id?, user: origin.user.unwrap_or(origin.chat) })
}

/// Sends the next piece of a post.
pub(super) async fn deliver(bot: &Bot, post: &Post) -> Delivery {
    if post.kind == PostKind::Remove {
        let Some(message_id) = post.edits else { return Delivery::Impossible("it names no message".into()) };
        let result = leaf::perform(bot, &Request::Delete { chat: post.to.chat, message_id }).await;
        return delivery(result, false);
    }
    let status = post.kind == PostKind::Status;
    let rendered = if status { Rendered::plain(&post.body) } else { text::render(&post.body) };
    let whole = post.turn.map_or_else(|| "the ledger".to_owned(), |turn| format!("`cofferdam turns show {turn}`"));
    let pieces = text::split(&rendered, text::CHUNKS_MAX, Whole(&whole));
    let index = usize::try_from(post.sent_pieces).unwrap_or(usize::MAX);
    let Some(piece) = pieces.get(index) else { return Delivery::Sent { message: None, more: false } };
    let more = index + 1 < pieces.len();
    let mut body = piece.clone();
    if post.plain {
        // The same pieces without their formatting: another text would be cut elsewhere, and lose or repeat some of it.
        body.entities.clear();
    }
    if post.maybe_repeated {
        let shift = MAYBE_REPEATED.encode_utf16().count();
        // A piece that leaves no room for the mark is sent without it rather than not at all.
        if body.text.encode_utf16().count() + shift <= text::MESSAGE_UNITS_MAX {
            body.text.insert_str(0, MAYBE_REPEATED);
            body.entities.iter_mut().for_each(|entity| entity.offset += shift);
        }
    }
    let mut request = Request::Message {
        chat: post.to.chat,
        topic: post.to.topic,
        reply_to: post.reply_to.filter(|_| index == 0),
        body,
        silent: post.kind == PostKind::Status,
    };
    let mut result = leaf::perform(bot, &request).await;
    if let (SendResult::Moved { chat: new }, Request::Message { chat, .. }) = (&result, &mut request) {
        *chat = *new;
        result = leaf::perform(bot, &request).await;
    }
    delivery(result, more)
}

fn delivery(result: SendResult, more: bool) -> Delivery {
    match result {
        SendResult::Sent { message_id } => Delivery::Sent { message: Some(message_id), more },
        SendResult::Done | SendResult::NotModified => Delivery::Sent { message: None, more },
        SendResult::Retry { after: Some(after), .. } => Delivery::Later(millis(after)),
        SendResult::Retry { after: None, why } => Delivery::Failed(why),
        SendResult::Uncertain { why } => Delivery::Uncertain(why),
        SendResult::EntitiesRejected { why } => Delivery::Unformatted(why),
        SendResult::Moved { chat } => Delivery::Impossible(format!("the chat has moved to {chat}")),
        SendResult::Dead { why } => Delivery::Impossible(why),
    }
}

/// Changes a status message or shows typing: a loss is no matter, so nobody waits for it longer than this.
pub(super) const FLEETING: Duration = Duration::from_secs(10);

/// Performs something whose loss is no matter. The pause that the server wants in answer is told, in milliseconds.
pub(super) async fn fleeting(bot: Bot, request: Request) -> Option<u64> {
    match tokio::time::timeout(FLEETING, leaf::perform(&bot, &request)).await {
        Ok(SendResult::Retry { after, .. }) => after.map(millis),
        Ok(_) => None,
        Err(_) => {
            tracing::debug!(bot = %bot.name(), "a status change was lost");
            None
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
