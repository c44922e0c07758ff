//! How calls between components, preparations and tasks fail.

use std::fmt;

use invar_policy::Refusal;
use std::time::Duration;

/// Why a batch was not accepted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The same batch may be offered again, after `after` if that is known.
    #[error("{reason}")]
    Retryable {
        /// How long to wait at least.
        after: Option<Duration>,
        /// Why.
        reason: String,
    },
    /// The batch will never be accepted.
    #[error("{reason}")]
    Permanent {
        /// Why.
        reason: String,
    },
    /// The generation under which the call ran is being retired: offer the same batch to the next one.
    #[error("the call was cancelled")]
    Cancelled,
}

impl DeliveryError {
    /// A retryable error without a delay.
    pub fn retryable(reason: impl Into<String>) -> Self {
        Self::Retryable { after: None, reason: reason.into() }
    }

    /// A permanent error.
    pub fn permanent(reason: impl Into<String>) -> Self {
        Self::Permanent { reason: reason.into() }
    }

    /// Whether offering the batch again may help.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        !matches!(self, Self::Permanent { .. })
    }
}

/// What kind of obstacle stopped a preparation; decides whether trying again without a change makes sense.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Hash)]
pub enum PrepareErrorKind {
    /// The arguments cannot work.
    Invalid,
    /// Something exclusive is taken: an address, a directory.
    Resource,
    /// Reading or writing failed.
    Io,
    /// A secret could not be resolved.
    Secret,
    /// The component panicked.
    Panic,
}

impl PrepareErrorKind {
    /// Whether the same arguments may succeed later.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Resource | Self::Io | Self::Secret)
    }

    /// The word that logs and the API use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Resource => "resource",
            Self::Io => "io",
            Self::Secret => "secret",
            Self::Panic => "panic",
        }
    }
}

impl fmt::Display for PrepareErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an instance or a state could not be made. Never contains secrets.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct PrepareError {
    /// What kind of obstacle.
    pub kind: PrepareErrorKind,
    /// What is wrong, in one line.
    pub message: String,
    /// What to do about it, if that can be said.
    pub help: Option<String>,
}

impl PrepareError {
    /// An error of `kind`.
    pub fn new(kind: PrepareErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), help: None }
    }

    /// The arguments cannot work.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(PrepareErrorKind::Invalid, message)
    }

    /// Something exclusive is taken.
    pub fn resource(message: impl Into<String>) -> Self {
        Self::new(PrepareErrorKind::Resource, message)
    }

    /// The ceiling of the host's settings does not allow it.
    #[must_use]
    pub fn not_allowed(refusal: Refusal) -> Self {
        Self::invalid(refusal.message).with_help(refusal.help)
    }

    /// Reading or writing failed; `what` names the path or address.
    pub fn io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        // It names the path itself. Where a link leads may change, so that it is tried again as any file is.
        if let Some(refusal) = Refusal::behind(error) {
            return Self::new(PrepareErrorKind::Io, &*refusal.message).with_help(&*refusal.help);
        }
        Self::new(PrepareErrorKind::Io, format!("{what}: {error}"))
    }

    /// A secret could not be resolved.
    pub fn secret(message: impl Into<String>) -> Self {
        Self::new(PrepareErrorKind::Secret, message)
    }

    /// Adds the help line.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl From<std::io::Error> for PrepareError {
    fn from(error: std::io::Error) -> Self {
        Self::new(PrepareErrorKind::Io, error.to_string())
    }
}

/// Why a component's task ended in failure. Never contains secrets.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct RunError(pub String);

impl RunError {
    /// An error with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl From<std::io::Error> for RunError {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}
