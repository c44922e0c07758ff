//! Token endpoints of OAuth 2.0 and of metadata services: one form or question, one JSON answer with an `access_token`.

use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use invar_syntax::secret::Secret;
use serde::Deserialize;
use url::{Url, form_urlencoded};

use crate::IdentityError;
use crate::cache::Fetched;
use crate::surroundings::{Answer, Surroundings};

/// Metadata services answer at once, or there is none.
pub(crate) const METADATA_TIMEOUT: Duration = Duration::from_secs(3);
/// Larger files with tokens or keys are a mistake, bytes.
const MAX_FILE: u64 = 1 << 20;
/// How long reading a file may take (it may lie on a network file system).
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// An endpoint, and on behalf of which cloud it is asked.
pub(crate) struct TokenEndpoint<'a> {
    pub(crate) cloud: &'static str,
    pub(crate) surroundings: &'a Surroundings,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: String,
}

impl TokenEndpoint<'_> {
    /// Posts a form.
    pub(crate) async fn post(
        &self,
        url: &Url,
        form: &[(&str, &str)],
    ) -> Result<Fetched<Secret>, IdentityError> {
        let mut request = reqwest::Request::new(Method::POST, url.clone());
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        *request.body_mut() = Some(form.into());
        let content_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, content_type);
        self.ask(request, None).await
    }

    /// Asks a metadata service.
    pub(crate) async fn get(&self, url: Url, headers: HeaderMap) -> Result<Fetched<Secret>, IdentityError> {
        let mut request = reqwest::Request::new(Method::GET, url);
        *request.headers_mut() = headers;
        self.ask(request, Some(METADATA_TIMEOUT)).await
    }

    async fn ask(
        &self,
        mut request: reqwest::Request,
        timeout: Option<Duration>,
    ) -> Result<Fetched<Secret>, IdentityError> {
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        let host = request.url().host_str().unwrap_or_default().to_owned();
        let answer = self.surroundings.send(request, timeout).await;
        let answer = answer.map_err(|error| self.failure(format!("{host}: {error}")))?;
        if !answer.status.is_success() {
            let (status, code) = (answer.status, error_code(&answer));
            return Err(self.failure(format!("{host} answered {status}{code}")));
        }
        // What serde says may quote the answer, which holds the token: it is not repeated.
        let token: TokenAnswer = serde_json::from_slice(&answer.body)
            .map_err(|_| self.failure(format!("{host} answered without an access_token")))?;
        if token.access_token.is_empty() {
            return Err(self.failure(format!("{host} answered with an empty access_token")));
        }
        let seconds = token.expires_in.and_then(|value| match value {
            serde_json::Value::Number(seconds) => seconds.as_f64(),
            // Azure's metadata service sends the number as text.
            serde_json::Value::String(seconds) => seconds.parse().ok(),
            _ => None,
        });
        let lifetime = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Ok(Fetched { value: Secret::new(token.access_token), lifetime })
    }

    /// Reads a file with a token or a key.
    pub(crate) async fn read(&self, path: &str) -> Result<Secret, IdentityError> {
        let reading = async {
            use tokio::io::AsyncReadExt as _;
            let mut text = String::new();
            let file = tokio::fs::File::open(path).await?;
            file.take(MAX_FILE + 1).read_to_string(&mut text).await?;
            let text = Secret::new(text);
            if text.expose().len() as u64 > MAX_FILE {
                return Err(std::io::Error::other("larger than 1 MiB"));
            }
            Ok(text)
        };
        match tokio::time::timeout(READ_TIMEOUT, reading).await {
            Ok(Ok(text)) => Ok(text),
            Ok(Err(error)) => Err(self.failure(format!("{path}: {error}"))),
            Err(_) => Err(self.failure(format!("{path}: took longer than 5 s to read"))),
        }
    }

    pub(crate) fn failure(&self, message: impl Into<String>) -> IdentityError {
        IdentityError::Unavailable { cloud: self.cloud, message: message.into() }
    }
}

/// The registered `error` code of RFC 6749, section 5.2, which holds nothing secret; free text is left out.
fn error_code(answer: &Answer) -> String {
    match serde_json::from_slice::<ErrorAnswer>(&answer.body) {
        Ok(ErrorAnswer { error })
            if error.len() <= 64 && error.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') =>
        {
            format!(" ({error})")
        }
        _ => String::new(),
    }
}
