//! What a receiver remembers from request to request: the series of label sets and the lists of series. Senders repeat
//! themselves, and a series that is found again is neither interned nor allocated, while a list that is found again
//! carries on whatever receivers downstream have worked out for it.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use foldhash::HashMap;
use foldhash::fast::RandomState;
use parking_lot::Mutex;

use crate::series::{Series, SeriesList};
use crate::symbol::symbols;

/// Remembers series by the labels as they were sent, and lists by their series. Its size is bounded: what was not used
/// lately makes way. Shared by requests that are decoded at the same time.
#[derive(Debug)]
pub struct SeriesMemory {
    seed: RandomState,
    series: Mutex<Turnover<Series>>,
    lists: Mutex<Turnover<Arc<SeriesList>>>,
}

/// Two tables: what is used moves to the recent one; when that is full the older one is forgotten and they change places.
#[derive(Debug)]
struct Turnover<V> {
    /// Values and their weights by hash.
    recent: HashMap<u64, (V, usize)>,
    older: HashMap<u64, (V, usize)>,
    /// Weight of the recent entries.
    weight: usize,
    /// How much weight a table takes.
    limit: usize,
}

impl SeriesMemory {
    /// A memory that holds at most twice `series` series, and lists of at most eight times as many places.
    #[must_use]
    pub fn new(series: usize) -> Self {
        Self {
            seed: RandomState::default(),
            series: Mutex::new(Turnover::new(series)),
            lists: Mutex::new(Turnover::new(series.saturating_mul(4))),
        }
    }

    /// Forgets what was not used since the last call but one. Called now and then, it lets go of senders that are gone.
    pub fn age(&self) {
        self.series.lock().turn();
        self.lists.lock().turn();
    }

    /// How many series are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.series.lock().len()
    }

    /// Whether no series is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The series of labels as they were sent, else what `make` makes of them. Only labels that are sorted and complete,
    /// as senders must have them, are found again.
    ///
    /// # Errors
    /// What `make` fails with.
    pub fn series<E>(
        &self,
        labels: &[(&str, &str)],
        make: impl FnOnce() -> Result<Series, E>,
    ) -> Result<Series, E> {
        let mut hasher = self.seed.build_hasher();
        for (name, value) in labels {
            hasher.write(name.as_bytes());
            hasher.write_u8(0xff);
            hasher.write(value.as_bytes());
            hasher.write_u8(0xff);
        }
        let hash = hasher.finish();
        let found = self.series.lock().get(hash);
        if let Some(series) = found
            && series.labels(&symbols()).eq(labels.iter().copied())
        {
            return Ok(series);
        }
        let series = make()?;
        self.series.lock().insert(hash, series.clone(), 1);
        Ok(series)
    }

    /// A list of these series: one that was made before if they are the same.
    pub fn list(&self, series: Vec<Series>) -> Arc<SeriesList> {
        let mut hasher = self.seed.build_hasher();
        for one in &series {
            hasher.write_u64(one.hash());
        }
        let hash = hasher.finish();
        let found = self.lists.lock().get(hash);
        if let Some(list) = found
            && **list == *series
        {
            return list;
        }
        let weight = series.len().max(1);
        let list = SeriesList::new(series);
        self.lists.lock().insert(hash, Arc::clone(&list), weight);
        list
    }
}

impl<V: Clone> Turnover<V> {
    fn new(limit: usize) -> Self {
        Self { recent: HashMap::default(), older: HashMap::default(), weight: 0, limit }
    }

    fn len(&self) -> usize {
        self.recent.len() + self.older.len()
    }

    fn get(&mut self, hash: u64) -> Option<V> {
        if let Some((value, _)) = self.recent.get(&hash) {
            return Some(value.clone());
        }
        let (value, weight) = self.older.remove(&hash)?;
        self.insert(hash, value.clone(), weight);
        Some(value)
    }

    fn insert(&mut self, hash: u64, value: V, weight: usize) {
        if weight > self.limit {
            return;
        }
        if self.weight + weight > self.limit {
            self.turn();
        }
        self.older.remove(&hash);
        self.weight += weight;
        if let Some((_, replaced)) = self.recent.insert(hash, (value, weight)) {
            self.weight -= replaced;
        }
    }

    fn turn(&mut self) {
        self.older = std::mem::take(&mut self.recent);
        self.weight = 0;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::convert::Infallible;

    use super::*;

    fn series(memory: &SeriesMemory, labels: &[(&str, &str)]) -> Series {
        let make = || Ok::<_, Infallible>(Series::new(&labels.iter().copied().collect()));
        memory.series(labels, make).unwrap()
    }

    #[test]
    fn what_is_sent_again_is_the_same() {
        let memory = SeriesMemory::new(100);
        let labels = [("__name__", "up"), ("job", "x")];
        let (one, two) = (series(&memory, &labels), series(&memory, &labels));
        assert!(one.same(&two));
        let other = series(&memory, &[("__name__", "up"), ("job", "y")]);
        assert_ne!(one, other);
        let list = memory.list(vec![one.clone(), other.clone()]);
        assert!(Arc::ptr_eq(&list, &memory.list(vec![two, other.clone()])));
        assert!(!Arc::ptr_eq(&list, &memory.list(vec![other, one])), "the order counts");
    }

    #[test]
    fn equal_hashes_are_not_equal_labels() {
        let memory = SeriesMemory::new(100);
        let (a, b) = ([("__name__", "a")], [("__name__", "b")]);
        series(&memory, &a);
        // As if the hashes of both were one and the same.
        let known: Vec<u64> = memory.series.lock().recent.keys().copied().collect();
        series(&memory, &b);
        let a_series = memory.series.lock().get(known[0]).unwrap();
        let keys: Vec<u64> = memory.series.lock().recent.keys().copied().collect();
        for key in keys {
            memory.series.lock().insert(key, a_series.clone(), 1);
        }
        assert_eq!(series(&memory, &b).to_labels().get("__name__"), Some("b"));
    }

    #[test]
    fn labels_out_of_order_are_read_as_they_are_meant() {
        let memory = SeriesMemory::new(100);
        let (sorted, unsorted) = ([("__name__", "up"), ("job", "x")], [("job", "x"), ("__name__", "up")]);
        assert_eq!(series(&memory, &unsorted), series(&memory, &sorted));
        assert_eq!(series(&memory, &unsorted), series(&memory, &sorted));
    }

    #[test]
    fn size_is_bounded_and_what_is_used_stays() {
        let memory = SeriesMemory::new(10);
        let steady = series(&memory, &[("__name__", "steady")]);
        for number in 0..1000 {
            series(&memory, &[("__name__", "passing"), ("n", &number.to_string())]);
            assert!(series(&memory, &[("__name__", "steady")]).same(&steady));
            assert!(memory.len() <= 20);
        }
        let long: Vec<Series> = std::iter::repeat_n(steady, 1000).collect();
        assert!(!Arc::ptr_eq(&memory.list(long.clone()), &memory.list(long)), "too long to keep");
    }

    #[test]
    fn what_is_no_longer_sent_is_forgotten() {
        let memory = SeriesMemory::new(10);
        series(&memory, &[("__name__", "up")]);
        memory.age();
        assert_eq!(memory.len(), 1);
        memory.age();
        assert!(memory.is_empty());
    }
}
