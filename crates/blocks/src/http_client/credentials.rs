//! Where a client's secret comes from: its arguments, or a file that is read when it is needed.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use invar_policy::Access;
use invar_syntax::live_secret::LiveSecret;
use invar_syntax::secret::Secret;
use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

use super::HttpClientError;
use super::arguments::AuthenticationArguments;
use super::oauth2::{Token, TokenSource};

/// A credential larger than this is a mistake.
const MAX_SECRET_BYTES: u64 = 1 << 20;
/// How long a credential's file may take (it may lie on a network file system).
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// A secret in the arguments, which may change, or in a file that is read at each use so that it can rotate.
#[derive(Clone, Debug)]
pub(crate) enum SecretSource {
    /// The secret itself.
    Inline(LiveSecret),
    /// A file that holds it; surrounding white space is not part of it.
    File(PathBuf),
}

/// How each request is authenticated.
#[derive(Debug)]
pub(super) enum Authentication {
    None,
    Basic { username: LiveSecret, password: SecretSource },
    Scheme { scheme: String, credentials: SecretSource },
    OAuth2(Box<TokenSource>),
    Other(Arc<dyn RequestAuthenticator>),
}

/// A way to authenticate that the arguments of the client do not know: a signature over the request, or a token from
/// elsewhere.
pub trait RequestAuthenticator: fmt::Debug + Send + Sync {
    /// The headers that authenticate the request as it stands.
    fn headers<'a>(&'a self, request: &'a reqwest::Request) -> AuthenticationHeaders<'a>;

    /// The server refused them, by 401 or 403: the next ones are made with new credentials.
    fn refused(&self);

    /// Whether the credentials changed so lately that whoever is asked may not know of it yet.
    fn rotated_lately(&self) -> bool {
        false
    }
}

/// The future of [`RequestAuthenticator::headers`].
pub type AuthenticationHeaders<'a> =
    Pin<Box<dyn Future<Output = Result<HeaderMap, HttpClientError>> + Send + 'a>>;

// === impl SecretSource ===

impl SecretSource {
    pub(crate) fn new(secret: &LiveSecret, file: &str) -> Self {
        if file.is_empty() { Self::Inline(secret.clone()) } else { Self::File(file.into()) }
    }

    /// The secret of the arguments, which may change.
    pub(crate) fn live(&self) -> Option<&LiveSecret> {
        match self {
            Self::Inline(secret) if secret.is_live() => Some(secret),
            Self::Inline(_) | Self::File(_) => None,
        }
    }

    /// The secret as it is now.
    pub(crate) async fn read(&self, access: &Access) -> Result<Secret, HttpClientError> {
        let path = match self {
            Self::Inline(secret) => return Ok(secret.read()),
            Self::File(path) => path,
        };
        let failed = |source| HttpClientError::File { path: path.clone(), source };
        let reading = async {
            let mut text = String::new();
            let file = access.open(path).await?;
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
            Self::Basic { username: basic.username.live(), password: basic.password() }
        } else if let Some(authorization) = &arguments.authorization {
            Self::Scheme {
                scheme: authorization.effective_scheme().to_owned(),
                credentials: authorization.credentials(),
            }
        } else if let Some(token_source) = token_source {
            Self::OAuth2(Box::new(token_source))
        } else if !arguments.bearer_token.is_empty() || !arguments.bearer_token_file.is_empty() {
            Self::Scheme {
                scheme: "Bearer".to_owned(),
                credentials: SecretSource::new(&arguments.bearer_token, &arguments.bearer_token_file),
            }
        } else {
            Self::None
        }
    }

    /// Whether requests are authenticated.
    pub(super) fn is_some(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// The secrets that each request reads anew, in the order in which [`Self::header`] wants their texts.
    pub(super) fn live(&self) -> Vec<&LiveSecret> {
        match self {
            Self::Basic { username, password: SecretSource::Inline(password) } => vec![username, password],
            Self::Basic { username, .. } => vec![username],
            Self::Scheme { credentials: SecretSource::Inline(credentials), .. } => vec![credentials],
            _ => Vec::new(),
        }
    }

    /// What is not among the live secrets: the credential in a file, or a token.
    pub(super) async fn fetched(&self, access: &Access) -> Result<Option<Token>, HttpClientError> {
        let from_file = |access| Token { scheme: String::new(), access, expires: None };
        match self {
            Self::Basic { password: file @ SecretSource::File(_), .. }
            | Self::Scheme { credentials: file @ SecretSource::File(_), .. } => {
                Ok(Some(from_file(file.read(access).await?)))
            }
            Self::OAuth2(source) => source.token().await.map(Some),
            _ => Ok(None),
        }
    }

    /// Whether it is a user name that is no secret.
    pub(super) fn is_plain_name(&self, text: &LiveSecret) -> bool {
        matches!(self, Self::Basic { username, .. } if username == text && !username.is_live())
    }

    /// The `Authorization` header, of the texts of [`Self::live`] and of what was fetched beside them.
    pub(super) fn header(
        &self,
        texts: &[Secret],
        fetched: Option<&Token>,
    ) -> Result<Option<HeaderValue>, HttpClientError> {
        match (self, texts, fetched) {
            (Self::Basic { .. }, [username, password], None) => basic_header(username, password).map(Some),
            (Self::Basic { .. }, [username], Some(password)) => {
                basic_header(username, &password.access).map(Some)
            }
            (Self::Scheme { scheme, .. }, [credentials], None) => {
                scheme_header(scheme, credentials).map(Some)
            }
            (Self::Scheme { scheme, .. }, [], Some(credentials)) => {
                scheme_header(scheme, &credentials.access).map(Some)
            }
            (Self::OAuth2(_), [], Some(token)) => scheme_header(&token.scheme, &token.access).map(Some),
            _ => Ok(None),
        }
    }

    /// The headers of an authenticator that the arguments do not know.
    pub(super) async fn others(&self, request: &reqwest::Request) -> Result<HeaderMap, HttpClientError> {
        match self {
            Self::Other(authenticator) => authenticator.headers(request).await,
            _ => Ok(HeaderMap::new()),
        }
    }

    /// Whether what requests are authenticated with changed so lately that a refusal may be due to that, as far as the client
    /// does not know of it by itself.
    pub(super) fn rotated_lately(&self) -> bool {
        match self {
            Self::OAuth2(source) => source.rotated_lately(),
            Self::Other(authenticator) => authenticator.rotated_lately(),
            _ => false,
        }
    }

    /// Tells whoever has the credentials that the server refused them.
    pub(super) fn refused(&self, status: StatusCode) {
        match (self, status) {
            (Self::OAuth2(source), StatusCode::UNAUTHORIZED) => source.discard(),
            // AWS says that credentials are not valid any more by 403.
            (Self::Other(authenticator), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                authenticator.refused();
            }
            _ => {}
        }
    }
}

/// `Basic …` for these credentials, marked as sensitive.
pub(super) fn basic_header(username: &Secret, password: &Secret) -> Result<HeaderValue, HttpClientError> {
    const SCHEME: &[u8] = b"Basic ";
    let pair = Secret::of_parts(&[username.expose(), ":", password.expose()]);
    let length = base64::encoded_len(pair.expose().len(), true).unwrap_or_default();
    let mut text = Zeroizing::new(vec![0; SCHEME.len() + length]);
    text[..SCHEME.len()].copy_from_slice(SCHEME);
    // Fails only for a buffer that is too small.
    drop(BASE64.encode_slice(pair.expose(), &mut text[SCHEME.len()..]));
    wiped(text)
}

fn scheme_header(scheme: &str, credentials: &Secret) -> Result<HeaderValue, HttpClientError> {
    sensitive(&Secret::of_parts(&[scheme, " ", credentials.expose()]))
}

pub(super) fn sensitive(text: &Secret) -> Result<HeaderValue, HttpClientError> {
    wiped(Zeroizing::new(text.expose().as_bytes().to_vec()))
}

/// A header's value in memory that is wiped when the last request with it is gone.
fn wiped(text: Zeroizing<Vec<u8>>) -> Result<HeaderValue, HttpClientError> {
    let mut value =
        HeaderValue::from_maybe_shared(Bytes::from_owner(text)).map_err(|_| HttpClientError::Invalid {
            field: "authentication",
            message: "the credentials hold characters that a header cannot carry".to_owned(),
        })?;
    value.set_sensitive(true);
    Ok(value)
}
