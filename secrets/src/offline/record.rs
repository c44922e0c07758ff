//! One value at rest: ChaCha20-Poly1305 under a key of its own, which HKDF derives from the key of the settings and 32
//! random bytes, so that no nonce is ever used twice. What it belongs to is authenticated with it: a record in another
//! one's place does not open.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use invar_syntax::Secret;
use rand::Rng as _;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::hmac;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::fields::Value;
use crate::snapshot::{Lease, SecretSnapshot};

/// What a record begins with; the last byte is the version of the form.
const HEAD: &[u8; 8] = b"INVSEC\0\x01";
const SALT_LENGTH: usize = 32;
const SHORTEST_KEY: usize = 32;
/// How far ahead of this clock a record may be: clocks are set.
const CLOCK_GRACE: Duration = Duration::from_secs(300);

/// Why a record is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It is not one, or of another version of the agent.
    #[error("it is not in a form that this version knows")]
    Form,
    /// Another key, another reference, or somebody changed it.
    #[error("it does not open with the key of the settings for this reference")]
    Sealed,
    /// It was kept too long ago, or, by this clock, is yet to come.
    #[error("it is too old, or from a time that is yet to come")]
    Age,
    /// Its value has ended.
    #[error("the value, or its lease, has ended")]
    Ended,
    /// It cannot be made.
    #[error("it cannot be encrypted")]
    Sealing,
}

#[derive(Serialize)]
struct Writing<'a> {
    saved: u64,
    fields: BTreeMap<&'a str, &'a str>,
    not_after: Option<u64>,
    lease: Option<WrittenLease<'a>>,
    read_again: Option<u64>,
    store_version: Option<&'a str>,
    granted_under: Option<&'a str>,
}

#[derive(Serialize)]
struct WrittenLease<'a> {
    id: &'a str,
    duration: u64,
    renewable: bool,
}

#[derive(Deserialize)]
struct Reading {
    saved: u64,
    fields: BTreeMap<String, Value>,
    not_after: Option<u64>,
    lease: Option<ReadLease>,
    read_again: Option<u64>,
    store_version: Option<String>,
    #[serde(default)]
    granted_under: Option<String>,
}

#[derive(Deserialize)]
struct ReadLease {
    id: String,
    duration: u64,
    renewable: bool,
}

/// What is wrong with a key.
pub(super) fn key_problem(key: &Secret) -> Option<&'static str> {
    (key.expose().len() < SHORTEST_KEY)
        .then_some("it is shorter than 32 characters; `openssl rand -base64 32` makes one")
}

/// What a record belongs to, without any doubt where the store ends and the path begins.
pub(super) fn context(store: &str, path: &str) -> Vec<u8> {
    let mut context = HEAD.to_vec();
    context.extend_from_slice(&u64::try_from(store.len()).unwrap_or(u64::MAX).to_be_bytes());
    context.extend_from_slice(store.as_bytes());
    context.extend_from_slice(path.as_bytes());
    context
}

/// Tells whether a value is the one that was noted before, and nothing about it to whoever lacks the key. What is granted
/// for a time is another value with each renewal.
pub(super) fn digest_of(key: &Secret, snapshot: &SecretSnapshot) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes()));
    let mut part = |bytes: &[u8]| {
        context.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(bytes);
    };
    for (name, value) in &snapshot.fields {
        part(name.as_bytes());
        part(value.expose().as_bytes());
    }
    part(&snapshot.not_after.map(millis).unwrap_or_default().to_be_bytes());
    part(snapshot.lease.as_ref().map(|lease| lease.id.as_str()).unwrap_or_default().as_bytes());
    part(snapshot.store_version.as_deref().unwrap_or_default().as_bytes());
    let mut digest = [0; 32];
    digest.copy_from_slice(context.sign().as_ref());
    digest
}

/// Encrypts what was read of a path at `now`.
///
/// # Errors
/// [`RecordError::Sealing`].
pub fn seal_record(
    key: &Secret,
    store: &str,
    path: &str,
    snapshot: &SecretSnapshot,
    now: SystemTime,
) -> Result<Vec<u8>, RecordError> {
    let writing = Writing {
        saved: millis(now),
        fields: snapshot.fields.iter().map(|(name, value)| (name.as_str(), value.expose())).collect(),
        not_after: snapshot.not_after.map(millis),
        lease: snapshot.lease.as_ref().map(|lease| WrittenLease {
            id: &lease.id,
            duration: length(lease.duration),
            renewable: lease.renewable,
        }),
        read_again: snapshot.read_again.map(length),
        store_version: snapshot.store_version.as_deref(),
        granted_under: snapshot.granted_under.as_deref(),
    };
    // Measured first: a text that grows leaves copies of itself behind.
    let mut size = Counting(0);
    serde_json::to_writer(&mut size, &writing).map_err(|_| RecordError::Sealing)?;
    let mut text = Zeroizing::new(Vec::with_capacity(size.0 + CHACHA20_POLY1305.tag_len()));
    serde_json::to_writer(&mut *text, &writing).map_err(|_| RecordError::Sealing)?;
    let mut salt = [0; SALT_LENGTH];
    rand::rng().fill_bytes(&mut salt);
    let sealing = cipher(key, &salt).ok_or(RecordError::Sealing)?;
    sealing
        .seal_in_place_append_tag(nonce(), Aad::from(context(store, path)), &mut *text)
        .map_err(|_| RecordError::Sealing)?;
    Ok([HEAD.as_slice(), &salt, &text].concat())
}

/// Decrypts a record, if it is one of this path and of use at `now`.
///
/// # Errors
/// Why it is not used; never a part of it.
pub fn open_record(
    key: &Secret,
    store: &str,
    path: &str,
    sealed: &[u8],
    now: SystemTime,
    max_age: Duration,
) -> Result<SecretSnapshot, RecordError> {
    let (mut snapshot, age) = open(key, store, path, sealed, now, max_age)?;
    let left = |after: Duration| after.saturating_sub(age);
    snapshot.lease = snapshot.lease.map(|lease| Lease { duration: left(lease.duration), ..lease });
    snapshot.read_again = snapshot.read_again.map(left);
    Ok(snapshot)
}

/// The same of a record with a lease that may still last, however long ago it was kept: nobody is to use it before the store
/// has confirmed the lease. That is as it was granted.
pub(super) fn open_lease(
    key: &Secret,
    store: &str,
    path: &str,
    sealed: &[u8],
    now: SystemTime,
) -> Result<SecretSnapshot, RecordError> {
    let (snapshot, _) = open(key, store, path, sealed, now, Duration::MAX)?;
    if snapshot.lease.is_none() { Err(RecordError::Ended) } else { Ok(snapshot) }
}

/// What a record holds, as it was when it was written, and how long ago that is.
fn open(
    key: &Secret,
    store: &str,
    path: &str,
    sealed: &[u8],
    now: SystemTime,
    max_age: Duration,
) -> Result<(SecretSnapshot, Duration), RecordError> {
    let rest = sealed.strip_prefix(HEAD).ok_or(RecordError::Form)?;
    let (salt, text) = rest.split_first_chunk::<SALT_LENGTH>().ok_or(RecordError::Form)?;
    let mut text = Zeroizing::new(text.to_vec());
    let opening = cipher(key, salt).ok_or(RecordError::Sealed)?;
    let opened = opening
        .open_in_place(nonce(), Aad::from(context(store, path)), &mut text)
        .map_err(|_| RecordError::Sealed)?;
    let reading: Reading = serde_json::from_slice(opened).map_err(|_| RecordError::Form)?;
    let now = millis(now);
    if reading.saved > now.saturating_add(length(CLOCK_GRACE)) {
        return Err(RecordError::Age);
    }
    let age = now.saturating_sub(reading.saved);
    if age > length(max_age) {
        return Err(RecordError::Age);
    }
    if reading.not_after.is_some_and(|end| end <= now) {
        return Err(RecordError::Ended);
    }
    let lease = match reading.lease {
        Some(lease) if lease.duration <= age => return Err(RecordError::Ended),
        Some(lease) => Some(Lease {
            id: lease.id,
            duration: Duration::from_millis(lease.duration),
            renewable: lease.renewable,
        }),
        None => None,
    };
    let fields = reading.fields.into_iter().map(|(name, Value(value))| (name, value)).collect();
    let snapshot = SecretSnapshot {
        not_after: reading.not_after.and_then(|end| UNIX_EPOCH.checked_add(Duration::from_millis(end))),
        lease,
        read_again: reading.read_again.map(Duration::from_millis),
        store_version: reading.store_version,
        granted_under: reading.granted_under,
        ..SecretSnapshot::new(fields)
    };
    Ok((snapshot, Duration::from_millis(age)))
}

/// The cipher of one record, which encrypts once.
fn cipher(key: &Secret, salt: &[u8]) -> Option<LessSafeKey> {
    let extracted = Salt::new(HKDF_SHA256, salt).extract(key.expose().as_bytes());
    let expanded = extracted.expand(&[b"invar offline secret"], &CHACHA20_POLY1305).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(expanded)))
}

/// Always the same, because the key never is.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn millis(time: SystemTime) -> u64 {
    length(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn length(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

struct Counting(usize);

impl std::io::Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
