//! Fetches and watches the modules that `import.file`, `import.git` and `import.http` blocks name. The engine says what a
//! configuration imports and takes contents as data; this room gets them, with the schedules, limits and error classes
//! that sources of configuration have: a module is a source of its own, polled beside them.

mod git;
mod host_file;
mod http;
mod unusable;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use invar_engine::modules::{
    ImportArguments, ImportRequest, ModuleContent, ModuleFile, ModuleKey, ModuleKind,
};
use invar_policy::Access;
use invar_sources::{
    ErrorClass, Poller, PollerOptions, ReconcileError, Snapshot, Source, SourceEnvironment, SourceError,
    SourceName, SourceStatus, SourcesState,
};
use invar_syntax::arguments::Arguments as _;
use invar_syntax::evaluate::EvaluatedBody;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::remotecfg::{RemoteConfigArguments, RemoteConfigSource, RemoteConfigVerdict, collector_id};

/// The version that servers are told.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Polling faster than this only burns CPU.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// Fetches and watches a changing set of modules.
pub struct ModuleLoader {
    poller: Poller,
    environment: SourceEnvironment,
    followed: Mutex<Vec<Followed>>,
    remote_config: Mutex<Option<Arc<RemoteConfigSource>>>,
}

struct Followed {
    request: ImportRequest,
    /// Where it is, if on this host.
    path: PathBuf,
    source: Arc<dyn Source>,
}

/// A module as it is now.
#[derive(Clone, Debug)]
pub struct LoadedModule {
    /// Which one.
    pub key: ModuleKey,
    /// The kind of import.
    pub kind: ModuleKind,
    /// How it is doing.
    pub status: SourceStatus,
    /// Whether one change of it is whole.
    pub atomic: bool,
    /// What it holds; none before the first fetch.
    pub content: Option<Arc<ModuleContent>>,
}

impl fmt::Debug for ModuleLoader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModuleLoader").field("poller", &self.poller).finish_non_exhaustive()
    }
}

impl Followed {
    /// Whether it is what `request` asks for, to the last setting.
    fn is(&self, request: &ImportRequest) -> bool {
        self.request.key == request.key
            && self.request.module_path == request.module_path
            && self.request.arguments == request.arguments
            && self.request.access == request.access
    }
}

impl ModuleLoader {
    /// Nothing is followed yet. What the loader does at a time counts together with what the poller `beside` it does.
    /// Must be called within a runtime.
    #[must_use]
    pub fn new(beside: &Poller, environment: SourceEnvironment) -> Self {
        let poller = beside.start_beside(PollerOptions::new(Vec::new()));
        Self { poller, environment, followed: Mutex::default(), remote_config: Mutex::default() }
    }

    /// Follows the modules of these imports and no others from now on; those that are followed already are not disturbed.
    pub fn follow(&self, requests: &[ImportRequest]) {
        let mut followed = self.followed.lock();
        let same = followed.len() == requests.len()
            && followed.iter().zip(requests).all(|(followed, request)| followed.is(request));
        if same {
            return;
        }
        let mut before = std::mem::take(&mut *followed);
        let mut names: Vec<SourceName> = Vec::new();
        for request in requests {
            // An import that only moved within its file, or is in another one, is the same module.
            let known = before.iter().position(|followed| followed.is(request));
            let (path, source) = match known {
                Some(index) => {
                    let known = before.swap_remove(index);
                    (known.path, known.source)
                }
                None => {
                    let path = host_path(request);
                    let source = self.open(request, &path, free_name(request, &names, &before));
                    (path, source)
                }
            };
            names.push(source.name().clone());
            followed.push(Followed { request: request.clone(), path, source });
        }
        self.poller.follow(followed.iter().map(|followed| Arc::clone(&followed.source)).collect());
    }

    fn open(&self, request: &ImportRequest, path: &Path, name: SourceName) -> Arc<dyn Source> {
        let access = &request.access;
        let opened = match &request.arguments {
            ImportArguments::File(file) => {
                host_file::open(&name, path, file, Path::new(&request.module_path), access)
            }
            ImportArguments::Git(git) => git::open(&name, git, &self.environment, access),
            ImportArguments::Http { request, client } => {
                http::open(&name, request, client.as_deref(), access)
            }
            ImportArguments::RemoteConfig(body) => self.open_remote_config(&name, body, access),
        };
        opened.unwrap_or_else(|error| unusable::source(&name, request.kind(), error.message, error.help))
    }

    fn open_remote_config(
        &self,
        name: &SourceName,
        body: &EvaluatedBody,
        access: &Access,
    ) -> Result<Arc<dyn Source>, SourceError> {
        let refused = |message: String| SourceError {
            class: ErrorClass::Stalled,
            message,
            help: None,
            source_name: name.clone(),
        };
        let mut errors = Vec::new();
        let arguments = RemoteConfigArguments::decode(body, &mut errors)
            .ok_or_else(|| refused(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
        let id = match arguments.id.is_empty() {
            true => collector_id(&self.environment.state_directory, VERSION)
                .map_err(|error| refused(format!("the identifier of this agent cannot be kept: {error}")))?,
            false => String::new(),
        };
        let source = RemoteConfigSource::new(name.clone(), arguments, &id, VERSION, access.clone())
            .map_err(refused)?;
        let source = Arc::new(source);
        *self.remote_config.lock() = Some(Arc::clone(&source));
        Ok(source)
    }

    /// Tells the server of `remotecfg`, if there is one, what became of what it sent last.
    pub fn report_remote_config(&self, verdict: RemoteConfigVerdict) {
        if let Some(source) = &*self.remote_config.lock() {
            source.reporter().report(verdict);
        }
    }

    /// All modules that are followed, as they are now.
    #[must_use]
    pub fn modules(&self) -> Vec<LoadedModule> {
        let followed = self.followed.lock();
        let state = self.poller.state();
        let loaded = |followed: &Followed| {
            let state = state.get(followed.source.name())?;
            Some(LoadedModule {
                key: followed.request.key.clone(),
                kind: followed.request.kind(),
                status: state.status.clone(),
                atomic: state.atomic,
                content: state.snapshot.as_deref().map(|snapshot| Arc::new(content(followed, snapshot))),
            })
        };
        followed.iter().filter_map(loaded).collect()
    }

    /// The name in statuses of a module that is followed.
    #[must_use]
    pub fn name_of(&self, key: &ModuleKey) -> Option<SourceName> {
        let followed = self.followed.lock();
        let entry = followed.iter().find(|followed| followed.request.key == *key)?;
        Some(entry.source.name().clone())
    }

    /// The poller of the modules, by the names in statuses.
    #[must_use]
    pub fn poller(&self) -> &Poller {
        &self.poller
    }

    /// Notices of every change of [`Self::modules`].
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<SourcesState>> {
        self.poller.subscribe()
    }

    /// Looks at a module now, or at all of them, and waits until they have answered.
    ///
    /// # Errors
    /// No module has that name, or the loader was shut down.
    pub async fn reconcile(&self, name: Option<&str>) -> Result<(), ReconcileError> {
        let names: Vec<SourceName> = name.map(SourceName::new).into_iter().collect();
        self.poller.reconcile_now(&names).await.map(|_| ())
    }

    /// Ends all polling.
    pub async fn shutdown(&self) {
        self.poller.shutdown().await;
        let remote_config = self.remote_config.lock().take();
        if let Some(source) = remote_config {
            source.unregister().await;
        }
    }
}

fn host_path(request: &ImportRequest) -> PathBuf {
    match &request.arguments {
        ImportArguments::File(file) => host_file::path(&request.module_path, &file.filename),
        _ => PathBuf::new(),
    }
}

/// `import.git.net`, with a number where several imports have one label.
fn free_name(request: &ImportRequest, taken: &[SourceName], before: &[Followed]) -> SourceName {
    let plain = match request.kind() {
        ModuleKind::RemoteConfig => request.kind().to_string(),
        kind => format!("{kind}.{}", request.namespace),
    };
    // The same module with other settings keeps its name, and with it what was fetched.
    if let Some(same) = before.iter().find(|followed| followed.request.key == request.key) {
        return same.source.name().clone();
    }
    let is_taken = |name: &str| {
        let kept = before.iter().map(|followed| followed.source.name());
        taken.iter().chain(kept).any(|other| other.as_str() == name)
    };
    let numbered = (2..).map(|number| format!("{plain}-{number}"));
    let free = std::iter::once(plain.clone()).chain(numbered).find(|name| !is_taken(name));
    SourceName::new(free.unwrap_or(plain))
}

/// A snapshot as the content of the module it is of.
fn content(followed: &Followed, snapshot: &Snapshot) -> ModuleContent {
    let Followed { request, path, .. } = followed;
    let revision = snapshot.revision.text.clone();
    let named = |name: &dyn Fn(&str) -> String| {
        snapshot
            .files
            .iter()
            .map(|(path, content)| ModuleFile { name: name(path), content: content.clone() })
            .collect()
    };
    match &request.arguments {
        ImportArguments::Git(git) => {
            let repository = git::shown(&git.repository);
            ModuleContent {
                files: named(&|path| format!("{repository}//{path}")),
                module_path: format!("/@{}", request.key),
                revision,
            }
        }
        ImportArguments::Http { request, .. } => ModuleContent {
            files: named(&|_| http::shown(&request.url)),
            module_path: http::folder(&request.url),
            revision,
        },
        ImportArguments::RemoteConfig(_) => {
            ModuleContent { files: named(&str::to_owned), module_path: String::new(), revision }
        }
        ImportArguments::File(_) => {
            let is_file = path
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| snapshot.files.len() == 1 && snapshot.files.contains_key(name));
            let folder = if is_file { path.parent().unwrap_or(Path::new("")) } else { path };
            let mut files: Vec<ModuleFile> = named(&|name| folder.join(name).display().to_string());
            if !is_file {
                files.retain(|file| file.name.ends_with(".alloy"));
            }
            ModuleContent { files, module_path: folder.display().to_string(), revision }
        }
    }
}
