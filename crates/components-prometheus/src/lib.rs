//! The `prometheus.*` components.
//!
//! Samples enter through `prometheus.scrape` and `prometheus.receive_http`, pass `prometheus.relabel`, and leave
//! through the log and the endpoints of `prometheus.remote_write`.

mod exporter_self;
mod meters;
mod receive_http;
mod relabel;
pub mod remote_write;
mod scrape;
mod services;
pub mod wal;

pub use exporter_self::{ExporterSelf, ExporterSelfExports};
pub use receive_http::{ReceiveHttp, ReceiveHttpArguments};
pub use relabel::{Relabel, RelabelArguments, RelabelExports};
pub use scrape::{ClusteringBlock, Scrape, ScrapeArguments};
pub use services::{InProcessAddress, LogLimit};

use invar_engine::Registry;

/// Adds the components of this crate.
#[must_use]
pub fn register(registry: Registry) -> Registry {
    registry
        .with::<ReceiveHttp>()
        .with::<remote_write::RemoteWrite>()
        .with::<ExporterSelf>()
        .with::<Relabel>()
        .with::<Scrape>()
}
