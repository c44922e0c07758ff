//! Argument blocks and values that components of several ecosystems share: the HTTP client and the HTTP server of a
//! configuration, relabelling rules, and targets.
//!
//! Everything here is derived from arguments and belongs to a component's state: nothing spawns tasks, nothing is
//! global but the system's trusted certificates.
//!
//! Read first: [`HttpClient`] and [`Target`].

pub mod file_watch;
pub mod http_client;
pub mod http_server;
pub mod relabel;
pub mod target;

pub use file_watch::{Detector, FileWatch};
pub use http_client::{
    Http1ClientArguments, HttpClient, HttpClientArguments, HttpClientError, HttpClientOptions,
    RequestAuthenticator,
};
pub use http_server::{HttpServerBlock, ServerArguments};
pub use invar_tls::PemError;
pub use relabel::{RelabelRuleBlock, RelabelRules};
pub use target::{Target, targets_equal};
