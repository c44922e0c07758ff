//! Prometheus remote write: encoders from batches, decoders into batches, versions 1 and 2.
