//! Benchmarks and load drivers. Micro-benchmarks are in `benches/`; whole-process drivers, which run an agent beside a
//! real peer and print ratios, are in `src/bin/`. `docs/performance.md` says how to reproduce every figure.

pub mod process;
pub mod sink;
