//! `import.file` of the host: a file, or the `*.alloy` files directly in a folder, watched and polled.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use invar_engine::modules::{FileImport, ImportDetector};
use invar_policy::{Access, Refusal};
use invar_sources::{
    BoxFuture, ErrorClass, FileSource, Poll, PollContext, Snapshot, Source, SourceError, SourceKind,
    SourceName, SourceSettings,
};

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
    module_path: &Path,
    access: &Access,
) -> Result<Arc<dyn Source>, SourceError> {
    let mut settings = SourceSettings::for_file(path);
    settings.name = Some(name.to_string());
    settings.interval = Some(import.poll_frequency.max(SHORTEST_INTERVAL));
    settings.optional = true;
    let source = FileSource::open(&settings)?;
    let source = match import.detector {
        ImportDetector::Fsnotify => source,
        ImportDetector::Poll => source.polled_only(),
    };
    if !access.restricts_files() {
        return Ok(Arc::new(source));
    }
    let (path, module_path) = (path.to_owned(), module_path.to_owned());
    Ok(Arc::new(Within { inner: source, path, module_path, access: access.clone() }))
}

/// A file that is read only while it lies where those who import it may read.
#[derive(Debug)]
struct Within {
    inner: FileSource,
    path: PathBuf,
    module_path: PathBuf,
    access: Access,
}

impl Within {
    /// What lies beside the files that import it, on this host, they have brought themselves.
    fn may_read(path: &Path, module_path: &Path, access: &Access) -> Result<(), Refusal> {
        let beside = || Some(path.canonicalize().ok()?.starts_with(module_path.canonicalize().ok()?));
        if module_path.is_absolute() && beside() == Some(true) {
            return Ok(());
        }
        access.file(path)?;
        // A link in a folder leads somewhere, too.
        let modules = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut modules =
            modules.filter(|path| path.extension().is_some_and(|extension| extension == "alloy"));
        modules.try_for_each(|path| access.file(&path))
    }

    async fn check(&self) -> Result<(), SourceError> {
        let (path, module_path, access) = (self.path.clone(), self.module_path.clone(), self.access.clone());
        let checked = tokio::task::spawn_blocking(move || Self::may_read(&path, &module_path, &access)).await;
        let error = |message: String, help: Option<String>| SourceError {
            class: ErrorClass::Stalled,
            message,
            help,
            source_name: self.inner.name().clone(),
        };
        match checked {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refusal)) => Err(error(refusal.message, Some(refusal.help))),
            Err(panic) => Err(error(panic.to_string(), None)),
        }
    }
}

impl Source for Within {
    fn name(&self) -> &SourceName {
        self.inner.name()
    }

    fn kind(&self) -> SourceKind {
        self.inner.kind()
    }

    fn description(&self) -> String {
        self.inner.description()
    }

    fn interval(&self) -> Duration {
        self.inner.interval()
    }

    fn timeout(&self, first: bool) -> Duration {
        self.inner.timeout(first)
    }

    fn poll<'a>(
        &'a self,
        previous: Option<&'a Snapshot>,
        context: &'a PollContext,
    ) -> BoxFuture<'a, Result<Poll, SourceError>> {
        Box::pin(async move {
            self.check().await?;
            let polled = self.inner.poll(previous, context).await?;
            // What was read counts only if it still lies there.
            self.check().await?;
            Ok(polled)
        })
    }

    fn is_atomic(&self) -> bool {
        self.inner.is_atomic()
    }

    fn required(&self) -> bool {
        self.inner.required()
    }
}
