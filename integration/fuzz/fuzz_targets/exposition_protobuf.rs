//! Arbitrary pages of the Prometheus protobuf exposition format.

#![no_main]

mod exposition;

use invar_telemetry::exposition::ExpositionFormat;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|page: &[u8]| exposition::check(ExpositionFormat::PrometheusProto, page));
