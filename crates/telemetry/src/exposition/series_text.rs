//! The grammar of a series in the text formats, `name{label="value",…}` or `{"name",label="value",…}`.

use crate::batch::MetricKind;
use crate::labels::{LabelsBuilder, METRIC_NAME};

use super::number::{parse_float, write_openmetrics_float};

/// What the two text formats disagree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Blanks between tokens, commas optional, values may contain line breaks.
    Prometheus,
    /// No blanks, commas required, no line breaks in values.
    OpenMetrics,
}

/// A part of a series, escapes not resolved.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part<'a> {
    /// The metric name.
    Name(&'a [u8]),
    /// A label: name and value.
    Label(&'a [u8], &'a [u8]),
}

/// Reads the series at the start of the input, reports its parts and returns its length.
pub(super) fn scan_series<'a>(
    input: &'a [u8],
    dialect: Dialect,
    mut part: impl FnMut(Part<'a>),
) -> Result<usize, String> {
    let start = skip_blanks(input, 0, dialect);
    let mut named = false;
    let mut end = start;
    if let Some(name_end) = metric_name(input, start) {
        // As in Prometheus, blanks before the name belong to it.
        part(Part::Name(&input[..name_end]));
        named = true;
        end = name_end;
    } else if input.get(start) != Some(&b'{') {
        return Err(expected("a metric name", input, start));
    }
    let brace = skip_blanks(input, end, dialect);
    if input.get(brace) == Some(&b'{') {
        end = scan_labels(input, brace + 1, dialect, &mut named, &mut part)?;
    }
    if named { Ok(end) } else { Err("the metric name is missing".to_owned()) }
}

/// Reads the labels behind an opening brace and returns where the closing one ends.
fn scan_labels<'a>(
    input: &'a [u8],
    mut at: usize,
    dialect: Dialect,
    named: &mut bool,
    part: &mut impl FnMut(Part<'a>),
) -> Result<usize, String> {
    loop {
        at = skip_blanks(input, at, dialect);
        if input.get(at) == Some(&b'}') {
            return Ok(at + 1);
        }
        let (name, quoted, end) = label_name(input, at).ok_or_else(|| expected("a label name", input, at))?;
        at = skip_blanks(input, end, dialect);
        match input.get(at) {
            Some(b',') if quoted => {
                metric_name_once(named, name, part)?;
                at += 1;
                continue;
            }
            Some(b'}') if quoted => {
                metric_name_once(named, name, part)?;
                return Ok(at + 1);
            }
            Some(b'=') => at = skip_blanks(input, at + 1, dialect),
            _ => return Err(expected("an equals sign", input, at)),
        }
        let end = quoted_end(input, at, dialect == Dialect::Prometheus, true)
            .ok_or_else(|| expected("a quoted label value", input, at))?;
        let value = &input[at + 1..end - 1];
        if std::str::from_utf8(value).is_err() {
            return Err("a label value is not valid UTF-8".to_owned());
        }
        part(Part::Label(name, value));
        at = skip_blanks(input, end, dialect);
        match input.get(at) {
            Some(b',') => at += 1,
            Some(b'}') => {}
            _ if dialect == Dialect::OpenMetrics => {
                return Err(expected("a comma or a closing brace", input, at));
            }
            _ => {}
        }
    }
}

fn metric_name_once<'a>(
    named: &mut bool,
    name: &'a [u8],
    part: &mut impl FnMut(Part<'a>),
) -> Result<(), String> {
    if std::mem::replace(named, true) {
        return Err("the metric name is given twice".to_owned());
    }
    part(Part::Name(name));
    Ok(())
}

/// Reads the labels of an exemplar behind its opening brace and returns where the closing one ends.
pub(super) fn scan_exemplar_labels(
    input: &[u8],
    mut at: usize,
    labels: &mut LabelsBuilder,
) -> Result<usize, String> {
    loop {
        if input.get(at) == Some(&b'}') {
            return Ok(at + 1);
        }
        let (name, _, end) = label_name(input, at).ok_or_else(|| expected("a label name", input, at))?;
        if input.get(end) != Some(&b'=') {
            return Err(expected("an equals sign", input, end));
        }
        at = end + 1;
        let end =
            quoted_end(input, at, false, false).ok_or_else(|| expected("a quoted label value", input, at))?;
        let not_text = |_| "an exemplar label is not valid UTF-8".to_owned();
        // As in Prometheus, escapes in exemplars stay as they are.
        let name = std::str::from_utf8(name).map_err(not_text)?;
        let value = std::str::from_utf8(&input[at + 1..end - 1]).map_err(not_text)?;
        labels.add(name, value);
        at = match input.get(end) {
            Some(b',') => end + 1,
            Some(b'}') => end,
            _ => return Err(expected("a comma or a closing brace", input, end)),
        };
    }
}

/// Where the bare metric name at a position ends.
pub(super) fn metric_name(input: &[u8], start: usize) -> Option<usize> {
    let first = *input.get(start)?;
    if !(first.is_ascii_alphabetic() || first == b'_' || first == b':') {
        return None;
    }
    let rest = &input[start + 1..];
    let length = rest.iter().position(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':')));
    Some(start + 1 + length.unwrap_or(rest.len()))
}

/// The label name at a position, without quotes; whether it had them; where it ends.
fn label_name(input: &[u8], start: usize) -> Option<(&[u8], bool, usize)> {
    let first = *input.get(start)?;
    if first == b'"' {
        let end = quoted_end(input, start, true, false)?;
        return Some((&input[start + 1..end - 1], true, end));
    }
    if !(first.is_ascii_alphabetic() || first == b'_') {
        return None;
    }
    let rest = &input[start + 1..];
    let length = rest.iter().position(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_'));
    let end = start + 1 + length.unwrap_or(rest.len());
    Some((&input[start..end], false, end))
}

/// Where the quoted text at a position ends, behind its closing quote. An escaped line break ends it unclosed.
pub(super) fn quoted_end(input: &[u8], start: usize, line_breaks: bool, zeros: bool) -> Option<usize> {
    if input.get(start) != Some(&b'"') {
        return None;
    }
    let mut at = start + 1;
    loop {
        // Quotes and backslashes are what matters; what lies between is looked at once.
        let stop = at + memchr::memchr2(b'"', b'\\', &input[at..])?;
        let run = &input[at..stop];
        if (!line_breaks && memchr::memchr(b'\n', run).is_some())
            || (!zeros && memchr::memchr(0, run).is_some())
        {
            return None;
        }
        if input[stop] == b'"' {
            return Some(stop + 1);
        }
        match input.get(stop + 1) {
            None | Some(b'\n') => return None,
            Some(0) if !zeros => return None,
            Some(_) => at = stop + 2,
        }
    }
}

fn skip_blanks(input: &[u8], at: usize, dialect: Dialect) -> usize {
    if dialect == Dialect::OpenMetrics {
        return at;
    }
    let blanks = input[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    at + blanks
}

/// Reads the labels of a series text into a builder.
pub(super) fn read_labels(text: &[u8], kind: MetricKind, labels: &mut LabelsBuilder) -> Result<(), String> {
    labels.clear();
    let mut result = Ok(());
    let mut scratch = String::new();
    // What a parser of either dialect accepted is read alike by the wider one.
    let end = scan_series(text, Dialect::Prometheus, |part| {
        if result.is_ok() {
            result = add_part(part, kind, labels, &mut scratch);
        }
    })?;
    result?;
    if end == text.len() { Ok(()) } else { Err(expected("the end of the series", text, end)) }
}

fn add_part(
    part: Part<'_>,
    kind: MetricKind,
    labels: &mut LabelsBuilder,
    scratch: &mut String,
) -> Result<(), String> {
    let not_text = |_| "a name is not valid UTF-8".to_owned();
    match part {
        Part::Name(name) => {
            let name = std::str::from_utf8(name).map_err(not_text)?;
            labels.add(METRIC_NAME, unescape(name, true, scratch));
        }
        Part::Label(name, value) => {
            let name = std::str::from_utf8(name).map_err(not_text)?;
            let value = std::str::from_utf8(value).map_err(not_text)?;
            let mut owned = String::new();
            let name = unescape(name, true, &mut owned);
            let value = unescape(value, true, scratch);
            match canonical_bound(kind, name, value) {
                Some(canonical) => labels.add(name, &canonical),
                None => labels.add(name, value),
            }
        }
    }
    Ok(())
}

/// The canonical form of a bucket bound or a quantile, so that a change of the exposition format does not change the series.
fn canonical_bound(kind: MetricKind, name: &str, value: &str) -> Option<String> {
    let bound = matches!((kind, name), (MetricKind::Histogram, "le") | (MetricKind::Summary, "quantile"));
    let number = bound.then(|| parse_float(value.as_bytes()).ok()).flatten()?;
    let mut canonical = String::new();
    write_openmetrics_float(number, &mut canonical);
    Some(canonical)
}

/// Resolves `\\`, `\n` and, where asked, `\"`; other escapes stay as they are.
pub(super) fn unescape<'t>(text: &'t str, quotes: bool, scratch: &'t mut String) -> &'t str {
    if memchr::memchr(b'\\', text.as_bytes()).is_none() {
        return text;
    }
    scratch.clear();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        scratch.push_str(before);
        let resolved = match after.bytes().next() {
            Some(b'\\') => Some('\\'),
            Some(b'n') => Some('\n'),
            Some(b'"') if quotes => Some('"'),
            _ => None,
        };
        scratch.push(resolved.unwrap_or('\\'));
        rest = if resolved.is_some() { &after[1..] } else { after };
    }
    scratch.push_str(rest);
    scratch
}

/// A message that says what was expected and shows what is there instead.
pub(super) fn expected(what: &str, input: &[u8], at: usize) -> String {
    let rest = &input[at.min(input.len())..];
    let shown = &rest[..rest.len().min(20)];
    let shown = shown.split_inclusive(|&byte| byte == b'\n').next().unwrap_or_default();
    if shown.is_empty() {
        format!("expected {what}, found the end")
    } else {
        format!("expected {what}, found {:?}", String::from_utf8_lossy(shown))
    }
}
