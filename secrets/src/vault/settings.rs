//! The table `[secrets.NAME]` of a Vault or `OpenBao` server: where it is, who the agent is there, and the reads that need
//! more than a path.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use url::{Host, Url};

use super::auth::{GcpProof, VaultAuth};
use crate::credential::Credential;
use crate::duration::{DurationText, positive};
use crate::missing::WhenMissing;
use crate::tls_settings::TlsSettings;

/// A Vault or `OpenBao` server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VaultSettings {
    /// Its address, `https://vault.example:8200`.
    pub address: String,
    /// The namespace of all paths.
    #[serde(default)]
    pub namespace: Option<String>,
    /// How the agent logs in.
    pub auth: VaultAuth,
    /// Files for the encrypted connection.
    #[serde(default)]
    pub tls: TlsSettings,
    /// The proxy to go through; none by default, whatever the environment says.
    #[serde(default)]
    pub proxy: Option<VaultProxy>,
    /// How often a value without a lease is read again; five minutes by default.
    #[serde(default, deserialize_with = "some_duration")]
    #[schemars(with = "Option<DurationText>")]
    pub refresh: Option<Duration>,
    /// How long one request may take; thirty seconds by default.
    #[serde(default, deserialize_with = "some_duration")]
    #[schemars(with = "Option<DurationText>")]
    pub timeout: Option<Duration>,
    /// The version of the key/value engine where the token may not ask for it: 1 or 2; 2 by default.
    #[serde(default)]
    pub kv_version: KvVersion,
    /// Whether a server that is not this host may be reached without encryption.
    #[serde(default)]
    pub allow_plain_http: bool,
    /// What users of a secret, or of a field, get once that is deleted.
    #[serde(default)]
    pub missing: WhenMissing,
    /// Reads with parameters, used as `NAME-OF-STORE/@NAME#field`.
    #[serde(default)]
    pub read: BTreeMap<String, VaultRead>,
}

/// `proxy = { … }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VaultProxy {
    /// `http://`, `https://`, `socks5://` or `socks5h://`, without credentials.
    pub url: String,
    /// Hosts, domains and networks that are reached directly.
    #[serde(default)]
    pub no_proxy: Vec<String>,
}

/// The version of a key/value engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvVersion {
    /// Without versions of values.
    One,
    /// With versions of values.
    #[default]
    Two,
}

/// How a path is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ReadMethod {
    /// By a read; parameters stand in the query.
    #[default]
    #[serde(rename = "GET", alias = "get")]
    Get,
    /// By a write that answers; parameters stand in the body.
    #[serde(rename = "POST", alias = "post", alias = "PUT", alias = "put")]
    Post,
}

/// A read that needs more than a path. Either `path` or `wrapped` is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VaultRead {
    /// The path as the server's API has it, `pki/issue/web`; for a key/value engine of version 2 with its `data/`.
    #[serde(default)]
    pub path: Option<String>,
    /// How it is asked.
    #[serde(default)]
    pub method: ReadMethod,
    /// The parameters. They are shown as they are: no place for secrets.
    #[serde(default)]
    pub params: BTreeMap<String, serde_json::Value>,
    /// The namespace, below the store's.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Fields of the answer that are base64, as `plaintext` of a decryption is.
    #[serde(default)]
    pub base64: Vec<String>,
    /// A wrapping token, in place of a path: what it wraps is the answer.
    #[serde(default)]
    pub wrapped: Option<Credential>,
    /// The path that must have made the wrapping token.
    #[serde(default)]
    pub creation_path: Option<String>,
}

// === impl VaultSettings ===

impl VaultSettings {
    /// Checks what the types do not say.
    ///
    /// # Errors
    /// The key that is wrong, and why.
    pub fn validate(&self) -> Result<(), String> {
        self.parsed_address()?;
        let day = Duration::from_secs(24 * 60 * 60);
        if self.refresh.is_some_and(|refresh| refresh < Duration::from_secs(1) || refresh > day) {
            return Err("`refresh` lies between one second and one day".to_owned());
        }
        if self.timeout.is_some_and(|timeout| timeout < Duration::from_millis(100) || timeout > day) {
            return Err("`timeout` lies between 100 milliseconds and one day".to_owned());
        }
        for (name, read) in &self.read {
            read.validate().map_err(|problem| format!("`read.{name}`: {problem}"))?;
        }
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            return Err("`tls.cert` and `tls.key` belong together".to_owned());
        }
        match &self.auth {
            VaultAuth::Cert(_) if self.tls.cert.is_none() => {
                Err("`auth.cert` logs in with the certificate of `tls`, and `tls.cert` is missing".to_owned())
            }
            VaultAuth::Approle(approle) if approle.wrapped && approle.secret_id.is_none() => {
                Err("`auth.approle`: `wrapped` is about `secret_id`, which is missing".to_owned())
            }
            VaultAuth::Gcp(gcp) if gcp.proof == GcpProof::Iam && gcp.service_account.is_none() => {
                Err("`auth.gcp`: the type `iam` needs a `service_account`".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The address, if it can be used as it is.
    pub(crate) fn parsed_address(&self) -> Result<Url, String> {
        let url = Url::parse(&self.address).map_err(|_| "`address` is not an address".to_owned())?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err("`address` begins with https://".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(
                "`address` holds a scheme, a host and perhaps a port and a path, nothing else".to_owned()
            );
        }
        if url.scheme() == "http" && !self.allow_plain_http && !is_loopback(&url) {
            return Err(
                "`address` is not encrypted: use https://, or say `allow_plain_http = true`".to_owned()
            );
        }
        Ok(url)
    }

    /// Every credential in it, by the key it stands under; what a store is made of that keeps its own elsewhere.
    #[must_use]
    pub fn credentials(&self) -> Vec<(String, &Credential)> {
        let mut found = self.auth.credentials();
        for (name, read) in &self.read {
            if let Some(wrapped) = &read.wrapped {
                found.push((format!("read.{name}.wrapped"), wrapped));
            }
        }
        found
    }
}

impl VaultRead {
    fn validate(&self) -> Result<(), String> {
        match (&self.path, &self.wrapped) {
            (None, None) => Err("it needs a `path`".to_owned()),
            (Some(_), Some(_)) => Err("`path` and `wrapped` exclude each other".to_owned()),
            (Some(_), None) if self.creation_path.is_some() => {
                Err("`creation_path` is about `wrapped`".to_owned())
            }
            (None, Some(_)) if !self.params.is_empty() => Err("`params` are about `path`".to_owned()),
            (Some(path), None) => super::place::check_path(path),
            (None, Some(_)) => Ok(()),
        }
    }
}

// === impl KvVersion ===

impl<'de> Deserialize<'de> for KvVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            1 => Ok(Self::One),
            2 => Ok(Self::Two),
            other => {
                Err(de::Error::custom(format!("there is no version {other} of the engine, only 1 and 2")))
            }
        }
    }
}

impl JsonSchema for KvVersion {
    fn schema_name() -> Cow<'static, str> {
        "KvVersion".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": [1, 2] })
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn some_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    positive(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::auth::POD_TOKEN;
    use super::*;

    fn parse(text: &str) -> Result<VaultSettings, String> {
        toml::from_str::<VaultSettings>(text).map_err(|error| error.to_string())
    }

    fn problem(text: &str) -> String {
        parse(text).unwrap().validate().unwrap_err()
    }

    #[test]
    fn the_example_of_the_documentation() {
        let settings = parse(
            "address = 'https://vault.example:8200'\nnamespace = 'obs'\nrefresh = '5m'\n\
             auth = { kubernetes = { role = 'invar' } }\n\
             [read.web]\npath = 'pki/issue/web'\nmethod = 'POST'\nparams = { common_name = 'a.example', ttl = 60 }\n",
        )
        .unwrap();
        settings.validate().unwrap();
        assert_eq!(settings.refresh, Some(Duration::from_secs(300)));
        let VaultAuth::Kubernetes(auth) = &settings.auth else { panic!("{settings:?}") };
        assert_eq!(auth.token(), Credential::File(POD_TOKEN.into()));
        assert_eq!(settings.read["web"].method, ReadMethod::Post);
        assert_eq!(settings.read["web"].params["ttl"], 60);
    }

    #[test]
    fn every_login_has_a_form() {
        for auth in [
            "token = { file = '/run/vault/token' }",
            "token = 'hvs.x'",
            "wrapped_token = { token = { file = '/run/wrapped' }, creation_path = 'auth/token/create' }",
            "approle = { role_id = 'r', secret_id = { file = '/run/id' }, wrapped = true, mount = 'roles' }",
            "kubernetes = { role = 'r' }",
            "jwt = { role = 'r', token = { file = '/run/jwt' } }",
            "oidc = { token = { file = '/run/jwt' } }",
            "aws = { type = 'iam', role = 'r', region = 'eu-central-1', server_id = 'vault.example' }",
            "aws = { type = 'ec2', signature = 'rsa2048' }",
            "gcp = { type = 'iam', role = 'r', service_account = 'a@b' }",
            "gcp = { type = 'gce', role = 'r' }",
            "azure = { role = 'r' }",
            "userpass = { username = 'u', password = { env = 'P' } }",
            "ldap = { username = 'u', password = { secret = 'file/p' }, mount = 'ad' }",
            "custom = { path = 'auth/x/login', data = { a = 'b' } }",
        ] {
            let settings = parse(&format!("address = 'https://v'\nauth = {{ {auth} }}\n")).unwrap();
            settings.validate().unwrap();
            assert!(!format!("{settings:?}").contains("hvs"), "{auth}");
        }
        let cert = "address = 'https://v'\nauth = { cert = {} }\n";
        assert!(problem(cert).contains("tls.cert"));
        parse(&format!("{cert}tls = {{ cert = 'c', key = 'k' }}\n")).unwrap().validate().unwrap();
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |line: &str| format!("address = 'https://v'\nauth = {{ token = 't' }}\n{line}\n");
        assert!(parse(&with("colour = 'red'")).unwrap_err().contains("colour"));
        assert!(parse(&with("kv_version = 3")).unwrap_err().contains("only 1 and 2"));
        assert!(parse(&with("refresh = '5'")).unwrap_err().contains("not a duration"));
        assert!(parse("address = 'https://v'\nauth = { magic = {} }\n").unwrap_err().contains("magic"));
        assert!(problem(&with("refresh = '2d'")).contains("refresh"));
        assert!(problem(&with("read.x = {}")).contains("`read.x`: it needs a `path`"));
        assert!(problem(&with("read.x = { path = '/a' }")).contains("read.x"));
        assert!(problem(&with("read.x = { wrapped = 't', params = { a = 1 } }")).contains("params"));
        assert!(problem(&with("tls = { cert = 'c' }")).contains("belong together"));
        assert!(problem("address = 'http://v'\nauth = { token = 't' }\n").contains("not encrypted"));
        assert!(problem("address = 'ftp://v'\nauth = { token = 't' }\n").contains("https://"));
        assert!(problem("address = 'https://u:p@v'\nauth = { token = 't' }\n").contains("nothing else"));
        for address in ["http://127.0.0.1:8200", "http://[::1]:8200", "http://localhost:8200"] {
            parse(&format!("address = '{address}'\nauth = {{ token = 't' }}\n")).unwrap().validate().unwrap();
        }
        let plain = "address = 'http://v'\nallow_plain_http = true\nauth = { token = 't' }\n";
        parse(plain).unwrap().validate().unwrap();
    }

    #[test]
    fn it_can_stand_as_one_kind_of_several() {
        #[derive(Debug, Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        enum Kind {
            Vault(Box<VaultSettings>),
        }
        let text = "kind = 'vault'\naddress = 'https://v'\nkv_version = 1\nrefresh = '1m'\n\
                    auth = { token = { file = '/t' } }\nread.x = { path = 'a/b', params = { n = 1, l = ['x'] } }\n";
        let Kind::Vault(settings) = toml::from_str(text).unwrap();
        assert_eq!(
            (settings.kv_version, settings.read["x"].params["l"][0].as_str()),
            (KvVersion::One, Some("x"))
        );
        let wrong = toml::from_str::<Kind>(&text.replace("kv_version", "version")).unwrap_err().to_string();
        assert!(wrong.contains("version"), "{wrong}");
    }

    #[test]
    fn credentials_are_listed_for_whoever_looks_for_circles() {
        let settings = parse(
            "address = 'https://v'\nauth = { approle = { role_id = 'r', secret_id = { secret = 'vault/a' } } }\n\
             read.x = { wrapped = { file = '/w' } }\n",
        )
        .unwrap();
        let names: Vec<String> = settings.credentials().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["auth.approle.role_id", "auth.approle.secret_id", "read.x.wrapped"]);
    }
}
