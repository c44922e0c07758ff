//! The files of a folder and of the folders in it, as far as configuration goes, within the bounds of a source.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use invar_sources::LimitSettings;

/// The deepest folder.
const DEPTH: usize = 64;

/// What is read of a folder.
pub(super) struct Walk {
    limits: LimitSettings,
    bytes: u64,
    pub(super) files: BTreeMap<String, Bytes>,
}

impl Walk {
    pub(super) fn new() -> Self {
        Self { limits: LimitSettings::default(), bytes: 0, files: BTreeMap::new() }
    }

    /// Reads what is in `folder` under the names `below/…` (`below` empty for the root); with `deep`, all folders too.
    pub(super) fn read(
        &mut self,
        folder: &Path,
        below: &str,
        deep: bool,
        depth: usize,
    ) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        if depth > DEPTH {
            return Err(format!("{}: more than {DEPTH} folders deep", folder.display()));
        }
        let mut entries = std::fs::read_dir(folder)
            .and_then(|entries| entries.collect::<Result<Vec<_>, _>>())
            .map_err(failed)?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| *name != ".git") else { continue };
            let path = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
            let Ok(metadata) = std::fs::metadata(entry.path()) else { continue };
            if metadata.is_dir() && deep {
                self.read(&entry.path(), &path, true, depth + 1)?;
            } else if metadata.is_file() && (deep || is_configuration(name)) {
                self.file(&entry.path(), path, metadata.len())?;
            }
        }
        Ok(())
    }

    fn file(&mut self, from: &Path, path: String, size: u64) -> Result<(), String> {
        self.bytes += size;
        let limits = &self.limits;
        if size > limits.file || self.bytes > limits.bytes || self.files.len() >= limits.files {
            let (files, bytes) = (limits.files, limits.bytes);
            return Err(format!(
                "{}: too much for a configuration (at most {files} files, {} bytes each, {bytes} in all)",
                from.display(),
                limits.file
            ));
        }
        let content = std::fs::read(from).map_err(|error| format!("{}: {error}", from.display()))?;
        self.files.insert(path, content.into());
        Ok(())
    }
}

fn is_configuration(name: &str) -> bool {
    name == invar_rollout::VARIABLES_FILE || Path::new(name).extension().is_some_and(|end| end == "alloy")
}
