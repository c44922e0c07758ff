//! Reads a log back, record by record, from any position: what a leg sends comes from here, so nothing is kept in memory
//! twice.
//!
//! A reader that enters a segment in its middle first looks at what the records behind its position name, and loads only
//! those definitions; an explosion of series that was sent already is not loaded again.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use invar_telemetry::remote_write::message;
use invar_telemetry::{MetricMetadata, Series};

use super::frame::{self, FILE_HEADER, Kind, Parsed};
use super::log::Log;
use super::position::Position;
use super::record::{self, Column, HistogramRecord, RecordError, Sample};

/// How much is read from the file at once.
const READ_AHEAD: usize = 256 << 10;

/// What a record carries for those who send.
#[derive(Debug)]
pub enum Content<'a> {
    /// Values for a list of series.
    Column(Column<'a>, &'a [u32]),
    /// Samples one by one.
    Samples(&'a [u8]),
    /// Native histograms.
    Histograms(&'a [u8]),
    /// Exemplars.
    Exemplars(&'a [u8]),
    /// Metadata of a family.
    Metadata(Arc<MetricMetadata>),
}

/// A record and what it takes to understand it.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Where the record begins.
    pub position: Position,
    /// What it carries.
    pub content: Content<'a>,
    /// The series and families of its segment.
    pub definitions: &'a Definitions,
}

/// What the records of one segment refer to.
#[derive(Debug, Default)]
pub struct Definitions {
    series: Vec<Option<Series>>,
    lists: HashMap<u32, Box<[u32]>, foldhash::fast::RandomState>,
    created: HashMap<u32, i64, foldhash::fast::RandomState>,
    families: HashMap<String, Arc<MetricMetadata>>,
}

/// A cursor over a log.
#[derive(Debug)]
pub struct Reader {
    log: Arc<Log>,
    position: Position,
    file: Option<File>,
    /// The window of the file that `buffer[consumed..]` shows begins at `position`.
    buffer: Vec<u8>,
    consumed: usize,
    definitions: Definitions,
    /// Who reads needs nothing from here on.
    until: Option<Position>,
    /// What was deleted from here on is not counted yet. Never behind the segment that is open: that one is read to its
    /// end even if its file is gone.
    uncounted: Position,
    /// Samples that were deleted before they were read, and not yet told.
    lost: u64,
    /// Everything before this was deleted when losses were told last.
    deleted_before: Position,
}

// === impl Definitions ===

impl Definitions {
    /// The series of a reference.
    #[inline]
    pub fn series(&self, reference: u32) -> Option<&Series> {
        self.series.get(reference as usize)?.as_ref()
    }

    /// When counting began for a series, Unix milliseconds.
    pub fn created(&self, reference: u32) -> Option<i64> {
        if self.created.is_empty() { None } else { self.created.get(&reference).copied() }
    }

    /// Metadata of a family by the exact name.
    pub fn family(&self, name: &str) -> Option<&Arc<MetricMetadata>> {
        self.families.get(name)
    }

    /// All families whose metadata is known.
    pub fn families(&self) -> impl Iterator<Item = &Arc<MetricMetadata>> {
        self.families.values()
    }

    /// How many series are loaded.
    pub fn len(&self) -> usize {
        self.series.iter().flatten().count()
    }

    /// Whether no series is loaded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn clear(&mut self) {
        self.series.clear();
        self.lists.clear();
        self.created.clear();
        // Families outlive segments: metadata comes seldom.
    }

    fn define(
        &mut self,
        log: &Log,
        payload: &[u8],
        wanted: impl FnMut(u32) -> bool,
    ) -> Result<(), RecordError> {
        let mut found = Vec::new();
        record::each_series(payload, wanted, |reference, labels| {
            let labels =
                labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            found.push((reference, labels, None));
        })?;
        log.shared_series(&mut found);
        for (reference, labels, shared) in found {
            let series = shared.unwrap_or_else(|| record::new_series(&labels));
            let at = reference as usize;
            // References are dense: one far beyond all others is damage.
            if at > self.series.len() + (1 << 24) {
                return Err(RecordError);
            }
            if at >= self.series.len() {
                self.series.resize(at + 1, None);
            }
            self.series[at] = Some(series);
        }
        Ok(())
    }

    fn note_created(&mut self, payload: &[u8]) -> Result<(), RecordError> {
        let mut rest = payload;
        while !rest.is_empty() {
            let (series, created) = record::take_created(&mut rest)?;
            self.created.insert(series, created);
        }
        Ok(())
    }
}

// === impl Entry ===

impl Entry<'_> {
    /// Hands on every float sample.
    pub fn each_sample(&self, mut each: impl FnMut(u32, i64, f64)) {
        match &self.content {
            Content::Column(column, members) => {
                for (member, value) in members.iter().zip(column.values()) {
                    each(*member, column.timestamp, value);
                }
            }
            Content::Samples(payload) => {
                record::samples(payload)
                    .for_each(|Sample { series, timestamp, value }| each(series, timestamp, value));
            }
            _ => {}
        }
    }

    /// Hands on every histogram.
    pub fn each_histogram(&self, mut each: impl FnMut(HistogramRecord<'_>)) {
        if let Content::Histograms(mut rest) = self.content {
            while let (false, Ok(histogram)) = (rest.is_empty(), record::take_histogram(&mut rest)) {
                each(histogram);
            }
        }
    }

    /// Hands on every exemplar: series reference and version 1 message.
    pub fn each_exemplar(&self, mut each: impl FnMut(u32, &[u8])) {
        if let Content::Exemplars(mut rest) = self.content {
            while let (false, Ok((series, message))) = (rest.is_empty(), record::take_exemplar(&mut rest)) {
                each(series, message);
            }
        }
    }
}

// === impl Reader ===

impl Reader {
    /// A reader that will begin at `position`, or at the first record behind it that still exists.
    pub fn new(log: Arc<Log>, position: Position) -> Self {
        Self {
            log,
            position,
            file: None,
            buffer: Vec::new(),
            consumed: 0,
            definitions: Definitions::default(),
            until: None,
            uncounted: position,
            lost: 0,
            deleted_before: Position::default(),
        }
    }

    /// Has what lies at or after `end` be no loss of this reader.
    #[must_use]
    pub fn until(mut self, end: Option<Position>) -> Self {
        self.until = end;
        self
    }

    /// Where the next record begins.
    pub fn position(&self) -> Position {
        self.position
    }

    /// What the segment of the position defines so far.
    pub fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    /// How many samples were deleted before the reader came to them, since the last call.
    pub fn take_lost(&mut self) -> u64 {
        self.deleted_before = self.log.lost_before();
        self.count_lost(self.deleted_before);
        std::mem::take(&mut self.lost)
    }

    /// Everything before this was deleted by the last [`Reader::take_lost`]: another reader cannot begin before it.
    pub fn deleted_before(&self) -> Position {
        self.deleted_before
    }

    fn count_lost(&mut self, before: Position) {
        let before = self.until.map_or(before, |end| before.min(end));
        if before > self.uncounted {
            self.lost += self.log.lost_between(self.uncounted, before);
            self.uncounted = before;
        }
    }

    /// The next record, definitions aside; `None` when the reader has caught up with the log.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry<'_>>> {
        let (kind, range, position) = loop {
            let Some((kind, range, position)) = self.next_frame()? else { return Ok(None) };
            let payload = &self.buffer[range.clone()];
            let understood = match kind {
                Kind::Series => self.definitions.define(&self.log, payload, |_| true).map(|()| false),
                Kind::List => record::parse_list(payload).map(|(list, members)| {
                    self.definitions.lists.insert(list, members);
                    false
                }),
                Kind::Created => self.definitions.note_created(payload).map(|()| false),
                Kind::Column => Column::parse(payload).and_then(|column| {
                    let members = self.definitions.lists.get(&column.list).ok_or(RecordError)?;
                    if members.len() == column.len() { Ok(true) } else { Err(RecordError) }
                }),
                Kind::Metadata => match message::parse_metadata(payload) {
                    Ok(metadata) => {
                        self.definitions.families.insert(metadata.family.clone(), Arc::new(metadata));
                        Ok(true)
                    }
                    Err(_) => Err(RecordError),
                },
                Kind::Samples | Kind::Histograms | Kind::Exemplars => Ok(true),
            };
            match understood {
                Ok(true) => break (kind, range, position),
                Ok(false) => {}
                Err(RecordError) => self.damaged(position),
            }
        };
        let payload = &self.buffer[range];
        let definitions = &self.definitions;
        let content = match kind {
            Kind::Column => {
                let parsed = Column::parse(payload)
                    .ok()
                    .and_then(|column| Some(Content::Column(column, definitions.lists.get(&column.list)?)));
                match parsed {
                    Some(content) => content,
                    None => return Ok(None),
                }
            }
            Kind::Samples => Content::Samples(payload),
            Kind::Histograms => Content::Histograms(payload),
            Kind::Exemplars => Content::Exemplars(payload),
            _ => match message::parse_metadata(payload) {
                Ok(metadata) => Content::Metadata(
                    definitions.family(&metadata.family).cloned().unwrap_or_else(|| Arc::new(metadata)),
                ),
                Err(_) => return Ok(None),
            },
        };
        Ok(Some(Entry { position, content, definitions }))
    }

    fn damaged(&self, position: Position) {
        self.log.counters().damaged.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(log = %self.log.directory().display(), %position, "a record of the write-ahead log is damaged");
    }

    /// Advances over one frame; its payload's range in the buffer and where it began.
    fn next_frame(&mut self) -> io::Result<Option<(Kind, std::ops::Range<usize>, Position)>> {
        loop {
            let end = self.log.end();
            if self.position >= end {
                return Ok(None);
            }
            if self.file.is_none() {
                if !self.enter_segment(end)? {
                    return Ok(None);
                }
                continue;
            }
            let written = self.position.segment == end.segment;
            match frame::parse(&self.buffer[self.consumed..]) {
                Parsed::Frame { kind, payload, length } => {
                    let payload_start = self.consumed + length - payload.len();
                    let range = payload_start..self.consumed + length;
                    let position = self.position;
                    self.consumed += length;
                    self.position.offset += length as u64;
                    return Ok(Some((kind, range, position)));
                }
                Parsed::Incomplete(needed) => {
                    if !self.fill(needed)? {
                        if self.consumed < self.buffer.len() && !written {
                            self.damaged(self.position);
                        }
                        self.leave_segment(end);
                    }
                }
                Parsed::Damaged => {
                    self.damaged(self.position);
                    self.leave_segment(end);
                }
            }
        }
    }

    /// Reads until `needed` bytes are there; `false` if the file ends before.
    fn fill(&mut self, needed: usize) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        if self.buffer.capacity() > 8 << 20 && needed < READ_AHEAD {
            self.buffer.shrink_to(READ_AHEAD);
        }
        while self.buffer.len() < needed {
            let have = self.buffer.len();
            let offset = self.position.offset + have as u64;
            // Mostly there is little: room for more would be cleared each time.
            let there = file.metadata()?.len().saturating_sub(offset);
            if there == 0 {
                return Ok(false);
            }
            let there = usize::try_from(there).unwrap_or(usize::MAX);
            self.buffer.resize(have + READ_AHEAD.max(needed - have).min(there), 0);
            let read = file.read_at(&mut self.buffer[have..], offset);
            let count = match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    self.buffer.truncate(have);
                    continue;
                }
                Err(error) => {
                    self.buffer.truncate(have);
                    return Err(error);
                }
                Ok(count) => count,
            };
            self.buffer.truncate(have + count);
            if count == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn leave_segment(&mut self, end: Position) {
        let was_open = self.file.take().is_some();
        self.buffer.clear();
        self.consumed = 0;
        if self.position.segment < end.segment {
            self.position = Position::start_of(self.position.segment + 1);
            return;
        }
        self.position = end;
        if was_open {
            // It is entered again for what is still written to it.
            self.uncounted = end;
        }
    }

    /// Opens the segment of the position, or the next that exists; `false` if there is none yet.
    fn enter_segment(&mut self, end: Position) -> io::Result<bool> {
        let Some(segment) = self.log.segment_at_or_after(self.position.segment) else { return Ok(false) };
        if segment > end.segment {
            return Ok(false);
        }
        if segment > self.position.segment {
            self.position = Position::start_of(segment);
        }
        let file = match File::open(frame::segment_path(self.log.directory(), segment)) {
            Ok(file) => file,
            // Deleted between the question and the answer, or by somebody else.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.leave_segment(end);
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        let mut header = [0; FILE_HEADER.len()];
        let intact = file.read_exact_at(&mut header, 0).is_ok() && header == FILE_HEADER;
        self.definitions.clear();
        self.buffer.clear();
        self.consumed = 0;
        if !intact {
            self.damaged(Position::start_of(segment));
            self.leave_segment(end);
            return Ok(true);
        }
        let begin = FILE_HEADER.len() as u64;
        if self.position.offset > begin {
            self.load_definitions(&file, begin, segment == end.segment)?;
        }
        self.position.offset = self.position.offset.max(begin);
        // Segments between the last one and this one may have been deleted after losses were told last.
        self.count_lost(Position::start_of(segment));
        self.uncounted = self.uncounted.max(Position::start_of(segment + 1));
        self.file = Some(file);
        Ok(true)
    }

    /// Loads what lies before the position and is named by something behind it; `all` of it while the segment is still
    /// written, for nobody knows what will be named then. (The writer has those series in memory anyway.)
    fn load_definitions(&mut self, file: &File, begin: u64, all: bool) -> io::Result<()> {
        let from = self.position.offset;
        let mut lists = HashSet::new();
        let mut series = HashSet::new();
        each_frame(file, begin, |offset, kind, payload| {
            if offset < from {
                return;
            }
            match kind {
                Kind::Column => {
                    lists.extend(Column::parse(payload).map(|column| column.list));
                }
                Kind::Samples => series.extend(record::samples(payload).map(|sample| sample.series)),
                Kind::Histograms => {
                    let mut rest = payload;
                    while let (false, Ok(histogram)) = (rest.is_empty(), record::take_histogram(&mut rest)) {
                        series.insert(histogram.series);
                    }
                }
                Kind::Exemplars => {
                    let mut rest = payload;
                    while let (false, Ok((reference, _))) =
                        (rest.is_empty(), record::take_exemplar(&mut rest))
                    {
                        series.insert(reference);
                    }
                }
                Kind::List => {
                    if let Ok((_, members)) = record::parse_list(payload) {
                        series.extend(members);
                    }
                }
                Kind::Series | Kind::Metadata | Kind::Created => {}
            }
        })?;
        each_frame(file, begin, |offset, kind, payload| {
            if offset < from
                && kind == Kind::List
                && let Ok((list, members)) = record::parse_list(payload)
                && (all || lists.contains(&list))
            {
                series.extend(&members);
                self.definitions.lists.insert(list, members);
            }
        })?;
        let (definitions, log) = (&mut self.definitions, &self.log);
        each_frame(file, begin, |offset, kind, payload| {
            if offset >= from {
                return;
            }
            let read = match kind {
                Kind::Series => {
                    definitions.define(log, payload, |reference| all || series.contains(&reference))
                }
                Kind::Created => definitions.note_created(payload),
                Kind::Metadata => message::parse_metadata(payload).map_err(|_| RecordError).map(|metadata| {
                    definitions.families.insert(metadata.family.clone(), Arc::new(metadata));
                }),
                _ => Ok(()),
            };
            if read.is_err() {
                log.counters().damaged.fetch_add(1, Ordering::Relaxed);
            }
        })
    }
}

/// Visits the intact frames of a segment in order, until the first that is not.
fn each_frame(file: &File, begin: u64, mut each: impl FnMut(u64, Kind, &[u8])) -> io::Result<()> {
    let mut buffer = Vec::new();
    let mut offset = begin;
    let mut consumed = 0;
    loop {
        match frame::parse(&buffer[consumed..]) {
            Parsed::Frame { kind, payload, length } => {
                each(offset, kind, payload);
                consumed += length;
                offset += length as u64;
            }
            Parsed::Damaged => return Ok(()),
            Parsed::Incomplete(needed) => {
                buffer.drain(..consumed);
                consumed = 0;
                let have = buffer.len();
                buffer.resize(have.max(needed) + READ_AHEAD, 0);
                let count = file.read_at(&mut buffer[have..], offset + have as u64)?;
                buffer.truncate(have + count);
                if count == 0 {
                    return Ok(());
                }
            }
        }
    }
}
