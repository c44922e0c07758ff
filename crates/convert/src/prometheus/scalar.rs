//! Scalars as Prometheus writes them: durations with days and weeks, sizes, numbers, and text with references to the
//! environment.

use std::time::Duration;

use invar_syntax::expression_text::quote;
use invar_syntax::{ByteSize, Number, Value};

use crate::block;
use crate::report::Report;
use crate::yaml::Fields;

/// A duration such as `1w2d`, `5m` or `0`; `None` where the text is none.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 7] = [
        ("ms", 1),
        ("y", 365 * 86_400_000),
        ("w", 7 * 86_400_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
    ];
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = 0u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, milliseconds) = UNITS.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        total = total.checked_add(number.checked_mul(milliseconds)?)?;
    }
    (!text.is_empty()).then(|| Duration::from_millis(total))
}

pub(super) fn duration(fields: &Fields<'_>, name: &str, report: &mut Report) -> Option<Duration> {
    let node = fields.get(name)?;
    let text = node.text(name, report)?;
    let parsed = parse_duration(&text);
    if parsed.is_none() {
        report.error(node.line, format!("{name} is \"{text}\", which is no duration such as 1m30s"));
    }
    parsed
}

pub(super) fn duration_value(fields: &Fields<'_>, name: &str, report: &mut Report) -> Option<Value> {
    duration(fields, name, report).map(block::duration)
}

pub(super) fn number(fields: &Fields<'_>, name: &str, report: &mut Report) -> Option<Value> {
    let node = fields.get(name)?;
    let text = node.text(name, report)?;
    let whole = text.parse::<u64>().ok().map(Number::from);
    let number =
        whole.or_else(|| text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Number::Float));
    if number.is_none() {
        report.error(node.line, format!("{name} is \"{text}\", which is no number"));
    }
    number.map(Value::Number)
}

/// A size such as `15MB`, in the language's own form.
pub(super) fn size(fields: &Fields<'_>, name: &str, report: &mut Report) -> Option<Value> {
    let node = fields.get(name)?;
    let text = node.text(name, report)?;
    if let Ok(bytes) = text.parse::<u64>() {
        return Some(Value::string(ByteSize(bytes).to_string()));
    }
    match text.parse::<ByteSize>() {
        Ok(size) => Some(Value::string(size.to_string())),
        Err(_) => {
            report.error(node.line, format!("{name} is \"{text}\", which is no size such as 15MB"));
            None
        }
    }
}

/// A list of texts.
pub(super) fn texts(fields: &Fields<'_>, name: &str, report: &mut Report) -> Option<Value> {
    let items: Vec<Value> = fields
        .get(name)?
        .items()
        .iter()
        .filter_map(|item| item.text(name, report))
        .map(Value::string)
        .collect();
    Some(Value::array(items))
}

/// A mapping from text to text, sorted by key.
pub(super) fn map(fields: &Fields<'_>, name: &str, report: &mut Report) -> Option<Value> {
    let mut entries: Vec<(String, Value)> = fields
        .get(name)?
        .fields(name, report)
        .all()
        .filter_map(|(key, node)| Some((key.to_owned(), Value::string(node.text(key, report)?))))
        .collect();
    entries.sort_by(|left, right| left.0.cmp(&right.0));
    Some(Value::object(entries.iter().map(|(key, value)| (key.as_str(), value.clone()))))
}

/// Text in which `$NAME` and `${NAME}` stand for variables of the environment, as an expression.
pub(super) fn with_environment(text: &str) -> String {
    let mut operands: Vec<String> = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        plain.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            plain.push('$');
            rest = after;
            continue;
        }
        let (name, after) = match rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some(braced) => braced,
            None => {
                let end = rest.find(|c: char| !(c == '_' || c.is_ascii_alphanumeric())).unwrap_or(rest.len());
                rest.split_at(end)
            }
        };
        if name.is_empty() {
            plain.push('$');
            continue;
        }
        if !plain.is_empty() {
            operands.push(quote(&std::mem::take(&mut plain)));
        }
        operands.push(format!("sys.env({})", quote(name)));
        rest = after;
    }
    plain.push_str(rest);
    if !plain.is_empty() || operands.is_empty() {
        operands.push(quote(&plain));
    }
    operands.join(" + ")
}
