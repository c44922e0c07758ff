//! The data model of the telemetry signals and their wire codecs.
