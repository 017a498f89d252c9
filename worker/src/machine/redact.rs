//! Decides what of Codex' words may be kept: bounded, without terminal colours, without secrets.
//!
//! A secret is anything behind `Bearer `, any word that begins with `sk-` and any word of a Telegram token's form.
//! It is better to blot out a harmless word than to write a key into a ledger.

use protocol::text::clip;

/// Longest detail or stderr that an outcome carries, in bytes: enough for an error with its context.
pub(super) const DETAIL_BYTES_MAX: usize = 4 * 1024;

/// Longest command or change as a person reads it, in bytes.
pub(super) const RAN_BYTES_MAX: usize = 300;

/// What stands for a secret.
const BLOT: &str = "[redacted]";

/// Letters that a key is made of.
fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
}

/// `text` without secrets and terminal colours, at most `bytes_max` long.
pub(super) fn clean(text: &str, bytes_max: usize) -> String {
    // Four times the limit is read at most: what is blotted out may be longer than what stands for it.
    let text = clip(text, bytes_max.saturating_mul(4));
    let mut out = String::with_capacity(text.len().min(bytes_max));
    let mut rest = text;
    let mut boundary = true;
    while let Some(c) = rest.chars().next() {
        if out.len() >= bytes_max {
            break;
        }
        if c == '\u{1b}' {
            rest = after_colour(rest);
        } else if let Some(length) = boundary.then(|| secret_at(rest)).flatten() {
            out.push_str(BLOT);
            rest = rest.get(length..).unwrap_or("");
            boundary = false;
        } else {
            if c == '\n' || c == '\t' || !c.is_control() {
                out.push(c);
            }
            boundary = !is_key_char(c);
            rest = rest.get(c.len_utf8()..).unwrap_or("");
        }
    }
    clip(&out, bytes_max).to_owned()
}

/// The last `bytes_max` bytes of `text` at most, from the start of a line if there is one, cleaned.
pub(super) fn clean_tail(text: &str, bytes_max: usize) -> String {
    let mut start = text.len().saturating_sub(bytes_max);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let tail = text.get(start..).unwrap_or("");
    let tail = if start == 0 { tail } else { tail.split_once('\n').map_or(tail, |(_, whole)| whole) };
    clean(tail, bytes_max)
}

/// What follows an escape sequence.
fn after_colour(text: &str) -> &str {
    let body = text.get(1..).unwrap_or("");
    let Some(sequence) = body.strip_prefix('[') else {
        return body;
    };
    let end = sequence.find(|c: char| c.is_ascii_alphabetic()).map_or(sequence.len(), |at| at + 1);
    sequence.get(end..).unwrap_or("")
}

/// Length of the secret that `text` begins with.
fn secret_at(text: &str) -> Option<usize> {
    let lower = text.get(..7).map(str::to_ascii_lowercase);
    if lower.as_deref() == Some("bearer ") {
        let word = text.get(7..)?.find(char::is_whitespace).unwrap_or(text.len() - 7);
        return (word > 0).then_some(7 + word);
    }
    let word = text.find(|c: char| !is_key_char(c)).unwrap_or(text.len());
    if text.starts_with("sk-") && word > 4 {
        return Some(word);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let tail = text.get(digits..)?.strip_prefix(':')?;
    let length = tail.find(|c: char| !is_key_char(c)).unwrap_or(tail.len());
    (digits >= 6 && length >= 30).then_some(digits + 1 + length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn secrets_are_blotted_out() {
        for (text, clean_text) in [
            ("Incorrect API key provided: sk-mock., url: x", "Incorrect API key provided: [redacted]., url: x"),
            ("Authorization: Bearer abc.def\nnext", "Authorization: [redacted]\nnext"),
            ("a task-force of sk- and risk-free", "a task-force of sk- and risk-free"),
            ("bot 12345678:AAEhBP0av28abcdefghijklmnopqrstuvwxyz end", "bot [redacted] end"),
            ("at 12:45 and 2026:1", "at 12:45 and 2026:1"),
            ("\u{1b}[31mERROR\u{1b}[0m x", "ERROR x"),
        ] {
            assert_eq!(clean(text, 1000), clean_text);
        }
    }

    #[test]
    fn a_tail_begins_at_a_line() {
        assert_eq!(clean_tail("first\nsecond\nthird", 12), "third");
        assert_eq!(clean_tail("ab", 12), "ab");
    }

    proptest! {
        #[test]
        fn any_text_is_bounded(text in "(?s).{0,200}", max in 0_usize..80) {
            prop_assert!(clean(&text, max).len() <= max);
            prop_assert!(clean_tail(&text, max).len() <= max);
        }
    }
}
