//! The `[rollout]` and `[state]` tables of the settings file, as the operator of the host writes them.
//! Every key has a default; unknown keys are errors.

use std::path::PathBuf;
use std::time::Duration;

use invar_secrets::OfflineSettings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::duration_text;

/// `[rollout]`: when a candidate is applied, how long it is watched and what happens when it was bad.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RolloutSettings {
    /// How long sources must be quiet before what they have is composed.
    pub quiesce: QuiesceSettings,
    /// Least time between two applies; candidates in between coalesce to the newest.
    #[serde(with = "duration_text")]
    #[schemars(with = "String", regex(pattern = r"^([0-9]+(ms|s|m|h|d))+$"))]
    pub min_gap: Duration,
    /// The watch after a swap.
    pub probation: ProbationSettings,
    /// Who undoes a bad candidate.
    pub rollback: RollbackMode,
    /// A local configuration that runs when nothing else can.
    pub fallback: Option<PathBuf>,
}

impl Default for RolloutSettings {
    fn default() -> Self {
        Self {
            quiesce: QuiesceSettings::default(),
            min_gap: Duration::from_secs(1),
            probation: ProbationSettings::default(),
            rollback: RollbackMode::Auto,
            fallback: None,
        }
    }
}

/// `quiesce = { min, max }`: each change starts `min` again, `max` is the latest moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QuiesceSettings {
    /// Quiet time that ends the wait. Default 200 ms.
    #[serde(with = "duration_text")]
    #[schemars(with = "String", regex(pattern = r"^([0-9]+(ms|s|m|h|d))+$"))]
    pub min: Duration,
    /// Longest wait since the first change. Default 10 s.
    #[serde(with = "duration_text")]
    #[schemars(with = "String", regex(pattern = r"^([0-9]+(ms|s|m|h|d))+$"))]
    pub max: Duration,
}

impl Default for QuiesceSettings {
    fn default() -> Self {
        Self { min: Duration::from_millis(200), max: Duration::from_secs(10) }
    }
}

/// `probation = { window, on_inconclusive }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProbationSettings {
    /// How long a candidate is watched before it becomes last known good. Zero: not at all. Default 2 min.
    #[serde(with = "duration_text")]
    #[schemars(with = "String", regex(pattern = r"^([0-9]+(ms|s|m|h|d))+$"))]
    pub window: Duration,
    /// What happens when the world, not the candidate, seems to be the cause and the extended window ends.
    pub on_inconclusive: OnInconclusive,
}

impl Default for ProbationSettings {
    fn default() -> Self {
        Self { window: Duration::from_secs(120), on_inconclusive: OnInconclusive::Commit }
    }
}

/// Verdict for a probation that could not tell the candidate from the world.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnInconclusive {
    /// Extend the window once, then commit with a warning.
    Commit,
    /// Extend the window once, then return to last known good.
    Rollback,
    /// Stay in probation until the picture clears or an operator decides.
    Hold,
}

/// Who undoes a bad candidate.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RollbackMode {
    /// The agent, at once.
    Auto,
    /// An operator: the agent reports what failed and stays in probation.
    Manual,
}

/// `[state]`: where control state lives, how much of it is kept, and what a start runs first.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StateSettings {
    /// The state directory. Default `/var/lib/invar`.
    pub dir: PathBuf,
    /// How many revisions are kept (at most 64 MiB of them). Default 20.
    pub history: usize,
    /// What a start runs first.
    pub boot: BootMode,
    /// Whether values of secrets are kept, encrypted, for a start while their store is out of reach. Default `"deny"`.
    pub offline_secrets: OfflineSettings,
}

impl Default for StateSettings {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("/var/lib/invar"),
            history: 20,
            boot: BootMode::CacheFirst,
            offline_secrets: OfflineSettings::Deny,
        }
    }
}

/// What a start runs first.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BootMode {
    /// Last known good from disk at once; the sources reconcile afterwards.
    CacheFirst,
    /// Wait 30 s for the sources, then last known good from disk.
    RemoteFirst,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_documented_sample_is_accepted() {
        let settings: RolloutSettings = toml::from_str(
            r#"
            quiesce   = { min = "200ms", max = "10s" }
            min_gap   = "1s"
            probation = { window = "2m", on_inconclusive = "commit" }
            rollback  = "auto"
            fallback  = "/etc/invar/fallback.alloy"
            "#,
        )
        .unwrap();
        assert_eq!(
            settings,
            RolloutSettings {
                fallback: Some("/etc/invar/fallback.alloy".into()),
                ..RolloutSettings::default()
            }
        );
        let state: StateSettings =
            toml::from_str("dir = \"/x\"\nhistory = 3\nboot = \"remote-first\"").unwrap();
        assert_eq!(state.boot, BootMode::RemoteFirst);
    }

    #[test]
    fn unknown_keys_are_errors() {
        assert!(toml::from_str::<RolloutSettings>("min_gaps = \"1s\"").is_err());
        assert!(toml::from_str::<RolloutSettings>("probation = { windo = \"1s\" }").is_err());
    }
}
