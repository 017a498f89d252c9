//! Walks the parsed TOML along the table of keys: unknown keys and wrong values are reported where they stand, and
//! one mistake hides no other. What comes out holds known keys with checked values, each with its place.

use super::keys::{self, Key, Kind};
use super::paths::Environment;
use super::report::{Problem, Sink};
use super::value::{self, Bad, Value, echo};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeArray, DeInteger, DeTable, DeValue};

/// Bytes of the file, from and to.
pub(super) type Span = Range<usize>;

/// Something and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Spot<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// A key that the file gives.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Where the key stands.
    pub(super) key: Span,
    /// Where the value stands.
    pub(super) span: Span,
    /// `None`: it was reported.
    pub(super) value: Option<Value>,
}

/// A table of known keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    /// The heading, or the table itself if it stands in a line.
    pub(super) span: Span,
    pub(super) entries: BTreeMap<&'static str, Entry>,
}

/// Where a table stands: in the table of keys, and in the words of the file.
#[derive(Clone, Debug, Default)]
struct At {
    path: String,
    shown: String,
}

impl At {
    fn key(&self, key: &str) -> Self {
        let below = |path: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        Self { path: below(&self.path), shown: below(&self.shown) }
    }

    fn name(&self, name: &str) -> Self {
        Self { path: format!("{}.*", self.path), shown: format!("{}.{name}", self.shown) }
    }

    fn heading(&self) -> String {
        keys::heading(echo(&self.shown).trim_matches('`'))
    }
}

/// Reads a file; what is wrong goes to the sink.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub(super) env: &'a Environment,
    /// What relative paths are relative to.
    pub(super) dir: &'a Path,
    pub(super) sink: &'a mut Sink,
}

impl Reader<'_> {
    /// Reads the whole file.
    pub(super) fn file(&mut self, table: &DeTable<'_>) -> Table {
        self.table(&At::default(), table, 0..0)
    }

    fn table(&mut self, at: &At, table: &DeTable<'_>, span: Span) -> Table {
        let mut entries = BTreeMap::new();
        for (name, value) in table {
            let Some((known, key)) = keys::children(&at.path).find(|(known, _)| *known == name.get_ref().as_ref())
            else {
                self.unknown(at, name.get_ref(), &name.span());
                continue;
            };
            let read = self.value(key, &at.key(known), value, &name.span());
            entries.insert(known, Entry { key: name.span(), span: value.span(), value: read });
        }
        Table { span, entries }
    }

    fn unknown(&mut self, at: &At, name: &str, span: &Span) {
        if self.sink.is_full() {
            return self.sink.count_only();
        }
        let problem = Problem::error(span, format!("unknown key {}", echo(name)));
        let place =
            if at.path.is_empty() { "at the top of the file".to_owned() } else { format!("in {}", at.heading()) };
        let problem = problem.label(format!("no such key {place}"));
        let near = value::nearest(name, keys::children(&at.path).map(|(known, _)| known));
        let elsewhere = keys::KEYS.iter().find(|k| k.path.rsplit('.').next() == Some(name));
        self.sink.push(match (near, elsewhere) {
            (Some(near), _) => problem.help(format!("did you mean `{near}`?")),
            (None, Some(key)) => {
                let parent = key.path.rsplit_once('.').map_or("", |(parent, _)| parent);
                let place = if parent.is_empty() { "the top of the file".to_owned() } else { keys::heading(parent) };
                problem.help(format!("`{name}` is a key of {place}"))
            }
            (None, None) => problem,
        });
    }

    fn value(&mut self, key: &Key, at: &At, value: &Spanned<DeValue<'_>>, name: &Span) -> Option<Value> {
        let span = value.span();
        let read = match (value.get_ref(), key.kind) {
            (DeValue::String(text), kind) => value::from_text(kind, text, self.env, self.dir),
            (DeValue::Integer(number), kind) => integer(number).and_then(|n| value::from_integer(kind, n)),
            (DeValue::Boolean(yes), Kind::Bool) => Ok(Value::Bool(*yes)),
            (DeValue::Array(list), Kind::Texts) => Ok(Value::Texts(self.list(list, text_of))),
            (DeValue::Array(list), Kind::Integers) => Ok(Value::Integers(self.list(list, integer_of))),
            (DeValue::Array(list), Kind::Tables) => Ok(Value::Tables(self.tables(at, list))),
            (DeValue::Table(table), Kind::Table) => Ok(Value::Table(self.table(at, table, name.clone()))),
            (DeValue::Table(table), Kind::Named) => Ok(Value::Named(self.named(at, table))),
            (DeValue::Table(table), Kind::TextMap) => Ok(Value::TextMap(self.text_map(table))),
            (DeValue::Table(table), Kind::Free) => Ok(self.free(table)),
            (other, kind) => Err(value::wrong_type(kind, with_article(other.type_str()))),
        };
        read.map_err(|bad| self.bad(&span, bad)).ok()
    }

    fn bad(&mut self, span: &Span, bad: Bad) {
        if self.sink.is_full() {
            return self.sink.count_only();
        }
        let problem = Problem::error(span, bad.message).label(bad.label);
        self.sink.push(match bad.help {
            Some(help) => problem.help(help),
            None => problem,
        });
    }

    fn list<T>(&mut self, list: &DeArray<'_>, read: fn(&DeValue<'_>) -> Result<T, Bad>) -> Vec<Spot<T>> {
        let mut all = Vec::new();
        for item in list {
            match read(item.get_ref()) {
                Ok(value) => all.push(Spot { value, span: item.span() }),
                Err(bad) => self.bad(&item.span(), bad),
            }
        }
        all
    }

    fn tables(&mut self, at: &At, list: &DeArray<'_>) -> Vec<Table> {
        let at = at.name("*");
        let mut all = Vec::new();
        for item in list {
            if let DeValue::Table(table) = item.get_ref() {
                all.push(self.table(&at, table, item.span()));
            } else {
                let bad = value::wrong_type(Kind::Table, with_article(item.get_ref().type_str()));
                self.bad(&item.span(), bad);
            }
        }
        all
    }

    fn named(&mut self, at: &At, table: &DeTable<'_>) -> Vec<(Spot<String>, Table)> {
        let mut all = Vec::new();
        for (name, value) in table {
            if let DeValue::Table(table) = value.get_ref() {
                let read = self.table(&at.name(name.get_ref()), table, name.span());
                all.push((Spot { value: name.get_ref().to_string(), span: name.span() }, read));
            } else {
                let bad = value::wrong_type(Kind::Table, with_article(value.get_ref().type_str()));
                self.bad(&value.span(), bad);
            }
        }
        all
    }

    fn text_map(&mut self, table: &DeTable<'_>) -> BTreeMap<String, Spot<String>> {
        let mut all = BTreeMap::new();
        for (name, value) in table {
            match text_of(value.get_ref()) {
                Ok(text) => {
                    all.insert(name.get_ref().to_string(), Spot { value: text, span: name.span() });
                }
                Err(bad) => self.bad(&value.span(), bad),
            }
        }
        all
    }

    fn free(&mut self, table: &DeTable<'_>) -> Value {
        let names = table.keys().map(|k| Spot { value: k.get_ref().to_string(), span: k.span() }).collect();
        let mut copy = toml::Table::new();
        for (name, value) in table {
            match own(value.get_ref()) {
                Ok(value) => {
                    copy.insert(name.get_ref().to_string(), value);
                }
                Err(bad) => self.bad(&value.span(), bad),
            }
        }
        Value::Free(copy, names)
    }
}

fn text_of(value: &DeValue<'_>) -> Result<String, Bad> {
    let text = value.as_str().ok_or_else(|| value::wrong_type(Kind::Text, with_article(value.type_str())))?;
    if text.contains('\0') {
        return Err(Bad::new("a text holds a NUL character", "not allowed here"));
    }
    Ok(text.to_owned())
}

fn integer_of(value: &DeValue<'_>) -> Result<i64, Bad> {
    let wrong = || value::wrong_type(Kind::Integer(i64::MIN, i64::MAX), with_article(value.type_str()));
    integer(value.as_integer().ok_or_else(wrong)?)
}

fn integer(number: &DeInteger<'_>) -> Result<i64, Bad> {
    i64::from_str_radix(number.as_str(), number.radix())
        .map_err(|_| Bad::new("the number is too large", "must fit into 64 bits"))
}

/// A copy of `value` that lives without the file. Depth is bounded by the parser.
fn own(value: &DeValue<'_>) -> Result<toml::Value, Bad> {
    Ok(match value {
        DeValue::String(text) => toml::Value::String(text.to_string()),
        DeValue::Integer(number) => toml::Value::Integer(integer(number)?),
        DeValue::Float(number) => toml::Value::Float(
            number.as_str().parse().map_err(|_| Bad::new("the number cannot be read", "no such number"))?,
        ),
        DeValue::Boolean(yes) => toml::Value::Boolean(*yes),
        DeValue::Datetime(time) => toml::Value::Datetime(*time),
        DeValue::Array(list) => toml::Value::Array(list.iter().map(|v| own(v.get_ref())).collect::<Result<_, _>>()?),
        DeValue::Table(table) => toml::Value::Table(
            table.iter().map(|(k, v)| Ok((k.get_ref().to_string(), own(v.get_ref())?))).collect::<Result<_, Bad>>()?,
        ),
    })
}

/// The parser's word for a type, with its article.
fn with_article(word: &str) -> &'static str {
    match word {
        "string" => "a text",
        "integer" => "a number",
        "float" => "a number with a point",
        "boolean" => "true or false",
        "datetime" => "a date",
        "array" => "a list",
        _ => "a table",
    }
}
