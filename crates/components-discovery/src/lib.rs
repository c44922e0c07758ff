//! The discovery.* components.
