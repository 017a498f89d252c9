//! The answer of getUpdates as [`Update`] values. Pure.
//!
//! Each update is decoded on its own and field by field: what is missing or of another type reads as absent, what is not
//! known is kept as [`Update::Other`], and what has not even an `update_id` is counted with a sample of it. So nothing in
//! a batch can spoil the rest of it, and the offset always advances past what can be counted.

use crate::channel::{
    ChatKind, KIND_BYTES_MAX, Origin, QUOTE_BYTES_MAX, RAW_BYTES_MAX, ReplyTo, USER_NAME_BYTES_MAX, Update,
};
use protocol::text::clip;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// Longest sample of a malformed update, in bytes: a line in a report.
const SAMPLE_BYTES_MAX: usize = 200;

/// The kinds of updates that carry a message, in the order in which they are looked for.
const MESSAGE_KINDS: [&str; 6] =
    ["message", "edited_message", "channel_post", "edited_channel_post", "business_message", "edited_business_message"];

/// Keys of a message that say what it is, where it has no text. The first one found names the kind; a general one such
/// as `document`, which accompanies an `animation`, comes after the particular one.
const CONTENT_KINDS: [&str; 33] = [
    "photo",
    "voice",
    "audio",
    "video",
    "video_note",
    "animation",
    "sticker",
    "document",
    "paid_media",
    "story",
    "contact",
    "dice",
    "game",
    "poll",
    "checklist",
    "venue",
    "location",
    "invoice",
    "successful_payment",
    "new_chat_members",
    "left_chat_member",
    "new_chat_title",
    "new_chat_photo",
    "delete_chat_photo",
    "group_chat_created",
    "supergroup_chat_created",
    "migrate_to_chat_id",
    "migrate_from_chat_id",
    "pinned_message",
    "forum_topic_created",
    "forum_topic_edited",
    "forum_topic_closed",
    "forum_topic_reopened",
];

/// What one getUpdates gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decoded {
    /// The updates in Telegram's order.
    pub(super) updates: Vec<Update>,
    /// How many members had no readable `update_id`.
    pub(super) malformed: u32,
    /// The beginning of the first of those.
    pub(super) sample: Option<String>,
    /// One past the highest `update_id`. Not the highest ever: Telegram restarts its numbers at random after a quiet week.
    pub(super) next_offset: Option<i64>,
}

/// Decodes `result`, the list that getUpdates answers with. `None` if it is no list at all.
pub(super) fn updates(result: &RawValue) -> Option<Decoded> {
    let members: Vec<&RawValue> = serde_json::from_str(result.get()).ok()?;
    let mut decoded = Decoded::default();
    for member in members {
        let raw = member.get();
        if let Some(id) = update_id(raw) {
            decoded.next_offset = decoded.next_offset.max(Some(id.saturating_add(1)));
            decoded.updates.push(update(id, raw));
        } else {
            decoded.malformed = decoded.malformed.saturating_add(1);
            decoded.sample.get_or_insert_with(|| clip(raw, SAMPLE_BYTES_MAX).to_owned());
        }
    }
    Some(decoded)
}

/// The number alone, so that an update whose rest cannot be read still counts.
fn update_id(raw: &str) -> Option<i64> {
    #[derive(Deserialize)]
    struct Numbered<'a> {
        #[serde(borrow)]
        update_id: &'a RawValue,
    }
    let numbered: Numbered<'_> = serde_json::from_str(raw).ok()?;
    numbered.update_id.get().trim_matches('"').parse().ok()
}

fn update(update_id: i64, raw: &str) -> Update {
    let Ok(value) = serde_json::from_str::<Value>(raw) else {
        return Update::Other { update_id, kind: "unreadable".into(), origin: None, text: None, raw: bounded(raw) };
    };
    for kind in MESSAGE_KINDS {
        if let Some(message) = value.get(kind).filter(|message| message.is_object()) {
            return from_message(update_id, kind, message, raw);
        }
    }
    if let Some(query) = value.get("callback_query") {
        let mut origin = query.get("message").and_then(origin);
        if let Some(origin) = &mut origin {
            name_sender(origin, query.get("from"));
        }
        let text = query.get("data").and_then(Value::as_str).map(quote);
        return Update::Other { update_id, kind: "callback_query".into(), origin, text, raw: bounded(raw) };
    }
    let kind = value.as_object().and_then(|fields| fields.keys().find(|key| *key != "update_id"));
    let origin = kind.and_then(|kind| value.get(kind)).and_then(origin);
    let kind = clip(kind.map_or("unknown", String::as_str), KIND_BYTES_MAX).to_owned();
    Update::Other { update_id, kind, origin, text: None, raw: bounded(raw) }
}

fn from_message(update_id: i64, kind: &str, message: &Value, raw: &str) -> Update {
    let text = message.get("text").and_then(Value::as_str).filter(|text| !text.is_empty());
    let origin = origin(message);
    let fresh = matches!(kind, "message" | "channel_post");
    match (text, origin) {
        (Some(text), Some(origin)) if fresh => {
            Update::Text { update_id, origin, text: text.to_owned(), reply_to: reply_to(message) }
        }
        (text, origin) => {
            let content = CONTENT_KINDS.iter().find(|key| message.get(**key).is_some());
            let kind = if fresh { content.copied().unwrap_or(kind) } else { kind };
            let caption = message.get("caption").and_then(Value::as_str);
            let text = text.or(caption).map(quote);
            Update::Other { update_id, kind: kind.to_owned(), origin, text, raw: bounded(raw) }
        }
    }
}

/// Where a message (or anything else with a `chat`) came from.
fn origin(of: &Value) -> Option<Origin> {
    let chat = of.get("chat")?;
    let number = chat.get("id").and_then(Value::as_i64)?;
    // Outside forums, the thread number marks a chain of replies, and sending to it as a topic is refused.
    let in_topic = of.get("is_topic_message").and_then(Value::as_bool).unwrap_or(false);
    let topic = of.get("message_thread_id").and_then(Value::as_i64).filter(|_| in_topic);
    let mut origin = Origin {
        chat: number,
        chat_kind: ChatKind::parse(chat.get("type").and_then(Value::as_str).unwrap_or_default()),
        topic,
        user: None,
        user_name: String::new(),
        is_bot: false,
        message_id: of.get("message_id").and_then(Value::as_i64),
    };
    name_sender(&mut origin, of.get("from").or_else(|| of.get("user")));
    Some(origin)
}

fn name_sender(origin: &mut Origin, sender: Option<&Value>) {
    let Some(sender) = sender else { return };
    let part = |key| sender.get(key).and_then(Value::as_str).unwrap_or_default();
    let full = format!("{} {}", part("first_name"), part("last_name"));
    let name = if full.trim().is_empty() { part("username") } else { full.trim() };
    origin.user = sender.get("id").and_then(Value::as_i64);
    clip(name, USER_NAME_BYTES_MAX).clone_into(&mut origin.user_name);
    origin.is_bot = sender.get("is_bot").and_then(Value::as_bool).unwrap_or(false);
}

fn reply_to(message: &Value) -> Option<ReplyTo> {
    let replied = message.get("reply_to_message")?;
    // Every message of a topic replies to the service message that opened the topic: nobody meant that.
    if replied.get("forum_topic_created").is_some() {
        return None;
    }
    let quoted = message.get("quote").and_then(|quote| quote.get("text"));
    let text = quoted.or_else(|| replied.get("text")).or_else(|| replied.get("caption"));
    Some(ReplyTo {
        message_id: replied.get("message_id").and_then(Value::as_i64)?,
        user: replied.get("from").and_then(|from| from.get("id")).and_then(Value::as_i64),
        text: text.and_then(Value::as_str).map(quote),
    })
}

fn quote(text: &str) -> String {
    clip(text, QUOTE_BYTES_MAX).to_owned()
}

/// `raw` itself, or valid JSON that holds the beginning of it.
fn bounded(raw: &str) -> String {
    if raw.len() <= RAW_BYTES_MAX {
        return raw.to_owned();
    }
    // Escaping makes a byte six at most (`\u0001`), and raw JSON holds no control characters but line ends: a third of
    // the limit leaves room for quotes and backslashes doubled.
    json!({ "cut": true, "bytes": raw.len(), "head": clip(raw, RAW_BYTES_MAX / 3) }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(text: &str) -> Decoded {
        let raw: Box<RawValue> = serde_json::from_str(text).expect("valid JSON");
        updates(&raw).expect("a list")
    }

    fn one(value: &Value) -> Update {
        let decoded = decode(&json!([value]).to_string());
        assert_eq!(decoded.malformed, 0);
        decoded.updates.into_iter().next().expect("one update")
    }

    fn text_message() -> Value {
        json!({"update_id": 8_589_934_592_i64, "message": {
            "message_id": 7, "date": 1, "text": "hi", "message_thread_id": 3, "is_topic_message": true,
            "chat": {"id": -100_123, "type": "supergroup", "is_forum": true},
            "from": {"id": 42, "is_bot": false, "first_name": "Ada", "last_name": "L"},
            "reply_to_message": {"message_id": 5, "text": "what", "from": {"id": 9}},
            "novelty": [1, {"x": null}]
        }, "extra_key": {"a": 1}})
    }

    #[test]
    fn reads_a_text_with_all_that_surrounds_it() {
        let Update::Text { update_id, origin, text, reply_to } = one(&text_message()) else { panic!("a text") };
        assert_eq!((update_id, text.as_str()), (8_589_934_592, "hi"));
        assert_eq!((origin.chat, origin.chat_kind, origin.topic), (-100_123, ChatKind::Supergroup, Some(3)));
        assert_eq!((origin.user, origin.user_name.as_str(), origin.message_id), (Some(42), "Ada L", Some(7)));
        let reply_to = reply_to.expect("a reply");
        assert_eq!((reply_to.message_id, reply_to.user, reply_to.text.as_deref()), (5, Some(9), Some("what")));
    }

    #[test]
    fn a_reply_thread_of_an_ordinary_group_is_no_topic() {
        let mut value = text_message();
        value["message"]["is_topic_message"] = json!(false);
        assert_eq!(one(&value).origin().expect("an origin").topic, None);
    }

    #[test]
    fn unknown_kinds_are_kept() {
        let chat = json!({"id": 1, "type": "private"});
        let cases = [
            (
                json!({"update_id": 1, "message": {"message_id": 2, "chat": chat, "photo": [], "caption": "c"}}),
                "photo",
                true,
            ),
            (json!({"update_id": 1, "message": {"message_id": 2, "chat": chat, "hologram": {}}}), "message", true),
            (
                json!({"update_id": 1, "edited_message": {"message_id": 2, "chat": chat, "text": "t"}}),
                "edited_message",
                true,
            ),
            (
                json!({"update_id": 1, "callback_query": {"id": "q", "data": "d", "from": {"id": 4},
                "message": {"message_id": 2, "chat": chat}}}),
                "callback_query",
                true,
            ),
            (json!({"update_id": 1, "my_chat_member": {"chat": chat, "from": {"id": 4}}}), "my_chat_member", true),
            (json!({"update_id": 1, "telepathy": {"depth": 3}}), "telepathy", false),
            (json!({"update_id": 1, "message": "not an object"}), "message", false),
            (json!({"update_id": 1, "message": {"text": "no chat"}}), "message", false),
            (json!({"update_id": 1}), "unknown", false),
        ];
        for (value, expected, located) in cases {
            let Update::Other { update_id, kind, origin, raw, .. } = one(&value) else { panic!("{value}") };
            assert_eq!((update_id, kind.as_str(), origin.is_some()), (1, expected, located), "{value}");
            assert_eq!(serde_json::from_str::<Value>(&raw).expect("valid JSON"), value);
        }
    }

    #[test]
    fn the_presser_of_a_button_is_the_sender_and_not_the_bot() {
        let value = json!({"update_id": 1, "callback_query": {"from": {"id": 4}, "data": "yes",
            "message": {"message_id": 2, "from": {"id": 99, "is_bot": true}, "chat": {"id": 1, "type": "private"}}}});
        let Update::Other { origin, text, .. } = one(&value) else { panic!("other") };
        let origin = origin.expect("an origin");
        assert_eq!((origin.user, origin.is_bot, text.as_deref()), (Some(4), false, Some("yes")));
    }

    #[test]
    fn garbage_spoils_nothing_but_itself() {
        let deep = format!(r#"{{"update_id":12,"x":{}{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
        let surrogate = r#"{"update_id":13,"message":{"text":"\ud800"}}"#;
        let list = format!(
            r#"[17,null,{{"update_id":"11"}},{{"update_id":1.5}},{{}},{deep},{surrogate},{}]"#,
            text_message().to_string().replace("8589934592", "14")
        );
        let decoded = decode(&list);
        assert_eq!(decoded.malformed, 4);
        assert_eq!(decoded.sample.as_deref(), Some("17"));
        assert_eq!(decoded.updates.iter().map(Update::id).collect::<Vec<_>>(), [11, 12, 13, 14]);
        assert_eq!(decoded.next_offset, Some(15));
        assert!(matches!(&decoded.updates[3], Update::Text { text, .. } if text == "hi"));
        assert!(matches!(&decoded.updates[1], Update::Other { kind, .. } if kind == "unreadable"));
    }

    #[test]
    fn numbers_that_restart_lower_are_followed() {
        assert_eq!(decode(r#"[{"update_id":5}]"#).next_offset, Some(6));
        assert_eq!(decode("[]").next_offset, None);
        assert_eq!(decode(&format!(r#"[{{"update_id":{}}}]"#, i64::MAX)).next_offset, Some(i64::MAX));
    }

    #[test]
    fn a_huge_update_is_bounded_and_still_json() {
        for filler in ["x", "\"", "\\", "\u{1}", "ä", "\n"] {
            let Update::Other { raw, .. } = one(&json!({"update_id": 1, "blob": filler.repeat(1 << 16)})) else {
                panic!("other")
            };
            assert!(raw.len() <= RAW_BYTES_MAX, "{} bytes", raw.len());
            assert_eq!(serde_json::from_str::<Value>(&raw).expect("valid JSON")["cut"], json!(true));
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        let key = prop_oneof![
            Just("update_id".to_owned()),
            Just("message".to_owned()),
            Just("chat".to_owned()),
            Just("id".to_owned()),
            Just("text".to_owned()),
            Just("from".to_owned()),
            Just("callback_query".to_owned()),
            ".{0,4}",
        ];
        leaf.prop_recursive(4, 32, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key.clone(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_member_is_either_an_update_or_counted(members in prop::collection::vec(any_json(), 0..8)) {
            let decoded = decode(&Value::from(members.clone()).to_string());
            prop_assert_eq!(decoded.updates.len() + decoded.malformed as usize, members.len());
            prop_assert_eq!(decoded.next_offset, decoded.updates.iter().map(|u| u.id().saturating_add(1)).max());
        }
    }
}
