//! Why a signature is not accepted, as the second half of a sentence about what was signed, and why keys cannot be used.

use std::fmt;
use std::time::SystemTime;

/// Why a signature is not accepted. Reads on after the name of what was signed: “commit 4be21c09 *is not signed*”.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// There is no signature.
    #[error("is not signed")]
    Unsigned,
    /// There is one, of a kind or shape that cannot be read.
    #[error("has a signature that cannot be read: {0}")]
    Malformed(String),
    /// The key is not among those that are trusted.
    #[error("is signed by {key}, which is not among the trusted keys")]
    UnknownKey {
        /// The key that signed, as its tools show it.
        key: String,
    },
    /// The key is trusted, but did not sign these bytes.
    #[error("has a signature of {key} that is not of this content: one of the two was changed")]
    Mismatch {
        /// The key that the signature names.
        key: String,
    },
    /// The key is trusted later only.
    #[error("is signed by {key}, which is not valid before {}", Moment(*.from))]
    NotYetValid {
        /// The key that signed.
        key: String,
        /// When it becomes valid.
        from: SystemTime,
    },
    /// The key, or the signature, was valid once.
    #[error("is signed by {key}, which is not valid any more since {}", Moment(*.since))]
    Expired {
        /// The key that signed.
        key: String,
        /// When it stopped being valid.
        since: SystemTime,
    },
    /// The key was revoked.
    #[error("is signed by {key}, which is revoked")]
    Revoked {
        /// The key that signed.
        key: String,
    },
    /// The signature, or the key, is for something else.
    #[error("is signed by {key} for the namespace `{found}`, where `{wanted}` is asked for")]
    Namespace {
        /// The key that signed.
        key: String,
        /// What the signature is for, or what the key may sign.
        found: String,
        /// What it has to be for.
        wanted: String,
    },
    /// The key is trusted, its owner is not among those who may sign this.
    #[error("is signed by {principal} ({key}), who is not among the `signers`")]
    NotASigner {
        /// Whose key it is.
        principal: String,
        /// The key that signed.
        key: String,
    },
    /// The key or the signature is too weak, or not made for this.
    #[error("is signed by {key}, which is not accepted: {reason}")]
    Unusable {
        /// The key that signed.
        key: String,
        /// Why not.
        reason: String,
    },
}

impl SignatureError {
    /// How close to acceptance it was: of several keys that could have signed, the closest failure is reported.
    pub(crate) fn closeness(&self) -> u8 {
        match self {
            Self::Unsigned | Self::Malformed(_) => 0,
            Self::UnknownKey { .. } => 1,
            Self::Mismatch { .. } => 2,
            Self::Namespace { .. } | Self::Unusable { .. } => 3,
            Self::NotYetValid { .. } | Self::Expired { .. } | Self::Revoked { .. } => 4,
            Self::NotASigner { .. } => 5,
        }
    }
}

/// A moment in UTC, to the second.
struct Moment(SystemTime);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::try_from(self.0) {
            Ok(moment) => write!(f, "{:.0}", moment),
            Err(_) => f.write_str("a time out of range"),
        }
    }
}

/// Why keys cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(pub(crate) String);
