//! Where names in expressions get their values. The evaluator asks a [`Scope`] first and falls back to the standard
//! library.

use indexmap::IndexMap;

use crate::span::Span;
use crate::value::Value;

/// Why a path names nothing, where a scope knows more than that it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What is wrong, in one line.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// Resolves names.
pub trait Scope {
    /// Resolves the shortest dotted prefix of `path` that names something; returns its value and how many names it took.
    fn resolve(&self, path: &[&str]) -> Option<(Value, usize)>;

    /// Names near to a wrong one, for the help line.
    fn names(&self) -> Vec<String> {
        Vec::new()
    }

    /// Asked about a path that `resolve` knows nothing of, once it is clear that nobody else does.
    fn missing(&self, path: &[&str]) -> Option<Missing> {
        let _ = path;
        None
    }

    /// Told of every use of a deprecated function, with the one to use instead.
    fn deprecated(&self, name: &str, instead: &str, span: Span) {
        let _ = (name, instead, span);
    }
}

/// A scope without names; the standard library stays reachable.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmptyScope;

impl Scope for EmptyScope {
    fn resolve(&self, _path: &[&str]) -> Option<(Value, usize)> {
        None
    }
}

/// Single names with values, and optionally an outer scope behind them.
#[derive(Default)]
pub struct MapScope<'a> {
    values: IndexMap<String, Value>,
    outer: Option<&'a dyn Scope>,
}

impl<'a> MapScope<'a> {
    /// A scope without names.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A scope whose names hide those of `outer`.
    #[must_use]
    pub fn within(outer: &'a dyn Scope) -> Self {
        Self { values: IndexMap::new(), outer: Some(outer) }
    }

    /// Adds or replaces a name. A dotted name is found under that whole path.
    pub fn insert(&mut self, name: impl Into<String>, value: Value) {
        self.values.insert(name.into(), value);
    }

    /// As [`MapScope::insert`], for building in one expression.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: Value) -> Self {
        self.insert(name, value);
        self
    }
}

impl Scope for MapScope<'_> {
    fn resolve(&self, path: &[&str]) -> Option<(Value, usize)> {
        let mut prefix = String::new();
        for (index, name) in path.iter().enumerate() {
            if index > 0 {
                prefix.push('.');
            }
            prefix.push_str(name);
            if let Some(value) = self.values.get(&prefix) {
                return Some((value.clone(), index + 1));
            }
        }
        self.outer.and_then(|outer| outer.resolve(path))
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.values.keys().cloned().collect();
        if let Some(outer) = self.outer {
            names.extend(outer.names());
        }
        names
    }

    fn missing(&self, path: &[&str]) -> Option<Missing> {
        self.outer.and_then(|outer| outer.missing(path))
    }

    fn deprecated(&self, name: &str, instead: &str, span: Span) {
        if let Some(outer) = self.outer {
            outer.deprecated(name, instead, span);
        }
    }
}
