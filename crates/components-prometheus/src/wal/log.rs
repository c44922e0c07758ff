//! The log of one node: appends batches to segments, groups their fsyncs, and deletes what nobody needs any more.
//!
//! Appending is a memory copy and one `write`. A list of series that comes again is defined once per segment, and then a
//! batch of it is `{list, timestamp, values}`.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use invar_telemetry::remote_write::message;
use invar_telemetry::{MetricBatch, MetricMetadata, Series, SeriesList, Timestamps, symbols};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::frame::{self, FILE_HEADER, Kind};
use super::position::Position;
use super::record::{self, Sample, SeriesDefinitions};
use super::series_table::SeriesTable;

/// What a sample takes in a column, its timestamp and its labels being shared.
const BYTES_PER_SAMPLE: u64 = 8;
/// How many deleted segments are remembered for the readers that missed them.
const LOST_SEGMENTS: usize = 4096;

/// Sizes of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// How many bytes the segments may take together.
    pub limit: u64,
    /// When a segment is full, bytes.
    pub segment: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self::with_limit(2 << 30)
    }
}

impl LogOptions {
    /// The options for a log of at most `limit` bytes.
    pub fn with_limit(limit: u64) -> Self {
        Self { limit, segment: (limit / 8).clamp(64 << 10, 64 << 20) }
    }
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Appended {
    /// Float samples and histograms that the log took.
    pub samples: usize,
    /// Those that it refused, being no newer than what it has of their series.
    pub out_of_order: usize,
}

/// Why a batch was not appended. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The log is at its limit and every endpoint lags behind.
    #[error("the write-ahead log is full and no endpoint keeps up")]
    Full,
    /// Writing failed.
    #[error("writing the write-ahead log: {0}")]
    Io(#[from] io::Error),
}

/// Who needs the log from where: a leg. The log deletes only below the lowest.
type Holder = u64;

/// A node's log. Shared by its writer side (the component) and its readers (the legs).
#[derive(Debug)]
pub struct Log {
    directory: PathBuf,
    writer: Mutex<Writer>,
    holders: Mutex<BTreeMap<Holder, Position>>,
    end: watch::Sender<Position>,
    /// Segments that were deleted although somebody still needed them: how many bytes and samples they had.
    lost: Mutex<BTreeMap<u64, Lost>>,
    counters: LogCounters,
}

/// What a segment held that was deleted too early.
#[derive(Debug, Clone, Copy)]
struct Lost {
    bytes: u64,
    samples: u64,
}

/// What the log counts; totals since the process began.
#[derive(Debug, Default)]
pub struct LogCounters {
    /// Samples appended.
    pub samples: AtomicU64,
    /// Exemplars appended.
    pub exemplars: AtomicU64,
    /// Samples refused as out of order.
    pub out_of_order: AtomicU64,
    /// Bytes that were deleted although a leg still needed them.
    pub forced_bytes: AtomicU64,
    /// Samples in them; of what an earlier process wrote an estimate.
    pub forced_samples: AtomicU64,
    /// Frames or tails of segments that could not be read.
    pub damaged: AtomicU64,
    /// Appends that failed on I/O.
    pub failed: AtomicU64,
}

#[derive(Debug)]
struct Writer {
    options: LogOptions,
    file: Option<Arc<File>>,
    /// The segment being written, or to be begun by the next append.
    segment: u64,
    offset: u64,
    segments: BTreeMap<u64, Segment>,
    total: u64,
    series: SeriesTable,
    /// Series in use when the segment began; bounds how many one segment may define.
    expected_series: usize,
    lists: HashMap<u64, ListState, foldhash::fast::RandomState>,
    next_list: u32,
    lists_before_sweep: usize,
    families: HashMap<String, (Arc<MetricMetadata>, u64)>,
    last_exemplars: HashMap<u32, u64, foldhash::fast::RandomState>,
    definitions: SeriesDefinitions,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
    samples: Vec<Sample>,
    undo: Vec<(u32, i64)>,
    unsynced: Vec<Arc<File>>,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    bytes: u64,
    /// Samples in it; of the segments of an earlier process an estimate.
    samples: u64,
    written: SystemTime,
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

// === impl Log ===

impl Log {
    /// Opens the log in `directory`, creating it if need be. What is there is kept; a new segment is begun by the first
    /// append, so that a torn tail of an earlier process is never written over.
    ///
    /// # Errors
    /// When the directory cannot be made or listed.
    pub fn open(directory: &Path, options: LogOptions) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let mut segments = BTreeMap::new();
        for number in frame::list_segments(directory)? {
            let metadata = std::fs::metadata(frame::segment_path(directory, number))?;
            let written = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            segments.insert(
                number,
                Segment { bytes: metadata.len(), samples: metadata.len() / BYTES_PER_SAMPLE, written },
            );
        }
        let segment = segments.last_key_value().map_or(1, |(number, _)| number + 1);
        let total = segments.values().map(|segment| segment.bytes).sum();
        let writer = Writer {
            options,
            file: None,
            segment,
            offset: 0,
            segments,
            total,
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
        };
        Ok(Self {
            directory: directory.to_owned(),
            writer: Mutex::new(writer),
            holders: Mutex::default(),
            end: watch::Sender::new(Position::start_of(segment)),
            lost: Mutex::default(),
            counters: LogCounters::default(),
        })
    }

    /// Where the log's files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the next record will go.
    pub fn end(&self) -> Position {
        *self.end.borrow()
    }

    /// Tells when the end moves.
    pub fn watch_end(&self) -> watch::Receiver<Position> {
        self.end.subscribe()
    }

    /// What the log counted.
    pub fn counters(&self) -> &LogCounters {
        &self.counters
    }

    /// Bytes that the segments take.
    pub fn bytes(&self) -> u64 {
        self.writer.lock().total
    }

    /// How many series the writer remembers.
    pub fn series(&self) -> usize {
        self.writer.lock().series.len()
    }

    /// Changes the sizes; a smaller limit takes effect as segments are deleted.
    pub fn set_options(&self, options: LogOptions) {
        self.writer.lock().options = options;
    }

    /// Appends a batch; all of it or, on an error, nothing. Samples no newer than what the log has of their series are
    /// refused one by one, and counted.
    ///
    /// # Errors
    /// [`AppendError::Full`] when the caller should try again later, or an I/O error.
    pub fn append(&self, batch: &MetricBatch) -> Result<Appended, AppendError> {
        self.append_with(batch, Order::Newer)
    }

    /// Appends a batch whatever the age of its samples: for what another log could not deliver.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn append_overdue(&self, batch: &MetricBatch) -> Result<Appended, AppendError> {
        self.append_with(batch, Order::Any)
    }

    fn append_with(&self, batch: &MetricBatch, order: Order) -> Result<Appended, AppendError> {
        let mut writer = self.writer.lock();
        if writer.is_full() {
            writer.roll();
        }
        let (appended, exemplars) = writer.build(batch, order);
        let result = self.write(&mut writer, appended.samples as u64);
        if let Err(error) = result {
            writer.abandon();
            if matches!(error, AppendError::Io(_)) {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
            }
            return Err(error);
        }
        writer.accept(batch);
        self.end.send_replace(Position { segment: writer.segment, offset: writer.offset });
        self.counters.samples.fetch_add(appended.samples as u64, Ordering::Relaxed);
        self.counters.exemplars.fetch_add(exemplars as u64, Ordering::Relaxed);
        self.counters.out_of_order.fetch_add(appended.out_of_order as u64, Ordering::Relaxed);
        Ok(appended)
    }

    fn write(&self, writer: &mut Writer, samples: u64) -> Result<(), AppendError> {
        let length = writer.buffer.len() as u64;
        if length == 0 {
            return Ok(());
        }
        if writer.total + length > writer.options.limit && !self.make_room(writer, length) {
            return Err(AppendError::Full);
        }
        let file = match &writer.file {
            Some(file) => file.clone(),
            None => writer.begin(&self.directory)?,
        };
        (&*file).write_all(&writer.buffer)?;
        writer.offset += length;
        writer.total += length;
        if let Some(segment) = writer.segments.get_mut(&writer.segment) {
            segment.bytes += length;
            segment.samples += samples;
            segment.written = SystemTime::now();
        }
        if !writer.unsynced.iter().any(|unsynced| Arc::ptr_eq(unsynced, &file)) {
            writer.unsynced.push(file);
        }
        Ok(())
    }

    /// Frees space for `length` bytes: first what everybody has read, then, while at least one leg keeps up, the oldest
    /// segment under the laggards. Files are deleted while nobody waits for the holders: a verdict moves them.
    fn make_room(&self, writer: &mut Writer, length: u64) -> bool {
        loop {
            let lowest = self.holders.lock().values().min().copied();
            self.delete_below(writer, lowest.map_or(writer.segment, |position| position.segment));
            if writer.total + length <= writer.options.limit {
                return true;
            }
            let Some((&oldest, segment)) = writer.segments.first_key_value() else { return false };
            {
                let mut holders = self.holders.lock();
                if oldest >= writer.segment || holders.values().all(|position| position.segment <= oldest) {
                    return false;
                }
                let floor = Position::start_of(oldest + 1);
                let behind = holders.values_mut().filter(|position| **position < floor);
                behind.for_each(|position| *position = floor);
            }
            self.lose(oldest, segment);
        }
    }

    fn lose(&self, number: u64, segment: &Segment) {
        self.counters.forced_bytes.fetch_add(segment.bytes, Ordering::Relaxed);
        self.counters.forced_samples.fetch_add(segment.samples, Ordering::Relaxed);
        let mut lost = self.lost.lock();
        lost.insert(number, Lost { bytes: segment.bytes, samples: segment.samples });
        if lost.len() > LOST_SEGMENTS {
            lost.pop_first();
        }
    }

    /// How many samples at or after `position` are gone because they had to be deleted.
    pub(super) fn lost_since(&self, position: Position) -> (u64, Option<u64>) {
        let lost = self.lost.lock();
        let mut samples = 0;
        for (number, segment) in lost.range(position.segment..) {
            samples += if *number == position.segment && segment.bytes > 0 {
                let rest = segment.bytes.saturating_sub(position.offset);
                (u128::from(segment.samples) * u128::from(rest) / u128::from(segment.bytes)) as u64
            } else {
                segment.samples
            };
        }
        (samples, lost.range(position.segment..).next_back().map(|(number, _)| *number))
    }

    /// Deletes everything: what the log held has found another place.
    pub fn clear(&self) {
        let mut writer = self.writer.lock();
        if writer.file.is_some() {
            writer.roll();
        }
        let segment = writer.segment;
        self.delete_below(&mut writer, segment);
        self.end.send_replace(Position::start_of(segment));
    }

    fn delete_below(&self, writer: &mut Writer, segment: u64) {
        let segment = segment.min(writer.segment);
        while let Some((&number, &Segment { bytes, .. })) = writer.segments.first_key_value() {
            if number >= segment {
                break;
            }
            let path = frame::segment_path(&self.directory, number);
            if let Err(error) = std::fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "cannot delete a segment of the write-ahead log");
                break;
            }
            writer.segments.remove(&number);
            writer.total -= bytes;
        }
    }

    /// Deletes the segments that every holder has passed, except those written within `keep` (unless the log is more than
    /// half full), and those older than `expire`, needed or not. Returns the bytes of the latter that were still needed.
    pub fn truncate(&self, keep: Duration, expire: Duration, now: SystemTime) -> u64 {
        let mut writer = self.writer.lock();
        let pressed = writer.total > writer.options.limit / 2;
        let mut target = 0;
        let mut forced = 0;
        {
            let mut holders = self.holders.lock();
            let lowest = holders.values().min().map_or(writer.segment, |position| position.segment);
            for (&number, segment) in &writer.segments {
                let age = now.duration_since(segment.written).unwrap_or_default();
                let passed = number < lowest && (pressed || age >= keep);
                if number >= writer.segment || !(passed || age >= expire) {
                    break;
                }
                if number >= lowest {
                    forced += segment.bytes;
                    self.lose(number, segment);
                }
                target = number + 1;
            }
            if forced > 0 {
                let floor = Position::start_of(target);
                let behind = holders.values_mut().filter(|position| **position < floor);
                behind.for_each(|position| *position = floor);
            }
        }
        self.delete_below(&mut writer, target);
        forced
    }

    /// Registers or moves a holder. A position is never moved below the oldest segment.
    pub fn hold(&self, holder: u64, position: Position) {
        self.holders.lock().insert(holder, position);
    }

    /// Replaces all holders.
    pub fn hold_only(&self, holders: impl Iterator<Item = (u64, Position)>) {
        *self.holders.lock() = holders.collect();
    }

    /// The first position that can still be read.
    pub fn oldest(&self) -> Position {
        let writer = self.writer.lock();
        Position::start_of(writer.segments.first_key_value().map_or(writer.segment, |(number, _)| *number))
    }

    /// Bytes between `from` and `to`.
    pub fn bytes_between(&self, from: Position, to: Position) -> u64 {
        let writer = self.writer.lock();
        let mut bytes = 0;
        for (&number, segment) in writer.segments.range(from.segment..=to.segment.max(from.segment)) {
            let start = if number == from.segment { from.offset } else { 0 };
            let end = if number == to.segment { to.offset } else { segment.bytes };
            bytes += end.saturating_sub(start);
        }
        bytes
    }

    /// The first segment at or after `number` that exists.
    pub(super) fn segment_at_or_after(&self, number: u64) -> Option<u64> {
        self.writer.lock().segments.range(number..).next().map(|(number, _)| *number)
    }

    /// Makes everything appended so far durable. Blocks on the disk.
    ///
    /// # Errors
    /// When the disk refuses; the data stays marked as not durable.
    pub fn sync(&self) -> io::Result<()> {
        let files = std::mem::take(&mut self.writer.lock().unsynced);
        for (index, file) in files.iter().enumerate() {
            if let Err(error) = file.sync_data() {
                self.writer.lock().unsynced.extend(files[index..].iter().cloned());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether something was appended since the last [`Log::sync`].
    pub fn is_dirty(&self) -> bool {
        !self.writer.lock().unsynced.is_empty()
    }

    /// The writer's own handle of a series that a record defines, so that readers share it; `None` if it has another there.
    pub(super) fn shared_series(&self, definitions: &mut [Definition]) {
        let writer = self.writer.lock();
        let reader = symbols();
        for (reference, labels, series) in definitions {
            let known = writer.series.get(*reference).filter(|known| {
                known.len() == labels.len()
                    && known
                        .labels(&reader)
                        .zip(&*labels)
                        .all(|((n, v), (name, value))| n == name && v == value)
            });
            *series = known.cloned();
        }
    }
}

/// A definition that a reader found: reference, labels, and the writer's own handle where it has one.
pub(super) type Definition = (u32, Vec<(String, String)>, Option<Series>);

/// Which samples an append takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Only those newer than what the log has of their series.
    Newer,
    /// All.
    Any,
}

// === impl Writer ===

impl Writer {
    fn is_full(&self) -> bool {
        // A segment that defines far more series than are in use is the log of an explosion: keep it small to load.
        self.file.is_some()
            && (self.offset >= self.options.segment
                || self.series.defined_count() > 2 * self.expected_series + 500_000)
    }

    /// Ends the segment. The next append begins another.
    fn roll(&mut self) {
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

    fn begin(&mut self, directory: &Path) -> io::Result<Arc<File>> {
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
    fn build(&mut self, batch: &MetricBatch, order: Order) -> (Appended, usize) {
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
    fn accept(&mut self, batch: &MetricBatch) {
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
    fn abandon(&mut self) {
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
