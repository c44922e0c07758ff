//! Benchmarks and load drivers.
