//! `http`: how the agent's own HTTP server is reached: the credentials it asks for, and its certificate.

use std::sync::Arc;
use std::time::Duration;

use invar_engine::{
    Component, ExportContext, InstanceContext, PrepareError, Stability, StateContext, Transition,
};
use invar_policy::Access;
use invar_syntax::arguments::Arguments;
use invar_syntax::{LiveSecret, LiveText};
use invar_tls::{
    CipherSuites, ClientAuthentication, LowestVersion, Origin, Origins, PemError, ServerSettings, ServerTls,
};

use super::setting::Setting;
use crate::server::{Credentials, Gate, Paths};

/// The block.
pub(crate) struct Http;

/// What the block says.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct HttpArguments {
    /// Who may use the server.
    #[argument(block)]
    auth: Option<AuthBlock>,
    /// The server's certificate; without this block it speaks plain HTTP.
    #[argument(block)]
    tls: Option<TlsBlock>,
}

/// `auth`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct AuthBlock {
    /// A name and a password.
    #[argument(block)]
    basic: Option<BasicBlock>,
    /// The paths that credentials are asked for; all of them without this block.
    #[argument(block)]
    filter: Option<FilterBlock>,
}

/// `basic`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct BasicBlock {
    /// The name.
    #[argument(required)]
    username: String,
    /// The password.
    #[argument(required)]
    password: LiveSecret,
}

/// `filter`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct FilterBlock {
    /// Beginnings of paths.
    #[argument(names = "nothing")]
    paths: Vec<String>,
    /// Whether credentials are asked for under these paths, or everywhere else.
    #[argument(default = "true")]
    authenticate_matching_paths: bool,
}

/// `tls`. Files are read again when they change.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub(crate) struct TlsBlock {
    /// The server's chain of certificates, as PEM text.
    cert_pem: LiveText,
    /// A file with the server's chain of certificates.
    #[argument(names = "file")]
    cert_file: String,
    /// The server's key, as PEM text.
    key_pem: LiveSecret,
    /// A file with the server's key.
    #[argument(names = "file")]
    key_file: String,
    /// The authorities that issue client certificates, as PEM text.
    client_ca_pem: LiveText,
    /// A file with the authorities that issue client certificates.
    #[argument(names = "file")]
    client_ca_file: String,
    /// Which certificates are wanted of clients.
    #[argument(
        default = "\"NoClientCert\"",
        values = ["NoClientCert", "RequestClientCert", "RequireAnyClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"]
    )]
    client_auth_type: String,
    /// Cipher suites of TLS 1.2 to offer, by Go's names; all that are safe where empty.
    cipher_suites: Vec<String>,
    /// Accepted for compatibility: the curves on offer are X25519, P-256 and P-384.
    curve_preferences: Vec<String>,
    /// The lowest protocol version: `TLS12` or `TLS13`. Older ones are never spoken.
    #[argument(values = ["TLS10", "TLS11", "TLS12", "TLS13"])]
    min_version: String,
    /// Certificates of a Windows certificate store; on Windows only.
    #[argument(block)]
    windows_certificate_filter: Option<WindowsCertificateFilterBlock>,
    /// The highest protocol version; only `TLS13`, which is what holds without it.
    #[argument(values = ["TLS13"])]
    max_version: String,
}

/// `windows_certificate_filter`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct WindowsCertificateFilterBlock {
    /// Which certificate is the server's.
    #[argument(block)]
    server: Option<WindowsServerFilterBlock>,
    /// Which client certificates are accepted.
    #[argument(block)]
    client: Option<WindowsClientFilterBlock>,
}

/// `server` of `windows_certificate_filter`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct WindowsServerFilterBlock {
    /// The store.
    store: String,
    /// The system store.
    system_store: String,
    /// Who issued the certificate.
    issuer_common_names: Vec<String>,
    /// The certificate's template.
    template_id: String,
    /// How often the store is looked at.
    #[argument(default = "\"5m\"")]
    refresh_interval: Duration,
}

/// `client` of `windows_certificate_filter`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct WindowsClientFilterBlock {
    /// Who issued the certificate.
    issuer_common_names: Vec<String>,
    /// What the certificate's subject matches.
    subject_regex: String,
    /// The certificate's template.
    template_id: String,
}

/// What holds while the block is there.
#[derive(Debug)]
pub(crate) struct State {
    credentials: Option<Arc<Credentials>>,
    tls: Option<Arc<ServerTls>>,
}

impl Component for Http {
    const NAME: &'static str = "http";
    const STABILITY: Stability = Stability::GenerallyAvailable;
    const SUMMARY: &'static str =
        "How the agent's own HTTP server is reached: who may use it, and its certificate.";
    const SETTINGS: bool = true;

    type Arguments = HttpArguments;
    type Exports = ();
    type Instance = Setting<State>;
    type State = State;

    fn instance(_: &HttpArguments, context: &InstanceContext) -> Result<Setting<State>, PrepareError> {
        let gate = context.services().get::<Gate>();
        Ok(Setting::new(move |state: Option<&Arc<State>>| {
            if let Some(gate) = &gate {
                gate.set(state.and_then(|state| state.credentials.clone()));
                gate.set_tls(state.and_then(|state| state.tls.clone()));
            }
        }))
    }

    async fn state(
        arguments: Arc<HttpArguments>,
        _: Arc<Setting<State>>,
        context: StateContext,
    ) -> Result<State, PrepareError> {
        let tls = match &arguments.tls {
            None => None,
            Some(block) => {
                let tls = block.server_tls(context.access()).await;
                Some(Arc::new(tls.map_err(|error| PrepareError::invalid(format!("tls: {error}")))?))
            }
        };
        let credentials = arguments.auth.as_ref().and_then(AuthBlock::credentials).map(Arc::new);
        Ok(State { credentials, tls })
    }

    fn exports(_: &Setting<State>, _: &State, _: &ExportContext) {}

    fn transition(instance: &Arc<Setting<State>>, transition: Transition<'_, Self>) {
        instance.follow(&transition);
    }
}

impl AuthBlock {
    fn credentials(&self) -> Option<Credentials> {
        let basic = self.basic.as_ref()?;
        let paths = match &self.filter {
            None => Paths::All,
            Some(filter) if filter.authenticate_matching_paths => Paths::Only(filter.paths.clone()),
            Some(filter) => Paths::AllBut(filter.paths.clone()),
        };
        Some(Credentials { username: basic.username.clone(), password: basic.password.clone(), paths })
    }
}

impl TlsBlock {
    async fn server_tls(&self, access: &Access) -> Result<ServerTls, PemError> {
        if self.windows_certificate_filter.is_some() {
            let problem = "windows_certificate_filter: there is no certificate store on this system";
            return Err(PemError::Unusable(problem.to_owned()));
        }
        let origins = Origins {
            authorities: Origin::new("client_ca_pem", self.client_ca_pem.live(), &self.client_ca_file),
            certificate: Origin::new("cert_pem", self.cert_pem.live(), &self.cert_file),
            key: Origin::new("key_pem", self.key_pem.clone(), &self.key_file),
            access: access.clone(),
        };
        let settings = ServerSettings {
            client_authentication: ClientAuthentication::from_name(&self.client_auth_type)
                .unwrap_or_default(),
            lowest_version: match self.min_version.as_str() {
                "TLS13" => LowestVersion::Tls13,
                _ => LowestVersion::Tls12,
            },
            cipher_suites: CipherSuites::parse(&self.cipher_suites.join(",")).unwrap_or_default(),
            http2: false,
        };
        ServerTls::new(origins, settings).await
    }

    fn validate(&self) -> Vec<(&'static str, String)> {
        let mut errors = Vec::new();
        if self.windows_certificate_filter.is_some() {
            return errors;
        }
        for (what, text, file) in [
            ("cert_pem", !self.cert_pem.is_empty(), &self.cert_file),
            ("key_pem", !self.key_pem.is_empty(), &self.key_file),
        ] {
            let beside = what.replace("_pem", "_file");
            match (text, file.is_empty()) {
                (true, false) => {
                    errors.push((what, format!("at most one of {what} and {beside} may be set")))
                }
                (false, true) => errors.push((what, format!("{what} or {beside} must be set"))),
                _ => {}
            }
        }
        let authorities = !self.client_ca_pem.is_empty() || !self.client_ca_file.is_empty();
        match ClientAuthentication::from_name(&self.client_auth_type) {
            None => errors.push(("client_auth_type", format!("{:?} is unknown", self.client_auth_type))),
            Some(wanted) if wanted.verifies() && !authorities => errors.push((
                "client_ca_file",
                "client_ca_pem or client_ca_file must be set to verify clients".to_owned(),
            )),
            Some(_) => {}
        }
        if let Err(unknown) = CipherSuites::parse(&self.cipher_suites.join(",")) {
            errors.push(("cipher_suites", unknown.to_string()));
        }
        if !matches!(self.min_version.as_str(), "" | "TLS10" | "TLS11" | "TLS12" | "TLS13") {
            errors.push(("min_version", format!("{:?} is unknown: use TLS12 or TLS13", self.min_version)));
        }
        if !matches!(self.max_version.as_str(), "" | "TLS13") {
            errors.push(("max_version", "the highest version cannot be limited: use TLS13".to_owned()));
        }
        errors
    }
}
