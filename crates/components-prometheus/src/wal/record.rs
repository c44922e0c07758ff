//! What the payloads of frames hold, as writers of bytes and readers of borrowed bytes.
//!
//! A segment explains itself: series and lists are defined in the segment that uses them, before they are used. So a
//! segment that everybody has read is deleted without a checkpoint, and a reader that enters one needs no other.

use invar_telemetry::remote_write::wire::{WireError, put_varint, take_varint, unzigzag, zigzag};
use invar_telemetry::{Labels, Series, SymbolReader};

use super::frame::{self, Kind};

/// How much label text is compressed into one record: bounds what a reader holds at once.
const DEFINITION_BYTES: usize = 64 << 10;

/// Collects definitions of series and writes them as compressed records.
#[derive(Debug, Default)]
pub(super) struct SeriesDefinitions {
    text: Vec<u8>,
    compressor: Option<snap::raw::Encoder>,
    compressed: Vec<u8>,
}

impl SeriesDefinitions {
    pub(super) fn add(&mut self, out: &mut Vec<u8>, reader: &SymbolReader, reference: u32, series: &Series) {
        put_varint(&mut self.text, u64::from(reference));
        put_varint(&mut self.text, series.len() as u64);
        for (name, value) in series.labels(reader) {
            for text in [name, value] {
                put_varint(&mut self.text, text.len() as u64);
                self.text.extend_from_slice(text.as_bytes());
            }
        }
        if self.text.len() >= DEFINITION_BYTES {
            self.flush(out);
        }
    }

    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        if self.text.is_empty() {
            return;
        }
        let compressor = self.compressor.get_or_insert_with(snap::raw::Encoder::new);
        self.compressed.resize(snap::raw::max_compress_len(self.text.len()), 0);
        // Fails only for a buffer that is too small or input beyond 4 GiB; a stored series is far below either.
        if let Ok(length) = compressor.compress(&self.text, &mut self.compressed) {
            let start = frame::open(out, Kind::Series);
            out.extend_from_slice(&self.compressed[..length]);
            frame::close(out, start);
        }
        self.text.clear();
    }
}

/// Hands on every definition of a series record that `wanted` asks for.
pub(super) fn each_series(
    payload: &[u8],
    mut wanted: impl FnMut(u32) -> bool,
    mut each: impl FnMut(u32, &[(&str, &str)]),
) -> Result<(), RecordError> {
    let length = snap::raw::decompress_len(payload).map_err(|_| RecordError)?;
    if length > frame::MAX_PAYLOAD {
        return Err(RecordError);
    }
    let text = snap::raw::Decoder::new().decompress_vec(payload).map_err(|_| RecordError)?;
    let mut rest = &text[..];
    let mut labels = Vec::new();
    while !rest.is_empty() {
        let reference = take_u32(&mut rest)?;
        let count = take_varint(&mut rest)?;
        labels.clear();
        for _ in 0..count {
            labels.push((take_text(&mut rest)?, take_text(&mut rest)?));
        }
        if wanted(reference) {
            each(reference, &labels);
        }
    }
    Ok(())
}

/// Writes a list definition.
pub(super) fn put_list(out: &mut Vec<u8>, list: u32, members: &[u32]) {
    let start = frame::open(out, Kind::List);
    put_varint(out, u64::from(list));
    put_varint(out, members.len() as u64);
    let mut previous = 0i64;
    for member in members {
        put_varint(out, zigzag(i64::from(*member) - previous));
        previous = i64::from(*member);
    }
    frame::close(out, start);
}

/// Reads a list definition.
pub(super) fn parse_list(payload: &[u8]) -> Result<(u32, Box<[u32]>), RecordError> {
    let mut rest = payload;
    let list = take_u32(&mut rest)?;
    let count = take_varint(&mut rest)?;
    let count = usize::try_from(count).ok().filter(|count| *count <= rest.len()).ok_or(RecordError)?;
    let mut members = Vec::with_capacity(count);
    let mut previous = 0i64;
    for _ in 0..count {
        previous = previous.checked_add(unzigzag(take_varint(&mut rest)?)).ok_or(RecordError)?;
        members.push(u32::try_from(previous).map_err(|_| RecordError)?);
    }
    Ok((list, members.into()))
}

/// Writes a column: one value for every member of a list, all of one time.
pub(super) fn put_column(out: &mut Vec<u8>, list: u32, timestamp: i64, values: &[f64]) {
    let start = frame::open(out, Kind::Column);
    out.extend_from_slice(&list.to_le_bytes());
    out.extend_from_slice(&timestamp.to_le_bytes());
    let at = out.len();
    out.resize(at + values.len() * 8, 0);
    for (slot, value) in out[at..].as_chunks_mut::<8>().0.iter_mut().zip(values) {
        *slot = value.to_le_bytes();
    }
    frame::close(out, start);
}

/// A column in place.
#[derive(Debug, Clone, Copy)]
pub struct Column<'a> {
    /// The list whose members the values belong to.
    pub list: u32,
    /// Unix milliseconds.
    pub timestamp: i64,
    values: &'a [[u8; 8]],
}

impl<'a> Column<'a> {
    pub(super) fn parse(payload: &'a [u8]) -> Result<Self, RecordError> {
        let (list, rest) = payload.split_first_chunk::<4>().ok_or(RecordError)?;
        let (timestamp, rest) = rest.split_first_chunk::<8>().ok_or(RecordError)?;
        let (values, odd) = rest.as_chunks::<8>();
        if !odd.is_empty() {
            return Err(RecordError);
        }
        Ok(Self { list: u32::from_le_bytes(*list), timestamp: i64::from_le_bytes(*timestamp), values })
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The values in the list's order.
    pub fn values(&self) -> impl ExactSizeIterator<Item = f64> + 'a {
        self.values.iter().map(|bytes| f64::from_le_bytes(*bytes))
    }
}

/// One sample that names its series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// The series' reference in this segment.
    pub series: u32,
    /// Unix milliseconds.
    pub timestamp: i64,
    /// The value.
    pub value: f64,
}

/// Writes samples, split into records of bounded size.
pub(super) fn put_samples(out: &mut Vec<u8>, samples: &[Sample]) {
    for chunk in samples.chunks(64 << 10) {
        let start = frame::open(out, Kind::Samples);
        for sample in chunk {
            out.extend_from_slice(&sample.series.to_le_bytes());
            out.extend_from_slice(&sample.timestamp.to_le_bytes());
            out.extend_from_slice(&sample.value.to_le_bytes());
        }
        frame::close(out, start);
    }
}

/// Reads the samples of a record.
pub(super) fn samples(payload: &[u8]) -> impl Iterator<Item = Sample> + '_ {
    payload.as_chunks::<20>().0.iter().map(|bytes| {
        let [a, b, c, d, timestamp @ .., v0, v1, v2, v3, v4, v5, v6, v7] = *bytes;
        Sample {
            series: u32::from_le_bytes([a, b, c, d]),
            timestamp: i64::from_le_bytes(timestamp),
            value: f64::from_le_bytes([v0, v1, v2, v3, v4, v5, v6, v7]),
        }
    })
}

/// Writes one element of a histogram record.
pub(super) fn put_histogram(
    out: &mut Vec<u8>,
    series: u32,
    timestamp: i64,
    created: Option<i64>,
    message: &[u8],
) {
    put_varint(out, u64::from(series));
    put_varint(out, zigzag(timestamp));
    put_varint(out, zigzag(created.unwrap_or(0)));
    put_varint(out, message.len() as u64);
    out.extend_from_slice(message);
}

/// A native histogram in place, its message encoded as it is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HistogramRecord<'a> {
    /// The series' reference in this segment.
    pub series: u32,
    /// Unix milliseconds.
    pub timestamp: i64,
    /// When counting began, Unix milliseconds.
    pub created: Option<i64>,
    /// The protobuf message.
    pub message: &'a [u8],
}

/// Takes one element off the front of a histogram record.
pub(super) fn take_histogram<'a>(rest: &mut &'a [u8]) -> Result<HistogramRecord<'a>, RecordError> {
    let series = take_u32(rest)?;
    let timestamp = unzigzag(take_varint(rest)?);
    let created = unzigzag(take_varint(rest)?);
    let message = take_bytes(rest)?;
    Ok(HistogramRecord { series, timestamp, created: (created != 0).then_some(created), message })
}

/// Writes one element of an exemplar record.
pub(super) fn put_exemplar(out: &mut Vec<u8>, series: u32, message: &[u8]) {
    put_varint(out, u64::from(series));
    put_varint(out, message.len() as u64);
    out.extend_from_slice(message);
}

/// Takes one element off the front of an exemplar record.
pub(super) fn take_exemplar<'a>(rest: &mut &'a [u8]) -> Result<(u32, &'a [u8]), RecordError> {
    Ok((take_u32(rest)?, take_bytes(rest)?))
}

/// Writes one element of a record of created timestamps.
pub(super) fn put_created(out: &mut Vec<u8>, series: u32, created: i64) {
    put_varint(out, u64::from(series));
    put_varint(out, zigzag(created));
}

/// Takes one element off the front of a record of created timestamps.
pub(super) fn take_created(rest: &mut &[u8]) -> Result<(u32, i64), RecordError> {
    Ok((take_u32(rest)?, unzigzag(take_varint(rest)?)))
}

/// A series of its own for these labels.
pub(super) fn new_series(labels: &[(String, String)]) -> Series {
    let labels: Labels = labels.iter().map(|(name, value)| (name, value)).collect();
    Series::new(&labels)
}

/// A payload whose checksum holds but whose content makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed log record")]
pub(super) struct RecordError;

impl From<WireError> for RecordError {
    fn from(_: WireError) -> Self {
        Self
    }
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, RecordError> {
    u32::try_from(take_varint(rest)?).map_err(|_| RecordError)
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], RecordError> {
    let length = usize::try_from(take_varint(rest)?).map_err(|_| RecordError)?;
    let (bytes, tail) = rest.split_at_checked(length).ok_or(RecordError)?;
    *rest = tail;
    Ok(bytes)
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, RecordError> {
    std::str::from_utf8(take_bytes(rest)?).map_err(|_| RecordError)
}
