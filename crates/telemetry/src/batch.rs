//! A batch of metrics: what travels along the routes of a pipeline.
//!
//! Float samples are columns beside a shared [`SeriesList`]; native histograms, exemplars and metadata, which are rarer, carry their
//! series with them.

use std::sync::Arc;

use crate::histogram::Histogram;
use crate::labels::Labels;
use crate::series::{Series, SeriesList};

/// The value that marks a series as ended. Only these very bits do: a NaN that a target exposes is a value.
pub const STALE_NAN: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// The bits that a NaN exposed by a target is stored as.
pub const NORMAL_NAN: f64 = f64::from_bits(0x7ff8_0000_0000_0001);

/// Whether a value is the marker of an ended series.
#[must_use]
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN.to_bits()
}

/// Samples of many series, immutable once it travels.
#[derive(Clone, Debug)]
pub struct MetricBatch {
    /// The series of the float samples.
    pub series: Arc<SeriesList>,
    /// One value per series of the list.
    pub values: Vec<f64>,
    /// When the values were observed.
    pub timestamps: Timestamps,
    /// Native histograms.
    pub histograms: Vec<HistogramSample>,
    /// Exemplars of float samples and of histograms.
    pub exemplars: Vec<ExemplarSample>,
    /// What is known about metric families; shared from scrape to scrape.
    pub metadata: Vec<Arc<MetricMetadata>>,
    /// When counting began: index into `series` and Unix milliseconds, ascending by index, only where known.
    pub created: Vec<(u32, i64)>,
}

/// When the values of a batch were observed, in Unix milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Timestamps {
    /// All at once.
    One(i64),
    /// One per value.
    Each(Vec<i64>),
}

/// A native histogram observed for a series.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramSample {
    /// Whose histogram.
    pub series: Series,
    /// Unix milliseconds.
    pub timestamp: i64,
    /// The distribution.
    pub histogram: Arc<Histogram>,
    /// When counting began, in Unix milliseconds, where known.
    pub created: Option<i64>,
}

/// An exemplar of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct ExemplarSample {
    /// Whose exemplar.
    pub series: Series,
    /// The observation.
    pub exemplar: Exemplar,
}

/// A single observation that stands for others, with labels that point outside, such as a trace id.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Labels of the observation.
    pub labels: Labels,
    /// What was observed.
    pub value: f64,
    /// Unix milliseconds, where given.
    pub timestamp: Option<i64>,
}

/// What a target says about a metric family.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MetricMetadata {
    /// Name of the family.
    pub family: String,
    /// Kind of its metrics.
    pub kind: MetricKind,
    /// Help text; empty where not given.
    pub help: String,
    /// Unit; empty where not given.
    pub unit: String,
}

/// Kinds of metrics, as OpenMetrics names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MetricKind {
    /// Not said, or said to be unknown or untyped.
    #[default]
    Unknown,
    /// A count that only grows.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// A distribution in cumulative buckets.
    Histogram,
    /// A distribution in buckets that may shrink.
    GaugeHistogram,
    /// A distribution in quantiles.
    Summary,
    /// Facts as labels.
    Info,
    /// States as labels, one of them on.
    StateSet,
}

impl MetricKind {
    /// The name Prometheus uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
        }
    }
}

impl MetricBatch {
    /// A batch of float samples observed at one moment.
    ///
    /// # Panics
    /// If there is not one value per series.
    #[must_use]
    pub fn new(series: Arc<SeriesList>, values: Vec<f64>, timestamps: Timestamps) -> Self {
        assert_eq!(series.len(), values.len(), "a batch holds one value per series");
        if let Timestamps::Each(each) = &timestamps {
            assert_eq!(each.len(), values.len(), "a batch holds one timestamp per value");
        }
        Self {
            series,
            values,
            timestamps,
            histograms: Vec::new(),
            exemplars: Vec::new(),
            metadata: Vec::new(),
            created: Vec::new(),
        }
    }

    /// How many samples it carries: float samples and native histograms.
    #[must_use]
    pub fn sample_count(&self) -> usize {
        self.values.len() + self.histograms.len()
    }

    /// Whether it carries nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sample_count() == 0 && self.exemplars.is_empty() && self.metadata.is_empty()
    }

    /// The float samples: series, Unix milliseconds, value.
    pub fn samples(&self) -> impl ExactSizeIterator<Item = (&Series, i64, f64)> {
        self.series
            .iter()
            .zip(&self.values)
            .enumerate()
            .map(|(at, (series, &value))| (series, self.timestamps.get(at), value))
    }
}

impl Timestamps {
    /// The moment of the value at an index, in Unix milliseconds.
    #[must_use]
    pub fn get(&self, index: usize) -> i64 {
        match self {
            Self::One(timestamp) => *timestamp,
            Self::Each(each) => each[index],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_marker_is_stale() {
        assert!(is_stale(STALE_NAN) && STALE_NAN.is_nan());
        assert!(!is_stale(NORMAL_NAN) && !is_stale(f64::NAN) && !is_stale(0.0));
    }

    #[test]
    fn samples_are_columns() {
        let series = |name: &str| Series::new(&[("__name__", name)].into_iter().collect());
        let list = SeriesList::new([series("a"), series("b")]);
        let batch = MetricBatch::new(Arc::clone(&list), vec![1.0, 2.0], Timestamps::Each(vec![10, 20]));
        let samples: Vec<(i64, f64)> = batch.samples().map(|(_, at, value)| (at, value)).collect();
        assert_eq!(samples, [(10, 1.0), (20, 2.0)]);
        assert_eq!((batch.sample_count(), batch.is_empty()), (2, false));
        assert_eq!(MetricBatch::new(list, vec![0.0; 2], Timestamps::One(5)).timestamps.get(1), 5);
    }

    #[test]
    #[should_panic(expected = "one value per series")]
    fn values_without_series_are_refused() {
        drop(MetricBatch::new(SeriesList::new([]), vec![1.0], Timestamps::One(0)));
    }
}
