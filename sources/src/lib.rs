//! Where configuration comes from: Git, S3, HTTP, OCI registries, files, and the scheduling that polls them.
//!
//! A [`Source`] yields [`Snapshot`]s: immutable sets of files with the revision they come from. The
//! [`Poller`] owns one task per source, spreads and limits their work, and publishes the newest
//! snapshots and a status per source. What a snapshot means is decided elsewhere.

mod address;
mod backoff;
mod connection;
mod diagnose;
mod error;
mod file;
mod git;
mod github_app;
mod http;
mod http_status;
mod oci;
mod path;
mod pin;
mod poller;
mod s3;
mod settings;
mod snapshot;
mod source;
mod status;
mod substitute;
mod tls;
mod tunnel;
mod units;
mod verify;

pub use address::{AddressError, parse_address, redact};
pub use backoff::{FixedJitter, Jitter, RandomJitter};
pub use diagnose::{Examination, Examiner, Finding, Severity, WRITTEN_OUT, credentials_of};
#[doc(hidden)]
pub use diagnose::{Validity, certificate_validity};
pub use error::{ErrorClass, Rejection, SourceError};
pub use file::FileSource;
#[doc(hidden)]
pub use git::wire_format;
pub use git::{CommitError, GitModule, GitSource, read_commit, ssh_host};
pub use http::HttpSource;
#[doc(hidden)]
pub use http::document_format;
pub use http_status::http_refusal;
pub use invar_secrets::Credential;
pub use oci::OciSource;
#[doc(hidden)]
pub use oci::artifact_format;
pub use path::normalize_path;
pub use pin::{PIN_FILE, PINNED_FOLDERS, Pin, PinError, is_pinned, pin_path};
pub use poller::{Clock, ConcurrencyLimits, Poller, PollerOptions, ReconcileError, SystemClock};
pub use s3::{Manifest, ManifestError, S3Source};
pub use settings::{
    AuthSettings, AuthorizationSettings, AwsSettings, BasicSettings, FileSettings, GitSettings,
    GithubAppSettings, HistoryPolicy, HostKeyPolicy, HttpSettings, LimitSettings, Notify, OAuth2Settings,
    OciSettings, OfflineVerification, ProxySettings, S3Settings, SettingsError, SignatureSettings,
    SourceSettings, SshSettings, Submodules, TlsSettings, VerifyMode, VerifySettings, normalize,
};
pub use snapshot::{Files, Notice, NoticeKind, Revision, Snapshot, SourceKind, SourceName, tree_digest};
pub use source::{BoxFuture, Poll, PollContext, Source, TreeEntry, Vouched};
pub use status::{SourceFailure, SourceState, SourceStatus, SourcesState};
pub use substitute::{AgentAttributes, SubstituteError, substitute};
#[doc(hidden)]
pub use verify::signature_format;
pub use verify::{DetachedKeys, KeyError, SignatureError, Signer, verify_detached};

use std::path::PathBuf;
use std::sync::Arc;

use invar_secrets::SecretStores;

/// What sources need from the agent.
#[derive(Clone, Debug)]
pub struct SourceEnvironment {
    /// Where sources may keep what they fetch; each uses its own folder below.
    pub state_directory: PathBuf,
    /// The stores that credentials of sources come from.
    pub secrets: SecretStores,
}

/// Makes the source that `settings` (normalized and with substitutions done) describe. Does no input or
/// output.
///
/// # Errors
/// [`SourceError`] of class [`ErrorClass::Stalled`] when the settings cannot work.
pub fn open(
    settings: &SourceSettings,
    environment: &SourceEnvironment,
) -> Result<Arc<dyn Source>, SourceError> {
    let unusable = |message: &str| Err(error::Failure::stalled(message).of(&settings.source_name()));
    match settings.kind() {
        Some(SourceKind::Git) => Ok(Arc::new(GitSource::open(settings, environment)?)),
        Some(SourceKind::S3) => Ok(Arc::new(S3Source::open(settings, environment)?)),
        Some(SourceKind::File) => Ok(Arc::new(FileSource::open(settings)?)),
        Some(SourceKind::Http) => Ok(Arc::new(HttpSource::open(settings, environment)?)),
        Some(SourceKind::Oci) => Ok(Arc::new(OciSource::open(settings, environment)?)),
        Some(kind) => unusable(&format!("a source of kind `{kind}` cannot be read yet")),
        None => unusable("the settings name no source, or several"),
    }
}
