//! The HTTP side of the Git protocol: one connection per source, one request per unchanged poll.
//!
//! The server's advertisement is remembered, so that a poll posts `ls-refs` directly; any surprise makes
//! it be asked anew. Credentials go to the configured origin alone and never over plain HTTP, except to
//! this host.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode, header};
use parking_lot::Mutex;
use reqwest::Response;
use tokio::sync::mpsc;
use tokio::time::Instant;
use url::Url;

use super::{LIST_LIMIT, PackPart, check_format, protocol_failure, too_much};
use crate::connection::Connection;
use crate::error::{ErrorClass, Failure, Rejection};
use crate::git::protocol::{
    Advertisement, FetchReader, FetchRequest, ProtocolError, RemoteReference, encode_fetch, encode_ls_refs,
    parse_advertisement, parse_ls_refs,
};

/// Time for asking which references there are.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a redirect is followed.
const REDIRECT_LIMIT: usize = 5;

/// One remote repository behind HTTP.
pub(in crate::git) struct HttpWire {
    connection: Connection,
    remembered: Mutex<Option<Remembered>>,
}

#[derive(Clone)]
struct Remembered {
    base: Url,
    advertisement: Arc<Advertisement>,
}

impl fmt::Debug for HttpWire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpWire({})", self.url())
    }
}

impl HttpWire {
    /// A repository behind `connection`.
    pub(in crate::git) fn new(connection: Connection) -> Self {
        Self { connection, remembered: Mutex::default() }
    }

    /// Whether nothing protects the connection.
    pub(in crate::git) fn is_insecure(&self) -> bool {
        self.connection.is_insecure()
    }

    fn url(&self) -> &Url {
        self.connection.url()
    }

    /// The failure, without the credential should the server have said it.
    pub(super) async fn without_credentials(&self, failure: Failure) -> Failure {
        self.connection.without_credentials(failure).await
    }

    /// Where the server sent us, if not where the settings say.
    pub(in crate::git) fn redirected_to(&self) -> Option<String> {
        let remembered = self.remembered.lock();
        let base = &remembered.as_ref()?.base;
        (base.path().trim_end_matches('/') != self.url().path().trim_end_matches('/')
            || base.origin() != self.url().origin())
        .then(|| base.to_string())
    }

    /// The references whose names start with one of `prefixes`.
    pub(in crate::git) async fn list(
        &self,
        prefixes: &[String],
        deadline: Instant,
        now: SystemTime,
    ) -> Result<Vec<RemoteReference>, Failure> {
        let deadline = deadline.min(Instant::now() + PROBE_TIMEOUT);
        let remembered = self.remembered.lock().clone();
        if let Some(remembered) = remembered
            && remembered.advertisement.version == 2
        {
            match self.ls_refs(&remembered, prefixes, deadline, now).await {
                Ok(references) => return Ok(references),
                Err(Attempt::Surprise(_)) => *self.remembered.lock() = None,
                Err(Attempt::Failed(failure)) => return Err(failure),
            }
        }
        let remembered = self.advertised(deadline, now).await?;
        *self.remembered.lock() = Some(remembered.clone());
        if remembered.advertisement.version != 2 {
            let mut references = remembered.advertisement.references.clone();
            let wanted = |reference: &RemoteReference| {
                prefixes.iter().any(|prefix| reference.name.starts_with(prefix))
            };
            references.retain(wanted);
            return Ok(references);
        }
        self.ls_refs(&remembered, prefixes, deadline, now).await.map_err(Attempt::failure)
    }

    async fn ls_refs(
        &self,
        remembered: &Remembered,
        prefixes: &[String],
        deadline: Instant,
        now: SystemTime,
    ) -> Result<Vec<RemoteReference>, Attempt> {
        let body = encode_ls_refs(&remembered.advertisement, prefixes);
        let response = self.post(remembered, body, deadline, now).await?;
        let bytes = self
            .connection
            .read_all(response, LIST_LIMIT, "the list of references", deadline)
            .await
            .map_err(Attempt::Failed)?;
        parse_ls_refs(&bytes).map_err(|error| match error {
            ProtocolError::Truncated => Attempt::Failed(self.protocol_failure(&error)),
            other => Attempt::Surprise(self.protocol_failure(&other)),
        })
    }

    async fn advertised(&self, deadline: Instant, now: SystemTime) -> Result<Remembered, Failure> {
        let mut url = endpoint(self.url(), "info/refs");
        url.set_query(Some("service=git-upload-pack"));
        for _ in 0..=REDIRECT_LIMIT {
            let response = self.send(Method::GET, &url, None, deadline).await?;
            let status = response.status();
            if matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                url = self.redirect(&url, &response)?;
                continue;
            }
            if status != StatusCode::OK {
                return Err(self.connection.refused(&response, now));
            }
            let content_type = response.headers().get(header::CONTENT_TYPE).cloned();
            let is_git =
                content_type.is_some_and(|value| value == "application/x-git-upload-pack-advertisement");
            if !is_git {
                return Err(Failure::rejected(
                    Rejection::Shape,
                    format!("{} does not answer like a Git server", self.url()),
                )
                .with_help("a web page, a login page or a server without smart HTTP answers there"));
            }
            let bytes =
                self.connection.read_all(response, LIST_LIMIT, "the list of references", deadline).await?;
            let advertisement = parse_advertisement(&bytes).map_err(|error| self.protocol_failure(&error))?;
            check_format(self.url().as_str(), &advertisement)?;
            let mut base = url.clone();
            base.set_query(None);
            let path = base.path().trim_end_matches("/info/refs").to_owned();
            base.set_path(&path);
            return Ok(Remembered { base, advertisement: Arc::new(advertisement) });
        }
        Err(Failure::new(
            ErrorClass::Integrity,
            format!("{} redirects more than {REDIRECT_LIMIT} times", self.url()),
        ))
    }

    fn redirect(&self, from: &Url, response: &Response) -> Result<Url, Failure> {
        let integrity =
            |what: &str| Failure::new(ErrorClass::Integrity, format!("{} redirects {what}", self.url()));
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| integrity("without saying where"))?;
        let mut to = from.join(location).map_err(|_| integrity("to something that is no address"))?;
        // Credentials in a redirect are somebody else's.
        if to.set_username("").is_err() || to.set_password(None).is_err() {
            return Err(integrity("to something that is no address"));
        }
        if !(to.scheme() == "https" || to.scheme() == "http" && from.scheme() == "http") {
            return Err(integrity("to an unencrypted address"));
        }
        // A host that hands its repositories on to another one is none to trust with what to run.
        if to.host() != self.url().host() {
            let host = to.host_str().unwrap_or_default();
            return Err(integrity(&format!("to another host, `{host}`")).with_help(format!(
                "if the repository moved there, name the new place in `git.url`: {}",
                shown(&to)
            )));
        }
        if !to.path().ends_with("/info/refs") {
            return Err(integrity("to a page that is no repository; is it a login page?"));
        }
        Ok(to)
    }

    /// Fetches a pack and passes it on in parts; gives the number of bytes. Nothing is said to be complete
    /// before it is.
    pub(in crate::git) async fn fetch(
        &self,
        request: &FetchRequest,
        limit: u64,
        pack: mpsc::Sender<PackPart>,
        deadline: Instant,
        now: SystemTime,
    ) -> Result<u64, Failure> {
        let known = self.remembered.lock().clone();
        let remembered = match known {
            Some(remembered) => remembered,
            None => {
                let remembered = self.advertised(deadline, now).await?;
                *self.remembered.lock() = Some(remembered.clone());
                remembered
            }
        };
        let advertisement = &remembered.advertisement;
        let body = encode_fetch(advertisement, request);
        let mut response = match self.post(&remembered, body, deadline, now).await {
            Ok(response) => response,
            Err(attempt) => {
                *self.remembered.lock() = None;
                return Err(attempt.failure());
            }
        };
        let mut reader = FetchReader::new(advertisement.version);
        let mut received = 0_u64;
        while let Some(chunk) = self.connection.chunk(&mut response, deadline).await? {
            received += chunk.len() as u64;
            if received > limit {
                return Err(too_much(limit));
            }
            for part in reader.push(&chunk).map_err(|error| self.protocol_failure(&error))? {
                if pack.send(PackPart::Bytes(part)).await.is_err() {
                    // The indexer has given up; what it says about the pack is better than what is known here.
                    return Ok(received);
                }
            }
        }
        reader.finish().map_err(|error| self.protocol_failure(&error))?;
        // As above, should the indexer be gone.
        drop(pack.send(PackPart::End).await);
        Ok(received)
    }

    async fn post(
        &self,
        remembered: &Remembered,
        body: Vec<u8>,
        deadline: Instant,
        now: SystemTime,
    ) -> Result<Response, Attempt> {
        let url = endpoint(&remembered.base, "git-upload-pack");
        let response = self.send(Method::POST, &url, Some(body), deadline).await.map_err(Attempt::Failed)?;
        let is_git = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value == "application/x-git-upload-pack-result");
        match response.status().as_u16() {
            200 if is_git => Ok(response),
            200 => Err(Attempt::Surprise(Failure::rejected(
                Rejection::Shape,
                format!("{} does not answer like a Git server", self.url()),
            ))),
            300..=399 | 400 | 404 | 405 | 410 | 415 => {
                Err(Attempt::Surprise(self.connection.refused(&response, now)))
            }
            _ => Err(Attempt::Failed(self.connection.refused(&response, now))),
        }
    }

    async fn send(
        &self,
        method: Method,
        url: &Url,
        body: Option<Vec<u8>>,
        deadline: Instant,
    ) -> Result<Response, Failure> {
        let client = self.connection.client().await?;
        let mut request = client.request(method, url.clone()).header("git-protocol", "version=2");
        if let Some(body) = body {
            request = request
                .header(header::CONTENT_TYPE, "application/x-git-upload-pack-request")
                .header(header::ACCEPT, "application/x-git-upload-pack-result")
                .body(body);
        }
        self.connection.send(request, url, deadline).await
    }

    fn protocol_failure(&self, error: &ProtocolError) -> Failure {
        protocol_failure(self.url().as_str(), error)
    }
}

/// An answer to a request that relies on a remembered advertisement.
enum Attempt {
    /// It may be that the server changed: ask for the advertisement again.
    Surprise(Failure),
    Failed(Failure),
}

impl Attempt {
    fn failure(self) -> Failure {
        match self {
            Self::Surprise(failure) | Self::Failed(failure) => failure,
        }
    }
}

/// The address of the repository behind an endpoint.
fn shown(endpoint: &Url) -> String {
    let mut url = endpoint.clone();
    url.set_query(None);
    url.to_string().trim_end_matches("/info/refs").to_owned()
}

fn endpoint(base: &Url, name: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{name}", base.path().trim_end_matches('/')));
    url
}
