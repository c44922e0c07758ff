//! Arithmetic on the spans and buckets of a native histogram.

use std::ops::AddAssign;

use super::{HistogramError, Span};

/// The counts that differences stand for. Nonsense wraps instead of panicking; validation refuses it.
pub(super) fn absolute(deltas: &[i64]) -> impl Iterator<Item = i64> {
    deltas.iter().scan(0_i64, |count, &delta| {
        *count = count.wrapping_add(delta);
        Some(*count)
    })
}

/// The differences that stand for counts.
pub(super) fn deltas(mut counts: Vec<i64>) -> Vec<i64> {
    let mut before = 0;
    for count in &mut counts {
        (*count, before) = (count.wrapping_sub(before), *count);
    }
    counts
}

/// All observations in buckets given as differences.
pub(super) fn sum(deltas: &[i64]) -> Result<u64, HistogramError> {
    let mut count = 0_i64;
    let mut sum = 0_u64;
    for &delta in deltas {
        count = count.checked_add(delta).ok_or(HistogramError::NegativeCount)?;
        let count = u64::try_from(count).map_err(|_| HistogramError::NegativeCount)?;
        sum = sum.checked_add(count).ok_or(HistogramError::CountMismatch { buckets: u64::MAX, count })?;
    }
    Ok(sum)
}

pub(super) fn check_spans(spans: &[Span], buckets: usize) -> Result<(), HistogramError> {
    if spans.iter().skip(1).any(|span| span.offset < 0) {
        return Err(HistogramError::NegativeOffset);
    }
    let described = spans.iter().map(|span| u64::from(span.length)).sum();
    if described == buckets as u64 {
        Ok(())
    } else {
        Err(HistogramError::SpansMismatch { spans: described, buckets })
    }
}

pub(super) fn check_custom_bounds(
    bounds: &[f64],
    spans: &[Span],
    buckets: usize,
) -> Result<(), HistogramError> {
    let ascending = bounds.windows(2).all(|pair| pair[0] < pair[1]);
    if !ascending || bounds.iter().any(|bound| bound.is_nan() || *bound == f64::INFINITY) {
        return Err(HistogramError::CustomBounds);
    }
    if spans.iter().any(|span| span.offset < 0) {
        return Err(HistogramError::NegativeOffset);
    }
    check_spans(spans, buckets)?;
    let covered: u64 =
        spans.iter().map(|span| u64::from(span.length) + u64::from(span.offset.unsigned_abs())).sum();
    if covered > bounds.len() as u64 + 1 { Err(HistogramError::CustomBounds) } else { Ok(()) }
}

/// Moves buckets to other indices, which must not change their order, adding up those that meet, and lays the spans anew: without empty
/// buckets, except for gaps of up to `max_empty` between others. `None` where spans and buckets do not add up.
pub(super) fn rebuild<C: Copy + Default + PartialEq + AddAssign>(
    spans: &[Span],
    counts: &[C],
    target: impl Fn(i64) -> i64,
    max_empty: u32,
) -> Option<(Vec<Span>, Vec<C>)> {
    check_spans(spans, counts.len()).ok()?;
    let empty = C::default();
    let mut new_spans: Vec<Span> = Vec::new();
    let mut new_counts: Vec<C> = Vec::new();
    let mut index = 0_i64;
    // The index after the last bucket that was laid.
    let mut end = 0_i64;
    let mut remaining = counts.iter();
    for span in spans {
        index += i64::from(span.offset);
        for _ in 0..span.length {
            let count = *remaining.next()?;
            let at = target(index);
            index += 1;
            if count == empty {
                continue;
            }
            let gap = at - end;
            match new_spans.last_mut() {
                Some(_) if gap < 0 => *new_counts.last_mut()? += count,
                Some(last) if gap <= i64::from(max_empty) => {
                    new_counts.extend((0..gap).map(|_| empty));
                    new_counts.push(count);
                    last.length += u32::try_from(gap).ok()? + 1;
                    end = at + 1;
                }
                _ => {
                    new_spans.push(Span { offset: i32::try_from(gap).ok()?, length: 1 });
                    new_counts.push(count);
                    end = at + 1;
                }
            }
        }
    }
    Some((new_spans, new_counts))
}
