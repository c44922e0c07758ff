//! The `logging` block: the agent's own log, applied through a control that the binary offers in [`crate::Services`]. The
//! engine applies it right after a swap and again after a rollback, so that a broken configuration's logging goes with it.

use std::sync::Arc;

use invar_syntax::arguments::{ArgumentEnum, Arguments, DecodeError};
use invar_syntax::evaluate::EvaluatedBody;
use invar_syntax::schema::Schema;
use invar_syntax::value::Value;

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

/// The arguments of the block.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub(crate) struct LoggingArguments {
    /// The lowest level that is logged: `error`, `warn`, `info` or `debug`.
    #[argument(default = "\"info\"", type_note = "logging.Level")]
    level: Level,
    /// `logfmt` or `json`.
    #[argument(default = "\"logfmt\"", type_note = "logging.Format")]
    format: Format,
    /// Receivers of the agent's own log lines. Not supported yet: only an empty list is accepted.
    write_to: Vec<Value>,
    /// Where the log goes: `stderr`.
    #[argument(default = "\"stderr\"")]
    destination: String,
}

#[derive(ArgumentEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Level {
    #[argument(name = "error")]
    Error,
    #[argument(name = "warn")]
    Warn,
    #[default]
    #[argument(name = "info")]
    Info,
    #[argument(name = "debug")]
    Debug,
}

#[derive(ArgumentEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Format {
    #[default]
    #[argument(name = "logfmt")]
    Logfmt,
    #[argument(name = "json")]
    Json,
}

/// The shape of the block.
pub(crate) fn schema() -> Schema {
    LoggingArguments::schema()
}

/// The settings that an evaluated block says.
pub(crate) fn decode(body: &EvaluatedBody, errors: &mut Vec<DecodeError>) -> Option<LogSettings> {
    LoggingArguments::decode(body, errors).map(|arguments| arguments.settings())
}

/// Applies `settings` if the binary offers a control.
pub(crate) fn apply(services: &Services, settings: &LogSettings) {
    if let Some(control) = services.get::<LogControlService>() {
        control.0.apply(settings);
    }
}

// === impl LogSettings ===

impl Default for LogSettings {
    /// What holds without the block.
    fn default() -> Self {
        Self { level: "info".to_owned(), format: "logfmt".to_owned() }
    }
}

// === impl LoggingArguments ===

impl LoggingArguments {
    fn settings(&self) -> LogSettings {
        let level = match self.level {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        };
        let format = match self.format {
            Format::Logfmt => "logfmt",
            Format::Json => "json",
        };
        LogSettings { level: level.to_owned(), format: format.to_owned() }
    }

    fn validate(&self) -> Vec<(&'static str, String)> {
        let mut errors = Vec::new();
        if !self.write_to.is_empty() {
            errors
                .push(("write_to", "the agent's log cannot be sent to components yet: remove it".to_owned()));
        }
        match self.destination.as_str() {
            "stderr" => {}
            "windows_event_log" => errors
                .push(("destination", "windows_event_log exists on Windows only: use stderr".to_owned())),
            other => errors.push(("destination", format!("unknown destination {other:?}: use stderr"))),
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use invar_syntax::evaluate::evaluate_body;
    use invar_syntax::scope::EmptyScope;
    use parking_lot::Mutex;

    use super::*;

    fn settings(text: &str) -> Result<LogSettings, Vec<String>> {
        let (file, _) = invar_syntax::parse_bytes("test", text.as_bytes());
        let body = evaluate_body(&file.unwrap().body, &EmptyScope).unwrap();
        let mut errors = Vec::new();
        decode(&body, &mut errors).ok_or_else(|| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_empty_block_means_what_no_block_means() {
        assert_eq!(settings("").unwrap(), LogSettings::default());
        let all = settings("level = \"debug\"\nformat = \"json\"\nwrite_to = []\ndestination = \"stderr\"")
            .unwrap();
        assert_eq!(all, LogSettings { level: "debug".to_owned(), format: "json".to_owned() });
    }

    #[test]
    fn unknown_words_are_refused_by_name() {
        for (text, part) in [
            ("level = \"trace\"", "level"),
            ("format = \"xml\"", "format"),
            ("destination = \"syslog\"", "destination"),
        ] {
            let errors = settings(text).unwrap_err();
            assert!(errors.iter().any(|error| error.contains(part)), "{text}: {errors:?}");
        }
    }

    #[test]
    fn the_binarys_control_gets_the_settings() {
        #[derive(Default)]
        struct Recorder(Mutex<Vec<LogSettings>>);
        impl LogControl for Recorder {
            fn apply(&self, settings: &LogSettings) {
                self.0.lock().push(settings.clone());
            }
        }
        let services = Services::new();
        apply(&services, &LogSettings::default());
        let recorder = Arc::new(Recorder::default());
        services.insert(Arc::new(LogControlService(Arc::clone(&recorder) as Arc<dyn LogControl>)));
        apply(&services, &LogSettings::default());
        assert_eq!(*recorder.0.lock(), [LogSettings::default()]);
    }
}
