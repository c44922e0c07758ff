//! Secret stores and the handles by which values of theirs are used.
//!
//! A secret is named, never pasted: `<store>/<path>#<field>`. A [`SecretStore`] reads what a path
//! names, as one indivisible [`SecretSnapshot`] of fields. [`SecretStores`] reads each path once, keeps it up to date, and
//! answers with live secrets that always show the newest value, so that a rotation reaches its users without a new
//! configuration. [`Credential`] is how settings name a secret. [`kubernetes`] reads those of a cluster, [`vault`] those of a
//! Vault or `OpenBao` server; [`build`]
//! makes the stores that settings describe. Nothing here
//! prints a value.

mod age;
mod cell;
mod clock;
mod credential;
mod duration;
mod environment;
mod error;
mod exec;
mod field_cell;
mod fields;
mod file;
mod file_watch;
mod keeper;
pub mod kubernetes;
mod memory;
mod missing;
#[cfg(test)]
mod missing_tests;
mod offline;
#[cfg(test)]
mod outage_tests;
mod reference;
pub mod schedule;
mod settings;
mod shape;
mod snapshot;
mod snapshot_files;
mod status;
mod store;
mod stores;
mod systemd;
#[cfg(test)]
mod tests;
mod tls_settings;
pub mod vault;

pub use age::{AgeSettings, AgeStore};
pub use credential::Credential;
pub use environment::EnvironmentStore;
pub use error::SecretError;
pub use exec::{ExecCommand, ExecOutput, ExecSettings, ExecStore};
pub use fields::{FieldFormat, decode_fields};
pub use file::{FileStore, read_secret_file};
pub use invar_syntax::Secret;
pub use memory::{SecretMemory, StoreMemory};
pub use missing::WhenMissing;
pub use offline::{EncryptedOffline, OfflineCache, OfflineSettings, RecordError, open_record, seal_record};
pub use reference::{ReferenceError, SecretReference};
pub use settings::{
    EnvironmentSettings, FileSettings, StoreEnvironment, StoreSettings, StoreSettingsError, StoreTable,
    SystemdSettings, build, unknown_store,
};
pub use snapshot::{Lease, SecretSnapshot};
pub use snapshot_files::{SnapshotFile, SnapshotFiles};
pub use status::{
    ChangeClass, SecretShape, SecretState, SecretStatus, SecretTrial, SecretUser, SecretsStanding,
    TrialOutcome,
};
pub use store::{BoxFuture, SecretStore, StoreKind};
pub use stores::SecretStores;
pub use systemd::SystemdStore;
pub use tls_settings::TlsSettings;
