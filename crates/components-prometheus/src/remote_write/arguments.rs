//! What a `prometheus.remote_write` block says.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use invar_blocks::RelabelRuleBlock;
use invar_blocks::http_client::Http1ClientArguments;
use invar_cloud_identity::AzureCloud;
use invar_engine::MetricsReceiver;
use invar_syntax::arguments::{Arguments, Exports};
use invar_syntax::secret::Secret;
use invar_telemetry::remote_write::Protocol;

/// Arguments of `prometheus.remote_write`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct RemoteWriteArguments {
    /// Labels added to every series that lacks them.
    pub external_labels: BTreeMap<String, String>,
    /// Where to send; without any the log only keeps.
    #[argument(block, name = "endpoint")]
    pub endpoints: Vec<EndpointArguments>,
    /// The write-ahead log.
    #[argument(block)]
    pub wal: Option<WalArguments>,
}

/// `endpoint`: one receiver of remote write.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct EndpointArguments {
    /// Names the endpoint in metrics; must be unique.
    pub name: String,
    /// Address that takes remote write requests, such as `https://host/api/v1/write`.
    #[argument(required, names = "destination")]
    pub url: String,
    /// How long one request may take.
    #[argument(default = "\"30s\"")]
    pub remote_timeout: Duration,
    /// Headers added to each request.
    pub headers: BTreeMap<String, String>,
    /// Whether exemplars are sent.
    #[argument(default = "true")]
    pub send_exemplars: bool,
    /// Whether native histograms are sent.
    pub send_native_histograms: bool,
    /// The message to send: `prometheus.WriteRequest` or `io.prometheus.write.v2.Request`.
    #[argument(
        default = "\"prometheus.WriteRequest\"",
        values = ["prometheus.WriteRequest", "io.prometheus.write.v2.Request"]
    )]
    pub protobuf_message: String,
    /// How to connect and who to be.
    #[argument(flatten)]
    pub client: Http1ClientArguments,
    /// Batching, shards and retries.
    #[argument(block)]
    pub queue_config: Option<QueueArguments>,
    /// Metadata requests of protocol version 1.
    #[argument(block)]
    pub metadata_config: Option<MetadataArguments>,
    /// Rules applied before sending, after the external labels.
    #[argument(block, name = "write_relabel_config")]
    pub write_relabel_configs: Vec<RelabelRuleBlock>,
    /// AWS signatures.
    #[argument(block)]
    pub sigv4: Option<SigV4Arguments>,
    /// Azure AD tokens.
    #[argument(block)]
    pub azuread: Option<AzureAdArguments>,
    /// Google tokens.
    #[argument(block)]
    pub google_iam: Option<GoogleIamArguments>,
    /// Whether each connection picks one of the host's addresses in turn.
    pub round_robin_dns: bool,
}

/// `queue_config`.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct QueueArguments {
    /// Samples that a shard may hold.
    #[argument(default = "10000")]
    pub capacity: i64,
    /// The most shards.
    #[argument(default = "50")]
    pub max_shards: i64,
    /// The fewest shards, and how many there are at first.
    #[argument(default = "1")]
    pub min_shards: i64,
    /// Samples in a request.
    #[argument(default = "2000")]
    pub max_samples_per_send: i64,
    /// How long a sample waits for its request to fill.
    #[argument(default = "\"5s\"")]
    pub batch_send_deadline: Duration,
    /// The first pause before a retry.
    #[argument(default = "\"30ms\"")]
    pub min_backoff: Duration,
    /// The longest pause before a retry.
    #[argument(default = "\"5s\"")]
    pub max_backoff: Duration,
    /// Whether `429 Too Many Requests` is tried again.
    #[argument(default = "true")]
    pub retry_on_http_429: bool,
    /// Samples older than this are dropped instead of sent; zero for no limit.
    #[argument(default = "\"0s\"")]
    pub sample_age_limit: Duration,
}

/// `metadata_config`.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct MetadataArguments {
    /// Whether metadata is sent.
    #[argument(default = "true")]
    pub send: bool,
    /// How often.
    #[argument(default = "\"1m\"")]
    pub send_interval: Duration,
    /// Families in a request.
    #[argument(default = "2000")]
    pub max_samples_per_send: i64,
}

/// `sigv4`: signatures of AWS, version 4. Without keys and profile, credentials are looked for as AWS's own tools do.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct SigV4Arguments {
    /// The region; empty for that of the environment or the profile.
    pub region: String,
    /// The id of the key.
    pub access_key: String,
    /// The key.
    pub secret_key: Secret,
    /// The profile of the shared files.
    pub profile: String,
    /// A role to assume with the credentials.
    pub role_arn: String,
    /// What the role's owner wants to hear.
    pub external_id: String,
    /// Whether the role is assumed at an endpoint validated by FIPS 140.
    pub use_fips_sts_endpoint: bool,
    /// The service to sign for; empty for `aps`.
    pub service_name: String,
}

/// `azuread`: tokens of Microsoft Entra ID.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct AzureAdArguments {
    /// A managed identity.
    #[argument(block)]
    pub managed_identity: Option<ManagedIdentityArguments>,
    /// A workload identity.
    #[argument(block)]
    pub workload_identity: Option<WorkloadIdentityArguments>,
    /// A client secret.
    #[argument(block)]
    pub oauth: Option<AzureOAuthArguments>,
    /// What the environment offers: a client secret, a workload identity or a managed identity.
    #[argument(block)]
    pub sdk: Option<AzureSdkArguments>,
    /// The cloud: `AzurePublic`, `AzureChina` or `AzureGovernment`.
    #[argument(default = "\"AzurePublic\"")]
    pub cloud: String,
    /// What the token is for; empty for the ingestion of metrics.
    pub scope: String,
}

/// `managed_identity`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct ManagedIdentityArguments {
    /// The id of the application or identity.
    #[argument(required)]
    pub client_id: String,
}

/// `workload_identity`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct WorkloadIdentityArguments {
    /// The id of the application or identity.
    #[argument(required)]
    pub client_id: String,
    /// The id of the tenant, which is whose it is.
    #[argument(required)]
    pub tenant_id: String,
    /// The file with the workload's token, read whenever a token is fetched; empty for the usual place.
    #[argument(names = "file")]
    pub token_file_path: String,
}

/// `oauth` of `azuread`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct AzureOAuthArguments {
    /// The id of the application or identity.
    #[argument(required)]
    pub client_id: String,
    /// Its secret.
    #[argument(required)]
    pub client_secret: Secret,
    /// The id of the tenant, which is whose it is.
    #[argument(required)]
    pub tenant_id: String,
}

/// `sdk` of `azuread`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct AzureSdkArguments {
    /// The id of the tenant, which is whose it is.
    #[argument(required)]
    pub tenant_id: String,
}

/// `google_iam`: tokens of Google.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct GoogleIamArguments {
    /// A file with credentials; empty for application default credentials.
    #[argument(names = "file")]
    pub credentials_file: String,
}

/// `wal`.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct WalArguments {
    /// How often delivered segments are deleted.
    #[argument(default = "\"2h\"")]
    pub truncate_frequency: Duration,
    /// How long delivered samples are kept at least.
    #[argument(default = "\"5m\"")]
    pub min_keepalive_time: Duration,
    /// How long samples are kept at most, delivered or not.
    #[argument(default = "\"8h\"")]
    pub max_keepalive_time: Duration,
}

/// Exports of `prometheus.remote_write`.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct RemoteWriteExports {
    /// Takes metrics into the log; for the `forward_to` of other components.
    #[argument(required, type_note = "any<storage.Appendable>")]
    pub receiver: MetricsReceiver,
}

type FieldErrors = Vec<(&'static str, String)>;

impl RemoteWriteArguments {
    /// The wal block or what it means when absent.
    pub fn wal(&self) -> WalArguments {
        self.wal.clone().unwrap_or_else(WalArguments::defaults)
    }

    /// Endpoint names that occur twice.
    pub fn duplicate_names(&self) -> Vec<&str> {
        let mut seen = HashSet::new();
        let named =
            self.endpoints.iter().map(|endpoint| endpoint.name.as_str()).filter(|name| !name.is_empty());
        named.filter(|name| !seen.insert(*name)).collect()
    }
}

impl EndpointArguments {
    /// The queue_config block or what it means when absent.
    pub fn queue(&self) -> QueueArguments {
        self.queue_config.clone().unwrap_or_else(QueueArguments::defaults)
    }

    /// The metadata_config block or what it means when absent.
    pub fn metadata(&self) -> MetadataArguments {
        self.metadata_config.clone().unwrap_or_else(MetadataArguments::defaults)
    }

    fn validate(&self) -> FieldErrors {
        let mut errors = Vec::new();
        if Protocol::from_message_name(&self.protobuf_message).is_none() {
            errors.push((
                "protobuf_message",
                format!(
                    "unknown message {:?}: use {:?} or {:?}",
                    self.protobuf_message,
                    Protocol::V1.message_name(),
                    Protocol::V2.message_name()
                ),
            ));
        }
        if self.remote_timeout.is_zero() {
            errors.push(("remote_timeout", "must be greater than zero".to_owned()));
        }
        for (name, value) in &self.headers {
            let reserved =
                ["authorization", "host", "content-encoding", "content-length", "content-type", "user-agent"];
            if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
                errors.push(("headers", format!("{name:?} is no header name")));
            } else if reserved.contains(&&*name.to_ascii_lowercase())
                || name.to_ascii_lowercase().starts_with("x-prometheus-remote-")
            {
                errors.push(("headers", format!("the header {name:?} is set by the client itself")));
            }
            if http::HeaderValue::from_str(value).is_err() {
                errors.push(("headers", format!("the value of {name:?} cannot be carried by a header")));
            }
        }
        let mut methods = self.client.authentication.methods();
        let more = [
            ("sigv4", self.sigv4.is_some()),
            ("azuread", self.azuread.is_some()),
            ("google_iam", self.google_iam.is_some()),
        ];
        let before = methods.len();
        methods.extend(more.into_iter().filter(|(_, set)| *set).map(|(name, _)| name));
        if methods.len() > 1 && methods.len() > before {
            let last = methods[methods.len() - 1];
            let found = methods.join(", ");
            errors.push((last, format!("at most one way to authenticate may be configured, found {found}")));
        }
        errors
    }
}

impl SigV4Arguments {
    fn validate(&self) -> FieldErrors {
        let mut errors = Vec::new();
        if self.access_key.is_empty() != self.secret_key.is_empty() {
            let (given, missing) = match self.access_key.is_empty() {
                true => ("secret_key", "access_key"),
                false => ("access_key", "secret_key"),
            };
            errors.push((missing, format!("{missing} is needed with {given}")));
        }
        if !self.external_id.is_empty() && self.role_arn.is_empty() {
            errors.push(("external_id", "external_id needs role_arn".to_owned()));
        }
        errors
    }
}

impl AzureAdArguments {
    fn validate(&self) -> FieldErrors {
        let mut errors = Vec::new();
        let ways = [
            self.managed_identity.is_some(),
            self.workload_identity.is_some(),
            self.oauth.is_some(),
            self.sdk.is_some(),
        ];
        if ways.into_iter().filter(|way| *way).count() != 1 {
            errors.push((
                "azuread",
                "azuread needs exactly one of managed_identity, workload_identity, oauth and sdk".to_owned(),
            ));
        }
        if AzureCloud::from_name(&self.cloud).is_none() {
            errors.push((
                "cloud",
                format!("cloud {:?} is unknown: use AzurePublic, AzureChina or AzureGovernment", self.cloud),
            ));
        }
        let tenants = [
            self.workload_identity.as_ref().map(|block| &block.tenant_id),
            self.oauth.as_ref().map(|block| &block.tenant_id),
            self.sdk.as_ref().map(|block| &block.tenant_id),
        ];
        // It becomes a part of an address.
        let is_name =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
        if tenants.into_iter().flatten().any(|tenant| tenant.is_empty() || !is_name(tenant)) {
            errors.push(("tenant_id", "tenant_id is no id of a tenant".to_owned()));
        }
        errors
    }
}

impl QueueArguments {
    fn validate(&self) -> FieldErrors {
        let mut errors = Vec::new();
        for (field, value) in [
            ("capacity", self.capacity),
            ("max_shards", self.max_shards),
            ("min_shards", self.min_shards),
            ("max_samples_per_send", self.max_samples_per_send),
        ] {
            if !(1..=100_000_000).contains(&value) {
                errors.push((field, "must be between 1 and 100000000".to_owned()));
            }
        }
        if self.min_shards > self.max_shards {
            errors.push(("min_shards", "cannot exceed max_shards".to_owned()));
        }
        if self.batch_send_deadline.is_zero() {
            errors.push(("batch_send_deadline", "must be greater than zero".to_owned()));
        }
        if self.min_backoff > self.max_backoff {
            errors.push(("min_backoff", "cannot exceed max_backoff".to_owned()));
        }
        errors
    }
}

impl MetadataArguments {
    fn validate(&self) -> FieldErrors {
        let mut errors = Vec::new();
        if self.send && self.send_interval.is_zero() {
            errors.push(("send_interval", "must be greater than zero".to_owned()));
        }
        if self.max_samples_per_send < 1 {
            errors.push(("max_samples_per_send", "must be at least 1".to_owned()));
        }
        errors
    }
}

impl WalArguments {
    fn validate(&self) -> FieldErrors {
        let mut errors = Vec::new();
        if self.truncate_frequency.is_zero() {
            errors.push(("truncate_frequency", "must be greater than zero".to_owned()));
        }
        if self.min_keepalive_time >= self.max_keepalive_time {
            errors.push(("min_keepalive_time", "must be less than max_keepalive_time".to_owned()));
        }
        errors
    }
}
