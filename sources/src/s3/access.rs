//! How the bucket is reached: the connection with its authorities and proxy, the credential, and what failures mean for the
//! schedule.
//!
//! Credentials are those of the settings, read again for each poll so that a rotation is followed, or those that the chain
//! of AWS's own libraries finds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use invar_cloud_identity::{AwsCredentials, AwsSettings as Identity, Surroundings};
use invar_object_store::{Bucket, BucketSettings, Session, StoreError};
use invar_secrets::Secret;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use url::Url;

use crate::SourceEnvironment;
use crate::connection::{Connection, certificate_help, hide, secret_failure};
use crate::error::{ErrorClass, Failure, Rejection};
use crate::settings::{AuthSettings, AwsSettings, S3Settings, SourceSettings};

/// How long after a rotation a refused credential counts as not yet known to every server (D17).
const ROTATION_GRACE: Duration = Duration::from_secs(60);
const USER_AGENT: &str = concat!("invar/", env!("CARGO_PKG_VERSION"));

/// The way to a bucket.
pub(super) struct Access {
    bucket: Bucket,
    bucket_name: String,
    connection: Connection,
    environment: SourceEnvironment,
    aws: AwsSettings,
    region: String,
    surroundings: Mutex<Option<Surroundings>>,
    credential: Mutex<Credential>,
}

#[derive(Default)]
struct Credential {
    /// The credentials and the fingerprint of what they were made of.
    held: Option<([u8; 32], Arc<AwsCredentials>)>,
    /// What in them is secret.
    secrets: Vec<Secret>,
    /// Since when, where they replaced others.
    rotated: Option<Instant>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Access({})", self.bucket_name)
    }
}

impl Access {
    /// Does no input or output.
    pub(super) fn new(
        settings: &SourceSettings,
        s3: &S3Settings,
        largest_object: usize,
        environment: &SourceEnvironment,
    ) -> Result<Self, Failure> {
        let bucket = Bucket::new(BucketSettings {
            bucket: s3.bucket.clone(),
            region: s3.region.clone().unwrap_or_default(),
            signing_region: String::new(),
            endpoint: s3.endpoint.clone().unwrap_or_default(),
            path_style: s3.path_style.unwrap_or(s3.endpoint.is_some()),
            largest_object,
        });
        let bucket = bucket.map_err(|error| Failure::stalled(format!("`s3`: {error}")))?;
        let address = s3.endpoint.as_deref().unwrap_or("https://s3.amazonaws.com");
        let url = Url::parse(address).map_err(|_| Failure::stalled("`s3.endpoint` is not an address"))?;
        let aws = match &settings.auth {
            None => AwsSettings::default(),
            Some(AuthSettings { aws: Some(aws), .. }) => aws.clone(),
            Some(_) => return Err(Failure::stalled("an s3 source has no `auth` but `auth.aws`")),
        };
        if let Some(problem) = aws.problems().first() {
            return Err(Failure::stalled(*problem));
        }
        // Requests are signed, which is the library's business: nothing secret goes over the connection.
        let unsigned = SourceSettings { auth: None, ..settings.clone() };
        Ok(Self {
            bucket,
            bucket_name: s3.bucket.clone(),
            connection: Connection::new(url, &unsigned, USER_AGENT, environment)?.verbatim(),
            environment: environment.clone(),
            region: s3.region.clone().unwrap_or_default(),
            aws,
            surroundings: Mutex::default(),
            credential: Mutex::default(),
        })
    }

    pub(super) fn bucket_name(&self) -> &str {
        &self.bucket_name
    }

    /// The host whose share of requests a poll uses up.
    pub(super) fn host(&self) -> String {
        self.connection.url().host_str().unwrap_or_default().to_owned()
    }

    pub(super) fn is_insecure(&self) -> bool {
        self.connection.is_insecure()
    }

    pub(super) fn learnt_region(&self) -> Option<String> {
        self.bucket.learnt_region()
    }

    /// Opens the bucket with what the credential is now; sends nothing yet.
    pub(super) async fn session(&self) -> Result<Session<'_>, Failure> {
        let client = self.connection.client().await?;
        let credentials = if self.aws.anonymous { None } else { Some(self.credentials().await?) };
        let mut held = self.surroundings.lock();
        let surroundings = match held.take() {
            Some(surroundings) => surroundings.with_client(client.clone()),
            None => Surroundings::over(client.clone(), self.bucket.clock())
                .map_err(|error| Failure::stalled(error.to_string()))?,
        };
        *held = Some(surroundings.clone());
        drop(held);
        Ok(self.bucket.open(client, surroundings, credentials))
    }

    /// Credentials made of the settings; the same ones until a secret in them is another one.
    async fn credentials(&self) -> Result<Arc<AwsCredentials>, Failure> {
        let aws = &self.aws;
        let mut fingerprint = Sha256::new();
        let mut secrets = Vec::new();
        for credential in [&aws.secret_key, &aws.session_token] {
            let secret = match credential {
                Some(credential) => {
                    let resolved = credential.resolve(&self.environment.secrets).await;
                    resolved.map_err(|error| secret_failure(&error))?
                }
                None => Secret::default(),
            };
            fingerprint.update(Sha256::digest(secret.expose()));
            secrets.push(secret);
        }
        let fingerprint: [u8; 32] = fingerprint.finalize().into();
        let mut credential = self.credential.lock();
        if let Some((of, held)) = &credential.held
            && *of == fingerprint
        {
            return Ok(Arc::clone(held));
        }
        credential.secrets.clone_from(&secrets);
        let session_token = secrets.pop().unwrap_or_default();
        let secret_key = secrets.pop().unwrap_or_default();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let region = Some(self.region.clone()).filter(|region| !region.is_empty());
        let made = Arc::new(AwsCredentials::new(Identity {
            region: region.or_else(environment_region).unwrap_or_else(|| "us-east-1".to_owned()),
            access_key: text(&aws.access_key),
            secret_key,
            session_token,
            profile: text(&aws.profile),
            role_arn: text(&aws.role_arn),
            external_id: text(&aws.external_id),
            role_session_name: text(&aws.role_session_name),
            web_identity_token_file: aws.web_identity_token_file.clone(),
            sts_endpoint: text(&aws.sts_endpoint),
            use_fips_sts_endpoint: false,
            service_name: "s3".to_owned(),
        }));
        if credential.held.is_some() {
            credential.rotated = Some(Instant::now());
        }
        credential.held = Some((fingerprint, Arc::clone(&made)));
        Ok(made)
    }

    /// What an error at `place` means; without the credential, should the store have said it in its own words.
    pub(super) fn failure(&self, place: &str, error: &StoreError) -> Failure {
        if let StoreError::Denied { .. } | StoreError::BadCredential { .. } | StoreError::Expired { .. } =
            error
        {
            let shown = [&self.aws.secret_key, &self.aws.session_token].into_iter().flatten();
            shown.for_each(|credential| credential.refused(&self.environment.secrets));
        }
        let mut failure = self.meaning(place, error);
        for secret in &self.credential.lock().secrets {
            hide(&mut failure.message, secret.expose());
        }
        failure
    }

    fn meaning(&self, place: &str, error: &StoreError) -> Failure {
        let rotated = self.credential.lock().rotated.is_some_and(|at| at.elapsed() < ROTATION_GRACE);
        let class = match error {
            StoreError::Denied { .. } | StoreError::BadCredential { .. } | StoreError::Expired { .. }
                if rotated =>
            {
                let message = format!("{place}: {error}; the credential changed less than a minute ago");
                return Failure::transient(message);
            }
            StoreError::NoSuchObject { .. } | StoreError::NoSuchBucket { .. } => ErrorClass::NotFound,
            StoreError::Denied { .. } => ErrorClass::Forbidden,
            StoreError::BadCredential { .. } | StoreError::Expired { .. } => ErrorClass::AuthExpired,
            // The endpoints that hand out credentials come back, as others do.
            StoreError::NoCredential(_) => ErrorClass::AuthExpired,
            StoreError::Busy { after: Some(after), .. } => ErrorClass::RateLimited { after: Some(*after) },
            StoreError::Busy { after: None, .. }
            | StoreError::Unavailable { .. }
            | StoreError::NotModified
            | StoreError::Changed
            | StoreError::ClockSkew { .. } => ErrorClass::Transient,
            StoreError::Corrupt | StoreError::Elsewhere { .. } => ErrorClass::Integrity,
            StoreError::TooMuch { .. } => ErrorClass::Rejected(Rejection::Limits),
            StoreError::Shape { .. } => ErrorClass::Rejected(Rejection::Shape),
            StoreError::Refused { status: 403 | 407, .. } => ErrorClass::Forbidden,
            // A proxy or a gateway in between may say this for a while, so that it is asked again by itself. Only a request
            // that cannot even be made is as wrong tomorrow.
            StoreError::Refused { status: 1.., .. } => ErrorClass::Transient,
            _ => ErrorClass::Stalled,
        };
        let failure = Failure::new(class, format!("{place}: {error}"));
        match error.help().or_else(|| certificate_help(&failure.message)) {
            Some(help) => failure.with_help(help),
            None => failure,
        }
    }
}

fn environment_region() -> Option<String> {
    let named = |name: &str| std::env::var(name).ok().filter(|region| !region.is_empty());
    named("AWS_REGION").or_else(|| named("AWS_DEFAULT_REGION"))
}
