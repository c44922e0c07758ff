//! The OpenMetrics text format, versions 0.0.1 and 1.0.0, as strictly as Prometheus reads it.

use hashbrown::HashMap;

use crate::batch::MetricKind;
use crate::labels::{Labels, LabelsBuilder, METRIC_NAME};

use super::number::{milliseconds, parse_float, parse_seconds, plain_decimal};
use super::series_text::{
    Dialect, expected, metric_name, quoted_end, read_labels, scan_exemplar_labels, scan_series, unescape,
};
use super::text::{Stop, invalid_type};
use super::{
    ExemplarEvent, ExpositionError, ExpositionSink, HistogramEvent, MetadataEvent, ParseOptions, RawForm,
    RawSeries, SampleEvent, SeriesText,
};

const CREATED_SUFFIX: &str = "_created";

/// Reads a page.
pub(super) fn parse<S: ExpositionSink>(
    page: &[u8],
    options: &ParseOptions,
    sink: &mut S,
) -> Result<(), ExpositionError<S::Error>> {
    let created = options.created_timestamps.then(|| collect_created(page, options));
    run(page, options, created.as_ref(), sink)
}

fn run<S: ExpositionSink>(
    page: &[u8],
    options: &ParseOptions,
    created: Option<&HashMap<Labels, i64>>,
    sink: &mut S,
) -> Result<(), ExpositionError<S::Error>> {
    let mut parser = Parser {
        page,
        at: 0,
        kind: MetricKind::Unknown,
        family: String::new(),
        unit: String::new(),
        line_limit: options.line_limit,
        created,
        labels: LabelsBuilder::new(),
    };
    loop {
        match parser.entry(sink) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(Stop::Sink(error)) => return Err(ExpositionError::Sink(error)),
            Err(Stop::Syntax(message)) => {
                let line = 1 + memchr::memchr_iter(b'\n', &page[..parser.at.min(page.len())]).count();
                return Err(ExpositionError::Syntax { line, message });
            }
        }
    }
}

struct Parser<'p> {
    page: &'p [u8],
    /// Where the entry that is being read begins.
    at: usize,
    kind: MetricKind,
    /// The family that the page last described.
    family: String,
    unit: String,
    line_limit: usize,
    /// When counting began, by family and labels; `None` where nobody asked.
    created: Option<&'p HashMap<Labels, i64>>,
    labels: LabelsBuilder,
}

/// What follows the series of a line.
struct Suffix {
    value: f64,
    timestamp: Option<i64>,
    /// Where the braces of an exemplar's labels open.
    exemplar: Option<usize>,
    /// Where the next line begins; meaningless if there is an exemplar.
    end: usize,
}

impl Parser<'_> {
    /// Reads one entry; false at the end mark.
    #[inline]
    fn entry<S: ExpositionSink>(&mut self, sink: &mut S) -> Result<bool, Stop<S::Error>> {
        if self.created.is_none() && self.page.get(self.at).is_some_and(|&first| first != b'#') {
            let rest = &self.page[self.at..];
            if let Some(length) = sink.expect(rest)
                && let Some(suffix) = known_suffix(rest, length)
            {
                self.report(SeriesText::Expected, None, &suffix, sink)?;
                return Ok(true);
            }
        }
        match self.page.get(self.at) {
            None => Err(missing_end()),
            Some(b'#') => self.comment(sink),
            Some(_) => self.sample(sink).map(|()| true),
        }
    }

    fn sample<S: ExpositionSink>(&mut self, sink: &mut S) -> Result<(), Stop<S::Error>> {
        let rest = &self.page[self.at..];
        let length = scan_series(rest, Dialect::OpenMetrics, |_| ())?;
        if length > self.line_limit {
            return Err(Stop::Syntax(format!("the series is longer than {} bytes", self.line_limit)));
        }
        let suffix = suffix(rest, length)?;
        let text = &rest[..length];
        let mut created = None;
        if let Some(known) = self.created
            && counts_from_creation(self.kind)
        {
            read_labels(text, self.kind, &mut self.labels)?;
            if self.labels.get(METRIC_NAME).is_some_and(|name| name.ends_with(CREATED_SUFFIX)) {
                return self.skip(&suffix);
            }
            created = known.get(&creation_key(&mut self.labels, self.kind, &self.family)).copied();
        }
        // The unit is copied out because reporting borrows the whole parser.
        let unit = std::mem::take(&mut self.unit);
        let series = RawSeries { text, form: RawForm::Text, kind: self.kind, unit: &unit };
        let result = self.report(SeriesText::Raw(series), created, &suffix, sink);
        self.unit = unit;
        result
    }

    fn skip<E>(&mut self, suffix: &Suffix) -> Result<(), Stop<E>> {
        self.at += match suffix.exemplar {
            Some(brace) => self.exemplar(brace)?.2,
            None => suffix.end,
        };
        Ok(())
    }

    #[inline]
    fn report<S: ExpositionSink>(
        &mut self,
        series: SeriesText<'_>,
        created: Option<i64>,
        suffix: &Suffix,
        sink: &mut S,
    ) -> Result<(), Stop<S::Error>> {
        let sample = SampleEvent { series, value: suffix.value, timestamp: suffix.timestamp, created };
        let Some(brace) = suffix.exemplar else {
            sink.series(sample).map_err(Stop::Sink)?;
            self.at += suffix.end;
            return Ok(());
        };
        let (value, timestamp, end) = self.exemplar(brace)?;
        sink.series(sample).map_err(Stop::Sink)?;
        sink.exemplar(ExemplarEvent { labels: &self.labels, value, timestamp }).map_err(Stop::Sink)?;
        self.at += end;
        Ok(())
    }

    /// Reads an exemplar, its labels into the builder: value, timestamp, and where the next line begins.
    fn exemplar(&mut self, brace: usize) -> Result<(f64, Option<i64>, usize), String> {
        let rest = &self.page[self.at..];
        self.labels.clear();
        let end = scan_exemplar_labels(rest, brace + 1, &mut self.labels)?;
        let (token, end) = token(rest, end).ok_or_else(|| expected("a value", rest, end))?;
        let value = parse_float(token)?;
        let (timestamp, end) = match rest.get(end) {
            Some(b'\n') => (None, end),
            _ => {
                let (token, end) = self::token(rest, end)
                    .ok_or_else(|| expected("a timestamp or the next line", rest, end))?;
                (Some(parse_seconds(token)?), end)
            }
        };
        match rest.get(end) {
            Some(b'\n') => Ok((value, timestamp, end + 1)),
            _ => Err(expected("the end of the line", rest, end)),
        }
    }

    /// Reads what follows `#`: type, help and unit of a family, or the end mark.
    fn comment<S: ExpositionSink>(&mut self, sink: &mut S) -> Result<bool, Stop<S::Error>> {
        let line = &self.page[self.at..];
        if let Some(after) = line.strip_prefix(b"# EOF") {
            return match after {
                b"" | b"\n" => Ok(false),
                _ => Err(Stop::Syntax("there is data after # EOF".to_owned())),
            };
        }
        let keyword = line.get(..7).unwrap_or_default();
        if !matches!(keyword, b"# HELP " | b"# TYPE " | b"# UNIT ") {
            return Err(Stop::Syntax(expected("a series or one of # HELP, # TYPE, # UNIT, # EOF", line, 0)));
        }
        let (family, name_end) = match quoted_end(line, 7, true, false) {
            Some(end) => (&line[8..end - 1], end),
            None => {
                let end = metric_name(line, 7).ok_or_else(|| expected("a metric name", line, 7))?;
                (&line[7..end], end)
            }
        };
        let length = memchr::memchr(b'\n', &line[name_end..])
            .filter(|_| line[name_end] == b' ')
            .ok_or_else(|| expected("a text behind the metric name", line, name_end))?;
        let end = name_end + length;
        if end > self.line_limit {
            return Err(Stop::Syntax(format!("the line is longer than {} bytes", self.line_limit)));
        }
        let not_text = |_| "metadata is not valid UTF-8".to_owned();
        let family = std::str::from_utf8(family).map_err(not_text)?;
        let text = std::str::from_utf8(&line[name_end + 1..end]).map_err(not_text)?;
        if self.family != family {
            self.family.clear();
            self.family.push_str(family);
        }
        let mut scratch = String::new();
        let event = match keyword {
            b"# TYPE " => {
                self.kind = kind(text).ok_or_else(|| invalid_type(text.as_bytes()))?;
                MetadataEvent::Kind(self.kind)
            }
            b"# UNIT " => {
                let stem = family.strip_suffix(text);
                if !text.is_empty() && !stem.is_some_and(|stem| stem.ends_with('_')) {
                    let message = format!("the unit {text:?} is not a suffix of the metric name {family:?}");
                    return Err(Stop::Syntax(message));
                }
                text.clone_into(&mut self.unit);
                MetadataEvent::Unit(text)
            }
            _ => MetadataEvent::Help(unescape(text, true, &mut scratch)),
        };
        sink.metadata(family, event).map_err(Stop::Sink)?;
        self.at += end + 1;
        Ok(true)
    }
}

fn kind(name: &str) -> Option<MetricKind> {
    Some(match name {
        "counter" => MetricKind::Counter,
        "gauge" => MetricKind::Gauge,
        "histogram" => MetricKind::Histogram,
        "gaugehistogram" => MetricKind::GaugeHistogram,
        "summary" => MetricKind::Summary,
        "info" => MetricKind::Info,
        "stateset" => MetricKind::StateSet,
        "unknown" => MetricKind::Unknown,
        _ => return None,
    })
}

fn missing_end<E>() -> Stop<E> {
    Stop::Syntax("the page does not end with # EOF".to_owned())
}

/// A blank and the token behind it, with where it ends.
fn token(rest: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let inner = rest.get(at..)?.strip_prefix(b" ")?;
    let length = memchr::memchr2(b' ', b'\n', inner).unwrap_or(inner.len());
    (length > 0).then(|| (&inner[..length], at + 1 + length))
}

/// What follows a series whose text is known; `None` where the line is anything but plain.
#[inline]
fn known_suffix(rest: &[u8], length: usize) -> Option<Suffix> {
    if rest.get(length) != Some(&b' ') {
        return None;
    }
    if let Some((value, digits)) = plain_decimal(&rest[length + 1..])
        && rest.get(length + 1 + digits) == Some(&b'\n')
    {
        return Some(Suffix { value, timestamp: None, exemplar: None, end: length + 1 + digits + 1 });
    }
    suffix(rest, length).ok()
}

fn suffix(rest: &[u8], length: usize) -> Result<Suffix, String> {
    let (token, end) = token(rest, length).ok_or_else(|| expected("a blank and a value", rest, length))?;
    let value = parse_float(token)?;
    let (timestamp, end) = match self::token(rest, end) {
        _ if rest[end..].starts_with(b" # {") => (None, end),
        Some((token, end)) => (Some(parse_seconds(token)?), end),
        None => (None, end),
    };
    if rest.get(end) == Some(&b'\n') {
        Ok(Suffix { value, timestamp, exemplar: None, end: end + 1 })
    } else if rest[end..].starts_with(b" # {") {
        Ok(Suffix { value, timestamp, exemplar: Some(end + 3), end })
    } else if end == rest.len() {
        Err("the page does not end with # EOF".to_owned())
    } else {
        Err(expected("an exemplar or the end of the line", rest, end))
    }
}

/// Whether metrics of a kind may say when they were created.
fn counts_from_creation(kind: MetricKind) -> bool {
    matches!(kind, MetricKind::Counter | MetricKind::Summary | MetricKind::Histogram)
}

/// The labels of a sample without what tells the samples of one metric apart, under the name of its family.
fn creation_key(labels: &mut LabelsBuilder, kind: MetricKind, family: &str) -> Labels {
    match kind {
        MetricKind::Histogram => labels.del("le"),
        MetricKind::Summary => labels.del("quantile"),
        _ => {}
    }
    labels.set(METRIC_NAME, family);
    labels.labels()
}

/// Reads the `_created` samples of a page. They stand behind the samples that they speak of, hence a pass of their own.
fn collect_created(page: &[u8], options: &ParseOptions) -> HashMap<Labels, i64> {
    struct Collector {
        created: HashMap<Labels, i64>,
        labels: LabelsBuilder,
    }

    impl ExpositionSink for Collector {
        type Error = std::convert::Infallible;

        fn series(&mut self, sample: SampleEvent<'_>) -> Result<(), Self::Error> {
            if let SeriesText::Raw(series) = sample.series
                && counts_from_creation(series.kind)
                && memchr::memmem::find(series.text, CREATED_SUFFIX.as_bytes()).is_some()
                && series.labels(&mut self.labels).is_ok()
                && let Some(name) = self.labels.get(METRIC_NAME)
                && let Some(family) = name.strip_suffix(CREATED_SUFFIX).map(str::to_owned)
            {
                let key = creation_key(&mut self.labels, series.kind, &family);
                self.created.insert(key, milliseconds(sample.value));
            }
            Ok(())
        }

        fn histogram(&mut self, _: HistogramEvent<'_>) -> Result<(), Self::Error> {
            Ok(())
        }
    }

    let mut collector = Collector { created: HashMap::new(), labels: LabelsBuilder::new() };
    // An error is found again, and reported, when the page is read for good.
    drop(run(page, options, None, &mut collector));
    collector.created
}
