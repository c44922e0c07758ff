//! A line of the log: `ts=… level=info msg="…" key=value` as Alloy writes it, or the same as a JSON object.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// Writes events in the form that the flag says, which may change while the process runs.
pub(super) struct Line {
    json: Arc<AtomicBool>,
}

impl Line {
    pub(super) fn new(json: Arc<AtomicBool>) -> Self {
        Self { json }
    }
}

impl<S, N> FormatEvent<S, N> for Line
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
        let time = format!("{:.6}", jiff::Timestamp::now());
        if self.json.load(Ordering::Relaxed) {
            let mut object = Map::new();
            object.insert("ts".to_owned(), Value::from(time));
            object.insert("level".to_owned(), Value::from(level));
            object.insert("msg".to_owned(), Value::from(fields.message));
            object.extend(fields.rest.into_iter().map(|(name, text)| (name.to_owned(), Value::from(text))));
            return writeln!(writer, "{}", Value::from(object));
        }
        write!(writer, "ts={time} level={level} msg=")?;
        value(&mut writer, &fields.message)?;
        for (name, text) in &fields.rest {
            write!(writer, " {name}=")?;
            value(&mut writer, text)?;
        }
        writeln!(writer)
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, text: &str) {
        if field.name() == "message" {
            text.clone_into(&mut self.message);
        } else {
            self.rest.push((field.name(), text.to_owned()));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
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
