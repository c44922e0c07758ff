//! Signatures of AWS, version 4, with the credentials that the settings name or that AWS's own chain finds: the
//! environment, shared files with profiles, web identities, containers, and the metadata service of machines.

mod connector;
mod credentials;
mod web_identity;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use http::{HeaderMap, HeaderName};
use invar_syntax::secret::Secret;

use crate::IdentityError;
use crate::cache::Cache;
use crate::surroundings::{Surroundings, sensitive};

pub use self::connector::{AnswerTooLong, sdk_http_client};

const CLOUD: &str = "AWS";
/// The service that is signed for unless the settings say otherwise: Amazon Managed Service for Prometheus.
const DEFAULT_SERVICE: &str = "aps";

/// What a signature is made of.
#[derive(Clone, Debug, Default)]
pub struct AwsSettings {
    /// The region; empty for what the environment or the profile says.
    pub region: String,
    /// The key's id; empty, with the key, for AWS's own chain.
    pub access_key: String,
    /// The key.
    pub secret_key: Secret,
    /// What goes with a temporary key; empty for none.
    pub session_token: Secret,
    /// The profile of the shared files; empty for what the environment says.
    pub profile: String,
    /// A role to assume; empty for none.
    pub role_arn: String,
    /// What the role's owner wants to hear.
    pub external_id: String,
    /// How the role's session is called; empty for `invar-` and the time.
    pub role_session_name: String,
    /// A file with a token of another identity provider, which is exchanged for credentials of the role.
    pub web_identity_token_file: Option<PathBuf>,
    /// Another address of the service that hands out credentials of roles; empty for that of the region.
    pub sts_endpoint: String,
    /// Whether the role is assumed at an endpoint validated by FIPS 140.
    pub use_fips_sts_endpoint: bool,
    /// The service that is signed for; empty for `aps`.
    pub service_name: String,
}

/// Credentials that the settings name or that AWS's own chain finds, kept until shortly before they expire.
#[derive(Debug)]
pub struct AwsCredentials {
    settings: AwsSettings,
    cache: Cache<Signer>,
}

pub(crate) struct AwsIdentity {
    credentials: AwsCredentials,
    surroundings: Surroundings,
}

/// Who signs, and for where.
#[derive(Debug)]
struct Signer {
    credentials: Credentials,
    region: String,
}

// === impl AwsCredentials ===

impl AwsCredentials {
    /// Credentials by these settings. Fetches nothing yet.
    #[must_use]
    pub fn new(settings: AwsSettings) -> Self {
        Self { settings, cache: Cache::new(CLOUD) }
    }

    /// Fetches them if it is time to.
    ///
    /// # Errors
    /// When there are none in good time.
    pub async fn refresh(&self, surroundings: &Surroundings) -> Result<(), IdentityError> {
        self.get(surroundings).await.map(drop)
    }

    /// Forgets them: a server says that they have expired.
    pub fn expired(&self) {
        self.cache.forget();
    }

    /// The credentials as the libraries of AWS take them, which are to keep none themselves.
    #[must_use]
    pub fn provider(self: &Arc<Self>, surroundings: Surroundings) -> SharedCredentialsProvider {
        SharedCredentialsProvider::new(Provider { credentials: Arc::clone(self), surroundings })
    }

    async fn get(&self, surroundings: &Surroundings) -> Result<Arc<Signer>, IdentityError> {
        self.cache.get(|| credentials::fetch(&self.settings, surroundings)).await
    }
}

#[derive(Debug)]
struct Provider {
    credentials: Arc<AwsCredentials>,
    surroundings: Surroundings,
}

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async move {
            let signer = self.credentials.get(&self.surroundings).await;
            signer.map(|signer| signer.credentials.clone()).map_err(CredentialsError::provider_error)
        })
    }
}

// === impl AwsIdentity ===

impl AwsIdentity {
    pub(crate) fn new(settings: AwsSettings, surroundings: Surroundings) -> Self {
        Self { credentials: AwsCredentials::new(settings), surroundings }
    }

    pub(crate) fn refused(&self) {
        self.credentials.cache.discard();
    }

    pub(crate) async fn headers(&self, request: &reqwest::Request) -> Result<HeaderMap, IdentityError> {
        let signer = self.credentials.get(&self.surroundings).await?;
        self.sign(&signer, request)
    }

    fn sign(&self, signer: &Signer, request: &reqwest::Request) -> Result<HeaderMap, IdentityError> {
        let unsignable = |message: String| IdentityError::Unsignable { message };
        let body = match request.body() {
            None => &[][..],
            Some(body) => body.as_bytes().ok_or_else(|| unsignable("its body is a stream".to_owned()))?,
        };
        let signed = request.headers().iter().filter(|(name, _)| is_signed(name));
        let signed: Vec<(&str, &str)> = signed
            .map(|(name, value)| value.to_str().map(|value| (name.as_str(), value)))
            .collect::<Result<_, _>>()
            .map_err(|_| unsignable("a header is no text".to_owned()))?;
        let service = match self.credentials.settings.service_name.as_str() {
            "" => DEFAULT_SERVICE,
            service => service,
        };
        let identity = signer.credentials.clone().into();
        let parameters = SigningParams::builder()
            .identity(&identity)
            .region(&signer.region)
            .name(service)
            .time(self.surroundings.now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| unsignable(error.to_string()))?
            .into();
        let signable = SignableRequest::new(
            request.method().as_str(),
            request.url().as_str(),
            signed.into_iter(),
            SignableBody::Bytes(body),
        );
        let signed = signable.and_then(|request| sign(request, &parameters));
        let (instructions, _) = signed.map_err(|error| unsignable(error.to_string()))?.into_parts();
        let mut headers = HeaderMap::new();
        for (name, value) in instructions.headers() {
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| unsignable(format!("{name:?} is no header name")))?;
            headers.insert(name, sensitive(value)?);
        }
        Ok(headers)
    }
}

/// What is signed of a request's headers: what AWS demands, and what gives the body its meaning. Others may be rewritten
/// on the way, and a signature over them would then be wrong.
fn is_signed(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "host" | "content-type" | "content-encoding")
        || name.starts_with("x-prometheus-")
        || name.starts_with("x-vault-")
}

/// For how long credentials are valid, seen from `now`.
fn lifetime(credentials: &Credentials, now: std::time::SystemTime) -> Option<Duration> {
    credentials.expiry().map(|end| end.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests;
