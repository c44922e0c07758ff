//! The `http` (and `grpc`) block of components that listen, and what the engine's listener registry needs to know of it.

use std::sync::Arc;
use std::time::Duration;

use invar_engine::listener::Http2;
use invar_engine::{ListenRequest, PrepareError};
use invar_policy::Access;
use invar_syntax::arguments::Arguments;
use invar_syntax::convert::{ConvertError, FromValue, ToValue};
use invar_syntax::live_secret::{LiveSecret, LiveText};
use invar_syntax::schema::Type;
use invar_syntax::value::Value;
use invar_tls::{
    CipherSuites, ClientAuthentication, LowestVersion, Origin, Origins, PemError, ServerSettings, ServerTls,
};

const DEFAULT_PORT: u16 = 8080;
const DEFAULT_READ_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// The server of a component. Flatten it into the component's arguments.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct ServerArguments {
    /// The HTTP server. The component listens whether the block is there or not.
    #[argument(block)]
    pub http: Option<HttpServerBlock>,
    /// The gRPC server; of no effect on components that speak HTTP only.
    #[argument(block)]
    pub grpc: Option<GrpcServerBlock>,
    /// How long requests in flight may take when the component stops.
    #[argument(default = "\"30s\"")]
    pub graceful_shutdown_timeout: Duration,
}

/// `http`: where and how a component listens.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct HttpServerBlock {
    /// Address to listen on; empty means all.
    #[argument(names = "listen")]
    pub listen_address: String,
    /// Port to listen on; 8080 unless given, 0 for one that is free.
    pub listen_port: Given<i64>,
    /// How many connections there may be at a time; 0 for no limit.
    pub conn_limit: i64,
    /// How long reading a request may take; 30s unless given, 0 for no limit.
    pub server_read_timeout: Given<Duration>,
    /// How long writing a response may take; 30s unless given, 0 for no limit.
    pub server_write_timeout: Given<Duration>,
    /// How long a connection may wait for its next request; 120s unless given, 0 for no limit.
    pub server_idle_timeout: Given<Duration>,
    /// TLS; without it the server speaks plain text.
    #[argument(block)]
    pub tls: Option<ServerTlsBlock>,
    /// HTTP/2 beside HTTP/1.1; without it, or unless it is enabled, HTTP/1.1 alone.
    #[argument(block)]
    pub http2: Option<Http2Block>,
}

/// `http2`: how HTTP/2 is spoken. Zero means the usual value.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct Http2Block {
    /// Whether HTTP/2 is spoken: over TLS where a client chooses it, in plain text where a client begins with it.
    pub enabled: bool,
    /// Accepted for compatibility: streams need no handlers here.
    pub max_handlers: i64,
    /// How many requests a connection may have in flight.
    pub max_concurrent_streams: u32,
    /// Accepted for compatibility: header tables have the size that the protocol starts with.
    pub max_decoder_header_table_size: u32,
    /// Accepted for compatibility: header tables have the size that the protocol starts with.
    pub max_encoder_header_table_size: u32,
    /// The largest frame that a client may send, bytes: 16384 to 16777215.
    pub max_read_frame_size: u32,
    /// Accepted for compatibility: prohibited ciphers do not exist here.
    pub permit_prohibited_ciphers: bool,
    /// How long a connection may wait for its next request; where it is not set, server_idle_timeout decides.
    pub idle_timeout: Duration,
    /// After how long without a frame a client is asked whether it is still there.
    pub read_idle_timeout: Duration,
    /// How long its answer may take.
    pub ping_timeout: Duration,
    /// How long writing may make no progress; where it is not set, server_write_timeout decides.
    pub write_byte_timeout: Duration,
    /// How much a client may send ahead on all streams together, bytes.
    pub max_upload_buffer_per_connection: i32,
    /// How much a client may send ahead on one stream, bytes.
    pub max_upload_buffer_per_stream: i32,
}

/// `grpc`: accepted for compatibility where a component speaks HTTP only.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct GrpcServerBlock {
    /// Without effect.
    #[argument(names = "listen")]
    pub listen_address: String,
    /// Without effect.
    pub listen_port: i64,
    /// Without effect.
    pub conn_limit: i64,
    /// Without effect.
    pub max_connection_age: Duration,
    /// Without effect.
    pub max_connection_age_grace: Duration,
    /// Without effect.
    pub max_connection_idle: Duration,
    /// Without effect.
    pub server_max_recv_msg_size: i64,
    /// Without effect.
    pub server_max_send_msg_size: i64,
    /// Without effect.
    #[argument(type_note = "uint")]
    pub server_max_concurrent_streams: u64,
    /// Without effect.
    #[argument(block)]
    pub tls: Option<ServerTlsBlock>,
}

/// `tls` of a server.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct ServerTlsBlock {
    /// The server's certificate chain.
    pub cert_pem: LiveText,
    /// The server's key.
    pub key_pem: LiveSecret,
    /// A file with the server's certificate chain.
    #[argument(names = "file")]
    pub cert_file: String,
    /// A file with the server's key.
    #[argument(names = "file")]
    pub key_file: String,
    /// `NoClientCert`, `RequestClientCert`, `RequireAnyClientCert`, `VerifyClientCertIfGiven` or
    /// `RequireAndVerifyClientCert`.
    #[argument(
        values = [
            "NoClientCert",
            "RequestClientCert",
            "RequireAnyClientCert",
            "VerifyClientCertIfGiven",
            "RequireAndVerifyClientCert"
        ]
    )]
    pub client_auth_type: String,
    /// A file with the authorities of client certificates.
    #[argument(names = "file")]
    pub client_ca_file: String,
    /// The authorities of client certificates.
    pub client_ca: LiveText,
    /// The cipher suites of TLS 1.2 to offer, by name, separated by commas; empty for all. Unsafe ones are never spoken.
    pub cipher_suites: String,
    /// The lowest protocol version: `VersionTLS10` to `VersionTLS13`. Nothing below TLS 1.2 is ever spoken.
    #[argument(values = ["VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13"])]
    pub min_version: String,
}

/// An argument that knows whether it was given. Where it was not, interfaces show the zero of its type, as Alloy's do,
/// and the component uses its own default, which the zero would otherwise hide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given<T>(Option<T>);

// === impl ServerArguments ===

impl ServerArguments {
    /// Where to listen and how, for a component whose requests have bodies of at most `body_limit` bytes. Reads the
    /// certificates, as far as `access` allows it.
    ///
    /// # Errors
    /// When certificates or keys cannot be read or used.
    pub async fn listen_request(
        &self,
        body_limit: usize,
        access: &Access,
    ) -> Result<ListenRequest, PrepareError> {
        match &self.http {
            Some(block) => block.listen_request(body_limit, access).await,
            None => HttpServerBlock::default().listen_request(body_limit, access).await,
        }
    }

    /// The address as `host:port`, for the check that no two components listen on one.
    pub fn address(&self) -> String {
        self.http.as_ref().map_or_else(|| HttpServerBlock::default().address(), HttpServerBlock::address)
    }
}

// === impl HttpServerBlock ===

impl HttpServerBlock {
    /// The address as `host:port`; an empty host means all addresses.
    pub fn address(&self) -> String {
        let host = self.listen_address.trim();
        let port = self.listen_port.unwrap_or(i64::from(DEFAULT_PORT));
        if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }

    /// See [`ServerArguments::listen_request`].
    ///
    /// # Errors
    /// When certificates or keys cannot be read or used.
    pub async fn listen_request(
        &self,
        body_limit: usize,
        access: &Access,
    ) -> Result<ListenRequest, PrepareError> {
        let tls = match &self.tls {
            Some(block) => {
                let tls = block.server_tls(self.speaks_http2(), access).await;
                Some(Arc::new(tls.map_err(|error| PrepareError::invalid(format!("tls: {error}")))?))
            }
            None => None,
        };
        let limited =
            |timeout: Given<Duration>, default| Some(timeout.unwrap_or(default)).filter(|t| !t.is_zero());
        let http2 = self.http2.as_ref().filter(|http2| http2.enabled);
        let of_http2 = |timeout: fn(&Http2Block) -> Duration| http2.map(timeout).filter(|t| !t.is_zero());
        Ok(ListenRequest {
            address: self.address(),
            tls,
            http2: http2.map(Http2Block::settings),
            read_timeout: limited(self.server_read_timeout, DEFAULT_READ_TIMEOUT),
            write_timeout: of_http2(|http2| http2.write_byte_timeout)
                .or(limited(self.server_write_timeout, DEFAULT_WRITE_TIMEOUT)),
            idle_timeout: of_http2(|http2| http2.idle_timeout)
                .or(limited(self.server_idle_timeout, DEFAULT_IDLE_TIMEOUT)),
            connection_limit: usize::try_from(self.conn_limit).ok().filter(|limit| *limit > 0),
            body_limit,
        })
    }

    fn speaks_http2(&self) -> bool {
        self.http2.as_ref().is_some_and(|http2| http2.enabled)
    }

    fn validate(&self) -> Vec<(&'static str, String)> {
        let mut errors = Vec::new();
        let port = self.listen_port.unwrap_or(i64::from(DEFAULT_PORT));
        if u16::try_from(port).is_err() {
            errors.push(("listen_port", format!("listen_port {port} is no port: use 0 to 65535")));
        }
        if self.conn_limit < 0 {
            errors.push(("conn_limit", "conn_limit cannot be negative".to_owned()));
        }
        errors
    }
}

// === impl Http2Block ===

impl Http2Block {
    fn settings(&self) -> Http2 {
        let given = |number: u32| Some(number).filter(|number| *number > 0);
        let bytes = |number: i32| u32::try_from(number).ok().and_then(given);
        let time = |time: Duration| Some(time).filter(|time| !time.is_zero());
        Http2 {
            concurrent_streams: given(self.max_concurrent_streams),
            frame_bytes: given(self.max_read_frame_size),
            connection_window_bytes: bytes(self.max_upload_buffer_per_connection),
            stream_window_bytes: bytes(self.max_upload_buffer_per_stream),
            ping_after: time(self.read_idle_timeout),
            ping_timeout: time(self.ping_timeout),
        }
    }

    fn validate(&self) -> Vec<(&'static str, String)> {
        let mut errors = Vec::new();
        // Other sizes do not exist in the protocol.
        if self.max_read_frame_size != 0 && !(1 << 14..1 << 24).contains(&self.max_read_frame_size) {
            errors.push((
                "max_read_frame_size",
                "max_read_frame_size must be between 16384 and 16777215".to_owned(),
            ));
        }
        for (field, value) in [
            ("max_upload_buffer_per_connection", self.max_upload_buffer_per_connection),
            ("max_upload_buffer_per_stream", self.max_upload_buffer_per_stream),
        ] {
            if value < 0 {
                errors.push((field, format!("{field} cannot be negative")));
            }
        }
        errors
    }
}

// === impl ServerTlsBlock ===

impl ServerTlsBlock {
    /// The TLS side of a server. New handshakes see files that change.
    ///
    /// # Errors
    /// When certificates or keys cannot be read or used.
    pub async fn server_tls(&self, http2: bool, access: &Access) -> Result<ServerTls, PemError> {
        let origins = Origins {
            authorities: Origin::new("client_ca", self.client_ca.live(), &self.client_ca_file),
            certificate: Origin::new("cert_pem", self.cert_pem.live(), &self.cert_file),
            key: Origin::new("key_pem", self.key_pem.clone(), &self.key_file),
            access: access.clone(),
        };
        let settings = ServerSettings {
            client_authentication: self.client_authentication().unwrap_or_default(),
            lowest_version: match self.min_version.as_str() {
                "VersionTLS13" => LowestVersion::Tls13,
                _ => LowestVersion::Tls12,
            },
            cipher_suites: CipherSuites::parse(&self.cipher_suites).unwrap_or_default(),
            http2,
        };
        for suite in settings.cipher_suites.unsupported() {
            tracing::warn!(%suite, "a cipher suite of cipher_suites is not safe and is never offered");
        }
        if matches!(self.min_version.as_str(), "VersionTLS10" | "VersionTLS11") {
            tracing::warn!(min_version = %self.min_version, "TLS 1.0 and 1.1 are never spoken, the lowest version is TLS 1.2");
        }
        ServerTls::new(origins, settings).await
    }

    fn client_authentication(&self) -> Option<ClientAuthentication> {
        ClientAuthentication::from_name(&self.client_auth_type)
    }

    fn validate(&self) -> Vec<(&'static str, String)> {
        let mut errors = Vec::new();
        for (file_field, text_field, text_set, file) in [
            ("cert_file", "cert_pem", !self.cert_pem.is_empty(), &self.cert_file),
            ("key_file", "key_pem", !self.key_pem.is_empty(), &self.key_file),
            ("client_ca_file", "client_ca", !self.client_ca.is_empty(), &self.client_ca_file),
        ] {
            if text_set && !file.is_empty() {
                errors.push((file_field, format!("at most one of {text_field} and {file_field} may be set")));
            }
        }
        if self.cert_pem.is_empty() && self.cert_file.is_empty() {
            errors.push(("cert_file", "cert_pem or cert_file must be set".to_owned()));
        }
        if self.key_pem.is_empty() && self.key_file.is_empty() {
            errors.push(("key_file", "key_pem or key_file must be set".to_owned()));
        }
        let has_authorities = !self.client_ca.is_empty() || !self.client_ca_file.is_empty();
        match self.client_authentication() {
            Some(ClientAuthentication::None) if has_authorities && self.client_auth_type.is_empty() => errors.push((
                "client_auth_type",
                "client_auth_type must be set where client certificates have authorities, such as RequireAndVerifyClientCert".to_owned(),
            )),
            Some(mode) if mode.verifies() && !has_authorities => {
                errors.push(("client_ca_file", "client_ca or client_ca_file must be set to verify clients".to_owned()));
            }
            Some(_) => {}
            None => errors.push((
                "client_auth_type",
                format!(
                    "client_auth_type {:?} is unknown: use NoClientCert, RequestClientCert, RequireAnyClientCert, \
                     VerifyClientCertIfGiven or RequireAndVerifyClientCert",
                    self.client_auth_type
                ),
            )),
        }
        match CipherSuites::parse(&self.cipher_suites) {
            Err(unknown) => errors.push(("cipher_suites", format!("cipher_suites: {unknown}"))),
            Ok(suites) if suites.leaves_nothing() && self.min_version != "VersionTLS13" => errors.push((
                "cipher_suites",
                format!(
                    "cipher_suites: none of {} is safe enough to be spoken here; leave cipher_suites out",
                    suites.unsupported().join(", ")
                ),
            )),
            Ok(_) => {}
        }
        if !matches!(
            self.min_version.as_str(),
            "" | "VersionTLS10" | "VersionTLS11" | "VersionTLS12" | "VersionTLS13"
        ) {
            errors.push((
                "min_version",
                format!("min_version {:?} is unknown: use VersionTLS12 or VersionTLS13", self.min_version),
            ));
        }
        errors
    }
}

// === impl Given ===

impl<T: Copy> Given<T> {
    /// What was given, else `default`.
    pub fn unwrap_or(self, default: T) -> T {
        self.0.unwrap_or(default)
    }
}

impl<T: FromValue> FromValue for Given<T> {
    fn value_type() -> Type {
        T::value_type()
    }

    fn from_value(value: &Value) -> Result<Self, ConvertError> {
        T::from_value(value).map(|given| Self(Some(given)))
    }
}

impl<T: ToValue + Default> ToValue for Given<T> {
    fn to_value(&self) -> Value {
        match &self.0 {
            Some(given) => given.to_value(),
            None => T::default().to_value(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use invar_syntax::evaluate::evaluate_body;
    use invar_syntax::parse_bytes;
    use invar_syntax::scope::EmptyScope;

    use super::*;

    fn server(text: &str) -> Result<ServerArguments, String> {
        let (file, _) = parse_bytes("test", text.as_bytes());
        let body = evaluate_body(&file.unwrap().body, &EmptyScope).unwrap();
        let mut errors = Vec::new();
        ServerArguments::decode(&body, &mut errors)
            .ok_or_else(|| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }

    #[tokio::test]
    async fn what_is_not_given_has_the_documented_defaults() {
        for text in ["", "http { }", "http {\n  conn_limit = 0\n}"] {
            let request = server(text).unwrap().listen_request(10, &Access::unrestricted()).await.unwrap();
            assert_eq!(request.address, ":8080", "{text}");
            assert_eq!(request.read_timeout, Some(Duration::from_secs(30)));
            assert_eq!(request.write_timeout, Some(Duration::from_secs(30)));
            assert_eq!(request.idle_timeout, Some(Duration::from_secs(120)));
            assert_eq!(
                (request.connection_limit, request.body_limit, request.tls.is_none()),
                (None, 10, true)
            );
        }
    }

    #[tokio::test]
    async fn what_is_given_holds_zeros_too() {
        let text = "http {\n listen_address = \"::1\"\n listen_port = 0\n conn_limit = 7\n server_read_timeout = \"0s\"\n \
                    server_idle_timeout = \"5s\"\n}";
        let server = server(text).unwrap();
        let request = server.listen_request(1, &Access::unrestricted()).await.unwrap();
        assert_eq!((request.address.as_str(), server.address().as_str()), ("[::1]:0", "[::1]:0"));
        assert_eq!((request.read_timeout, request.idle_timeout), (None, Some(Duration::from_secs(5))));
        assert_eq!(request.connection_limit, Some(7));
    }

    #[tokio::test]
    async fn http_2_is_spoken_only_where_it_is_enabled() {
        let request = async |text: &str| {
            server(text).unwrap().listen_request(1, &Access::unrestricted()).await.unwrap()
        };
        assert_eq!(request("http {\n http2 {\n max_concurrent_streams = 9\n }\n}").await.http2, None);
        let text =
            "http {\n http2 {\n enabled = true\n max_concurrent_streams = 9\n idle_timeout = \"7s\"\n }\n}";
        let request = request(text).await;
        let wanted = Http2 { concurrent_streams: Some(9), ..Http2::default() };
        assert_eq!((request.http2, request.idle_timeout), (Some(wanted), Some(Duration::from_secs(7))));
    }

    #[test]
    fn unusable_settings_are_refused() {
        for (text, part) in [
            ("http {\n listen_port = 70000\n}", "listen_port"),
            ("http {\n conn_limit = -1\n}", "conn_limit"),
            ("http {\n tls { }\n}", "cert_file must be set"),
            (
                "http {\n tls {\n cert_file = \"c\"\n cert_pem = \"c\"\n key_file = \"k\"\n }\n}",
                "at most one of cert_pem",
            ),
            (
                "http {\n tls {\n cert_file = \"c\"\n key_file = \"k\"\n min_version = \"TLS12\"\n }\n}",
                "min_version",
            ),
            (
                "http {\n tls {\n cert_file = \"c\"\n key_file = \"k\"\n client_auth_type = \"RequireAndVerifyClientCert\"\n }\n}",
                "client_ca",
            ),
            (
                "http {\n tls {\n cert_file = \"c\"\n key_file = \"k\"\n client_ca = \"x\"\n }\n}",
                "client_auth_type must be set",
            ),
            (
                "http {\n tls {\n cert_file = \"c\"\n key_file = \"k\"\n cipher_suites = \"AES\"\n }\n}",
                "cipher suite \"AES\" is unknown",
            ),
            (
                "http {\n tls {\n cert_file = \"c\"\n key_file = \"k\"\n cipher_suites = \"TLS_RSA_WITH_AES_128_CBC_SHA\"\n }\n}",
                "none of TLS_RSA_WITH_AES_128_CBC_SHA is safe",
            ),
            ("http {\n http2 {\n max_read_frame_size = 1\n }\n}", "max_read_frame_size must be"),
        ] {
            let error = server(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
