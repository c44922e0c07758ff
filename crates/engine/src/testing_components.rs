//! Components that misbehave on command, for tests of the engine and of probation. Release builds lack them.
//!
//! [`alloy`] has the `testcomponents.*` of Alloy's own tests.
//!
//! `testing.source` makes numbered samples, `testing.sink` counts them or refuses them, `testing.fault` panics, leaks, aborts
//! and fails to prepare. They take commands as arguments, and the sink also as requests under its component path, so that an
//! end-to-end test can change its behaviour without changing the configuration.

pub mod alloy;
mod fault;
mod sink;
mod source;
#[cfg(test)]
mod tests;

use crate::registry::Registry;

pub use fault::TestingFault;
pub use sink::{SinkCounts, TestingSink};
pub use source::TestingSource;

/// Adds the `testing.*` components, and those of Alloy's tests.
#[must_use]
pub fn register(registry: Registry) -> Registry {
    alloy::register(registry).with::<TestingFault>().with::<TestingSink>().with::<TestingSource>()
}
