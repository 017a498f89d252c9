//! Markdown as Telegram shows it: plain text with entities, cut into messages. Pure.
//!
//! ```text
//!   markdown --render--> Rendered{text, spans in bytes} --split--> [Chunk{text <= 4096 units, entities in UTF-16}]
//! ```
//!
//! Entities and not HTML or `MarkdownV2`: there is nothing to escape, so nothing that an agent writes can be refused as a
//! syntax error, and an entity can be clipped at any cut.

mod render;
mod split;
mod table;

pub use render::render;
pub use split::{CHUNKS_MAX, Whole, split};

use serde_json::{Value, json};
use std::borrow::Cow;
use std::ops::Range;

/// Longest message, in UTF-16 code units: Telegram's limit.
pub const MESSAGE_UNITS_MAX: usize = 4096;

/// Most entities of a message: Telegram ignores those beyond.
pub const MESSAGE_ENTITIES_MAX: usize = 100;

/// What stands for an answer without a visible character, for Telegram refuses an empty message.
pub const EMPTY_PLACEHOLDER: &str = "(The answer is empty.)";

/// A whole answer as plain text, with what its parts look like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The text, of any length.
    pub text: String,
    /// Its formatted parts, ordered by where they start, the longer one first.
    pub spans: Vec<Span>,
}

/// A formatted part of a [`Rendered`] text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// What it looks like.
    pub style: Style,
    /// Which bytes of the text; never empty, at character boundaries.
    pub bytes: Range<usize>,
}

/// What a part of a text looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Style {
    /// Bold; headings too.
    Bold,
    /// Italic.
    Italic,
    /// Struck through.
    Strikethrough,
    /// Monospace within a line.
    Code,
    /// A monospace block; the language may be empty.
    Pre(String),
    /// A link to this address.
    Link(String),
    /// A quotation.
    Quote,
}

/// The body of one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// The text, 1 to [`MESSAGE_UNITS_MAX`] UTF-16 code units.
    pub text: String,
    /// What its parts look like; at most [`MESSAGE_ENTITIES_MAX`].
    pub entities: Vec<Entity>,
}

/// A formatted part of a message, in Telegram's way of counting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entity {
    /// What it looks like.
    pub style: Style,
    /// Where it starts, in UTF-16 code units.
    pub offset: usize,
    /// How long it is, in UTF-16 code units; at least one.
    pub length: usize,
}

impl Rendered {
    /// `text` as it is, without any formatting.
    pub fn plain(text: &str) -> Self {
        Self { text: clean(text).into_owned(), spans: Vec::new() }
    }
}

impl Chunk {
    /// A short text without formatting. The caller sees to its length.
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), entities: Vec::new() }
    }

    /// The same text without its formatting, for when Telegram refuses the entities.
    #[must_use]
    pub fn without_entities(&self) -> Self {
        Self::plain(self.text.clone())
    }
}

impl Entity {
    /// The Bot API's `MessageEntity`.
    pub fn to_json(&self) -> Value {
        let mut value = json!({"type": self.style.name(), "offset": self.offset, "length": self.length});
        match &self.style {
            Style::Pre(language) if !language.is_empty() => value["language"] = json!(language),
            Style::Link(url) => value["url"] = json!(url),
            Style::Bold | Style::Italic | Style::Strikethrough | Style::Code | Style::Pre(_) | Style::Quote => {}
        }
        value
    }

    /// Reads what [`Entity::to_json`] wrote; `None` for anything else.
    pub fn from_json(value: &Value) -> Option<Self> {
        let number = |key| value.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let text = |key| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let style = match value.get("type").and_then(Value::as_str)? {
            "bold" => Style::Bold,
            "italic" => Style::Italic,
            "strikethrough" => Style::Strikethrough,
            "code" => Style::Code,
            "pre" => Style::Pre(text("language")),
            "text_link" => Style::Link(text("url")),
            "blockquote" => Style::Quote,
            _ => return None,
        };
        Some(Self { style, offset: number("offset")?, length: number("length")? })
    }
}

impl Style {
    /// The Bot API's name of it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Bold => "bold",
            Self::Italic => "italic",
            Self::Strikethrough => "strikethrough",
            Self::Code => "code",
            Self::Pre(_) => "pre",
            Self::Link(_) => "text_link",
            Self::Quote => "blockquote",
        }
    }
}

/// `text` without what Telegram would drop or replace: carriage returns, and control characters but line end and tab.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    let odd = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(odd) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().filter(|c| *c != '\r').map(|c| if odd(c) { ' ' } else { c }).collect())
}

/// Whether a person would see nothing at this character. Telegram refuses a message of such characters alone.
pub(super) fn is_blank(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}')
}

/// The length of `text` in UTF-16 code units.
pub(super) fn units(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}
