//! Manifests: what a revision consists of, by content. A manifest never changes, so that its name
//! in the CAS is its digest; the record beside it carries the verdict, which does.

use invar_engine::modules::ModuleKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::compose::{ComposedFile, Composition, VariableLayers};
use crate::feed::Origin;
use crate::hex;
use crate::module::ComposedModule;
use crate::record::RevisionRecord;

/// What a revision consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Format of this file.
    pub(crate) format: u32,
    /// Digest of the candidate.
    pub(crate) digest: String,
    /// Where the files come from.
    pub(crate) origins: Vec<Origin>,
    /// The files.
    pub(crate) files: Vec<ManifestFile>,
    /// The modules they import.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) modules: Vec<ManifestModule>,
    /// The layers of variables, in order. Older versions wrote none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) variables: Vec<ManifestFile>,
    /// The names of the variables files that were looked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) searched: Vec<String>,
}

/// One module of a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ManifestModule {
    /// Its key.
    pub(crate) key: String,
    /// The kind of import.
    pub(crate) kind: String,
    /// The label of the import block.
    pub(crate) label: String,
    /// Its revision.
    pub(crate) revision: String,
    /// Where relative paths in it begin.
    pub(crate) module_path: String,
    /// Whether the revision text names it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) named: bool,
    /// Its files.
    pub(crate) files: Vec<ManifestModuleFile>,
}

/// One file of a module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ManifestModuleFile {
    /// Name in diagnostics.
    pub(crate) name: String,
    /// Name of its content in the CAS.
    pub(crate) sha256: String,
    /// Bytes.
    pub(crate) size: u64,
}

/// One file of a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ManifestFile {
    /// Name in diagnostics.
    pub(crate) name: String,
    /// Source.
    pub(crate) source: String,
    /// Path in the source.
    pub(crate) path: String,
    /// Name of its content in the CAS.
    pub(crate) sha256: String,
    /// Bytes.
    pub(crate) size: u64,
}

/// `revisions/<sequence>.json`: a record with its manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredRevision {
    /// The record.
    pub(crate) record: RevisionRecord,
    /// Name of the manifest in the CAS.
    pub(crate) manifest_digest: String,
    /// The manifest itself, so that either copy suffices.
    pub(crate) manifest: Manifest,
}

impl Manifest {
    /// The manifest of a composition.
    #[must_use]
    pub(crate) fn of(composition: &Composition, digest: &str) -> Self {
        Self {
            format: super::head::FORMAT,
            digest: digest.to_owned(),
            origins: composition.origins.clone(),
            files: composition.files.iter().map(ManifestFile::of).collect(),
            modules: composition.modules.iter().map(ManifestModule::of).collect(),
            variables: composition.variables.files.iter().map(ManifestFile::of).collect(),
            searched: composition.variables.searched.clone(),
        }
    }

    /// All contents: name in the CAS and size.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = (&str, u64)> {
        let files = self.files.iter().chain(&self.variables).map(|file| (file.sha256.as_str(), file.size));
        let modules = self.modules.iter().flat_map(|module| &module.files);
        files.chain(modules.map(|file| (file.sha256.as_str(), file.size)))
    }

    /// The bytes that are stored, and their name.
    ///
    /// # Panics
    /// Never: the type has no map with keys that are not text.
    #[must_use]
    pub(crate) fn encode(&self) -> (String, Vec<u8>) {
        let bytes = serde_json::to_vec(self).expect("a manifest is plain data");
        (sha256(&bytes), bytes)
    }

    /// The composition, with contents from `read`.
    pub(crate) fn restore<E>(
        &self,
        mut read: impl FnMut(&str) -> Result<bytes::Bytes, E>,
    ) -> Result<Composition, E> {
        let mut restored = |files: &[ManifestFile]| {
            let composed = |file: &ManifestFile| {
                Ok(ComposedFile {
                    name: file.name.clone(),
                    source: file.source.clone(),
                    path: file.path.clone(),
                    content: read(&file.sha256)?,
                })
            };
            files.iter().map(composed).collect::<Result<Vec<_>, E>>()
        };
        let files = restored(&self.files)?;
        let variables = VariableLayers { files: restored(&self.variables)?, searched: self.searched.clone() };
        let mut modules = Vec::with_capacity(self.modules.len());
        for module in &self.modules {
            modules.push(module.restore(&mut read)?);
        }
        Ok(Composition { origins: self.origins.clone(), files, modules, variables })
    }
}

impl ManifestFile {
    fn of(file: &ComposedFile) -> Self {
        Self {
            name: file.name.clone(),
            source: file.source.clone(),
            path: file.path.clone(),
            sha256: sha256(&file.content),
            size: file.content.len() as u64,
        }
    }
}

impl ManifestModule {
    fn of(module: &ComposedModule) -> Self {
        Self {
            key: module.key.as_str().to_owned(),
            kind: module.kind.clone(),
            label: module.label.clone(),
            revision: module.revision.clone(),
            module_path: module.module_path.clone(),
            named: module.named,
            files: module
                .files
                .iter()
                .map(|(name, content)| ManifestModuleFile {
                    name: name.clone(),
                    sha256: sha256(content),
                    size: content.len() as u64,
                })
                .collect(),
        }
    }

    /// The module, with contents from `read`.
    pub(crate) fn restore<E>(
        &self,
        mut read: impl FnMut(&str) -> Result<bytes::Bytes, E>,
    ) -> Result<ComposedModule, E> {
        let mut files = Vec::with_capacity(self.files.len());
        for file in &self.files {
            files.push((file.name.clone(), read(&file.sha256)?));
        }
        Ok(ComposedModule {
            key: ModuleKey::new(self.key.as_str()),
            kind: self.kind.clone(),
            label: self.label.clone(),
            revision: self.revision.clone(),
            module_path: self.module_path.clone(),
            named: self.named,
            files,
        })
    }
}

/// Lowercase SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
