//! A language server for pipelines: what an editor shows while one is written. Findings of the static check, completion,
//! documentation, navigation, symbols, formatting and renaming, all from what the code declares about itself.
//!
//! A text that is being written is broken most of the time, and the parser keeps no tree of a broken one. So everything but
//! the findings works on an [`outline`] made from tokens. [`server`] holds the conversation; [`document`] is what is known of
//! one text, [`workspace`] of one folder; [`context`] says what a place in a text is about; the rest are the answers.
//!
//! Invariants: no input makes it panic (and a panic would cost one answer); nothing here changes a file; checks run beside
//! the conversation and never delay it. The binary passes in the check and the formatter, so that this room stands beside
//! the agent and not on it.

mod completion;
mod context;
mod diagnostics;
mod document;
mod hover;
mod layers;
mod navigation;
mod outline;
mod position;
mod server;
mod symbols;
#[cfg(test)]
mod tests;
mod variables;
mod workspace;

pub use diagnostics::{Check, CheckInput};
pub use server::{Format, Host, ServeError, serve_stdio};
