//! The framing of records inside a segment file: a sixteen-byte file header, then frames of
//! `crc32c | payload length | kind | payload`, all little-endian. The checksum covers length, kind and payload, so
//! that a torn or zero-filled tail never reads as a record.

use std::io;
use std::path::{Path, PathBuf};

/// What a segment file begins with: a name and the format's version.
pub(super) const FILE_HEADER: [u8; 16] = *b"invarwal\x01\0\0\0\0\0\0\0";
/// Bytes in front of every payload.
pub(super) const FRAME_HEADER: usize = 9;
/// The largest payload a frame may carry: what claims to be longer is damage, not data.
pub(super) const MAX_PAYLOAD: usize = 64 << 20;

/// The kinds of record. Zero is never written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Labels of series that the segment refers to.
    Series = 1,
    /// An ordered list of series references.
    List = 2,
    /// One timestamp and a column of values for a list.
    Column = 3,
    /// Samples that name their series one by one.
    Samples = 4,
    /// Native histograms.
    Histograms = 5,
    /// Exemplars.
    Exemplars = 6,
    /// Metadata of a metric family.
    Metadata = 7,
    /// Created (start) timestamps of series.
    Created = 8,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Series,
            2 => Self::List,
            3 => Self::Column,
            4 => Self::Samples,
            5 => Self::Histograms,
            6 => Self::Exemplars,
            7 => Self::Metadata,
            8 => Self::Created,
            _ => return None,
        })
    }
}

/// Reserves a frame header in `out` and returns where it starts; [`close`] completes it.
pub(super) fn open(out: &mut Vec<u8>, kind: Kind) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER]);
    out[start + 8] = kind as u8;
    start
}

/// Completes the frame that began at `start` and ends where `out` ends.
pub(super) fn close(out: &mut [u8], start: usize) {
    let length = (out.len() - start - FRAME_HEADER) as u32;
    out[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32c::crc32c(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
}

/// What the front of some bytes is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed<'a> {
    /// A whole, intact frame of `length` bytes, header included.
    Frame {
        /// The kind of record.
        kind: Kind,
        /// Its content.
        payload: &'a [u8],
        /// Bytes the frame takes in the file.
        length: usize,
    },
    /// The bytes end before the frame does; at least so many are needed.
    Incomplete(usize),
    /// Not a frame: damage, or the torn end of a crashed writer.
    Damaged,
}

/// Looks at the front of `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Parsed<'_> {
    let Some(header) = bytes.first_chunk::<FRAME_HEADER>() else {
        return Parsed::Incomplete(FRAME_HEADER);
    };
    let checksum = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
    let Some(kind) = Kind::from_byte(header[8]).filter(|_| length <= MAX_PAYLOAD) else {
        return Parsed::Damaged;
    };
    let total = FRAME_HEADER + length;
    let Some(frame) = bytes.get(..total) else {
        return Parsed::Incomplete(total);
    };
    if crc32c::crc32c(&frame[4..]) != checksum {
        return Parsed::Damaged;
    }
    Parsed::Frame { kind, payload: &frame[FRAME_HEADER..], length: total }
}

/// The file of segment `number` in `directory`.
pub(super) fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:020}.segment"))
}

/// The numbers of the segments in `directory`, in order.
pub(crate) fn list_segments(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number: Option<u64> = name
            .to_str()
            .and_then(|name| name.strip_suffix(".segment"))
            .and_then(|number| number.parse().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let start = open(&mut out, Kind::Column);
        out.extend_from_slice(payload);
        close(&mut out, start);
        out
    }

    proptest! {
        #[test]
        fn frames_round_trip(payload: Vec<u8>) {
            let bytes = frame(&payload);
            prop_assert_eq!(
                parse(&bytes),
                Parsed::Frame { kind: Kind::Column, payload: &payload[..], length: bytes.len() }
            );
        }

        #[test]
        fn one_flipped_bit_is_noticed(payload in prop::collection::vec(any::<u8>(), 0..64), bit: prop::sample::Index) {
            let mut bytes = frame(&payload);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let intact = matches!(parse(&bytes), Parsed::Frame { .. });
            prop_assert!(!intact);
        }

        #[test]
        fn a_cut_frame_is_incomplete(payload in prop::collection::vec(any::<u8>(), 0..64), cut: prop::sample::Index) {
            let bytes = frame(&payload);
            let cut = cut.index(bytes.len());
            prop_assert!(matches!(parse(&bytes[..cut]), Parsed::Incomplete(_)));
        }
    }

    #[test]
    fn zeroes_are_no_record() {
        assert_eq!(parse(&[0; 64]), Parsed::Damaged);
    }
}
