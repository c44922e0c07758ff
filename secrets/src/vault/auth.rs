//! How settings say who the agent is to a Vault or `OpenBao` server: one table for each method of logging in. How a proof is
//! made of it is the business of `login`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::credential::Credential;

/// Where a pod finds the token of its service account.
pub(super) const POD_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// How the agent logs in: one of these.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VaultAuth {
    /// With a token; a file is read again, as an agent's sink is rewritten.
    Token(Credential),
    /// With a token that arrives wrapped and is unwrapped once.
    WrappedToken(WrappedTokenAuth),
    /// As an `AppRole`.
    Approle(AppRoleAuth),
    /// With the token of a Kubernetes service account.
    Kubernetes(KubernetesAuth),
    /// With a JWT.
    #[serde(alias = "oidc")]
    Jwt(JwtAuth),
    /// As a principal or an instance of AWS.
    Aws(AwsAuth),
    /// As a service account or an instance of Google.
    Gcp(GcpAuth),
    /// As a managed identity of Azure.
    Azure(AzureAuth),
    /// With the client certificate of `tls`.
    Cert(CertAuth),
    /// With user name and password.
    Userpass(PasswordAuth),
    /// With user name and password of a directory.
    Ldap(PasswordAuth),
    /// With a body of one's own, sent to a path of one's own.
    Custom(CustomAuth),
}

/// `wrapped_token = { … }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrappedTokenAuth {
    /// The wrapping token.
    pub token: Credential,
    /// The path that must have made it, such as `auth/token/create`; not looked at when left out.
    #[serde(default)]
    pub creation_path: Option<String>,
}

/// `approle = { … }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AppRoleAuth {
    /// The role's id.
    pub role_id: Credential,
    /// The secret id; left out for roles that need none.
    #[serde(default)]
    pub secret_id: Option<Credential>,
    /// Whether `secret_id` is a wrapping token, which is unwrapped once.
    #[serde(default)]
    pub wrapped: bool,
    /// Where the method is mounted.
    #[serde(default)]
    pub mount: Option<String>,
}

/// `kubernetes = { … }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubernetesAuth {
    /// The role.
    pub role: String,
    /// The token of the service account; that of the pod by default. Read again at every login.
    #[serde(default)]
    pub token: Option<Credential>,
    /// Where the method is mounted.
    #[serde(default)]
    pub mount: Option<String>,
}

/// `jwt = { … }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtAuth {
    /// The role; the method's default when left out.
    #[serde(default)]
    pub role: Option<String>,
    /// The JWT. Read again at every login.
    pub token: Credential,
    /// Where the method is mounted.
    #[serde(default)]
    pub mount: Option<String>,
}

/// What a login with AWS proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AwsProof {
    /// The principal that the credentials belong to.
    Iam,
    /// The instance that the agent runs on.
    Ec2,
}

/// How an instance of AWS proves what it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ec2Signature {
    /// PKCS #7 with a DSA signature.
    #[default]
    Pkcs7,
    /// PKCS #7 with an RSA signature.
    Rsa2048,
    /// The document and its signature.
    Identity,
}

/// `aws = { … }`. Credentials are those of AWS's own chain.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsAuth {
    /// What is proved.
    #[serde(rename = "type")]
    pub proof: AwsProof,
    /// The role; by the principal's or the image's name when left out.
    #[serde(default)]
    pub role: Option<String>,
    /// The region whose token service is asked; the global one when left out.
    #[serde(default)]
    pub region: Option<String>,
    /// What the server demands in the header `X-Vault-AWS-IAM-Server-ID`.
    #[serde(default)]
    pub server_id: Option<String>,
    /// How an instance proves what it is.
    #[serde(default)]
    pub signature: Ec2Signature,
    /// What an instance says at every login so that nobody else can log in as it; new with each process by default.
    #[serde(default)]
    pub nonce: Option<Credential>,
    /// Where the method is mounted.
    #[serde(default)]
    pub mount: Option<String>,
}

/// What a login with Google proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GcpProof {
    /// The service account.
    Iam,
    /// The instance that the agent runs on.
    Gce,
}

/// `gcp = { … }`. Credentials are Google's application default credentials.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GcpAuth {
    /// What is proved.
    #[serde(rename = "type")]
    pub proof: GcpProof,
    /// The role.
    pub role: String,
    /// The address of the service account that signs; needed for `iam`.
    #[serde(default)]
    pub service_account: Option<String>,
    /// Where the method is mounted.
    #[serde(default)]
    pub mount: Option<String>,
}

/// `azure = { … }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AzureAuth {
    /// The role.
    pub role: String,
    /// What the token is for; `https://management.azure.com/` by default.
    #[serde(default)]
    pub resource: Option<String>,
    /// Where the method is mounted.
    #[serde(default)]
    pub mount: Option<String>,
}

/// `cert = { … }`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertAuth {
    /// The role; any that the certificate fits when left out.
    #[serde(default)]
    pub name: Option<String>,
    /// Where the method is mounted.
    #[serde(default)]
    pub mount: Option<String>,
}

/// `userpass = { … }` and `ldap = { … }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordAuth {
    /// The user.
    pub username: String,
    /// The password.
    pub password: Credential,
    /// Where the method is mounted.
    #[serde(default)]
    pub mount: Option<String>,
}

/// `custom = { … }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CustomAuth {
    /// What is written to, such as `auth/ldap/login/alex`.
    pub path: String,
    /// What is written.
    pub data: BTreeMap<String, Credential>,
    /// The namespace to log in to, instead of the store's.
    #[serde(default)]
    pub namespace: Option<String>,
}

impl VaultAuth {
    /// Every credential in it, by the key it stands under.
    pub(crate) fn credentials(&self) -> Vec<(String, &Credential)> {
        let mut found: Vec<(String, &Credential)> = Vec::new();
        let mut add = |key: &str, credential| found.push((key.to_owned(), credential));
        match self {
            Self::Token(token) => add("auth.token", token),
            Self::WrappedToken(auth) => add("auth.wrapped_token.token", &auth.token),
            Self::Approle(auth) => {
                add("auth.approle.role_id", &auth.role_id);
                if let Some(secret_id) = &auth.secret_id {
                    add("auth.approle.secret_id", secret_id);
                }
            }
            Self::Kubernetes(auth) => {
                if let Some(token) = &auth.token {
                    add("auth.kubernetes.token", token);
                }
            }
            Self::Jwt(auth) => add("auth.jwt.token", &auth.token),
            Self::Aws(auth) => {
                if let Some(nonce) = &auth.nonce {
                    add("auth.aws.nonce", nonce);
                }
            }
            Self::Userpass(auth) => add("auth.userpass.password", &auth.password),
            Self::Ldap(auth) => add("auth.ldap.password", &auth.password),
            Self::Custom(auth) => {
                for (name, credential) in &auth.data {
                    add(&format!("auth.custom.data.{name}"), credential);
                }
            }
            Self::Gcp(_) | Self::Azure(_) | Self::Cert(_) => {}
        }
        found
    }
}

impl KubernetesAuth {
    /// The token of the service account.
    pub(crate) fn token(&self) -> Credential {
        self.token.clone().unwrap_or_else(|| Credential::File(POD_TOKEN.into()))
    }
}
