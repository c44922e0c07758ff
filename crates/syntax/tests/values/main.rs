//! Values, evaluation, decoding and checking, seen from outside the crate.
#![allow(clippy::unwrap_used)]

mod check;
mod conformance;
mod decode;
mod language;
mod library;
mod schema;
mod secrets;
mod shapes;
