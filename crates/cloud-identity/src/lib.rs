//! Who the agent is towards the three large clouds: a signature of AWS, a token of Azure or of Google, as headers for one
//! request at a time.
//!
//! The room is a wall around the libraries of AWS, so that a change elsewhere never rebuilds them; it knows no component
//! and no argument by name. It spawns nothing and is idle until a request asks. Credentials are fetched by one request at
//! a time, renewed before they expire, and never part of an error or of `Debug`.
//!
//! Read first: [`CloudIdentity`].

mod aws;
mod azure;
mod cache;
mod google;
mod instance;
mod surroundings;
#[cfg(test)]
mod testing;
mod token_endpoint;

use std::fmt;

use http::HeaderMap;

pub use aws::{AnswerTooLong, AwsCredentials, AwsSettings, sdk_http_client};
pub use azure::{AzureCloud, AzureCredential, AzureSettings};
pub use google::GoogleSettings;
pub use instance::{
    AwsDocument, AzureInstance, aws_document, azure_instance, google_instance_token, google_signed_token,
};
pub use surroundings::Surroundings;

use crate::aws::AwsIdentity;
use crate::azure::AzureIdentity;
use crate::google::GoogleIdentity;

/// An identity that authenticates requests. It fetches what it needs when the first request asks.
pub struct CloudIdentity(Kind);

enum Kind {
    Aws(Box<AwsIdentity>),
    Azure(Box<AzureIdentity>),
    Google(Box<GoogleIdentity>),
}

/// Why a request cannot be authenticated. Holds no credential.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IdentityError {
    /// There are no credentials, or nobody exchanges them for a token, at the moment.
    #[error("no {cloud} credentials: {message}")]
    Unavailable {
        /// Whose.
        cloud: &'static str,
        /// Why not.
        message: String,
    },
    /// The request itself cannot be signed.
    #[error("the request cannot be signed: {message}")]
    Unsignable {
        /// Why not.
        message: String,
    },
    /// No client for the endpoints that hand out credentials can be made.
    #[error("no client for credentials can be made: {message}")]
    Client {
        /// Why not.
        message: String,
    },
}

// === impl CloudIdentity ===

impl CloudIdentity {
    /// Signatures of AWS, version 4.
    #[must_use]
    pub fn aws(settings: AwsSettings, surroundings: Surroundings) -> Self {
        Self(Kind::Aws(Box::new(AwsIdentity::new(settings, surroundings))))
    }

    /// Tokens of Microsoft Entra ID.
    #[must_use]
    pub fn azure(settings: AzureSettings, surroundings: Surroundings) -> Self {
        Self(Kind::Azure(Box::new(AzureIdentity::new(settings, surroundings))))
    }

    /// Tokens of Google.
    #[must_use]
    pub fn google(settings: GoogleSettings, surroundings: Surroundings) -> Self {
        Self(Kind::Google(Box::new(GoogleIdentity::new(settings, surroundings))))
    }

    /// The headers that authenticate `request` as it stands: method, URL, headers and body. Values are marked sensitive.
    ///
    /// # Errors
    /// When there are no credentials in good time, or the request cannot be signed.
    pub async fn headers(&self, request: &reqwest::Request) -> Result<HeaderMap, IdentityError> {
        match &self.0 {
            Kind::Aws(identity) => identity.headers(request).await,
            Kind::Azure(identity) => identity.headers().await,
            Kind::Google(identity) => identity.headers().await,
        }
    }

    /// Forgets the credentials: a server refused them.
    pub fn refused(&self) {
        match &self.0 {
            Kind::Aws(identity) => identity.refused(),
            Kind::Azure(identity) => identity.refused(),
            Kind::Google(identity) => identity.refused(),
        }
    }
}

impl fmt::Debug for CloudIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Aws(_) => "CloudIdentity(AWS)",
            Kind::Azure(_) => "CloudIdentity(Azure)",
            Kind::Google(_) => "CloudIdentity(Google)",
        })
    }
}
