//! Arbitrary pages of the OpenMetrics exposition format.

#![no_main]

mod exposition;

use invar_telemetry::exposition::ExpositionFormat;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|page: &[u8]| exposition::check(ExpositionFormat::OpenMetrics1_0_0, page));
