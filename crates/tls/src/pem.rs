//! Certificates and keys in PEM form, from text or files, as both ends of TLS need them.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use invar_policy::Access;
use invar_syntax::live_secret::{LiveSecret, read_versioned, report, version_of};
use invar_syntax::secret::Secret;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncReadExt as _;

/// Bundles of all the world's authorities are below 1 MiB.
const MAX_PEM_BYTES: u64 = 8 << 20;
/// How long a file may take (it may lie on a network file system).
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// What is wrong with a certificate, a key or the file that should hold it. Never repeats a key.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The text is not what it should be.
    #[error("{origin}: {message}")]
    Content {
        /// The argument or file.
        origin: String,
        /// What is wrong.
        message: String,
    },
    /// Certificate and key are each readable but cannot be used together, or at all.
    #[error("{0}")]
    Unusable(String),
}

/// Where PEM text comes from. Held as a secret, because keys come this way too.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Origin {
    /// Nowhere.
    #[default]
    None,
    /// The text itself, from the setting of this name.
    Text {
        /// What errors call it.
        name: &'static str,
        /// The text, which may change.
        text: LiveSecret,
    },
    /// A file, read again when it changes.
    File(PathBuf),
}

/// Where one end of TLS has its certificates and its key from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origins {
    /// The authorities whom it trusts.
    pub authorities: Origin,
    /// Its own chain of certificates.
    pub certificate: Origin,
    /// The key of its own certificate.
    pub key: Origin,
    /// What may be read.
    pub access: Access,
}

/// What the origins hold at one moment. Equal means that nothing has changed since.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Material {
    pub(crate) authorities: Option<PemText>,
    pub(crate) certificate: Option<PemText>,
    pub(crate) key: Option<PemText>,
}

/// PEM text and what errors call it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PemText {
    origin: String,
    text: Secret,
}

// === impl Origin ===

impl Origin {
    /// The text of the setting `name`, or the file beside it, whichever is not empty; the text before the file.
    pub fn new(name: &'static str, text: impl Into<LiveSecret>, file: &str) -> Self {
        let text = text.into();
        if !text.is_empty() {
            Self::Text { name, text }
        } else if file.is_empty() {
            Self::None
        } else {
            Self::File(file.into())
        }
    }

    fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::None | Self::Text { .. } => None,
        }
    }

    fn text(&self) -> Option<&LiveSecret> {
        match self {
            Self::Text { text, .. } => Some(text),
            Self::None | Self::File(_) => None,
        }
    }

    async fn read(
        &self,
        access: &Access,
        texts: &mut std::vec::IntoIter<Secret>,
    ) -> Result<Option<PemText>, PemError> {
        Ok(match self {
            Self::None => None,
            Self::Text { name, .. } => texts.next().map(|text| PemText { origin: (*name).to_owned(), text }),
            Self::File(path) => {
                Some(PemText { origin: path.display().to_string(), text: read_file(path, access).await? })
            }
        })
    }
}

// === impl Origins ===

impl Origins {
    /// The files among them.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.authorities, &self.certificate, &self.key].into_iter().filter_map(Origin::file)
    }

    /// The texts that may change.
    fn texts(&self) -> Vec<&LiveSecret> {
        [&self.authorities, &self.certificate, &self.key].into_iter().filter_map(Origin::text).collect()
    }

    /// Differs after each change of a secret among them.
    pub(crate) fn version(&self) -> u64 {
        version_of(&self.texts())
    }

    /// Calls `visit` with the reference of each secret among them.
    pub(crate) fn visit_references(&self, visit: &mut dyn FnMut(&str)) {
        self.texts().iter().for_each(|text| text.visit_references(visit));
    }

    /// Tells whoever keeps the secrets among them that those of this version cannot be used. Only where they all come from
    /// one path and nothing comes from files: else a certificate and its key change one after the other, and what does not
    /// fit yet may be right.
    pub(crate) fn refused(&self, version: u64) {
        let mut paths = BTreeSet::new();
        self.visit_references(&mut |reference| {
            paths.insert(reference.split('#').next().unwrap_or(reference).to_owned());
        });
        if paths.len() == 1 && self.files().next().is_none() {
            report(&self.texts(), version, LiveSecret::refused);
        }
    }

    /// Reads all of it; secrets of one path in one version.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub async fn read(&self) -> Result<Material, PemError> {
        self.read_versioned().await.1
    }

    /// As [`Self::read`], with the version of the secrets.
    pub(crate) async fn read_versioned(&self) -> (u64, Result<Material, PemError>) {
        let (version, texts) = read_versioned(&self.texts());
        let mut texts = texts.into_iter();
        let reading = async {
            Ok(Material {
                authorities: self.authorities.read(&self.access, &mut texts).await?,
                certificate: self.certificate.read(&self.access, &mut texts).await?,
                key: self.key.read(&self.access, &mut texts).await?,
            })
        };
        (version, reading.await)
    }
}

/// Reads a file completely, with a limit on its size and on the time it takes.
async fn read_file(path: &Path, access: &Access) -> Result<Secret, PemError> {
    let failed = |source| PemError::File { path: path.to_owned(), source };
    let reading = async {
        let mut text = String::new();
        let file = access.open(path).await?;
        file.take(MAX_PEM_BYTES + 1).read_to_string(&mut text).await?;
        let text = Secret::new(text);
        if text.expose().len() as u64 > MAX_PEM_BYTES {
            return Err(io::Error::other("larger than 8 MiB"));
        }
        Ok(text)
    };
    match tokio::time::timeout(READ_TIMEOUT, reading).await {
        Ok(read) => read.map_err(failed),
        Err(_) => Err(failed(io::Error::new(io::ErrorKind::TimedOut, "took longer than 5 s to read"))),
    }
}

// === impl PemText ===

impl PemText {
    /// All certificates, in order; at least one.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, PemError> {
        let certificates: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(self.text.expose().as_bytes()).collect();
        match certificates {
            Ok(certificates) if certificates.is_empty() => Err(self.wrong("holds no certificate")),
            Ok(certificates) => Ok(certificates),
            Err(_) => Err(self.wrong("holds a certificate that cannot be read")),
        }
    }

    /// The first private key: PKCS #8, PKCS #1 or SEC 1.
    pub(crate) fn private_key(&self) -> Result<PrivateKeyDer<'static>, PemError> {
        PrivateKeyDer::from_pem_slice(self.text.expose().as_bytes()).map_err(|_| {
            let hint = if self.text.expose().contains("ENCRYPTED") {
                " (encrypted keys are not supported)"
            } else {
                ""
            };
            self.wrong(&format!("holds no private key that can be read{hint}"))
        })
    }

    pub(crate) fn wrong(&self, message: &str) -> PemError {
        PemError::Content { origin: self.origin.clone(), message: message.to_owned() }
    }
}
