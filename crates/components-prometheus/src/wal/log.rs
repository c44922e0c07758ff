//! The log of one node: appends batches to segments, groups their fsyncs, and deletes what nobody needs any more.
//!
//! Appending is a memory copy and one `write`: [`writer`] makes the records, [`retention`] decides what goes.

mod retention;
mod writer;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use invar_telemetry::{MetricBatch, Series, symbols};
use parking_lot::Mutex;
use tokio::sync::watch;

use self::writer::{Order, Segment, Writer};
use super::frame;
use super::position::Position;

/// What a sample takes in a column, its timestamp and its labels being shared.
const BYTES_PER_SAMPLE: u64 = 8;

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
        let writer = Writer::new(options, segments);
        let segment = writer.segment;
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
