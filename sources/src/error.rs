//! What a source says when it cannot give a snapshot: one class per way of reacting.
//!
//! The class decides how soon the poller asks again and whether a person has to act. Nothing in an
//! error is ever a credential: addresses are redacted before they get here.

use std::fmt;
use std::time::Duration;

use crate::snapshot::SourceName;

/// How the agent reacts to a failure of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// The network or the server hiccuped: names, connects, time-outs, 408, 425, 5xx, early end.
    /// Retried with exponential backoff.
    Transient,
    /// The server asks for patience: 429, or 403 with an exhausted rate limit.
    RateLimited {
        /// How long the server asked us to wait, as it said it (the poller bounds it to 1 s..=1 h).
        after: Option<Duration>,
    },
    /// 401: the credential is not, or no longer, accepted.
    AuthExpired,
    /// 403 although the credential is known: a permission is missing.
    Forbidden,
    /// 404, or a reference that does not exist. The last good snapshot stays.
    NotFound,
    /// The content is not what was promised: digest mismatch, an odd redirect.
    Integrity,
    /// The settings cannot work as they are; nothing is retried until they change or someone asks.
    Stalled,
    /// A revision was reached and refused. Only another revision or other settings help.
    Rejected(Rejection),
}

/// Why a reachable revision was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// More bytes or files than the limits allow.
    Limits,
    /// A symbolic link leaves the repository, is absolute, loops, or is more than eight hops long.
    SymlinkEscape,
    /// A file is a Git LFS pointer instead of its content.
    LfsPointer,
    /// A file name that is unsafe on some file system.
    Name,
    /// A tag names another object than before.
    TagMoved,
    /// The branch does not contain the commit that was applied before, or a manifest's version does not go up.
    History,
    /// Nothing there: a repository without commits, a folder without files.
    EmptySource,
    /// Not the kind of thing configuration can be read from (a binary, a folder where a file belongs).
    Shape,
    /// A signature is missing or not from an allowed signer.
    Verification,
}

impl Rejection {
    /// The word used in statuses and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Limits => "limits",
            Self::SymlinkEscape => "symlink_escape",
            Self::LfsPointer => "lfs_pointer",
            Self::Name => "name",
            Self::TagMoved => "tag_moved",
            Self::History => "history",
            Self::EmptySource => "empty_source",
            Self::Shape => "shape",
            Self::Verification => "verification",
        }
    }

    /// What stays, and what has to change for something else to come.
    fn outlook(self) -> &'static str {
        match self {
            Self::Limits => "what was read last stays in use; publish or select less, or raise `limits`",
            Self::SymlinkEscape => {
                "what was read last stays in use; let links lead to files within what is published"
            }
            Self::LfsPointer => "what was read last stays in use; publish the file itself",
            Self::Name => "what was read last stays in use; give it another name",
            Self::TagMoved => "what was read last stays in use; make a new tag",
            Self::History => "what was read last stays in use; publish on top of it",
            Self::EmptySource => {
                "what was read last stays in use; publish what is selected, or select something else"
            }
            Self::Shape => "what was read last stays in use; check the address, and what is published there",
            Self::Verification => "what was read last stays in use; sign what is published",
        }
    }
}

impl ErrorClass {
    /// Whether somebody may be tampering: content that is not what was promised, or not from who has to sign it.
    #[must_use]
    pub fn is_security_concern(&self) -> bool {
        matches!(
            self,
            Self::Integrity
                | Self::Rejected(Rejection::Verification | Rejection::TagMoved | Rejection::History)
        )
    }

    /// The word used in statuses and metrics: `transient`, `rate_limited`, `rejected`, …
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::RateLimited { .. } => "rate_limited",
            Self::AuthExpired => "auth_expired",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Integrity => "integrity",
            Self::Stalled => "stalled",
            Self::Rejected(_) => "rejected",
        }
    }

    /// What the agent does next, for failures that a person can do nothing particular about.
    #[must_use]
    pub fn outlook(&self) -> &'static str {
        match self {
            Self::Transient => {
                "what was read last stays in use; asked again by itself, within 5 min at the latest"
            }
            Self::RateLimited { .. } => {
                "what was read last stays in use; asked again when the server allows it"
            }
            Self::AuthExpired | Self::Forbidden => {
                "what was read last stays in use; asked again in a minute, later every 15 min"
            }
            Self::NotFound => "what was read last stays in use; looked for again at every interval",
            Self::Rejected(rejection) => rejection.outlook(),
            Self::Integrity => "what was read last stays in use until there is something else to read",
            Self::Stalled => "not tried again until the settings change or `invar reconcile` asks for it",
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejection) => write!(f, "rejected ({})", rejection.as_str()),
            other => f.write_str(other.as_str()),
        }
    }
}

/// A failure of a source, ready to be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("source `{source_name}`: {message}")]
pub struct SourceError {
    /// How to react.
    pub class: ErrorClass,
    /// What happened, in one sentence without the source's name.
    pub message: String,
    /// What a person can do about it.
    pub help: Option<String>,
    /// The source that failed.
    pub source_name: SourceName,
}

/// A failure that does not yet know which source it belongs to; used inside this crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) class: ErrorClass,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
    /// Whether a person may say that what was refused is meant.
    pub(crate) may_be_accepted: bool,
}

impl Failure {
    pub(crate) fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), help: None, may_be_accepted: false }
    }

    pub(crate) fn transient(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Transient, message)
    }

    pub(crate) fn stalled(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Stalled, message)
    }

    pub(crate) fn rejected(rejection: Rejection, message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Rejected(rejection), message)
    }

    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn of(self, source_name: &SourceName) -> SourceError {
        SourceError {
            class: self.class,
            message: self.message,
            help: self.help,
            source_name: source_name.clone(),
        }
    }
}
