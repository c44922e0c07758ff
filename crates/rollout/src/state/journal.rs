//! The journal: history only, never needed to decide anything. Append-only records
//! `{length u32, crc32c u32, JSON}`, cut off after the last valid one when it is opened.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::record::RevisionRecord;

/// Longest record.
const LONGEST: usize = 64 * 1024;
/// The journal is rewritten with its newest records when it grows past this.
const LARGEST: u64 = 1024 * 1024;
/// Records that survive a rewrite.
const KEPT: usize = 200;

/// An open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Journal {
    /// Opens the journal and cuts it off after its last valid record.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Vec<RevisionRecord>)> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let mut bytes = Vec::new();
        (&mut file).take(2 * LARGEST).read_to_end(&mut bytes)?;
        let (records, valid) = decode_journal(&bytes);
        if valid != file.metadata()?.len() {
            file.set_len(valid)?;
            file.sync_data()?;
        }
        file.seek(SeekFrom::Start(valid))?;
        Ok((Self { path: path.to_owned(), file, size: valid }, records))
    }

    /// Appends a record and makes it durable.
    pub(crate) fn append(&mut self, record: &RevisionRecord) -> io::Result<()> {
        let bytes = encode(record);
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Half a record would hide what is appended after it.
            self.file.set_len(self.size)?;
            self.file.seek(SeekFrom::Start(self.size))?;
            return Err(error);
        }
        self.size += bytes.len() as u64;
        if self.size > LARGEST {
            self.rewrite()?;
        }
        Ok(())
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(0))?;
        self.file.read_to_end(&mut bytes)?;
        let (records, _) = decode_journal(&bytes);
        // Half of the limit, so that the next rewrite is far away however long the records are.
        let mut kept = Vec::new();
        let mut size = 0;
        for record in records.iter().rev().take(KEPT).map(encode) {
            size += record.len() as u64;
            if size > LARGEST / 2 {
                break;
            }
            kept.push(record);
        }
        let newest: Vec<u8> = kept.into_iter().rev().flatten().collect();
        invar_durable::replace(&self.path, &[&newest])?;
        (*self, _) = Self::open(&self.path)?;
        Ok(())
    }
}

fn encode(record: &RevisionRecord) -> Vec<u8> {
    let mut payload = serde_json::to_vec(record).unwrap_or_default();
    payload.truncate(LONGEST);
    let mut bytes = Vec::with_capacity(payload.len() + 8);
    bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(0).to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
    bytes.extend_from_slice(&payload);
    bytes
}

/// The records of a journal up to the first damaged one, and how many bytes they take.
#[must_use]
pub fn decode_journal(bytes: &[u8]) -> (Vec<RevisionRecord>, u64) {
    let mut records = Vec::new();
    let mut at = 0usize;
    while let Some(header) = bytes.get(at..at + 8) {
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let crc = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        let Some(payload) = (length <= LONGEST).then(|| bytes.get(at + 8..at + 8 + length)).flatten() else {
            break;
        };
        if length == 0 || crc32c::crc32c(payload) != crc {
            break;
        }
        let Ok(record) = serde_json::from_slice(payload) else { break };
        records.push(record);
        at += 8 + length;
    }
    (records, at as u64)
}
