//! The prometheus.* components.
