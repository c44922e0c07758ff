//! Prometheus remote write: encoders from interned series, decoders into batches, versions 1 and 2.
//!
//! [`RequestEncoder`] is what a sender fills; [`decompress`] and [`decode()`] are what a receiver calls. [`message`] holds the
//! parts that the write-ahead log stores as they are sent.

mod decode;
mod encode;
pub mod message;
mod series_memory;
mod symbols;
#[cfg(test)]
mod tests;
pub mod wire;

pub use decode::{DecodeError, DecodeLimits, DecodedRequest, decode, decode_remembering, decompress};
pub use encode::{EncodedRequest, RequestEncoder, SeriesDetails};
pub use series_memory::SeriesMemory;

/// The versions of the protocol, by the message they send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `prometheus.WriteRequest`.
    V1,
    /// `io.prometheus.write.v2.Request`.
    V2,
}

/// What a request holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestCounts {
    /// Float samples.
    pub samples: usize,
    /// Native histograms.
    pub histograms: usize,
    /// Exemplars.
    pub exemplars: usize,
    /// Metadata of families.
    pub metadata: usize,
    /// The oldest and the newest timestamp of samples and histograms, Unix milliseconds.
    pub range: Option<(i64, i64)>,
}

impl Protocol {
    /// The name that configuration and content types use.
    pub const fn message_name(self) -> &'static str {
        match self {
            Self::V1 => "prometheus.WriteRequest",
            Self::V2 => "io.prometheus.write.v2.Request",
        }
    }

    /// The protocol that sends the message of this name.
    pub fn from_message_name(name: &str) -> Option<Self> {
        [Self::V1, Self::V2].into_iter().find(|protocol| protocol.message_name() == name)
    }
}

impl RequestCounts {
    /// Widens the range of timestamps.
    pub fn observe(&mut self, timestamp: i64) {
        let (oldest, newest) = self.range.unwrap_or((timestamp, timestamp));
        self.range = Some((oldest.min(timestamp), newest.max(timestamp)));
    }

    /// Samples and histograms together.
    pub fn points(&self) -> usize {
        self.samples + self.histograms
    }
}
