//! The side of a log that writes: turns batches into records, with what has to be remembered to keep them small (which
//! series and lists the segment has defined), and begins and ends segments. A list of series that comes again is defined
//! once per segment, and then a batch of it is `{list, timestamp, values}`.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use invar_telemetry::remote_write::message;
use invar_telemetry::{MetricBatch, MetricMetadata, SeriesList, Timestamps, symbols};

use super::{Appended, LogOptions};
use crate::wal::frame::{self, FILE_HEADER, Kind};
use crate::wal::record::{self, Sample, SeriesDefinitions};
use crate::wal::series_table::SeriesTable;

/// Which samples an append takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Only those newer than what the log has of their series.
    Newer,
    /// All.
    Any,
}

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) options: LogOptions,
    pub(super) file: Option<Arc<File>>,
    /// The segment being written, or to be begun by the next append.
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) segments: BTreeMap<u64, Segment>,
    pub(super) total: u64,
    pub(super) series: SeriesTable,
    /// Series in use when the segment began; bounds how many one segment may define.
    expected_series: usize,
    lists: HashMap<u64, ListState, foldhash::fast::RandomState>,
    next_list: u32,
    lists_before_sweep: usize,
    families: HashMap<String, (Arc<MetricMetadata>, u64)>,
    last_exemplars: HashMap<u32, u64, foldhash::fast::RandomState>,
    definitions: SeriesDefinitions,
    pub(super) buffer: Vec<u8>,
    scratch: Vec<u8>,
    samples: Vec<Sample>,
    undo: Vec<(u32, i64)>,
    pub(super) unsynced: Vec<Arc<File>>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) bytes: u64,
    /// Samples in it; of the segments of an earlier process an estimate.
    pub(super) samples: u64,
    pub(super) written: SystemTime,
}

#[derive(Debug)]
struct ListState {
    list: Weak<SeriesList>,
    members: Box<[u32]>,
    /// No series occurs twice, so that a whole column may be checked and taken at once.
    distinct: bool,
    /// The segment that last used it, and its number there once defined.
    segment: u64,
    number: Option<u32>,
}

// === impl Writer ===

impl Writer {
    /// A writer behind `segments`; the first append begins the one after them.
    pub(super) fn new(options: LogOptions, segments: BTreeMap<u64, Segment>) -> Self {
        Self {
            options,
            file: None,
            segment: segments.last_key_value().map_or(1, |(number, _)| number + 1),
            offset: 0,
            total: segments.values().map(|segment| segment.bytes).sum(),
            segments,
            series: SeriesTable::default(),
            expected_series: 0,
            lists: HashMap::default(),
            next_list: 0,
            lists_before_sweep: 1024,
            families: HashMap::new(),
            last_exemplars: HashMap::default(),
            definitions: SeriesDefinitions::default(),
            buffer: Vec::new(),
            scratch: Vec::new(),
            samples: Vec::new(),
            undo: Vec::new(),
            unsynced: Vec::new(),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        // A segment that defines far more series than are in use is the log of an explosion: keep it small to load.
        self.file.is_some()
            && (self.offset >= self.options.segment
                || self.series.defined_count() > 2 * self.expected_series + 500_000)
    }

    /// Ends the segment. The next append begins another.
    pub(super) fn roll(&mut self) {
        let closed = self.segment;
        self.lists.retain(|_, state| state.segment >= closed && state.list.strong_count() > 0);
        self.lists.values_mut().for_each(|state| state.number = None);
        self.families.retain(|_, (_, segment)| *segment >= closed);
        self.series.roll();
        self.last_exemplars.clear();
        self.expected_series = self.series.len();
        self.file = None;
        self.segment += 1;
        self.offset = 0;
        self.next_list = 0;
    }

    pub(super) fn begin(&mut self, directory: &Path) -> io::Result<Arc<File>> {
        let path = frame::segment_path(directory, self.segment);
        let file = File::options().create(true).write(true).truncate(true).open(path)?;
        (&file).write_all(&FILE_HEADER)?;
        // The name has to survive a power loss as well as the content.
        File::open(directory)?.sync_all()?;
        let file = Arc::new(file);
        self.file = Some(file.clone());
        self.offset = FILE_HEADER.len() as u64;
        self.total += self.offset;
        self.segments
            .insert(self.segment, Segment { bytes: self.offset, samples: 0, written: SystemTime::now() });
        Ok(file)
    }

    /// Writes the batch's records into the buffer and notes what to undo.
    pub(super) fn build(&mut self, batch: &MetricBatch, order: Order) -> (Appended, usize) {
        self.buffer.clear();
        self.samples.clear();
        self.undo.clear();
        let mut appended = Appended::default();
        self.build_metadata(batch);
        self.build_samples(batch, order, &mut appended);
        self.build_histograms(batch, order, &mut appended);
        let exemplars = self.build_exemplars(batch);
        (appended, exemplars)
    }

    fn build_samples(&mut self, batch: &MetricBatch, order: Order, appended: &mut Appended) {
        if batch.values.is_empty() {
            return;
        }
        let id = batch.series.id();
        let known = self.lists.contains_key(&id);
        let mut state = match self.lists.remove(&id) {
            Some(state) => state,
            None => self.list_state(&batch.series),
        };
        state.segment = self.segment;
        self.define_members(&state.members);
        if !batch.created.is_empty() {
            let start = frame::open(&mut self.buffer, Kind::Created);
            for &(index, created) in &batch.created {
                if let Some(member) = state.members.get(index as usize) {
                    record::put_created(&mut self.buffer, *member, created);
                }
            }
            frame::close(&mut self.buffer, start);
        }
        let column = match (&batch.timestamps, order) {
            (Timestamps::One(timestamp), Order::Newer)
                if known
                    && state.distinct
                    && state.members.len() <= frame::MAX_PAYLOAD / 16
                    && self.series.all_older(&state.members, *timestamp) =>
            {
                Some(*timestamp)
            }
            _ => None,
        };
        if let Some(timestamp) = column {
            let number = match state.number {
                Some(number) => number,
                None => {
                    let number = self.next_list;
                    self.next_list += 1;
                    record::put_list(&mut self.buffer, number, &state.members);
                    state.number = Some(number);
                    number
                }
            };
            record::put_column(&mut self.buffer, number, timestamp, &batch.values);
            appended.samples += batch.values.len();
        } else {
            for (index, (&member, &value)) in state.members.iter().zip(&batch.values).enumerate() {
                let timestamp = batch.timestamps.get(index);
                if self.take(member, timestamp, order) {
                    self.samples.push(Sample { series: member, timestamp, value });
                } else {
                    appended.out_of_order += 1;
                }
            }
            appended.samples += self.samples.len();
            record::put_samples(&mut self.buffer, &self.samples);
        }
        self.lists.insert(id, state);
        if self.lists.len() > self.lists_before_sweep {
            self.lists.retain(|_, state| state.list.strong_count() > 0);
            self.lists_before_sweep = (self.lists.len() * 2).max(1024);
        }
    }

    fn list_state(&mut self, list: &Arc<SeriesList>) -> ListState {
        let members: Box<[u32]> = list.iter().map(|series| self.series.reference(series)).collect();
        let mut sorted = members.clone();
        sorted.sort_unstable();
        let distinct = sorted.windows(2).all(|pair| pair[0] != pair[1]);
        ListState { list: Arc::downgrade(list), members, distinct, segment: self.segment, number: None }
    }

    /// Writes the definitions that the current segment lacks.
    fn define_members(&mut self, members: &[u32]) {
        let reader = symbols();
        let Self { series, definitions, buffer, .. } = self;
        for &member in members {
            if series.define(member)
                && let Some(series) = series.get(member)
            {
                definitions.add(buffer, &reader, member, series);
            }
        }
        definitions.flush(buffer);
    }

    /// Whether a sample of this time may be taken; notes it if so.
    fn take(&mut self, series: u32, timestamp: i64, order: Order) -> bool {
        let newest = self.series.newest(series);
        if timestamp > newest {
            self.undo.push((series, newest));
            self.series.set_newest(series, timestamp);
            return true;
        }
        order == Order::Any
    }

    fn build_histograms(&mut self, batch: &MetricBatch, order: Order, appended: &mut Appended) {
        for chunk in batch.histograms.chunks(4096) {
            let references: Vec<u32> =
                chunk.iter().map(|sample| self.series.reference(&sample.series)).collect();
            self.define_members(&references);
            let start = frame::open(&mut self.buffer, Kind::Histograms);
            let empty = self.buffer.len();
            for (sample, reference) in chunk.iter().zip(references) {
                if !self.take(reference, sample.timestamp, order) {
                    appended.out_of_order += 1;
                    continue;
                }
                appended.samples += 1;
                self.scratch.clear();
                message::put_histogram(&mut self.scratch, &sample.histogram, sample.timestamp);
                record::put_histogram(
                    &mut self.buffer,
                    reference,
                    sample.timestamp,
                    sample.created,
                    &self.scratch,
                );
            }
            self.close_unless_empty(start, empty);
        }
    }

    fn build_exemplars(&mut self, batch: &MetricBatch) -> usize {
        if batch.exemplars.is_empty() {
            return 0;
        }
        let references: Vec<u32> =
            batch.exemplars.iter().map(|sample| self.series.reference(&sample.series)).collect();
        self.define_members(&references);
        let start = frame::open(&mut self.buffer, Kind::Exemplars);
        let empty = self.buffer.len();
        let mut count = 0;
        for (sample, reference) in batch.exemplars.iter().zip(references) {
            self.scratch.clear();
            message::put_exemplar(&mut self.scratch, &sample.exemplar);
            // A target exposes the same exemplar until another takes its place.
            let hash = xxhash_rust::xxh64::xxh64(&self.scratch, 0);
            if self.last_exemplars.insert(reference, hash) != Some(hash) {
                record::put_exemplar(&mut self.buffer, reference, &self.scratch);
                count += 1;
            }
        }
        self.close_unless_empty(start, empty);
        count
    }

    fn build_metadata(&mut self, batch: &MetricBatch) {
        for metadata in &batch.metadata {
            let current = self.segment;
            let known = self.families.get_mut(&metadata.family);
            if let Some((known, segment)) = known {
                if *segment == current && (Arc::ptr_eq(known, metadata) || known == metadata) {
                    continue;
                }
                (*known, *segment) = (metadata.clone(), current);
            } else if self.families.len() < 1 << 20 {
                self.families.insert(metadata.family.clone(), (metadata.clone(), current));
            } else {
                continue;
            }
            let start = frame::open(&mut self.buffer, Kind::Metadata);
            message::put_metadata(&mut self.buffer, metadata);
            frame::close(&mut self.buffer, start);
        }
    }

    fn close_unless_empty(&mut self, start: usize, empty: usize) {
        if self.buffer.len() == empty {
            self.buffer.truncate(start);
        } else {
            frame::close(&mut self.buffer, start);
        }
    }

    /// The buffer is in the log.
    pub(super) fn accept(&mut self, batch: &MetricBatch) {
        // Columns were checked as a whole and are noted as a whole.
        if let (Timestamps::One(timestamp), true) = (&batch.timestamps, self.samples.is_empty())
            && let Some(state) = self.lists.get(&batch.series.id())
            && state.number.is_some()
            && self.series.all_older(&state.members, *timestamp)
        {
            self.series.set_all_newest(&state.members, *timestamp);
        }
        if self.buffer.capacity() > 8 << 20 {
            self.buffer = Vec::new();
        }
    }

    /// The buffer did not reach the log: what it defined is unknown there, and a part of it may be in the file.
    pub(super) fn abandon(&mut self) {
        while let Some((series, newest)) = self.undo.pop() {
            self.series.set_newest(series, newest);
        }
        if let Some(file) = self.file.take()
            && file.set_len(self.offset).is_err()
        {
            tracing::warn!("cannot cut a failed append off the write-ahead log; readers stop at it");
        }
        if self.segments.contains_key(&self.segment) {
            self.segment += 1;
            self.offset = 0;
        }
        self.next_list = 0;
        self.series.redefine();
        self.lists.values_mut().for_each(|state| state.number = None);
        self.families.clear();
        self.last_exemplars.clear();
    }
}
