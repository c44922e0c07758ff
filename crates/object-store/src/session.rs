//! One go at a bucket: reads and listings over one client. What can be mended at once is, and once: another region,
//! another time, a newer credential. Nothing else is tried again here.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Config, IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::{ChecksumMode, ChecksumType, EncodingType};
use aws_smithy_async::rt::sleep::TokioSleep;
use base64::Engine as _;
use bytes::Bytes;
use invar_cloud_identity::{AwsCredentials, Surroundings, sdk_http_client};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use sha2::{Digest as _, Sha256};

use crate::bucket::Bucket;
use crate::error::StoreError;
use crate::hexadecimal;
use crate::refusal::{Refusal, Remedy, refusal};

/// A transfer without a byte for this long is given up.
const IDLE: Duration = Duration::from_secs(30);
/// A page of a listing may be longer than an object: a thousand names of a kilobyte each, escaped.
const LARGEST_PAGE: usize = 16 * 1024 * 1024;
/// Pages of a listing that bring nothing; some stores send a few behind deleted objects.
const MOST_EMPTY_PAGES: usize = 100;

/// One go at a bucket.
pub struct Session<'b> {
    bucket: &'b Bucket,
    http: reqwest::Client,
    surroundings: Surroundings,
    credentials: Option<Arc<AwsCredentials>>,
    /// The client for the region it was made for.
    client: Mutex<Option<(String, Client)>>,
}

/// Which object is read, and on which condition.
#[derive(Clone, Copy, Debug, Default)]
pub struct Get<'a> {
    /// Its key.
    pub key: &'a str,
    /// A version of it.
    pub version: Option<&'a str>,
    /// Only this one.
    pub if_match: Option<&'a str>,
    /// Not this one.
    pub if_none_match: Option<&'a str>,
}

/// What was read.
#[derive(Clone, PartialEq, Eq)]
pub struct Object {
    /// The content.
    pub content: Bytes,
    /// What names exactly this content; opaque.
    pub etag: String,
    /// Its version, in a bucket that keeps versions.
    pub version: Option<String>,
    /// How the content is encoded, where it is.
    pub encoding: Option<String>,
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What names the content; opaque.
    pub etag: String,
    /// Its size, in bytes.
    pub size: u64,
}

// === impl Session ===

impl<'b> Session<'b> {
    pub(crate) fn new(
        bucket: &'b Bucket,
        http: reqwest::Client,
        surroundings: Surroundings,
        credentials: Option<Arc<AwsCredentials>>,
    ) -> Self {
        Self { bucket, http, surroundings, credentials, client: Mutex::default() }
    }

    /// Reads one object.
    ///
    /// # Errors
    /// [`StoreError`]; what the conditions exclude is [`StoreError::NotModified`] or [`StoreError::Changed`].
    pub async fn get(&self, get: &Get<'_>) -> Result<Object, StoreError> {
        self.corrected(|client| self.get_once(client, get)).await
    }

    async fn get_once(&self, client: Client, get: &Get<'_>) -> Result<Object, Refusal> {
        let request = client
            .get_object()
            .bucket(&self.bucket.settings.bucket)
            .key(get.key)
            .set_version_id(get.version.map(str::to_owned))
            .set_if_match(get.if_match.map(str::to_owned))
            .set_if_none_match(get.if_none_match.map(str::to_owned))
            .checksum_mode(ChecksumMode::Enabled);
        let answer = request.send().await.map_err(|error| refusal(error, false))?;
        // What a store sends always has one; what a proxy or a login page sends has none, or not with this content.
        let html = answer.content_type.as_deref().is_some_and(|kind| kind.starts_with("text/html"));
        let Some(etag) = answer.e_tag.filter(|etag| !etag.is_empty()) else {
            let message = if html { "it is a web page" } else { "it has no ETag" };
            return Err(StoreError::Shape { message: message.to_owned() }.into());
        };
        let whole = answer.checksum_type != Some(ChecksumType::Composite);
        let checksum = answer.checksum_sha256.filter(|checksum| whole && !checksum.contains('-'));
        // The body is in memory already; what can go wrong is a checksum that the library knows.
        let content = answer.body.collect().await.map_err(|_| StoreError::Corrupt)?.into_bytes();
        let largest = self.bucket.settings.largest_object;
        if content.len() > largest {
            return Err(
                StoreError::TooMuch { what: format!("the object is longer than {largest} bytes") }.into()
            );
        }
        if let Some(checksum) = checksum
            && base64::engine::general_purpose::STANDARD.encode(Sha256::digest(&content)) != checksum
        {
            return Err(StoreError::Corrupt.into());
        }
        Ok(Object {
            content,
            etag,
            version: answer.version_id.filter(|version| version != "null"),
            encoding: answer.content_encoding.filter(|encoding| {
                // The way the library itself marks what it uploads in chunks.
                !encoding.is_empty() && encoding != "identity" && encoding != "aws-chunked"
            }),
        })
    }

    /// Lists all objects whose keys begin with `prefix`, all pages of them; a page that fails fails the listing.
    ///
    /// # Errors
    /// [`StoreError`]; there are more than `most`.
    pub async fn list(&self, prefix: &str, most: usize) -> Result<BTreeMap<String, Entry>, StoreError> {
        let mut entries = BTreeMap::new();
        let mut token: Option<String> = None;
        let mut empty_pages = 0;
        loop {
            let page = self.corrected(|client| self.page(client, prefix, token.clone())).await?;
            let shape = |message: &str| StoreError::Shape { message: message.to_owned() };
            let encoded = page.encoding_type == Some(EncodingType::Url);
            let objects = page.contents.unwrap_or_default();
            // The library takes half a document for a whole one; every store says one or the other before the entries.
            let whole = match page.key_count {
                Some(count) => usize::try_from(count).is_ok_and(|count| objects.len() >= count),
                None => page.is_truncated.is_some(),
            };
            if !whole {
                return Err(shape("the listing is cut off"));
            }
            empty_pages += usize::from(objects.is_empty());
            for object in objects {
                let key = object.key.ok_or_else(|| shape("an entry of the listing has no key"))?;
                let key =
                    if encoded { decode(&key).ok_or_else(|| shape("a key is not UTF-8"))? } else { key };
                if !key.starts_with(prefix) {
                    return Err(shape("the listing holds keys that were not asked for"));
                }
                let size = object.size.and_then(|size| u64::try_from(size).ok());
                let size = size.ok_or_else(|| shape("an entry of the listing has no size"))?;
                entries.insert(key, Entry { etag: object.e_tag.unwrap_or_default(), size });
                if entries.len() > most {
                    return Err(StoreError::TooMuch { what: format!("there are more than {most} objects") });
                }
            }
            let next = page.next_continuation_token.filter(|next| !next.is_empty());
            match (page.is_truncated == Some(true), next) {
                (false, _) => return Ok(entries),
                (true, None) => return Err(shape("the listing goes on, but does not say where")),
                (true, next) if next == token || empty_pages > MOST_EMPTY_PAGES => {
                    return Err(shape("the listing has no end"));
                }
                (true, next) => token = next,
            }
        }
    }

    async fn page(
        &self,
        client: Client,
        prefix: &str,
        token: Option<String>,
    ) -> Result<ListObjectsV2Output, Refusal> {
        let prefix = Some(prefix).filter(|prefix| !prefix.is_empty());
        let request = client
            .list_objects_v2()
            .bucket(&self.bucket.settings.bucket)
            .set_prefix(prefix.map(str::to_owned))
            .set_continuation_token(token)
            // Keys may hold what XML cannot.
            .encoding_type(EncodingType::Url);
        request.send().await.map_err(|error| refusal(error, true))
    }

    /// Sends a request, and again with what the store tells us to do otherwise; once for each reason.
    async fn corrected<T, F>(&self, request: impl Fn(Client) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Refusal>>,
    {
        let (mut moved, mut corrected, mut renewed) = (false, false, false);
        self.bucket.warn_of_skew();
        loop {
            if let Some(credentials) = &self.credentials {
                credentials.refresh(&self.surroundings).await?;
            }
            let (region, client) = self.client();
            let refusal = match request(client).await {
                Ok(answer) => return Ok(answer),
                Err(refusal) => refusal,
            };
            match (refusal.remedy, &self.credentials) {
                (Some(Remedy::Region(there)), _) if !moved && self.bucket.learn_region(&there, &region) => {
                    moved = true;
                }
                (Some(Remedy::Time(theirs)), _) if !corrected => {
                    self.bucket.learn_time(theirs);
                    corrected = true;
                }
                (Some(Remedy::Renew), Some(credentials)) if !renewed => {
                    credentials.expired();
                    renewed = true;
                }
                _ => return Err(refusal.error),
            }
        }
    }

    fn client(&self) -> (String, Client) {
        let region = self.bucket.region(&self.surroundings);
        let mut held = self.client.lock();
        if let Some((of, client)) = &*held
            && *of == region
        {
            return (region, client.clone());
        }
        let client = Client::from_conf(self.config(&region));
        *held = Some((region.clone(), client.clone()));
        (region, client)
    }

    fn config(&self, region: &str) -> Config {
        let settings = &self.bucket.settings;
        // A store of our own may want signatures for another region than the one it says it is in.
        let given = !settings.signing_region.is_empty() && !settings.endpoint.is_empty();
        let own = given && self.bucket.learnt_region().is_none();
        let signing = if own { settings.signing_region.as_str() } else { region };
        let largest = settings.largest_object.max(LARGEST_PAGE);
        let mut builder = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(signing.to_owned()))
            .http_client(sdk_http_client(self.http.clone(), largest, IDLE))
            .sleep_impl(TokioSleep::new())
            .time_source(self.bucket.time_source())
            .disable_clock_skew_correction(true)
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .identity_cache(IdentityCache::no_cache())
            .disable_s3_express_session_auth(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .force_path_style(settings.path_style);
        if !settings.endpoint.is_empty() {
            builder = builder.endpoint_url(settings.endpoint.trim_end_matches('/'));
        }
        builder = match &self.credentials {
            Some(credentials) => {
                builder.credentials_provider(credentials.provider(self.surroundings.clone()))
            }
            None => builder.allow_no_auth(),
        };
        builder.build()
    }
}

impl fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({})", self.bucket.settings.bucket)
    }
}

// === impl Object ===

impl fmt::Debug for Object {
    // The content is left out: somebody may have written a password into it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object")
            .field("etag", &self.etag)
            .field("version", &self.version)
            .field("sha256", &hexadecimal(&Sha256::digest(&self.content)))
            .finish_non_exhaustive()
    }
}

/// A key as listings give it on request: like the value of a form.
fn decode(key: &str) -> Option<String> {
    let key = key.replace('+', " ");
    percent_decode_str(&key).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_decoded_like_forms() {
        assert_eq!(decode("a/b%20c+d%2Be.alloy").as_deref(), Some("a/b c d+e.alloy"));
        assert_eq!(decode("%FF"), None);
        assert_eq!(decode("a%01").as_deref(), Some("a\u{1}"));
    }
}
