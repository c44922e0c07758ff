//! Secret stores and the handles by which values of theirs are used.
//!
//! A secret is named, never pasted: `<store>/<path>#<field>`. A [`SecretStore`] reads what a path
//! names, as one indivisible [`SecretSnapshot`] of fields; a [`SecretHandle`] is a shared cell that
//! always shows the newest snapshot, so that a rotation reaches its users without a new
//! configuration. [`Credential`] is how settings name a secret. [`kubernetes`] reads those of a cluster; [`build`]
//! makes the stores that settings describe. Nothing here
//! prints a value.

mod age;
mod credential;
mod duration;
mod environment;
mod error;
mod exec;
mod fields;
mod file;
mod file_watch;
mod handle;
pub mod kubernetes;
mod reference;
mod settings;
mod snapshot_files;
mod status;
mod store;
mod systemd;

pub use age::{AgeSettings, AgeStore};
pub use credential::Credential;
pub use environment::EnvironmentStore;
pub use error::SecretError;
pub use exec::{ExecCommand, ExecOutput, ExecSettings, ExecStore};
pub use fields::{FieldFormat, decode_fields};
pub use file::{FileStore, read_secret_file};
pub use handle::{Lease, SecretHandle, SecretSnapshot};
pub use invar_syntax::Secret;
pub use reference::{ReferenceError, SecretReference};
pub use settings::{
    EnvironmentSettings, FileSettings, StoreEnvironment, StoreSettings, StoreSettingsError, StoreTable,
    SystemdSettings, build, unknown_store,
};
pub use snapshot_files::SnapshotFiles;
pub use status::{
    ChangeClass, SecretShape, SecretState, SecretStatus, SecretTrial, SecretUser, TrialOutcome,
};
pub use store::{BoxFuture, SecretStore, SecretStores, StoreKind};
pub use systemd::SystemdStore;
