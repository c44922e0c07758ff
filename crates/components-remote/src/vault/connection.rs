//! Which server, as whom, and under which ceiling. As Alloy does, it takes what the arguments cannot say from the
//! environment of the process: `VAULT_CACERT` and its like, and proxies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use invar_policy::{Access, Refusal};
use invar_secrets::vault::{
    ClientParts, ClientSettings, HttpTransport, KvVersion, Pace, VaultAuth, VaultClient,
};
use invar_secrets::{
    BoxFuture, SecretError, SecretSnapshot, SecretStore, SecretStores, StoreKind, read_secret_file,
};
use url::Url;

use super::arguments::{ClientOptions, HOST, VaultArguments};

/// What a client is made of. Clients of equal ones are the same.
#[derive(Clone, PartialEq)]
pub(super) struct Connection {
    server: String,
    namespace: String,
    auth: Option<VaultAuth>,
    options: ClientOptions,
    access: Access,
}

/// Files of the host, as far as the ceiling allows.
struct HostFiles(Access);

impl Connection {
    /// # Errors
    /// When the server may not be connected to.
    pub(super) fn new(arguments: &VaultArguments, access: &Access) -> Result<Self, Refusal> {
        crate::reach::by_name(&arguments.server, access)?;
        Ok(Self {
            server: arguments.server.clone(),
            namespace: arguments.namespace.clone(),
            auth: arguments.auth.first().map(super::arguments::AuthBlock::for_client),
            options: arguments.client_options.clone(),
            access: access.clone(),
        })
    }

    /// # Errors
    /// What is wrong with the arguments.
    pub(super) fn client(&self) -> Result<VaultClient, String> {
        let server = Url::parse(&self.server).map_err(|_| "server is no address".to_owned())?;
        let auth = self.auth.clone().ok_or("exactly one auth.* block must be specified; found none")?;
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let file = |name: &str| variable(name).map(PathBuf::from);
        let tls = invar_secrets::TlsSettings {
            ca: file("VAULT_CACERT"),
            cert: file("VAULT_CLIENT_CERT"),
            key: file("VAULT_CLIENT_KEY"),
            server_name: variable("VAULT_TLS_SERVER_NAME").and_then(|name| name.into_string().ok()),
        };
        let access = self.access.clone();
        let transport = HttpTransport::with(server, &tls, None).through_proxies_of_environment();
        let mut transport = transport.asking(move |url| {
            let asked = crate::reach::by_name(url.as_str(), &access);
            asked.map_err(|Refusal { message, help }| format!("{message}; {help}"))
        });
        let skip = variable("VAULT_SKIP_VERIFY").and_then(|value| value.into_string().ok());
        if skip.is_some_and(|skip| matches!(skip.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True")) {
            transport = transport.accepting_any_certificate();
        }
        let files: Arc<dyn SecretStore> = Arc::new(HostFiles(self.access.clone()));
        let settings = ClientSettings {
            namespace: self.namespace.clone(),
            auth,
            timeout: Some(self.options.timeout),
            kv_version: KvVersion::Two,
        };
        let parts = ClientParts {
            credentials: SecretStores::new(BTreeMap::from([(HOST.to_owned(), files)])),
            pace: Pace { login_first: self.options.min_retry_wait, ..Pace::default() },
            ..ClientParts::new(Arc::new(transport))
        };
        Ok(VaultClient::new(settings, parts))
    }
}

impl SecretStore for HostFiles {
    fn kind(&self) -> StoreKind {
        StoreKind::File
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<SecretSnapshot, SecretError>> {
        Box::pin(async move {
            let (access, file) = (self.0.clone(), PathBuf::from(path));
            let read = tokio::task::spawn_blocking(move || read_allowed(&access, &file));
            read.await.unwrap_or_else(|_| Err(SecretError::unavailable(path, "reading was interrupted")))
        })
    }
}

fn read_allowed(access: &Access, file: &Path) -> Result<SecretSnapshot, SecretError> {
    access.file(file).map_err(|Refusal { message, help }| SecretError::Denied {
        reference: file.display().to_string(),
        reason: format!("{message}; {help}"),
    })?;
    read_secret_file(file).map(SecretSnapshot::single)
}
