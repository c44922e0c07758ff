//! Probation: what a candidate is judged by after the swap. [`Judge`] is a pure function over
//! samples of [`Vitals`]; it reads no clock and touches nothing.

mod vitals;

pub use vitals::{Counters, FailedComponent, GroupVitals, MemoryVitals, Vitals};
