//! How a server knows this agent where its configuration does not say: an identifier made once and kept on disk, in the
//! file and form of Alloy's, so that an agent that takes over a host keeps its place.

use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Alloy's name of the file.
const FILE: &str = "alloy_seed.json";

#[derive(Serialize, Deserialize)]
struct Seed {
    #[serde(rename = "UID")]
    uid: String,
    #[serde(default)]
    created_at: String,
    #[serde(default)]
    version: String,
}

/// The identifier kept in `directory`; made and stored if there is none. Blocks on the disk.
///
/// # Errors
/// Where a new one cannot be stored: an identifier that changes with each start would fill the server with ghosts.
pub fn collector_id(directory: &Path, version: &str) -> io::Result<String> {
    let path = directory.join(FILE);
    if let Some(seed) =
        std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Seed>(&bytes).ok())
        && !seed.uid.is_empty()
    {
        return Ok(seed.uid);
    }
    let seed =
        Seed { uid: random_uuid(), created_at: Timestamp::now().to_string(), version: version.to_owned() };
    let text = serde_json::to_vec(&seed).map_err(io::Error::other)?;
    invar_durable::make_directory(directory)?;
    invar_durable::replace(&path, &[&text])?;
    Ok(seed.uid)
}

/// A random identifier (RFC 9562, version 4).
fn random_uuid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}
