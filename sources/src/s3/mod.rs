//! The S3 source: one object, all objects below a prefix, or those that a manifest names, of S3 or a store that speaks its
//! protocol.
//!
//! A bucket knows no transactions. A prefix is therefore listed before and after it is read, and every object is read on
//! the condition that it is the one that was listed; a manifest says what each of its objects has to hash to. Either way
//! no snapshot mixes two states of the bucket. What the protocol asks of a client is the business of `invar-object-store`.

mod access;
mod by_manifest;
mod catalog;
mod manifest;
mod object;
mod prefix;
mod signature;

use std::time::{Duration, SystemTime};

use invar_object_store::Session;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use self::access::Access;
use self::catalog::{Catalog, Downloaded};
use crate::SourceEnvironment;
use crate::error::{Failure, Rejection, SourceError};
use crate::path::{check_name, normalize_selected};
use crate::settings::{LimitSettings, S3Settings, SignatureSettings, SourceSettings};
use crate::snapshot::{
    Files, Notice, NoticeKind, Revision, Snapshot, SourceKind, SourceName, hexadecimal, tree_digest,
};
use crate::source::{BoxFuture, Poll, PollContext, Source, TreeEntry, is_pipeline};

pub use self::manifest::{Manifest, ManifestError};

const INTERVAL: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(60);
const FIRST_TIMEOUT: Duration = Duration::from_secs(300);
/// How long to wait before each further attempt when the bucket changed while it was read.
const RESTARTS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// Objects of a bucket as a source.
#[derive(Debug)]
pub struct S3Source {
    name: SourceName,
    access: Access,
    mode: Mode,
    signature: Option<SignatureSettings>,
    /// `s3://bucket/key`, for messages.
    place: String,
    description: String,
    host: String,
    paths: Vec<String>,
    limits: LimitSettings,
    /// The most objects that a prefix or a manifest may have.
    objects: usize,
    interval: Duration,
    timeout: Option<Duration>,
    required: bool,
    selection: String,
    memory: Mutex<Memory>,
}

/// What is read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mode {
    Object { key: String, version: Option<String> },
    Prefix { folder: String },
    Manifest { key: String, version: Option<String> },
}

/// What is known of the bucket since the last poll that went well. Only a help: everything is found out again without it.
#[derive(Debug, Default)]
struct Memory {
    /// What there was, by the text of the revision that was read from it.
    catalog: Option<(String, Catalog)>,
    /// The ETag of the object or the manifest, by the same.
    etag: Option<(String, String)>,
    /// The digest of the keys that the manifest was last verified with.
    keys: Option<String>,
    /// The highest version of a manifest that was read, with the text of its revision, whatever became of it.
    highest: Option<(u64, String)>,
}

/// How one attempt ended that did not fail.
enum Attempt {
    /// There is what `previous` shows.
    Unchanged,
    Read(Box<Snapshot>),
    /// The bucket changed meanwhile; what to say if it goes on doing so.
    Stale(Failure),
}

// === impl S3Source ===

impl S3Source {
    /// A source by its settings; does no input or output.
    ///
    /// # Errors
    /// [`crate::ErrorClass::Stalled`]: settings that cannot work.
    pub fn open(settings: &SourceSettings, environment: &SourceEnvironment) -> Result<Self, SourceError> {
        let name = settings.source_name();
        Self::build(settings, environment, name.clone()).map_err(|failure| failure.of(&name))
    }

    fn build(
        settings: &SourceSettings,
        environment: &SourceEnvironment,
        name: SourceName,
    ) -> Result<Self, Failure> {
        let s3 = settings.s3.clone().ok_or_else(|| Failure::stalled("the settings have no `s3`"))?;
        let mode = Mode::of(&s3)?;
        let paths: Result<Vec<String>, Failure> =
            settings.path.iter().map(|path| normalize_selected(path)).collect();
        let paths = paths?;
        if matches!(mode, Mode::Object { .. }) && !paths.is_empty() {
            return Err(Failure::stalled(
                "`path` goes with `s3.prefix` and `s3.manifest`, not with `s3.key`",
            ));
        }
        let file = usize::try_from(settings.limits.file).unwrap_or(usize::MAX);
        let largest = if matches!(mode, Mode::Manifest { .. }) { file.max(manifest::LONGEST) } else { file };
        let access = Access::new(settings, &s3, largest, environment)?;
        let place = format!("s3://{}/{}", s3.bucket, mode.key());
        let endpoint = s3.endpoint.as_ref().map(|endpoint| format!(" at {endpoint}")).unwrap_or_default();
        let objects = s3.objects;
        let mut selection = format!("{place}{endpoint} {mode:?} {paths:?} {:?} {objects}", settings.limits);
        // Added only where present, so that what was read before there were signatures stays what it is.
        if let Some(signature) = &s3.signature {
            selection.push_str(&format!(" {signature:?}"));
        }
        Ok(Self {
            description: format!("{place}{endpoint}"),
            host: access.host(),
            selection: hexadecimal(&Sha256::digest(selection)),
            access,
            mode,
            signature: s3.signature,
            place,
            paths,
            limits: settings.limits,
            objects,
            interval: settings.interval.unwrap_or(INTERVAL),
            timeout: settings.timeout,
            required: !settings.optional,
            memory: Mutex::default(),
            name,
        })
    }

    async fn look(&self, previous: Option<&Snapshot>, context: &PollContext) -> Result<Poll, Failure> {
        let session = self.access.session().await?;
        let previous = previous
            .filter(|snapshot| snapshot.kind == SourceKind::S3 && snapshot.selection == self.selection);
        let mut waits = RESTARTS.iter();
        let mut downloaded = Downloaded::new();
        loop {
            let attempt = match &self.mode {
                Mode::Object { .. } => self.read_object(&session, previous, context).await?,
                Mode::Prefix { .. } => self.read_prefix(&session, previous, &mut downloaded, context).await?,
                Mode::Manifest { .. } => {
                    self.read_manifest(&session, previous, &mut downloaded, context).await?
                }
            };
            match (attempt, waits.next()) {
                (Attempt::Unchanged, _) => return Ok(Poll::Unchanged),
                (Attempt::Read(snapshot), _) => return Ok(Poll::Changed(snapshot)),
                (Attempt::Stale(_), Some(wait)) => tokio::time::sleep(*wait).await,
                (Attempt::Stale(failure), None) => return Err(failure),
            }
        }
    }

    fn snapshot(&self, revision: Revision, files: Files, context: &PollContext) -> Result<Snapshot, Failure> {
        let mut notices: Vec<Notice> = crate::path::case_collision(&files)?.into_iter().collect();
        if self.access.is_insecure() {
            let message = format!("{} is reached without encryption", self.description);
            notices.push(Notice { kind: NoticeKind::InsecureTransport, message });
        }
        if let Some(region) = self.access.learnt_region() {
            let message = format!("{} is in the region `{region}`; set `s3.region`", self.place);
            notices.push(Notice { kind: NoticeKind::Redirected, message });
        }
        let paths = match &self.mode {
            Mode::Object { .. } => files.keys().cloned().collect(),
            _ => self.paths.clone(),
        };
        let content =
            Snapshot::of_content(self.name.clone(), SourceKind::S3, tree_digest(&files), files, context.now);
        Ok(Snapshot { revision, paths, selection: self.selection.clone(), notices, ..content })
    }

    /// Refuses a bucket that has nothing any more, or nothing yet.
    fn empty(&self, what: &str, previous: Option<&Snapshot>) -> Failure {
        let kept = match previous {
            Some(previous) => format!(", where {} were before; those stay in use", previous.files.len()),
            None => String::new(),
        };
        Failure::rejected(Rejection::EmptySource, format!("{} {what}{kept}", self.place))
    }

    /// What is at `path` of the tree that `snapshot` was selected from.
    async fn read_entry(
        &self,
        snapshot: &Snapshot,
        path: &str,
        now: SystemTime,
    ) -> Result<Option<TreeEntry>, Failure> {
        if matches!(self.mode, Mode::Object { .. }) || snapshot.files.contains_key(path) {
            return Ok(TreeEntry::among(&snapshot.files, path));
        }
        let session = self.access.session().await?;
        let catalog = self.catalog_of(&session, snapshot, now).await?;
        let single = catalog.items.contains_key(path).then(|| path.to_owned());
        let below = |name: &&String| catalog::is_at(name, path) && name.as_str() != path;
        let exists = path.is_empty() || catalog.items.keys().any(|name| below(&name));
        let own = |name: &&String| {
            let rest = if path.is_empty() { Some(name.as_str()) } else { name.get(path.len() + 1..) };
            below(name) && rest.is_some_and(|rest| !rest.contains('/') && is_pipeline(rest))
        };
        let wanted: Vec<String> = match &single {
            Some(single) => vec![single.clone()],
            None => catalog.items.keys().filter(own).cloned().collect(),
        };
        catalog.check_limits(&wanted, &self.limits)?;
        let read = self.download(&session, &catalog, &wanted, Some(snapshot), &mut Downloaded::new()).await?;
        let files = read.map_err(|stale| {
            Failure::transient(format!("{} changed meanwhile: {}", self.place, stale.message))
        })?;
        if let Some(single) = single {
            return Ok(files.get(&single).cloned().map(TreeEntry::File));
        }
        let name =
            |file: String| file.rsplit_once('/').map_or_else(|| file.clone(), |(_, name)| name.to_owned());
        let folder = files.into_iter().map(|(file, content)| (name(file), content)).collect();
        Ok(exists.then_some(TreeEntry::Folder(folder)))
    }

    /// The catalog that `snapshot` was read by; from memory, or made again if the bucket is still the same.
    async fn catalog_of(
        &self,
        session: &Session<'_>,
        snapshot: &Snapshot,
        now: SystemTime,
    ) -> Result<Catalog, Failure> {
        let text = &snapshot.revision.text;
        if let Some((of, catalog)) = &self.memory.lock().catalog
            && of == text
        {
            return Ok(catalog.clone());
        }
        let (of, catalog) = match &self.mode {
            Mode::Manifest { .. } => {
                let keys = self.keys().await?;
                let fetched = self.fetch_manifest(session, None, keys.as_ref(), now).await?;
                let fetched =
                    fetched.ok_or_else(|| Failure::transient("a read without a condition met one"))?;
                let text = manifest::revision(fetched.manifest.version, &fetched.digest);
                (text, self.catalog_of_manifest(&fetched.manifest)?)
            }
            Mode::Prefix { folder } => {
                let catalog = self.list(session, folder).await?;
                (catalog.revision(), catalog)
            }
            Mode::Object { .. } => return Err(Failure::stalled("one object has no others beside it")),
        };
        if of != *text {
            return Err(Failure::transient(format!("{} has another revision by now", self.place)));
        }
        self.memory.lock().catalog = Some((of, catalog.clone()));
        Ok(catalog)
    }
}

impl Source for S3Source {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn kind(&self) -> SourceKind {
        SourceKind::S3
    }

    fn description(&self) -> String {
        self.description.clone()
    }

    fn interval(&self) -> Duration {
        self.interval
    }

    fn timeout(&self, first: bool) -> Duration {
        self.timeout.unwrap_or(if first { FIRST_TIMEOUT } else { TIMEOUT })
    }

    fn poll<'a>(
        &'a self,
        previous: Option<&'a Snapshot>,
        context: &'a PollContext,
    ) -> BoxFuture<'a, Result<Poll, SourceError>> {
        Box::pin(async move {
            let looked = context.bound(&self.description, self.look(previous, context)).await;
            looked.map_err(|failure| failure.of(&self.name))
        })
    }

    fn read<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        path: &'a str,
        context: &'a PollContext,
    ) -> BoxFuture<'a, Result<Option<TreeEntry>, SourceError>> {
        Box::pin(async move {
            let read = context.bound(&self.description, self.read_entry(snapshot, path, context.now)).await;
            read.map_err(|failure| failure.of(&self.name))
        })
    }

    /// One object and one manifest are written in one step; a prefix may be in the middle of an upload.
    fn is_atomic(&self) -> bool {
        !matches!(self.mode, Mode::Prefix { .. })
    }

    fn required(&self) -> bool {
        self.required
    }

    fn host(&self) -> Option<&str> {
        Some(&self.host)
    }
}

// === impl Mode ===

impl Mode {
    fn of(s3: &S3Settings) -> Result<Self, Failure> {
        let version = s3.version.clone();
        match (&s3.key, &s3.prefix, &s3.manifest) {
            (Some(key), None, None) => {
                check_key(key, "s3.key")?;
                Ok(Self::Object { key: key.clone(), version })
            }
            (None, None, Some(key)) => {
                check_key(key, "s3.manifest")?;
                Ok(Self::Manifest { key: key.clone(), version })
            }
            (None, Some(prefix), None) => {
                if version.is_some() {
                    return Err(Failure::stalled("`s3.version` goes with `s3.key` and `s3.manifest`"));
                }
                let folder = normalize_selected(prefix)?;
                Ok(Self::Prefix { folder: if folder.is_empty() { folder } else { format!("{folder}/") } })
            }
            _ => Err(Failure::stalled("`s3` says exactly one of `key`, `prefix` and `manifest`")),
        }
    }

    fn key(&self) -> &str {
        match self {
            Self::Object { key, .. } | Self::Manifest { key, .. } => key,
            Self::Prefix { folder } => folder,
        }
    }
}

/// Refuses keys of the settings that cannot be named in a tree of files.
fn check_key(key: &str, setting: &str) -> Result<(), Failure> {
    for name in key.split('/') {
        check_name(name.as_bytes())
            .map_err(|failure| Failure::stalled(format!("`{setting}`: {}", failure.message)))?;
    }
    Ok(())
}
