//! `import.file` of the host: a file, or the `*.alloy` files directly in a folder, watched and polled.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use invar_engine::modules::{FileImport, ImportDetector};
use invar_sources::{FileSource, Source, SourceError, SourceName, SourceSettings};

use super::SHORTEST_INTERVAL;

/// Where a file is that an import names. A relative name begins at the folder of what imports it or, if it is not there but
/// in the working directory, as Alloy reads it, at that one.
pub(super) fn path(module_path: &str, filename: &str) -> PathBuf {
    let given = Path::new(filename);
    let of_the_host = !module_path.starts_with("/@") && !module_path.contains("://");
    if given.is_absolute() || module_path.is_empty() || !of_the_host {
        return given.to_path_buf();
    }
    let beside = Path::new(module_path).join(given);
    if !beside.exists() && given.exists() { given.to_path_buf() } else { beside }
}

/// The source of such a file.
pub(super) fn open(
    name: &SourceName,
    path: &Path,
    import: &FileImport,
) -> Result<Arc<dyn Source>, SourceError> {
    let mut settings = SourceSettings::for_file(path);
    settings.name = Some(name.to_string());
    settings.interval = Some(import.poll_frequency.max(SHORTEST_INTERVAL));
    settings.optional = true;
    let source = FileSource::open(&settings)?;
    Ok(match import.detector {
        ImportDetector::Fsnotify => Arc::new(source),
        ImportDetector::Poll => Arc::new(source.polled_only()),
    })
}
