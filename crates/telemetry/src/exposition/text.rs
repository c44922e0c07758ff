//! The Prometheus text format, versions 0.0.4 and 1.0.0: one grammar, in which quoted names are always understood.

use crate::batch::MetricKind;

use super::number::{parse_float, plain_decimal};
use super::series_text::{Dialect, expected, metric_name, quoted_end, scan_series, unescape};
use super::{
    ExpositionError, ExpositionSink, MetadataEvent, ParseOptions, RawForm, RawSeries, SampleEvent, SeriesText,
};

/// Reads a page.
pub(super) fn parse<S: ExpositionSink>(
    page: &[u8],
    options: &ParseOptions,
    sink: &mut S,
) -> Result<(), ExpositionError<S::Error>> {
    let mut parser = Parser { page, at: 0, kind: MetricKind::Unknown, line_limit: options.line_limit };
    loop {
        match parser.entry(sink) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(Stop::Sink(error)) => return Err(ExpositionError::Sink(error)),
            Err(Stop::Syntax(message)) => {
                let line = 1 + memchr::memchr_iter(b'\n', &page[..parser.at.min(page.len())]).count();
                return Err(ExpositionError::Syntax { line, message });
            }
        }
    }
}

/// Why an entry was not read. The position of the parser is still at its start.
pub(super) enum Stop<E> {
    Syntax(String),
    Sink(E),
}

impl<E> From<String> for Stop<E> {
    fn from(message: String) -> Self {
        Self::Syntax(message)
    }
}

struct Parser<'p> {
    page: &'p [u8],
    /// Where the entry that is being read begins.
    at: usize,
    kind: MetricKind,
    line_limit: usize,
}

impl<'p> Parser<'p> {
    /// Reads one entry; false at the end of the page.
    #[inline]
    fn entry<S: ExpositionSink>(&mut self, sink: &mut S) -> Result<bool, Stop<S::Error>> {
        let Some(&first) = self.page.get(self.at) else { return Ok(false) };
        if first != b'#' {
            let rest = &self.page[self.at..];
            if let Some(length) = sink.expect(rest)
                && let Some((value, timestamp, end)) = known_sample(rest, length)
            {
                let sample = SampleEvent { series: SeriesText::Expected, value, timestamp, created: None };
                sink.series(sample).map_err(Stop::Sink)?;
                self.at += end;
                return Ok(true);
            }
        }
        self.entry_slowly(sink)
    }

    fn entry_slowly<S: ExpositionSink>(&mut self, sink: &mut S) -> Result<bool, Stop<S::Error>> {
        let start = skip_blanks(self.page, self.at);
        match self.page.get(start) {
            // A zero byte ends a page, as it does for Prometheus.
            None | Some(0) => Ok(false),
            Some(b'\n') => {
                self.at = start + 1;
                Ok(true)
            }
            Some(b'#') => self.comment(start + 1, sink),
            Some(_) => self.sample(sink).map(|()| true),
        }
    }

    fn sample<S: ExpositionSink>(&mut self, sink: &mut S) -> Result<(), Stop<S::Error>> {
        let rest = &self.page[self.at..];
        let length = scan_series(rest, Dialect::Prometheus, |_| ())?;
        if length > self.line_limit {
            return Err(Stop::Syntax(format!("the series is longer than {} bytes", self.line_limit)));
        }
        let (value, timestamp, end) = sample_suffix(rest, length)?;
        let series = RawSeries { text: &rest[..length], form: RawForm::Text, kind: self.kind, unit: "" };
        sink.series(SampleEvent { series: SeriesText::Raw(series), value, timestamp, created: None })
            .map_err(Stop::Sink)?;
        self.at += end;
        Ok(())
    }

    /// Reads what follows `#`: help and type of a family, or a comment.
    fn comment<S: ExpositionSink>(&mut self, behind: usize, sink: &mut S) -> Result<bool, Stop<S::Error>> {
        let page = self.page;
        let word = skip_blanks(page, behind);
        let keyword = page.get(word..word + 4).unwrap_or_default();
        let blank_follows = matches!(page.get(word + 4), Some(b' ' | b'\t'));
        if word == behind || !blank_follows || !(keyword == b"HELP" || keyword == b"TYPE") {
            let end = line_end(page, behind);
            if word == behind && memchr::memchr(0, &page[behind..end]).is_some() {
                return Ok(false);
            }
            self.at = (end + 1).min(page.len());
            return Ok(true);
        }
        let start = skip_blanks(page, word + 4);
        let (family, name_end) = match quoted_end(page, start, true, false) {
            Some(end) => (&page[start + 1..end - 1], end),
            None => {
                let end = metric_name(page, start).ok_or_else(|| expected("a metric name", page, start))?;
                (&page[start..end], end)
            }
        };
        let end = line_end(page, name_end);
        if end - self.at > self.line_limit {
            return Err(Stop::Syntax(format!("the line is longer than {} bytes", self.line_limit)));
        }
        let text = &page[name_end..end];
        // One separator is cut off, whatever it is; a text of blanks alone is none.
        let blank = text.iter().all(|byte| matches!(byte, b' ' | b'\t'));
        let text = if blank { &[][..] } else { &text[1..] };
        let family =
            std::str::from_utf8(family).map_err(|_| "a metric name is not valid UTF-8".to_owned())?;
        if keyword == b"TYPE" {
            self.kind = match text {
                b"counter" => MetricKind::Counter,
                b"gauge" => MetricKind::Gauge,
                b"histogram" => MetricKind::Histogram,
                b"summary" => MetricKind::Summary,
                b"untyped" => MetricKind::Unknown,
                other => return Err(invalid_type(other)),
            };
            sink.metadata(family, MetadataEvent::Kind(self.kind)).map_err(Stop::Sink)?;
        } else {
            let help = std::str::from_utf8(text).map_err(|_| "a help text is not valid UTF-8".to_owned())?;
            let mut scratch = String::new();
            sink.metadata(family, MetadataEvent::Help(unescape(help, false, &mut scratch)))
                .map_err(Stop::Sink)?;
        }
        self.at = (end + 1).min(page.len());
        Ok(true)
    }
}

pub(super) fn invalid_type<E>(name: &[u8]) -> Stop<E> {
    let shown = &name[..name.len().min(64)];
    Stop::Syntax(format!("invalid metric type {:?}", String::from_utf8_lossy(shown)))
}

/// Value, timestamp and end of the line of a series whose text is known; `None` where the line is anything but plain.
#[inline]
fn known_sample(rest: &[u8], length: usize) -> Option<(f64, Option<i64>, usize)> {
    if rest.get(length) == Some(&b' ')
        && let Some((value, digits)) = plain_decimal(&rest[length + 1..])
        && rest.get(length + 1 + digits) == Some(&b'\n')
    {
        return Some((value, None, length + 1 + digits + 1));
    }
    // A bare name must end where the known text does, and no braces may follow it.
    let ends = rest[length - 1] == b'}' || matches!(rest.get(length), Some(b' ' | b'\t'));
    let next = skip_blanks(rest, length);
    if !ends || rest.get(next) == Some(&b'{') {
        return None;
    }
    sample_suffix(rest, length).ok()
}

/// Reads value and timestamp behind a series and returns them with the end of the line.
fn sample_suffix(rest: &[u8], length: usize) -> Result<(f64, Option<i64>, usize), String> {
    let start = skip_blanks(rest, length);
    let token_end = |start: usize, stop: fn(&u8) -> bool| {
        rest[start..].iter().position(stop).map_or(rest.len(), |length| start + length)
    };
    let end = token_end(start, |byte| matches!(byte, b'{' | b' ' | b'\t' | b'\n'));
    if end == start {
        return Err(expected("a value", rest, start));
    }
    let value = parse_float(&rest[start..end])?;
    let mut at = skip_blanks(rest, end);
    let mut timestamp = None;
    let digits = token_end(at, |byte| !byte.is_ascii_digit());
    if digits > at {
        let text = std::str::from_utf8(&rest[at..digits]).unwrap_or_default();
        timestamp = Some(text.parse().map_err(|_| format!("the timestamp {text} is out of range"))?);
        at = skip_blanks(rest, digits);
    }
    match rest.get(at) {
        None => Ok((value, timestamp, at)),
        Some(b'\n') => Ok((value, timestamp, at + 1)),
        Some(_) if timestamp.is_some() => Err(expected("the end of the line", rest, at)),
        Some(_) => Err(expected("a timestamp or the end of the line", rest, at)),
    }
}

fn skip_blanks(input: &[u8], at: usize) -> usize {
    let blanks = input[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    at + blanks
}

fn line_end(page: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', &page[at..]).map_or(page.len(), |length| at + length)
}
