//! What a client adds to each request: the credentials, and the headers that its arguments give. All secrets among them are
//! read at once, so that those of one path are of one version in each request; and where a server refuses them, what may be
//! accepted in their place is at hand.

use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use invar_policy::Access;
use invar_syntax::live_secret::{LiveSecret, read_previous, read_versioned, report, version_of};
use invar_syntax::secret::{REDACTED, Secret};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::HttpClientError;
use super::credentials::{Authentication, sensitive};
use super::oauth2::Token;

/// How long after the first refusal of a version the server may only be ahead of this client.
const REFUSAL_GRACE: Duration = Duration::from_secs(60);

/// How long it may take to know what is to be concealed: it is at hand, or in a file.
const SHOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// What is shorter is in any text, and no secret.
const SHORTEST_CONCEALED: usize = 4;

/// What is added to requests.
#[derive(Debug)]
pub(super) struct Dressing {
    authentication: Authentication,
    headers: Vec<(HeaderName, LiveSecret)>,
    access: Access,
    /// The last version that was refused with all that is known beside it, and when that happened first.
    refused: Mutex<Option<(u64, Instant)>>,
}

impl Dressing {
    pub(super) fn new(
        authentication: Authentication,
        headers: Vec<(HeaderName, LiveSecret)>,
        access: Access,
    ) -> Self {
        Self { authentication, headers, access, refused: Mutex::default() }
    }

    /// Takes off what was put on, which a redirect must not carry elsewhere; `added` is what [`Self::dress`] named.
    pub(super) fn undress(&self, request: &mut reqwest::Request, added: Vec<HeaderName>) {
        let headers = request.headers_mut();
        for name in self.headers.iter().map(|(name, _)| name).chain(&added) {
            headers.remove(name);
        }
    }

    /// Puts on what is right now; answers the version of the secrets in it, 0 where none can change, and the names of the
    /// headers that authenticate.
    pub(super) async fn dress(
        &self,
        request: &mut reqwest::Request,
    ) -> Result<(u64, Vec<HeaderName>), HttpClientError> {
        let fetched = self.authentication.fetched(&self.access).await?;
        let (version, texts) = read_versioned(&self.live());
        self.put_on(request.headers_mut(), &texts, fetched.as_ref())?;
        let others = self.authentication.others(request).await?;
        for (name, value) in &others {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        let added = others.keys().cloned().chain(self.authentication.is_some().then_some(AUTHORIZATION));
        Ok((version, added.collect()))
    }

    /// Puts on what may be accepted in place of what is right now; whether there is such a thing.
    pub(super) fn dress_otherwise(&self, request: &mut reqwest::Request) -> bool {
        read_previous(&self.live())
            .is_some_and(|texts| self.put_on(request.headers_mut(), &texts, None).is_ok())
    }

    /// The version of what is right now.
    pub(super) fn version(&self) -> u64 {
        version_of(&self.live())
    }

    /// The server refused what was put on.
    pub(super) fn refused(&self, status: StatusCode) {
        self.authentication.refused(status);
    }

    /// Tells whoever keeps the secrets that those of this version were refused where others were accepted.
    pub(super) fn tell_refused(&self, version: u64) {
        report(&self.live(), version, LiveSecret::refused);
    }

    /// Tells whoever keeps the secrets that neither those of this version nor any other were accepted.
    pub(super) fn tell_lost(&self, version: u64) {
        let mut refused = self.refused.lock();
        if refused.is_none_or(|(known, _)| known != version) {
            *refused = Some((version, Instant::now()));
        }
        drop(refused);
        report(&self.live(), version, LiveSecret::lost);
    }

    /// What a server said, without what it was shown.
    pub(super) async fn conceal(&self, mut said: String) -> String {
        let fetching = tokio::time::timeout(SHOWN_TIMEOUT, self.authentication.fetched(&self.access));
        let fetched = fetching.await.ok().and_then(Result::ok).flatten();
        let live = self.live();
        let secret = live.iter().filter(|secret| !self.authentication.is_plain_name(secret));
        let mut shown: Vec<Secret> =
            secret.flat_map(|secret| [Some(secret.read()), secret.previous()]).flatten().collect();
        shown.extend(fetched.as_ref().map(|token| token.access.clone()));
        // As they are in the header: a pair in base64.
        for texts in [Some(read_versioned(&live).1), read_previous(&live)].into_iter().flatten() {
            let mut headers = HeaderMap::new();
            drop(self.put_on(&mut headers, &texts, fetched.as_ref()));
            let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.split_once(' '));
            shown.extend(value.map(|(_, text)| Secret::new(text)));
        }
        // A part of another would leave the rest of that.
        shown.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        for secret in shown.iter().filter(|secret| secret.expose().len() >= SHORTEST_CONCEALED) {
            if said.contains(secret.expose()) {
                said = said.replace(secret.expose(), REDACTED);
            }
        }
        said
    }

    /// Whether a refusal may be due to a rotation.
    pub(super) fn rotated_lately(&self) -> bool {
        let live = self.live();
        let refused = *self.refused.lock();
        live.iter().any(|secret| secret.previous().is_some())
            || refused.is_some_and(|(version, since)| {
                version == version_of(&live) && since.elapsed() < REFUSAL_GRACE
            })
            || self.authentication.rotated_lately()
    }

    /// The secrets that each request reads anew: those that authenticate, and those of headers.
    fn live(&self) -> Vec<&LiveSecret> {
        let mut live = self.authentication.live();
        live.extend(self.headers.iter().map(|(_, value)| value));
        live
    }

    fn put_on(
        &self,
        headers: &mut HeaderMap<HeaderValue>,
        texts: &[Secret],
        fetched: Option<&Token>,
    ) -> Result<(), HttpClientError> {
        let (credentials, values) = texts.split_at(texts.len().saturating_sub(self.headers.len()));
        for (name, _) in &self.headers {
            headers.remove(name);
        }
        for ((name, _), value) in self.headers.iter().zip(values) {
            headers.append(name.clone(), sensitive(value)?);
        }
        if let Some(value) = self.authentication.header(credentials, fetched)? {
            headers.insert(AUTHORIZATION, value);
        }
        Ok(())
    }
}
