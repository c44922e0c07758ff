//! The TLS side of a source's connection, from the files that the settings name.

use invar_tls::{ClientSettings, Material, Origin, Origins, PemError};
use rustls::ClientConfig;

use crate::error::Failure;
use crate::settings::TlsSettings;

/// Reads the files.
pub(crate) async fn material(settings: &TlsSettings) -> Result<Material, Failure> {
    let file = |path: &Option<std::path::PathBuf>| path.clone().map_or(Origin::None, Origin::File);
    let origins = Origins {
        authorities: file(&settings.ca),
        certificate: file(&settings.cert),
        key: file(&settings.key),
        // Settings are the host's own.
        ..Origins::default()
    };
    // Files may appear or be completed later, hence not stalled.
    origins.read().await.map_err(|error| Failure::transient(format!("`tls`: {error}")))
}

/// Makes the configuration of a client; blocking, because the system's authorities are read from files.
pub(crate) fn client_config(settings: &TlsSettings, material: &Material) -> Result<ClientConfig, Failure> {
    let client = ClientSettings {
        server_name: settings.server_name.clone().unwrap_or_default(),
        ..ClientSettings::default()
    };
    client.config(material).map_err(|error| {
        let message = format!("`tls`: {error}");
        match error {
            // The settings are wrong, which time does not mend.
            PemError::Content { origin, .. } if origin == "server_name" => Failure::stalled(message),
            _ => Failure::transient(message),
        }
    })
}
