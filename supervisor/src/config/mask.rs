//! Takes secrets out of what is shown. Works on text, not on the parsed file: a file with a syntax error is shown too.
//!
//! Every byte keeps its place, so that spans and columns stay right.

/// What the name of a secret ends with. `token_file`, `token_env` and `api_key_env` are names of places, not secrets.
const NAMES: [&str; 5] = ["token", "secret", "password", "passwd", "key"];

/// Digits before the colon of a bot token, and characters after it: shorter ones are times and ports.
const TOKEN_DIGITS_MIN: usize = 5;
const TOKEN_TAIL_MIN: usize = 15;

/// `source` with the value of every key that sounds like a secret hidden, and everything shaped like a bot token.
pub(super) fn source(source: &str) -> String {
    let mut hidden = vec![false; source.len()];
    mark_named(source, &mut hidden);
    mark_shaped(source, &mut hidden);
    hide(source, &hidden)
}

/// `text` with everything shaped like a bot token hidden, and without control characters.
pub(super) fn shaped(text: &str) -> String {
    let mut hidden = vec![false; text.len()];
    mark_shaped(text, &mut hidden);
    hide(text, &hidden).chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// Marks what follows `NAME =` to the end of the string or line.
fn mark_named(source: &str, hidden: &mut [bool]) {
    let bytes = source.as_bytes();
    let mut done = 0;
    for (equals, _) in source.match_indices('=') {
        if equals < done {
            continue;
        }
        let before = source.get(..equals).unwrap_or("").trim_end_matches([' ', '\t', '"', '\'']);
        let tail = before.as_bytes().iter().rev().take(8).rev().map(u8::to_ascii_lowercase).collect::<Vec<u8>>();
        if !NAMES.iter().any(|name| tail.ends_with(name.as_bytes())) {
            continue;
        }
        let mut i = equals + 1;
        while bytes.get(i).is_some_and(|b| *b == b' ' || *b == b'\t') {
            i += 1;
        }
        let rest = source.get(i..).unwrap_or("");
        let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|q| rest.starts_with(q));
        let (from, to) = match quote {
            Some(quote) => (i + quote.len(), end_of_string(source, i + quote.len(), quote)),
            None => (i, i + rest.find(['\n', ',', '}', '#']).unwrap_or(rest.len())),
        };
        hidden.iter_mut().take(to).skip(from).for_each(|h| *h = true);
        done = to;
    }
}

/// Where the string that begins at `from` ends: at its quote, or at the end of the line or file that lacks it.
fn end_of_string(source: &str, from: usize, quote: &str) -> usize {
    let long = quote.len() == 3;
    let mut escaped = false;
    let rest = source.get(from..).unwrap_or("");
    for (i, c) in rest.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' && quote.starts_with('"') {
            escaped = true;
        } else if rest.get(i..).is_some_and(|r| r.starts_with(quote)) || (c == '\n' && !long) {
            return from + i;
        }
    }
    source.len()
}

/// Marks `12345678:AAF...`.
fn mark_shaped(text: &str, hidden: &mut [bool]) {
    let bytes = text.as_bytes();
    for (colon, _) in text.match_indices(':') {
        let digits = bytes.iter().take(colon).rev().take_while(|b| b.is_ascii_digit()).count();
        let tail = |b: &&u8| b.is_ascii_alphanumeric() || **b == b'_' || **b == b'-';
        let length = bytes.iter().skip(colon + 1).take_while(tail).count();
        if digits >= TOKEN_DIGITS_MIN && length >= TOKEN_TAIL_MIN {
            hidden.iter_mut().take(colon + 1 + length).skip(colon - digits).for_each(|h| *h = true);
        }
    }
}

/// Replaces what is hidden by characters of the same width in bytes.
fn hide(text: &str, hidden: &[bool]) -> String {
    text.char_indices()
        .map(|(i, c)| match (hidden.get(i).copied().unwrap_or(false) && c != '\n' && c != '\r', c.len_utf8()) {
            (false, _) => c,
            (true, 1) => '*',
            (true, 2) => '\u{b7}',
            (true, 3) => '\u{2022}',
            (true, _) => '\u{1f512}',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn secrets_are_hidden_and_places_are_not() {
        for (text, want) in [
            ("token = \"1:a\"", "token = \"***\""),
            ("token=\"a\\\"b\" # x", "token=\"****\" # x"),
            ("\"token\" = 'ab'", "\"token\" = '**'"),
            ("token = \"abc\nagent = \"x\"", "token = \"***\nagent = \"x\""),
            ("token = '''a\nb''' x", "token = '''*\n*''' x"),
            ("token = abc, x = 1", "token = ***, x = 1"),
            ("env = { API_KEY = \"sk\", N = \"v\" }", "env = { API_KEY = \"**\", N = \"v\" }"),
            ("token_file = \"a\"", "token_file = \"a\""),
            ("api_key_env = \"A\"", "api_key_env = \"A\""),
            ("x = \"12345:abcdefghijklmno\"", "x = \"*********************\""),
            ("deliver = \"telegram:bot:11111111\"", "deliver = \"telegram:bot:11111111\""),
        ] {
            assert_eq!(source(text), want);
        }
    }

    proptest! {
        #[test]
        fn every_byte_keeps_its_place(text in "(token|key|[a-z =\"'\\\\:0-9\n,é€🔒]){0,30}") {
            let masked = source(&text);
            prop_assert_eq!(masked.len(), text.len());
            for (a, b) in masked.char_indices().zip(text.char_indices()) {
                prop_assert_eq!(a.0, b.0);
            }
        }
    }
}
