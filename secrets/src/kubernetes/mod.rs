//! Kubernetes: Secrets and config maps of a cluster, read one by one and watched by name.
//!
//! A value comes by one way only, a `GET` of the one object ([`KubernetesApi::read`]), for which the permission `get` on
//! that name is enough. A watch ([`ObjectWatch`]) carries metadata and no values, and only ever means *look again*: so a
//! lost, denied or expired watch (410 Gone) costs promptness and never a value. [`KubernetesStore`] puts both behind
//! [`SecretStore`](crate::SecretStore); the `remote.kubernetes.*` components use them as they are. The connection is an
//! [`ApiTransport`]: [`ClusterTransport`] here (in a cluster, by a kubeconfig file, or by settings), the HTTP client of a
//! configuration elsewhere.

mod api;
mod cluster;
mod namespace;
#[cfg(test)]
mod namespace_tests;
mod object;
mod settings;
mod store;
#[cfg(test)]
mod tests;
mod transport;
mod watch;

pub use api::{ApiError, KubernetesApi};
pub use cluster::{ClusterSettings, ClusterTransport, ClusterUse, ServerSettings};
pub use object::{Object, ObjectKind, ObjectName, WatchEvent, decode_object, decode_watch_event};
pub use settings::{KubernetesAuth, KubernetesBasic, KubernetesProxy, KubernetesSettings, KubernetesTls};
pub use store::{KubernetesStore, WatchState};
pub use transport::{ApiRequest, ApiResponse, ApiTransport, BodyStream, TransportError};
pub use watch::{ObjectWatch, WatchNotice};
