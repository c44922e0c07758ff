//! The `local.*` and `remote.*` components: content that configurations are made of, read from files and from elsewhere.

mod local_file;

use invar_engine::Registry;

pub use local_file::LocalFile;

/// Adds these components to a registry.
#[must_use]
pub fn register(registry: Registry) -> Registry {
    registry.with::<LocalFile>()
}
