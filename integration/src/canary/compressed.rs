//! What is compressed within a file: streams of zlib and gzip wherever they begin (objects and packs of Git are made of the
//! former), framed streams of snappy, and the compressed records of the agent's own log.

use std::io::Read;

/// The most that is looked at of one stream.
const LARGEST: u64 = 4 << 20;
/// What a framed stream of snappy begins with.
const SNAPPY: &[u8] = b"\xff\x06\x00\x00sNaPpY";
/// What a segment of a log begins with.
const LOG: &[u8] = b"invarwal";
/// Its length, and that of what stands before each payload: checksum, length, kind.
const LOG_HEADER: usize = 16;
const FRAME_HEADER: usize = 9;

/// All that is compressed within these bytes, decompressed.
pub(super) fn contents(file: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    for start in 0..file.len().saturating_sub(2) {
        let rest = &file[start..];
        let limited: &mut dyn Read = match rest {
            [0x1f, 0x8b, 8, ..] => &mut flate2::read::GzDecoder::new(rest).take(LARGEST),
            [first, second, ..] if is_zlib(*first, *second) => {
                &mut flate2::read::ZlibDecoder::new(rest).take(LARGEST)
            }
            _ if rest.starts_with(SNAPPY) => &mut snap::read::FrameDecoder::new(rest).take(LARGEST),
            _ => continue,
        };
        // What is no stream after all ends with an error; what came before it counts.
        drop(limited.read_to_end(&mut all));
    }
    if file.starts_with(LOG) {
        records(file.get(LOG_HEADER..).unwrap_or_default(), &mut all);
    } else if let Ok(whole) = snap::raw::Decoder::new().decompress_vec(file) {
        all.extend(whole);
    }
    all
}

fn is_zlib(first: u8, second: u8) -> bool {
    first == 0x78 && (u16::from(first) << 8 | u16::from(second)).is_multiple_of(31)
}

/// The payloads of a log's records, of those that are compressed.
fn records(mut log: &[u8], all: &mut Vec<u8>) {
    while let Some(length) = log.get(4..8).and_then(|length| length.try_into().ok()) {
        let end = FRAME_HEADER.saturating_add(u32::from_le_bytes(length) as usize);
        let Some(payload) = log.get(FRAME_HEADER..end) else { return };
        if let Ok(text) = snap::raw::Decoder::new().decompress_vec(payload) {
            all.extend(text);
        }
        log = &log[end..];
    }
}
