//! The agent's own log: to standard error, in logfmt or JSON, at a level that the `logging` block of the running
//! configuration decides. A swap changes both without a line lost; a rollback changes them back.

mod line;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use invar_engine::LogControl;
use invar_engine::logging::{LogControlService, LogSettings};
use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

/// What the engine calls when the `logging` block says something else.
struct Control {
    filter: reload::Handle<Targets, Registry>,
    json: Arc<AtomicBool>,
}

/// Starts the log with its defaults, and gives the service through which the engine controls it.
pub(crate) fn start() -> Arc<LogControlService> {
    let json = Arc::new(AtomicBool::new(false));
    let (filter, handle) = reload::Layer::new(targets(&LogSettings::default()));
    let layer = fmt::layer().with_writer(std::io::stderr).event_format(line::Line::new(Arc::clone(&json)));
    // A second start in one process (tests) keeps the first subscriber.
    drop(tracing::subscriber::set_global_default(
        tracing_subscriber::registry().with(layer.with_filter(filter)),
    ));
    Arc::new(LogControlService(Arc::new(Control { filter: handle, json })))
}

impl LogControl for Control {
    fn apply(&self, settings: &LogSettings) {
        self.json.store(settings.format == "json", Ordering::Relaxed);
        if let Err(error) = self.filter.reload(targets(settings)) {
            tracing::error!(%error, "the log keeps its old level");
        }
    }
}

fn targets(settings: &LogSettings) -> Targets {
    let level = match settings.level.as_str() {
        "debug" => Level::DEBUG,
        "warn" => Level::WARN,
        "error" => Level::ERROR,
        _ => Level::INFO,
    };
    // Third-party crates say at debug what is of use to their authors only.
    Targets::new().with_default(LevelFilter::from_level(level.min(Level::INFO))).with_target("invar", level)
}
