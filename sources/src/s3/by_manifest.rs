//! What a manifest names: the manifest on the condition that it is another one than before, then its objects, each of which
//! has to hash to what the manifest says.

use std::time::{Duration, SystemTime};

use invar_object_store::{Get, Session, StoreError};
use sha2::{Digest as _, Sha256};

use super::catalog::{Catalog, Downloaded, Item, Proof};
use super::manifest::{self, Manifest};
use super::{Attempt, Mode, S3Source, signature};
use crate::error::{Failure, Rejection};
use crate::snapshot::{Revision, Snapshot, hexadecimal};
use crate::source::PollContext;
use crate::units::display_size;
use crate::verify::DetachedKeys;

/// The pause before a manifest and its signature are read once more: they are two objects, and a change of one comes before
/// that of the other.
const SIGNATURE_PAUSE: Duration = Duration::from_secs(2);

/// A manifest as it was read.
pub(super) struct Fetched {
    pub(super) manifest: Manifest,
    /// Of the document.
    pub(super) digest: String,
    /// Who signed it, where that is asked for.
    signer: Option<String>,
    etag: String,
}

impl S3Source {
    /// Reads the manifest; `None` where it is the one that `etag` names.
    pub(super) async fn fetch_manifest(
        &self,
        session: &Session<'_>,
        etag: Option<&str>,
        keys: Option<&DetachedKeys>,
        now: SystemTime,
    ) -> Result<Option<Fetched>, Failure> {
        let Mode::Manifest { key, version } = &self.mode else {
            return Err(Failure::stalled("the source reads no manifest"));
        };
        let get = Get { key, version: version.as_deref(), if_none_match: etag, ..Get::default() };
        let object = match session.get(&get).await {
            Ok(object) => object,
            Err(StoreError::NotModified) if etag.is_some() => return Ok(None),
            Err(error) => return Err(self.access.failure(&self.place, &error)),
        };
        self.refuse_encoding(key, &object)?;
        if object.content.len() > manifest::LONGEST {
            let message = format!("{} is longer than {}", self.place, display_size(manifest::LONGEST as u64));
            return Err(Failure::rejected(Rejection::Limits, message));
        }
        let signer = match keys {
            Some(keys) => Some(self.signer(session, keys, key, &object.content, now).await?),
            None => None,
        };
        let manifest = Manifest::parse(&object.content)
            .map_err(|error| Failure::rejected(Rejection::Shape, format!("{}: {error}", self.place)))?;
        let digest = hexadecimal(&Sha256::digest(&object.content));
        Ok(Some(Fetched { manifest, digest, signer, etag: object.etag }))
    }

    pub(super) fn catalog_of_manifest(&self, manifest: &Manifest) -> Result<Catalog, Failure> {
        if manifest.files.len() > self.objects {
            let message =
                format!("{} names {} files; the limit is {}", self.place, manifest.files.len(), self.objects);
            return Err(Failure::rejected(Rejection::Limits, message));
        }
        let beside =
            self.mode.key().rsplit_once('/').map_or_else(String::new, |(folder, _)| format!("{folder}/"));
        let items = manifest.files.iter().map(|(name, digest)| {
            let key = match &manifest.objects {
                Some(objects) => format!("{beside}{objects}{digest}"),
                None => format!("{beside}{name}"),
            };
            (name.clone(), Item { key, proof: Proof::Digest(digest.clone()) })
        });
        Ok(Catalog { items: items.collect() })
    }

    pub(super) async fn read_manifest(
        &self,
        session: &Session<'_>,
        previous: Option<&Snapshot>,
        downloaded: &mut Downloaded,
        context: &PollContext,
    ) -> Result<Attempt, Failure> {
        let keys = self.keys().await?;
        let trusted = keys.as_ref().map(|keys| keys.digest().to_owned());
        // Under other keys a manifest that is known has to be verified anew, and for that to be read.
        let etag = self.known_etag(previous).filter(|_| self.memory.lock().keys == trusted);
        let mut fetched = self.fetch_manifest(session, etag.as_deref(), keys.as_ref(), context.now).await;
        if fetched.as_ref().is_err_and(signature::is_mismatch) {
            tokio::time::sleep(SIGNATURE_PAUSE).await;
            fetched = self.fetch_manifest(session, None, keys.as_ref(), context.now).await;
        }
        let Some(Fetched { manifest, digest, signer, etag }) = fetched? else {
            return Ok(Attempt::Unchanged);
        };
        self.memory.lock().keys = trusted;
        let text = manifest::revision(manifest.version, &digest);
        if previous.is_some_and(|snapshot| snapshot.revision.text == text) {
            self.memory.lock().etag = Some((text, etag));
            return Ok(Attempt::Unchanged);
        }
        self.check_version(manifest.version, &text, previous)?;
        let catalog = self.catalog_of_manifest(&manifest)?;
        let names = catalog.select(&self.paths);
        if names.is_empty() {
            let what = match self.paths.as_slice() {
                [] => "names no files".to_owned(),
                paths => format!("names no files at {}", paths.join(", ")),
            };
            return Err(self.empty(&what, previous));
        }
        catalog.check_limits(&names, &self.limits)?;
        let files = match self.download(session, &catalog, &names, previous, downloaded).await? {
            Ok(files) => files,
            Err(stale) => {
                let message = format!("{} names what is not there: {}", self.place, stale.message);
                let failure = Failure::new(stale.class, message);
                let help =
                    "upload the objects first and the manifest last; until then what was read last stays";
                return Ok(Attempt::Stale(failure.with_help(help)));
            }
        };
        let mut snapshot = self.snapshot(Revision::named(text.clone()), files, context)?;
        snapshot.signer = signer;
        let mut memory = self.memory.lock();
        memory.highest = memory.highest.take().max(Some((manifest.version, text.clone())));
        memory.catalog = Some((text.clone(), catalog));
        memory.etag = Some((text, etag));
        Ok(Attempt::Read(Box::new(snapshot)))
    }

    /// Refuses an old manifest in place of a newer one, and two of the same version.
    fn check_version(&self, version: u64, text: &str, previous: Option<&Snapshot>) -> Result<(), Failure> {
        let before = previous.map(|snapshot| snapshot.revision.text.clone());
        let before = before.and_then(|text| manifest::version_of(&text).map(|version| (version, text)));
        let Some((highest, of)) = self.memory.lock().highest.clone().max(before) else { return Ok(()) };
        let problem = if version < highest {
            format!("has version {version} after version {highest}")
        } else if version == highest && of != text {
            format!("is another one than before and still has version {version}")
        } else {
            return Ok(());
        };
        Err(Failure::rejected(Rejection::History, format!("{} {problem}", self.place))
            .with_help("give each manifest a higher `version`, also one that goes back to older files"))
    }
}
