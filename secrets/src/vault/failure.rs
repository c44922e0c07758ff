//! Why something was not had of a server; the kinds are the ways of reacting.

use std::time::Duration;

use crate::error::SecretError;

/// What may be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VaultFailureKind {
    /// There is nothing there.
    Missing,
    /// A permission has to change.
    Denied,
    /// Another time it may work.
    Unavailable,
    /// Somebody else may know it; never tried again.
    Compromised,
    /// What was asked, or what came, cannot be used.
    Invalid,
}

/// A failure. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct VaultFailure {
    /// What may be done about it.
    pub kind: VaultFailureKind,
    /// What happened, where, and what to do.
    pub message: String,
    /// How long to leave the server alone.
    pub retry_after: Option<Duration>,
    /// Whether it is about how much is asked, and not about what.
    pub(crate) limited: bool,
}

impl VaultFailure {
    pub(crate) fn new(kind: VaultFailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None, limited: false }
    }

    pub(crate) fn limited(message: impl Into<String>, wait: Duration) -> Self {
        Self { limited: true, ..Self::unavailable(message).after(wait) }
    }

    pub(crate) fn missing(message: impl Into<String>) -> Self {
        Self::new(VaultFailureKind::Missing, message)
    }

    pub(crate) fn denied(message: impl Into<String>) -> Self {
        Self::new(VaultFailureKind::Denied, message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(VaultFailureKind::Unavailable, message)
    }

    pub(crate) fn compromised(message: impl Into<String>) -> Self {
        Self::new(VaultFailureKind::Compromised, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(VaultFailureKind::Invalid, message)
    }

    pub(crate) fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    pub(crate) fn prefixed(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Whether trying again later, with nothing changed by a person, can help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.kind == VaultFailureKind::Unavailable
    }

    /// The same about a secret.
    pub(crate) fn about(self, reference: &str) -> SecretError {
        let (reference, reason) = (reference.to_owned(), self.message);
        match self.kind {
            VaultFailureKind::Missing => SecretError::Missing { reference, reason },
            VaultFailureKind::Denied => SecretError::Denied { reference, reason },
            VaultFailureKind::Unavailable => {
                SecretError::Unavailable { reference, reason, retry_after: self.retry_after }
            }
            VaultFailureKind::Compromised => SecretError::Compromised { reference, reason },
            VaultFailureKind::Invalid => SecretError::Invalid { reference, reason },
        }
    }
}

impl From<SecretError> for VaultFailure {
    fn from(error: SecretError) -> Self {
        let kind = match &error {
            SecretError::Missing { .. } | SecretError::UnknownStore { .. } => VaultFailureKind::Missing,
            SecretError::Denied { .. } => VaultFailureKind::Denied,
            SecretError::Unavailable { .. } => VaultFailureKind::Unavailable,
            SecretError::Compromised { .. } => VaultFailureKind::Compromised,
            SecretError::Invalid { .. } => VaultFailureKind::Invalid,
        };
        let retry_after = match &error {
            SecretError::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        };
        Self { retry_after, ..Self::new(kind, error.to_string()) }
    }
}
