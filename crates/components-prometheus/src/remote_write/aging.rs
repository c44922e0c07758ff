//! Drops what became too old from a request that waits to be sent again. Rare, so it works on the encoded bytes instead of
//! keeping samples beside them.

use invar_telemetry::remote_write::wire::{Fields, WireError, put_bytes_field};
use invar_telemetry::remote_write::{EncodedRequest, Protocol, RequestCounts, decompress};

/// The request without samples and histograms older than `oldest` (Unix milliseconds), and how many those were. `None` if the
/// bytes cannot be read, which would be a defect of the encoder: the request is then sent as it is.
pub(super) fn without_older(
    protocol: Protocol,
    request: &EncodedRequest,
    oldest: i64,
) -> Option<(EncodedRequest, usize)> {
    let message = decompress(&request.body, request.uncompressed).ok()?;
    let (series_field, histogram_field) = match protocol {
        Protocol::V1 => (1, 4),
        Protocol::V2 => (5, 3),
    };
    let mut kept = Vec::with_capacity(message.len());
    let mut counts = RequestCounts {
        exemplars: request.counts.exemplars,
        metadata: request.counts.metadata,
        ..Default::default()
    };
    let mut dropped = 0;
    let mut fields = Fields::new(&message);
    while let Some((number, value)) = fields.next_field().ok()? {
        let bytes = value.bytes(number).ok()?;
        if number == series_field {
            match point(bytes, histogram_field).ok()? {
                Some((_, timestamp)) if timestamp < oldest => {
                    dropped += 1;
                    continue;
                }
                Some((histogram, timestamp)) => {
                    *(if histogram { &mut counts.histograms } else { &mut counts.samples }) += 1;
                    counts.observe(timestamp);
                }
                None => {}
            }
        }
        put_bytes_field(&mut kept, number, bytes);
    }
    let body = snap::raw::Encoder::new().compress_vec(&kept).ok()?;
    Some((EncodedRequest { body, uncompressed: kept.len(), counts }, dropped))
}

/// Whether the one point of a series is a histogram, and its timestamp.
fn point(series: &[u8], histogram_field: u32) -> Result<Option<(bool, i64)>, WireError> {
    let mut fields = Fields::new(series);
    while let Some((number, value)) = fields.next_field()? {
        let timestamp_field = match number {
            2 => 2,
            number if number == histogram_field => 15,
            _ => continue,
        };
        let mut inner = Fields::new(value.bytes(number)?);
        let mut timestamp = 0;
        while let Some((field, value)) = inner.next_field()? {
            if field == timestamp_field {
                timestamp = value.varint(field)? as i64;
            }
        }
        return Ok(Some((number == histogram_field, timestamp)));
    }
    Ok(None)
}
