//! Scraped pages: parsers of the exposition formats, and the cache that makes a steady scrape cheap.
//!
//! A parser walks the bytes of a page and calls an [`ExpositionSink`]; it allocates nothing per sample. The sink may say at the start of
//! a line that it knows the series text that is there ([`ExpositionSink::expect`]): then the line is not even tokenised.

mod cache;
mod convert;
mod negotiation;
mod number;
mod openmetrics;
mod protobuf;
mod series_text;
mod text;

use thiserror::Error;

use crate::batch::MetricKind;
use crate::histogram::Histogram;
use crate::labels::{LabelsBuilder, METRIC_NAME};

pub use cache::{CacheScrape, CacheUpdate, Lookup, ScrapeCache, Vanished};
pub use negotiation::{ContentTypeError, EscapingScheme, UnknownProtocol, accept_header};

/// A format that a page can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExpositionFormat {
    /// `text/plain; version=0.0.4`.
    PrometheusText0_0_4,
    /// `text/plain; version=1.0.0`: quoted UTF-8 names.
    PrometheusText1_0_0,
    /// `application/openmetrics-text; version=0.0.1`.
    OpenMetrics0_0_1,
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics1_0_0,
    /// `application/vnd.google.protobuf`: delimited `io.prometheus.client.MetricFamily` messages.
    PrometheusProto,
}

/// Receives what a page says, in its order. The exemplars of a sample or histogram follow it.
pub trait ExpositionSink {
    /// Why the sink refuses to go on, such as a limit that was exceeded.
    type Error;

    /// The length of the series text at the start of `input`, where the sink recognises one. `input` begins at a line that is not a
    /// comment and goes to the end of the page. The parser takes the sink's word, except that it falls back to tokenising the line
    /// where no value follows; it then calls [`series`](Self::series) with [`SeriesText::Expected`] or not at all.
    fn expect(&mut self, input: &[u8]) -> Option<usize> {
        let _ = input;
        None
    }

    /// A float sample.
    ///
    /// # Errors
    /// To end the parsing.
    fn series(&mut self, sample: SampleEvent<'_>) -> Result<(), Self::Error>;

    /// A native histogram.
    ///
    /// # Errors
    /// To end the parsing.
    fn histogram(&mut self, sample: HistogramEvent<'_>) -> Result<(), Self::Error>;

    /// An exemplar of the last sample or histogram.
    ///
    /// # Errors
    /// To end the parsing.
    fn exemplar(&mut self, exemplar: ExemplarEvent<'_>) -> Result<(), Self::Error> {
        let _ = exemplar;
        Ok(())
    }

    /// Something said about a metric family.
    ///
    /// # Errors
    /// To end the parsing.
    fn metadata(&mut self, family: &str, metadata: MetadataEvent<'_>) -> Result<(), Self::Error> {
        let _ = (family, metadata);
        Ok(())
    }
}

/// A float sample of a page.
#[derive(Clone, Copy, Debug)]
pub struct SampleEvent<'a> {
    /// Whose sample.
    pub series: SeriesText<'a>,
    /// Its value; a NaN is [`NORMAL_NAN`](crate::batch::NORMAL_NAN).
    pub value: f64,
    /// Unix milliseconds, where the page gives them.
    pub timestamp: Option<i64>,
    /// When counting began, in Unix milliseconds, where the page says so.
    pub created: Option<i64>,
}

/// A native histogram of a page.
#[derive(Clone, Debug)]
pub struct HistogramEvent<'a> {
    /// Whose histogram.
    pub series: SeriesText<'a>,
    /// The distribution.
    pub histogram: Histogram,
    /// Unix milliseconds, where the page gives them.
    pub timestamp: Option<i64>,
    /// When counting began, in Unix milliseconds, where the page says so.
    pub created: Option<i64>,
}

/// Which series a sample belongs to.
#[derive(Clone, Copy, Debug)]
pub enum SeriesText<'a> {
    /// The one that the sink just recognised.
    Expected,
    /// One to look up.
    Raw(RawSeries<'a>),
}

/// A series as a page writes it.
#[derive(Clone, Copy, Debug)]
pub struct RawSeries<'a> {
    /// The text, such as `name{label="value"}`: the key to remember the series by. Within one page format, equal texts are equal labels
    /// unless the type of their family changed.
    pub text: &'a [u8],
    /// How the text is to be read.
    pub form: RawForm,
    /// The kind that the page last gave; decides whether `le` and `quantile` are written in their canonical form.
    pub kind: MetricKind,
    /// The unit that the page last gave.
    pub unit: &'a str,
}

/// How the text of a series is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawForm {
    /// As a line of a text format.
    Text,
    /// As the protobuf parser wrote it: name and labels between 0xff bytes.
    Separated,
}

/// An exemplar of a page.
#[derive(Clone, Debug)]
pub struct ExemplarEvent<'a> {
    /// Its labels.
    pub labels: &'a LabelsBuilder,
    /// What was observed.
    pub value: f64,
    /// Unix milliseconds, where given.
    pub timestamp: Option<i64>,
}

/// Something a page says about a metric family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataEvent<'a> {
    /// The kind of its metrics.
    Kind(MetricKind),
    /// The help text, unescaped.
    Help(&'a str),
    /// The unit.
    Unit(&'a str),
}

/// How a page is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseOptions {
    /// Longest line of a text format and longest message of the protobuf format, in bytes.
    pub line_limit: usize,
    /// Read native histograms of the protobuf format; otherwise only their classic buckets are.
    pub native_histograms: bool,
    /// Also report the classic buckets of a histogram that is native.
    pub classic_histograms: bool,
    /// Report classic histograms as native ones with custom buckets.
    pub convert_classic_histograms: bool,
    /// Read `_created` samples of OpenMetrics as the start of counting instead of as series.
    pub created_timestamps: bool,
}

impl Default for ParseOptions {
    fn default() -> Self {
        Self {
            line_limit: 16 << 20,
            native_histograms: false,
            classic_histograms: false,
            convert_classic_histograms: false,
            created_timestamps: false,
        }
    }
}

/// Why a page was not read to its end.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ExpositionError<E> {
    /// The page is not what its format says.
    #[error("line {line}: {message}")]
    Syntax {
        /// Line (of a text format) or message (of the protobuf format), counted from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The sink ended it.
    #[error("{0}")]
    Sink(E),
}

impl RawSeries<'_> {
    /// Reads the labels into a builder, which is cleared first. A name that occurs twice is kept in
    /// [`LabelsBuilder::duplicate`].
    ///
    /// # Errors
    /// Where a name or a value is not valid UTF-8, or the text is not one that a parser reported.
    pub fn labels(&self, labels: &mut LabelsBuilder) -> Result<(), String> {
        match self.form {
            RawForm::Text => series_text::read_labels(self.text, self.kind, labels),
            RawForm::Separated => {
                labels.clear();
                let mut parts = self.text.split(|&byte| byte == protobuf::SEPARATOR).map(std::str::from_utf8);
                let mut next =
                    || parts.next().transpose().map_err(|_| "a label is not valid UTF-8".to_owned());
                labels.add(METRIC_NAME, next()?.unwrap_or_default());
                while let Some(name) = next()? {
                    labels.add(name, next()?.ok_or("a label has no value")?);
                }
                Ok(())
            }
        }
    }
}

/// Reads the labels of a series text such as `name{label="value"}` into a builder, which is cleared first.
///
/// # Errors
/// Where the text is not a series.
pub fn parse_series_labels(text: &[u8], labels: &mut LabelsBuilder) -> Result<(), String> {
    series_text::read_labels(text, MetricKind::Unknown, labels)
}

/// Reads a page.
///
/// # Errors
/// Where the page is malformed or the sink ends it; what the sink received until then is to be discarded.
pub fn parse<S: ExpositionSink>(
    format: ExpositionFormat,
    page: &[u8],
    options: &ParseOptions,
    sink: &mut S,
) -> Result<(), ExpositionError<S::Error>> {
    if format == ExpositionFormat::PrometheusProto {
        return protobuf::parse(page, options, sink);
    }
    if options.convert_classic_histograms {
        let mut converter = convert::Converter::new(sink, options.classic_histograms);
        parse_text(format, page, options, &mut converter)?;
        return converter.finish().map_err(ExpositionError::Sink);
    }
    parse_text(format, page, options, sink)
}

fn parse_text<S: ExpositionSink>(
    format: ExpositionFormat,
    page: &[u8],
    options: &ParseOptions,
    sink: &mut S,
) -> Result<(), ExpositionError<S::Error>> {
    match format {
        ExpositionFormat::OpenMetrics0_0_1 | ExpositionFormat::OpenMetrics1_0_0 => {
            openmetrics::parse(page, options, sink)
        }
        _ => text::parse(page, options, sink),
    }
}

#[cfg(test)]
mod tests;
