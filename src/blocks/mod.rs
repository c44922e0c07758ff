//! Blocks that configure the agent itself rather than the pipeline: `http`, `livedebugging`,
//! `tracing`, `remotecfg`. To the engine each is
//! a node like any other, so that a swap, a rollback and a changed export reach it the same way; what it changes is a service
//! that the binary keeps. The blocks are Alloy's (<https://grafana.com/docs/alloy/latest/reference/config-blocks/>).

pub(crate) mod http;
pub(crate) mod livedebugging;
pub(crate) mod remotecfg;
mod setting;
mod tracing;

use invar_engine::Registry;

/// Adds the blocks to a registry.
pub(crate) fn register(registry: Registry) -> Registry {
    registry
        .with::<http::Http>()
        .with::<livedebugging::LiveDebugging>()
        .with::<tracing::Tracing>()
        .with::<remotecfg::RemoteConfig>()
}
