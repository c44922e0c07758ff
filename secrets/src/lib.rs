//! Secret stores and the handles by which values of theirs are used.
//!
//! A secret is named, never pasted: `<store>/<path>#<field>`. A [`SecretStore`] reads what a path
//! names, as one indivisible [`SecretSnapshot`] of fields. [`SecretStores`] reads each path once, keeps it up to date, and
//! answers with live secrets that always show the newest value, so that a rotation reaches its users without a new
//! configuration. [`Credential`] is how settings name a secret. [`kubernetes`] reads those of a cluster. Nothing here
//! prints a value.

mod cell;
mod clock;
mod credential;
mod environment;
mod error;
mod file;
mod keeper;
pub mod kubernetes;
mod reference;
mod schedule;
mod shape;
mod snapshot;
mod store;
mod stores;
#[cfg(test)]
mod tests;

pub use credential::Credential;
pub use environment::EnvironmentStore;
pub use error::SecretError;
pub use file::{FileStore, read_secret_file};
pub use invar_syntax::Secret;
pub use reference::{ReferenceError, SecretReference};
pub use snapshot::{Lease, SecretSnapshot};
pub use store::{BoxFuture, SecretStore, StoreKind};
pub use stores::{SecretMemory, SecretStores};
