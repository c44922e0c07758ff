//! Opening a state directory: lock, heads, records, whatever state they are in.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use invar_durable::{make_directory, sync_directory};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};

use super::blobs::Blobs;
use super::head::{HEAD_SIZE, Head, HeadError, decode_head};
use super::journal::Journal;
use super::manifest::StoredRevision;
use super::{BALLAST_BYTES, RECORDS_IN_MEMORY, Recovered, StateDirectory, note};

/// Largest file that is read as a record.
const LARGEST_RECORD: u64 = 8 * 1024 * 1024;

/// The state directory cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another agent holds the lock.
    #[error(
        "the state directory {directory} is in use by process {pid}; give each agent its own (`[state] dir`, `--storage.path`)"
    )]
    Locked {
        /// The directory.
        directory: String,
        /// The process that holds it, as its lock file says.
        pid: String,
    },
}

impl StateDirectory {
    /// Opens, and where needed makes, the directory. One that cannot be written makes the agent run from memory.
    ///
    /// # Errors
    /// Only when another agent uses it.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        Self::open_under(directory, &boot_id())
    }

    /// State in memory only: nothing survives the process.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::memory("no state directory is set".to_owned(), boot_id())
    }

    pub(crate) fn open_under(directory: &Path, boot_id: &str) -> Result<Self, OpenError> {
        let lock = match take_lock(directory, boot_id) {
            Ok(lock) => lock,
            Err(LockError::Held(pid)) => {
                return Err(OpenError::Locked { directory: directory.display().to_string(), pid });
            }
            Err(LockError::Io(error)) => {
                return Ok(Self::memory(format!("{}: {error}", directory.display()), boot_id.to_owned()));
            }
        };
        Ok(Self::read(directory, lock, boot_id).unwrap_or_else(|error| {
            Self::memory(format!("{}: {error}", directory.display()), boot_id.to_owned())
        }))
    }

    fn memory(reason: String, boot_id: String) -> Self {
        Self {
            root: None,
            memory_only: Some(reason),
            _lock: None,
            heads: None,
            sequence: 0,
            recovered: Recovered::default(),
            blobs: Blobs::Memory(HashMap::new()),
            revisions: BTreeMap::new(),
            journal: None,
            others: VecDeque::new(),
            next_revision: 1,
            boot_id,
            #[cfg(test)]
            faults: std::sync::Arc::default(),
        }
    }

    fn read(root: &Path, lock: File, boot_id: &str) -> io::Result<Self> {
        let mut recovered = Recovered::default();
        let mut heads = open_heads(root)?;
        let mut found = heads.each_mut().map(read_head);
        if let Some(format) = found.iter().find_map(|head| match head {
            Err(HeadError::Newer(format)) => Some(*format),
            _ => None,
        }) {
            let aside = set_aside(root, format)?;
            recovered.remarks.push(format!(
                "the state was written by a newer agent (format {format}); it is kept in {} and this agent starts without it",
                aside.display()
            ));
            heads = open_heads(root)?;
            found = heads.each_mut().map(read_head);
        }
        let newest =
            found.iter().filter_map(|head| head.as_ref().ok()).max_by_key(|head| head.sequence).cloned();
        recovered.corrupt =
            newest.is_none() && found.iter().any(|head| matches!(head, Err(HeadError::Damaged(_))));
        for (n, head) in found.iter().enumerate() {
            if let Err(error @ HeadError::Damaged(_)) = head {
                recovered.remarks.push(format!("head-{n} is {error}"));
            }
        }
        let (sequence, control) =
            newest.map_or((0, None), |Head { sequence, control }| (sequence, Some(control)));
        recovered.control = control;
        recovered.panic_note = take_panic_note(&root.join(note::FILE));

        for folder in ["cas", "revisions", "components"] {
            make_directory(&root.join(folder))?;
        }
        let (revisions, damaged) = read_revisions(&root.join("revisions"))?;
        recovered.remarks.extend(damaged);
        let (journal, records) = match Journal::open(&root.join("journal.log")) {
            Ok((journal, records)) => (Some(journal), records),
            Err(error) => {
                recovered.remarks.push(format!("the journal cannot be opened: {error}"));
                (None, Vec::new())
            }
        };
        let skip = records.len().saturating_sub(RECORDS_IN_MEMORY);
        let others: VecDeque<_> = records.into_iter().skip(skip).collect();
        let highest =
            revisions.keys().next_back().copied().max(others.iter().map(|record| record.sequence).max());
        drop(make_ballast(&root.join("ballast"), BALLAST_BYTES));
        Ok(Self {
            root: Some(root.to_owned()),
            memory_only: None,
            _lock: Some(lock),
            heads: Some(heads),
            sequence,
            recovered,
            blobs: Blobs::Disk(root.join("cas")),
            revisions,
            journal,
            others,
            next_revision: highest.unwrap_or(0).saturating_add(1),
            boot_id: boot_id.to_owned(),
            #[cfg(test)]
            faults: std::sync::Arc::default(),
        })
    }
}

enum LockError {
    Held(String),
    Io(io::Error),
}

fn take_lock(directory: &Path, boot_id: &str) -> Result<File, LockError> {
    make_directory(directory).map_err(LockError::Io)?;
    let path = directory.join("LOCK");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(LockError::Io)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut text = String::new();
        drop((&mut file).take(256).read_to_string(&mut text));
        return Err(LockError::Held(text.lines().next().unwrap_or("unknown").to_owned()));
    }
    file.set_len(0).map_err(LockError::Io)?;
    write!(file, "{}\n{boot_id}\n", std::process::id()).map_err(LockError::Io)?;
    Ok(file)
}

/// Opens both heads at their full size, so that no later write needs room.
fn open_heads(root: &Path) -> io::Result<[File; 2]> {
    let open = |name: &str| -> io::Result<File> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(root.join(name))?;
        let length = file.metadata()?.len();
        if length < HEAD_SIZE as u64 {
            // Written out, not only extended: the blocks must exist before the disk is full.
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let missing = vec![0; HEAD_SIZE - bytes.len().min(HEAD_SIZE)];
            file.write_all(&missing)?;
            file.sync_all()?;
        }
        Ok(file)
    };
    let heads = [open("head-0")?, open("head-1")?];
    sync_directory(root)?;
    Ok(heads)
}

fn read_head(file: &mut File) -> Result<Head, HeadError> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; HEAD_SIZE];
    file.read_exact_at(&mut bytes, 0).map_err(|_| HeadError::Damaged("unreadable"))?;
    decode_head(&bytes)
}

/// Moves everything that a newer agent wrote into a folder of its own.
fn set_aside(root: &Path, format: u32) -> io::Result<PathBuf> {
    let mut aside = root.join(format!("newer-format-{format}"));
    for n in 1.. {
        if !aside.exists() {
            break;
        }
        aside = root.join(format!("newer-format-{format}.{n}"));
    }
    make_directory(&aside)?;
    for name in ["head-0", "head-1", "journal.log", "cas", "revisions"] {
        match fs::rename(root.join(name), aside.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    sync_directory(root)?;
    Ok(aside)
}

type Revisions = BTreeMap<u64, StoredRevision>;

fn read_revisions(folder: &Path) -> io::Result<(Revisions, Vec<String>)> {
    let mut revisions = BTreeMap::new();
    let mut damaged = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(sequence) = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".json"))
            .and_then(|name| name.parse::<u64>().ok())
        else {
            continue;
        };
        match read_revision(&path) {
            Ok(stored) => {
                revisions.insert(sequence, stored);
            }
            Err(error) => damaged.push(format!("{} is damaged: {error}", path.display())),
        }
    }
    Ok((revisions, damaged))
}

fn read_revision(path: &Path) -> io::Result<StoredRevision> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST_RECORD).read_to_end(&mut bytes)?;
    let stored: StoredRevision = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
    if stored.manifest.encode().0 != stored.manifest_digest {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the manifest does not match its digest"));
    }
    Ok(stored)
}

fn take_panic_note(path: &Path) -> Option<String> {
    let mut text = String::new();
    let found = File::open(path).and_then(|file| file.take(1024).read_to_string(&mut text)).is_ok();
    drop(fs::remove_file(path));
    found.then_some(text)
}

/// Takes up room that can be given back when the disk is full.
pub(super) fn make_ballast(path: &Path, bytes: u64) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    if let Err(error) = fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        // A part of it would be of no use, and a file system without fallocate gets none.
        drop(fs::remove_file(path));
        return Err(error.into());
    }
    Ok(())
}

/// The host's boot id: another one means that the host itself went down.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| "unknown".to_owned(), |id| id.trim().to_owned())
}
