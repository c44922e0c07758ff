//! Tokens of Microsoft Entra ID, got in one of four ways: as a managed identity from the machine's metadata service, with
//! a client secret, with a workload's federated token, or as the environment says.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use invar_syntax::secret::Secret;
use url::Url;

use crate::IdentityError;
use crate::cache::{Cache, Fetched};
use crate::surroundings::{Surroundings, sensitive};
use crate::token_endpoint::TokenEndpoint;

const CLOUD: &str = "Azure";
/// Where the webhook of Azure Workload Identity mounts the token.
const FEDERATED_TOKEN_FILE: &str = "/var/run/secrets/azure/tokens/azure-identity-token";
/// The metadata service of virtual machines.
const METADATA_HOST: &str = "http://169.254.169.254";
/// How an assertion that is a JWT is announced (RFC 7523).
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Which of Microsoft's clouds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AzureCloud {
    /// The public one.
    #[default]
    Public,
    /// Of China.
    China,
    /// Of the government of the United States.
    Government,
}

/// How the agent gets its token.
#[derive(Clone, Debug)]
pub enum AzureCredential {
    /// A managed identity; an empty id means that of the machine itself.
    ManagedIdentity {
        /// The client id of a user-assigned identity.
        client_id: String,
    },
    /// A client secret.
    Oauth {
        /// The application.
        client_id: String,
        /// Its secret.
        client_secret: Secret,
        /// Whose application.
        tenant_id: String,
    },
    /// A token of the cluster, exchanged for one of Azure.
    WorkloadIdentity {
        /// The application.
        client_id: String,
        /// Whose application.
        tenant_id: String,
        /// The file with the cluster's token, read for each exchange; empty for the usual place.
        token_file: String,
    },
    /// What the environment offers: a client secret, a workload identity or a managed identity, in this order.
    Environment {
        /// The tenant where the environment names none.
        tenant_id: String,
    },
}

/// What an identity of Azure is made of.
#[derive(Clone, Debug)]
pub struct AzureSettings {
    /// The cloud.
    pub cloud: AzureCloud,
    /// What the token is for; empty for the ingestion of metrics in this cloud.
    pub scope: String,
    /// How to get it.
    pub credential: AzureCredential,
}

pub(crate) struct AzureIdentity {
    settings: AzureSettings,
    surroundings: Surroundings,
    cache: Cache<Secret>,
}

// === impl AzureCloud ===

impl AzureCloud {
    /// The cloud that a configuration names, in any case of letters.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "azurepublic" => Some(Self::Public),
            "azurechina" => Some(Self::China),
            "azuregovernment" => Some(Self::Government),
            _ => None,
        }
    }

    fn authority(self) -> &'static str {
        match self {
            Self::Public => "https://login.microsoftonline.com",
            Self::China => "https://login.chinacloudapi.cn",
            Self::Government => "https://login.microsoftonline.us",
        }
    }

    /// The doubled slash belongs to the audience.
    fn ingestion_scope(self) -> &'static str {
        match self {
            Self::Public => "https://monitor.azure.com//.default",
            Self::China => "https://monitor.azure.cn//.default",
            Self::Government => "https://monitor.azure.us//.default",
        }
    }
}

// === impl AzureIdentity ===

impl AzureIdentity {
    pub(crate) fn new(settings: AzureSettings, surroundings: Surroundings) -> Self {
        Self { settings, surroundings, cache: Cache::new(CLOUD) }
    }

    pub(crate) async fn headers(&self) -> Result<HeaderMap, IdentityError> {
        let token = self.cache.get(|| self.fetch()).await?;
        let value = Secret::new(format!("Bearer {}", token.expose()));
        Ok(HeaderMap::from_iter([(AUTHORIZATION, sensitive(value.expose())?)]))
    }

    pub(crate) fn refused(&self) {
        self.cache.discard();
    }

    async fn fetch(&self) -> Result<Fetched<Secret>, IdentityError> {
        match &self.settings.credential {
            AzureCredential::ManagedIdentity { client_id } => self.managed(client_id).await,
            AzureCredential::Oauth { client_id, client_secret, tenant_id } => {
                self.with_secret(tenant_id, client_id, client_secret).await
            }
            AzureCredential::WorkloadIdentity { client_id, tenant_id, token_file } => {
                self.federated(tenant_id, client_id, token_file).await
            }
            AzureCredential::Environment { tenant_id } => self.by_environment(tenant_id).await,
        }
    }

    /// The first that the environment has the variables of; a managed identity where it has none.
    async fn by_environment(&self, tenant_id: &str) -> Result<Fetched<Secret>, IdentityError> {
        let variable = |name: &str| self.surroundings.variable(name);
        let client_id = variable("AZURE_CLIENT_ID");
        let tenant_id = variable("AZURE_TENANT_ID").unwrap_or_else(|| tenant_id.to_owned());
        if let (Some(client_id), Some(secret)) = (&client_id, variable("AZURE_CLIENT_SECRET")) {
            return self.with_secret(&tenant_id, client_id, &Secret::new(secret)).await;
        }
        if let (Some(client_id), Some(file)) = (&client_id, variable("AZURE_FEDERATED_TOKEN_FILE")) {
            return self.federated(&tenant_id, client_id, &file).await;
        }
        self.managed(client_id.as_deref().unwrap_or_default()).await
    }

    async fn with_secret(
        &self,
        tenant_id: &str,
        client_id: &str,
        client_secret: &Secret,
    ) -> Result<Fetched<Secret>, IdentityError> {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", client_id),
            ("client_secret", client_secret.expose()),
            ("scope", self.scope()),
        ];
        self.endpoint().post(&self.token_url(tenant_id)?, &form).await
    }

    async fn federated(
        &self,
        tenant_id: &str,
        client_id: &str,
        file: &str,
    ) -> Result<Fetched<Secret>, IdentityError> {
        let file = if file.is_empty() { FEDERATED_TOKEN_FILE } else { file };
        let assertion = self.endpoint().read(file).await?;
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", client_id),
            ("client_assertion_type", JWT_BEARER),
            ("client_assertion", assertion.expose().trim()),
            ("scope", self.scope()),
        ];
        self.endpoint().post(&self.token_url(tenant_id)?, &form).await
    }

    /// Asks App Service and Container Apps where the environment names their endpoint, else the virtual machine's.
    async fn managed(&self, client_id: &str) -> Result<Fetched<Secret>, IdentityError> {
        let variable = |name: &str| self.surroundings.variable(name);
        let (address, version, name, value) =
            match (variable("IDENTITY_ENDPOINT"), variable("IDENTITY_HEADER")) {
                (Some(address), Some(header)) => (
                    address,
                    "2019-08-01",
                    HeaderName::from_static("x-identity-header"),
                    sensitive(Secret::new(header).expose())?,
                ),
                _ => {
                    let host = variable("AZURE_POD_IDENTITY_AUTHORITY_HOST");
                    let host = host.as_deref().unwrap_or(METADATA_HOST).trim_end_matches('/');
                    (
                        format!("{host}/metadata/identity/oauth2/token"),
                        "2018-02-01",
                        HeaderName::from_static("metadata"),
                        HeaderValue::from_static("true"),
                    )
                }
            };
        let mut url = Url::parse(&address).map_err(|_| {
            self.endpoint().failure("the environment's endpoint of managed identities is no URL")
        })?;
        let resource = self.scope().strip_suffix("/.default").unwrap_or(self.scope());
        url.query_pairs_mut().append_pair("api-version", version).append_pair("resource", resource);
        if !client_id.is_empty() {
            url.query_pairs_mut().append_pair("client_id", client_id);
        }
        self.endpoint().get(url, HeaderMap::from_iter([(name, value)])).await
    }

    fn scope(&self) -> &str {
        match self.settings.scope.as_str() {
            "" => self.settings.cloud.ingestion_scope(),
            scope => scope,
        }
    }

    fn token_url(&self, tenant_id: &str) -> Result<Url, IdentityError> {
        let host = self.surroundings.variable("AZURE_AUTHORITY_HOST");
        let host = host.as_deref().unwrap_or(self.settings.cloud.authority());
        let url = Url::parse(host).ok().filter(Url::has_host);
        let mut url = url.ok_or_else(|| self.endpoint().failure("AZURE_AUTHORITY_HOST is no URL"))?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend([tenant_id, "oauth2", "v2.0", "token"]);
        }
        Ok(url)
    }

    fn endpoint(&self) -> TokenEndpoint<'_> {
        TokenEndpoint { cloud: CLOUD, surroundings: &self.surroundings }
    }
}

#[cfg(test)]
mod tests;
