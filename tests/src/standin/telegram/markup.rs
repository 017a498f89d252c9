//! Measures and checks text as Telegram does: lengths in UTF-16 units, entities within the text, and `parse_mode = HTML`.

use serde_json::{Value, json};

/// The longest text of a message, in UTF-16 units.
pub const TEXT_UNITS_MAX: usize = 4_096;
/// The longest caption of a file, in UTF-16 units.
pub const CAPTION_UNITS_MAX: usize = 1_024;
/// The tags that Telegram takes, and what each becomes.
const TAGS: [(&str, &str); 14] = [
    ("b", "bold"),
    ("strong", "bold"),
    ("i", "italic"),
    ("em", "italic"),
    ("u", "underline"),
    ("ins", "underline"),
    ("s", "strikethrough"),
    ("strike", "strikethrough"),
    ("del", "strikethrough"),
    ("code", "code"),
    ("pre", "pre"),
    ("a", "text_link"),
    ("blockquote", "blockquote"),
    ("tg-spoiler", "spoiler"),
];

/// Length in UTF-16 units.
pub(crate) fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

/// Checks that every entity begins and ends at a character within the text. The error is Telegram's description.
pub(crate) fn check_entities(text: &str, entities: &Value) -> Result<(), String> {
    let mut borders = vec![0];
    let mut at = 0;
    for letter in text.chars() {
        at += letter.len_utf16();
        borders.push(at);
    }
    let list = entities.as_array().ok_or("Bad Request: can't parse entities: expected an Array")?;
    for entity in list {
        let number =
            |key: &str| entity.get(key).and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok());
        let (Some(offset), Some(length)) = (number("offset"), number("length")) else {
            return Err("Bad Request: can't parse entities: offset and length must be numbers".to_owned());
        };
        if !entity.get("type").is_some_and(Value::is_string) {
            return Err("Bad Request: can't parse entities: type of the entity isn't specified".to_owned());
        }
        let end = offset.saturating_add(length);
        for (place, verb) in [(offset, "begins"), (end, "ends")] {
            if place > at {
                return Err(format!("Bad Request: entity {verb} after the end of the text at UTF-16 offset {place}"));
            }
            if borders.binary_search(&place).is_err() {
                return Err(format!(
                    "Bad Request: entity {verb} in a middle of a UTF-16 symbol at byte offset {place}"
                ));
            }
        }
    }
    Ok(())
}

/// Turns Telegram's HTML into text and entities. The error is Telegram's description.
pub(crate) fn html(source: &str) -> Result<(String, Value), String> {
    let bad = |what: &str| format!("Bad Request: can't parse entities: {what}");
    let mut text = String::new();
    let mut open: Vec<(&str, usize, Value)> = Vec::new();
    let mut entities = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let place = source.len() - rest.len();
        if first == '&' {
            let (letter, after) = reference(rest);
            text.push(letter);
            rest = after;
        } else if first == '<' {
            let (tag, after) =
                rest[1..].split_once('>').ok_or_else(|| bad(&format!("Unclosed start tag at byte offset {place}")))?;
            rest = after;
            if let Some(name) = tag.strip_prefix('/') {
                let (opened, from, mut entity) =
                    open.pop().ok_or_else(|| bad(&format!("Unexpected end tag at byte offset {place}")))?;
                if !name.trim().is_empty() && name.trim() != opened {
                    let expected = format!("Unmatched end tag at byte offset {place}, expected \"</{opened}>\"");
                    return Err(bad(&format!("{expected}, found \"</{name}>\"")));
                }
                let length = units(&text) - from;
                if length > 0 {
                    entity["length"] = Value::from(length);
                    entities.push(entity);
                }
            } else {
                let name = tag.split_whitespace().next().unwrap_or("");
                let kind = TAGS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
                let kind =
                    kind.ok_or_else(|| bad(&format!("Unsupported start tag \"{name}\" at byte offset {place}")))?;
                let mut entity = json!({"type": kind, "offset": units(&text)});
                if let Some((_, url)) = tag.split_once("href=") {
                    entity["url"] = Value::from(url.trim_matches(['"', '\'']));
                }
                open.push((name, units(&text), entity));
            }
        } else {
            text.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    if let Some((name, ..)) = open.pop() {
        return Err(bad(&format!("Can't find end tag corresponding to start tag \"{name}\"")));
    }
    entities.sort_by_key(|entity| entity["offset"].as_u64());
    Ok((text, Value::from(entities)))
}

fn reference(rest: &str) -> (char, &str) {
    for (name, letter) in [("&lt;", '<'), ("&gt;", '>'), ("&amp;", '&'), ("&quot;", '"'), ("&#39;", '\'')] {
        if let Some(after) = rest.strip_prefix(name) {
            return (letter, after);
        }
    }
    ('&', &rest[1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entities_stay_within_the_text_and_off_the_middle_of_letters() {
        let entity = |offset: i64, length: i64| json!([{"type": "bold", "offset": offset, "length": length}]);
        assert_eq!(check_entities("a😀b", &entity(1, 2)), Ok(()));
        for (offset, length, says) in [
            (5, 1, "begins after"),
            (3, 2, "ends after"),
            (2, 1, "begins in a middle"),
            (0, 2, "ends in a middle"),
            (-1, 1, "must be numbers"),
        ] {
            let error = check_entities("a😀b", &entity(offset, length)).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn html_becomes_text_and_entities() {
        let (text, entities) = html("1 &lt; <b>2 <i>😀</i></b> <a href=\"http://x\">y</a> & z").unwrap();
        assert_eq!(text, "1 < 2 😀 y & z");
        let expected = json!([
            {"type": "bold", "offset": 4, "length": 4}, {"type": "italic", "offset": 6, "length": 2},
            {"type": "text_link", "offset": 9, "length": 1, "url": "http://x"},
        ]);
        assert_eq!(entities, expected);
        for (source, says) in [
            ("<b>x", "Can't find end tag"),
            ("<p>x</p>", "Unsupported start tag \"p\""),
            ("x</b>", "Unexpected end tag"),
            ("<b>x</i>", "Unmatched end tag"),
            ("a < b", "Unclosed start tag"),
        ] {
            let error = html(source).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
