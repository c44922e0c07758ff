//! The arguments of `remote.vault`, and what of them may be said together.

use std::collections::BTreeMap;
use std::time::Duration;

use invar_secrets::vault::{
    AppRoleAuth, AwsAuth, AwsProof, AzureAuth, CustomAuth, Ec2Signature, GcpAuth, GcpProof, KubernetesAuth,
    PasswordAuth, VaultAuth,
};
use invar_secrets::{Credential, SecretReference};
use invar_syntax::arguments::{Arguments, BlockEnum};
use invar_syntax::secret::Secret;

/// The store by which files of the host are read under the ceiling.
pub(super) const HOST: &str = "host";

/// What the block says.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct VaultArguments {
    /// The address of the server, `https://vault.example:8200`.
    #[argument(required, names = "destination")]
    pub server: String,
    /// The namespace of the path.
    pub namespace: String,
    /// The path of the secret, or that of the engine where `key` is set.
    #[argument(required, names = "nothing")]
    pub path: String,
    /// The key within the engine at `path`.
    pub key: String,
    /// How often a secret without a lease is read again; never where it is 0.
    pub reread_frequency: Duration,
    /// How requests are made.
    #[argument(block)]
    pub client_options: ClientOptions,
    /// How the agent logs in: exactly one block.
    #[argument(block_enum)]
    pub auth: Vec<AuthBlock>,
}

/// How requests are made.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct ClientOptions {
    /// How long to wait at least before a request that failed is made again.
    #[argument(default = "\"1000ms\"")]
    pub min_retry_wait: Duration,
    /// How long to wait at most before a request that failed is made again.
    #[argument(default = "\"1500ms\"")]
    pub max_retry_wait: Duration,
    /// As many times a request that failed is made again.
    #[argument(default = "2")]
    pub max_retries: i64,
    /// How long one request may take.
    #[argument(default = "\"60s\"")]
    pub timeout: Duration,
}

/// How the agent logs in.
#[derive(BlockEnum, Clone, Debug, PartialEq)]
pub enum AuthBlock {
    /// With a token.
    Token(TokenBlock),
    /// As an `AppRole`.
    Approle(AppRoleBlock),
    /// As a principal or an instance of AWS.
    Aws(AwsBlock),
    /// As a managed identity of Azure.
    Azure(AzureBlock),
    /// As a service account or an instance of Google.
    Gcp(GcpBlock),
    /// With the token of a Kubernetes service account.
    Kubernetes(KubernetesBlock),
    /// With user name and password of a directory.
    Ldap(LdapBlock),
    /// With user name and password.
    Userpass(UserpassBlock),
    /// With a body of one's own, written to a path of one's own.
    Custom(CustomBlock),
}

/// `auth.token`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct TokenBlock {
    /// The token.
    #[argument(required, names = "nothing")]
    pub token: Secret,
}

/// `auth.approle`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct AppRoleBlock {
    /// The id of the role.
    #[argument(required, names = "nothing")]
    pub role_id: String,
    /// The secret id.
    #[argument(required)]
    pub secret: Secret,
    /// Whether `secret` is a wrapping token, which is unwrapped once.
    pub wrapping_token: bool,
    /// Where the method is mounted.
    #[argument(default = "\"approle\"", names = "nothing")]
    pub mount_path: String,
}

/// `auth.aws`.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct AwsBlock {
    /// What is proved.
    #[argument(required, name = "type", values = ["ec2", "iam"])]
    pub kind: String,
    /// The region whose token service is asked.
    #[argument(default = "\"us-east-1\"")]
    pub region: String,
    /// The role; by the principal's or the image's name where empty.
    #[argument(names = "nothing")]
    pub role: String,
    /// What the server demands in the header `X-Vault-AWS-IAM-Server-ID`.
    #[argument(names = "nothing")]
    pub iam_server_id_header: String,
    /// How an instance proves what it is.
    #[argument(default = "\"pkcs7\"", values = ["pkcs7", "identity"], names = "nothing")]
    pub ec2_signature_type: String,
    /// Where the method is mounted.
    #[argument(default = "\"aws\"", names = "nothing")]
    pub mount_path: String,
}

/// `auth.azure`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct AzureBlock {
    /// The role.
    #[argument(required, names = "nothing")]
    pub role: String,
    /// What the token is for.
    #[argument(default = "\"https://management.azure.com/\"", names = "nothing")]
    pub resource_url: String,
    /// Where the method is mounted.
    #[argument(default = "\"azure\"", names = "nothing")]
    pub mount_path: String,
}

/// `auth.gcp`.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct GcpBlock {
    /// The role.
    #[argument(required, names = "nothing")]
    pub role: String,
    /// What is proved.
    #[argument(required, name = "type", values = ["gce", "iam"])]
    pub kind: String,
    /// The service account that signs; needed for `iam`.
    #[argument(names = "nothing")]
    pub iam_service_account: String,
    /// Where the method is mounted.
    #[argument(default = "\"gcp\"", names = "nothing")]
    pub mount_path: String,
}

/// `auth.kubernetes`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct KubernetesBlock {
    /// The role.
    #[argument(required, names = "nothing")]
    pub role: String,
    /// The file with the token of the service account, read again at every login.
    #[argument(default = "\"/var/run/secrets/kubernetes.io/serviceaccount/token\"", names = "file")]
    pub service_account_file: String,
    /// Where the method is mounted.
    #[argument(default = "\"kubernetes\"", names = "nothing")]
    pub mount_path: String,
}

/// `auth.ldap`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct LdapBlock {
    /// The user.
    #[argument(required)]
    pub username: String,
    /// The password.
    #[argument(required)]
    pub password: Secret,
    /// Where the method is mounted.
    #[argument(default = "\"ldap\"", names = "nothing")]
    pub mount_path: String,
}

/// `auth.userpass`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct UserpassBlock {
    /// The user.
    #[argument(required)]
    pub username: String,
    /// The password.
    #[argument(required)]
    pub password: Secret,
    /// Where the method is mounted.
    #[argument(default = "\"userpass\"", names = "nothing")]
    pub mount_path: String,
}

/// `auth.custom`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct CustomBlock {
    /// What is written to, such as `auth/ldap/login/alex`.
    #[argument(required, names = "nothing")]
    pub path: String,
    /// What is written.
    #[argument(required, names = "nothing")]
    pub data: BTreeMap<String, Secret>,
    /// The namespace to log in to.
    pub namespace: String,
}

// === validation ===

impl VaultArguments {
    fn validate(&self) -> Vec<(&'static str, String)> {
        let mut errors = Vec::new();
        if self.auth.len() != 1 {
            let found = if self.auth.is_empty() { "none".to_owned() } else { self.auth.len().to_string() };
            errors.push(("auth", format!("exactly one auth.* block must be specified; found {found}")));
        }
        if self.client_options.timeout.is_zero() {
            errors.push(("client_options", "client_options.timeout must be greater than 0".to_owned()));
        }
        if let Err(problem) = invar_blocks::http_client::http_url(&self.server) {
            errors.push(("server", format!("server {problem}")));
        }
        errors
    }
}

impl AwsBlock {
    fn validate(&self) -> Vec<(&'static str, String)> {
        let mut errors = Vec::new();
        if !matches!(self.kind.as_str(), "ec2" | "iam") {
            errors.push(("type", format!("unrecognized type {:?}, expected one of ec2,iam", self.kind)));
        }
        if !matches!(self.ec2_signature_type.as_str(), "pkcs7" | "identity") {
            let given = &self.ec2_signature_type;
            let message =
                format!("unrecognized ec2_signature_type {given:?}, expected one of pkcs7,identity");
            errors.push(("ec2_signature_type", message));
        }
        errors
    }
}

impl GcpBlock {
    fn validate(&self) -> Vec<(&'static str, String)> {
        match self.kind.as_str() {
            "gce" => Vec::new(),
            "iam" if self.iam_service_account.is_empty() => {
                vec![(
                    "iam_service_account",
                    "iam_service_account must be provided when type is iam".to_owned(),
                )]
            }
            "iam" => Vec::new(),
            kind => vec![("type", format!("unrecognized type {kind:?}, expected one of gce,iam"))],
        }
    }
}

// === as the client takes it ===

impl AuthBlock {
    /// The same for the client.
    pub(super) fn for_client(&self) -> VaultAuth {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let text = |secret: &Secret| Credential::Text(secret.clone());
        match self {
            Self::Token(block) => VaultAuth::Token(text(&block.token)),
            Self::Approle(block) => VaultAuth::Approle(AppRoleAuth {
                role_id: Credential::Text(Secret::new(block.role_id.as_str())),
                secret_id: Some(text(&block.secret)),
                wrapped: block.wrapping_token,
                mount: some(&block.mount_path),
            }),
            Self::Aws(block) => VaultAuth::Aws(AwsAuth {
                proof: if block.kind == "ec2" { AwsProof::Ec2 } else { AwsProof::Iam },
                role: some(&block.role),
                region: some(&block.region),
                server_id: some(&block.iam_server_id_header),
                signature: match block.ec2_signature_type.as_str() {
                    "identity" => Ec2Signature::Identity,
                    _ => Ec2Signature::Pkcs7,
                },
                nonce: None,
                mount: some(&block.mount_path),
            }),
            Self::Azure(block) => VaultAuth::Azure(AzureAuth {
                role: block.role.clone(),
                resource: some(&block.resource_url),
                mount: some(&block.mount_path),
            }),
            Self::Gcp(block) => VaultAuth::Gcp(GcpAuth {
                proof: if block.kind == "iam" { GcpProof::Iam } else { GcpProof::Gce },
                role: block.role.clone(),
                service_account: some(&block.iam_service_account),
                mount: some(&block.mount_path),
            }),
            Self::Kubernetes(block) => VaultAuth::Kubernetes(KubernetesAuth {
                role: block.role.clone(),
                token: some(&block.service_account_file).map(of_host),
                mount: some(&block.mount_path),
            }),
            Self::Ldap(block) => {
                VaultAuth::Ldap(password(&block.username, &block.password, some(&block.mount_path)))
            }
            Self::Userpass(block) => {
                VaultAuth::Userpass(password(&block.username, &block.password, some(&block.mount_path)))
            }
            Self::Custom(block) => VaultAuth::Custom(CustomAuth {
                path: block.path.clone(),
                data: block.data.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
                namespace: some(&block.namespace),
            }),
        }
    }
}

fn password(username: &str, password: &Secret, mount: Option<String>) -> PasswordAuth {
    PasswordAuth { username: username.to_owned(), password: Credential::Text(password.clone()), mount }
}

fn of_host(path: String) -> Credential {
    Credential::Secret(SecretReference { store: HOST.to_owned(), path, field: None })
}
