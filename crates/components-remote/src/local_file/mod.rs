//! `local.file`: exports the content of a file and keeps it current. A file that can be read when the component is prepared
//! and no longer later leaves its last content in place.

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use invar_blocks::{Detector, FileWatch};
use invar_engine::{
    Component, ExportContext, Health, InstanceContext, PrepareError, RunContext, RunError, StateContext,
};
use invar_policy::{Access, Refusal};
use invar_syntax::arguments::{Arguments, Exports};
use invar_syntax::schema::Stability;
use invar_syntax::secret::{OptionalSecret, Secret};
use parking_lot::Mutex;
use tokio::io::AsyncReadExt as _;

/// Content is held in memory, compared and evaluated: what is larger is not meant for this.
const MAX_BYTES: u64 = 16 << 20;
/// How long a read may take (the file may lie on a network file system).
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Polling faster than this only burns CPU.
const MIN_POLL: Duration = Duration::from_millis(100);

/// The component type.
#[derive(Debug)]
pub struct LocalFile;

/// What the block says.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct LocalFileArguments {
    /// Path of the file to read; at most 16 MiB of it.
    #[argument(required, names = "file")]
    pub filename: String,
    /// How changes are noticed: `fsnotify` or `poll`.
    #[argument(default = "\"fsnotify\"", type_note = "filedetector.Detector")]
    pub detector: Detector,
    /// How often the file is read in any case.
    #[argument(default = "\"1m\"")]
    pub poll_frequency: Duration,
    /// Whether the content is secret.
    pub is_secret: bool,
}

/// What other blocks see.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct LocalFileExports {
    /// The content, a secret where `is_secret` is set.
    pub content: OptionalSecret,
}

/// What was read last, from which file; outlives configurations.
#[derive(Debug, Default)]
pub struct Instance {
    last: Mutex<Option<(PathBuf, Secret)>>,
}

/// The arguments and what the file held when they were prepared.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    access: Access,
    detector: Detector,
    poll_frequency: Duration,
    is_secret: bool,
    content: Secret,
}

impl Component for LocalFile {
    const NAME: &'static str = "local.file";
    const STABILITY: Stability = Stability::GenerallyAvailable;
    const SUMMARY: &'static str = "Exports the content of a file on this host and keeps it current.";

    type Arguments = LocalFileArguments;
    type Exports = LocalFileExports;
    type Instance = Instance;
    type State = State;

    fn check(arguments: &Self::Arguments, check: &mut invar_engine::Check) {
        if arguments.filename.is_empty() {
            check.error("filename", "cannot be empty");
        }
        if arguments.poll_frequency.is_zero() {
            check.error("poll_frequency", "must be greater than 0");
        }
    }

    fn instance(_arguments: &Self::Arguments, _context: &InstanceContext) -> Result<Instance, PrepareError> {
        Ok(Instance::default())
    }

    async fn state(
        arguments: Arc<Self::Arguments>,
        instance: Arc<Instance>,
        context: StateContext,
    ) -> Result<State, PrepareError> {
        let path = PathBuf::from(&arguments.filename);
        let access = context.access().clone();
        let content = match read(&path, &access).await {
            Ok(content) => content,
            Err(error) if Refusal::behind(&error).is_some() => {
                // What may not be read any more is not exported any more either.
                return Err(PrepareError::io(path.display(), &error));
            }
            // A component that runs already goes on with what it has; its task tells that the file is gone.
            Err(error) => match instance.last_of(&path) {
                Some(content) if context.previous::<Self>().is_some() => content,
                _ => {
                    return Err(PrepareError::io(path.display(), &error)
                        .with_help("the file must be readable when the configuration is applied; afterwards it may come and go"));
                }
            },
        };
        Ok(State {
            path,
            access,
            detector: arguments.detector,
            poll_frequency: arguments.poll_frequency.max(MIN_POLL),
            is_secret: arguments.is_secret,
            content,
        })
    }

    fn exports(_instance: &Instance, state: &State, _context: &ExportContext) -> LocalFileExports {
        state.exports(&state.content)
    }

    async fn run(instance: Arc<Instance>, context: RunContext<Self>) -> Result<(), RunError> {
        loop {
            let state = Arc::clone(context.enter().state());
            tokio::select! {
                () = context.stopped() => return Ok(()),
                () = context.changed() => {}
                () = follow(&instance, &state, &context) => {}
            }
        }
    }
}

/// Keeps the exports equal to the file's content until it is dropped.
async fn follow(instance: &Instance, state: &State, context: &RunContext<LocalFile>) {
    loop {
        // A watch is made anew before each look: directories may have been replaced together with what was watched.
        let watch = match state.detector {
            Detector::Fsnotify => FileWatch::file(&state.path).await,
            Detector::Poll => FileWatch::none(),
        };
        let polled = tokio::time::sleep(state.poll_frequency);
        tokio::pin!(polled);
        loop {
            refresh(instance, state, context, watch.problem()).await;
            tokio::select! {
                () = watch.changed() => {
                    // Where the link leads may have changed with it.
                    if tokio::fs::symlink_metadata(&state.path).await.is_ok_and(|metadata| metadata.is_symlink()) {
                        refresh(instance, state, context, watch.problem()).await;
                        break;
                    }
                }
                () = &mut polled => break,
            }
        }
    }
}

async fn refresh(
    instance: &Instance,
    state: &State,
    context: &RunContext<LocalFile>,
    unwatched: Option<&str>,
) {
    match read(&state.path, &state.access).await {
        Ok(content) => {
            context.set_exports(&state.exports(&content));
            *instance.last.lock() = Some((state.path.clone(), content));
            match unwatched {
                None => context.set_health(Health::healthy("file read")),
                Some(why) => context
                    .set_health(Health::healthy(format!("file read; changes are only polled for: {why}"))),
            }
        }
        Err(error) => {
            let message = format!("{}: {error}; the content read last stays in use", state.path.display());
            context.set_health(Health::unhealthy(message));
        }
    }
}

async fn read(path: &Path, access: &Access) -> io::Result<Secret> {
    let reading = async {
        let mut content = Vec::new();
        let file = access.open(path).await?;
        file.take(MAX_BYTES + 1).read_to_end(&mut content).await?;
        if content.len() as u64 > MAX_BYTES {
            return Err(io::Error::other("larger than 16 MiB"));
        }
        let content = String::from_utf8(content).map_err(|_| io::Error::other("not UTF-8 text"))?;
        Ok(Secret::new(content))
    };
    match tokio::time::timeout(READ_TIMEOUT, reading).await {
        Ok(read) => read,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "took longer than 10 s to read")),
    }
}

// === impl Instance ===

impl Instance {
    fn last_of(&self, path: &Path) -> Option<Secret> {
        self.last.lock().as_ref().filter(|(last, _)| last == path).map(|(_, content)| content.clone())
    }
}

// === impl State ===

impl State {
    fn exports(&self, content: &Secret) -> LocalFileExports {
        let content = if self.is_secret {
            OptionalSecret::Secret(content.clone())
        } else {
            OptionalSecret::Plain(content.expose().to_owned())
        };
        LocalFileExports { content }
    }
}
