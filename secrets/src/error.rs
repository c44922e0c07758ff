//! Why a secret could not be had; the variants are the ways of reacting.

use std::time::Duration;

/// A failure to read a secret. Names the reference, never a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The store has nothing under that path, or no such field.
    #[error("secret `{reference}` is missing: {reason}")]
    Missing {
        /// `<store>/<path>#<field>`.
        reference: String,
        /// What exactly is missing.
        reason: String,
    },
    /// The store is there and says no; a permission has to change.
    #[error("secret `{reference}` is denied: {reason}")]
    Denied {
        /// `<store>/<path>#<field>`.
        reference: String,
        /// Which permission is missing.
        reason: String,
    },
    /// The store cannot be reached now. Values already held stay in use.
    #[error("secret `{reference}` is unavailable: {reason}")]
    Unavailable {
        /// `<store>/<path>#<field>`.
        reference: String,
        /// What went wrong.
        reason: String,
        /// How long the store asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// Somebody else may know the secret: a wrapped value had been unwrapped before. Never tried again by itself.
    #[error("secret `{reference}` may be in other hands: {reason}")]
    Compromised {
        /// `<store>/<path>#<field>`.
        reference: String,
        /// What was seen, and what to do.
        reason: String,
    },
    /// The value has a shape no secret has: empty, too long, not text.
    #[error("secret `{reference}` is not usable: {reason}")]
    Invalid {
        /// `<store>/<path>#<field>`.
        reference: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No store of that name is configured.
    #[error("secret `{reference}`: there is no secret store `{store}`")]
    UnknownStore {
        /// `<store>/<path>#<field>`.
        reference: String,
        /// The name before the first slash.
        store: String,
    },
}

impl SecretError {
    /// The store cannot be reached now, for this reason.
    #[must_use]
    pub fn unavailable(reference: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unavailable { reference: reference.into(), reason: reason.into(), retry_after: None }
    }

    /// The same, of the secret that this reference names.
    #[must_use]
    pub fn of(self, reference: &str) -> Self {
        let reference = reference.to_owned();
        match self {
            Self::Missing { reason, .. } => Self::Missing { reference, reason },
            Self::Denied { reason, .. } => Self::Denied { reference, reason },
            Self::Unavailable { reason, retry_after, .. } => {
                Self::Unavailable { reference, reason, retry_after }
            }
            Self::Compromised { reason, .. } => Self::Compromised { reference, reason },
            Self::Invalid { reason, .. } => Self::Invalid { reference, reason },
            Self::UnknownStore { store, .. } => Self::UnknownStore { reference, store },
        }
    }

    /// Why, without what it is about.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Missing { reason, .. }
            | Self::Denied { reason, .. }
            | Self::Unavailable { reason, .. }
            | Self::Compromised { reason, .. }
            | Self::Invalid { reason, .. } => reason,
            Self::UnknownStore { .. } => "there is no such store",
        }
    }

    /// The same way of failing for another secret, which needs this one as its `part`.
    #[must_use]
    pub(crate) fn of_part(self, reference: &str, part: &str) -> Self {
        let reason = format!("{part}: {self}");
        let reference = reference.to_owned();
        match self {
            Self::Missing { .. } => Self::Missing { reference, reason },
            Self::Denied { .. } => Self::Denied { reference, reason },
            Self::Unavailable { retry_after, .. } => Self::Unavailable { reference, reason, retry_after },
            Self::Compromised { .. } => Self::Compromised { reference, reason },
            Self::Invalid { .. } | Self::UnknownStore { .. } => Self::Invalid { reference, reason },
        }
    }

    /// Whether trying again later, with nothing changed by a person, can help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// An error with its causes, each said once.
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(current) = cause {
        let text = current.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        cause = current.source();
    }
    parts.join(": ")
}
