//! The identity of an endpoint towards a cloud: from the blocks `sigv4`, `azuread` and `google_iam` to what authenticates
//! each request.

use std::path::Path;
use std::sync::Arc;

use invar_blocks::http_client::{AuthenticationHeaders, RequestAuthenticator};
use invar_blocks::{HttpClientError, HttpClientOptions};
use invar_cloud_identity::{
    AwsSettings, AzureCloud, AzureCredential, AzureSettings, CloudIdentity, GoogleSettings, IdentityError,
    Surroundings,
};
use invar_engine::{PrepareError, Services};

use super::arguments::{AzureAdArguments, EndpointArguments, SigV4Arguments};

/// What a token of Google is asked for.
const GOOGLE_SCOPE: &str = "https://www.googleapis.com/auth/monitoring.write";

/// An identity as the client takes it.
#[derive(Debug)]
struct Authenticator(CloudIdentity);

/// The identity that the arguments ask for, if any. Fetches nothing yet.
pub(super) async fn authenticator(
    arguments: &EndpointArguments,
    options: &HttpClientOptions,
    services: &Services,
) -> Result<Option<Arc<dyn RequestAuthenticator>>, PrepareError> {
    if arguments.sigv4.is_none() && arguments.azuread.is_none() && arguments.google_iam.is_none() {
        return Ok(None);
    }
    for path in files(arguments) {
        let (access, path) = (options.access.clone(), path.to_owned());
        let checked = tokio::task::spawn_blocking(move || access.file(Path::new(&path))).await;
        checked
            .map_err(|error| PrepareError::invalid(format!("endpoint: {error}")))?
            .map_err(PrepareError::not_allowed)?;
    }
    let surroundings = match services.get::<Surroundings>() {
        Some(surroundings) => (*surroundings).clone(),
        None => {
            let made = Surroundings::of_process(&options.user_agent).await;
            let made = made.map_err(|error| PrepareError::invalid(format!("endpoint: {error}")))?;
            // All endpoints share the connections to those who hand out credentials.
            services.insert(Arc::new(made.clone()));
            made
        }
    };
    let identity = if let Some(sigv4) = &arguments.sigv4 {
        CloudIdentity::aws(aws(sigv4), surroundings)
    } else if let Some(azure) = &arguments.azuread {
        let settings = azure_settings(azure)
            .ok_or_else(|| PrepareError::invalid("azuread: needs a cloud and one way to authenticate"))?;
        CloudIdentity::azure(settings, surroundings)
    } else {
        let credentials_file =
            arguments.google_iam.as_ref().map(|google| google.credentials_file.clone()).unwrap_or_default();
        let settings = GoogleSettings { credentials_file, scope: GOOGLE_SCOPE.to_owned() };
        CloudIdentity::google(settings, surroundings)
    };
    Ok(Some(Arc::new(Authenticator(identity))))
}

/// The files that the arguments name.
fn files(arguments: &EndpointArguments) -> impl Iterator<Item = &str> {
    let google = arguments.google_iam.as_ref().map(|google| google.credentials_file.as_str());
    let azure = arguments.azuread.as_ref().and_then(|azure| azure.workload_identity.as_ref());
    let azure = azure.map(|workload| workload.token_file_path.as_str());
    google.into_iter().chain(azure).filter(|path| !path.is_empty())
}

fn aws(sigv4: &SigV4Arguments) -> AwsSettings {
    AwsSettings {
        region: sigv4.region.clone(),
        access_key: sigv4.access_key.clone(),
        secret_key: sigv4.secret_key.clone(),
        profile: sigv4.profile.clone(),
        role_arn: sigv4.role_arn.clone(),
        external_id: sigv4.external_id.clone(),
        use_fips_sts_endpoint: sigv4.use_fips_sts_endpoint,
        service_name: sigv4.service_name.clone(),
        ..AwsSettings::default()
    }
}

fn azure_settings(azure: &AzureAdArguments) -> Option<AzureSettings> {
    let credential = if let Some(identity) = &azure.managed_identity {
        AzureCredential::ManagedIdentity { client_id: identity.client_id.clone() }
    } else if let Some(oauth) = &azure.oauth {
        AzureCredential::Oauth {
            client_id: oauth.client_id.clone(),
            client_secret: oauth.client_secret.clone(),
            tenant_id: oauth.tenant_id.clone(),
        }
    } else if let Some(workload) = &azure.workload_identity {
        AzureCredential::WorkloadIdentity {
            client_id: workload.client_id.clone(),
            tenant_id: workload.tenant_id.clone(),
            token_file: workload.token_file_path.clone(),
        }
    } else {
        AzureCredential::Environment { tenant_id: azure.sdk.as_ref()?.tenant_id.clone() }
    };
    Some(AzureSettings {
        cloud: AzureCloud::from_name(&azure.cloud)?,
        scope: azure.scope.clone(),
        credential,
    })
}

impl RequestAuthenticator for Authenticator {
    fn headers<'a>(&'a self, request: &'a reqwest::Request) -> AuthenticationHeaders<'a> {
        Box::pin(async move {
            let headers = self.0.headers(request).await;
            headers.map_err(|error: IdentityError| HttpClientError::Identity { message: error.to_string() })
        })
    }

    fn refused(&self) {
        self.0.refused();
    }
}
