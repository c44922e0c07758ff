//! The `invar_*` metrics of the rollout.

/// Collectors of the rollout.
#[derive(Clone, Debug)]
pub(crate) struct RolloutMetrics {}

impl RolloutMetrics {
    pub(crate) fn register(_registry: &prometheus::Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {})
    }
}
