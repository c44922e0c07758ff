//! The data model of the telemetry signals and their wire codecs.
//!
//! Data only: no runtime, no I/O. A label text is interned once in a process-wide symbol table ([`symbol`]); a [`Series`] is an
//! immutable label set of symbols; a [`MetricBatch`] is a shared, ordered [`SeriesList`] plus columns of values. [`exposition`]
//! turns scraped pages into such batches, [`relabel`] rewrites label sets, and the remote-write codecs carry batches over the wire.

pub mod batch;
pub mod exposition;
pub mod histogram;
pub mod labels;
pub mod relabel;
pub mod remote_write;
pub mod series;
pub mod symbol;

#[cfg(test)]
mod conformance;

pub use batch::{
    Exemplar, ExemplarSample, HistogramSample, MetricBatch, MetricKind, MetricMetadata, STALE_NAN,
    Timestamps, is_stale,
};
pub use histogram::Histogram;
pub use labels::{Labels, LabelsBuilder, METRIC_NAME};
pub use relabel::{RelabelAction, RelabelError, RelabelRule, RelabelRules, RelabelSpec, Verdict, relabel};
pub use series::{Series, SeriesList};
pub use symbol::{Symbol, SymbolReader, symbols};
