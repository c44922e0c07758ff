//! The identity of a metric: an immutable label set made of symbols, and ordered lists of such.
//!
//! A [`Series`] costs one word where it is held, and 24 bytes and 8 per label where it lives. A [`SeriesList`] is what makes steady work cheap:
//! batches that carry the same series in the same order share one list, so relabelling, write-ahead-log references and write
//! relabelling are worked out once per list and then only per value.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use triomphe::ThinArc;

use crate::labels::{Labels, METRIC_NAME, stable_hash, write_selector};
use crate::symbol::{self, SymbolPair, SymbolReader, symbols};

/// An immutable label set, shared by handle. Equal labels make equal series, whichever process part created them.
#[derive(Clone)]
pub struct Series(ThinArc<u64, SeriesLabel>);

/// A label of a living series, in the order of the names' texts. It counts its symbols out when the series goes.
#[derive(PartialEq, Eq)]
struct SeriesLabel(SymbolPair);

/// An ordered list of series, immutable and shared by all batches that carry the same series in the same order.
pub struct SeriesList {
    id: u64,
    series: Box<[Series]>,
}

impl Series {
    /// The series of a label set.
    #[must_use]
    pub fn new(labels: &Labels) -> Self {
        Self::from_sorted(labels.iter())
    }

    /// The series of labels that are sorted by name, without duplicates and without empty values.
    pub(crate) fn from_sorted<'a>(labels: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Self {
        let hash = stable_hash(labels.clone());
        let labels = symbol::acquire(labels);
        Self(ThinArc::from_header_and_iter(hash, labels.iter().copied().map(SeriesLabel)))
    }

    /// A hash of the labels that is the same in every process and version: XXH64 over `name 0xff value 0xff` in order of the names.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.0.header.header
    }

    /// How many labels there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.slice.len()
    }

    /// Whether there is no label.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.slice.is_empty()
    }

    /// The labels as symbols, in order of the names' texts.
    #[must_use]
    pub fn symbols(&self) -> impl ExactSizeIterator<Item = SymbolPair> + Clone {
        self.0.slice.iter().map(|&SeriesLabel(pair)| pair)
    }

    /// The labels in order of their names.
    pub fn labels<'a>(
        &'a self,
        reader: &'a SymbolReader,
    ) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> + Clone + 'a {
        self.symbols().map(|(name, value)| (reader.get(name), reader.get(value)))
    }

    /// The value of a label; `None` where the series has no such label.
    #[must_use]
    pub fn get<'a>(&'a self, name: &str, reader: &'a SymbolReader) -> Option<&'a str> {
        self.labels(reader).find(|(label, _)| *label == name).map(|(_, value)| value)
    }

    /// The metric name; empty where there is none.
    #[must_use]
    pub fn metric_name<'a>(&'a self, reader: &'a SymbolReader) -> &'a str {
        self.get(METRIC_NAME, reader).unwrap_or_default()
    }

    /// The label set, owned.
    #[must_use]
    pub fn to_labels(&self) -> Labels {
        let reader = symbols();
        self.labels(&reader).collect()
    }

    /// Whether both are the very same handle. Equal series need not be.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        std::ptr::eq(self.0.ptr(), other.0.ptr())
    }
}

impl Drop for SeriesLabel {
    fn drop(&mut self) {
        symbol::release(&[self.0]);
    }
}

impl PartialEq for Series {
    fn eq(&self, other: &Self) -> bool {
        // A text has one symbol while any series uses it, so symbols compare as texts do.
        self.same(other) || (self.hash() == other.hash() && self.0.slice == other.0.slice)
    }
}

impl Eq for Series {}

impl Hash for Series {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash());
    }
}

impl fmt::Debug for Series {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl fmt::Display for Series {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_selector(formatter, self.labels(&symbols()))
    }
}

impl SeriesList {
    /// A list with an id of its own.
    #[must_use]
    pub fn new(series: impl Into<Box<[Series]>>) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self { id: NEXT.fetch_add(1, Ordering::Relaxed), series: series.into() })
    }

    /// An id that no other list of this process has or had: the key for whatever is worked out per list.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }
}

impl Deref for SeriesList {
    type Target = [Series];

    fn deref(&self) -> &[Series] {
        &self.series
    }
}

impl fmt::Debug for SeriesList {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SeriesList").field("id", &self.id).field("series", &&*self.series).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::labels::LabelsBuilder;

    #[test]
    fn equal_labels_make_equal_series() {
        let labels: Labels = [("job", "x"), ("__name__", "up")].into_iter().collect();
        let (one, two) = (Series::new(&labels), Series::new(&labels));
        assert!(!one.same(&two) && one.same(&one.clone()));
        assert_eq!(one, two);
        assert_eq!(one.hash(), labels.stable_hash());
        let reader = symbols();
        assert_eq!(one.metric_name(&reader), "up");
        assert_eq!(one.get("job", &reader), Some("x"));
        assert_eq!(one.get("nope", &reader), None);
        drop(reader);
        assert_eq!(one.to_string(), "{__name__=\"up\", job=\"x\"}");
    }

    #[test]
    fn the_hash_is_that_of_prometheus() {
        // XXH64 of nothing, and of `a 0xff b 0xff`, from the reference implementation.
        assert_eq!(Labels::default().stable_hash(), 0xef46_db37_51d8_e999);
        let labels: Labels = [("a", "b")].into_iter().collect();
        assert_eq!(labels.stable_hash(), xxhash_rust::xxh64::xxh64(b"a\xffb\xff", 0));
    }

    #[test]
    fn list_ids_are_unique() {
        assert_ne!(SeriesList::new([]).id(), SeriesList::new([]).id());
    }

    proptest! {
        #[test]
        fn series_and_labels_agree(labels in prop::collection::btree_map("[a-c]{1,2}", "[x-z]{0,2}", 0..6)) {
            let set: Labels = labels.iter().collect();
            let series = Series::new(&set);
            prop_assert_eq!(&series.to_labels(), &set);
            prop_assert_eq!(series.len(), labels.values().filter(|value| !value.is_empty()).count());
            prop_assert_eq!(LabelsBuilder::from_labels(&set).series(), series);
        }
    }
}
