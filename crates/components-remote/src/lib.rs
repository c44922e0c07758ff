//! The `local.*` and `remote.*` components, and what `import.*` blocks name: content that configurations are made of, read
//! from files and from elsewhere.

mod document;
mod kubernetes;
mod local_file;
mod modules;
mod reach;
mod remote_http;
mod remote_s3;
pub mod remotecfg;
#[cfg(test)]
mod running;
mod vault;

use invar_blocks::HttpClientArguments;
use invar_engine::Registry;

pub use kubernetes::{RemoteKubernetesConfigMap, RemoteKubernetesSecret};
pub use local_file::LocalFile;
pub use modules::{LoadedModule, ModuleLoader};
pub use remote_http::RemoteHttp;
pub use remote_s3::RemoteS3;
pub use vault::RemoteVault;

/// Adds these components to a registry.
#[must_use]
pub fn register(registry: Registry) -> Registry {
    registry
        .with::<LocalFile>()
        .with::<RemoteHttp>()
        .with::<RemoteKubernetesConfigMap>()
        .with::<RemoteKubernetesSecret>()
        .with::<RemoteS3>()
        .with::<RemoteVault>()
        .with_import_client::<HttpClientArguments>()
}
