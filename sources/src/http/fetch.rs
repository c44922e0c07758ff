//! One document by one address: the request with its headers, and the redirects on the way to the answer.

use std::collections::BTreeMap;
use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use invar_secrets::Credential;
use reqwest::Response;
use tokio::time::Instant;
use url::Url;

use crate::connection::{Connection, check_encrypted, place, unfit};
use crate::error::{ErrorClass, Failure, Rejection};

/// How often a redirect is followed.
const REDIRECT_LIMIT: usize = 5;

/// An answer that is no redirect.
pub(super) struct Answer {
    pub(super) response: Response,
    /// Whether something on the way was not encrypted.
    pub(super) insecure: bool,
    /// Where the document is now, if the server says that it has moved for good.
    pub(super) moved: Option<Url>,
}

/// Sends requests to the configured server and follows where it points.
pub(super) struct Fetcher {
    connection: Connection,
    headers: Vec<(HeaderName, Credential)>,
}

impl Fetcher {
    /// `headers` are of the settings.
    pub(super) fn new(
        connection: Connection,
        headers: &BTreeMap<String, Credential>,
    ) -> Result<Self, Failure> {
        if !headers.is_empty() {
            check_encrypted(connection.url())?;
        }
        let headers = headers.iter().map(|(name, value)| {
            let parsed = HeaderName::from_bytes(name.as_bytes());
            let name =
                parsed.map_err(|_| Failure::stalled(format!("`http.headers`: `{name}` is no name")))?;
            if is_ours(&name) {
                let message = format!("`http.headers`: `{name}` is set by the agent itself");
                return Err(Failure::stalled(message));
            }
            Ok((name, value.clone()))
        });
        Ok(Self { headers: headers.collect::<Result<_, Failure>>()?, connection })
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The first answer to a `GET` of `url` that is no redirect, whatever its status. A token that was fetched for this
    /// connection and is refused is fetched anew, once.
    pub(super) async fn get(
        &self,
        url: &Url,
        headers: &HeaderMap,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let answer = self.follow(url, headers, deadline).await?;
        if answer.response.status() == StatusCode::UNAUTHORIZED && self.connection.forget_token() {
            return self.follow(url, headers, deadline).await;
        }
        Ok(answer)
    }

    async fn follow(&self, url: &Url, headers: &HeaderMap, deadline: Instant) -> Result<Answer, Failure> {
        let client = self.connection.client().await?;
        let own = self.own_headers().await?;
        let mut at = url.clone();
        let mut moved = None;
        let mut for_good = true;
        let mut insecure = false;
        for _ in 0..=REDIRECT_LIMIT {
            insecure |= at.scheme() == "http" && !crate::connection::is_loopback(&at);
            let mut request = client.get(at.clone()).headers(headers.clone());
            // As credentials, these are for the configured server alone.
            if at.origin() == self.connection.url().origin() {
                request = request.headers(own.clone());
            }
            let response = self.connection.send(request, &at, deadline).await?;
            if !is_redirect(response.status()) {
                return Ok(Answer { response, insecure, moved });
            }
            let permanent =
                matches!(response.status(), StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT);
            at = target(&response, &at)?;
            // One that is only for now on the way: the addresses behind it may be others next time.
            for_good &= permanent;
            if for_good {
                moved = Some(at.clone());
            }
        }
        Err(odd(url, &format!("redirects more than {REDIRECT_LIMIT} times")))
    }

    /// The headers of the settings, with their values as they are now.
    async fn own_headers(&self) -> Result<HeaderMap, Failure> {
        let mut headers = HeaderMap::new();
        for (name, credential) in &self.headers {
            let value = self.connection.resolve(credential).await?;
            let mut value = HeaderValue::from_str(value.expose())
                .map_err(|_| unfit(&format!("the value of `http.headers.{name}`")))?;
            value.set_sensitive(true);
            headers.append(name.clone(), value);
        }
        Ok(headers)
    }

    /// Takes the credentials and the values of headers out of a text that a server had a say in: where it redirects to, say.
    pub(super) async fn hide_credentials(&self, text: &mut String) {
        self.connection.hide_credentials(text).await;
        for (_, credential) in &self.headers {
            self.connection.hide_credential("", credential, text).await;
        }
    }

    /// What an answer means that is neither the document nor the word that it did not change.
    pub(super) fn refused(&self, response: &Response, now: SystemTime) -> Failure {
        let place = place(self.connection.url());
        let status = response.status();
        let shape = |what: String| Failure::rejected(Rejection::Shape, format!("{place} {what}"));
        if status.is_success() {
            return shape(format!("answers with status {}, not with a document", status.as_u16()));
        }
        if status == StatusCode::NOT_MODIFIED {
            return shape("says that it did not change (304), without having been asked that".to_owned());
        }
        if status.is_redirection() {
            return shape(format!("answers with status {}, which leads nowhere", status.as_u16()));
        }
        if status == StatusCode::PRECONDITION_FAILED {
            return Failure::transient(format!("{place} answers with status 412 without a precondition"));
        }
        let failure = self.connection.refused(response, now);
        if matches!(failure.class, ErrorClass::AuthExpired | ErrorClass::Forbidden) {
            self.headers.iter().for_each(|(_, credential)| self.connection.tell_refused(credential));
        }
        match failure.class {
            // The token is new: the server means it.
            ErrorClass::AuthExpired if self.connection.fetches_tokens() => {
                Failure { class: ErrorClass::Forbidden, ..failure }
            }
            ErrorClass::Forbidden if status == StatusCode::FORBIDDEN => Failure {
                help: Some("the credential needs permission to read the document".to_owned()),
                ..failure
            },
            _ => failure,
        }
    }
}

/// Headers that the protocol of the source depends on.
fn is_ours(name: &HeaderName) -> bool {
    [
        header::HOST,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::ACCEPT_ENCODING,
        header::RANGE,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_MATCH,
        header::IF_UNMODIFIED_SINCE,
        header::IF_RANGE,
    ]
    .contains(name)
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where an answer sends us from `at`.
fn target(response: &Response, at: &Url) -> Result<Url, Failure> {
    let Some(location) = response.headers().get(header::LOCATION) else {
        let message =
            format!("{} redirects ({}) without saying where to", place(at), response.status().as_u16());
        return Err(Failure::rejected(Rejection::Shape, message));
    };
    let joined = location.to_str().ok().and_then(|location| at.join(location).ok());
    let target = joined.ok_or_else(|| odd(at, "redirects to what is no address"))?;
    if !matches!(target.scheme(), "http" | "https") {
        return Err(odd(at, "redirects away from HTTP"));
    }
    if at.scheme() == "https" && target.scheme() == "http" {
        return Err(odd(at, "redirects to an address without encryption"));
    }
    if !target.username().is_empty() || target.password().is_some() {
        return Err(odd(at, "redirects to an address with a credential in it"));
    }
    Ok(target)
}

fn odd(at: &Url, what: &str) -> Failure {
    Failure::new(ErrorClass::Integrity, format!("{} {what}", place(at)))
        .with_help("if that is meant, let the settings name the final address")
}
