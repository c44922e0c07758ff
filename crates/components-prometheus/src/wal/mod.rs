//! The write-ahead log of `prometheus.remote_write`: endpoint-neutral records in segment files, and the legs that read them
//! back to send them.
//!
//! [`Log`] appends, [`Reader`] reads, [`Legs`] says who reads from where under which configuration. Nothing here knows HTTP.

mod frame;
mod legs;
mod log;
mod position;
mod reader;
mod record;
mod series_table;
#[cfg(test)]
mod tests;

pub use legs::{EndpointIdentity, Leg, LegId, Legs, LegsFile};
pub use log::{AppendError, Appended, Log, LogCounters, LogOptions};
pub use position::Position;
pub use reader::{Content, Definitions, Entry, Reader};
pub use record::HistogramRecord;

pub(crate) use frame::list_segments as segments_in;
