//! The file source: one file, or the `*.alloy` files of a directory with its `variables.toml`.
//!
//! Files are watched, and polled all the same: a watch only makes a poll come sooner. What is read is
//! read twice until it holds still, so that no half-written file becomes a configuration.

mod read;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::watch as channel;

use self::read::{Reader, Reading};
use self::watch::Watch;
use crate::error::{Failure, SourceError};
use crate::settings::{LimitSettings, SourceSettings};
use crate::snapshot::{Snapshot, SourceKind, SourceName, hexadecimal, tree_digest};
use crate::source::{BoxFuture, Poll, PollContext, Source};

const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long files have to hold still.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How often they may fail to before the poll gives up.
const ATTEMPTS: u32 = 20;

/// A file or directory of this host as a source.
#[derive(Debug)]
pub struct FileSource {
    name: SourceName,
    path: PathBuf,
    allow_insecure_permissions: bool,
    limits: LimitSettings,
    interval: Duration,
    timeout: Duration,
    required: bool,
    selection: String,
    watch: Watch,
    watched: bool,
}

impl FileSource {
    /// A source by its settings; does no input or output.
    ///
    /// # Errors
    /// [`crate::ErrorClass::Stalled`] when the settings name no file.
    pub fn open(settings: &SourceSettings) -> Result<Self, SourceError> {
        let name = settings.source_name();
        let Some(file) = &settings.file else {
            return Err(Failure::stalled("the settings have no `file`").of(&name));
        };
        Ok(Self {
            path: file.path.clone(),
            allow_insecure_permissions: file.allow_insecure_permissions,
            limits: settings.limits,
            interval: settings.interval.unwrap_or(INTERVAL),
            timeout: settings.timeout.unwrap_or(TIMEOUT),
            required: !settings.optional,
            selection: hexadecimal(&Sha256::digest(format!("{file:?} {:?}", settings.limits))),
            watch: Watch::new(),
            watched: true,
            name,
        })
    }

    /// The same source without a watch: changes are seen at the next poll.
    #[must_use]
    pub fn polled_only(mut self) -> Self {
        self.watched = false;
        self
    }

    async fn look(&self, previous: Option<&Snapshot>, context: &PollContext) -> Result<Poll, Failure> {
        let files = self.read_stable().await?;
        let digest = tree_digest(&files);
        let unchanged = previous.is_some_and(|snapshot| {
            snapshot.kind == SourceKind::File
                && snapshot.digest == digest
                && snapshot.selection == self.selection
        });
        if unchanged {
            return Ok(Poll::Unchanged);
        }
        // One file is selected by its name; with a folder, all of it is.
        let own_name = self.path.file_name().and_then(|name| name.to_str());
        let paths = own_name.filter(|name| files.len() == 1 && files.contains_key(*name));
        let paths = paths.map(str::to_owned).into_iter().collect();
        let content = Snapshot::of_content(self.name.clone(), SourceKind::File, digest, files, context.now);
        let selection = self.selection.clone();
        Ok(Poll::Changed(Box::new(Snapshot { paths, selection, ..content })))
    }

    /// Reads until two readings in a row agree. An empty file is believed one reading later than others:
    /// editors that empty a file before they write it are quick, but not that quick.
    async fn read_stable(&self) -> Result<crate::snapshot::Files, Failure> {
        let mut last: Option<Reading> = None;
        let mut agreed = 0;
        for _ in 0..ATTEMPTS {
            let reading = self.read_once().await?;
            if last.as_ref() == Some(&reading) {
                agreed += 1;
                let needed = if reading.has_empty_file() { 2 } else { 1 };
                if agreed >= needed {
                    return Ok(reading.into_files());
                }
            } else {
                agreed = 0;
            }
            // Two readings at once tell whether somebody is writing right now; only if so is it worth waiting.
            if last.is_some() || reading.has_empty_file() || reading.is_recent(DEBOUNCE) {
                tokio::time::sleep(DEBOUNCE).await;
            }
            last = Some(reading);
        }
        Err(Failure::transient(format!("{} does not hold still", self.path.display())))
    }

    async fn read_once(&self) -> Result<Reading, Failure> {
        let reader = Reader {
            path: self.path.clone(),
            limits: self.limits,
            allow_insecure_permissions: self.allow_insecure_permissions,
        };
        let watch = self.watched.then(|| self.watch.clone());
        let read = tokio::task::spawn_blocking(move || {
            // Watched before it is read, so that no change falls in between.
            if let Some(watch) = watch {
                watch.follow(&reader.path);
            }
            reader.read()
        });
        read.await.unwrap_or_else(|_| Err(Failure::transient("reading was interrupted")))
    }
}

impl Source for FileSource {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn kind(&self) -> SourceKind {
        SourceKind::File
    }

    fn description(&self) -> String {
        self.path.display().to_string()
    }

    fn interval(&self) -> Duration {
        self.interval
    }

    fn timeout(&self, _first: bool) -> Duration {
        self.timeout
    }

    fn poll<'a>(
        &'a self,
        previous: Option<&'a Snapshot>,
        context: &'a PollContext,
    ) -> BoxFuture<'a, Result<Poll, SourceError>> {
        Box::pin(async move {
            let looked = tokio::time::timeout_at(context.deadline, self.look(previous, context)).await;
            let result = looked.unwrap_or_else(|_| {
                Err(Failure::transient(format!("reading {} takes too long", self.path.display())))
            });
            result.map_err(|failure| failure.of(&self.name))
        })
    }

    fn module_path(&self, snapshot: &Snapshot) -> String {
        let name = self.path.file_name().and_then(|name| name.to_str());
        let single = snapshot.files.len() == 1 && name.is_some_and(|name| snapshot.files.contains_key(name));
        let folder =
            if single && !self.path.is_dir() { self.path.parent() } else { Some(self.path.as_path()) };
        folder.map(|folder| folder.display().to_string()).unwrap_or_default()
    }

    fn watch(&self) -> Option<channel::Receiver<u64>> {
        self.watched.then(|| self.watch.subscribe())
    }

    fn is_atomic(&self) -> bool {
        false
    }

    fn required(&self) -> bool {
        self.required
    }
}

#[cfg(test)]
mod tests;
