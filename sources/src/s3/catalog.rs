//! What there is to read below a prefix or by a manifest: names with the keys of their objects and what proves that an
//! object is the right one; and the downloads that hold them to it.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use invar_object_store::{Entry, Get, Session, StoreError};
use sha2::{Digest as _, Sha256};

use super::S3Source;
use crate::error::{ErrorClass, Failure, Rejection};
use crate::path::check_name;
use crate::settings::LimitSettings;
use crate::snapshot::{Files, Snapshot, hexadecimal};
use crate::units::display_size;

/// Downloads at the same time.
const PARALLEL: usize = 4;

/// Names to objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Catalog {
    pub(super) items: BTreeMap<String, Item>,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) key: String,
    pub(super) proof: Proof,
}

/// How an object is known to be the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// It is the one that was listed.
    Listed(Entry),
    /// Its SHA-256, in lowercase hexadecimal digits.
    Digest(String),
}

/// An object is not what the catalog says, or not any more.
#[derive(Debug)]
pub(super) struct Stale {
    /// What it means where nothing but the catalog can be wrong.
    pub(super) class: ErrorClass,
    pub(super) message: String,
}

/// Contents that an earlier attempt of the same poll has downloaded, by key and what proved them.
pub(super) type Downloaded = BTreeMap<String, (Proof, Bytes)>;

// === impl Catalog ===

impl Catalog {
    /// Makes names of keys: what follows the folder. Markers of folders are left out.
    pub(super) fn of_listing(listing: BTreeMap<String, Entry>, folder: &str) -> Result<Self, Failure> {
        let mut items = BTreeMap::new();
        for (key, entry) in listing {
            let Some(name) = key.strip_prefix(folder) else { continue };
            // A marker: what consoles make for an empty folder, and the folder itself.
            if name.is_empty() || (name.ends_with('/') && entry.size == 0) {
                continue;
            }
            for part in name.split('/') {
                check_name(part.as_bytes()).map_err(|failure| {
                    let shown: String = key.chars().take(120).collect();
                    Failure {
                        message: format!("the key `{}`: {}", shown.escape_debug(), failure.message),
                        ..failure
                    }
                })?;
            }
            items.insert(name.to_owned(), Item { key: key.clone(), proof: Proof::Listed(entry) });
        }
        if let Some(name) = file_and_folder(&items) {
            let message = format!("`{name}` is both an object and a folder of others");
            return Err(Failure::rejected(Rejection::Name, message));
        }
        Ok(Self { items })
    }

    /// Names the state of a listing: `s3:etag-index:<64 hex>`.
    pub(super) fn revision(&self) -> String {
        let mut digest = Sha256::new();
        let mut add = |part: &str| {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part.as_bytes());
        };
        for (name, item) in &self.items {
            add(name);
            match &item.proof {
                Proof::Listed(entry) => {
                    add(&entry.etag);
                    add(&entry.size.to_string());
                }
                Proof::Digest(digest) => add(digest),
            }
        }
        format!("s3:etag-index:{}", hexadecimal(&digest.finalize()))
    }

    /// The names at and below `paths`; all without any.
    pub(super) fn select(&self, paths: &[String]) -> Vec<String> {
        let wanted = |name: &&String| paths.is_empty() || paths.iter().any(|path| is_at(name, path));
        self.items.keys().filter(wanted).cloned().collect()
    }

    /// Refuses too much before anything is downloaded.
    pub(super) fn check_limits(&self, names: &[String], limits: &LimitSettings) -> Result<(), Failure> {
        if names.len() > limits.files {
            let message = format!("{} files are selected; the limit is {}", names.len(), limits.files);
            return Err(Failure::rejected(Rejection::Limits, message));
        }
        let mut total = 0_u64;
        for name in names {
            let Some(Item { proof: Proof::Listed(entry), .. }) = self.items.get(name) else { continue };
            check_size(name, entry.size, &mut total, limits)?;
        }
        Ok(())
    }
}

fn check_size(name: &str, size: u64, total: &mut u64, limits: &LimitSettings) -> Result<(), Failure> {
    if size > limits.file {
        let (size, limit) = (display_size(size), display_size(limits.file));
        let message = format!("`{name}` is {size} long; the limit for one file is {limit}");
        return Err(Failure::rejected(Rejection::Limits, message));
    }
    *total = total.saturating_add(size);
    if *total > limits.bytes {
        let message = format!("the selected files are longer than {} together", display_size(limits.bytes));
        return Err(Failure::rejected(Rejection::Limits, message));
    }
    Ok(())
}

/// A name that others are below of: what no tree of files can hold.
pub(super) fn file_and_folder<T>(files: &BTreeMap<String, T>) -> Option<&str> {
    let names = files.keys().map(String::as_str);
    // In order of names what is below one need not stand right behind it.
    names
        .into_iter()
        .find(|name| files.range(format!("{name}/")..).next().is_some_and(|(next, _)| is_at(next, name)))
}

/// Whether the file `name` is `path` or below it.
pub(super) fn is_at(name: &str, path: &str) -> bool {
    path.is_empty() || name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl S3Source {
    /// Reads the objects behind `names`, except for those that `previous` is known to show as they are. The inner error says
    /// that the bucket is not what the catalog says any more.
    pub(super) async fn download(
        &self,
        session: &Session<'_>,
        catalog: &Catalog,
        names: &[String],
        previous: Option<&Snapshot>,
        downloaded: &mut Downloaded,
    ) -> Result<Result<Files, Stale>, Failure> {
        let known = previous.and_then(|snapshot| {
            let memory = self.memory.lock();
            memory
                .catalog
                .as_ref()
                .filter(|(of, _)| *of == snapshot.revision.text)
                .map(|(_, known)| known.clone())
        });
        let mut files = Files::new();
        let mut missing: Vec<(String, Item)> = Vec::new();
        for name in names {
            let Some(item) = catalog.items.get(name) else { continue };
            let held =
                previous.and_then(|snapshot| snapshot.files.get(name)).filter(|content| match &item.proof {
                    Proof::Listed(_) => {
                        known.as_ref().is_some_and(|known| known.items.get(name) == Some(item))
                    }
                    Proof::Digest(digest) => hexadecimal(&Sha256::digest(content)) == *digest,
                });
            let held = held.or_else(|| {
                downloaded
                    .get(&item.key)
                    .filter(|(proof, _)| *proof == item.proof)
                    .map(|(_, content)| content)
            });
            match held {
                Some(content) => {
                    files.insert(name.clone(), content.clone());
                }
                None => missing.push((name.clone(), item.clone())),
            }
        }
        let mut total: u64 = files.values().map(|content| content.len() as u64).sum();
        let reads = missing.into_iter().map(|(name, item)| async move {
            let read = self.read_item(session, &item).await;
            (name, item, read)
        });
        let mut reads = stream::iter(reads).buffer_unordered(PARALLEL);
        while let Some((name, item, read)) = reads.next().await {
            match read? {
                Ok(content) => {
                    check_size(&name, content.len() as u64, &mut total, &self.limits)?;
                    downloaded.insert(item.key, (item.proof, content.clone()));
                    files.insert(name, content);
                }
                Err(stale) => return Ok(Err(stale)),
            }
        }
        Ok(Ok(files))
    }

    async fn read_item(&self, session: &Session<'_>, item: &Item) -> Result<Result<Bytes, Stale>, Failure> {
        let key = &item.key;
        let if_match = match &item.proof {
            Proof::Listed(entry) if !entry.etag.is_empty() => Some(entry.etag.as_str()),
            _ => None,
        };
        let object = match session.get(&Get { key, if_match, ..Get::default() }).await {
            Ok(object) => object,
            Err(StoreError::Changed) => {
                let message = format!("`{key}` was replaced");
                return Ok(Err(Stale { class: ErrorClass::Transient, message }));
            }
            Err(StoreError::NoSuchObject { .. }) => {
                let message = format!("there is no `{key}`");
                return Ok(Err(Stale { class: ErrorClass::NotFound, message }));
            }
            Err(error) => return Err(self.access.failure(&self.place_of(key), &error)),
        };
        self.refuse_encoding(key, &object)?;
        let right = match &item.proof {
            // Not every store minds the condition.
            Proof::Listed(entry) => {
                (entry.etag.is_empty() || entry.etag == object.etag)
                    && entry.size == object.content.len() as u64
            }
            Proof::Digest(digest) => hexadecimal(&Sha256::digest(&object.content)) == *digest,
        };
        if right {
            return Ok(Ok(object.content));
        }
        let message = format!("`{key}` is another object than was expected");
        Ok(Err(Stale { class: ErrorClass::Integrity, message }))
    }

    pub(super) fn place_of(&self, key: &str) -> String {
        let shown: String = key.chars().take(200).collect();
        format!("s3://{}/{}", self.access.bucket_name(), shown.escape_debug())
    }

    pub(super) fn refuse_encoding(
        &self,
        key: &str,
        object: &invar_object_store::Object,
    ) -> Result<(), Failure> {
        match &object.encoding {
            None => Ok(()),
            Some(encoding) => {
                let encoding: String = encoding.chars().filter(|c| !c.is_control()).take(40).collect();
                let message = format!("{} has the content encoding `{encoding}`", self.place_of(key));
                Err(Failure::rejected(Rejection::Shape, message)
                    .with_help("upload it as it is, uncompressed"))
            }
        }
    }
}
