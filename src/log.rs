//! The agent's own log: to standard error, in logfmt or JSON, at a level that the `logging` block of the running
//! configuration decides. A swap changes both without a line lost; a rollback changes them back.

use std::sync::Arc;

use invar_engine::LogControl;
use invar_engine::logging::{LogControlService, LogSettings};
use tracing::Level;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

type Output = Box<dyn Layer<Registry> + Send + Sync>;

/// What the engine calls when the `logging` block says something else.
struct Control {
    output: reload::Handle<Output, Registry>,
}

/// Starts the log with its defaults, and gives the service through which the engine controls it.
pub(crate) fn start() -> Arc<LogControlService> {
    let defaults = LogSettings::default();
    let (layer, output) = reload::Layer::new(output(&defaults));
    // A second start in one process (tests) keeps the first subscriber.
    drop(tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)));
    Arc::new(LogControlService(Arc::new(Control { output })))
}

impl LogControl for Control {
    fn apply(&self, settings: &LogSettings) {
        if let Err(error) = self.output.reload(output(settings)) {
            tracing::error!(%error, "the log keeps its old settings");
        }
    }
}

fn output(settings: &LogSettings) -> Output {
    let level = match settings.level.as_str() {
        "debug" => Level::DEBUG,
        "warn" => Level::WARN,
        "error" => Level::ERROR,
        _ => Level::INFO,
    };
    // Third-party crates say at debug what is of use to their authors only.
    let targets = tracing_subscriber::filter::Targets::new()
        .with_default(LevelFilter::from_level(level.min(Level::INFO)))
        .with_target("invar", level);
    let layer = fmt::layer().with_writer(std::io::stderr).with_target(false);
    if settings.format == "json" {
        layer.json().flatten_event(true).with_filter(targets).boxed()
    } else {
        layer.event_format(logfmt::Logfmt).with_filter(targets).boxed()
    }
}

mod logfmt {
    //! `ts=… level=info msg="…" key=value`, as Alloy writes it.

    use std::fmt::{self, Write as _};

    use tracing::field::{Field, Visit};
    use tracing::{Event, Subscriber};
    use tracing_subscriber::fmt::FmtContext;
    use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
    use tracing_subscriber::registry::LookupSpan;

    pub(super) struct Logfmt;

    impl<S, N> FormatEvent<S, N> for Logfmt
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
        N: for<'a> FormatFields<'a> + 'static,
    {
        fn format_event(
            &self,
            _context: &FmtContext<'_, S, N>,
            mut writer: Writer<'_>,
            event: &Event<'_>,
        ) -> fmt::Result {
            let mut fields = Fields::default();
            event.record(&mut fields);
            let level = event.metadata().level().as_str().to_ascii_lowercase();
            write!(writer, "ts={:.6} level={level}", jiff::Timestamp::now())?;
            write!(writer, " msg=")?;
            value(&mut writer, &fields.message)?;
            writeln!(writer, "{}", fields.rest)
        }
    }

    #[derive(Default)]
    struct Fields {
        message: String,
        rest: String,
    }

    impl Fields {
        fn put(&mut self, field: &Field, text: &str) {
            if field.name() == "message" {
                text.clone_into(&mut self.message);
            } else {
                // Writing to a string cannot fail.
                drop(write!(self.rest, " {}=", field.name()));
                drop(value(&mut self.rest, text));
            }
        }
    }

    impl Visit for Fields {
        fn record_str(&mut self, field: &Field, text: &str) {
            self.put(field, text);
        }

        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            self.put(field, &format!("{value:?}"));
        }
    }

    /// A value is quoted where a space, a quote, `=` or a control character would break the line apart.
    fn value(out: &mut impl fmt::Write, text: &str) -> fmt::Result {
        let plain = |character: char| character > ' ' && !matches!(character, '"' | '=' | '\u{7f}');
        if !text.is_empty() && text.chars().all(plain) {
            return out.write_str(text);
        }
        out.write_char('"')?;
        for character in text.chars() {
            match character {
                '"' => out.write_str("\\\"")?,
                '\\' => out.write_str("\\\\")?,
                '\n' => out.write_str("\\n")?,
                '\t' => out.write_str("\\t")?,
                control if control.is_control() => write!(out, "\\u{:04x}", u32::from(control))?,
                character => out.write_char(character)?,
            }
        }
        out.write_char('"')
    }

    #[cfg(test)]
    mod tests {
        #[test]
        fn values_that_would_break_the_line_are_quoted() {
            let mut text = String::new();
            for part in ["plain", "two words", "a=b", "say \"no\"", "line\nbreak", ""] {
                super::value(&mut text, part).expect("writing to a string cannot fail");
                text.push('|');
            }
            assert_eq!(text, r#"plain|"two words"|"a=b"|"say \"no\""|"line\nbreak"|""|"#);
        }
    }
}
