//! Reads the object that the arguments name, through the room that knows the protocol.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use invar_cloud_identity::{AwsCredentials, AwsSettings, Surroundings};
use invar_engine::{PrepareError, PrepareErrorKind};
use invar_object_store::{Bucket, BucketSettings, Get, StoreError};
use invar_policy::Access;
use invar_syntax::secret::Secret;
use invar_tls::{ClientSettings, Origins};

use super::{Content, RemoteS3Arguments};

/// Content is held in memory, compared and evaluated: what is larger is not meant for this.
const LARGEST: usize = 16 << 20;
/// One read with all it takes: a credential, another region.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const USER_AGENT: &str = concat!("invar/", env!("CARGO_PKG_VERSION"));

/// The way to one object.
pub(super) struct Reader {
    path: String,
    key: String,
    bucket: Bucket,
    client: reqwest::Client,
    surroundings: Surroundings,
    credentials: Arc<AwsCredentials>,
}

/// Bucket and key of a path.
pub(super) fn split(path: &str) -> Result<(&str, &str), &'static str> {
    let place = path.strip_prefix("s3://").and_then(|rest| rest.split_once('/'));
    match place {
        Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() && !key.ends_with('/') => {
            Ok((bucket, key))
        }
        _ => Err("must be of the form \"s3://bucket/key\", an object and no folder"),
    }
}

impl Reader {
    /// Makes the client; sends nothing.
    pub(super) async fn new(arguments: &RemoteS3Arguments, access: &Access) -> Result<Self, PrepareError> {
        let (bucket, key) =
            split(&arguments.path).map_err(|why| PrepareError::invalid(format!("path {why}")))?;
        let client = &arguments.client;
        let store = match client.endpoint.as_str() {
            "" => format!("https://{bucket}.s3.amazonaws.com"),
            endpoint => endpoint.to_owned(),
        };
        crate::reach::by_name(&store, access).map_err(PrepareError::not_allowed)?;
        let bucket = Bucket::new(BucketSettings {
            bucket: bucket.to_owned(),
            region: client.region.clone(),
            signing_region: client.signing_region.clone(),
            endpoint: client.endpoint.clone(),
            path_style: client.use_path_style,
            largest_object: LARGEST,
        });
        let bucket = bucket.map_err(|error| PrepareError::invalid(error.to_string()))?;
        let failed = |error: String| PrepareError::invalid(format!("no client can be made: {error}"));
        let material = Origins::default().read().await.map_err(|error| failed(error.to_string()))?;
        let tls = ClientSettings { insecure_skip_verify: client.disable_ssl, ..ClientSettings::default() };
        // The system's certificates are read from files.
        let config = tokio::task::spawn_blocking(move || tls.config(&material)).await;
        let config =
            config.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .http1_only()
            // Checksums are over what is stored, content encoding and all.
            .gzip(false)
            .build()
            .map_err(|error| failed(error.without_url().to_string()))?;
        let surroundings = Surroundings::over(http.clone(), bucket.clock());
        let surroundings = surroundings.map_err(|error| failed(error.to_string()))?;
        let region = Some(client.region.clone()).filter(|region| !region.is_empty());
        let region = region.or_else(|| surroundings.aws_region()).unwrap_or_else(|| "us-east-1".to_owned());
        let credentials = AwsCredentials::new(AwsSettings {
            region,
            access_key: client.key.clone(),
            secret_key: client.secret.clone(),
            ..AwsSettings::default()
        });
        Ok(Self {
            path: arguments.path.clone(),
            key: key.to_owned(),
            bucket,
            client: http,
            surroundings,
            credentials: Arc::new(credentials),
        })
    }

    /// Reads the object; `None` where it is the one that `etag` names.
    pub(super) async fn read(&self, etag: Option<&str>) -> Result<Option<Content>, PrepareError> {
        let credentials = Some(Arc::clone(&self.credentials));
        let session = self.bucket.open(self.client.clone(), self.surroundings.clone(), credentials);
        let get = Get { key: &self.key, if_none_match: etag, ..Get::default() };
        let object = match tokio::time::timeout(READ_TIMEOUT, session.get(&get)).await {
            Ok(Ok(object)) => object,
            Ok(Err(StoreError::NotModified)) if etag.is_some() => return Ok(None),
            Ok(Err(error)) => {
                let failure = PrepareError::new(PrepareErrorKind::Io, format!("{}: {error}", self.path));
                return Err(match error.help() {
                    Some(help) => failure.with_help(help),
                    None => failure,
                });
            }
            Err(_) => {
                let message = format!("{}: no answer within {} s", self.path, READ_TIMEOUT.as_secs());
                return Err(PrepareError::new(PrepareErrorKind::Io, message));
            }
        };
        if object.encoding.is_some() {
            return Err(PrepareError::new(PrepareErrorKind::Io, format!("{}: is compressed", self.path))
                .with_help("upload it as it is"));
        }
        let text = String::from_utf8(object.content.into()).map_err(|_| {
            PrepareError::new(PrepareErrorKind::Io, format!("{}: is not UTF-8 text", self.path))
        })?;
        Ok(Some(Content { etag: object.etag, text: Secret::new(text) }))
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({})", self.path)
    }
}
