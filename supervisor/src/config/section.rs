//! One table of the file together with what stands behind it: `[defaults]`, and the defaults of the table of keys.
//!
//! ```text
//!  [agents.research]  ->  [defaults]  ->  keys.rs        the first that has the key answers
//! ```

use super::keys::{self, Absent};
use super::paths::Environment;
use super::read::{Entry, Span, Spot, Table};
use super::report::{Problem, Sink};
use super::value::{self, FromValue, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Who gave a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// The table itself.
    Own,
    /// `[defaults]`.
    Defaults,
}

/// A value that the file gives.
#[derive(Clone, Debug)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) span: Span,
    pub(super) layer: Layer,
}

/// What every section needs to know of the world.
#[derive(Clone, Copy, Debug)]
pub(super) struct World<'a> {
    pub(super) env: &'a Environment,
    /// What relative paths are relative to.
    pub(super) dir: &'a Path,
    /// Whether nobody but its owner may read the configuration.
    pub(super) file_private: bool,
}

/// One table with what stands behind it.
#[derive(Clone, Debug)]
pub(super) struct Section<'a> {
    /// In the table of keys.
    path: String,
    own: Option<&'a Table>,
    defaults: Option<&'a Table>,
    world: World<'a>,
}

impl<'a> Section<'a> {
    /// The table `own`, which stands at `path` of the table of keys.
    pub(super) fn new(path: &str, own: Option<&'a Table>, world: World<'a>) -> Self {
        Self { path: path.to_owned(), own, defaults: None, world }
    }

    /// The same with `defaults` behind it.
    pub(super) fn behind(self, defaults: Option<&'a Table>) -> Self {
        Self { defaults, ..self }
    }

    fn entry(&self, name: &str) -> Option<(&'a Entry, Layer)> {
        let own = self.own.and_then(|t| t.entries.get(name)).map(|e| (e, Layer::Own));
        own.or_else(|| self.defaults.and_then(|t| t.entries.get(name)).map(|e| (e, Layer::Defaults)))
    }

    /// Whether the table itself gives `name`, rightly or wrongly.
    pub(super) fn gives(&self, name: &str) -> Option<&'a Entry> {
        self.own.and_then(|t| t.entries.get(name))
    }

    /// What the file says for `name`; `None` also if that was reported as wrong.
    pub(super) fn found<T: FromValue>(&self, name: &str) -> Option<Found<T>> {
        let (entry, layer) = self.entry(name)?;
        let value = T::from_value(entry.value.as_ref()?)?;
        Some(Found { value, span: entry.span.clone(), layer })
    }

    /// What holds for `name`: from the file, else from the table of keys. The type's own default stands in for a value
    /// that was reported as wrong; such a configuration is never handed out.
    pub(super) fn get<T: FromValue + Default>(&self, name: &str) -> T {
        let found = self.found(name).map(|f: Found<T>| f.value);
        found.or_else(|| T::from_value(&self.builtin(name)?)).unwrap_or_default()
    }

    fn builtin(&self, name: &str) -> Option<Value> {
        let key = keys::find(&format!("{}{name}", self.prefix()))?;
        value::default(key, self.world.env, self.world.dir)
    }

    /// One of a few words, as its type.
    pub(super) fn word<T>(&self, name: &str, parse: fn(&str) -> Option<T>, fallback: T) -> T {
        parse(&self.get::<String>(name)).unwrap_or(fallback)
    }

    /// A path that the file gives.
    pub(super) fn path(&self, name: &str) -> Option<Found<PathBuf>> {
        self.found(name)
    }

    /// The table `name` within this one, and within what stands behind it.
    pub(super) fn sub(&self, name: &str) -> Self {
        let table = |from: Option<&'a Table>| {
            let value = from?.entries.get(name)?.value.as_ref()?;
            if let Value::Table(table) = value { Some(table) } else { None }
        };
        let path = format!("{}{name}", self.prefix());
        Self { path, own: table(self.own), defaults: table(self.defaults), world: self.world }
    }

    /// The table itself.
    pub(super) fn table(&self) -> Option<&'a Table> {
        self.own
    }

    /// The tables by name within `name`.
    pub(super) fn named(&self, name: &str) -> &'a [(Spot<String>, Table)] {
        match self.own.and_then(|t| t.entries.get(name)).and_then(|e| e.value.as_ref()) {
            Some(Value::Named(all)) => all,
            _ => &[],
        }
    }

    /// The list of tables within `name`.
    pub(super) fn tables(&self, name: &str) -> &'a [Table] {
        match self.own.and_then(|t| t.entries.get(name)).and_then(|e| e.value.as_ref()) {
            Some(Value::Tables(all)) => all,
            _ => &[],
        }
    }

    /// The texts by name within `name`, joined name by name with those behind.
    pub(super) fn text_map(&self, name: &str) -> BTreeMap<String, Spot<String>> {
        let mut all = BTreeMap::new();
        for table in [self.defaults, self.own].into_iter().flatten() {
            if let Some(Value::TextMap(texts)) = table.entries.get(name).and_then(|e| e.value.as_ref()) {
                all.extend(texts.clone());
            }
        }
        all
    }

    /// Foreign TOML within `name`, joined key by key with that behind, and where each of the table's own keys stands.
    pub(super) fn free(&self, name: &str) -> (toml::Table, Vec<Spot<String>>) {
        let mut all = toml::Table::new();
        let mut spots = Vec::new();
        for table in [self.defaults, self.own].into_iter().flatten() {
            if let Some(Value::Free(toml, names)) = table.entries.get(name).and_then(|e| e.value.as_ref()) {
                join(&mut all, toml);
                spots.extend(names.iter().cloned());
            }
        }
        (all, spots)
    }

    /// A text that must be given; says so at `at` if it is not.
    pub(super) fn required(&self, name: &str, at: &Span, sink: &mut Sink) -> Option<Found<String>> {
        if self.entry(name).is_none() {
            let key = keys::find(&format!("{}{name}", self.prefix()));
            debug_assert!(key.is_some_and(|k| k.default == Absent::Required), "{name} is not required");
            let problem =
                Problem::error(at, format!("`{name}` is missing")).label(format!("`{name}` must be given here"));
            sink.push(problem.derived());
        }
        self.found(name)
    }

    fn prefix(&self) -> String {
        if self.path.is_empty() { String::new() } else { format!("{}.", self.path) }
    }
}

/// Lays `over` on `under`: tables are joined, all else is replaced.
fn join(under: &mut toml::Table, over: &toml::Table) {
    for (name, value) in over {
        match (under.get_mut(name), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => join(under, over),
            _ => {
                under.insert(name.clone(), value.clone());
            }
        }
    }
}
