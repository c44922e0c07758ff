//! Label sets outside the symbol table: owned ones ([`Labels`]) and the one being built ([`LabelsBuilder`]).
//!
//! They serve where sets are made, compared or shown: targets, relabelling, exemplars, a series that is seen for the first time. What
//! lives as long as a series does is a [`Series`](crate::Series) of symbols instead.

use std::fmt;

use xxhash_rust::xxh64::Xxh64;

use crate::series::Series;

/// The label that holds a series' metric name.
pub const METRIC_NAME: &str = "__name__";

/// An owned, immutable label set: sorted by name, no name twice, no empty value.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Labels {
    /// Names and values end to end.
    text: Box<str>,
    /// Where each name and each value ends in `text`.
    ends: Box<[(u32, u32)]>,
}

/// A label set under construction. Setting an empty value removes the label, as everywhere in Prometheus.
///
/// It keeps its buffers when cleared, so one builder serves many sets without allocating.
#[derive(Clone, Default)]
pub struct LabelsBuilder {
    text: String,
    /// Sorted by name.
    entries: Vec<BuilderEntry>,
    duplicate: Option<String>,
    /// Names that a parser found with an empty value.
    given_empty: Vec<String>,
}

#[derive(Clone, Copy)]
struct BuilderEntry {
    name: (u32, u32),
    value: (u32, u32),
}

impl Labels {
    /// How many labels there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no label.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The labels in order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        let mut start = 0;
        self.ends.iter().map(move |&(name, value)| {
            let label = (&self.text[start..name as usize], &self.text[name as usize..value as usize]);
            start = value as usize;
            label
        })
    }

    /// The value of a label; `None` where the set has no such label.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(label, _)| *label == name).map(|(_, value)| value)
    }

    /// The same hash as [`Series::hash`] of the same labels: stable across processes and versions.
    #[must_use]
    pub fn stable_hash(&self) -> u64 {
        stable_hash(self.iter())
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Labels {
    /// Collects labels in any order; of a name given twice the last value counts.
    fn from_iter<I: IntoIterator<Item = (N, V)>>(labels: I) -> Self {
        let mut builder = LabelsBuilder::default();
        for (name, value) in labels {
            builder.set(name.as_ref(), value.as_ref());
        }
        builder.labels()
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Labels {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.iter().cmp(other.iter())
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}

impl fmt::Display for Labels {
    /// As PromQL writes a selector: `{name="value", …}`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_selector(formatter, self.iter())
    }
}

impl LabelsBuilder {
    /// An empty builder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A builder that starts from the given labels.
    #[must_use]
    pub fn from_labels(labels: &Labels) -> Self {
        let mut builder = Self::default();
        builder.reset(labels);
        builder
    }

    /// Forgets all labels, keeping the buffers.
    pub fn clear(&mut self) {
        self.text.clear();
        self.entries.clear();
        self.duplicate = None;
        self.given_empty.clear();
    }

    /// Starts again from the given labels.
    pub fn reset(&mut self, labels: &Labels) {
        self.clear();
        for (name, value) in labels.iter() {
            self.set(name, value);
        }
    }

    /// How many labels there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no label.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Sets a label; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.position(name) {
            Ok(at) if value.is_empty() => {
                self.entries.remove(at);
            }
            Ok(at) => {
                if self.slice(self.entries[at].value) != value {
                    self.entries[at].value = self.store(value);
                }
            }
            Err(_) if value.is_empty() => {}
            Err(at) => {
                let entry = BuilderEntry { name: self.store(name), value: self.store(value) };
                self.entries.insert(at, entry);
            }
        }
    }

    /// Sets a label that a parser found; of a name found twice the last value counts and [`duplicate`](Self::duplicate) tells.
    pub fn add(&mut self, name: &str, value: &str) {
        if self.duplicate.is_none() && self.position(name).is_ok() {
            self.duplicate = Some(name.to_owned());
        }
        if value.is_empty() {
            self.given_empty.push(name.to_owned());
        }
        self.set(name, value);
    }

    /// Whether [`add`](Self::add) was given this name with an empty value since the last clearing: a page's way to say that the label
    /// is to be absent.
    #[must_use]
    pub fn was_given_empty(&self, name: &str) -> bool {
        self.given_empty.iter().any(|given| given == name)
    }

    /// The first name that [`add`](Self::add) was given twice since the last clearing.
    #[must_use]
    pub fn duplicate(&self) -> Option<&str> {
        self.duplicate.as_deref()
    }

    /// Removes a label.
    pub fn del(&mut self, name: &str) {
        if let Ok(at) = self.position(name) {
            self.entries.remove(at);
        }
    }

    /// Keeps only the labels for which the predicate holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &str) -> bool) {
        let Self { text, entries, .. } = self;
        let slice = |(start, end): (u32, u32)| &text[start as usize..end as usize];
        entries.retain(|entry| keep(slice(entry.name), slice(entry.value)));
    }

    /// The value of a label; `None` where there is no such label.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.position(name).ok().map(|at| self.slice(self.entries[at].value))
    }

    /// The labels in order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        self.entries.iter().map(|entry| (self.slice(entry.name), self.slice(entry.value)))
    }

    /// The set as it stands.
    #[must_use]
    pub fn labels(&self) -> Labels {
        let size = self.iter().map(|(name, value)| name.len() + value.len()).sum();
        let mut text = String::with_capacity(size);
        let mut ends = Vec::with_capacity(self.len());
        for (name, value) in self.iter() {
            text.push_str(name);
            let name_end = offset(text.len());
            text.push_str(value);
            ends.push((name_end, offset(text.len())));
        }
        Labels { text: text.into_boxed_str(), ends: ends.into_boxed_slice() }
    }

    /// A series of the set as it stands.
    #[must_use]
    pub fn series(&self) -> Series {
        Series::from_sorted(self.iter())
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        // Sets mostly arrive in order: look at the end first.
        match self.entries.last() {
            Some(last) if self.slice(last.name) < name => Err(self.entries.len()),
            _ => self.entries.binary_search_by(|entry| self.slice(entry.name).cmp(name)),
        }
    }

    fn slice(&self, (start, end): (u32, u32)) -> &str {
        &self.text[start as usize..end as usize]
    }

    fn store(&mut self, text: &str) -> (u32, u32) {
        let start = offset(self.text.len());
        self.text.push_str(text);
        (start, offset(self.text.len()))
    }
}

impl fmt::Debug for LabelsBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}

/// XXH64, seed 0, over `name 0xff value 0xff` of every label in order: what Prometheus itself shards by.
pub(crate) fn stable_hash<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> u64 {
    let mut hasher = Xxh64::new(0);
    for (name, value) in labels {
        hasher.update(name.as_bytes());
        hasher.update(&[0xff]);
        hasher.update(value.as_bytes());
        hasher.update(&[0xff]);
    }
    hasher.digest()
}

pub(crate) fn write_selector<'a>(
    formatter: &mut fmt::Formatter<'_>,
    labels: impl Iterator<Item = (&'a str, &'a str)>,
) -> fmt::Result {
    formatter.write_str("{")?;
    for (at, (name, value)) in labels.enumerate() {
        if at > 0 {
            formatter.write_str(", ")?;
        }
        if is_legacy_label_name(name) {
            write!(formatter, "{name}={value:?}")?;
        } else {
            write!(formatter, "{name:?}={value:?}")?;
        }
    }
    formatter.write_str("}")
}

/// Whether a label name is one of the classic alphabet, `[a-zA-Z_][a-zA-Z0-9_]*`.
#[must_use]
pub fn is_legacy_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether a metric name is one of the classic alphabet, `[a-zA-Z_:][a-zA-Z0-9_:]*`.
#[must_use]
pub fn is_legacy_metric_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_' || first == b':')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':')
}

/// A label set is bounded by the message that carried it, far below this.
fn offset(length: usize) -> u32 {
    u32::try_from(length).expect("a label set is smaller than 4 GiB")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_value_is_no_label() {
        let mut builder = LabelsBuilder::new();
        builder.set("a", "1");
        builder.set("b", "");
        builder.set("a", "");
        assert_eq!((builder.get("a"), builder.get("b"), builder.len()), (None, None, 0));
        assert_eq!(builder.labels(), Labels::default());
    }

    #[test]
    fn duplicates_are_told() {
        let mut builder = LabelsBuilder::new();
        builder.add("a", "1");
        builder.add("b", "1");
        assert_eq!(builder.duplicate(), None);
        builder.add("a", "2");
        builder.add("b", "2");
        assert_eq!((builder.duplicate(), builder.get("a")), (Some("a"), Some("2")));
        builder.clear();
        assert_eq!(builder.duplicate(), None);
    }

    #[test]
    fn names_outside_the_classic_alphabet_are_shown_quoted() {
        let labels: Labels = [("a.b", "x\"y"), ("c", "d")].into_iter().collect();
        assert_eq!(labels.to_string(), r#"{"a.b"="x\"y", c="d"}"#);
    }

    #[test]
    fn classic_names_are_recognised() {
        assert!(is_legacy_label_name("_a1") && is_legacy_metric_name(":a"));
        for name in ["", "1a", "a-b", "é", "a:b"] {
            assert!(!is_legacy_label_name(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_builder_is_a_sorted_map(
            operations in prop::collection::vec((0_u8..3, "[a-d]{1,2}", "[x-z]{0,2}"), 0..30)
        ) {
            let mut builder = LabelsBuilder::new();
            let mut model = BTreeMap::new();
            for (operation, name, value) in operations {
                if operation == 0 {
                    builder.del(&name);
                    model.remove(&name);
                } else {
                    builder.set(&name, &value);
                    if value.is_empty() { model.remove(&name); } else { model.insert(name, value); }
                }
            }
            let labels = builder.labels();
            let expected: Vec<(&str, &str)> =
                model.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            prop_assert_eq!(labels.iter().collect::<Vec<_>>(), expected.clone());
            prop_assert_eq!(builder.iter().collect::<Vec<_>>(), expected.clone());
            for (name, value) in expected {
                prop_assert_eq!(labels.get(name), Some(value));
                prop_assert_eq!(builder.get(name), Some(value));
            }
        }
    }
}
