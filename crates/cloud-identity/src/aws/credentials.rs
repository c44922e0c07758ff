//! Finds credentials: those of the settings, those of a profile, or those that AWS's own chain finds, and with any of them
//! those of a role.

use std::error::Error;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_async::time::TimeSource;
use aws_types::origin::Origin;
use std::time::Duration;

use super::connector::Connector;
use super::{AwsSettings, CLOUD, Signer, lifetime, web_identity};
use crate::IdentityError;
use crate::cache::Fetched;
use crate::surroundings::Surroundings;

/// One operation with all its retries.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(15);
/// Errors of AWS are longer than anybody reads.
const MAX_MESSAGE: usize = 400;

/// The time of the surroundings.
#[derive(Debug)]
struct Clock(Surroundings);

impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        self.0.now()
    }
}

/// Fetches credentials and finds out the region.
pub(super) async fn fetch(
    settings: &AwsSettings,
    surroundings: &Surroundings,
) -> Result<Fetched<Signer>, IdentityError> {
    let config = loader(settings, surroundings).load().await;
    let region = config.region().map(ToString::to_string).filter(|region| !region.is_empty());
    let Some(region) = region else {
        return Err(unavailable("no region: set region, AWS_REGION, or one in the profile"));
    };
    let session = session_name(settings, surroundings);
    let config = at_endpoint(settings, config);
    if let Some(file) = &settings.web_identity_token_file {
        let credentials = web_identity::exchange(file, &settings.role_arn, &session, &config).await?;
        let lifetime = lifetime(&credentials, surroundings.now());
        return Ok(Fetched { value: Signer { credentials, region }, lifetime });
    }
    let provider = provider(settings, surroundings, &config)?;
    let credentials = if settings.role_arn.is_empty() {
        provider.provide_credentials().await
    } else {
        let mut role =
            AssumeRoleProvider::builder(&settings.role_arn).configure(&config).session_name(session);
        if !settings.external_id.is_empty() {
            role = role.external_id(&settings.external_id);
        }
        role.build_from_provider(provider).await.provide_credentials().await
    };
    let credentials = credentials.map_err(|error| unavailable(&causes(&error)))?;
    let lifetime = lifetime(&credentials, surroundings.now());
    Ok(Fetched { value: Signer { credentials, region }, lifetime })
}

fn session_name(settings: &AwsSettings, surroundings: &Surroundings) -> String {
    if settings.role_session_name.is_empty() {
        let since_epoch = surroundings.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("invar-{}", since_epoch.as_millis())
    } else {
        settings.role_session_name.clone()
    }
}

/// Sends what exchanges credentials to the address of the settings, before any that the environment names.
fn at_endpoint(settings: &AwsSettings, config: SdkConfig) -> SdkConfig {
    if settings.sts_endpoint.is_empty() {
        return config;
    }
    let mut builder = config.into_builder();
    builder.insert_origin("endpoint_url", Origin::shared_config());
    builder.endpoint_url(&settings.sts_endpoint).build()
}

fn loader(settings: &AwsSettings, surroundings: &Surroundings) -> ConfigLoader {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(Connector::new(surroundings.clone()))
        .sleep_impl(TokioSleep::new())
        .time_source(Clock(surroundings.clone()))
        .retry_config(retries())
        .timeout_config(timeouts());
    if !settings.region.is_empty() {
        loader = loader.region(Region::new(settings.region.clone()));
    }
    if !settings.profile.is_empty() {
        loader = loader.profile_name(&settings.profile);
    }
    if settings.use_fips_sts_endpoint {
        loader = loader.use_fips(true);
    }
    #[cfg(test)]
    if let Some(environment) = &surroundings.aws_environment {
        loader = loader.env(environment.clone());
    }
    loader
}

fn provider(
    settings: &AwsSettings,
    surroundings: &Surroundings,
    config: &SdkConfig,
) -> Result<SharedCredentialsProvider, IdentityError> {
    if !settings.access_key.is_empty() {
        let (id, key) = (settings.access_key.as_str(), settings.secret_key.expose());
        let token = Some(settings.session_token.expose().to_owned()).filter(|token| !token.is_empty());
        return Ok(SharedCredentialsProvider::new(Credentials::new(id, key, token, None, "settings")));
    }
    if settings.profile.is_empty() {
        let found = config.credentials_provider();
        return found.ok_or_else(|| unavailable("AWS's chain of credentials is empty"));
    }
    // A profile that is named wins over keys in the environment.
    let surroundings = ProviderConfig::without_region()
        .with_region(config.region().cloned())
        .with_http_client(Connector::new(surroundings.clone()))
        .with_sleep_impl(TokioSleep::new())
        .with_time_source(Clock(surroundings.clone()))
        .with_retry_config(retries())
        .with_timeout_config(timeouts())
        .with_use_fips(settings.use_fips_sts_endpoint.then_some(true));
    let profile = ProfileFileCredentialsProvider::builder().configure(&surroundings);
    Ok(SharedCredentialsProvider::new(profile.profile_name(&settings.profile).build()))
}

fn retries() -> RetryConfig {
    // The sender tries again by itself.
    RetryConfig::standard().with_max_attempts(2)
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder().operation_timeout(OPERATION_TIMEOUT).build()
}

pub(super) fn unavailable(message: &str) -> IdentityError {
    IdentityError::Unavailable { cloud: CLOUD, message: message.to_owned() }
}

/// The causes of an error, joined. Their `Debug` could hold an answer with credentials; what they display does not.
pub(super) fn causes(error: &dyn Error) -> String {
    let mut message = String::new();
    let mut cause = Some(error);
    while let Some(current) = cause {
        let text = current.to_string();
        if !message.contains(&text) {
            message.push_str(if message.is_empty() { "" } else { ": " });
            message.push_str(&text);
        }
        cause = current.source();
    }
    if let Some((cut, _)) = message.char_indices().nth(MAX_MESSAGE) {
        message.truncate(cut);
    }
    message
}
