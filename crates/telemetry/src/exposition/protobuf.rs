//! The protobuf exposition format: length-delimited `io.prometheus.client.MetricFamily` messages.
//!
//! Classic histograms and summaries become the series that the text formats would have. A series is keyed by its name and labels
//! between 0xff bytes, which no UTF-8 text contains.

use crate::batch::{MetricKind, NORMAL_NAN};
use crate::histogram::{ClassicHistogram, CounterResetHint, Histogram, HistogramCounts, Span};
use crate::labels::LabelsBuilder;
use crate::remote_write::wire::{Fields, Value, WireError, each_double, each_varint, take_varint, unzigzag};

use super::number::write_openmetrics_float;
use super::text::Stop;
use super::{
    ExemplarEvent, ExpositionError, ExpositionSink, HistogramEvent, MetadataEvent, ParseOptions, RawForm,
    RawSeries, SampleEvent, SeriesText,
};

/// What separates name and labels in the key of a series.
pub(super) const SEPARATOR: u8 = 0xff;

/// Reads a page.
pub(super) fn parse<S: ExpositionSink>(
    page: &[u8],
    options: &ParseOptions,
    sink: &mut S,
) -> Result<(), ExpositionError<S::Error>> {
    let mut parser = Parser {
        options,
        key: Vec::new(),
        stem: 0,
        labels: LabelsBuilder::new(),
        bound: String::new(),
        classic: ClassicHistogram::default(),
    };
    let mut rest = page;
    let mut line = 0;
    while !rest.is_empty() {
        line += 1;
        let result = take_message(&mut rest, options.line_limit)
            .map_err(Stop::Syntax)
            .and_then(|message| parser.family(message, sink));
        match result {
            Ok(()) => {}
            Err(Stop::Sink(error)) => return Err(ExpositionError::Sink(error)),
            Err(Stop::Syntax(message)) => return Err(ExpositionError::Syntax { line, message }),
        }
    }
    Ok(())
}

fn take_message<'p>(rest: &mut &'p [u8], limit: usize) -> Result<&'p [u8], String> {
    let length = take_varint(rest).map_err(syntax)?;
    let length = usize::try_from(length).ok().filter(|&length| length <= limit);
    let length = length.ok_or_else(|| format!("the metric family is longer than {limit} bytes"))?;
    let (message, after) = rest.split_at_checked(length).ok_or("the page ends inside a metric family")?;
    *rest = after;
    Ok(message)
}

struct Parser<'o> {
    options: &'o ParseOptions,
    key: Vec<u8>,
    /// How much of the key is the name of the family.
    stem: usize,
    labels: LabelsBuilder,
    bound: String,
    classic: ClassicHistogram,
}

/// What is common to the samples of one metric.
#[derive(Clone, Copy)]
struct Metric<'p> {
    message: &'p [u8],
    kind: MetricKind,
    unit: &'p str,
    timestamp: Option<i64>,
}

impl Parser<'_> {
    fn family<S: ExpositionSink>(&mut self, message: &[u8], sink: &mut S) -> Result<(), Stop<S::Error>> {
        let (mut name, mut help, mut unit, mut kind, mut empty) = ("", "", "", 0, true);
        each_field(message, |number, value| {
            match number {
                1 => name = text(value.bytes(1)?)?,
                2 => help = text(value.bytes(2)?)?,
                3 => kind = value.varint(3)?,
                4 => empty = false,
                5 => unit = text(value.bytes(5)?)?,
                _ => {}
            }
            Ok(())
        })?;
        if empty {
            return Ok(());
        }
        if name.is_empty() {
            return Err(Stop::Syntax("a metric family has no name".to_owned()));
        }
        let kind = match kind {
            0 => MetricKind::Counter,
            1 => MetricKind::Gauge,
            2 => MetricKind::Summary,
            3 => MetricKind::Unknown,
            4 => MetricKind::Histogram,
            5 => MetricKind::GaugeHistogram,
            other => {
                return Err(Stop::Syntax(format!("metric family {name:?} has the unknown type {other}")));
            }
        };
        sink.metadata(name, MetadataEvent::Help(help)).map_err(Stop::Sink)?;
        if !unit.is_empty() {
            sink.metadata(name, MetadataEvent::Unit(unit)).map_err(Stop::Sink)?;
        }
        sink.metadata(name, MetadataEvent::Kind(kind)).map_err(Stop::Sink)?;
        self.key.clear();
        self.key.extend_from_slice(name.as_bytes());
        self.stem = self.key.len();

        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next_field().map_err(syntax)? {
            if number == 4 {
                let message = value.bytes(4).map_err(syntax)?;
                self.metric(Metric { message, kind, unit, timestamp: None }, sink)?;
            }
        }
        Ok(())
    }

    fn metric<S: ExpositionSink>(
        &mut self,
        mut metric: Metric<'_>,
        sink: &mut S,
    ) -> Result<(), Stop<S::Error>> {
        let (mut body, mut timestamp) = (&[][..], 0);
        let wanted = match metric.kind {
            MetricKind::Gauge => 2,
            MetricKind::Counter => 3,
            MetricKind::Summary => 4,
            MetricKind::Histogram | MetricKind::GaugeHistogram => 7,
            _ => 5,
        };
        each_field(metric.message, |number, value| {
            if number == wanted {
                body = value.bytes(number)?;
            } else if number == 6 {
                timestamp = value.varint(6)?.cast_signed();
            }
            Ok(())
        })?;
        metric.timestamp = (timestamp != 0).then_some(timestamp);
        match metric.kind {
            MetricKind::Summary => self.summary(metric, body, sink),
            MetricKind::Histogram | MetricKind::GaugeHistogram => self.histogram(metric, body, sink),
            _ => self.scalar(metric, body, sink),
        }
    }

    fn scalar<S: ExpositionSink>(
        &mut self,
        metric: Metric<'_>,
        body: &[u8],
        sink: &mut S,
    ) -> Result<(), Stop<S::Error>> {
        let counter = metric.kind == MetricKind::Counter;
        let (mut number, mut exemplar, mut created) = (0.0, None, None);
        each_field(body, |field, value| {
            match field {
                1 => number = value.double(1)?,
                2 if counter => exemplar = Some(value.bytes(2)?),
                3 if counter => created = Some(milliseconds(value.bytes(3)?)?),
                _ => {}
            }
            Ok(())
        })?;
        self.sample(metric, "", None, number, created, sink)?;
        exemplar.map_or(Ok(()), |exemplar| self.exemplar(exemplar, false, sink))
    }

    fn summary<S: ExpositionSink>(
        &mut self,
        metric: Metric<'_>,
        body: &[u8],
        sink: &mut S,
    ) -> Result<(), Stop<S::Error>> {
        let (mut count, mut sum, mut created) = (0, 0.0, None);
        each_field(body, |field, value| {
            match field {
                1 => count = value.varint(1)?,
                2 => sum = value.double(2)?,
                4 => created = Some(milliseconds(value.bytes(4)?)?),
                _ => {}
            }
            Ok(())
        })?;
        self.sample(metric, "_count", None, count as f64, created, sink)?;
        self.sample(metric, "_sum", None, sum, created, sink)?;
        let mut fields = Fields::new(body);
        while let Some((field, value)) = fields.next_field().map_err(syntax)? {
            if field == 3 {
                let (mut quantile, mut number) = (0.0, 0.0);
                each_field(value.bytes(3).map_err(syntax)?, |field, value| {
                    match field {
                        1 => quantile = value.double(1)?,
                        2 => number = value.double(2)?,
                        _ => {}
                    }
                    Ok(())
                })?;
                self.sample(metric, "", Some(("quantile", quantile)), number, created, sink)?;
            }
        }
        Ok(())
    }

    fn histogram<S: ExpositionSink>(
        &mut self,
        metric: Metric<'_>,
        body: &[u8],
        sink: &mut S,
    ) -> Result<(), Stop<S::Error>> {
        let message = HistogramMessage::read(body).map_err(syntax)?;
        let native = self.options.native_histograms && message.is_native();
        if native {
            let histogram = message.native(metric.kind).map_err(Stop::Syntax)?;
            self.native_sample(metric, histogram, message.created, sink)?;
            if message.exemplars.is_empty() {
                for bucket in &message.buckets {
                    if let Some(exemplar) = bucket.exemplar {
                        self.exemplar(exemplar, true, sink)?;
                    }
                }
            }
            for exemplar in &message.exemplars {
                self.exemplar(exemplar, true, sink)?;
            }
            if !self.options.classic_histograms || message.buckets.is_empty() {
                return Ok(());
            }
        }
        let convert = !native && self.options.convert_classic_histograms;
        if !convert || self.options.classic_histograms {
            self.classic_series(metric, &message, sink)?;
        }
        if convert {
            self.classic.clear();
            self.classic.set_count(message.total());
            self.classic.set_sum(message.sum);
            for bucket in &message.buckets {
                self.classic.set_bucket(bucket.bound, bucket.count);
            }
            let mut histogram = self.classic.convert().map_err(|error| Stop::Syntax(error.to_string()))?;
            if metric.kind == MetricKind::GaugeHistogram {
                histogram.reset_hint = CounterResetHint::Gauge;
            }
            self.native_sample(metric, histogram, message.created, sink)?;
            for bucket in &message.buckets {
                if let Some(exemplar) = bucket.exemplar {
                    self.exemplar(exemplar, true, sink)?;
                }
            }
        }
        Ok(())
    }

    fn classic_series<S: ExpositionSink>(
        &mut self,
        metric: Metric<'_>,
        message: &HistogramMessage<'_>,
        sink: &mut S,
    ) -> Result<(), Stop<S::Error>> {
        let created = message.created;
        self.sample(metric, "_count", None, message.total(), created, sink)?;
        self.sample(metric, "_sum", None, message.sum, created, sink)?;
        let mut closed = false;
        for bucket in &message.buckets {
            self.sample(metric, "_bucket", Some(("le", bucket.bound)), bucket.count, created, sink)?;
            if let Some(exemplar) = bucket.exemplar {
                self.exemplar(exemplar, false, sink)?;
            }
            closed = bucket.bound == f64::INFINITY;
            if closed {
                break;
            }
        }
        if !closed {
            self.sample(metric, "_bucket", Some(("le", f64::INFINITY)), message.total(), created, sink)?;
        }
        Ok(())
    }

    fn sample<S: ExpositionSink>(
        &mut self,
        metric: Metric<'_>,
        suffix: &str,
        bound: Option<(&str, f64)>,
        value: f64,
        created: Option<i64>,
        sink: &mut S,
    ) -> Result<(), Stop<S::Error>> {
        self.write_key(metric.message, suffix, bound).map_err(syntax)?;
        let value = if value.is_nan() { NORMAL_NAN } else { value };
        let series = if sink.expect(&self.key) == Some(self.key.len()) {
            SeriesText::Expected
        } else {
            SeriesText::Raw(self.raw(metric))
        };
        sink.series(SampleEvent { series, value, timestamp: metric.timestamp, created }).map_err(Stop::Sink)
    }

    fn native_sample<S: ExpositionSink>(
        &mut self,
        metric: Metric<'_>,
        histogram: Histogram,
        created: Option<i64>,
        sink: &mut S,
    ) -> Result<(), Stop<S::Error>> {
        self.write_key(metric.message, "", None).map_err(syntax)?;
        let series = SeriesText::Raw(self.raw(metric));
        let timestamp = metric.timestamp;
        sink.histogram(HistogramEvent { series, histogram, timestamp, created }).map_err(Stop::Sink)
    }

    fn raw<'a>(&'a self, metric: Metric<'a>) -> RawSeries<'a> {
        RawSeries { text: &self.key, form: RawForm::Separated, kind: metric.kind, unit: metric.unit }
    }

    fn write_key(
        &mut self,
        message: &[u8],
        suffix: &str,
        bound: Option<(&str, f64)>,
    ) -> Result<(), WireError> {
        self.key.truncate(self.stem);
        self.key.extend_from_slice(suffix.as_bytes());
        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next_field()? {
            if number == 1 {
                let (name, value) = label(value.bytes(1)?)?;
                for text in [name, value] {
                    self.key.push(SEPARATOR);
                    self.key.extend_from_slice(text);
                }
            }
        }
        if let Some((name, bound)) = bound {
            self.bound.clear();
            write_openmetrics_float(bound, &mut self.bound);
            for text in [name, &self.bound] {
                self.key.push(SEPARATOR);
                self.key.extend_from_slice(text.as_bytes());
            }
        }
        Ok(())
    }

    /// Reports an exemplar. Of a native histogram only those with a timestamp count, as Prometheus decided.
    fn exemplar<S: ExpositionSink>(
        &mut self,
        message: &[u8],
        native: bool,
        sink: &mut S,
    ) -> Result<(), Stop<S::Error>> {
        self.labels.clear();
        let labels = &mut self.labels;
        let (mut number, mut timestamp) = (0.0, None);
        each_field(message, |field, value| {
            match field {
                1 => {
                    let (name, value) = label(value.bytes(1)?)?;
                    labels.add(text(name)?, text(value)?);
                }
                2 => number = value.double(2)?,
                3 => timestamp = Some(milliseconds(value.bytes(3)?)?),
                _ => {}
            }
            Ok(())
        })?;
        if native && timestamp.is_none() {
            return Ok(());
        }
        sink.exemplar(ExemplarEvent { labels: &self.labels, value: number, timestamp }).map_err(Stop::Sink)
    }
}

/// Why a message is not understood.
enum Malformed {
    Wire(WireError),
    NotUtf8,
}

impl From<WireError> for Malformed {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl<E> From<Malformed> for Stop<E> {
    fn from(malformed: Malformed) -> Self {
        Self::Syntax(match malformed {
            Malformed::Wire(error) => error.to_string(),
            Malformed::NotUtf8 => "a text is not valid UTF-8".to_owned(),
        })
    }
}

fn syntax(error: WireError) -> String {
    error.to_string()
}

fn each_field<'p>(
    message: &'p [u8],
    mut each: impl FnMut(u32, Value<'p>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next_field()? {
        each(number, value)?;
    }
    Ok(())
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed::NotUtf8)
}

/// Name and value of a `LabelPair`.
fn label(message: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let (mut name, mut label) = (&[][..], &[][..]);
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next_field()? {
        match number {
            1 => name = value.bytes(1)?,
            2 => label = value.bytes(2)?,
            _ => {}
        }
    }
    Ok((name, label))
}

/// Unix milliseconds of a `google.protobuf.Timestamp`.
fn milliseconds(message: &[u8]) -> Result<i64, WireError> {
    let (mut seconds, mut nanos) = (0_i64, 0_i64);
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next_field()? {
        match number {
            1 => seconds = value.varint(1)?.cast_signed(),
            2 => nanos = value.varint(2)?.cast_signed(),
            _ => {}
        }
    }
    Ok(seconds.wrapping_mul(1000).wrapping_add(nanos / 1_000_000))
}

#[derive(Default)]
struct HistogramMessage<'p> {
    count: u64,
    count_float: f64,
    sum: f64,
    buckets: Vec<BucketMessage<'p>>,
    created: Option<i64>,
    schema: i32,
    zero_threshold: f64,
    zero_count: u64,
    zero_count_float: f64,
    positive: SideMessage,
    negative: SideMessage,
    exemplars: Vec<&'p [u8]>,
}

#[derive(Default)]
struct SideMessage {
    spans: Vec<Span>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

struct BucketMessage<'p> {
    bound: f64,
    count: f64,
    exemplar: Option<&'p [u8]>,
}

impl<'p> HistogramMessage<'p> {
    fn read(message: &'p [u8]) -> Result<Self, WireError> {
        let mut histogram = Self::default();
        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next_field()? {
            let Self { positive, negative, .. } = &mut histogram;
            match number {
                1 => histogram.count = value.varint(1)?,
                2 => histogram.sum = value.double(2)?,
                3 => histogram.buckets.push(bucket(value.bytes(3)?)?),
                4 => histogram.count_float = value.double(4)?,
                5 => histogram.schema = unzigzag(value.varint(5)?) as i32,
                6 => histogram.zero_threshold = value.double(6)?,
                7 => histogram.zero_count = value.varint(7)?,
                8 => histogram.zero_count_float = value.double(8)?,
                9 => negative.spans.push(span(value.bytes(9)?)?),
                10 => each_varint(value, 10, |delta| negative.deltas.push(unzigzag(delta)))?,
                11 => each_double(value, 11, |count| negative.counts.push(count))?,
                12 => positive.spans.push(span(value.bytes(12)?)?),
                13 => each_varint(value, 13, |delta| positive.deltas.push(unzigzag(delta)))?,
                14 => each_double(value, 14, |count| positive.counts.push(count))?,
                15 => histogram.created = Some(milliseconds(value.bytes(15)?)?),
                16 => histogram.exemplars.push(value.bytes(16)?),
                _ => {}
            }
        }
        Ok(histogram)
    }

    fn total(&self) -> f64 {
        if self.count_float == 0.0 { self.count as f64 } else { self.count_float }
    }

    /// A histogram without spans, zero threshold and zero count is a classic one.
    fn is_native(&self) -> bool {
        !self.positive.spans.is_empty()
            || !self.negative.spans.is_empty()
            || self.zero_threshold > 0.0
            || self.zero_count > 0
    }

    fn native(&self, kind: MetricKind) -> Result<Histogram, String> {
        let float = self.count_float > 0.0 || self.zero_count_float > 0.0;
        for (side, which) in [(&self.positive, "positive"), (&self.negative, "negative")] {
            let spans: u64 = side.spans.iter().map(|span| u64::from(span.length)).sum();
            let buckets = if float { side.counts.len() } else { side.deltas.len() };
            if spans != buckets as u64 {
                return Err(format!("{which} spans describe {spans} buckets, but there are {buckets}"));
            }
        }
        let counts = if float {
            HistogramCounts::Float {
                count: self.count_float,
                zero_count: self.zero_count_float,
                positive_counts: self.positive.counts.clone(),
                negative_counts: self.negative.counts.clone(),
            }
        } else {
            HistogramCounts::Integer {
                count: self.count,
                zero_count: self.zero_count,
                positive_deltas: self.positive.deltas.clone(),
                negative_deltas: self.negative.deltas.clone(),
            }
        };
        let reset_hint = match kind {
            MetricKind::GaugeHistogram => CounterResetHint::Gauge,
            _ => CounterResetHint::Unknown,
        };
        let mut histogram = Histogram {
            reset_hint,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            sum: if self.sum.is_nan() { NORMAL_NAN } else { self.sum },
            positive_spans: self.positive.spans.clone(),
            negative_spans: self.negative.spans.clone(),
            counts,
            custom_values: Vec::new(),
        };
        histogram.compact(0);
        Ok(histogram)
    }
}

fn bucket(message: &[u8]) -> Result<BucketMessage<'_>, WireError> {
    let (mut count, mut count_float, mut bound, mut exemplar) = (0, 0.0, 0.0, None);
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next_field()? {
        match number {
            1 => count = value.varint(1)?,
            2 => bound = value.double(2)?,
            3 => exemplar = Some(value.bytes(3)?),
            4 => count_float = value.double(4)?,
            _ => {}
        }
    }
    let count = if count_float == 0.0 { count as f64 } else { count_float };
    Ok(BucketMessage { bound, count, exemplar })
}

fn span(message: &[u8]) -> Result<Span, WireError> {
    let mut span = Span { offset: 0, length: 0 };
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next_field()? {
        match number {
            1 => span.offset = unzigzag(value.varint(1)?) as i32,
            2 => span.length = value.varint(2)? as u32,
            _ => {}
        }
    }
    Ok(span)
}
