//! Probation: what a candidate is judged by after the swap. [`Judge`] is a pure function over
//! samples of [`Vitals`]; it reads no clock and touches nothing.

mod baseline;
mod judge;
mod rules;
mod vitals;

#[cfg(test)]
mod tests;

pub(crate) use baseline::BaselineRecorder;
pub use baseline::{Baseline, GroupBaseline};
pub use judge::{Judge, JudgeOptions, Judgement, RuleSet};
pub use vitals::{Counters, FailedComponent, GroupVitals, MemoryVitals, Vitals};
