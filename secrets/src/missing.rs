//! What becomes of the users of a secret that its store has no more: the object was deleted, or a field of it was.

use schemars::JsonSchema;
use serde::Deserialize;

/// What users of a secret get once its store has it no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WhenMissing {
    /// The value that they had stays in use. A secret that was never there is an error.
    #[default]
    Keep,
    /// An empty text, also where it was never there. Credentials of the settings are never empty: they are missing.
    Empty,
}
