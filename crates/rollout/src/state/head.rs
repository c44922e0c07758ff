//! The head: one fixed-size record that holds all control state, kept twice and overwritten in turn.
//!
//! Layout, little endian: magic (8 bytes), format (u32), length of the payload (u32), sequence (u64),
//! crc32c over everything before it and the payload (u32), payload (JSON), zeros. A record that was
//! torn by a power cut fails its checksum, and the other one still holds the state before it.

use serde::{Deserialize, Serialize};

use super::control::Control;

/// Size of a head file, preallocated.
pub(crate) const HEAD_SIZE: usize = 64 * 1024;
/// A head is written in pieces of this size, in bytes.
const BLOCK: usize = 4096;
/// The newest format that this binary understands.
pub(crate) const FORMAT: u32 = 1;

const MAGIC: &[u8; 8] = b"INVARHD\n";
const HEADER: usize = 28;

/// A decoded head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Ascending; the higher one of two is the newer.
    pub sequence: u64,
    /// The state.
    pub control: Control,
}

/// Why bytes are not a usable head.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Preallocated, never written.
    #[error("never written")]
    Blank,
    /// Written by a newer binary.
    #[error("written in format {0}, which is newer than this binary")]
    Newer(u32),
    /// Torn or rotten.
    #[error("damaged: {0}")]
    Damaged(&'static str),
    /// The state does not fit.
    #[error("the control state does not fit in a head record")]
    TooLarge,
}

/// The bytes of a head, which are the beginning of its file.
///
/// # Errors
/// [`HeadError::TooLarge`].
pub fn encode_head(head: &Head) -> Result<Vec<u8>, HeadError> {
    let payload = serde_json::to_vec(&head.control).map_err(|_| HeadError::Damaged("not serialisable"))?;
    if payload.len() > HEAD_SIZE - HEADER {
        return Err(HeadError::TooLarge);
    }
    let length = u32::try_from(payload.len()).map_err(|_| HeadError::TooLarge)?;
    // Whole blocks, no more: the file has its full size already, and what an older record leaves behind this one is not
    // looked at.
    let mut bytes = Vec::with_capacity((HEADER + payload.len()).next_multiple_of(BLOCK));
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&head.sequence.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), &payload);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(&payload);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    Ok(bytes)
}

/// Reads a head from any bytes.
///
/// # Errors
/// What is wrong with them.
pub fn decode_head(bytes: &[u8]) -> Result<Head, HeadError> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Err(HeadError::Blank);
    }
    let header = bytes.get(..HEADER).ok_or(HeadError::Damaged("too short"))?;
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if &header[..8] != MAGIC {
        return Err(HeadError::Damaged("not a head record"));
    }
    let length = word(12) as usize;
    let payload = bytes.get(HEADER..HEADER.saturating_add(length)).ok_or(HeadError::Damaged("length"))?;
    if crc32c::crc32c_append(crc32c::crc32c(&header[..24]), payload) != word(24) {
        return Err(HeadError::Damaged("checksum"));
    }
    // Only a record that is whole may claim to be newer: a torn one must not set the state aside.
    let format = word(8);
    if format > FORMAT {
        return Err(HeadError::Newer(format));
    }
    let sequence = u64::from(word(16)) | u64::from(word(20)) << 32;
    let control = serde_json::from_slice(payload).map_err(|_| HeadError::Damaged("content"))?;
    Ok(Head { sequence, control })
}
