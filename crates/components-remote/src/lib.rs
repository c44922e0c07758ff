//! The local.* and remote.* components.
