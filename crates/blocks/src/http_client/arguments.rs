//! The arguments of an HTTP client, as many components flatten them into theirs, and the checks that need no
//! network and no files.

use std::collections::BTreeMap;
use std::fmt;

use invar_policy::Access;
use invar_syntax::arguments::Arguments;
use invar_syntax::convert::{ConvertError, FromValue, ToValue};
use invar_syntax::live_secret::{LiveSecret, LiveText};
use invar_syntax::schema::Type;
use invar_syntax::secret::Secret;
use invar_syntax::value::Value;
use invar_tls::{ClientSettings, LowestVersion, Origin, Origins};
use url::Url;

use super::credentials::SecretSource;

/// How an HTTP client authenticates, connects and follows. Flatten it into a component's arguments.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct HttpClientArguments {
    /// Who the client says it is.
    #[argument(flatten)]
    pub authentication: AuthenticationArguments,
    /// Through which proxy it connects.
    #[argument(flatten)]
    pub proxy: ProxyArguments,
    /// How it verifies the server and presents itself in TLS.
    #[argument(block)]
    pub tls_config: Option<TlsConfigBlock>,
    /// Whether redirects are followed. Credentials stay with the first origin.
    #[argument(default = "true")]
    pub follow_redirects: bool,
    /// Whether HTTP/2 is offered to the server.
    #[argument(default = "true")]
    pub enable_http2: bool,
    /// Headers that are added to each request.
    pub http_headers: BTreeMap<String, Vec<LiveSecret>>,
}

/// The same group where HTTP/2 is off unless asked for, as `prometheus.remote_write` has it: one HTTP/2 connection
/// would carry all of its shards.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct Http1ClientArguments {
    /// Who the client says it is.
    #[argument(flatten)]
    pub authentication: AuthenticationArguments,
    /// Through which proxy it connects.
    #[argument(flatten)]
    pub proxy: ProxyArguments,
    /// How it verifies the server and presents itself in TLS.
    #[argument(block)]
    pub tls_config: Option<TlsConfigBlock>,
    /// Whether redirects are followed. Credentials stay with the first origin.
    #[argument(default = "true")]
    pub follow_redirects: bool,
    /// Whether HTTP/2 is offered to the server.
    #[argument(default = "false")]
    pub enable_http2: bool,
    /// Headers that are added to each request.
    pub http_headers: BTreeMap<String, Vec<LiveSecret>>,
}

/// The ways to authenticate; at most one may be used.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct AuthenticationArguments {
    /// Username and password.
    #[argument(block)]
    pub basic_auth: Option<BasicAuthBlock>,
    /// An `Authorization` header of any scheme but `Basic`.
    #[argument(block)]
    pub authorization: Option<AuthorizationBlock>,
    /// OAuth 2.0, client credentials grant.
    #[argument(block)]
    pub oauth2: Option<OAuth2Block>,
    /// A bearer token.
    pub bearer_token: LiveSecret,
    /// A file with a bearer token, read for each request.
    #[argument(names = "file")]
    pub bearer_token_file: String,
}

/// `basic_auth`: username and password.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct BasicAuthBlock {
    /// The username.
    pub username: LiveText,
    /// The password.
    pub password: LiveSecret,
    /// A file with the password, read for each request.
    #[argument(names = "file")]
    pub password_file: String,
}

/// `authorization`: a scheme and its credentials.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct AuthorizationBlock {
    /// The scheme; empty means `Bearer`.
    #[argument(name = "type")]
    pub scheme: String,
    /// What follows the scheme.
    pub credentials: LiveSecret,
    /// A file with the credentials, read for each request.
    #[argument(names = "file")]
    pub credentials_file: String,
}

/// `oauth2`: where to get a token, and as whom.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct OAuth2Block {
    /// The client's public name.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: LiveSecret,
    /// A file with the client's secret, read whenever a token is fetched.
    #[argument(names = "file")]
    pub client_secret_file: String,
    /// Scopes to ask for.
    pub scopes: Vec<String>,
    /// The token endpoint.
    #[argument(names = "destination")]
    pub token_url: String,
    /// Further parameters for the token endpoint.
    #[argument(names = "nothing")]
    pub endpoint_params: BTreeMap<String, String>,
    /// Through which proxy the token endpoint is reached.
    #[argument(flatten)]
    pub proxy: ProxyArguments,
    /// How the token endpoint is verified.
    #[argument(block)]
    pub tls_config: Option<TlsConfigBlock>,
}

/// Through which proxy a client connects.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct ProxyArguments {
    /// Address of the proxy to connect through.
    #[argument(type_note = "config.URL", names = "destination")]
    pub proxy_url: ProxyUrl,
    /// Hosts, domains, addresses and networks that are reached directly, separated by commas.
    #[argument(names = "nothing")]
    pub no_proxy: String,
    /// Whether `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` decide.
    pub proxy_from_environment: bool,
    /// Headers for the proxy in `CONNECT` requests.
    #[argument(names = "nothing")]
    pub proxy_connect_header: BTreeMap<String, Vec<Secret>>,
}

/// `tls_config`: how the server is verified and what the client presents.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct TlsConfigBlock {
    /// Certificates to trust, instead of the system's.
    pub ca_pem: LiveText,
    /// A file with certificates to trust.
    #[argument(names = "file")]
    pub ca_file: String,
    /// The client's certificate chain.
    pub cert_pem: LiveText,
    /// A file with the client's certificate chain.
    #[argument(names = "file")]
    pub cert_file: String,
    /// The client's key.
    pub key_pem: LiveSecret,
    /// A file with the client's key.
    #[argument(names = "file")]
    pub key_file: String,
    /// The name the server's certificate must bear, instead of the host of the URL.
    #[argument(names = "nothing")]
    pub server_name: String,
    /// Whether any certificate is accepted.
    pub insecure_skip_verify: bool,
    /// The lowest protocol version: `TLS10`, `TLS11`, `TLS12` or `TLS13`. Nothing below TLS 1.2 is ever spoken.
    #[argument(type_note = "config.TLSVersion", values = ["TLS10", "TLS11", "TLS12", "TLS13"])]
    pub min_version: TlsVersion,
}

/// The lowest TLS version a client accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// Not set: TLS 1.2.
    #[default]
    Unset,
    /// TLS 1.0 was asked for; 1.2 is the lowest that is spoken.
    Tls10,
    /// TLS 1.1 was asked for; 1.2 is the lowest that is spoken.
    Tls11,
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// The address of a proxy. Its password is never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProxyUrl(Option<Url>);

type FieldErrors = Vec<(&'static str, String)>;

// === impl HttpClientArguments ===

impl HttpClientArguments {
    fn validate(&self) -> FieldErrors {
        check_headers("http_headers", &self.http_headers)
    }
}

impl Http1ClientArguments {
    fn validate(&self) -> FieldErrors {
        check_headers("http_headers", &self.http_headers)
    }
}

impl From<Http1ClientArguments> for HttpClientArguments {
    fn from(arguments: Http1ClientArguments) -> Self {
        Self {
            authentication: arguments.authentication,
            proxy: arguments.proxy,
            tls_config: arguments.tls_config,
            follow_redirects: arguments.follow_redirects,
            enable_http2: arguments.enable_http2,
            http_headers: arguments.http_headers,
        }
    }
}

// === impl AuthenticationArguments ===

impl AuthenticationArguments {
    /// The names of the ways to authenticate that are configured.
    pub fn methods(&self) -> Vec<&'static str> {
        let configured = [
            ("basic_auth", self.basic_auth.is_some()),
            ("authorization", self.authorization.is_some()),
            ("oauth2", self.oauth2.is_some()),
            ("bearer_token", !self.bearer_token.is_empty()),
            ("bearer_token_file", !self.bearer_token_file.is_empty()),
        ];
        configured.into_iter().filter(|(_, set)| *set).map(|(name, _)| name).collect()
    }

    fn validate(&self) -> FieldErrors {
        let methods = self.methods();
        match methods.as_slice() {
            [] | [_] => Vec::new(),
            [.., last] => {
                vec![(
                    *last,
                    format!(
                        "at most one way to authenticate may be configured, found {}",
                        methods.join(", ")
                    ),
                )]
            }
        }
    }
}

impl BasicAuthBlock {
    fn validate(&self) -> FieldErrors {
        exclusive("password_file", "password", !self.password.is_empty(), &self.password_file)
    }

    pub(super) fn password(&self) -> SecretSource {
        SecretSource::new(&self.password, &self.password_file)
    }
}

impl AuthorizationBlock {
    /// The scheme, `Bearer` where none is given.
    pub fn effective_scheme(&self) -> &str {
        match self.scheme.trim() {
            "" => "Bearer",
            scheme => scheme,
        }
    }

    fn validate(&self) -> FieldErrors {
        let mut errors = exclusive(
            "credentials_file",
            "credentials",
            !self.credentials.is_empty(),
            &self.credentials_file,
        );
        let scheme = self.effective_scheme();
        if scheme.eq_ignore_ascii_case("basic") {
            errors.push(("type", "cannot be \"Basic\": use a basic_auth block instead".to_owned()));
        } else if http::HeaderValue::from_str(scheme).is_err() {
            errors.push(("type", "holds characters that a header cannot carry".to_owned()));
        }
        named(errors)
    }

    pub(super) fn credentials(&self) -> SecretSource {
        SecretSource::new(&self.credentials, &self.credentials_file)
    }
}

impl OAuth2Block {
    fn validate(&self) -> FieldErrors {
        let mut errors = exclusive(
            "client_secret_file",
            "client_secret",
            !self.client_secret.is_empty(),
            &self.client_secret_file,
        );
        if self.client_id.is_empty() {
            errors.push(("client_id", "must be set".to_owned()));
        }
        if self.token_url.is_empty() {
            errors.push(("token_url", "must be set".to_owned()));
        } else if let Err(message) = http_url(&self.token_url) {
            errors.push(("token_url", message));
        }
        named(errors)
    }

    pub(super) fn client_secret(&self) -> SecretSource {
        SecretSource::new(&self.client_secret, &self.client_secret_file)
    }
}

impl ProxyArguments {
    fn validate(&self) -> FieldErrors {
        let mut errors = Vec::new();
        let has_url = self.proxy_url.0.is_some();
        if self.proxy_from_environment && has_url {
            errors.push(("proxy_url", "cannot be combined with proxy_from_environment".to_owned()));
        }
        if self.proxy_from_environment && !self.no_proxy.is_empty() {
            errors.push(("no_proxy", "cannot be combined with proxy_from_environment".to_owned()));
        }
        if !self.proxy_from_environment && !has_url && !self.no_proxy.is_empty() {
            errors.push(("no_proxy", "needs proxy_url".to_owned()));
        }
        if !self.proxy_connect_header.is_empty() && !has_url && !self.proxy_from_environment {
            errors.push(("proxy_connect_header", "needs proxy_url or proxy_from_environment".to_owned()));
        }
        let values = |values: &Vec<Secret>| values.iter().cloned().map(LiveSecret::from).collect();
        let headers =
            self.proxy_connect_header.iter().map(|(name, all)| (name.clone(), values(all))).collect();
        errors.extend(check_headers("proxy_connect_header", &headers));
        named(errors)
    }
}

impl TlsConfigBlock {
    /// Where its certificates and its key are.
    pub(super) fn origins(&self, access: &Access) -> Origins {
        Origins {
            authorities: Origin::new("ca_pem", self.ca_pem.live(), &self.ca_file),
            certificate: Origin::new("cert_pem", self.cert_pem.live(), &self.cert_file),
            key: Origin::new("key_pem", self.key_pem.clone(), &self.key_file),
            access: access.clone(),
        }
    }

    pub(super) fn settings(&self, http2: bool) -> ClientSettings {
        ClientSettings {
            server_name: self.server_name.clone(),
            insecure_skip_verify: self.insecure_skip_verify,
            lowest_version: match self.min_version {
                TlsVersion::Tls13 => LowestVersion::Tls13,
                TlsVersion::Unset | TlsVersion::Tls10 | TlsVersion::Tls11 | TlsVersion::Tls12 => {
                    LowestVersion::Tls12
                }
            },
            http2,
        }
    }

    fn validate(&self) -> FieldErrors {
        let mut errors = Vec::new();
        let key_pem = !self.key_pem.is_empty();
        for (file_field, text_field, text_set, file) in [
            ("ca_file", "ca_pem", !self.ca_pem.is_empty(), &self.ca_file),
            ("cert_file", "cert_pem", !self.cert_pem.is_empty(), &self.cert_file),
            ("key_file", "key_pem", key_pem, &self.key_file),
        ] {
            errors.extend(exclusive(file_field, text_field, text_set, file));
        }
        let certificate = !self.cert_pem.is_empty() || !self.cert_file.is_empty();
        let key = key_pem || !self.key_file.is_empty();
        if certificate && !key {
            errors.push(("key_file", "key_pem or key_file is needed with a certificate".to_owned()));
        }
        if key && !certificate {
            errors.push(("cert_file", "cert_pem or cert_file is needed with a key".to_owned()));
        }
        named(errors)
    }
}

// === impl TlsVersion ===

impl TlsVersion {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unset => "",
            Self::Tls10 => "TLS10",
            Self::Tls11 => "TLS11",
            Self::Tls12 => "TLS12",
            Self::Tls13 => "TLS13",
        }
    }
}

impl FromValue for TlsVersion {
    fn value_type() -> Type {
        Type::String
    }

    fn from_value(value: &Value) -> Result<Self, ConvertError> {
        Ok(match String::from_value(value)?.as_str() {
            "" => Self::Unset,
            "TLS10" => Self::Tls10,
            "TLS11" => Self::Tls11,
            "TLS12" => Self::Tls12,
            "TLS13" => Self::Tls13,
            other => {
                return Err(ConvertError {
                    path: String::new(),
                    message: format!("unknown TLS version {other:?}: use TLS10, TLS11, TLS12 or TLS13"),
                });
            }
        })
    }
}

impl ToValue for TlsVersion {
    fn to_value(&self) -> Value {
        self.as_str().to_owned().to_value()
    }
}

// === impl ProxyUrl ===

impl ProxyUrl {
    /// The address, with its credentials.
    pub fn url(&self) -> Option<&Url> {
        self.0.as_ref()
    }

    fn redacted(&self) -> String {
        match &self.0 {
            None => String::new(),
            Some(url) => redact_url(url),
        }
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl FromValue for ProxyUrl {
    fn value_type() -> Type {
        Type::String
    }

    fn from_value(value: &Value) -> Result<Self, ConvertError> {
        let text = String::from_value(value)?;
        if text.is_empty() {
            return Ok(Self(None));
        }
        // The text may hold a password: an error never repeats it.
        let url = Url::parse(&text)
            .map_err(|error| ConvertError { path: String::new(), message: format!("is no URL: {error}") })?;
        if !super::proxy::is_supported(url.scheme()) || url.host_str().is_none() {
            return Err(ConvertError {
                path: String::new(),
                message: format!(
                    "a proxy of scheme {:?} is not supported: use http://, https:// or socks5://",
                    url.scheme()
                ),
            });
        }
        Ok(Self(Some(url)))
    }
}

impl ToValue for ProxyUrl {
    fn to_value(&self) -> Value {
        self.redacted().to_value()
    }
}

// === checks ===

/// The URL as text with its password and its query replaced, for errors and logs.
pub fn redact_url(url: &Url) -> String {
    let mut shown = url.clone();
    let mut failed = false;
    if shown.password().is_some() {
        failed |= shown.set_password(Some("xxxxx")).is_err();
    } else if !shown.username().is_empty() {
        // A lone user name is often a token.
        failed |= shown.set_username("xxxxx").is_err();
    }
    if shown.query().is_some() {
        shown.set_query(Some("xxxxx"));
    }
    shown.set_fragment(None);
    if failed { format!("{}://xxxxx", url.scheme()) } else { shown.to_string() }
}

/// Parses an absolute `http` or `https` URL; the message never repeats the text, which may hold credentials.
pub fn http_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("has the scheme {:?}: only http and https are supported", url.scheme()));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("names no host".to_owned());
    }
    Ok(url)
}

/// Puts the field before messages that do not name it: where the field is not given, an error points at its block.
fn named(errors: FieldErrors) -> FieldErrors {
    let name = |(field, message): (&'static str, String)| match message.contains(field) {
        true => (field, message),
        false => (field, format!("{field} {message}")),
    };
    errors.into_iter().map(name).collect()
}

fn exclusive(file_field: &'static str, text_field: &str, text_set: bool, file: &str) -> FieldErrors {
    if text_set && !file.is_empty() {
        return vec![(file_field, format!("at most one of {text_field} and {file_field} may be set"))];
    }
    Vec::new()
}

/// Headers that the client, the protocol or a signature sets, which a configuration cannot replace (as in Prometheus).
const RESERVED_HEADERS: [&str; 18] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "user-agent",
    "www-authenticate",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-security-token",
    "x-prometheus-remote-read-version",
    "x-prometheus-remote-write-version",
    "x-prometheus-scrape-timeout-seconds",
];

fn check_headers(field: &'static str, headers: &BTreeMap<String, Vec<LiveSecret>>) -> FieldErrors {
    let mut errors = Vec::new();
    for (name, values) in headers {
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            errors.push((field, format!("{field}: {name:?} is no header name")));
        } else if field == "http_headers" && RESERVED_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
            errors.push((field, format!("{field}: the header {name:?} is set by the client itself")));
        }
        if values.iter().any(|value| http::HeaderValue::from_str(value.read().expose()).is_err()) {
            errors.push((
                field,
                format!("{field}: a value of {name:?} holds characters that a header cannot carry"),
            ));
        }
    }
    errors
}
