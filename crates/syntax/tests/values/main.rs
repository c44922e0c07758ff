//! Values, evaluation, decoding and checking, seen from outside the crate.
#![allow(clippy::unwrap_used)]

mod conformance;
