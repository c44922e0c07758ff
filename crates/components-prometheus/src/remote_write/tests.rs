//! The component against receivers on loopback.
#![allow(clippy::unwrap_used)]
