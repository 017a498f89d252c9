//! The Bot API's methods, but for `getUpdates`, which waits: parameters in, result or Telegram's own error out.

use serde_json::{Value, json};

use super::account::{Account, unix_seconds};
use super::chat::{Chat, Shown, What};
use super::markup::{self, CAPTION_UNITS_MAX, TEXT_UNITS_MAX};
use super::params::Params;

/// An error answer of the Bot API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) description: String,
}

fn bad(what: &str) -> Refusal {
    Refusal { code: 400, description: format!("Bad Request: {what}") }
}

/// Performs a call for a bot. Method names are read without regard to case, as the real server does.
pub(crate) fn perform(account: &mut Account, method: &str, params: &Params) -> Result<Value, Refusal> {
    match method.to_ascii_lowercase().as_str() {
        "getme" => Ok(json!({
            "id": account.id, "is_bot": true, "first_name": account.username, "username": account.username,
            "can_join_groups": true, "can_read_all_group_messages": false, "supports_inline_queries": false,
        })),
        "sendmessage" => send_message(account, params),
        "senddocument" => send_document(account, params),
        "editmessagetext" => edit_text(account, params),
        "editmessagereplymarkup" => edit_markup(account, params),
        "deletemessage" => delete_message(account, params),
        "sendchataction" => chat_action(account, params),
        "setmessagereaction" => react(account, params),
        "answercallbackquery" => {
            let known = params.text("callback_query_id").is_some_and(|id| id.starts_with("query-"));
            let late = "query is too old and response timeout expired or query ID is invalid";
            if known { Ok(Value::from(true)) } else { Err(bad(late)) }
        }
        "getwebhookinfo" => Ok(json!({
            "url": account.webhook, "has_custom_certificate": false, "pending_update_count": account.updates.len(),
        })),
        "setwebhook" => {
            account.webhook = params.text("url").unwrap_or_default();
            Ok(Value::from(true))
        }
        "deletewebhook" => {
            account.webhook.clear();
            if params.text("drop_pending_updates").as_deref() == Some("true") {
                account.updates.clear();
            }
            Ok(Value::from(true))
        }
        "setmycommands" => {
            account.commands = params.json("commands").ok_or_else(|| bad("parameter \"commands\" is required"))?;
            Ok(Value::from(true))
        }
        "getmycommands" => Ok(account.commands.clone()),
        "deletemycommands" => {
            account.commands = json!([]);
            Ok(Value::from(true))
        }
        "getchat" => {
            let id = chat_id(params)?;
            let chat = account.chats.get(&id).ok_or_else(|| bad("chat not found"))?;
            Ok(json!({"id": id, "type": chat.kind}))
        }
        "getfile" => {
            let id = params.text("file_id").unwrap_or_default();
            let file = account.files.get(&id).ok_or_else(|| bad("invalid file_id"))?;
            Ok(
                json!({"file_id": id, "file_unique_id": id, "file_size": file.len(), "file_path": format!("files/{id}")}),
            )
        }
        "close" | "logout" => Ok(Value::from(true)),
        _ => Err(Refusal { code: 404, description: "Not Found".to_owned() }),
    }
}

fn send_message(account: &mut Account, params: &Params) -> Result<Value, Refusal> {
    let id = chat_id(params)?;
    let (text, entities) = words(params, "text", "entities")?;
    if text.is_empty() {
        return Err(bad("message text is empty"));
    }
    if markup::units(&text) > TEXT_UNITS_MAX {
        return Err(bad("message is too long"));
    }
    let shown = Shown { text, entities, ..Shown::default() };
    send(account, id, shown, params)
}

fn send_document(account: &mut Account, params: &Params) -> Result<Value, Refusal> {
    let id = chat_id(params)?;
    let (text, entities) = words(params, "caption", "caption_entities")?;
    if markup::units(&text) > CAPTION_UNITS_MAX {
        return Err(bad("message caption is too long"));
    }
    let given = params.text("document").unwrap_or_else(|| "document".to_owned());
    let field = given.strip_prefix("attach://").unwrap_or(&given);
    let document = params.files.get(field).cloned().ok_or_else(|| bad("there is no document in the request"))?;
    if document.bytes.is_empty() {
        return Err(bad("file must be non-empty"));
    }
    let content = document.bytes.clone();
    let sent = send(account, id, Shown { text, entities, document: Some(document), ..Shown::default() }, params)?;
    if let Some(file) = sent.pointer("/document/file_id").and_then(Value::as_str) {
        account.files.insert(file.to_owned(), content);
    }
    Ok(sent)
}

fn send(account: &mut Account, id: i64, mut shown: Shown, params: &Params) -> Result<Value, Refusal> {
    let known = |message: i64| account.chats.get(&id).is_some_and(|chat| chat.messages.contains_key(&message));
    let reply = params.json("reply_parameters");
    let reply_to = reply.as_ref().and_then(|reply| reply.get("message_id")).and_then(Value::as_i64);
    let reply_to = reply_to.or_else(|| params.integer("reply_to_message_id"));
    if reply_to.is_some_and(|message| !known(message)) {
        let allowed = reply.as_ref().and_then(|reply| reply.get("allow_sending_without_reply"));
        if allowed != Some(&Value::Bool(true)) {
            return Err(bad("message to be replied not found"));
        }
    }
    shown.message_id = account.message_id();
    shown.reply_to = reply_to;
    shown.thread = params.integer("message_thread_id");
    shown.reply_markup = params.json("reply_markup").unwrap_or(Value::Null);
    shown.date = unix_seconds();
    let what = What::Sent { message_id: shown.message_id, text: shown.text.clone() };
    let kind = if id < 0 { "supergroup" } else { "private" };
    let (bot, username) = (account.id, account.username.clone());
    let chat = account.chats.entry(id).or_insert_with(|| Chat::new(id, kind));
    let message = chat.message(&shown, (bot, &username));
    chat.messages.insert(shown.message_id, shown);
    account.happened(id, what);
    Ok(message)
}

fn edit_text(account: &mut Account, params: &Params) -> Result<Value, Refusal> {
    let (text, entities) = words(params, "text", "entities")?;
    if text.is_empty() {
        return Err(bad("message text is empty"));
    }
    if markup::units(&text) > TEXT_UNITS_MAX {
        return Err(bad("message is too long"));
    }
    let reply_markup = params.json("reply_markup").unwrap_or(Value::Null);
    edit(account, params, |shown| {
        shown.text = text;
        shown.entities = entities;
        shown.reply_markup = reply_markup;
    })
}

fn edit_markup(account: &mut Account, params: &Params) -> Result<Value, Refusal> {
    let reply_markup = params.json("reply_markup").unwrap_or(Value::Null);
    edit(account, params, |shown| shown.reply_markup = reply_markup)
}

fn edit(account: &mut Account, params: &Params, change: impl FnOnce(&mut Shown)) -> Result<Value, Refusal> {
    let (id, message_id) = (chat_id(params)?, message_id(params)?);
    let (bot, username) = (account.id, account.username.clone());
    let chat = account.chats.get_mut(&id).ok_or_else(|| bad("chat not found"))?;
    let shown = chat.messages.get_mut(&message_id).ok_or_else(|| bad("message to edit not found"))?;
    if shown.user.is_some() {
        return Err(bad("message can't be edited"));
    }
    let before = shown.clone();
    change(shown);
    if *shown == before {
        return Err(bad(
            "message is not modified: specified new message content and reply markup are exactly the same as a current content and reply markup of the message",
        ));
    }
    shown.edits += 1;
    let shown = shown.clone();
    let message = chat.message(&shown, (bot, &username));
    account.happened(id, What::Edited { message_id, text: shown.text });
    Ok(message)
}

fn delete_message(account: &mut Account, params: &Params) -> Result<Value, Refusal> {
    let (id, message_id) = (chat_id(params)?, message_id(params)?);
    let chat = account.chats.get_mut(&id).ok_or_else(|| bad("chat not found"))?;
    chat.messages.remove(&message_id).ok_or_else(|| bad("message to delete not found"))?;
    account.happened(id, What::Deleted { message_id });
    Ok(Value::from(true))
}

fn chat_action(account: &mut Account, params: &Params) -> Result<Value, Refusal> {
    const ACTIONS: [&str; 5] = ["typing", "upload_document", "upload_photo", "choose_sticker", "record_voice"];
    let id = chat_id(params)?;
    let action = params.text("action").unwrap_or_default();
    if !ACTIONS.contains(&action.as_str()) {
        return Err(bad("wrong parameter action in request"));
    }
    account.happened(id, What::Action { action });
    Ok(Value::from(true))
}

fn react(account: &mut Account, params: &Params) -> Result<Value, Refusal> {
    let (id, message_id) = (chat_id(params)?, message_id(params)?);
    let chat = account.chats.get_mut(&id).ok_or_else(|| bad("chat not found"))?;
    let shown = chat.messages.get_mut(&message_id).ok_or_else(|| bad("message to react not found"))?;
    shown.reaction = params.json("reaction").unwrap_or(Value::Null);
    account.happened(id, What::Reacted { message_id });
    Ok(Value::from(true))
}

/// The text of a call, trimmed as Telegram does, with its entities given or parsed.
fn words(params: &Params, text: &str, entities: &str) -> Result<(String, Value), Refusal> {
    let refuse = |description: String| Refusal { code: 400, description };
    let given = params.text(text).unwrap_or_default();
    if params.text("parse_mode").is_some_and(|mode| mode.eq_ignore_ascii_case("html")) {
        return markup::html(given.trim()).map_err(refuse);
    }
    let entities = params.json(entities).unwrap_or_else(|| json!([]));
    markup::check_entities(&given, &entities).map_err(refuse)?;
    // Cutting the front would move what the entities point at.
    let front = entities.as_array().is_none_or(Vec::is_empty);
    Ok((if front { given.trim() } else { given.trim_end() }.to_owned(), entities))
}

fn chat_id(params: &Params) -> Result<i64, Refusal> {
    params.text("chat_id").ok_or_else(|| bad("chat_id is empty"))?;
    params.integer("chat_id").ok_or_else(|| bad("chat not found"))
}

fn message_id(params: &Params) -> Result<i64, Refusal> {
    params.integer("message_id").ok_or_else(|| bad("message identifier is not specified"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(account: &mut Account, method: &str, params: Value) -> Result<Value, String> {
        let Value::Object(fields) = params else { panic!("{params}") };
        let fields = fields.into_iter().collect();
        perform(account, method, &Params { fields, ..Params::default() }).map_err(|refusal| refusal.description)
    }

    #[test]
    fn text_has_limits_in_utf_16() {
        let bot = &mut Account::new("7:x", "seven");
        let fits = "😀".repeat(2_048);
        assert!(call(bot, "sendMessage", json!({"chat_id": 1, "text": fits})).is_ok());
        let long = call(bot, "sendMessage", json!({"chat_id": 1, "text": format!("{fits}a")}));
        assert_eq!(long.unwrap_err(), "Bad Request: message is too long");
        let empty = call(bot, "sendMessage", json!({"chat_id": 1, "text": " \n"}));
        assert_eq!(empty.unwrap_err(), "Bad Request: message text is empty");
        let entity = json!([{"type": "bold", "offset": 1, "length": 9}]);
        let out = call(bot, "sendMessage", json!({"chat_id": 1, "text": "abc", "entities": entity}));
        assert!(out.unwrap_err().starts_with("Bad Request: entity ends after"));
        assert_eq!(bot.chat(1).unwrap().from_bot().len(), 1);
    }

    #[test]
    fn edits_change_what_stands_and_refuse_what_is_the_same() {
        let bot = &mut Account::new("7:x", "seven");
        let sent = call(bot, "sendMessage", json!({"chat_id": "1", "text": "a"})).unwrap();
        let id = sent["message_id"].as_i64().unwrap();
        let same = call(bot, "editMessageText", json!({"chat_id": 1, "message_id": id, "text": "a"}));
        assert!(same.unwrap_err().starts_with("Bad Request: message is not modified:"));
        call(bot, "editMessageText", json!({"chat_id": 1, "message_id": id, "text": "b"})).unwrap();
        assert_eq!(bot.chat(1).unwrap().messages[&id].text, "b");
        let heard = bot.hear(super::super::account::Writing::private(1, "mine")).message_id;
        let theirs = call(bot, "editMessageText", json!({"chat_id": 1, "message_id": heard, "text": "b"}));
        assert_eq!(theirs.unwrap_err(), "Bad Request: message can't be edited");
        call(bot, "deleteMessage", json!({"chat_id": 1, "message_id": id})).unwrap();
        let gone = call(bot, "deleteMessage", json!({"chat_id": 1, "message_id": id}));
        assert_eq!(gone.unwrap_err(), "Bad Request: message to delete not found");
        let words: Vec<_> = bot.chat(1).unwrap().events.iter().map(|event| event.json()["what"].clone()).collect();
        assert_eq!(words, ["sent", "edited", "heard", "deleted"]);
    }

    #[test]
    fn the_rest_answers_in_kind() {
        let bot = &mut Account::new("7:x", "seven");
        assert_eq!(call(bot, "getMe", json!({})).unwrap()["id"], 7);
        assert_eq!(call(bot, "nonsense", json!({})).unwrap_err(), "Not Found");
        assert_eq!(call(bot, "sendMessage", json!({"text": "a"})).unwrap_err(), "Bad Request: chat_id is empty");
        assert!(call(bot, "sendChatAction", json!({"chat_id": 1, "action": "typing"})).is_ok());
        assert!(call(bot, "sendChatAction", json!({"chat_id": 1, "action": "dancing"})).is_err());
        assert!(call(bot, "setMyCommands", json!({"commands": [{"command": "a", "description": "b"}]})).is_ok());
        assert_eq!(call(bot, "getMyCommands", json!({})).unwrap()[0]["command"], "a");
        let lost = call(bot, "sendMessage", json!({"chat_id": 1, "text": "a", "reply_parameters": {"message_id": 99}}));
        assert!(lost.unwrap_err().contains("message to be replied not found"));
    }
}
