//! A bucket: where it is and how it is addressed, and what was learnt about it on the way: the region it turned out to be
//! in, and by how much the clock of this host is off.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use aws_smithy_async::time::TimeSource;
use invar_cloud_identity::{AwsCredentials, Surroundings};
use parking_lot::Mutex;
use tokio::time::Instant;
use url::Url;

use crate::session::Session;

/// How often a wrong clock is spoken of.
const SKEW_WARNING: Duration = Duration::from_secs(3600);
const DEFAULT_REGION: &str = "us-east-1";

/// Which bucket of which store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketSettings {
    /// The bucket.
    pub bucket: String,
    /// The region; empty for the one the environment names, else `us-east-1`.
    pub region: String,
    /// The region that signatures are made for at an `endpoint`; empty for `region`.
    pub signing_region: String,
    /// The address of a compatible store; empty for S3 itself.
    pub endpoint: String,
    /// Whether the bucket is the first part of the path instead of a part of the host's name.
    pub path_style: bool,
    /// The largest object that is read, in bytes.
    pub largest_object: usize,
}

/// Settings that cannot name a bucket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBucket {
    /// No name of a bucket.
    #[error(
        "`{0}` cannot be the name of a bucket: those have 3 to 63 lowercase letters, digits, `-` and `.`"
    )]
    Name(String),
    /// No address.
    #[error("the endpoint is not an http:// or https:// address")]
    Endpoint,
    /// An address that carries a credential, or more than an address.
    #[error("the endpoint is an address with nothing but a host, a port and a path")]
    EndpointParts,
    /// No name of a region.
    #[error("`{0}` cannot be the name of a region")]
    Region(String),
}

/// A bucket, for as long as somebody reads it.
#[derive(Debug)]
pub struct Bucket {
    pub(crate) settings: BucketSettings,
    learnt_region: Mutex<Option<String>>,
    clock: Clock,
    warned: Mutex<Option<Instant>>,
}

/// The time of this host, corrected by what the store says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    /// Milliseconds.
    offset: Arc<AtomicI64>,
}

// === impl Bucket ===

impl Bucket {
    /// A bucket by its settings; does no input or output.
    ///
    /// # Errors
    /// [`InvalidBucket`].
    pub fn new(settings: BucketSettings) -> Result<Self, InvalidBucket> {
        if !is_bucket_name(&settings.bucket) {
            return Err(InvalidBucket::Name(settings.bucket.chars().take(80).collect()));
        }
        if !settings.endpoint.is_empty() {
            let url = Url::parse(&settings.endpoint).map_err(|_| InvalidBucket::Endpoint)?;
            if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
                return Err(InvalidBucket::Endpoint);
            }
            let user = !url.username().is_empty() || url.password().is_some();
            if user || url.query().is_some() || url.fragment().is_some() {
                return Err(InvalidBucket::EndpointParts);
            }
        }
        for region in [&settings.region, &settings.signing_region] {
            if !region.is_empty() && !is_region(region) {
                return Err(InvalidBucket::Region(region.chars().take(80).collect()));
            }
        }
        Ok(Self {
            settings,
            learnt_region: Mutex::default(),
            clock: Clock::default(),
            warned: Mutex::default(),
        })
    }

    /// Opens it over `client`, with `credentials` or, without any, unsigned. Cheap; nothing is sent.
    #[must_use]
    pub fn open(
        &self,
        client: reqwest::Client,
        surroundings: Surroundings,
        credentials: Option<Arc<AwsCredentials>>,
    ) -> Session<'_> {
        Session::new(self, client, surroundings, credentials)
    }

    /// The time, corrected by what the store says.
    pub fn clock(&self) -> impl Fn() -> SystemTime + Send + Sync + 'static {
        let clock = self.clock.clone();
        move || clock.now()
    }

    /// The region the bucket turned out to be in, where that is not the configured one.
    #[must_use]
    pub fn learnt_region(&self) -> Option<String> {
        self.learnt_region.lock().clone()
    }

    /// By how many seconds this host's clock is behind the store's; nothing while nobody minds.
    #[must_use]
    pub fn clock_offset(&self) -> Option<i64> {
        match self.clock.offset.load(Ordering::Relaxed) {
            0 => None,
            offset => Some(offset / 1000),
        }
    }

    pub(crate) fn region(&self, surroundings: &Surroundings) -> String {
        if let Some(learnt) = self.learnt_region() {
            return learnt;
        }
        let configured = Some(self.settings.region.clone()).filter(|region| !region.is_empty());
        let named = || surroundings.aws_region().filter(|region| is_region(region));
        configured.or_else(named).unwrap_or_else(|| DEFAULT_REGION.to_owned())
    }

    /// Takes note that the bucket is in `region`; says whether that is news.
    pub(crate) fn learn_region(&self, region: &str, before: &str) -> bool {
        if region == before || !is_region(region) {
            return false;
        }
        tracing::warn!(
            bucket = self.settings.bucket,
            region,
            configured = before,
            "the bucket is in another region than configured; set its region to save a request"
        );
        *self.learnt_region.lock() = Some(region.to_owned());
        true
    }

    /// Takes note of the store's time.
    pub(crate) fn learn_time(&self, theirs: SystemTime) {
        let ours = SystemTime::now();
        let milliseconds = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let offset = match theirs.duration_since(ours) {
            Ok(behind) => milliseconds(behind),
            Err(ahead) => -milliseconds(ahead.duration()),
        };
        self.clock.offset.store(offset, Ordering::Relaxed);
        self.warn_of_skew();
    }

    /// Says once an hour that the clock is off; whether it said so now.
    pub(crate) fn warn_of_skew(&self) -> bool {
        let Some(seconds) = self.clock_offset() else { return false };
        let mut warned = self.warned.lock();
        let due = warned.is_none_or(|at| at.elapsed() >= SKEW_WARNING);
        if due {
            *warned = Some(Instant::now());
            tracing::warn!(
                bucket = self.settings.bucket,
                behind_seconds = seconds,
                "the clock of this host is off: the store refused a request for it, and its time is used instead"
            );
        }
        due
    }

    pub(crate) fn time_source(&self) -> Clock {
        self.clock.clone()
    }
}

// === impl Clock ===

impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        let now = SystemTime::now();
        let offset = self.offset.load(Ordering::Relaxed);
        let by = Duration::from_millis(offset.unsigned_abs());
        let corrected = if offset < 0 { now.checked_sub(by) } else { now.checked_add(by) };
        corrected.unwrap_or(now)
    }
}

/// What S3 takes for a name, and what aliases of access points and older buckets are called.
fn is_bucket_name(name: &str) -> bool {
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let arn = name.starts_with("arn:") && name.chars().all(|c| c.is_ascii_graphic() && c != '?' && c != '#');
    let edges = !name.starts_with(['.', '-']) && !name.ends_with(['.', '-']) && !name.contains("..");
    arn || ((3..=255).contains(&name.len()) && name.chars().all(usual) && edges)
}

pub(crate) fn is_region(name: &str) -> bool {
    (1..=40).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn settings(bucket: &str, endpoint: &str) -> BucketSettings {
        BucketSettings {
            bucket: bucket.to_owned(),
            endpoint: endpoint.to_owned(),
            ..BucketSettings::default()
        }
    }

    #[test]
    fn what_cannot_name_a_bucket_is_refused_before_anything_is_sent() {
        for good in ["abc", "a.b-c", "arn:aws:s3:eu-west-1:1:accesspoint/x"] {
            Bucket::new(settings(good, "")).unwrap();
        }
        for bad in ["", "ab", "a/b", "../x", "a..b", "a b", "-ab", "a?b"] {
            assert!(matches!(Bucket::new(settings(bad, "")), Err(InvalidBucket::Name(_))), "{bad}");
        }
        for bad in ["x", "ftp://x", "unix:/x"] {
            assert_eq!(Bucket::new(settings("abc", bad)).unwrap_err(), InvalidBucket::Endpoint, "{bad}");
        }
        let with_key = Bucket::new(settings("abc", "https://id:hunter2@x")).unwrap_err();
        assert_eq!(with_key, InvalidBucket::EndpointParts);
        assert!(!format!("{with_key:?} {with_key}").contains("hunter2"));
    }

    #[test]
    fn the_time_of_the_store_is_taken_over() {
        let bucket = Bucket::new(settings("abc", "")).unwrap();
        assert_eq!(bucket.clock_offset(), None);
        let theirs = SystemTime::now() + Duration::from_secs(7200);
        bucket.learn_time(theirs);
        assert!(bucket.clock_offset().is_some_and(|offset| (7190..=7200).contains(&offset)));
        assert!(bucket.clock()() >= theirs - Duration::from_secs(1));
        bucket.learn_time(SystemTime::now() - Duration::from_secs(7200));
        assert!(bucket.clock_offset().is_some_and(|offset| (-7201..=-7190).contains(&offset)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_clock_is_spoken_of_once_an_hour() {
        let bucket = Bucket::new(settings("abc", "")).unwrap();
        assert!(!bucket.warn_of_skew(), "nobody minds the clock");
        bucket.learn_time(SystemTime::now() + Duration::from_secs(7200));
        assert!(!bucket.warn_of_skew(), "it was said when it was learnt");
        tokio::time::advance(SKEW_WARNING).await;
        assert!(bucket.warn_of_skew());
        assert!(!bucket.warn_of_skew());
    }

    #[test]
    fn a_region_is_learnt_once_and_only_if_it_can_be_one() {
        let bucket = Bucket::new(settings("abc", "")).unwrap();
        assert!(!bucket.learn_region("us-east-1", "us-east-1"));
        assert!(!bucket.learn_region("evil.example/?", "us-east-1"));
        assert!(bucket.learn_region("eu-west-1", "us-east-1"));
        assert_eq!(bucket.learnt_region().as_deref(), Some("eu-west-1"));
    }
}
