//! The guarantees of the design, each by tests that would fail without it, on real agent processes, real Git servers
//! and real kills. One module a guarantee.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../servers/http/scripted.rs"]
#[allow(dead_code, unreachable_pub)]
mod scripted;

mod agent_blocks;
mod bad_input;
mod fleet;
mod history;
mod policy;
mod receive;
mod remotecfg;
mod secret_outputs;
mod secret_rotation;
mod secret_stores;
mod superseded;
mod variables;
mod webhooks;

mod g1_nothing_half_applies;
mod g3_nothing_is_lost;
mod g4_untouched;
mod g5_undone;
mod g6_always_boots;
mod g8_secrets;
mod g9_says_what_is_so;
mod modules;
