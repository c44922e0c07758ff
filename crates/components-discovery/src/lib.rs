//! The `discovery.*` components: where targets come from and how they are rewritten before anything scrapes them.

mod file;
mod relabel;

use invar_engine::Registry;

pub use file::DiscoveryFile;
pub use relabel::DiscoveryRelabel;

/// Adds these components to a registry.
#[must_use]
pub fn register(registry: Registry) -> Registry {
    registry.with::<DiscoveryFile>().with::<DiscoveryRelabel>()
}

/// What discovery components export.
#[derive(invar_syntax::Exports, Clone, Debug, PartialEq)]
pub struct TargetsExports {
    /// The targets, in a stable order.
    pub targets: Vec<invar_blocks::Target>,
}
