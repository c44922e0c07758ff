//! The `prometheus.*` components.
//!
//! Samples enter through `prometheus.scrape` and `prometheus.receive_http`, pass `prometheus.relabel`, and leave
//! through the log and the endpoints of `prometheus.remote_write`.

mod receive_http;
pub mod remote_write;
mod scrape;
mod services;
pub mod wal;

pub use receive_http::{ReceiveHttp, ReceiveHttpArguments};
pub use scrape::{ClusteringBlock, Scrape, ScrapeArguments};
pub use services::{InProcessAddress, LogLimit};

use invar_engine::Registry;

/// Adds the components of this crate.
#[must_use]
pub fn register(registry: Registry) -> Registry {
    registry.with::<ReceiveHttp>().with::<remote_write::RemoteWrite>().with::<Scrape>()
}
