//! The OCI source: an artifact of a registry, published as Flux publishes them. Everything is fetched by digest and checked
//! against it; the archive is unpacked in memory.

mod archive;
mod challenge;
mod cosign;
mod manifest;
mod reference;
mod registry;

use std::fmt;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use self::cosign::Keys;
use self::manifest::Manifest;
use self::reference::{Repository, Wanted, highest};
use self::registry::{Bounds, Registry};
use crate::SourceEnvironment;
use crate::connection::{Connection, Style};
use crate::error::{ErrorClass, Failure, Rejection, SourceError};
use crate::path::{case_collision, normalize_selected};
use crate::settings::{AuthSettings, LimitSettings, OciSettings, SourceSettings};
use crate::snapshot::{
    Files, Notice, NoticeKind, Revision, Snapshot, SourceKind, SourceName, hexadecimal, tree_digest,
};
use crate::source::{BoxFuture, Poll, PollContext, Source, TreeEntry};

/// Parsers of what registries send, for the fuzzer; not part of the interface.
#[doc(hidden)]
pub mod artifact_format {
    pub use super::challenge::{Challenge, parse_challenge, parse_next};

    /// Unpacks an archive with the usual limits; whether it is one.
    #[must_use]
    pub fn unpacks(archive: &[u8]) -> bool {
        super::archive::unpack(archive, &[], &crate::LimitSettings::default()).is_ok()
    }
}

const INTERVAL: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(60);
const FIRST_TIMEOUT: Duration = Duration::from_secs(300);
const USER_AGENT: &str = concat!("Invar/", env!("CARGO_PKG_VERSION"));
/// What `flux push artifact` says about where an artifact comes from.
const CREATED: &str = "org.opencontainers.image.created";
const REVISION: &str = "org.opencontainers.image.revision";

/// An artifact of an OCI registry as a source.
pub struct OciSource {
    name: SourceName,
    shown: String,
    host: Option<String>,
    settings: OciSettings,
    wanted: Wanted,
    paths: Vec<String>,
    limits: LimitSettings,
    interval: Duration,
    timeout: Option<Duration>,
    required: bool,
    /// Identifies the settings, without the keys.
    selection: String,
    registry: Registry,
    /// One poll at a time.
    busy: tokio::sync::Mutex<()>,
}

/// What cannot work about settings.
pub(crate) fn problems(settings: &OciSettings) -> Vec<String> {
    let repository = Repository::new(settings, false).err();
    let wanted = Wanted::new(settings).err();
    repository.into_iter().chain(wanted).map(|failure| failure.message).collect()
}

/// The manifest that the settings name now.
struct Resolved {
    /// As the revision calls it.
    tag: Option<String>,
    digest: String,
    /// Where it had to be read to find its digest.
    manifest: Option<Manifest>,
}

impl fmt::Debug for OciSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OciSource")
            .field("name", &self.name)
            .field("place", &self.shown)
            .finish_non_exhaustive()
    }
}

impl OciSource {
    /// A source by its settings; does no input or output.
    ///
    /// # Errors
    /// [`ErrorClass::Stalled`]: a repository or reference that cannot work.
    pub fn open(settings: &SourceSettings, environment: &SourceEnvironment) -> Result<Self, SourceError> {
        let name = settings.source_name();
        Self::build(settings, environment, name.clone()).map_err(|failure| failure.of(&name))
    }

    fn build(
        settings: &SourceSettings,
        environment: &SourceEnvironment,
        name: SourceName,
    ) -> Result<Self, Failure> {
        let oci = settings.oci.clone().ok_or_else(|| Failure::stalled("the settings have no `oci`"))?;
        let repository = Repository::new(&oci, settings.tls.is_some())?;
        let wanted = Wanted::new(&oci)?;
        let paths: Vec<String> =
            settings.path.iter().map(|path| normalize_selected(path)).collect::<Result<_, Failure>>()?;
        let url = repository.url.clone();
        let connection =
            Connection::with_style(url.clone(), settings, USER_AGENT, environment, Style::Registry)?;
        let identity = settings.auth.as_ref().map_or_else(String::new, AuthSettings::identity);
        let selection = format!("{url} {wanted:?} {paths:?} {identity} {:?}", settings.limits);
        Ok(Self {
            shown: format!("{} {}", repository.shown, wanted.describe()),
            host: url.host_str().map(str::to_owned),
            registry: Registry::new(connection, repository, settings.auth.clone()),
            settings: oci,
            wanted,
            paths,
            limits: settings.limits,
            interval: settings.interval.unwrap_or(INTERVAL),
            timeout: settings.timeout,
            required: !settings.optional,
            selection: hexadecimal(&Sha256::digest(selection)),
            busy: tokio::sync::Mutex::default(),
            name,
        })
    }

    async fn look(&self, previous: Option<&Snapshot>, context: &PollContext) -> Result<Poll, Failure> {
        let _busy = self.busy.lock().await;
        let bounds = Bounds { deadline: context.deadline, now: context.now };
        let keys = self.keys().await?;
        let selection = match &keys {
            Some(keys) => format!("{} {}", self.selection, keys.digest()),
            None => self.selection.clone(),
        };
        let held = previous
            .filter(|snapshot| snapshot.kind == SourceKind::Oci && snapshot.selection == selection)
            .map(|snapshot| &snapshot.revision);
        let Some(resolved) = self.resolve(held, bounds).await? else { return Ok(Poll::Unchanged) };
        let text = match &resolved.tag {
            Some(tag) => format!("{tag}@{}", resolved.digest),
            None => resolved.digest.clone(),
        };
        if held.is_some_and(|held| held.text == text) {
            return Ok(Poll::Unchanged);
        }
        let what = format!("{} {text}", self.settings.repository);
        let signer = match &keys {
            Some(keys) => Some(self.signer(keys, &resolved.digest, &what, bounds).await?),
            None => None,
        };
        let manifest = match resolved.manifest {
            Some(manifest) => manifest,
            None => self.registry.manifest(&resolved.digest, bounds).await?.1,
        };
        let (manifest, files) = self.unpack(manifest, self.paths.clone(), bounds).await?;
        let digest = tree_digest(&files);
        let mut notices = self.notices();
        notices.extend(case_collision(&files)?);
        let annotation = |name: &str| {
            let text = manifest.annotations.get(name)?;
            Some(text.chars().filter(|c| !c.is_control()).take(200).collect::<String>())
        };
        let created = annotation(CREATED).and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let content = Snapshot::of_content(self.name.clone(), SourceKind::Oci, digest, files, context.now);
        Ok(Poll::Changed(Box::new(Snapshot {
            revision: Revision {
                text,
                commit: None,
                reference: resolved.tag,
                object: Some(resolved.digest),
                pinned: None,
            },
            paths: self.paths.clone(),
            selection,
            subject: annotation(REVISION),
            signer,
            committed_at: created.and_then(|created| SystemTime::try_from(created).ok()),
            notices,
            ..content
        })))
    }

    /// The files at `paths` of an artifact, and the manifest that they are really behind.
    async fn unpack(
        &self,
        manifest: Manifest,
        paths: Vec<String>,
        bounds: Bounds,
    ) -> Result<(Manifest, Files), Failure> {
        // An index is signed as a whole, and names what is in it by digest.
        let manifest = match manifest.single()? {
            Some(one) => self.registry.manifest(&one.digest, bounds).await?.1,
            None => manifest,
        };
        let blob = self.registry.blob(manifest.content()?, self.limits.pack, bounds).await?;
        let limits = self.limits;
        let unpacked = tokio::task::spawn_blocking(move || archive::unpack(&blob, &paths, &limits)).await;
        let files = unpacked.unwrap_or_else(|_| Err(Failure::transient("unpacking was interrupted")))?;
        Ok((manifest, files))
    }

    /// What is at a path of the artifact that a snapshot is a selection of: what it refers to need not be selected.
    async fn read_of(
        &self,
        snapshot: &Snapshot,
        path: &str,
        bounds: Bounds,
    ) -> Result<Option<TreeEntry>, Failure> {
        let below = |folder: &String| {
            let rest = path.strip_prefix(folder.as_str());
            folder.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let selected = self.paths.is_empty() || self.paths.iter().any(below);
        let Some(digest) = snapshot.revision.object.as_ref().filter(|_| !selected) else {
            return Ok(TreeEntry::among(&snapshot.files, path));
        };
        let (_, manifest) = self.registry.manifest(digest, bounds).await?;
        match self.unpack(manifest, vec![path.to_owned()], bounds).await {
            Ok((_, files)) => Ok(TreeEntry::among(&files, path)),
            Err(failure) if failure.class == ErrorClass::Rejected(Rejection::EmptySource) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// What the settings name now; `None` where that is known to be what is `held`.
    async fn resolve(&self, held: Option<&Revision>, bounds: Bounds) -> Result<Option<Resolved>, Failure> {
        let tag = match &self.wanted {
            Wanted::Digest(digest, tag) => {
                if held.and_then(|held| held.object.as_ref()) == Some(digest) {
                    return Ok(None);
                }
                let (tag, digest) = (tag.clone(), digest.clone());
                return Ok(Some(Resolved { tag, digest, manifest: None }));
            }
            Wanted::Range(range, text) => {
                let tags = self.registry.tags(bounds).await?;
                let Some(tag) = highest(range, tags.iter().map(String::as_str)) else {
                    let message = format!("no tag of {} is a version in `{text}`", self.settings.repository);
                    return Err(Failure::new(ErrorClass::NotFound, message));
                };
                // Versions are not moved; who wants to see it if they are follows the tag.
                if held.and_then(|held| held.reference.as_deref()) == Some(tag) {
                    return Ok(None);
                }
                tag.to_owned()
            }
            Wanted::Tag(tag) => tag.clone(),
        };
        Ok(Some(match self.registry.resolve(&tag, bounds).await? {
            Some(digest) => Resolved { tag: Some(tag), digest, manifest: None },
            None => {
                let (digest, manifest) = self.registry.manifest(&tag, bounds).await?;
                Resolved { tag: Some(tag), digest, manifest: Some(manifest) }
            }
        }))
    }

    /// The keys as they are now; `None` where nobody has to have signed.
    async fn keys(&self) -> Result<Option<Keys>, Failure> {
        if self.settings.cosign.is_empty() {
            return Ok(None);
        }
        let paths = self.settings.cosign.clone();
        let loaded = tokio::task::spawn_blocking(move || Keys::load(&paths)).await;
        loaded.unwrap_or_else(|_| Err(Failure::transient("reading the keys was interrupted"))).map(Some)
    }

    async fn signer(&self, keys: &Keys, digest: &str, what: &str, bounds: Bounds) -> Result<String, Failure> {
        let manifest = match self.registry.manifest(&cosign::tag(digest), bounds).await {
            Ok((_, manifest)) => manifest,
            Err(failure) if failure.class == ErrorClass::NotFound => return Err(cosign::unsigned(what)),
            Err(failure) => return Err(failure),
        };
        for layer in manifest.signatures() {
            let Some(signature) = layer.annotations.get(cosign::SIGNATURE) else { continue };
            let payload = self.registry.blob(layer, cosign::PAYLOAD_LIMIT, bounds).await?;
            if let Some(signer) = keys.verify(digest, &payload, signature) {
                return Ok(signer.to_owned());
            }
        }
        Err(cosign::unsigned(what))
    }

    fn notices(&self) -> Vec<Notice> {
        if !self.registry.is_insecure() {
            return Vec::new();
        }
        let message = format!("{} is reached without encryption", self.settings.repository);
        vec![Notice { kind: NoticeKind::InsecureTransport, message }]
    }
}

impl Source for OciSource {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Oci
    }

    fn description(&self) -> String {
        self.shown.clone()
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
            let result = context.bound(&self.settings.repository, self.look(previous, context)).await;
            match result {
                Ok(poll) => Ok(poll),
                Err(failure) => Err(self.registry.without_credentials(failure).await.of(&self.name)),
            }
        })
    }

    fn read<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        path: &'a str,
        context: &'a PollContext,
    ) -> BoxFuture<'a, Result<Option<TreeEntry>, SourceError>> {
        Box::pin(async move {
            let bounds = Bounds { deadline: context.deadline, now: context.now };
            let read = context.bound(&self.settings.repository, self.read_of(snapshot, path, bounds)).await;
            match read {
                Ok(entry) => Ok(entry),
                Err(failure) => Err(self.registry.without_credentials(failure).await.of(&self.name)),
            }
        })
    }

    fn is_atomic(&self) -> bool {
        true
    }

    fn required(&self) -> bool {
        self.required
    }

    fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }
}
