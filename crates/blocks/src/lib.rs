//! Argument blocks and values that several ecosystems of components share.
