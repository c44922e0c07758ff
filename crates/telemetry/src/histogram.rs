//! Native histograms as Prometheus defines them: exponential buckets (schemas −4 to 8) or custom bounds (schema −53), with integer or
//! float counts.

use thiserror::Error;

use crate::batch::STALE_NAN;

/// The schema of histograms whose bucket bounds are given one by one.
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;
/// The coarsest exponential schema.
pub const EXPONENTIAL_SCHEMA_MIN: i32 = -4;
/// The finest exponential schema.
pub const EXPONENTIAL_SCHEMA_MAX: i32 = 8;

/// A native histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// What is known about counter resets.
    pub reset_hint: CounterResetHint,
    /// Resolution: bucket bounds grow by 2^(2^−schema); or [`CUSTOM_BUCKETS_SCHEMA`].
    pub schema: i32,
    /// Width of the zero bucket.
    pub zero_threshold: f64,
    /// Sum of the observations; [`STALE_NAN`] marks the end of the series.
    pub sum: f64,
    /// Where the positive buckets lie.
    pub positive_spans: Vec<Span>,
    /// Where the negative buckets lie.
    pub negative_spans: Vec<Span>,
    /// How many observations there are in all and in each bucket.
    pub counts: HistogramCounts,
    /// Upper bounds of the buckets, ascending, without +Inf; empty for exponential schemas.
    pub custom_values: Vec<f64>,
}

/// Observation counts of a histogram.
#[derive(Clone, Debug, PartialEq)]
pub enum HistogramCounts {
    /// Whole observations.
    Integer {
        /// All observations.
        count: u64,
        /// Those in the zero bucket.
        zero_count: u64,
        /// Positive buckets: the first count, then differences to the bucket before.
        positive_deltas: Vec<i64>,
        /// Negative buckets, in the same way.
        negative_deltas: Vec<i64>,
    },
    /// Observations that may be fractions, as results of computations are.
    Float {
        /// All observations.
        count: f64,
        /// Those in the zero bucket.
        zero_count: f64,
        /// Counts of the positive buckets.
        positive_counts: Vec<f64>,
        /// Counts of the negative buckets.
        negative_counts: Vec<f64>,
    },
}

/// A run of neighbouring buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Gap to the run before, or for the first run the index it starts at.
    pub offset: i32,
    /// Number of buckets.
    pub length: u32,
}

/// What is known about counter resets between a histogram and the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CounterResetHint {
    /// Nothing.
    #[default]
    Unknown,
    /// The counter was reset.
    Reset,
    /// The counter was not reset.
    NotReset,
    /// It is a gauge: resets do not apply.
    Gauge,
}
