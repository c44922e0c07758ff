//! What a scrape remembers of a target from page to page: which series each line is.
//!
//! Pages hardly change their order, so the i-th sample of a page is expected to be the i-th of the page before: one hash of as many bytes
//! as that series text has confirms it, and neither labels are read nor a table is searched. Only where a page differs is an index built,
//! for the rest of that page. A page with the same series in the same order yields the same [`SeriesList`] again.
//!
//! An entry takes 16 bytes, besides the 8 of its handle in the list. Texts are not kept: a 64-bit hash with a seed of the process, and the
//! length, stand for them.

use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, LazyLock};

use foldhash::fast::RandomState;
use hashbrown::{HashSet, HashTable};

use crate::series::{Series, SeriesList};

/// The memory of one target.
#[derive(Debug)]
pub struct ScrapeCache {
    /// One per sample of the last page, in its order.
    entries: Vec<Entry>,
    list: Arc<SeriesList>,
    /// Series of native histograms.
    histograms: Vec<Series>,
    /// Whether a text occurs twice in the last page.
    duplicates: bool,
    /// Whether all series were reported as ended since the last page.
    ended: bool,
}

/// One page being read. Dropping it without [`finish`](Self::finish) leaves the memory as the page before made it.
#[derive(Debug)]
pub struct CacheScrape<'c> {
    cache: &'c mut ScrapeCache,
    /// The entry that is expected next.
    cursor: usize,
    /// The entries of this page so far, once they are not the first ones of the page before in their order.
    order: Option<Vec<u32>>,
    /// Entries that the page before did not have; they are numbered behind its own.
    added: Vec<Entry>,
    added_series: Vec<Series>,
    /// Entries by hash; built when an expectation fails.
    index: Option<HashTable<u32>>,
    /// The entry of the last sample.
    last: usize,
    /// Entries whose samples carry timestamps since this page.
    untracked: Vec<u32>,
}

/// What is known about a series text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It is a series that goes on. Its value belongs to the next place of the list.
    Kept,
    /// Relabelling drops it.
    Dropped,
    /// It is new: [`CacheScrape::insert`] it.
    Unknown,
}

/// What a page changed.
#[derive(Debug)]
pub struct CacheUpdate {
    /// The float series of the page, in order. The same list as before if nothing changed.
    pub list: Arc<SeriesList>,
    /// Series of the page before that this one does not have.
    pub vanished: Vec<Vanished>,
    /// How many kept series the page before did not have.
    pub added: usize,
}

/// A series that is no longer exposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vanished {
    /// The series.
    pub series: Series,
    /// Whether its last sample carried a timestamp: its end is then not marked unless asked for.
    pub timestamped: bool,
    /// Whether it is one of native histograms.
    pub histogram: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    hash: u64,
    length: u32,
    place: Place,
}

/// Where the series of an entry is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place(u32);

impl Place {
    const HISTOGRAM: u32 = 1 << 31;
    const TIMESTAMPED: u32 = 1 << 30;
    /// Also what an entry that relabelling drops has for its slot.
    const SLOT: u32 = Self::TIMESTAMPED - 1;

    fn new(slot: Option<usize>, histogram: bool) -> Self {
        let slot = slot.and_then(|slot| u32::try_from(slot).ok()).filter(|&slot| slot < Self::SLOT);
        Self(slot.unwrap_or(Self::SLOT) | if histogram { Self::HISTOGRAM } else { 0 })
    }

    fn slot(self) -> Option<usize> {
        let slot = self.0 & Self::SLOT;
        (slot != Self::SLOT).then_some(slot as usize)
    }

    fn is_histogram(self) -> bool {
        self.0 & Self::HISTOGRAM != 0
    }

    fn is_timestamped(self) -> bool {
        self.0 & Self::TIMESTAMPED != 0
    }

    fn with_slot(self, slot: Option<usize>) -> Self {
        Self(Self::new(slot, self.is_histogram()).0 | (self.0 & Self::TIMESTAMPED))
    }
}

/// How far ahead of the expected entry is looked before an index is built.
const WINDOW: usize = 8;

fn hash(text: &[u8]) -> u64 {
    static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::default);
    let mut hasher = STATE.build_hasher();
    hasher.write(text);
    hasher.finish()
}

impl Default for ScrapeCache {
    fn default() -> Self {
        Self::new()
    }
}

impl ScrapeCache {
    /// A memory of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            entries: Vec::new(),
            list: SeriesList::new([]),
            histograms: Vec::new(),
            duplicates: false,
            ended: false,
        }
    }

    /// Begins a page.
    #[must_use]
    pub fn begin(&mut self) -> CacheScrape<'_> {
        CacheScrape {
            cache: self,
            cursor: 0,
            order: None,
            added: Vec::new(),
            added_series: Vec::new(),
            index: None,
            last: usize::MAX,
            untracked: Vec::new(),
        }
    }

    /// The float series of the last page.
    #[must_use]
    pub fn list(&self) -> &Arc<SeriesList> {
        &self.list
    }

    /// Whether the last page had a text twice.
    #[must_use]
    pub fn has_duplicates(&self) -> bool {
        self.duplicates
    }

    /// All series of the last page, to mark their ends after a failed scrape or with the end of the target. Nothing is reported again
    /// until another page is read: neither by this nor as vanished.
    #[must_use]
    pub fn end_all(&mut self) -> Vec<Vanished> {
        if std::mem::replace(&mut self.ended, true) {
            return Vec::new();
        }
        self.entries.iter().filter_map(|&entry| self.vanished(entry)).collect()
    }

    /// Forgets which series the texts are, for when the rules that made them change.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// Bytes that it holds, without the series themselves.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
            + (self.list.len() + self.histograms.capacity()) * size_of::<Series>()
    }

    fn series(&self, place: Place) -> Option<&Series> {
        let slot = place.slot()?;
        if place.is_histogram() { self.histograms.get(slot) } else { self.list.get(slot) }
    }

    fn vanished(&self, entry: Entry) -> Option<Vanished> {
        Some(Vanished {
            series: self.series(entry.place)?.clone(),
            timestamped: entry.place.is_timestamped(),
            histogram: entry.place.is_histogram(),
        })
    }
}

impl CacheScrape<'_> {
    /// The length of the expected series text, if the input begins with it. [`accept`](Self::accept) then takes it.
    #[inline]
    pub fn expect(&self, input: &[u8]) -> Option<usize> {
        let entry = self.cache.entries.get(self.cursor)?;
        let length = entry.length as usize;
        let text = input.get(..length)?;
        (hash(text) == entry.hash && !entry.place.is_histogram()).then_some(length)
    }

    /// Takes the expected series, which [`expect`](Self::expect) confirmed.
    #[inline]
    pub fn accept(&mut self) -> Lookup {
        let at = self.cursor;
        self.take(at)
    }

    /// Looks a series text up.
    pub fn find(&mut self, text: &[u8], histogram: bool) -> Lookup {
        let hash = hash(text);
        let matches = |entry: &Entry| {
            entry.hash == hash
                && entry.length as usize == text.len()
                && entry.place.is_histogram() == histogram
        };
        let known = self.cache.entries.len();
        let ahead = self.cursor..(self.cursor + WINDOW).min(known);
        if let Some(at) = ahead.into_iter().find(|&at| matches(&self.cache.entries[at])) {
            return self.take(at);
        }
        let entries = &self.cache.entries;
        let index = self.index.get_or_insert_with(|| {
            let mut index = HashTable::with_capacity(entries.len());
            for (at, entry) in (0..).zip(entries) {
                index.insert_unique(entry.hash, at, |&at: &u32| entries[at as usize].hash);
            }
            index
        });
        let added = &self.added;
        let entry = |at: u32| entries.get(at as usize).unwrap_or_else(|| &added[at as usize - known]);
        match index.find(hash, |&at| matches(entry(at))) {
            Some(&at) => self.take(at as usize),
            None => Lookup::Unknown,
        }
    }

    /// Adds a series text that was not known; `None` for one that relabelling drops.
    pub fn insert(&mut self, text: &[u8], histogram: bool, series: Option<Series>) {
        let known = self.cache.entries.len();
        let at = known + self.added.len();
        let slot = series.is_some().then_some(self.added_series.len());
        self.added_series.extend(series);
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let hash = hash(text);
        self.added.push(Entry { hash, length, place: Place::new(slot, histogram) });
        if let (Some(index), Ok(at)) = (&mut self.index, u32::try_from(at)) {
            let (entries, added) = (&self.cache.entries, &self.added);
            index.insert_unique(hash, at, |&at| {
                let at = at as usize;
                entries.get(at).unwrap_or_else(|| &added[at - known]).hash
            });
        }
        self.take(at);
    }

    /// Notes whether the last sample carried a timestamp.
    #[inline]
    pub fn note_timestamp(&mut self, given: bool) {
        let known = self.cache.entries.len();
        let entries = if self.last < known { &mut self.cache.entries[..] } else { &mut self.added[..] };
        let at = if self.last < known { self.last } else { self.last.wrapping_sub(known) };
        let Some(entry) = entries.get_mut(at) else { return };
        if entry.place.is_timestamped() != given {
            entry.place.0 ^= Place::TIMESTAMPED;
            if given && self.last < known {
                self.untracked.push(self.last as u32);
            }
        }
    }

    /// The series of the last sample; `None` where relabelling drops it.
    #[must_use]
    pub fn last_series(&self) -> Option<&Series> {
        self.series_at(self.last)
    }

    /// Ends the page: what it has becomes the memory.
    #[must_use]
    pub fn finish(mut self) -> CacheUpdate {
        let same = self.order.is_none() && self.cursor == self.cache.entries.len();
        let ended = std::mem::take(&mut self.cache.ended);
        let mut vanished: Vec<Vanished> = Vec::new();
        if !ended {
            for &at in &self.untracked {
                let entry = self.cache.entries[at as usize];
                // It was marked just now; the samples whose end is told here carried none.
                vanished.extend(self.cache.vanished(entry).map(|v| Vanished { timestamped: false, ..v }));
            }
        }
        if same {
            return CacheUpdate { list: Arc::clone(&self.cache.list), vanished, added: 0 };
        }
        let order = self.order.take().unwrap_or_else(|| (0..self.cursor as u32).collect());
        let known = self.cache.entries.len();
        let mut seen = vec![false; known];
        let mut seen_texts = HashSet::new();
        let mut entries = Vec::with_capacity(order.len());
        let mut list = Vec::with_capacity(order.len());
        let mut histograms = Vec::new();
        let mut duplicates = false;
        let mut added_seen = vec![false; self.added.len()];
        for &at in &order {
            let at = at as usize;
            let mark = if at < known { &mut seen[at] } else { &mut added_seen[at - known] };
            duplicates |= std::mem::replace(mark, true);
            let entry = self.entry(at);
            let slot = self.series_at(at).map(|series| {
                let series_of_kind = if entry.place.is_histogram() { &mut histograms } else { &mut list };
                series_of_kind.push(series.clone());
                series_of_kind.len() - 1
            });
            if self.cache.duplicates {
                duplicates |= !seen_texts.insert((entry.hash, entry.length));
            }
            entries.push(Entry { place: entry.place.with_slot(slot), ..entry });
        }
        if !ended {
            for (entry, _) in self.cache.entries.iter().zip(&seen).filter(|(_, seen)| !**seen) {
                if !seen_texts.contains(&(entry.hash, entry.length)) {
                    vanished.extend(self.cache.vanished(*entry));
                }
            }
        }
        let added = self.added_series.len();
        let unchanged = list.len() == self.cache.list.len()
            && list.iter().zip(self.cache.list.iter()).all(|(new, old)| new.same(old));
        if !unchanged {
            self.cache.list = SeriesList::new(list);
        }
        self.cache.entries = entries;
        self.cache.histograms = histograms;
        self.cache.duplicates = duplicates;
        CacheUpdate { list: Arc::clone(&self.cache.list), vanished, added }
    }

    /// Makes an entry the next of the page.
    #[inline]
    fn take(&mut self, at: usize) -> Lookup {
        self.last = at;
        if self.order.is_none() && at == self.cursor {
            self.cursor += 1;
            return if self.cache.entries.get(at).is_some_and(|entry| entry.place.slot().is_some()) {
                Lookup::Kept
            } else if at < self.cache.entries.len() {
                Lookup::Dropped
            } else {
                // The first addition behind a page that was the same so far.
                self.cursor -= 1;
                self.diverge(at)
            };
        }
        self.diverge(at)
    }

    fn diverge(&mut self, at: usize) -> Lookup {
        let cursor = self.cursor as u32;
        self.order.get_or_insert_with(|| (0..cursor).collect()).push(at as u32);
        if at < self.cache.entries.len() {
            self.cursor = at + 1;
        }
        if self.entry(at).place.slot().is_some() { Lookup::Kept } else { Lookup::Dropped }
    }

    fn entry(&self, at: usize) -> Entry {
        let known = self.cache.entries.len();
        if at < known { self.cache.entries[at] } else { self.added[at - known] }
    }

    fn series_at(&self, at: usize) -> Option<&Series> {
        let known = self.cache.entries.len();
        if at < known {
            self.cache.series(self.cache.entries[at].place)
        } else {
            self.added_series.get(self.added.get(at - known)?.place.slot()?)
        }
    }
}

#[cfg(test)]
mod tests;
