//! The `logging` block: the agent's own log, applied through a control that the binary offers in [`crate::Services`].

use std::sync::Arc;

use invar_syntax::arguments::DecodeError;
use invar_syntax::evaluate::EvaluatedBody;
use invar_syntax::schema::Schema;

use crate::services::Services;

/// What the `logging` block says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogSettings {
    /// `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// `logfmt` or `json`.
    pub format: String,
}

/// Changes the agent's log while it runs; the binary offers one as `Arc<dyn LogControl>` wrapped in [`LogControlService`].
pub trait LogControl: Send + Sync {
    /// Applies `settings`. Quick and infallible: it runs right after a swap.
    fn apply(&self, settings: &LogSettings);
}

/// The form in which a [`LogControl`] stands in [`Services`].
pub struct LogControlService(pub Arc<dyn LogControl>);

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: "logfmt".to_owned() }
    }
}

/// The shape of the block.
pub(crate) fn schema() -> Schema {
    Schema { fields: Vec::new() }
}

/// The settings that an evaluated block says.
pub(crate) fn decode(_body: &EvaluatedBody, _errors: &mut Vec<DecodeError>) -> Option<LogSettings> {
    Some(LogSettings::default())
}

/// Applies `settings` if the binary offers a control.
pub(crate) fn apply(services: &Services, settings: &LogSettings) {
    if let Some(control) = services.get::<LogControlService>() {
        control.0.apply(settings);
    }
}
