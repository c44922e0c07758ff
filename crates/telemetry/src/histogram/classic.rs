//! Classic histograms turned into native ones: cumulative buckets collected one by one become a histogram with custom bounds.

use thiserror::Error;

use super::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Histogram, HistogramCounts, Span};

/// Collects the samples of one classic histogram.
#[derive(Clone, Debug, Default)]
pub struct ClassicHistogram {
    /// Upper bound and cumulative count, ascending by bound.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
    error: Option<ClassicHistogramError>,
}

/// Why classic samples make no histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ClassicHistogramError {
    /// A bound is not a number.
    #[error("a bucket bound is NaN")]
    NanBound,
    /// A count is below zero.
    #[error("a count is negative")]
    NegativeCount,
    /// A bucket holds less than the one below it.
    #[error("bucket counts are not cumulative")]
    NotCumulative,
    /// The last bucket and the count differ.
    #[error("the count differs from that of the last bucket")]
    CountMismatch,
}

impl ClassicHistogram {
    /// Forgets everything, keeping the buffer.
    pub fn clear(&mut self) {
        self.buckets.clear();
        self.count = None;
        self.sum = 0.0;
        self.error = None;
    }

    /// A `_bucket` sample; of a bound given twice the first counts.
    pub fn set_bucket(&mut self, bound: f64, count: f64) {
        if self.error.is_some() {
            return;
        }
        if bound.is_nan() {
            self.error = Some(ClassicHistogramError::NanBound);
        } else if count < 0.0 {
            self.error = Some(ClassicHistogramError::NegativeCount);
        } else {
            let at = self.buckets.partition_point(|bucket| bucket.0 < bound);
            let next = self.buckets.get(at);
            if next.is_some_and(|next| next.0 == bound) {
                return;
            }
            let above_lower = at == 0 || count >= self.buckets[at - 1].1;
            if !above_lower || next.is_some_and(|next| count > next.1) {
                self.error = Some(ClassicHistogramError::NotCumulative);
                return;
            }
            self.buckets.insert(at, (bound, count));
        }
    }

    /// The `_count` sample.
    pub fn set_count(&mut self, count: f64) {
        if count < 0.0 {
            self.error.get_or_insert(ClassicHistogramError::NegativeCount);
        } else {
            self.count = Some(count);
        }
    }

    /// The `_sum` sample.
    pub fn set_sum(&mut self, sum: f64) {
        self.sum = sum;
    }

    /// The histogram: with integer counts where all counts are whole.
    ///
    /// # Errors
    /// Where the samples contradict each other.
    pub fn convert(&mut self) -> Result<Histogram, ClassicHistogramError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let count = self.count.or(self.buckets.last().map(|bucket| bucket.1)).unwrap_or_default();
        if self.buckets.last().is_none_or(|bucket| bucket.0 != f64::INFINITY) {
            self.buckets.push((f64::INFINITY, count));
        }
        let whole = |count: f64| count == count.round() && count < 9e18;
        let integer = whole(count) && self.buckets.iter().all(|bucket| whole(bucket.1));
        // The bucket of +Inf was added above where it was missing.
        if self.buckets.last().is_none_or(|bucket| bucket.1 != count) {
            return Err(ClassicHistogramError::CountMismatch);
        }
        let mut below = 0.0;
        let counts: Vec<f64> = self
            .buckets
            .iter()
            .map(|bucket| {
                let own = bucket.1 - below;
                below = bucket.1;
                own
            })
            .collect();
        let length = u32::try_from(counts.len()).unwrap_or(u32::MAX);
        let counts = if integer {
            let absolute = counts.iter().map(|&count| count as i64).collect();
            HistogramCounts::Integer {
                count: count as u64,
                zero_count: 0,
                positive_deltas: super::buckets::deltas(absolute),
                negative_deltas: Vec::new(),
            }
        } else {
            HistogramCounts::Float {
                count,
                zero_count: 0.0,
                positive_counts: counts,
                negative_counts: Vec::new(),
            }
        };
        let mut histogram = Histogram {
            reset_hint: CounterResetHint::Unknown,
            schema: CUSTOM_BUCKETS_SCHEMA,
            zero_threshold: 0.0,
            sum: self.sum,
            positive_spans: vec![Span { offset: 0, length }],
            negative_spans: Vec::new(),
            counts,
            custom_values: self
                .buckets
                .iter()
                .map(|bucket| bucket.0)
                .filter(|&bound| bound != f64::INFINITY)
                .collect(),
        };
        // As Prometheus does: short gaps of whole counts are cheaper than spans.
        histogram.compact(if integer { 2 } else { 0 });
        Ok(histogram)
    }
}
