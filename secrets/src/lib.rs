//! Secret stores and the handles by which values of theirs are used.
//!
//! A secret is named, never pasted: `<store>/<path>#<field>`. A [`SecretStore`] reads what a path
//! names, as one indivisible [`SecretSnapshot`] of fields; a [`SecretHandle`] is a shared cell that
//! always shows the newest snapshot, so that a rotation reaches its users without a new
//! configuration. [`Credential`] is how settings name a secret. [`kubernetes`] reads those of a cluster, [`vault`] those
//! of a Vault or `OpenBao` server. Nothing here
//! prints a value.

mod credential;
mod environment;
mod error;
mod file;
mod handle;
pub mod kubernetes;
mod reference;
mod store;
pub mod vault;

pub use credential::Credential;
pub use environment::EnvironmentStore;
pub use error::SecretError;
pub use file::{FileStore, read_secret_file};
pub use handle::{Lease, SecretHandle, SecretSnapshot};
pub use invar_syntax::Secret;
pub use reference::{ReferenceError, SecretReference};
pub use store::{BoxFuture, SecretStore, SecretStores, StoreKind};
