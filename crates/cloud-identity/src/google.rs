//! Tokens of Google: for a service account by its signed assertion, for a user by a refresh token, or from the metadata
//! service of the machine. Which of them, the credentials' file or the environment says (application default
//! credentials).

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use invar_syntax::secret::Secret;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use url::Url;

use crate::IdentityError;
use crate::cache::{Cache, Fetched};
use crate::surroundings::{Surroundings, sensitive};
use crate::token_endpoint::TokenEndpoint;

const CLOUD: &str = "Google";
/// Where tokens are issued unless the credentials say otherwise.
const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";
/// The metadata service; `GCE_METADATA_HOST` replaces it.
const METADATA_HOST: &str = "metadata.google.internal";
/// The grant of a signed assertion (RFC 7523).
const JWT_GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// The longest that Google lets an assertion live.
const ASSERTION_LIFETIME: Duration = Duration::from_secs(3600);

/// What an identity of Google is made of.
#[derive(Clone, Debug)]
pub struct GoogleSettings {
    /// A file with credentials; empty for what the environment has.
    pub credentials_file: String,
    /// What the token is for.
    pub scope: String,
}

pub(crate) struct GoogleIdentity {
    settings: GoogleSettings,
    surroundings: Surroundings,
    cache: Cache<Token>,
}

struct Token {
    access: Secret,
    /// The project that is charged, which credentials of users name.
    quota_project: Option<String>,
}

/// A file of credentials, as `gcloud` and the console write them.
#[derive(Deserialize)]
struct Credentials {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    client_email: String,
    #[serde(default)]
    private_key: String,
    #[serde(default)]
    private_key_id: String,
    #[serde(default)]
    client_id: String,
    #[serde(default)]
    client_secret: String,
    #[serde(default)]
    refresh_token: String,
    #[serde(default)]
    token_uri: String,
    quota_project_id: Option<String>,
}

// === impl GoogleIdentity ===

impl GoogleIdentity {
    pub(crate) fn new(settings: GoogleSettings, surroundings: Surroundings) -> Self {
        Self { settings, surroundings, cache: Cache::new(CLOUD) }
    }

    pub(crate) async fn headers(&self) -> Result<HeaderMap, IdentityError> {
        let token = self.cache.get(|| self.fetch()).await?;
        let value = Secret::new(format!("Bearer {}", token.access.expose()));
        let mut headers = HeaderMap::from_iter([(AUTHORIZATION, sensitive(value.expose())?)]);
        if let Some(project) = &token.quota_project {
            headers.insert(HeaderName::from_static("x-goog-user-project"), sensitive(project)?);
        }
        Ok(headers)
    }

    pub(crate) fn refused(&self) {
        self.cache.discard();
    }

    async fn fetch(&self) -> Result<Fetched<Token>, IdentityError> {
        let Some(file) = self.file().await else { return self.by_metadata().await };
        let text = self.endpoint().read(&file).await?;
        // What serde says may quote a key.
        let credentials: Credentials = serde_json::from_str(text.expose())
            .map_err(|_| self.failure(format!("{file}: is no JSON with credentials")))?;
        let token_url = match credentials.token_uri.as_str() {
            "" => TOKEN_URL,
            given => given,
        };
        let url = Url::parse(token_url).map_err(|_| self.failure(format!("{file}: token_uri is no URL")))?;
        let fetched = match credentials.kind.as_str() {
            "service_account" => {
                let assertion = self.assertion(&credentials, token_url, &file)?;
                let form = [("grant_type", JWT_GRANT), ("assertion", assertion.expose())];
                self.endpoint().post(&url, &form).await?
            }
            "authorized_user" => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("client_id", credentials.client_id.as_str()),
                    ("client_secret", credentials.client_secret.as_str()),
                    ("refresh_token", credentials.refresh_token.as_str()),
                ];
                self.endpoint().post(&url, &form).await?
            }
            kind => {
                return Err(self.failure(format!(
                    "{file}: credentials of type {kind:?} are not supported: use service_account or authorized_user"
                )));
            }
        };
        let quota_project = credentials.quota_project_id.clone().filter(|project| !project.is_empty());
        Ok(Fetched { value: Token { access: fetched.value, quota_project }, lifetime: fetched.lifetime })
    }

    /// The file with the credentials, if there is one.
    async fn file(&self) -> Option<String> {
        if !self.settings.credentials_file.is_empty() {
            return Some(self.settings.credentials_file.clone());
        }
        let variable = |name: &str| self.surroundings.variable(name);
        if let Some(file) = variable("GOOGLE_APPLICATION_CREDENTIALS") {
            return Some(file);
        }
        let directory = variable("CLOUDSDK_CONFIG").map(std::path::PathBuf::from);
        let directory = directory.or_else(|| Some(Path::new(&variable("HOME")?).join(".config/gcloud")))?;
        let file = directory.join("application_default_credentials.json");
        let exists = tokio::fs::try_exists(&file).await.unwrap_or(false);
        exists.then(|| file.display().to_string())
    }

    async fn by_metadata(&self) -> Result<Fetched<Token>, IdentityError> {
        let host = self.surroundings.variable("GCE_METADATA_HOST");
        let host = host.as_deref().unwrap_or(METADATA_HOST);
        let mut url =
            Url::parse(&format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token"))
                .map_err(|_| self.failure("GCE_METADATA_HOST is no host"))?;
        url.query_pairs_mut().append_pair("scopes", &self.settings.scope);
        let flavor = (HeaderName::from_static("metadata-flavor"), HeaderValue::from_static("Google"));
        let fetched = self.endpoint().get(url, HeaderMap::from_iter([flavor])).await?;
        let token = Token { access: fetched.value, quota_project: None };
        Ok(Fetched { value: token, lifetime: fetched.lifetime })
    }

    /// A JWT that the service account's key has signed.
    fn assertion(
        &self,
        credentials: &Credentials,
        audience: &str,
        file: &str,
    ) -> Result<Secret, IdentityError> {
        let now = self.surroundings.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let header = serde_json::json!({ "alg": "RS256", "typ": "JWT", "kid": credentials.private_key_id });
        let claims = serde_json::json!({
            "iss": credentials.client_email,
            "scope": self.settings.scope,
            "aud": audience,
            "iat": now.as_secs(),
            "exp": (now + ASSERTION_LIFETIME).as_secs(),
        });
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = format!("{header}.{claims}");
        let unusable = || self.failure(format!("{file}: private_key is no RSA key that can be used"));
        let key =
            PrivateKeyDer::from_pem_slice(credentials.private_key.as_bytes()).map_err(|_| unusable())?;
        let pair = match &key {
            PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
            _ => return Err(unusable()),
        };
        let pair = pair.map_err(|_| unusable())?;
        let mut signature = vec![0; pair.public().modulus_len()];
        let random = ring::rand::SystemRandom::new();
        pair.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).map_err(|_| unusable())?;
        Ok(Secret::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }

    fn endpoint(&self) -> TokenEndpoint<'_> {
        TokenEndpoint { cloud: CLOUD, surroundings: &self.surroundings }
    }

    fn failure(&self, message: impl Into<String>) -> IdentityError {
        self.endpoint().failure(message)
    }
}

#[cfg(test)]
mod tests;
