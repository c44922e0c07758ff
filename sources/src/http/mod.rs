//! The HTTP source: one document behind an address, asked for with the validators that its server gave out, and believed
//! only when everything about the answer is as it has to be. A login page must not become a configuration.

mod body;
mod digest_fields;
mod event_stream;
mod fetch;
mod freshness;
mod held;
mod push;
mod signature;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use url::Url;

use self::body::Encoding;
use self::fetch::{Answer, Fetcher};
use self::held::{Held, HeldFile};
use self::push::Push;
use self::signature::Signature;
use crate::SourceEnvironment;
use crate::connection::{Connection, Style, is_loopback, place};
use crate::error::{ErrorClass, Failure, SourceError};
use crate::path::check_name;
use crate::settings::{AuthSettings, HttpSettings, LimitSettings, SourceSettings};
use crate::snapshot::{
    Files, Notice, NoticeKind, Revision, Snapshot, SourceKind, SourceName, hexadecimal, tree_digest,
};
use crate::source::{BoxFuture, Poll, PollContext, Source};

/// Parsers of what servers send, for the fuzzer; not part of the interface.
#[doc(hidden)]
pub mod document_format {
    pub use super::digest_fields::{FieldDigest, parse_digest_field};
    pub use super::event_stream::EventStream;
}

const INTERVAL: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(30);
/// The pause before a document and its signature are read once more: they are two files on the server, and a change
/// replaces one after the other.
const SETTLE: Duration = Duration::from_secs(2);
/// The name of a document whose address has none.
const FALLBACK_NAME: &str = "config.alloy";
const USER_AGENT: &str = concat!("Invar/", env!("CARGO_PKG_VERSION"));

/// A document behind an HTTP address as a source.
pub struct HttpSource {
    name: SourceName,
    url: Url,
    /// Its name in the snapshot.
    file: String,
    sha256: Option<String>,
    signature: Option<Arc<Signature>>,
    limits: LimitSettings,
    interval: Duration,
    timeout: Duration,
    required: bool,
    selection: String,
    fetcher: Arc<Fetcher>,
    push: Option<Push>,
    kept: HeldFile,
    /// One poll at a time; within, what was read last.
    memory: tokio::sync::Mutex<Memory>,
    /// For how long the last answer is fresh.
    fresh: Mutex<Option<Duration>>,
}

#[derive(Default)]
struct Memory {
    /// Whether it was looked for on disk.
    looked: bool,
    held: Option<Arc<Held>>,
}

impl fmt::Debug for HttpSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpSource")
            .field("name", &self.name)
            .field("place", &self.place())
            .finish_non_exhaustive()
    }
}

impl HttpSource {
    /// A source by its settings; does no input or output.
    ///
    /// # Errors
    /// [`ErrorClass::Stalled`] when the settings cannot work.
    pub fn open(settings: &SourceSettings, environment: &SourceEnvironment) -> Result<Self, SourceError> {
        let name = settings.source_name();
        Self::build(settings, environment, name.clone()).map_err(|failure| failure.of(&name))
    }

    fn build(
        settings: &SourceSettings,
        environment: &SourceEnvironment,
        name: SourceName,
    ) -> Result<Self, Failure> {
        let http = settings.http.as_ref().ok_or_else(|| Failure::stalled("the settings have no `http`"))?;
        let url = address(&http.url, "http.url")?;
        let style = Style::documents(settings.auth.as_ref(), http.allow_link_local)?;
        let connection = Connection::with_style(url.clone(), settings, USER_AGENT, environment, style)?;
        let fetcher = Arc::new(Fetcher::new(connection, &http.headers)?);
        let push = http.notify.map(|kind| {
            let url = http
                .notify_url
                .as_deref()
                .map_or_else(|| Ok(url.clone()), |text| address(text, "http.notify_url"));
            Ok(Push::new(kind, url?, Arc::clone(&fetcher)))
        });
        let signature =
            http.signature.as_ref().map(|wanted| Signature::new(&url, wanted).map(Arc::new)).transpose()?;
        let sha256 = http.sha256.as_deref().map(pinned).transpose()?;
        let identity = identity(settings, http);
        let selection = format!("{url} {identity} {sha256:?} {:?} {:?}", http.signature, settings.limits);
        let selection = hexadecimal(&Sha256::digest(selection));
        Ok(Self {
            file: file_name(&url),
            sha256,
            signature,
            limits: settings.limits,
            interval: settings.interval.unwrap_or(INTERVAL),
            timeout: settings.timeout.unwrap_or(TIMEOUT),
            required: !settings.optional,
            push: push.transpose()?,
            kept: HeldFile::new(&environment.state_directory, url.as_str(), &identity, &selection),
            selection,
            fetcher,
            memory: tokio::sync::Mutex::default(),
            fresh: Mutex::default(),
            name,
            url,
        })
    }

    fn place(&self) -> String {
        place(&self.url)
    }

    async fn look(&self, previous: Option<&Snapshot>, context: &PollContext) -> Result<Poll, Failure> {
        let mut memory = self.memory.lock().await;
        if !std::mem::replace(&mut memory.looked, true) {
            memory.held = self.read_kept().await;
        }
        let (held, signer) = self.read(memory.held.clone(), context).await?;
        let before = memory.held.replace(Arc::clone(&held));
        // Names that change with each replica are not worth a write.
        let same = before.is_some_and(|before| {
            before.content == held.content
                && before.signature == held.signature
                && before.conditions().is_empty() == held.conditions().is_empty()
        });
        if !same {
            self.keep(Arc::clone(&held)).await;
        }
        let files = Files::from([(self.file.clone(), held.content.clone())]);
        let digest = tree_digest(&files);
        let unchanged = previous.is_some_and(|previous| {
            previous.kind == SourceKind::Http
                && previous.digest == digest
                && previous.selection == self.selection
                && previous.signer == signer
        });
        if unchanged {
            return Ok(Poll::Unchanged);
        }
        let content = Snapshot::of_content(self.name.clone(), SourceKind::Http, digest, files, context.now);
        Ok(Poll::Changed(Box::new(Snapshot {
            revision: Revision::content(SourceKind::Http, &held.sha256),
            paths: vec![self.file.clone()],
            selection: self.selection.clone(),
            signer,
            notices: self.notices(&held),
            ..content
        })))
    }

    /// The document as it is now, with who signed it.
    async fn read(
        &self,
        held: Option<Arc<Held>>,
        context: &PollContext,
    ) -> Result<(Arc<Held>, Option<String>), Failure> {
        let conditions = held.as_ref().map(|held| held.conditions()).unwrap_or_default();
        let mut answer = self.get(&conditions, context).await?;
        if answer.response.status() == StatusCode::PRECONDITION_FAILED && !conditions.is_empty() {
            // Some gateways take the conditions for ones that have to hold.
            answer = self.get(&HeaderMap::new(), context).await?;
        } else if answer.response.status() == StatusCode::NOT_MODIFIED
            && !conditions.is_empty()
            && let Some(held) = held
        {
            *self.fresh.lock() = freshness::fresh_for(answer.response.headers());
            match self.signer(&held, context).await {
                Ok(signer) => return Ok((held, signer)),
                // Signed anew, or the keys are others than before: the signature is asked for as well.
                Err(_) => answer = self.get(&HeaderMap::new(), context).await?,
            }
        }
        let mut read = self.take(answer, context).await?;
        if self.signature.is_none() {
            return Ok((Arc::new(read), None));
        }
        read.signature = self.read_signature(context).await?;
        let mut read = Arc::new(read);
        match self.signer(&read, context).await {
            Ok(signer) => return Ok((read, signer)),
            Err(failure) if !signature::is_mismatch(&failure) => return Err(failure),
            Err(_) => tokio::time::sleep(SETTLE).await,
        }
        let answer = self.get(&HeaderMap::new(), context).await?;
        let again = self.take(answer, context).await?;
        read = Arc::new(Held { signature: self.read_signature(context).await?, ..again });
        let signer = self.signer(&read, context).await?;
        Ok((read, signer))
    }

    async fn get(&self, conditions: &HeaderMap, context: &PollContext) -> Result<Answer, Failure> {
        let mut headers = conditions.clone();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        self.fetcher.get(&self.url, &headers, context.deadline).await
    }

    /// The document within an answer, if there is nothing wrong with it.
    async fn take(&self, answer: Answer, context: &PollContext) -> Result<Held, Failure> {
        let Answer { response, insecure, moved } = answer;
        if response.status() != StatusCode::OK {
            return Err(self.fetcher.refused(&response, context.now));
        }
        let (place, limits, headers) = (self.place(), self.limits, response.headers().clone());
        let encoding = body::check_headers(&headers, &limits, &place)?;
        let limit = usize::try_from(limits.file).unwrap_or(usize::MAX);
        let sent = self.fetcher.connection().read_all(response, limit, &place, context.deadline).await?;
        let content = self.decode(sent, encoding, headers.clone()).await?;
        let sha256 = hexadecimal(&Sha256::digest(&content));
        if let Some(pinned) = self.sha256.as_ref().filter(|pinned| **pinned != sha256) {
            let message = format!("{place} has the SHA-256 {sha256}, not {pinned}");
            return Err(Failure::new(ErrorClass::Integrity, message)
                .with_help("compare the document with what was expected; `http.sha256` pins it"));
        }
        *self.fresh.lock() = freshness::fresh_for(&headers);
        let mut moved = moved.as_ref().map(crate::connection::place);
        if let Some(moved) = &mut moved {
            self.fetcher.hide_credentials(moved).await;
        }
        let mut held =
            Held { content, sha256, signature: None, entity_tag: None, last_modified: None, insecure, moved };
        held.name(&headers);
        Ok(held)
    }

    async fn decode(&self, sent: Bytes, encoding: Encoding, headers: HeaderMap) -> Result<Bytes, Failure> {
        let (place, limits) = (self.place(), self.limits);
        let decoded = tokio::task::spawn_blocking(move || {
            let document = body::decode(&sent, encoding, &limits, &place)?;
            digest_fields::check(&headers, &sent, &document, &place)?;
            Ok(document)
        });
        decoded.await.unwrap_or_else(|_| Err(Failure::transient("decompressing was interrupted")))
    }

    /// `None` where there is no signature.
    async fn read_signature(&self, context: &PollContext) -> Result<Option<Bytes>, Failure> {
        let Some(signature) = &self.signature else { return Ok(None) };
        let answer = self.fetcher.get(signature.url(), &HeaderMap::new(), context.deadline).await?;
        match answer.response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(None),
            _ => return Err(self.fetcher.refused(&answer.response, context.now)),
        }
        let what = place(signature.url());
        let connection = self.fetcher.connection();
        connection.read_all(answer.response, signature::LIMIT, &what, context.deadline).await.map(Some)
    }

    /// Who signed the document, if it has to be signed.
    async fn signer(&self, held: &Arc<Held>, context: &PollContext) -> Result<Option<String>, Failure> {
        let Some(wanted) = &self.signature else { return Ok(None) };
        let (wanted, held, now) = (Arc::clone(wanted), Arc::clone(held), context.now);
        let verified = tokio::task::spawn_blocking(move || {
            wanted.verify(&held.content, held.signature.as_ref(), now).map(Some)
        });
        verified.await.unwrap_or_else(|_| Err(Failure::transient("checking the signature was interrupted")))
    }

    async fn read_kept(&self) -> Option<Arc<Held>> {
        let kept = self.kept.clone();
        tokio::task::spawn_blocking(move || kept.read()).await.ok().flatten().map(Arc::new)
    }

    /// A document that cannot be kept is only read again after the next start.
    async fn keep(&self, held: Arc<Held>) {
        let kept = self.kept.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || kept.write(&held)).await {
            tracing::debug!(source = %self.name, %error, "the document is not kept for the next start");
        }
    }

    fn notices(&self, held: &Held) -> Vec<Notice> {
        let mut notices = Vec::new();
        if held.insecure || (self.url.scheme() == "http" && !is_loopback(&self.url)) {
            let message = format!("{} is reached without encryption", self.place());
            notices.push(Notice { kind: NoticeKind::InsecureTransport, message });
        }
        if let Some(moved) = &held.moved {
            let message = format!("{} has moved to {moved}; update the address", self.place());
            notices.push(Notice { kind: NoticeKind::Redirected, message });
        }
        notices
    }
}

impl Source for HttpSource {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Http
    }

    fn description(&self) -> String {
        self.place()
    }

    fn interval(&self) -> Duration {
        self.interval
    }

    fn suggested_interval(&self) -> Option<Duration> {
        if self.push.as_ref().is_some_and(Push::is_healthy) {
            // As rarely as it may be: polls are only for what the push loses.
            return Some(Duration::MAX);
        }
        *self.fresh.lock()
    }

    fn timeout(&self, _first: bool) -> Duration {
        self.timeout
    }

    fn poll<'a>(
        &'a self,
        previous: Option<&'a Snapshot>,
        context: &'a PollContext,
    ) -> BoxFuture<'a, Result<Poll, SourceError>> {
        Box::pin(async move {
            let result = context.bound(&self.place(), self.look(previous, context)).await;
            if result.is_err() {
                // What the last good answer allowed says nothing about when to look after a bad one.
                *self.fresh.lock() = None;
            }
            match result {
                Ok(poll) => Ok(poll),
                Err(mut failure) => {
                    self.fetcher.hide_credentials(&mut failure.message).await;
                    Err(failure.of(&self.name))
                }
            }
        })
    }

    fn watch(&self) -> Option<watch::Receiver<u64>> {
        self.push.as_ref().map(Push::subscribe)
    }

    fn is_atomic(&self) -> bool {
        true
    }

    fn required(&self) -> bool {
        self.required
    }

    fn host(&self) -> Option<&str> {
        self.url.host_str()
    }
}

/// An address of the settings, which holds no credential.
fn address(text: &str, key: &str) -> Result<Url, Failure> {
    let unusable = |what: &str| Failure::stalled(format!("`{key}` {what}"));
    let mut url = Url::parse(text).map_err(|_| unusable("is not an address"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(unusable("is not an http:// or https:// address"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(unusable("holds a credential; use `auth`"));
    }
    // It is for whoever reads the document, not for who sends it.
    url.set_fragment(None);
    Ok(url)
}

fn pinned(text: &str) -> Result<String, Failure> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
    if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::stalled("`http.sha256` is not 64 hexadecimal digits"));
    }
    Ok(digits)
}

/// Whose view of the address is read; without any secret.
fn identity(settings: &SourceSettings, http: &HttpSettings) -> String {
    let headers: Vec<String> =
        http.headers.iter().map(|(name, value)| format!("{name}: {}", value.location())).collect();
    let auth = settings.auth.as_ref().map_or_else(String::new, |auth| {
        let other = auth.authorization.as_ref().map(|other| other.credentials.location());
        let oauth2 =
            auth.oauth2.as_ref().map(|oauth2| (&oauth2.client_id, &oauth2.token_url, &oauth2.scopes));
        format!("{} {other:?} {oauth2:?}", AuthSettings::identity(auth))
    });
    format!("{auth} {headers:?}")
}

/// The last name of the path, where it can be one.
fn file_name(url: &Url) -> String {
    let last = url.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default();
    let decoded = percent_encoding::percent_decode_str(last).decode_utf8_lossy();
    check_name(decoded.as_bytes()).map_or(FALLBACK_NAME, |name| name).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_file_is_called_as_the_address_ends() {
        for (url, name) in [
            ("https://host/a/b/fleet.alloy?token=x", "fleet.alloy"),
            ("https://host/a%20b.alloy", "a b.alloy"),
            ("https://host/config", "config"),
            ("https://host", FALLBACK_NAME),
            ("https://host/a/", FALLBACK_NAME),
            ("https://host/a%2Fb", FALLBACK_NAME),
            ("https://host/.git", FALLBACK_NAME),
            ("https://host/a%00", FALLBACK_NAME),
        ] {
            assert_eq!(file_name(&Url::parse(url).unwrap()), name, "{url}");
        }
    }

    #[test]
    fn pins_are_sixty_four_digits() {
        let digits = "AB".repeat(32);
        assert_eq!(pinned(&digits).unwrap(), digits.to_lowercase());
        assert_eq!(pinned(&format!("sha256:{digits}")).unwrap(), digits.to_lowercase());
        for text in ["", "ab", &"xy".repeat(32), &"ab".repeat(33)] {
            assert_eq!(pinned(text).unwrap_err().class, ErrorClass::Stalled, "{text}");
        }
    }
}
