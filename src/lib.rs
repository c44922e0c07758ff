//! The agent: its command line, its settings, its HTTP API, and the wiring of the rooms below into one process.
//!
//! [`cli::main`] is the way in. `agent` wires the rooms; nothing below this crate knows more than its own room.

mod agent;
mod blocks;
pub mod cli;
mod encrypted_files;
mod exit;
mod log;
mod module_feed;
mod planning;
mod registry;
mod secrets;
mod server;
mod settings;
mod store_secrets;
mod tls;
mod webhook;
