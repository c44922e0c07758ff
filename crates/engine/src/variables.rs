//! Variables: the values behind `var.NAME`, and where each of them was written. Who reads and merges the files is up to
//! the holder; here they are looked up, and errors are told their origin.

use std::collections::BTreeMap;
use std::sync::Arc;

use invar_syntax::diagnostic::nearest;
use invar_syntax::source::Source;
use invar_syntax::span::Span;
use invar_syntax::value::{Object, Value};

/// The keys from the top of a file to a variable or a field of one.
pub type VariablePath = Vec<Arc<str>>;

/// One place where a variable, or a field of one, is given a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The file.
    pub source: Arc<Source>,
    /// The key.
    pub key: Span,
    /// The value.
    pub value: Span,
    /// The source of the configuration that the file is from, as in the settings.
    pub origin: Arc<str>,
    /// The folder that the file stands for, as in the path list; empty for the root.
    pub layer: Arc<str>,
}

/// Merged variables. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Variables(Arc<Merged>);

#[derive(Debug, Default)]
struct Merged {
    values: Arc<Object>,
    /// In order of the layers: the last one holds, those before it were overridden. A table has one for each layer that
    /// contributes to it.
    definitions: BTreeMap<VariablePath, Vec<Definition>>,
    /// The files that were looked for, in order of the layers.
    searched: Vec<String>,
}

/// Why a path below `var` leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Undefined {
    pub(crate) message: String,
    /// The path that was probably meant.
    pub(crate) nearest: Option<String>,
}

// === impl Definition ===

impl Definition {
    /// `file:line:column` of the key.
    #[must_use]
    pub fn location(&self) -> String {
        self.source.location(self.key.start)
    }

    /// The value as it stands in the file.
    #[must_use]
    pub fn text(&self) -> &str {
        self.source.slice(self.value)
    }
}

// === impl Variables ===

impl Variables {
    /// Values with their places, and the files that were looked for, in order of the layers.
    #[must_use]
    pub fn new(
        values: Object,
        definitions: BTreeMap<VariablePath, Vec<Definition>>,
        searched: Vec<String>,
    ) -> Self {
        Self(Arc::new(Merged { values: Arc::new(values), definitions, searched }))
    }

    /// All of them, as `var` alone gives them.
    #[must_use]
    pub fn values(&self) -> &Arc<Object> {
        &self.0.values
    }

    /// The value at a path of keys.
    #[must_use]
    pub fn get(&self, path: &[impl AsRef<str>]) -> Option<Value> {
        let mut value = Value::Object(Arc::clone(self.values()));
        for name in path {
            value = value.to_object()?.get(name.as_ref())?.clone();
        }
        Some(value)
    }

    /// Where the value at a path was given, in order of the layers; the last one holds.
    #[must_use]
    pub fn definitions(&self, path: &[impl AsRef<str>]) -> &[Definition] {
        let path: VariablePath = path.iter().map(|name| Arc::from(name.as_ref())).collect();
        self.0.definitions.get(&path).map_or(&[], Vec::as_slice)
    }

    /// Every path that has a place, tables before what is in them.
    pub fn paths(&self) -> impl Iterator<Item = &VariablePath> {
        self.0.definitions.keys()
    }

    /// The files that were looked for, in order of the layers.
    #[must_use]
    pub fn searched(&self) -> &[String] {
        &self.0.searched
    }

    /// The value of the longest part of `path` (names after `var`) that can be followed by keys alone, and how many names
    /// that took. None where a table lacks the next key.
    pub(crate) fn follow(&self, path: &[&str]) -> Option<(Value, usize)> {
        let mut value = Value::Object(Arc::clone(self.values()));
        for (taken, name) in path.iter().enumerate() {
            let Value::Object(table) = &value else { return Some((value, taken)) };
            value = table.get(name)?.clone();
        }
        Some((value, path.len()))
    }

    /// The place of the deepest part of `path` (names after `var`) that has one.
    pub(crate) fn origin(&self, path: &[Arc<str>]) -> Option<(&Definition, usize)> {
        (1..=path.len()).rev().find_map(|length| {
            let definitions = self.0.definitions.get(&path[..length])?;
            definitions.last().map(|definition| (definition, length))
        })
    }

    /// What to say of a path (names after `var`) that [`Self::follow`] does not find.
    pub(crate) fn undefined(&self, path: &[&str]) -> Option<Undefined> {
        let mut table = Arc::clone(self.values());
        for (index, name) in path.iter().enumerate() {
            let found = table.get(name).cloned();
            match found {
                Some(Value::Object(inner)) => table = inner,
                Some(_) => return None,
                None => {
                    let before = path[..index].iter().map(|name| format!(".{name}")).collect::<String>();
                    let near = nearest(name, table.keys().map(|key| &**key));
                    return Some(Undefined {
                        message: format!("var{before}.{name} is not defined; {}", self.where_to_define()),
                        nearest: near.map(|near| format!("var{before}.{near}")),
                    });
                }
            }
        }
        None
    }

    fn where_to_define(&self) -> String {
        match self.searched() {
            [] => "no folder with a variables.toml belongs to this configuration".to_owned(),
            [only] => format!("define it in {only}"),
            [before @ .., last] => format!("define it in {last} (also searched: {})", before.join(", ")),
        }
    }
}

/// Variables are what they are, wherever they were written.
impl PartialEq for Variables {
    fn eq(&self, other: &Self) -> bool {
        self.values() == other.values()
    }
}

/// Variables without places.
impl From<Object> for Variables {
    fn from(values: Object) -> Self {
        Self::new(values, BTreeMap::new(), Vec::new())
    }
}
