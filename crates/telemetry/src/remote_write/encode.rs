//! Encoders: samples of interned series go straight into the protobuf bytes of a request, in a buffer that is reused.
//!
//! A request is filled sample by sample and then taken, compressed. External labels are merged at this point, sorted,
//! never overriding a label of the series; labels that begin with `__` stay behind, except the metric name.

use crate::labels::{Labels, METRIC_NAME};
use crate::series::Series;
use crate::symbol::SymbolReader;
use crate::{MetricKind, MetricMetadata};

use super::message::{self, ExemplarMessage};
use super::symbols::{RequestSymbols, Text};
use super::wire::{
    put_bytes_field, put_double_field, put_message, put_varint, put_varint_field, varint_length, zigzag,
};
use super::{Protocol, RequestCounts};

/// What else is known about a series when one of its samples is encoded. Only protocol version 2 carries it.
#[derive(Debug, Clone, Copy, Default)]
pub struct SeriesDetails<'a> {
    /// When counting began, Unix milliseconds.
    pub created: Option<i64>,
    /// Metadata of the series' family.
    pub metadata: Option<&'a MetricMetadata>,
}

/// Builds one request after the other.
#[derive(Debug)]
pub struct RequestEncoder {
    protocol: Protocol,
    external: Labels,
    body: Vec<u8>,
    assembled: Vec<u8>,
    references: Vec<u32>,
    symbols: RequestSymbols,
    compressor: snap::raw::Encoder,
    /// Where requests are compressed; as long as the largest of them could have become.
    compressed: Vec<u8>,
    counts: RequestCounts,
}

/// A finished request body.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedRequest {
    /// The snappy block.
    pub body: Vec<u8>,
    /// Size of the protobuf message before compression, bytes.
    pub uncompressed: usize,
    /// What is in it.
    pub counts: RequestCounts,
}

// === impl RequestEncoder ===

impl RequestEncoder {
    /// An encoder for one endpoint.
    pub fn new(protocol: Protocol, external: Labels) -> Self {
        Self {
            protocol,
            external,
            body: Vec::new(),
            assembled: Vec::new(),
            references: Vec::new(),
            symbols: RequestSymbols::default(),
            compressor: snap::raw::Encoder::new(),
            compressed: Vec::new(),
            counts: RequestCounts::default(),
        }
    }

    /// The protocol it speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// What the request holds so far.
    pub fn counts(&self) -> &RequestCounts {
        &self.counts
    }

    /// Bytes of the request so far, uncompressed, without the symbol table of version 2.
    pub fn len(&self) -> usize {
        self.body.len()
    }

    /// Whether nothing was added since the last request was taken.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// Adds a float sample.
    pub fn sample(
        &mut self,
        reader: &SymbolReader,
        series: &Series,
        timestamp: i64,
        value: f64,
        details: SeriesDetails<'_>,
    ) {
        self.counts.samples += 1;
        self.counts.observe(timestamp);
        match self.protocol {
            Protocol::V1 => {
                let external = &self.external;
                put_message(&mut self.body, 1, |out| {
                    put_labels(out, reader, series, external);
                    put_sample(out, timestamp, value, None);
                });
            }
            Protocol::V2 => self.series_v2(reader, series, details, |out, _| {
                put_sample(out, timestamp, value, details.created);
            }),
        }
    }

    /// Adds a native histogram whose message is already encoded (see [`message::put_histogram`]).
    pub fn histogram(
        &mut self,
        reader: &SymbolReader,
        series: &Series,
        timestamp: i64,
        encoded: &[u8],
        details: SeriesDetails<'_>,
    ) {
        self.counts.histograms += 1;
        self.counts.observe(timestamp);
        match self.protocol {
            Protocol::V1 => {
                let external = &self.external;
                put_message(&mut self.body, 1, |out| {
                    put_labels(out, reader, series, external);
                    put_bytes_field(out, 4, encoded);
                });
            }
            Protocol::V2 => self.series_v2(reader, series, details, |out, _| {
                put_message(out, 3, |out| {
                    out.extend_from_slice(encoded);
                    put_varint_field(out, 17, details.created.unwrap_or(0) as u64);
                });
            }),
        }
    }

    /// Adds an exemplar whose version 1 message is already encoded (see [`message::put_exemplar`]). Damaged bytes add nothing.
    pub fn exemplar(&mut self, reader: &SymbolReader, series: &Series, encoded: &[u8]) {
        let Ok(exemplar) = ExemplarMessage::parse(encoded) else { return };
        self.counts.exemplars += 1;
        match self.protocol {
            Protocol::V1 => {
                let external = &self.external;
                put_message(&mut self.body, 1, |out| {
                    put_labels(out, reader, series, external);
                    put_bytes_field(out, 3, encoded);
                });
            }
            Protocol::V2 => self.series_v2(reader, series, SeriesDetails::default(), |out, symbols| {
                put_message(out, 4, |out| {
                    put_message(out, 1, |out| {
                        for (name, value) in exemplar.labels() {
                            put_varint(out, u64::from(symbols.text(name)));
                            put_varint(out, u64::from(symbols.text(value)));
                        }
                    });
                    put_double_field(out, 2, exemplar.value);
                    put_varint_field(out, 3, exemplar.timestamp.unwrap_or(0) as u64);
                });
            }),
        }
    }

    /// Adds the metadata of a family. Version 2 carries metadata with the series, so there it adds nothing.
    pub fn metadata(&mut self, metadata: &MetricMetadata) {
        if self.protocol == Protocol::V1 {
            self.counts.metadata += 1;
            put_message(&mut self.body, 3, |out| message::put_metadata(out, metadata));
        }
    }

    /// Takes the request, compressed, and starts the next. `None` if nothing was added, or if it is larger than a
    /// snappy block can be (4 GiB).
    pub fn take(&mut self) -> Option<EncodedRequest> {
        if self.body.is_empty() {
            return None;
        }
        let message = match self.protocol {
            Protocol::V1 => &self.body,
            Protocol::V2 => {
                self.assembled.clear();
                self.symbols.put(&mut self.assembled);
                self.assembled.extend_from_slice(&self.body);
                &self.assembled
            }
        };
        let uncompressed = message.len();
        let room = snap::raw::max_compress_len(uncompressed);
        if self.compressed.len() < room {
            // Made anew, since pages that were never touched cost nothing, and most of them never will be.
            self.compressed = vec![0; room.next_power_of_two()];
        }
        let compressed = self.compressor.compress(message, &mut self.compressed);
        let body = compressed.map(|length| self.compressed[..length].to_vec());
        self.body.clear();
        self.symbols.clear();
        let counts = std::mem::take(&mut self.counts);
        Some(EncodedRequest { body: body.ok()?, uncompressed, counts })
    }

    fn series_v2(
        &mut self,
        reader: &SymbolReader,
        series: &Series,
        details: SeriesDetails<'_>,
        content: impl FnOnce(&mut Vec<u8>, &mut RequestSymbols),
    ) {
        let Self { body, references, symbols, external, .. } = self;
        references.clear();
        let mut length = 0;
        each_label(reader, series, external, |name, value| {
            for text in [name, value] {
                let reference = symbols.reference(text, reader);
                length += varint_length(u64::from(reference));
                references.push(reference);
            }
        });
        put_message(body, 5, |out| {
            if !references.is_empty() {
                out.push(1 << 3 | 2);
                put_varint(out, length as u64);
                for reference in references.iter() {
                    put_varint(out, u64::from(*reference));
                }
            }
            content(out, symbols);
            if let Some(metadata) = details.metadata {
                put_message(out, 5, |out| {
                    put_varint_field(out, 1, u64::from(kind_number(metadata.kind)));
                    put_varint_field(out, 3, u64::from(symbols.text(&metadata.help)));
                    put_varint_field(out, 4, u64::from(symbols.text(&metadata.unit)));
                });
            }
            put_varint_field(out, 6, details.created.unwrap_or(0) as u64);
        });
    }
}

/// Both versions number the kinds alike.
pub(super) fn kind_number(kind: MetricKind) -> u32 {
    match kind {
        MetricKind::Unknown => 0,
        MetricKind::Counter => 1,
        MetricKind::Gauge => 2,
        MetricKind::Histogram => 3,
        MetricKind::GaugeHistogram => 4,
        MetricKind::Summary => 5,
        MetricKind::Info => 6,
        MetricKind::StateSet => 7,
    }
}

/// Whether a label goes over the wire: reserved names do not.
#[inline]
fn travels(name: &str) -> bool {
    !name.starts_with("__") || name == METRIC_NAME
}

/// Hands on what of a series' labels and the external ones goes over the wire, in order of the names.
#[inline]
pub(super) fn each_label<'a>(
    reader: &'a SymbolReader,
    series: &'a Series,
    external: &'a Labels,
    mut each: impl FnMut(Text<'a>, Text<'a>),
) {
    let mut added = external.iter().filter(|(name, _)| travels(name)).peekable();
    for (name, value) in series.symbols() {
        let text = reader.get(name);
        if !travels(text) {
            continue;
        }
        while let Some((external_name, external_value)) = added.next_if(|(external, _)| *external < text) {
            each(Text::Plain(external_name), Text::Plain(external_value));
        }
        // The series' own label wins.
        let _ = added.next_if(|(external, _)| *external == text);
        each(Text::Symbol(name), Text::Symbol(value));
    }
    for (name, value) in added {
        each(Text::Plain(name), Text::Plain(value));
    }
}

#[inline]
fn put_labels(out: &mut Vec<u8>, reader: &SymbolReader, series: &Series, external: &Labels) {
    if external.is_empty() {
        for (name, value) in series.labels(reader) {
            if travels(name) {
                put_label(out, name, value);
            }
        }
    } else {
        each_label(reader, series, external, |name, value| {
            put_label(out, name.resolve(reader), value.resolve(reader));
        });
    }
}

/// A version 1 label as element of field 1.
#[inline]
pub(super) fn put_label(out: &mut Vec<u8>, name: &str, value: &str) {
    // Most labels are short: then each length is one byte, and one look at the buffer's capacity will do.
    if let (name_length @ 0..=60, value_length @ 0..=60) = (name.len(), value.len()) {
        out.reserve(6 + name_length + value_length);
        let length = 4 + name_length + value_length;
        out.extend_from_slice(&[1 << 3 | 2, length as u8, 1 << 3 | 2, name_length as u8]);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&[2 << 3 | 2, value_length as u8]);
        out.extend_from_slice(value.as_bytes());
        return;
    }
    let length =
        2 + varint_length(name.len() as u64) + name.len() + varint_length(value.len() as u64) + value.len();
    out.push(1 << 3 | 2);
    put_varint(out, length as u64);
    put_bytes_field(out, 1, name.as_bytes());
    put_bytes_field(out, 2, value.as_bytes());
}

/// A sample as element of field 2, alike in both versions.
#[inline]
fn put_sample(out: &mut Vec<u8>, timestamp: i64, value: f64, created: Option<i64>) {
    let created = created.unwrap_or(0) as u64;
    let mut length = 0;
    if value.to_bits() != 0 {
        length += 9;
    }
    if timestamp != 0 {
        length += 1 + varint_length(timestamp as u64);
    }
    if created != 0 {
        length += 1 + varint_length(created);
    }
    out.push(2 << 3 | 2);
    out.push(length as u8);
    put_double_field(out, 1, value);
    put_varint_field(out, 2, timestamp as u64);
    put_varint_field(out, 3, created);
}

/// Zigzag as `sint32` and `sint64` fields want it.
pub(super) fn put_sint_field(out: &mut Vec<u8>, number: u32, value: i64) {
    put_varint_field(out, number, zigzag(value));
}
