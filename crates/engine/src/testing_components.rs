//! Components that misbehave on command, for tests of the engine and of probation. Release builds lack them.

use crate::registry::Registry;

/// Adds the `testing.*` components.
#[must_use]
pub fn register(registry: Registry) -> Registry {
    registry
}
