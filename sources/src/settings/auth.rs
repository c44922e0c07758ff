//! `auth = { … }`: how a source shows who it is. One table for every kind; each kind says which ways it takes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use invar_secrets::Credential;
use schemars::JsonSchema;
use serde::Deserialize;

/// `auth = { … }`: exactly one way. `username` goes with `token`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthSettings {
    /// An access token. Git and OCI registries get it as the password of `username`, HTTP as a bearer token.
    #[serde(default)]
    pub token: Option<Credential>,
    /// The user name that goes with `token`; `x-access-token` by default.
    #[serde(default)]
    pub username: Option<String>,
    /// User name and password.
    #[serde(default)]
    pub basic: Option<BasicSettings>,
    /// A key for Git over SSH.
    #[serde(default)]
    pub ssh: Option<SshSettings>,
    /// An installation of a GitHub App.
    #[serde(default)]
    pub github_app: Option<GithubAppSettings>,
    /// Any scheme of the `Authorization` header.
    #[serde(default)]
    pub authorization: Option<AuthorizationSettings>,
    /// A token by the OAuth 2.0 client credentials grant.
    #[serde(default)]
    pub oauth2: Option<OAuth2Settings>,
    /// An identity of AWS; without it the chain of AWS's own libraries is asked.
    #[serde(default)]
    pub aws: Option<AwsSettings>,
}

impl AuthSettings {
    /// What requests over HTTP show as it is: a token, a password, or what stands in its place.
    pub(crate) fn shown(&self) -> impl Iterator<Item = &Credential> {
        let basic = self.basic.as_ref().map(|basic| &basic.password);
        let other = self.authorization.as_ref().map(|other| &other.credentials);
        [self.token.as_ref(), basic, other].into_iter().flatten()
    }

    /// The ways that are present, by their keys.
    #[must_use]
    pub fn ways(&self) -> Vec<&'static str> {
        [
            ("token", self.token.is_some()),
            ("basic", self.basic.is_some()),
            ("ssh", self.ssh.is_some()),
            ("github_app", self.github_app.is_some()),
            ("authorization", self.authorization.is_some()),
            ("oauth2", self.oauth2.is_some()),
            ("aws", self.aws.is_some()),
        ]
        .into_iter()
        .filter_map(|(way, present)| present.then_some(way))
        .collect()
    }

    /// Who this is, without any secret: two identities may see different things at one address.
    #[must_use]
    pub fn identity(&self) -> String {
        let location = |credential: &Option<Credential>| credential.as_ref().map(Credential::location);
        let basic =
            self.basic.as_ref().map(|basic| format!("{} {}", basic.username, basic.password.location()));
        let mut identity = format!("{:?} {:?} {basic:?}", self.username, location(&self.token));
        // Added only where present, so that what was cached before under the older ways keeps its place.
        if let Some(ssh) = &self.ssh {
            identity.push_str(&format!(" ssh {:?} {}", location(&ssh.key), ssh.agent));
        }
        if let Some(app) = &self.github_app {
            identity.push_str(&format!(" app {} {}", app.app_id, app.installation_id));
        }
        identity
    }
}

/// `basic = { username, password }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicSettings {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: Credential,
}

/// `ssh = { … }`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SshSettings {
    /// The private key, in OpenSSH or PEM form; exactly one of `key` and `agent`.
    #[serde(default)]
    pub key: Option<Credential>,
    /// What the key is encrypted with.
    #[serde(default)]
    pub passphrase: Option<Credential>,
    /// Whether the agent at `SSH_AUTH_SOCK` signs.
    #[serde(default)]
    pub agent: bool,
    /// The `known_hosts` file the host's key has to be in; `~/.ssh/known_hosts` and `/etc/ssh/ssh_known_hosts` by default.
    #[serde(default)]
    pub known_hosts: Option<PathBuf>,
    /// How the key of a host that is in no file is met.
    #[serde(default)]
    pub host_key: HostKeyPolicy,
}

/// How the key of an SSH host is met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HostKeyPolicy {
    /// It has to be known.
    #[default]
    Strict,
    /// The first one is trusted and remembered; another one later is refused.
    Tofu,
}

/// `github_app = { app_id, installation_id, key }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GithubAppSettings {
    /// The id of the App, or its client id.
    pub app_id: String,
    /// The id of the installation.
    pub installation_id: u64,
    /// The App's private key, in PEM form.
    pub key: Credential,
    /// Where the API is, for GitHub Enterprise Server; `https://api.github.com` by default.
    #[serde(default)]
    pub api_url: Option<String>,
}

/// `authorization = { type, credentials }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthorizationSettings {
    /// The scheme; `Bearer` by default.
    #[serde(default = "bearer", rename = "type")]
    pub scheme: String,
    /// What follows the scheme.
    pub credentials: Credential,
}

fn bearer() -> String {
    "Bearer".to_owned()
}

/// `oauth2 = { … }`: the client credentials grant.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OAuth2Settings {
    /// The client's id.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: Credential,
    /// Where tokens are handed out.
    pub token_url: String,
    /// What the token is for.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Further parameters of the request for a token.
    #[serde(default)]
    pub endpoint_params: BTreeMap<String, String>,
}

/// `aws = { … }`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsSettings {
    /// The id of an access key; goes with `secret_key`.
    #[serde(default)]
    pub access_key: Option<String>,
    /// The access key itself.
    #[serde(default)]
    pub secret_key: Option<Credential>,
    /// The token that goes with temporary keys.
    #[serde(default)]
    pub session_token: Option<Credential>,
    /// A profile of the shared configuration files.
    #[serde(default)]
    pub profile: Option<String>,
    /// A role to assume with what the rest gives.
    #[serde(default)]
    pub role_arn: Option<String>,
    /// What the role's trust policy may ask for.
    #[serde(default)]
    pub external_id: Option<String>,
    /// How the session is called in logs of AWS.
    #[serde(default)]
    pub role_session_name: Option<String>,
    /// A file with a token of another identity provider, exchanged for credentials of `role_arn`.
    #[serde(default)]
    pub web_identity_token_file: Option<PathBuf>,
    /// Another address of the token service.
    #[serde(default)]
    pub sts_endpoint: Option<String>,
    /// Nobody: requests are not signed, for buckets that everyone may read.
    #[serde(default)]
    pub anonymous: bool,
}

impl AwsSettings {
    /// What does not go together in these settings.
    pub(crate) fn problems(&self) -> Vec<&'static str> {
        let key = self.access_key.is_some() || self.secret_key.is_some();
        let token_file = self.web_identity_token_file.is_some();
        let mut problems = Vec::new();
        for (wrong, problem) in [
            (
                self.access_key.is_some() != self.secret_key.is_some(),
                "`auth.aws.access_key` and `auth.aws.secret_key` go together",
            ),
            (
                self.session_token.is_some() && !key,
                "`auth.aws.session_token` goes with `auth.aws.access_key`",
            ),
            (
                [key, self.profile.is_some(), token_file, self.anonymous]
                    .into_iter()
                    .filter(|way| *way)
                    .count()
                    > 1,
                "`auth.aws` says one of `access_key`, `profile`, `web_identity_token_file` and `anonymous`",
            ),
            (
                token_file && self.role_arn.is_none(),
                "`auth.aws.web_identity_token_file` goes with `auth.aws.role_arn`",
            ),
            (
                self.anonymous && self.role_arn.is_some(),
                "nobody can assume a role: `auth.aws.anonymous` is set",
            ),
            (
                self.external_id.is_some() && self.role_arn.is_none(),
                "`auth.aws.external_id` goes with `auth.aws.role_arn`",
            ),
        ] {
            if wrong {
                problems.push(problem);
            }
        }
        problems
    }
}
