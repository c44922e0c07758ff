//! What relabelling made of series: per series, bounded as the arguments say, and per list of series for as long as that list lives.
//!
//! A steady scrape sends the same list again and again, so the list's result is one look-up for all of its samples. Only a new list is
//! worked out series by series, and there the series that are known from before cost a look-up each.

use std::sync::{Arc, Weak};

use foldhash::HashMap;
use invar_blocks::RelabelRules;
use invar_telemetry::{LabelsBuilder, Series, SeriesList, Verdict, relabel, symbols};
use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

/// How many lists are remembered before those that died are looked for.
const FIRST_SWEEP: usize = 64;

/// What bounds the memory of single series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CacheLimit {
    /// The number of series, the least recently used of which give way.
    Size(usize),
    /// The time since a series was last used.
    Age(Duration),
}

/// The results of one set of rules.
#[derive(Debug)]
pub(super) struct RelabelCache {
    rules: RelabelRules,
    limit: CacheLimit,
    lists: Mutex<Lists>,
    series: Mutex<SeriesCache>,
}

/// What became of a list of series.
#[derive(Clone, Debug)]
pub(super) enum Mapping {
    /// It is unchanged.
    Same,
    /// Every series goes on, some under other labels.
    All(Arc<SeriesList>),
    /// Some are dropped: the rest with their places in the original, ascending.
    Some(Arc<SeriesList>, Arc<[u32]>),
}

/// How look-ups went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LookUps {
    pub(super) hits: u64,
    pub(super) misses: u64,
    /// Series forgotten for their age.
    pub(super) expired: u64,
}

#[derive(Debug, Default)]
struct Lists {
    known: HashMap<u64, (Weak<SeriesList>, Mapping)>,
    next_sweep: usize,
}

/// Two generations: what is used moves to the young one, and when that is full or its time is over it becomes the old one.
#[derive(Debug)]
struct SeriesCache {
    young: HashMap<Series, Option<Series>>,
    old: HashMap<Series, Option<Series>>,
    turned: Instant,
    labels: LabelsBuilder,
}

// === impl RelabelCache ===

impl RelabelCache {
    pub(super) fn new(rules: RelabelRules, limit: CacheLimit) -> Self {
        let series = SeriesCache {
            young: HashMap::default(),
            old: HashMap::default(),
            turned: Instant::now(),
            labels: LabelsBuilder::new(),
        };
        Self { rules, limit, lists: Mutex::default(), series: Mutex::new(series) }
    }

    pub(super) fn rules(&self) -> &RelabelRules {
        &self.rules
    }

    pub(super) fn limit(&self) -> CacheLimit {
        self.limit
    }

    /// How many series are remembered one by one.
    pub(super) fn len(&self) -> usize {
        let series = self.series.lock();
        series.young.len() + series.old.len()
    }

    /// How many lists are remembered.
    #[cfg(test)]
    pub(super) fn list_count(&self) -> usize {
        self.lists.lock().known.len()
    }

    /// What becomes of a list.
    pub(super) fn list(&self, list: &Arc<SeriesList>, look_ups: &mut LookUps) -> Mapping {
        if let Some((_, mapping)) = self.lists.lock().known.get(&list.id()) {
            look_ups.hits += list.len() as u64;
            return mapping.clone();
        }
        let mapping = self.work_out(list, look_ups);
        let mut lists = self.lists.lock();
        if lists.known.len() >= lists.next_sweep.max(FIRST_SWEEP) {
            lists.known.retain(|_, (list, _)| list.strong_count() > 0);
            lists.next_sweep = 2 * lists.known.len();
        }
        lists.known.insert(list.id(), (Arc::downgrade(list), mapping.clone()));
        mapping
    }

    /// What becomes of one series; none where it is dropped.
    pub(super) fn series(&self, series: &Series, look_ups: &mut LookUps) -> Option<Series> {
        self.series.lock().get(series, &self.rules, self.limit, look_ups)
    }

    /// Forgets a series that has ended.
    pub(super) fn forget(&self, series: &Series) {
        let mut cache = self.series.lock();
        cache.young.remove(series);
        cache.old.remove(series);
    }

    fn work_out(&self, list: &SeriesList, look_ups: &mut LookUps) -> Mapping {
        let mut results = Vec::with_capacity(list.len());
        let mut places = Vec::with_capacity(list.len());
        let mut same = true;
        {
            let mut cache = self.series.lock();
            for (place, series) in (0_u32..).zip(list.iter()) {
                let result = cache.get(series, &self.rules, self.limit, look_ups);
                same &= result.as_ref().is_some_and(|result| result.same(series));
                if let Some(result) = result {
                    results.push(result);
                    places.push(place);
                }
            }
        }
        if same {
            Mapping::Same
        } else if results.len() == list.len() {
            Mapping::All(SeriesList::new(results))
        } else {
            Mapping::Some(SeriesList::new(results), places.into())
        }
    }
}

// === impl SeriesCache ===

impl SeriesCache {
    fn get(
        &mut self,
        series: &Series,
        rules: &RelabelRules,
        limit: CacheLimit,
        look_ups: &mut LookUps,
    ) -> Option<Series> {
        if let CacheLimit::Age(age) = limit {
            self.expire(age, look_ups);
        }
        if let Some(known) = self.young.get(series) {
            look_ups.hits += 1;
            return known.clone();
        }
        let result = match self.old.remove(series) {
            Some(known) => {
                look_ups.hits += 1;
                known
            }
            None => {
                look_ups.misses += 1;
                self.relabel(series, rules)
            }
        };
        if let CacheLimit::Size(size) = limit
            && self.young.len() >= (size / 2).max(1)
        {
            self.old = std::mem::take(&mut self.young);
            if size == 1 {
                self.old.clear();
            }
        }
        self.young.insert(series.clone(), result.clone());
        result
    }

    /// Forgets what was not used for at least `age` and at most twice that.
    fn expire(&mut self, age: Duration, look_ups: &mut LookUps) {
        let since = self.turned.elapsed();
        if since < age {
            return;
        }
        self.turned = Instant::now();
        let young = std::mem::take(&mut self.young);
        let old = std::mem::replace(&mut self.old, young);
        look_ups.expired += old.len() as u64;
        if since >= 2 * age {
            look_ups.expired += self.old.len() as u64;
            self.old.clear();
        }
    }

    fn relabel(&mut self, series: &Series, rules: &RelabelRules) -> Option<Series> {
        self.labels.clear();
        {
            // Closed before a series is created, which may write to the table.
            let reader = symbols();
            for (name, value) in series.labels(&reader) {
                self.labels.set(name, value);
            }
        }
        if relabel(&rules.0, &mut self.labels) == Verdict::Drop || self.labels.is_empty() {
            return None;
        }
        let result = self.labels.series();
        // Equal series are shared, so that whoever is next need not compare labels.
        Some(if result == *series { series.clone() } else { result })
    }
}
