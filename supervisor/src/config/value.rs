//! What a text or a TOML value means to a key: the same rules for what the file says and for the defaults.

use super::keys::{Absent, Key, Kind};
use super::paths::Environment;
use super::read::{Spot, Table};
use super::units::{parse_duration, parse_size, show_duration, show_size};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A value that its key takes.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Bool(bool),
    Integer(i64),
    Duration(Duration),
    Size(u64),
    /// `none` where a bound may be absent.
    Unbounded,
    Path(PathBuf),
    Texts(Vec<Spot<String>>),
    Integers(Vec<Spot<i64>>),
    /// Names with where they stand, and their values.
    TextMap(BTreeMap<String, Spot<String>>),
    Table(Table),
    Named(Vec<(Spot<String>, Table)>),
    Tables(Vec<Table>),
    /// Anything, with the place of each key at the top.
    Free(toml::Table, Vec<Spot<String>>),
}

/// Why a value does not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bad {
    pub(super) message: String,
    pub(super) label: String,
    pub(super) help: Option<String>,
}

impl Bad {
    pub(super) fn new(message: impl Into<String>, label: impl Into<String>) -> Self {
        Self { message: message.into(), label: label.into(), help: None }
    }

    fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

/// A text in quotes, short and without control characters, for a message.
pub(super) fn echo(text: &str) -> String {
    /// Characters of a value that a message repeats; the line below it shows the rest.
    const ECHO_CHARS_MAX: usize = 60;
    let mut short: String = text.chars().take(ECHO_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(ECHO_CHARS_MAX).is_some() {
        short.push_str("...");
    }
    format!("`{short}`")
}

/// What `text` means to a key of `kind`; `dir` is what paths are relative to.
pub(super) fn from_text(kind: Kind, text: &str, env: &Environment, dir: &Path) -> Result<Value, Bad> {
    if text.contains('\0') {
        return Err(Bad::new("a text holds a NUL character", "no program can be given this"));
    }
    match kind {
        Kind::Text | Kind::Model => Ok(Value::Text(text.to_owned())),
        Kind::Duration(min, max) => duration(text, min, max),
        Kind::Bound(..) | Kind::SizeBound(_) if text == "none" => Ok(Value::Unbounded),
        Kind::Size(min) | Kind::SizeBound(min) => size(text, min),
        Kind::Command if !text.is_empty() && !text.contains('/') && !text.starts_with('~') => {
            Ok(Value::Path(PathBuf::from(text)))
        }
        Kind::Path | Kind::Command => expand(text, env, dir),
        Kind::Word(words) => word(text, words),
        Kind::Bool
        | Kind::Integer(..)
        | Kind::Bound(..)
        | Kind::Texts
        | Kind::Integers
        | Kind::TextMap
        | Kind::Table
        | Kind::Named
        | Kind::Tables
        | Kind::Free => Err(wrong_type(kind, "a text")),
    }
}

fn duration(text: &str, min: u64, max: u64) -> Result<Value, Bad> {
    let help = "write a whole number and a unit of ms, s, m, h, d, w, such as \"90s\", \"10m\", \"1h30m\"";
    let value = parse_duration(text)
        .map_err(|why| Bad::new(format!("bad duration {}", echo(text)), why.to_string()).help(help))?;
    let (low, high) = (Duration::from_millis(min), Duration::from_millis(max));
    if value < low || value > high {
        let label = format!("must be {} to {}", show_duration(low), show_duration(high));
        return Err(Bad::new(format!("the duration {} is out of range", echo(text)), label));
    }
    Ok(Value::Duration(value))
}

fn size(text: &str, min: u64) -> Result<Value, Bad> {
    let help = "write a whole number and a unit of B, K, M, G, T, such as \"512M\"";
    let value =
        parse_size(text).map_err(|why| Bad::new(format!("bad size {}", echo(text)), why.to_string()).help(help))?;
    if value < min {
        let label = format!("must be at least {}", show_size(min));
        return Err(Bad::new(format!("the size {} is too small", echo(text)), label));
    }
    Ok(Value::Size(value))
}

fn expand(text: &str, env: &Environment, dir: &Path) -> Result<Value, Bad> {
    env.expand(text, dir).map(Value::Path).map_err(|why| Bad::new(format!("bad path {}", echo(text)), why.to_string()))
}

fn word(text: &str, words: &[&str]) -> Result<Value, Bad> {
    if words.contains(&text) {
        return Ok(Value::Text(text.to_owned()));
    }
    let bad = Bad::new(format!("unknown value {}", echo(text)), format!("must be one of {}", words.join(", ")));
    Err(match nearest(text, words.iter().copied()) {
        Some(near) => bad.help(format!("did you mean \"{near}\"?")),
        None => bad,
    })
}

/// What `number` means to a key of `kind`.
pub(super) fn from_integer(kind: Kind, number: i64) -> Result<Value, Bad> {
    match kind {
        Kind::Integer(min, max) | Kind::Bound(min, max) if (min..=max).contains(&number) => Ok(Value::Integer(number)),
        Kind::Integer(min, max) | Kind::Bound(min, max) => {
            Err(Bad::new(format!("{number} is out of range"), format!("must be {min} to {max}")))
        }
        Kind::Duration(..) => Err(wrong_type(kind, "a number").help(format!("write \"{number}s\" for seconds"))),
        Kind::Size(_) | Kind::SizeBound(_) => {
            Err(wrong_type(kind, "a number")
                .help(format!("write \"{number}B\" for bytes, \"{number}M\" for mebibytes")))
        }
        Kind::Text
        | Kind::Bool
        | Kind::Path
        | Kind::Command
        | Kind::Word(_)
        | Kind::Model
        | Kind::Texts
        | Kind::Integers
        | Kind::TextMap
        | Kind::Table
        | Kind::Named
        | Kind::Tables
        | Kind::Free => Err(wrong_type(kind, "a number")),
    }
}

/// Says that a key of `kind` was given `found`.
pub(super) fn wrong_type(kind: Kind, found: &str) -> Bad {
    let wanted = match kind {
        Kind::Text | Kind::Path | Kind::Command | Kind::Model => "a text in quotes".to_owned(),
        Kind::Duration(..) => "a duration in quotes".to_owned(),
        Kind::Size(_) | Kind::SizeBound(_) => "a size in quotes".to_owned(),
        Kind::Integer(i64::MIN, _) => "a whole number".to_owned(),
        Kind::Integer(min, max) => format!("a whole number ({min} to {max})"),
        Kind::Bound(min, max) => format!("a whole number ({min} to {max}) or \"none\""),
        Kind::Word(words) => format!("one of {} in quotes", words.join(", ")),
        Kind::Texts => "a list of texts".to_owned(),
        Kind::Integers => "a list of whole numbers".to_owned(),
        Kind::TextMap | Kind::Table | Kind::Named | Kind::Free => "a table".to_owned(),
        Kind::Tables => "a list of tables".to_owned(),
        Kind::Bool => "true or false".to_owned(),
    };
    Bad::new(format!("wrong type: {found}"), format!("{wanted} is expected here"))
}

/// The default of `key` as the file would have given it; `None` if it has none of its own.
pub(super) fn default(key: &Key, env: &Environment, dir: &Path) -> Option<Value> {
    let Absent::Value(text) = key.default else { return None };
    match (key.kind, text) {
        (Kind::Bool, _) => Some(Value::Bool(text == "true")),
        (Kind::Integer(..) | Kind::Bound(..), number) if number != "none" => number.parse().ok().map(Value::Integer),
        (Kind::Texts, _) => Some(Value::Texts(Vec::new())),
        (Kind::Integers, _) => Some(Value::Integers(Vec::new())),
        (kind, text) => from_text(kind, text, env, dir).ok(),
    }
}

/// The known word that `text` was likely meant to be.
pub(super) fn nearest<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Longer words are no slips of the finger, and the distance costs the product of both lengths.
    const SLIP_BYTES_MAX: usize = 64;
    if text.len() > SLIP_BYTES_MAX {
        return None;
    }
    let lower = text.to_ascii_lowercase().replace('-', "_");
    known
        .map(|word| (strsim::osa_distance(&lower, &word.to_ascii_lowercase().replace('-', "_")), word))
        .filter(|(distance, word)| *distance <= word.len().max(text.len()).div_ceil(3).min(4))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// What a key is read as.
pub(super) trait FromValue: Sized {
    /// The value, unless the key takes another kind.
    fn from_value(value: &Value) -> Option<Self>;
}

macro_rules! from_value {
    ($($type:ty: $pattern:pat => $result:expr),+ $(,)?) => {
        $(impl FromValue for $type {
            fn from_value(value: &Value) -> Option<Self> {
                if let $pattern = value { Some($result) } else { None }
            }
        })+
    };
}

from_value! {
    String: Value::Text(text) => text.clone(),
    bool: Value::Bool(yes) => *yes,
    i64: Value::Integer(number) => *number,
    u32: Value::Integer(number) => u32::try_from(*number).unwrap_or(u32::MAX),
    u64: Value::Size(bytes) => *bytes,
    Duration: Value::Duration(duration) => *duration,
    PathBuf: Value::Path(path) => path.clone(),
    Vec<Spot<String>>: Value::Texts(texts) => texts.clone(),
    Vec<Spot<i64>>: Value::Integers(numbers) => numbers.clone(),
}

/// A bound on bytes or on a number that may be absent.
impl FromValue for Option<u64> {
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Unbounded = value {
            return Some(None);
        }
        let number = i64::from_value(value).and_then(|n| u64::try_from(n).ok());
        u64::from_value(value).or(number).map(Some)
    }
}
