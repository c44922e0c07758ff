//! Vault and `OpenBao`: values of any engine, by logical paths.
//!
//! [`VaultStore`] puts a [`VaultClient`] behind [`SecretStore`](crate::SecretStore); the component `remote.vault` uses the
//! client as it is. A client has one session, whose task alone logs in and renews the token; one gate for each mount,
//! which limits what it is asked; and a memory of what is mounted where and of which paths are forbidden. Nothing is sent
//! twice by itself, except where the server says that the same question will have another answer. The connection is a
//! [`VaultTransport`]: [`HttpTransport`] here, a script in tests. Waits, chance and the time of day come from [`Pace`] and
//! [`World`].

mod answer;
mod auth;
mod body;
mod carry;
mod client;
mod denied;
mod failure;
mod gate;
mod http;
mod link;
mod login;
mod mounts;
mod pace;
mod place;
mod reading;
mod session;
mod settings;
mod store;
#[cfg(test)]
mod tests;
mod token;
mod transport;

pub use answer::{Answer, Grant, Health, Tree, Wrapping, decode_answer, decode_errors};
pub use auth::{
    AppRoleAuth, AwsAuth, AwsProof, AzureAuth, CertAuth, CustomAuth, Ec2Signature, GcpAuth, GcpProof,
    JwtAuth, KubernetesAuth, PasswordAuth, VaultAuth, WrappedTokenAuth,
};
pub use client::{ClientParts, ClientSettings, VaultClient};
pub use failure::{VaultFailure, VaultFailureKind};
pub use http::HttpTransport;
pub use login::CloudAccess;
pub use pace::{Pace, World};
pub use reading::Reading;
pub use settings::{KvVersion, ReadMethod, VaultProxy, VaultRead, VaultSettings};
pub use store::VaultStore;
pub use transport::{VaultMethod, VaultRequest, VaultResponse, VaultTransport, VaultTransportError};
