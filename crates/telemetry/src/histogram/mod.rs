//! Native histograms as Prometheus defines them: exponential buckets (schemas −4 to 8) or custom bounds (schema −53), with integer or
//! float counts.

mod buckets;
mod classic;

use thiserror::Error;

use crate::batch::{STALE_NAN, is_stale};

pub use classic::{ClassicHistogram, ClassicHistogramError};

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

/// Why a histogram is not valid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HistogramError {
    /// The schema is neither exponential nor custom.
    #[error("schema {0} is neither between -4 and 8 nor -53")]
    Schema(i32),
    /// A span that is not the first starts before the end of the one before it.
    #[error("a span has a negative offset")]
    NegativeOffset,
    /// Spans and buckets do not add up.
    #[error("spans describe {spans} buckets, but there are {buckets}")]
    SpansMismatch {
        /// Buckets that the spans describe.
        spans: u64,
        /// Buckets that are there.
        buckets: usize,
    },
    /// A count is below zero.
    #[error("a bucket or the whole has a negative count")]
    NegativeCount,
    /// The buckets and the total contradict each other.
    #[error("the buckets hold {buckets} observations, but the count is {count}")]
    CountMismatch {
        /// Observations in all buckets.
        buckets: u64,
        /// The count that is given.
        count: u64,
    },
    /// Custom bounds are not finite and ascending, or do not cover the spans.
    #[error("custom bounds must be finite, ascending and one for every bucket but the last")]
    CustomBounds,
    /// A custom schema with a zero bucket or negative buckets, or an exponential one with custom bounds.
    #[error("the fields do not fit the schema")]
    FieldsOfOtherSchema,
    /// The resolution cannot be reduced that far.
    #[error("there are more buckets than allowed and the resolution cannot be reduced further")]
    TooManyBuckets,
}

impl Histogram {
    /// The marker of an ended histogram series.
    #[must_use]
    pub fn stale() -> Self {
        Self { sum: STALE_NAN, ..Self::empty() }
    }

    /// A histogram of no observations, in schema 0.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            reset_hint: CounterResetHint::Unknown,
            schema: 0,
            zero_threshold: 0.0,
            sum: 0.0,
            positive_spans: Vec::new(),
            negative_spans: Vec::new(),
            counts: HistogramCounts::Integer {
                count: 0,
                zero_count: 0,
                positive_deltas: Vec::new(),
                negative_deltas: Vec::new(),
            },
            custom_values: Vec::new(),
        }
    }

    /// Whether this is the marker of an ended series.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        is_stale(self.sum)
    }

    /// Whether the buckets have bounds given one by one.
    #[must_use]
    pub fn has_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// Number of positive and negative buckets.
    #[must_use]
    pub fn bucket_count(&self) -> usize {
        match &self.counts {
            HistogramCounts::Integer { positive_deltas, negative_deltas, .. } => {
                positive_deltas.len() + negative_deltas.len()
            }
            HistogramCounts::Float { positive_counts, negative_counts, .. } => {
                positive_counts.len() + negative_counts.len()
            }
        }
    }

    /// The same histogram with float counts.
    #[must_use]
    pub fn to_float(&self) -> Self {
        let counts = match &self.counts {
            HistogramCounts::Integer { count, zero_count, positive_deltas, negative_deltas } => {
                HistogramCounts::Float {
                    count: *count as f64,
                    zero_count: *zero_count as f64,
                    positive_counts: buckets::absolute(positive_deltas).map(|count| count as f64).collect(),
                    negative_counts: buckets::absolute(negative_deltas).map(|count| count as f64).collect(),
                }
            }
            float @ HistogramCounts::Float { .. } => float.clone(),
        };
        Self { counts, ..self.clone() }
    }

    /// Checks what Prometheus checks before it stores a histogram.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn validate(&self) -> Result<(), HistogramError> {
        let (positive, negative) = match &self.counts {
            HistogramCounts::Integer { positive_deltas, negative_deltas, .. } => {
                (positive_deltas.len(), negative_deltas.len())
            }
            HistogramCounts::Float { positive_counts, negative_counts, .. } => {
                (positive_counts.len(), negative_counts.len())
            }
        };
        if self.has_custom_buckets() {
            let zero_count = match self.counts {
                HistogramCounts::Integer { zero_count, .. } => zero_count as f64,
                HistogramCounts::Float { zero_count, .. } => zero_count,
            };
            if zero_count != 0.0
                || self.zero_threshold != 0.0
                || !self.negative_spans.is_empty()
                || negative > 0
            {
                return Err(HistogramError::FieldsOfOtherSchema);
            }
            buckets::check_custom_bounds(&self.custom_values, &self.positive_spans, positive)?;
        } else if (EXPONENTIAL_SCHEMA_MIN..=EXPONENTIAL_SCHEMA_MAX).contains(&self.schema) {
            buckets::check_spans(&self.positive_spans, positive)?;
            buckets::check_spans(&self.negative_spans, negative)?;
            if !self.custom_values.is_empty() {
                return Err(HistogramError::FieldsOfOtherSchema);
            }
        } else {
            return Err(HistogramError::Schema(self.schema));
        }
        self.validate_counts()
    }

    fn validate_counts(&self) -> Result<(), HistogramError> {
        match &self.counts {
            HistogramCounts::Integer { count, zero_count, positive_deltas, negative_deltas } => {
                let in_buckets = buckets::sum(positive_deltas)?
                    .checked_add(buckets::sum(negative_deltas)?)
                    .and_then(|sum| sum.checked_add(*zero_count))
                    .ok_or(HistogramError::CountMismatch { buckets: u64::MAX, count: *count })?;
                // NaN observations are in no bucket and make the sum NaN.
                let fits = if self.sum.is_nan() { in_buckets <= *count } else { in_buckets == *count };
                if fits {
                    Ok(())
                } else {
                    Err(HistogramError::CountMismatch { buckets: in_buckets, count: *count })
                }
            }
            HistogramCounts::Float { count, zero_count, positive_counts, negative_counts } => {
                let negative = positive_counts
                    .iter()
                    .chain(negative_counts)
                    .chain([count, zero_count])
                    .any(|&count| count < 0.0);
                if negative { Err(HistogramError::NegativeCount) } else { Ok(()) }
            }
        }
    }

    /// Removes empty buckets, except for gaps of up to `max_empty` between others, which cost less than another span would.
    ///
    /// A histogram whose spans and buckets do not add up is left as it is.
    pub fn compact(&mut self, max_empty: u32) {
        self.rebuild(|index| index, max_empty);
    }

    /// Halves the resolution as often as needed to arrive at a coarser schema.
    ///
    /// # Errors
    /// Where the buckets are custom, the schema is not a coarser exponential one, or spans and buckets do not add up.
    pub fn reduce_resolution(&mut self, schema: i32) -> Result<(), HistogramError> {
        if self.has_custom_buckets() || schema >= self.schema || schema < EXPONENTIAL_SCHEMA_MIN {
            return Err(HistogramError::Schema(schema));
        }
        // Wider than any index once the schema is nine halvings away: then only the sign is left.
        let shift = self.schema.saturating_sub(schema).min(62);
        // Buckets are closed above: index n holds (base^(n-1), base^n].
        if !self.rebuild(|index| ((index - 1) >> shift) + 1, 0) {
            return Err(HistogramError::SpansMismatch { spans: 0, buckets: self.bucket_count() });
        }
        self.schema = schema;
        Ok(())
    }

    /// Reduces the resolution until no more than `limit` buckets remain.
    ///
    /// # Errors
    /// Where that is not possible.
    pub fn limit_buckets(&mut self, limit: usize) -> Result<(), HistogramError> {
        while self.bucket_count() > limit {
            if self.has_custom_buckets() || self.schema <= EXPONENTIAL_SCHEMA_MIN {
                return Err(HistogramError::TooManyBuckets);
            }
            self.reduce_resolution(self.schema - 1)?;
        }
        Ok(())
    }

    /// Moves every bucket to the index that `target` gives it, adding up what meets. False where the histogram is inconsistent.
    fn rebuild(&mut self, target: impl Fn(i64) -> i64, max_empty: u32) -> bool {
        match &mut self.counts {
            HistogramCounts::Integer { positive_deltas, negative_deltas, .. } => {
                let positive = buckets::absolute(positive_deltas).collect::<Vec<_>>();
                let negative = buckets::absolute(negative_deltas).collect::<Vec<_>>();
                let Some((positive_spans, positive)) =
                    buckets::rebuild(&self.positive_spans, &positive, &target, max_empty)
                else {
                    return false;
                };
                let Some((negative_spans, negative)) =
                    buckets::rebuild(&self.negative_spans, &negative, &target, max_empty)
                else {
                    return false;
                };
                (*positive_deltas, *negative_deltas) = (buckets::deltas(positive), buckets::deltas(negative));
                (self.positive_spans, self.negative_spans) = (positive_spans, negative_spans);
            }
            HistogramCounts::Float { positive_counts, negative_counts, .. } => {
                let Some((positive_spans, positive)) =
                    buckets::rebuild(&self.positive_spans, positive_counts, &target, max_empty)
                else {
                    return false;
                };
                let Some((negative_spans, negative)) =
                    buckets::rebuild(&self.negative_spans, negative_counts, &target, max_empty)
                else {
                    return false;
                };
                (*positive_counts, *negative_counts) = (positive, negative);
                (self.positive_spans, self.negative_spans) = (positive_spans, negative_spans);
            }
        }
        true
    }
}

/// The finest schema whose buckets grow by at least `factor`, as Prometheus picks it for a minimum bucket factor.
#[must_use]
pub fn schema_for_factor(factor: f64) -> i32 {
    // Below this factor no supported schema is fine enough anyway.
    let factor = if factor > 1.0 { factor } else { 1.00271 };
    let schema = (-factor.log2().log2()).floor();
    schema.clamp(f64::from(EXPONENTIAL_SCHEMA_MIN), f64::from(EXPONENTIAL_SCHEMA_MAX)) as i32
}

#[cfg(test)]
mod tests;
