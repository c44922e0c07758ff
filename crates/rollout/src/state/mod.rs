//! State on disk: what a start needs to run without any source, whatever moment the last process
//! ended at.
//!
//! ```text
//! LOCK               flock, pid, boot id
//! head-0, head-1     all control state, twice, overwritten in turn (see `head`)
//! journal.log        history only
//! cas/ab/abcdef…     blobs by SHA-256
//! revisions/N.json   records with their manifests (the manifest is a blob as well)
//! ballast            removed when the disk is full, so that the refusal itself can be written down
//! panic-note         left by a panic, read by the next start
//! ```
//!
//! Blobs are written before manifests, manifests before the head. A directory that cannot be written
//! at all makes the agent run from memory.

mod blobs;
mod control;
mod head;
mod journal;
mod manifest;
mod note;
mod open;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use blobs::Blobs;
pub use control::Control;
pub(crate) use control::{Condemnation, IntentMark, Pointer, ProbationMark, shortened};
pub use head::{Head, HeadError, decode_head, encode_head};
use invar_engine::modules::ModuleKey;
use journal::Journal;
pub use journal::decode_journal;
#[cfg(test)]
pub(crate) use manifest::sha256 as manifest_sha256;
pub(crate) use manifest::{Manifest, StoredRevision};
pub use note::PanicNote;
pub use open::OpenError;

use crate::compose::Composition;
use crate::crash::crash_point;
use crate::module::ComposedModule;
use crate::record::{RevisionRecord, Verdict};

/// Rejections and the like that are remembered besides what is kept on disk.
const RECORDS_IN_MEMORY: usize = 200;
/// Bytes of revisions that are kept.
const RETAINED_BYTES: u64 = 64 * 1024 * 1024;
const BALLAST_BYTES: u64 = 16 * 1024 * 1024;

/// The state directory, locked by this process.
#[derive(Debug)]
pub struct StateDirectory {
    root: Option<PathBuf>,
    /// Why nothing is kept on disk.
    memory_only: Option<String>,
    /// Held for its lock.
    _lock: Option<File>,
    heads: Option<[File; 2]>,
    sequence: u64,
    recovered: Recovered,
    blobs: Blobs,
    revisions: BTreeMap<u64, StoredRevision>,
    journal: Option<Journal>,
    /// Records without a manifest: what never ran.
    others: VecDeque<RevisionRecord>,
    next_revision: u64,
    boot_id: String,
    #[cfg(test)]
    pub(crate) faults: std::sync::Arc<crate::crash::Faults>,
}

/// What was found when the directory was opened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recovered {
    /// The newest valid control state.
    pub(crate) control: Option<Control>,
    /// There were heads, and none was valid.
    pub(crate) corrupt: bool,
    /// The previous process left a panic note, with this text.
    pub(crate) panic_note: Option<String>,
    /// Things that a person should hear about.
    pub(crate) remarks: Vec<String>,
}

/// Something could not be made durable.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub(crate) struct PersistError {
    step: &'static str,
    source: io::Error,
}

/// What a head is written for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Boot,
    Up,
    Intent,
    Withdrawn,
    Swapped,
    Committed,
    RolledBack,
    Clean,
    Control,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Boot => "record the start",
            Self::Up => "record that the pipeline is up",
            Self::Intent => "record the intent",
            Self::Withdrawn => "withdraw the intent",
            Self::Swapped => "record the swap",
            Self::Committed => "record the commit",
            Self::RolledBack => "record the rollback",
            Self::Clean => "record the clean stop",
            Self::Control => "record the control state",
        }
    }
}

impl PersistError {
    fn at(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { step, source }
    }
}

impl StateDirectory {
    /// Why the agent runs from memory; `None` when state is kept on disk.
    #[must_use]
    pub fn memory_only(&self) -> Option<&str> {
        self.memory_only.as_deref()
    }

    /// Path of the directory.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// Whether a start can go on with something of an earlier run, so that nothing has to be fetched at once.
    #[must_use]
    pub fn has_committed(&self) -> bool {
        self.revisions.values().any(|stored| stored.record.verdict == Verdict::Committed)
    }

    /// The note that a panic of this process leaves for the next start.
    #[must_use]
    pub fn panic_note(&self) -> PanicNote {
        PanicNote::new(self.root.as_deref())
    }

    pub(crate) fn boot_id(&self) -> &str {
        &self.boot_id
    }

    pub(crate) fn take_recovered(&mut self) -> Recovered {
        std::mem::take(&mut self.recovered)
    }

    /// Overwrites the older head.
    pub(crate) fn write_control(&mut self, control: &Control, step: Step) -> Result<(), PersistError> {
        let written = self.write_head(control).and_then(|()| self.reached(step));
        written.map_err(PersistError::at(step.name()))
    }

    /// Writes a verdict to both heads, one after the other: a torn head never takes it back.
    pub(crate) fn write_verdict(&mut self, control: &Control, step: Step) -> Result<(), PersistError> {
        let written = (|| {
            self.write_head(control)?;
            crash_point!(self, "verdict_in_first_head");
            self.write_head(control)?;
            self.reached(step)
        })();
        written.map_err(PersistError::at(step.name()))
    }

    fn reached(&self, step: Step) -> io::Result<()> {
        match step {
            Step::Boot => crash_point!(self, "boot_written"),
            Step::Up => crash_point!(self, "up_written"),
            Step::Intent => crash_point!(self, "intent_written"),
            Step::Withdrawn => crash_point!(self, "intent_withdrawn"),
            Step::Swapped => crash_point!(self, "swapped_written"),
            Step::Committed => crash_point!(self, "committed_written"),
            Step::RolledBack => crash_point!(self, "rolled_back_written"),
            Step::Clean => crash_point!(self, "clean_written"),
            Step::Control => crash_point!(self, "control_written"),
        }
        Ok(())
    }

    fn write_head(&mut self, control: &Control) -> io::Result<()> {
        #[cfg(test)]
        self.faults.before_head()?;
        let Some(heads) = &self.heads else { return Ok(()) };
        let sequence = self.sequence + 1;
        let bytes = encode_head(&Head { sequence, control: control.clone() }).map_err(io::Error::other)?;
        let file = &heads[usize::from(sequence % 2 == 1)];
        file.write_all_at(&bytes, 0)?;
        file.sync_data()?;
        self.sequence = sequence;
        Ok(())
    }

    /// Stores the contents, the manifest and a pending record of a candidate. Returns the number of its record and the name of its manifest.
    pub(crate) fn store_revision(
        &mut self,
        composition: &Composition,
        digest: &str,
        record: RevisionRecord,
    ) -> Result<(u64, String), PersistError> {
        let manifest = Manifest::of(composition, digest);
        let (manifest_digest, bytes) = manifest.encode();
        let stored = (|| {
            let contents = composition.files.iter().chain(&composition.variables.files);
            let contents = contents.map(|file| &file.content);
            let modules = composition.modules.iter().flat_map(|module| &module.files);
            let contents = contents.chain(modules.map(|(_, content)| content));
            for ((name, _), content) in manifest.blobs().zip(contents) {
                self.put_blob(name, content)?;
            }
            crash_point!(self, "blobs_written");
            self.put_blob(&manifest_digest, &bytes)?;
            crash_point!(self, "manifest_written");
            let sequence = self.next_revision;
            let stored = StoredRevision {
                record: RevisionRecord { sequence, ..record },
                manifest_digest: manifest_digest.clone(),
                manifest,
            };
            self.write_revision(&stored)?;
            crash_point!(self, "record_written");
            self.next_revision = sequence + 1;
            self.revisions.insert(sequence, stored);
            Ok(sequence)
        })();
        match stored {
            Ok(sequence) => Ok((sequence, manifest_digest)),
            Err(error) => {
                self.release_ballast(&error);
                Err(PersistError { step: "store revision", source: error })
            }
        }
    }

    /// Adds a record for content that is stored already: a rollback's generation.
    pub(crate) fn add_generation(
        &mut self,
        manifest: &str,
        record: RevisionRecord,
    ) -> Result<u64, PersistError> {
        let sequence = self.next_revision;
        let known = self.revisions.values().find(|stored| stored.manifest_digest == manifest);
        let Some(known) = known else {
            // The content is gone from the records; it still runs, so that it is only noted.
            self.note(RevisionRecord { sequence, ..record });
            return Ok(sequence);
        };
        let stored = StoredRevision { record: RevisionRecord { sequence, ..record }, ..known.clone() };
        self.next_revision = sequence + 1;
        let written = self.write_revision(&stored);
        self.revisions.insert(sequence, stored);
        written.map_err(PersistError::at("record generation"))?;
        Ok(sequence)
    }

    /// Changes a record, on disk too.
    pub(crate) fn update_record(
        &mut self,
        sequence: u64,
        change: impl FnOnce(&mut RevisionRecord),
    ) -> Result<(), PersistError> {
        let Some(stored) = self.revisions.get_mut(&sequence) else { return Ok(()) };
        change(&mut stored.record);
        let stored = stored.clone();
        self.write_revision(&stored).map_err(PersistError::at("update record"))
    }

    /// Remembers something that never ran; in the journal, where that can be written.
    pub(crate) fn note(&mut self, mut record: RevisionRecord) {
        record.sequence = self.next_revision;
        self.next_revision += 1;
        if let Some(journal) = &mut self.journal {
            #[cfg(test)]
            let writable = self.faults.before_file();
            #[cfg(not(test))]
            let writable: io::Result<()> = Ok(());
            if let Err(error) = writable.and_then(|()| journal.append(&record)) {
                tracing::warn!(%error, "the journal could not be written");
                let full = is_full(&error);
                if full && self.remove_ballast() {
                    // The room that the ballast gave is there for this record.
                    drop(self.journal.as_mut().map(|journal| journal.append(&record)));
                }
            }
        }
        self.others.push_back(record);
        if self.others.len() > RECORDS_IN_MEMORY {
            self.others.pop_front();
        }
    }

    /// All records, newest first.
    pub(crate) fn history(&self) -> Vec<RevisionRecord> {
        let mut records: Vec<RevisionRecord> = self
            .revisions
            .values()
            .map(|stored| stored.record.clone())
            .chain(self.others.iter().cloned())
            .collect();
        records.sort_by_key(|record| std::cmp::Reverse(record.sequence));
        records
    }

    /// Committed revisions, newest first.
    pub(crate) fn committed(&self) -> Vec<&StoredRevision> {
        self.revisions.values().rev().filter(|stored| stored.record.verdict == Verdict::Committed).collect()
    }

    /// Whether `digest` was committed once and is still kept.
    pub(crate) fn is_known_good(&self, digest: &str) -> bool {
        self.revisions
            .values()
            .any(|stored| stored.record.verdict == Verdict::Committed && stored.record.digest == digest)
    }

    /// The content that a module had in the newest committed revision that has it.
    pub(crate) fn find_module(&mut self, key: &ModuleKey) -> Option<ComposedModule> {
        let candidates: Vec<_> = self
            .committed()
            .into_iter()
            .filter_map(|stored| stored.manifest.modules.iter().find(|module| module.key == key.as_str()))
            .cloned()
            .collect();
        candidates.iter().find_map(|module| module.restore(|name| self.blobs.get(name)).ok())
    }

    /// Reads what a pointer names, every byte verified. What one copy of the manifest lost, the other heals.
    pub(crate) fn load(&mut self, manifest_digest: &str) -> Result<Composition, PersistError> {
        let from_blob = self
            .blobs
            .get(manifest_digest)
            .and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::other));
        let manifest: Manifest = match from_blob {
            Ok(manifest) => manifest,
            Err(error) => {
                let stored = self.revisions.values().find(|stored| stored.manifest_digest == manifest_digest);
                let manifest = stored
                    .map(|stored| stored.manifest.clone())
                    .ok_or(error)
                    .map_err(PersistError::at("read manifest"))?;
                let (_, bytes) = manifest.encode();
                if let Err(error) = self.put_blob(manifest_digest, &bytes) {
                    tracing::warn!(%error, "a damaged manifest could not be rewritten");
                }
                manifest
            }
        };
        manifest.restore(|name| self.blobs.get(name)).map_err(PersistError::at("read revision"))
    }

    /// Removes what is past the limits: `keep` revisions and 64 MiB, never one whose record number is in `pinned`.
    pub(crate) fn retain(&mut self, keep: usize, pinned: &BTreeSet<u64>) -> Result<(), PersistError> {
        let mut kept = BTreeSet::new();
        let mut blobs: BTreeSet<String> = BTreeSet::new();
        let mut bytes = 0u64;
        let newest_first: Vec<u64> = self.revisions.keys().rev().copied().collect();
        // What may never go is counted first.
        let (fixed, free): (Vec<u64>, Vec<u64>) =
            newest_first.into_iter().partition(|sequence| pinned.contains(sequence));
        for sequence in fixed.iter().chain(&free) {
            let stored = &self.revisions[sequence];
            let new: Vec<_> = stored.manifest.blobs().filter(|(name, _)| !blobs.contains(*name)).collect();
            let more: u64 = new.iter().map(|(_, size)| size).sum();
            if !pinned.contains(sequence) && (kept.len() >= keep || bytes + more > RETAINED_BYTES) {
                continue;
            }
            bytes += more;
            blobs.extend(new.into_iter().map(|(name, _)| name.to_owned()));
            blobs.insert(stored.manifest_digest.clone());
            kept.insert(*sequence);
        }
        let dropped: Vec<u64> =
            self.revisions.keys().filter(|sequence| !kept.contains(sequence)).copied().collect();
        for sequence in &dropped {
            if let Some(root) = &self.root {
                remove_if_there(&revision_path(root, *sequence))
                    .map_err(PersistError::at("remove revision"))?;
            }
            self.revisions.remove(sequence);
        }
        if !dropped.is_empty() {
            self.blobs.retain(&blobs).map_err(PersistError::at("remove blobs"))?;
        }
        self.restore_ballast();
        Ok(())
    }

    fn put_blob(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        self.faults.before_file()?;
        self.blobs.put(name, bytes)
    }

    fn write_revision(&self, stored: &StoredRevision) -> io::Result<()> {
        #[cfg(test)]
        self.faults.before_file()?;
        let Some(root) = &self.root else { return Ok(()) };
        let bytes = serde_json::to_vec_pretty(stored).map_err(io::Error::other)?;
        invar_durable::replace(&revision_path(root, stored.record.sequence), &[&bytes])
    }

    fn release_ballast(&self, error: &io::Error) {
        if is_full(error) {
            self.remove_ballast();
        }
    }

    fn remove_ballast(&self) -> bool {
        self.root.as_ref().is_some_and(|root| fs::remove_file(root.join("ballast")).is_ok())
    }

    fn restore_ballast(&self) {
        if let Some(root) = &self.root {
            // Without room there is none; it is made again when there is.
            drop(open::make_ballast(&root.join("ballast"), BALLAST_BYTES));
        }
    }
}

fn revision_path(root: &Path, sequence: u64) -> PathBuf {
    root.join("revisions").join(format!("{sequence}.json"))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The newest control state on disk, read without a lock: for tests that look at what a dead process left.
#[cfg(test)]
pub(crate) fn newest_control(root: &Path) -> Option<Control> {
    ["head-0", "head-1"]
        .iter()
        .filter_map(|name| decode_head(&fs::read(root.join(name)).ok()?).ok())
        .max_by_key(|head| head.sequence)
        .map(|head| head.control)
}
