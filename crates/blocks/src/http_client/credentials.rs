//! Where a client's secret comes from: its arguments, or a file that is read when it is needed.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderValue;
use invar_syntax::secret::Secret;
use tokio::io::AsyncReadExt as _;

use super::HttpClientError;
use super::arguments::AuthenticationArguments;
use super::oauth2::TokenSource;

/// A credential larger than this is a mistake.
const MAX_SECRET_BYTES: u64 = 1 << 20;
/// How long a credential's file may take (it may lie on a network file system).
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// A secret in the arguments, or in a file that is read at each use so that it can rotate.
#[derive(Clone, Debug)]
pub(crate) enum SecretSource {
    /// The secret itself.
    Inline(Secret),
    /// A file that holds it; surrounding white space is not part of it.
    File(PathBuf),
}

/// How each request is authenticated.
#[derive(Debug)]
pub(super) enum Authentication {
    None,
    Basic { username: String, password: SecretSource },
    Scheme { scheme: String, credentials: SecretSource },
    OAuth2(Box<TokenSource>),
}

// === impl SecretSource ===

impl SecretSource {
    pub(crate) fn new(secret: &Secret, file: &str) -> Self {
        if file.is_empty() { Self::Inline(secret.clone()) } else { Self::File(file.into()) }
    }

    /// The secret as it is now.
    pub(crate) async fn read(&self) -> Result<Secret, HttpClientError> {
        let path = match self {
            Self::Inline(secret) => return Ok(secret.clone()),
            Self::File(path) => path,
        };
        let failed = |source| HttpClientError::File { path: path.clone(), source };
        let reading = async {
            let mut text = String::new();
            let file = tokio::fs::File::open(path).await?;
            file.take(MAX_SECRET_BYTES + 1).read_to_string(&mut text).await?;
            if text.len() as u64 > MAX_SECRET_BYTES {
                return Err(std::io::Error::other("larger than 1 MiB"));
            }
            Ok(text)
        };
        match tokio::time::timeout(READ_TIMEOUT, reading).await {
            Ok(read) => {
                let text = zeroizing(read.map_err(failed)?);
                Ok(Secret::new(text.expose().trim()))
            }
            Err(_) => {
                Err(failed(std::io::Error::new(std::io::ErrorKind::TimedOut, "took longer than 5 s to read")))
            }
        }
    }
}

/// The raw text goes into a `Secret` of its own at once, so that it is wiped when dropped.
fn zeroizing(text: String) -> Secret {
    Secret::new(text)
}

// === impl Authentication ===

impl Authentication {
    /// What the arguments ask for. The token source of OAuth 2.0 is built by the caller, which has its client.
    pub(super) fn new(arguments: &AuthenticationArguments, token_source: Option<TokenSource>) -> Self {
        if let Some(basic) = &arguments.basic_auth {
            Self::Basic { username: basic.username.clone(), password: basic.password() }
        } else if let Some(authorization) = &arguments.authorization {
            Self::Scheme {
                scheme: authorization.effective_scheme().to_owned(),
                credentials: authorization.credentials(),
            }
        } else if let Some(token_source) = token_source {
            Self::OAuth2(Box::new(token_source))
        } else if !arguments.bearer_token.expose().is_empty() || !arguments.bearer_token_file.is_empty() {
            Self::Scheme {
                scheme: "Bearer".to_owned(),
                credentials: SecretSource::new(&arguments.bearer_token, &arguments.bearer_token_file),
            }
        } else {
            Self::None
        }
    }

    /// The value of the `Authorization` header for a request that is sent now.
    pub(super) async fn header(&self) -> Result<Option<HeaderValue>, HttpClientError> {
        match self {
            Self::None => Ok(None),
            Self::Basic { username, password } => {
                let password = password.read().await?;
                basic_header(username, &password).map(Some)
            }
            Self::Scheme { scheme, credentials } => {
                let credentials = credentials.read().await?;
                scheme_header(scheme, &credentials).map(Some)
            }
            Self::OAuth2(source) => {
                let token = source.token().await?;
                scheme_header(&token.scheme, &token.access).map(Some)
            }
        }
    }

    /// Tells a token source that the server refused its token.
    pub(super) fn refused(&self) {
        if let Self::OAuth2(source) = self {
            source.discard();
        }
    }
}

/// `Basic …` for these credentials, marked as sensitive.
pub(super) fn basic_header(username: &str, password: &Secret) -> Result<HeaderValue, HttpClientError> {
    let pair = Secret::new(format!("{username}:{}", password.expose()));
    sensitive(Secret::new(format!("Basic {}", BASE64.encode(pair.expose()))))
}

fn scheme_header(scheme: &str, credentials: &Secret) -> Result<HeaderValue, HttpClientError> {
    sensitive(Secret::new(format!("{scheme} {}", credentials.expose())))
}

pub(super) fn sensitive(text: Secret) -> Result<HeaderValue, HttpClientError> {
    let mut value = HeaderValue::from_str(text.expose()).map_err(|_| HttpClientError::Invalid {
        field: "authentication",
        message: "the credentials hold characters that a header cannot carry".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}
