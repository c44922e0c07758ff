//! What a log remembers per series: its reference, whether the current segment has defined it, and the newest
//! timestamp it took. About 25 bytes a series beside the labels, which are shared with the rest of the process.

use hashbrown::HashTable;
use invar_telemetry::Series;

/// Series by reference. References are stable until [`SeriesTable::roll`] gives up those that fell out of use.
#[derive(Debug, Default)]
pub(super) struct SeriesTable {
    series: Vec<Option<Series>>,
    newest: Vec<i64>,
    defined: Vec<bool>,
    free: Vec<u32>,
    index: HashTable<u32>,
    defined_count: usize,
}

impl SeriesTable {
    /// The reference of `series`, new ones included.
    pub(super) fn reference(&mut self, series: &Series) -> u32 {
        let Self { series: table, index, .. } = self;
        let found = index.find(series.hash(), |at| table[*at as usize].as_ref() == Some(series));
        if let Some(reference) = found {
            return *reference;
        }
        let reference = match self.free.pop() {
            Some(reference) => reference,
            None => {
                self.series.push(None);
                self.newest.push(i64::MIN);
                self.defined.push(false);
                (self.series.len() - 1) as u32
            }
        };
        self.series[reference as usize] = Some(series.clone());
        self.newest[reference as usize] = i64::MIN;
        let Self { series: table, index, .. } = self;
        index.insert_unique(series.hash(), reference, |at| {
            table[*at as usize].as_ref().map_or(0, Series::hash)
        });
        reference
    }

    pub(super) fn get(&self, reference: u32) -> Option<&Series> {
        self.series.get(reference as usize)?.as_ref()
    }

    pub(super) fn newest(&self, reference: u32) -> i64 {
        self.newest[reference as usize]
    }

    pub(super) fn set_newest(&mut self, reference: u32, timestamp: i64) {
        self.newest[reference as usize] = timestamp;
    }

    /// Whether `timestamp` is newer than anything these series took.
    pub(super) fn all_older(&self, members: &[u32], timestamp: i64) -> bool {
        members.iter().all(|member| self.newest[*member as usize] < timestamp)
    }

    pub(super) fn set_all_newest(&mut self, members: &[u32], timestamp: i64) {
        members.iter().for_each(|member| self.newest[*member as usize] = timestamp);
    }

    /// Marks a series as defined in the current segment; `true` if it was not.
    pub(super) fn define(&mut self, reference: u32) -> bool {
        let new = !std::mem::replace(&mut self.defined[reference as usize], true);
        self.defined_count += usize::from(new);
        new
    }

    /// How many series the current segment has defined.
    pub(super) fn defined_count(&self) -> usize {
        self.defined_count
    }

    /// How many series there are.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Begins another segment: nothing is defined in it, and series that the last one did not use are forgotten.
    pub(super) fn roll(&mut self) {
        for reference in 0..self.series.len() {
            if !std::mem::replace(&mut self.defined[reference], false)
                && let Some(series) = self.series[reference].take()
            {
                if let Ok(entry) = self.index.find_entry(series.hash(), |at| *at as usize == reference) {
                    entry.remove();
                }
                self.free.push(reference as u32);
            }
        }
        self.defined_count = 0;
        if self.index.len() * 4 < self.index.capacity() {
            let Self { series: table, index, .. } = self;
            index.shrink_to_fit(|at| table[*at as usize].as_ref().map_or(0, Series::hash));
        }
    }

    /// Begins another segment without forgetting anything: the last one failed to take what was defined.
    pub(super) fn redefine(&mut self) {
        self.defined.fill(false);
        self.defined_count = 0;
    }
}
