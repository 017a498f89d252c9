//! Takes a Bot API call's parameters out of query, JSON, form or multipart bodies, as the real server does.

use std::collections::BTreeMap;

use axum::body::Bytes;
use serde_json::Value;

/// The parameters of a call, whatever they came in.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Params {
    pub(crate) fields: BTreeMap<String, Value>,
    pub(crate) files: BTreeMap<String, Upload>,
}

/// A file that came with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The name that the sender gave it.
    pub name: String,
    /// Its content.
    pub bytes: Bytes,
}

impl Params {
    /// Reads query and body; the body wins.
    pub(crate) fn read(query: &str, content_type: &str, body: &Bytes) -> Self {
        let mut params = Self::default();
        params.form(query);
        let kind = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        match kind.as_str() {
            "application/json" => {
                if let Ok(Value::Object(fields)) = serde_json::from_slice(body) {
                    params.fields.extend(fields);
                }
            }
            "application/x-www-form-urlencoded" => params.form(&String::from_utf8_lossy(body)),
            "multipart/form-data" => {
                let boundary = content_type.split_once("boundary=").map_or("", |(_, boundary)| boundary);
                params.multipart(boundary.split(';').next().unwrap_or("").trim_matches('"'), body);
            }
            _ => {}
        }
        params
    }

    /// A parameter as text; numbers count as text, null and absent as nothing.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        match self.fields.get(name)? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => Some(other.to_string()),
        }
    }

    /// A parameter as a whole number.
    pub(crate) fn integer(&self, name: &str) -> Option<i64> {
        self.text(name)?.trim().parse().ok()
    }

    /// A structured parameter: JSON itself, or JSON in text.
    pub(crate) fn json(&self, name: &str) -> Option<Value> {
        match self.fields.get(name)? {
            Value::Null => None,
            Value::String(text) => serde_json::from_str(text).ok(),
            other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => Some(other.clone()),
        }
    }

    fn form(&mut self, text: &str) {
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            self.fields.insert(unescape(name), Value::from(unescape(value)));
        }
    }

    fn multipart(&mut self, boundary: &str, body: &Bytes) {
        if boundary.is_empty() {
            return;
        }
        let mark = format!("--{boundary}");
        let mut at = find(body, mark.as_bytes(), 0);
        while let Some(begin) = at.map(|at| at + mark.len()) {
            at = find(body, mark.as_bytes(), begin);
            let Some(part) = at.and_then(|end| body.get(begin..end)) else { return };
            // Between the marks: CRLF, headers, an empty line, the content, CRLF.
            let Some(split) = find(part, b"\r\n\r\n", 0) else { continue };
            let head = String::from_utf8_lossy(part.get(..split).unwrap_or(b""));
            let content = part.get(split + 4..part.len().saturating_sub(2)).unwrap_or(b"");
            let Some(name) = disposition(&head, "name") else { continue };
            match disposition(&head, "filename") {
                Some(file) => {
                    let upload = Upload { name: file, bytes: Bytes::copy_from_slice(content) };
                    self.files.insert(name, upload);
                }
                None => drop(self.fields.insert(name, Value::from(String::from_utf8_lossy(content)))),
            }
        }
    }
}

fn disposition(head: &str, key: &str) -> Option<String> {
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("content-disposition:"))?;
    let mut found = line.split(';').filter_map(|piece| piece.trim().split_once('='));
    found.find(|(name, _)| *name == key).map(|(_, value)| value.trim_matches('"').to_owned())
}

fn find(haystack: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let rest = haystack.get(from..)?;
    rest.windows(needle.len()).position(|window| window == needle).map(|at| at + from)
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |hex: u8| char::from(hex).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                bytes.push(digit(*high).unwrap_or(0) * 16 + digit(*low).unwrap_or(0));
                rest = after;
            }
            (b'+', _) => bytes.push(b' '),
            (other, _) => bytes.push(*other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_body_says_the_same() {
        let form = Params::read("", "application/x-www-form-urlencoded", &Bytes::from("chat_id=7&text=a%20b+%C3%A4"));
        let json = Params::read("", "application/json; charset=utf-8", &Bytes::from(r#"{"chat_id":7,"text":"a b ä"}"#));
        let query = Params::read("chat_id=7&text=a+b+%C3%A4", "", &Bytes::new());
        let body = "--X\r\nContent-Disposition: form-data; name=\"chat_id\"\r\n\r\n7\r\n--X\r\ncontent-disposition: form-data; name=\"text\"\r\n\r\na b ä\r\n--X\r\nContent-Disposition: form-data; name=\"document\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\nx\r\ny\r\n--X--\r\n";
        let multipart = Params::read("", "multipart/form-data; boundary=X", &Bytes::from(body));
        for params in [&form, &json, &query, &multipart] {
            assert_eq!(
                (params.integer("chat_id"), params.text("text").as_deref()),
                (Some(7), Some("a b ä")),
                "{params:?}"
            );
        }
        assert_eq!(multipart.files["document"], Upload { name: "a.txt".to_owned(), bytes: Bytes::from("x\r\ny") });
    }

    #[test]
    fn broken_bodies_yield_nothing_and_no_panic() {
        for (kind, body) in [
            ("application/json", "{"),
            ("application/json", "[1]"),
            ("multipart/form-data", "--X"),
            ("multipart/form-data; boundary=X", "--X\r\n\r\n--X"),
            ("multipart/form-data; boundary=X", "--X\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1"),
        ] {
            assert_eq!(Params::read("", kind, &Bytes::from(body)), Params::default(), "{kind} {body}");
        }
        assert_eq!(unescape("%zz%4"), "%zz%4");
    }
}
