//! The parts of a request that are carried as whole messages: native histograms (alike in both versions), exemplars and
//! family metadata (in version 1 form). The write-ahead log stores them in this very form, so that sending is a copy.

use crate::histogram::{
    CUSTOM_BUCKETS_SCHEMA, CounterResetHint, EXPONENTIAL_SCHEMA_MAX, EXPONENTIAL_SCHEMA_MIN, HistogramCounts,
    Span,
};
use crate::labels::Labels;
use crate::{Exemplar, Histogram, LabelsBuilder, MetricKind, MetricMetadata};

use super::decode::DecodeError;
use super::encode::{kind_number, put_label, put_sint_field};
use super::wire::{
    Fields, Value, WireError, each_double, each_varint, put_bytes_field, put_double_field,
    put_double_present, put_message, put_varint, put_varint_field, unzigzag, zigzag,
};

/// Appends the fields of a `Histogram` message (both versions number them alike).
pub fn put_histogram(out: &mut Vec<u8>, histogram: &Histogram, timestamp: i64) {
    let integer = |out: &mut Vec<u8>, number: u32, value: u64| {
        put_varint(out, u64::from(number) << 3);
        put_varint(out, value);
    };
    match &histogram.counts {
        HistogramCounts::Integer { count, .. } => integer(out, 1, *count),
        HistogramCounts::Float { count, .. } => put_double_present(out, 2, *count),
    }
    put_double_field(out, 3, histogram.sum);
    put_sint_field(out, 4, i64::from(histogram.schema));
    put_double_field(out, 5, histogram.zero_threshold);
    match &histogram.counts {
        HistogramCounts::Integer { zero_count, .. } => integer(out, 6, *zero_count),
        HistogramCounts::Float { zero_count, .. } => put_double_present(out, 7, *zero_count),
    }
    put_spans(out, 8, &histogram.negative_spans);
    match &histogram.counts {
        HistogramCounts::Integer { negative_deltas, .. } => put_deltas(out, 9, negative_deltas),
        HistogramCounts::Float { negative_counts, .. } => put_doubles(out, 10, negative_counts),
    }
    put_spans(out, 11, &histogram.positive_spans);
    match &histogram.counts {
        HistogramCounts::Integer { positive_deltas, .. } => put_deltas(out, 12, positive_deltas),
        HistogramCounts::Float { positive_counts, .. } => put_doubles(out, 13, positive_counts),
    }
    let hint = match histogram.reset_hint {
        CounterResetHint::Unknown => 0,
        CounterResetHint::Reset => 1,
        CounterResetHint::NotReset => 2,
        CounterResetHint::Gauge => 3,
    };
    put_varint_field(out, 14, hint);
    put_varint_field(out, 15, timestamp as u64);
    put_doubles(out, 16, &histogram.custom_values);
}

fn put_spans(out: &mut Vec<u8>, number: u32, spans: &[Span]) {
    for span in spans {
        put_message(out, number, |out| {
            put_sint_field(out, 1, i64::from(span.offset));
            put_varint_field(out, 2, u64::from(span.length));
        });
    }
}

fn put_deltas(out: &mut Vec<u8>, number: u32, deltas: &[i64]) {
    if !deltas.is_empty() {
        put_message(out, number, |out| deltas.iter().for_each(|delta| put_varint(out, zigzag(*delta))));
    }
}

fn put_doubles(out: &mut Vec<u8>, number: u32, values: &[f64]) {
    if !values.is_empty() {
        put_varint(out, u64::from(number) << 3 | 2);
        put_varint(out, values.len() as u64 * 8);
        values.iter().for_each(|value| out.extend_from_slice(&value.to_bits().to_le_bytes()));
    }
}

/// A decoded `Histogram` message.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramMessage {
    /// The distribution.
    pub histogram: Histogram,
    /// When it was observed, Unix milliseconds.
    pub timestamp: i64,
    /// When counting began, Unix milliseconds, where given.
    pub created: Option<i64>,
}

/// Decodes and validates a `Histogram` message.
///
/// # Errors
/// Malformed bytes, an unknown schema, or buckets that do not fit their spans.
pub fn parse_histogram(bytes: &[u8]) -> Result<HistogramMessage, DecodeError> {
    let mut fields = Fields::new(bytes);
    let (mut count, mut zero) = ((0u64, None), (0u64, None));
    let (mut sum, mut schema, mut zero_threshold, mut timestamp, mut created) = (0.0, 0i32, 0.0, 0i64, 0i64);
    let (mut negative_spans, mut positive_spans) = (Vec::new(), Vec::new());
    let (mut negative_deltas, mut positive_deltas) = (Vec::new(), Vec::new());
    let (mut negative_counts, mut positive_counts) = (Vec::new(), Vec::new());
    let mut custom_values = Vec::new();
    let mut reset_hint = CounterResetHint::Unknown;
    while let Some((number, value)) = fields.next_field()? {
        match number {
            1 => count.0 = value.varint(number)?,
            2 => count.1 = Some(value.double(number)?),
            3 => sum = value.double(number)?,
            4 => schema = unzigzag(value.varint(number)? & 0xffff_ffff) as i32,
            5 => zero_threshold = value.double(number)?,
            6 => zero.0 = value.varint(number)?,
            7 => zero.1 = Some(value.double(number)?),
            8 => negative_spans.push(parse_span(value, number)?),
            9 => each_varint(value, number, |delta| negative_deltas.push(unzigzag(delta)))?,
            10 => each_double(value, number, |count| negative_counts.push(count))?,
            11 => positive_spans.push(parse_span(value, number)?),
            12 => each_varint(value, number, |delta| positive_deltas.push(unzigzag(delta)))?,
            13 => each_double(value, number, |count| positive_counts.push(count))?,
            14 => {
                reset_hint = match value.varint(number)? {
                    1 => CounterResetHint::Reset,
                    2 => CounterResetHint::NotReset,
                    3 => CounterResetHint::Gauge,
                    _ => CounterResetHint::Unknown,
                }
            }
            15 => timestamp = value.varint(number)? as i64,
            16 => each_double(value, number, |bound| custom_values.push(bound))?,
            17 => created = value.varint(number)? as i64,
            _ => {}
        }
    }
    if schema != CUSTOM_BUCKETS_SCHEMA && !(EXPONENTIAL_SCHEMA_MIN..=EXPONENTIAL_SCHEMA_MAX).contains(&schema)
    {
        return Err(DecodeError::Histogram("unknown schema"));
    }
    let float = count.1.is_some() || zero.1.is_some();
    let buckets = |spans: &[Span]| spans.iter().map(|span| u64::from(span.length)).sum::<u64>();
    let (negative, positive) = if float {
        (negative_counts.len(), positive_counts.len())
    } else {
        (negative_deltas.len(), positive_deltas.len())
    };
    if buckets(&negative_spans) != negative as u64 || buckets(&positive_spans) != positive as u64 {
        return Err(DecodeError::Histogram("spans do not match the buckets"));
    }
    let counts = if float {
        HistogramCounts::Float {
            count: count.1.unwrap_or(0.0),
            zero_count: zero.1.unwrap_or(0.0),
            positive_counts,
            negative_counts,
        }
    } else {
        HistogramCounts::Integer { count: count.0, zero_count: zero.0, positive_deltas, negative_deltas }
    };
    let histogram = Histogram {
        reset_hint,
        schema,
        zero_threshold,
        sum,
        positive_spans,
        negative_spans,
        counts,
        custom_values,
    };
    Ok(HistogramMessage { histogram, timestamp, created: (created != 0).then_some(created) })
}

fn parse_span(value: Value<'_>, number: u32) -> Result<Span, WireError> {
    let mut fields = Fields::new(value.bytes(number)?);
    let mut span = Span { offset: 0, length: 0 };
    while let Some((number, value)) = fields.next_field()? {
        match number {
            1 => span.offset = unzigzag(value.varint(number)? & 0xffff_ffff) as i32,
            2 => span.length = value.varint(number)? as u32,
            _ => {}
        }
    }
    Ok(span)
}

/// Appends the fields of a version 1 `Exemplar` message.
pub fn put_exemplar(out: &mut Vec<u8>, exemplar: &Exemplar) {
    for (name, value) in exemplar.labels.iter() {
        put_label(out, name, value);
    }
    put_double_field(out, 2, exemplar.value);
    put_varint_field(out, 3, exemplar.timestamp.unwrap_or(0) as u64);
}

/// A version 1 `Exemplar` message, its labels still in place.
#[derive(Debug, Clone)]
pub struct ExemplarMessage<'a> {
    labels: Vec<(&'a str, &'a str)>,
    /// What was observed.
    pub value: f64,
    /// Unix milliseconds, where given.
    pub timestamp: Option<i64>,
}

impl<'a> ExemplarMessage<'a> {
    /// Decodes the message.
    ///
    /// # Errors
    /// Malformed bytes or text that is not UTF-8.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(bytes);
        let mut exemplar = Self { labels: Vec::new(), value: 0.0, timestamp: None };
        while let Some((number, value)) = fields.next_field()? {
            match number {
                1 => exemplar.labels.push(parse_label(value.bytes(number)?)?),
                2 => exemplar.value = value.double(number)?,
                3 => {
                    exemplar.timestamp =
                        Some(value.varint(number)? as i64).filter(|timestamp| *timestamp != 0)
                }
                _ => {}
            }
        }
        Ok(exemplar)
    }

    /// The labels in wire order.
    pub fn labels(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.labels.iter().copied()
    }

    /// The exemplar, owned.
    pub fn to_exemplar(&self) -> Exemplar {
        let labels: Labels = self.labels().collect();
        Exemplar { labels, value: self.value, timestamp: self.timestamp }
    }
}

/// A version 1 `Label` message.
pub(super) fn parse_label(bytes: &[u8]) -> Result<(&str, &str), DecodeError> {
    let mut fields = Fields::new(bytes);
    let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
    while let Some((number, field)) = fields.next_field()? {
        match number {
            1 => name = field.bytes(number)?,
            2 => value = field.bytes(number)?,
            _ => {}
        }
    }
    Ok((text(name)?, text(value)?))
}

/// Appends the fields of a version 1 `MetricMetadata` message.
pub fn put_metadata(out: &mut Vec<u8>, metadata: &MetricMetadata) {
    put_varint_field(out, 1, u64::from(kind_number(metadata.kind)));
    for (number, text) in [(2, &metadata.family), (4, &metadata.help), (5, &metadata.unit)] {
        if !text.is_empty() {
            put_bytes_field(out, number, text.as_bytes());
        }
    }
}

/// Decodes a version 1 `MetricMetadata` message.
///
/// # Errors
/// Malformed bytes or text that is not UTF-8.
pub fn parse_metadata(bytes: &[u8]) -> Result<MetricMetadata, DecodeError> {
    let mut fields = Fields::new(bytes);
    let mut metadata = MetricMetadata {
        family: String::new(),
        kind: MetricKind::Unknown,
        help: String::new(),
        unit: String::new(),
    };
    while let Some((number, value)) = fields.next_field()? {
        match number {
            1 => metadata.kind = kind_from_number(value.varint(number)?),
            2 => text(value.bytes(number)?)?.clone_into(&mut metadata.family),
            4 => text(value.bytes(number)?)?.clone_into(&mut metadata.help),
            5 => text(value.bytes(number)?)?.clone_into(&mut metadata.unit),
            _ => {}
        }
    }
    Ok(metadata)
}

pub(super) fn kind_from_number(number: u64) -> MetricKind {
    match number {
        1 => MetricKind::Counter,
        2 => MetricKind::Gauge,
        3 => MetricKind::Histogram,
        4 => MetricKind::GaugeHistogram,
        5 => MetricKind::Summary,
        6 => MetricKind::Info,
        7 => MetricKind::StateSet,
        _ => MetricKind::Unknown,
    }
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8)
}

/// Collects a label set that must be sorted, without duplicates and with a metric name. An empty value means no label.
pub(super) fn series_labels<'a>(
    builder: &mut LabelsBuilder,
    labels: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<(), &'static str> {
    builder.clear();
    let mut named = false;
    for (name, value) in labels {
        if name.is_empty() {
            return Err("a label has an empty name");
        }
        named |= name == crate::METRIC_NAME && !value.is_empty();
        builder.add(name, value);
    }
    if builder.duplicate().is_some() {
        return Err("a label name occurs twice");
    }
    if !named {
        return Err("the metric name is missing");
    }
    Ok(())
}
