//! Signatures of AWS, version 4, with the credentials that the settings name or that AWS's own chain finds: the
//! environment, shared files with profiles, web identities, containers, and the metadata service of machines.

mod connector;
mod credentials;

use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use http::{HeaderMap, HeaderName};
use invar_syntax::secret::Secret;

use crate::IdentityError;
use crate::cache::Cache;
use crate::surroundings::{Surroundings, sensitive};

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
    /// The profile of the shared files; empty for what the environment says.
    pub profile: String,
    /// A role to assume; empty for none.
    pub role_arn: String,
    /// What the role's owner wants to hear.
    pub external_id: String,
    /// Whether the role is assumed at an endpoint validated by FIPS 140.
    pub use_fips_sts_endpoint: bool,
    /// The service that is signed for; empty for `aps`.
    pub service_name: String,
}

pub(crate) struct AwsIdentity {
    settings: AwsSettings,
    surroundings: Surroundings,
    cache: Cache<Signer>,
}

/// Who signs, and for where.
struct Signer {
    credentials: Credentials,
    region: String,
}

impl AwsIdentity {
    pub(crate) fn new(settings: AwsSettings, surroundings: Surroundings) -> Self {
        Self { settings, surroundings, cache: Cache::new(CLOUD) }
    }

    pub(crate) fn refused(&self) {
        self.cache.discard();
    }

    pub(crate) async fn headers(&self, request: &reqwest::Request) -> Result<HeaderMap, IdentityError> {
        let signer = self.cache.get(|| credentials::fetch(&self.settings, &self.surroundings)).await?;
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
        let service = match self.settings.service_name.as_str() {
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
    matches!(name, "host" | "content-type" | "content-encoding") || name.starts_with("x-prometheus-")
}

/// For how long credentials are valid, seen from `now`.
fn lifetime(credentials: &Credentials, now: std::time::SystemTime) -> Option<Duration> {
    credentials.expiry().map(|end| end.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests;
