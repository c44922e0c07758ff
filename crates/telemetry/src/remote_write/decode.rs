//! Decoders for a receiver: snappy block → protobuf → [`MetricBatch`], both versions. Input is hostile until proven
//! otherwise, so every size is bounded before memory is spent on it.

use std::collections::HashSet;
use std::sync::Arc;

use thiserror::Error;

use crate::histogram::HistogramCounts;
use crate::series::{Series, SeriesList};
use crate::{
    Exemplar, ExemplarSample, Histogram, HistogramSample, LabelsBuilder, MetricBatch, MetricMetadata,
    Timestamps,
};

use super::message::{
    ExemplarMessage, HistogramMessage, kind_from_number, parse_histogram, parse_label, parse_metadata,
    series_labels, text,
};
use super::wire::{Fields, Value, WireError, each_varint};
use super::{Protocol, RequestCounts, SeriesMemory};

/// What a series occupies besides 8 bytes per label; the texts of its labels are shared.
const SERIES_BYTES: usize = 64;

/// Why a request cannot be read at all.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The protobuf bytes are malformed.
    #[error("malformed protobuf: {0}")]
    Wire(#[from] WireError),
    /// A text is not UTF-8.
    #[error("text is not valid UTF-8")]
    Utf8,
    /// The body is not a snappy block.
    #[error("malformed snappy block")]
    Snappy,
    /// The request is larger than the limit, bytes.
    #[error("request exceeds the limit of {0} bytes")]
    TooLarge(usize),
    /// A native histogram contradicts itself.
    #[error("invalid native histogram: {0}")]
    Histogram(&'static str),
    /// A reference points outside the symbol table.
    #[error("symbol reference {0} is out of range")]
    Symbol(u64),
    /// The symbol table does not begin with the empty text.
    #[error("the first symbol must be empty")]
    FirstSymbol,
}

/// What a receiver admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Size of the uncompressed message, bytes.
    pub message_bytes: usize,
    /// Labels of one series.
    pub labels: usize,
    /// What the decoded request may occupy, bytes, roughly: a few bytes of a message can name an empty histogram.
    pub decoded_bytes: usize,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { message_bytes: 64 << 20, labels: 1024, decoded_bytes: 512 << 20 }
    }
}

/// A decoded request.
#[derive(Debug, Clone)]
pub struct DecodedRequest {
    /// What is valid.
    pub batch: MetricBatch,
    /// Counts of `batch`.
    pub counts: RequestCounts,
    /// How many series were left out because their labels or histograms are invalid.
    pub invalid_series: usize,
    /// Why the first of them was.
    pub first_invalid: Option<String>,
}

/// Undoes the snappy block compression.
///
/// # Errors
/// A damaged block, or one that says it is larger than `limit`.
pub fn decompress(body: &[u8], limit: usize) -> Result<Vec<u8>, DecodeError> {
    let length = snap::raw::decompress_len(body).map_err(|_| DecodeError::Snappy)?;
    if length > limit {
        return Err(DecodeError::TooLarge(limit));
    }
    // A block expands 64 bytes into at most three, so a larger claim is a lie that must not become an allocation.
    if length > body.len().saturating_mul(32) + 64 {
        return Err(DecodeError::Snappy);
    }
    snap::raw::Decoder::new().decompress_vec(body).map_err(|_| DecodeError::Snappy)
}

/// Decodes an uncompressed request of either version.
///
/// # Errors
/// Only for requests that cannot be read at all; single invalid series are left out and counted.
pub fn decode(
    protocol: Protocol,
    message: &[u8],
    limits: DecodeLimits,
) -> Result<DecodedRequest, DecodeError> {
    decode_with(protocol, message, limits, None)
}

/// As [`decode()`], for a receiver that remembers which series it was sent before.
///
/// # Errors
/// As [`decode()`].
pub fn decode_remembering(
    protocol: Protocol,
    message: &[u8],
    limits: DecodeLimits,
    memory: &SeriesMemory,
) -> Result<DecodedRequest, DecodeError> {
    decode_with(protocol, message, limits, Some(memory))
}

fn decode_with(
    protocol: Protocol,
    message: &[u8],
    limits: DecodeLimits,
    memory: Option<&SeriesMemory>,
) -> Result<DecodedRequest, DecodeError> {
    if message.len() > limits.message_bytes {
        return Err(DecodeError::TooLarge(limits.message_bytes));
    }
    let mut assembly = Assembly::new(limits, message.len(), memory);
    match protocol {
        Protocol::V1 => decode_v1(message, &mut assembly)?,
        Protocol::V2 => decode_v2(message, &mut assembly)?,
    }
    Ok(assembly.finish())
}

/// The batch under construction.
struct Assembly<'m> {
    limits: DecodeLimits,
    memory: Option<&'m SeriesMemory>,
    /// What the batch may still come to occupy, bytes.
    room: usize,
    /// Label text that may still be expanded: references of version 2 make a small message name much text.
    expansion: usize,
    builder: LabelsBuilder,
    series: Vec<Series>,
    values: Vec<f64>,
    timestamps: Vec<i64>,
    histograms: Vec<HistogramSample>,
    exemplars: Vec<ExemplarSample>,
    metadata: Vec<Arc<MetricMetadata>>,
    families: HashSet<String>,
    created: Vec<(u32, i64)>,
    counts: RequestCounts,
    invalid_series: usize,
    first_invalid: Option<String>,
}

impl<'m> Assembly<'m> {
    fn new(limits: DecodeLimits, length: usize, memory: Option<&'m SeriesMemory>) -> Self {
        Self {
            limits,
            memory,
            room: limits.decoded_bytes,
            expansion: length.saturating_mul(16).max(64 << 20),
            builder: LabelsBuilder::new(),
            series: Vec::new(),
            values: Vec::new(),
            timestamps: Vec::new(),
            histograms: Vec::new(),
            exemplars: Vec::new(),
            metadata: Vec::new(),
            families: HashSet::new(),
            created: Vec::new(),
            counts: RequestCounts::default(),
            invalid_series: 0,
            first_invalid: None,
        }
    }

    /// The series of these labels; `None`, counted, where they are invalid.
    fn series(&mut self, labels: &[(&str, &str)]) -> Result<Option<Series>, DecodeError> {
        if labels.len() > self.limits.labels {
            self.invalid(format!("a series has {} labels, more than {}", labels.len(), self.limits.labels));
            return Ok(None);
        }
        let size: usize = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.expansion =
            self.expansion.checked_sub(size).ok_or(DecodeError::TooLarge(self.limits.message_bytes))?;
        self.occupy(SERIES_BYTES + 8 * labels.len())?;
        let builder = &mut self.builder;
        let mut make = || series_labels(builder, labels.iter().copied()).map(|()| builder.series());
        let series = match self.memory {
            Some(memory) => memory.series(labels, make),
            None => make(),
        };
        match series {
            Ok(series) => Ok(Some(series)),
            Err(reason) => {
                self.invalid(format!("{reason}: {}", self.builder.labels()));
                Ok(None)
            }
        }
    }

    /// Takes `bytes` of the room.
    fn occupy(&mut self, bytes: usize) -> Result<(), DecodeError> {
        let room = self.room.checked_sub(bytes);
        self.room = room.ok_or(DecodeError::TooLarge(self.limits.message_bytes))?;
        Ok(())
    }

    fn invalid(&mut self, reason: String) {
        self.invalid_series += 1;
        self.first_invalid.get_or_insert(reason);
    }

    fn sample(
        &mut self,
        series: &Series,
        (value, timestamp, created): (f64, i64, i64),
    ) -> Result<(), DecodeError> {
        self.occupy(size_of::<(Series, f64, i64)>())?;
        if created != 0 {
            self.created.push((self.series.len() as u32, created));
        }
        self.series.push(series.clone());
        self.values.push(value);
        self.timestamps.push(timestamp);
        self.counts.samples += 1;
        self.counts.observe(timestamp);
        Ok(())
    }

    fn histogram(
        &mut self,
        series: &Series,
        message: HistogramMessage,
        created: i64,
    ) -> Result<(), DecodeError> {
        let HistogramMessage { histogram, timestamp, created: own } = message;
        let spans = histogram.positive_spans.len() + histogram.negative_spans.len();
        let buckets = match &histogram.counts {
            HistogramCounts::Integer { positive_deltas, negative_deltas, .. } => {
                positive_deltas.len() + negative_deltas.len()
            }
            HistogramCounts::Float { positive_counts, negative_counts, .. } => {
                positive_counts.len() + negative_counts.len()
            }
        };
        let numbers = spans + buckets + histogram.custom_values.len();
        self.occupy(size_of::<HistogramSample>() + size_of::<Histogram>() + 8 * numbers)?;
        let created = own.or((created != 0).then_some(created));
        self.counts.histograms += 1;
        self.counts.observe(timestamp);
        self.histograms.push(HistogramSample {
            series: series.clone(),
            timestamp,
            histogram: Arc::new(histogram),
            created,
        });
        Ok(())
    }

    fn exemplar(&mut self, series: &Series, exemplar: Exemplar) -> Result<(), DecodeError> {
        let text: usize = exemplar.labels.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
        self.occupy(size_of::<ExemplarSample>() + text)?;
        self.counts.exemplars += 1;
        self.exemplars.push(ExemplarSample { series: series.clone(), exemplar });
        Ok(())
    }

    fn metadata(&mut self, metadata: MetricMetadata) -> Result<(), DecodeError> {
        if !metadata.family.is_empty() && self.families.insert(metadata.family.clone()) {
            let text = 2 * metadata.family.len() + metadata.help.len() + metadata.unit.len();
            self.occupy(2 * size_of::<MetricMetadata>() + text)?;
            self.counts.metadata += 1;
            self.metadata.push(Arc::new(metadata));
        }
        Ok(())
    }

    fn finish(self) -> DecodedRequest {
        let series = match self.memory {
            Some(memory) => memory.list(self.series),
            None => SeriesList::new(self.series),
        };
        let mut batch = MetricBatch::new(series, self.values, Timestamps::Each(self.timestamps));
        batch.histograms = self.histograms;
        batch.exemplars = self.exemplars;
        batch.metadata = self.metadata;
        batch.created = self.created;
        DecodedRequest {
            batch,
            counts: self.counts,
            invalid_series: self.invalid_series,
            first_invalid: self.first_invalid,
        }
    }
}

fn decode_v1(message: &[u8], assembly: &mut Assembly<'_>) -> Result<(), DecodeError> {
    let mut fields = Fields::new(message);
    let mut labels = Vec::new();
    while let Some((number, value)) = fields.next_field()? {
        match number {
            1 => series_v1(value.bytes(number)?, &mut labels, assembly)?,
            3 => assembly.metadata(parse_metadata(value.bytes(number)?)?)?,
            _ => {}
        }
    }
    Ok(())
}

fn series_v1<'a>(
    message: &'a [u8],
    labels: &mut Vec<(&'a str, &'a str)>,
    assembly: &mut Assembly<'_>,
) -> Result<(), DecodeError> {
    labels.clear();
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next_field()? {
        if number == 1 {
            labels.push(parse_label(value.bytes(number)?)?);
        }
    }
    let Some(series) = assembly.series(labels)? else { return Ok(()) };
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next_field()? {
        match number {
            2 => assembly.sample(&series, parse_sample(value.bytes(number)?)?)?,
            3 => assembly.exemplar(&series, ExemplarMessage::parse(value.bytes(number)?)?.to_exemplar())?,
            4 => match parse_histogram(value.bytes(number)?) {
                Ok(histogram) => assembly.histogram(&series, histogram, 0)?,
                Err(DecodeError::Histogram(reason)) => assembly.invalid(format!("{reason}: {series}")),
                Err(error) => return Err(error),
            },
            _ => {}
        }
    }
    Ok(())
}

fn parse_sample(message: &[u8]) -> Result<(f64, i64, i64), WireError> {
    let mut fields = Fields::new(message);
    let (mut sample, mut timestamp, mut created) = (0.0, 0, 0);
    while let Some((number, value)) = fields.next_field()? {
        match number {
            1 => sample = value.double(number)?,
            2 => timestamp = value.varint(number)? as i64,
            3 => created = value.varint(number)? as i64,
            _ => {}
        }
    }
    Ok((sample, timestamp, created))
}

fn decode_v2(message: &[u8], assembly: &mut Assembly<'_>) -> Result<(), DecodeError> {
    let mut symbols = Vec::new();
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next_field()? {
        if number == 4 {
            symbols.push(text(value.bytes(number)?)?);
        }
    }
    if symbols.first().is_some_and(|first| !first.is_empty()) {
        return Err(DecodeError::FirstSymbol);
    }
    let mut labels = Vec::new();
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next_field()? {
        if number == 5 {
            series_v2(value.bytes(number)?, &symbols, &mut labels, assembly)?;
        }
    }
    Ok(())
}

fn series_v2<'a>(
    message: &[u8],
    symbols: &[&'a str],
    labels: &mut Vec<(&'a str, &'a str)>,
    assembly: &mut Assembly<'_>,
) -> Result<(), DecodeError> {
    labels.clear();
    let mut references = Vec::new();
    let mut created = 0;
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next_field()? {
        match number {
            1 => each_varint(value, number, |reference| references.push(reference))?,
            6 => created = value.varint(number)? as i64,
            _ => {}
        }
    }
    if !pair(symbols, &references, labels)? {
        assembly.invalid("a label has no value".to_owned());
        return Ok(());
    }
    let Some(series) = assembly.series(labels)? else { return Ok(()) };
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next_field()? {
        match number {
            2 => {
                let (sample, timestamp, own) = parse_sample(value.bytes(number)?)?;
                assembly.sample(&series, (sample, timestamp, if own == 0 { created } else { own }))?;
            }
            3 => match parse_histogram(value.bytes(number)?) {
                Ok(histogram) => assembly.histogram(&series, histogram, created)?,
                Err(DecodeError::Histogram(reason)) => assembly.invalid(format!("{reason}: {series}")),
                Err(error) => return Err(error),
            },
            4 => {
                if let Some(exemplar) = exemplar_v2(value, symbols, assembly)? {
                    assembly.exemplar(&series, exemplar)?;
                }
            }
            5 => {
                let family = labels
                    .iter()
                    .find(|(name, _)| *name == crate::METRIC_NAME)
                    .map_or("", |(_, value)| value);
                assembly.metadata(metadata_v2(value.bytes(number)?, family, symbols)?)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Resolves references pairwise; `false` if their number is odd.
fn pair<'a>(
    symbols: &[&'a str],
    references: &[u64],
    labels: &mut Vec<(&'a str, &'a str)>,
) -> Result<bool, DecodeError> {
    let resolve = |reference: u64| {
        usize::try_from(reference)
            .ok()
            .and_then(|at| symbols.get(at).copied())
            .ok_or(DecodeError::Symbol(reference))
    };
    let (pairs, odd) = references.as_chunks::<2>();
    for [name, value] in pairs {
        labels.push((resolve(*name)?, resolve(*value)?));
    }
    Ok(odd.is_empty())
}

fn exemplar_v2(
    value: Value<'_>,
    symbols: &[&str],
    assembly: &mut Assembly<'_>,
) -> Result<Option<Exemplar>, DecodeError> {
    let mut references = Vec::new();
    let mut exemplar = Exemplar { labels: Default::default(), value: 0.0, timestamp: None };
    let mut fields = Fields::new(value.bytes(4)?);
    while let Some((number, value)) = fields.next_field()? {
        match number {
            1 => each_varint(value, number, |reference| references.push(reference))?,
            2 => exemplar.value = value.double(number)?,
            3 => exemplar.timestamp = Some(value.varint(number)? as i64).filter(|timestamp| *timestamp != 0),
            _ => {}
        }
    }
    let mut labels = Vec::new();
    if references.len() > 2 * assembly.limits.labels || !pair(symbols, &references, &mut labels)? {
        return Ok(None);
    }
    let size: usize = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
    assembly.expansion =
        assembly.expansion.checked_sub(size).ok_or(DecodeError::TooLarge(assembly.limits.message_bytes))?;
    exemplar.labels = labels.into_iter().collect();
    Ok(Some(exemplar))
}

fn metadata_v2(message: &[u8], family: &str, symbols: &[&str]) -> Result<MetricMetadata, DecodeError> {
    let mut metadata = MetricMetadata {
        family: family.to_owned(),
        kind: kind_from_number(0),
        help: String::new(),
        unit: String::new(),
    };
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next_field()? {
        let symbol =
            |reference: u64| symbols.get(reference as usize).copied().ok_or(DecodeError::Symbol(reference));
        match number {
            1 => metadata.kind = kind_from_number(value.varint(number)?),
            3 => symbol(value.varint(number)?)?.clone_into(&mut metadata.help),
            4 => symbol(value.varint(number)?)?.clone_into(&mut metadata.unit),
            _ => {}
        }
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_message_cannot_become_a_large_request() {
        // One series, then as many empty parts of one kind as fit: two bytes each.
        for part in [0x12, 0x1a, 0x22] {
            let mut series = vec![0x0a, 13, 0x0a, 8];
            series.extend(b"__name__");
            series.extend([0x12, 1, b'a']);
            series.extend(std::iter::repeat_n([part, 0], 50_000).flatten());
            let mut message = Vec::new();
            super::super::wire::put_message(&mut message, 1, |out| out.extend_from_slice(&series));
            let limits = DecodeLimits { decoded_bytes: 1 << 20, ..DecodeLimits::default() };
            let decoded = decode(Protocol::V1, &message, limits);
            assert!(matches!(decoded, Err(DecodeError::TooLarge(_))), "{part:#x}");
            assert!(decode(Protocol::V1, &message, DecodeLimits::default()).is_ok(), "{part:#x}");
        }
    }
}
