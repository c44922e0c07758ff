//! Why an object or a listing cannot be had, in words that say what the store hides. No variant holds a credential.

use std::time::Duration;

use invar_cloud_identity::IdentityError;

/// Why there is no answer to use.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A read on a condition: it is still what the condition names.
    #[error("it is unchanged")]
    NotModified,
    /// A read on a condition: it is another one by now.
    #[error("it changed while it was read")]
    Changed,
    /// There is no such object, or no such version of it.
    #[error("there is no such object ({code}); S3 says so only to those who may list the bucket")]
    NoSuchObject {
        /// The store's word.
        code: String,
    },
    /// There is no such bucket.
    #[error("there is no such bucket ({code})")]
    NoSuchBucket {
        /// The store's word.
        code: String,
    },
    /// A permission is missing, or the object is and the store does not tell.
    #[error("{}", denied(*listing, code))]
    Denied {
        /// Whether it was asked for a listing.
        listing: bool,
        /// The store's word.
        code: String,
    },
    /// The store does not know the key, or the signature is wrong.
    #[error("the store does not accept the credential ({code})")]
    BadCredential {
        /// The store's word.
        code: String,
    },
    /// The credential has expired, and a new one did not help.
    #[error("the credential has expired ({code}), and asking for a new one did not help")]
    Expired {
        /// The store's word.
        code: String,
    },
    /// There is no credential at the moment.
    #[error(transparent)]
    NoCredential(#[from] IdentityError),
    /// The store asks for fewer requests.
    #[error("the store asks for fewer requests ({code})")]
    Busy {
        /// The store's word.
        code: String,
        /// How long it asks to wait.
        after: Option<Duration>,
    },
    /// The store failed, or was not reached.
    #[error("{message}")]
    Unavailable {
        /// What happened.
        message: String,
    },
    /// The store sends us elsewhere, and going there did not help.
    #[error("{}", elsewhere(code, region.as_deref()))]
    Elsewhere {
        /// The store's word.
        code: String,
        /// Where it says the bucket is.
        region: Option<String>,
    },
    /// The clocks are too far apart, and taking over the store's time did not help.
    #[error("the clock of this host is too far from that of the store ({code})")]
    ClockSkew {
        /// The store's word.
        code: String,
    },
    /// More bytes, or more objects, than allowed.
    #[error("{what}")]
    TooMuch {
        /// What there is too much of.
        what: String,
    },
    /// The content is not what its checksum says.
    #[error("the content does not have the checksum that the store gives for it")]
    Corrupt,
    /// No answer of an object store: a login page, say.
    #[error("the answer is not one of an object store: {message}")]
    Shape {
        /// What is wrong with it.
        message: String,
    },
    /// The request is refused for what it is.
    #[error("{}", refused(*status, code, message))]
    Refused {
        /// The status.
        status: u16,
        /// The store's word.
        code: String,
        /// Its sentence.
        message: String,
    },
}

fn denied(listing: bool, code: &str) -> String {
    if listing {
        return format!("the bucket may not be listed with this credential ({code})");
    }
    format!(
        "the object may not be read with this credential ({code}), or it is not there: S3 answers the same for both to \
         those who may not list the bucket"
    )
}

fn elsewhere(code: &str, region: Option<&str>) -> String {
    let place = region.map(|region| format!(": in the region `{region}`")).unwrap_or_default();
    format!("the bucket is elsewhere ({code}){place}")
}

fn refused(status: u16, code: &str, message: &str) -> String {
    let said = if message.is_empty() { String::new() } else { format!(": {message}") };
    match status {
        0 => format!("the request cannot be made{said}"),
        status => format!("the store refuses the request ({status} {code}){said}"),
    }
}

impl StoreError {
    /// What a person can do about it.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoSuchObject { .. } => "check the name; keys are compared to the letter",
            Self::NoSuchBucket { .. } => "check the name of the bucket, and the region or the endpoint",
            Self::Denied { listing: true, .. } => {
                "the credential needs the permission s3:ListBucket on the bucket"
            }
            Self::Denied { listing: false, .. } => {
                "the credential needs s3:GetObject on the objects, and s3:ListBucket to be told what is missing"
            }
            Self::BadCredential { .. } => "check the id and the key, and that they belong to this store",
            Self::Expired { .. } | Self::NoCredential(_) => {
                "check where the credential comes from: keys, profile, role, or the metadata of this machine"
            }
            Self::Elsewhere { .. } => "set `region` to the one the bucket is in",
            Self::ClockSkew { .. } => "set the clock of this host, best by NTP",
            Self::Shape { .. } => {
                "check `endpoint`, and whether a proxy or a login page answers in its place"
            }
            _ => return None,
        })
    }
}
