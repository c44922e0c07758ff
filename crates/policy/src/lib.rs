//! The local ceiling: what a source of configuration may use of this host. `[policy]` of the settings becomes a [`Policy`];
//! the engine asks it for the [`Access`] of whoever wrote an expression and hands that to whatever opens something. Stands
//! below every room that opens files, connects or listens, and knows none of them.
//!
//! A key that is absent restricts nothing; one that is present is the ceiling. Where several ceilings apply, because a
//! component was written by several sources, all of them have to allow it.

mod access;
mod files;
mod pattern;
mod settings;

pub use access::{Access, Policy, Reach, Refusal};
pub use pattern::{Destination, ListenPattern, NamePattern, PatternError};
pub use settings::{PolicyError, PolicyLimits, PolicySettings, SourcePolicySettings};
