//! Content-addressed blobs: immutable, named by their SHA-256, verified whenever they are read.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use invar_durable::{make_directory, replace};

use super::manifest::sha256;

/// Largest blob that is read back.
const LARGEST: u64 = 64 * 1024 * 1024;

/// Where blobs are.
#[derive(Debug)]
pub(crate) enum Blobs {
    /// `cas/ab/abcdef…`.
    Disk(PathBuf),
    /// Nothing survives the process.
    Memory(HashMap<String, Bytes>),
}

impl Blobs {
    /// Stores `bytes` under `name`, which must be their SHA-256. A rotten blob of that name is replaced.
    pub(crate) fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Memory(map) => {
                map.insert(name.to_owned(), Bytes::copy_from_slice(bytes));
                Ok(())
            }
            Self::Disk(root) => {
                let path = path_of(root, name)?;
                if read_verified(&path, name).is_ok() {
                    return Ok(());
                }
                make_directory(path.parent().unwrap_or(root))?;
                replace(&path, &[bytes])
            }
        }
    }

    /// Reads a blob and verifies it.
    pub(crate) fn get(&self, name: &str) -> io::Result<Bytes> {
        match self {
            Self::Memory(map) => map.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into()),
            Self::Disk(root) => read_verified(&path_of(root, name)?, name),
        }
    }

    /// Removes every blob that is not in `kept`.
    pub(crate) fn retain(&mut self, kept: &BTreeSet<String>) -> io::Result<()> {
        match self {
            Self::Memory(map) => map.retain(|name, _| kept.contains(name)),
            Self::Disk(root) => {
                for folder in fs::read_dir(root)? {
                    let folder = folder?.path();
                    if !folder.is_dir() {
                        continue;
                    }
                    for blob in fs::read_dir(&folder)? {
                        let blob = blob?;
                        if !blob.file_name().to_str().is_some_and(|name| kept.contains(name)) {
                            fs::remove_file(blob.path())?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

fn path_of(root: &Path, name: &str) -> io::Result<PathBuf> {
    // Names come from files on disk: one that is not a digest must not become a path.
    if name.len() != 64 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not the name of a blob"));
    }
    Ok(root.join(&name[..2]).join(name))
}

fn read_verified(path: &Path, name: &str) -> io::Result<Bytes> {
    if fs::metadata(path)?.len() > LARGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "blob too large"));
    }
    let bytes = fs::read(path)?;
    if sha256(&bytes) == name {
        Ok(bytes.into())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "blob does not match its digest"))
    }
}
