//! The source lines that a diagnostic's labels touch, with their underlines.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::visible::{visible, width};
use super::{Paint, line};
use crate::diagnostic::{Label, Severity};
use crate::source::{Position, Source};

/// Lines longer than this many bytes are cut around the label.
const LONG_LINE: usize = 160;
/// Characters kept before a label in a cut line.
const KEPT_BEFORE: usize = 50;
/// Characters kept from a label's start on in a cut line.
const KEPT_AFTER: usize = 90;
/// A range over more lines than this is shown by its first and last ones.
const TALL_RANGE: u32 = 6;

/// All labels of one source.
pub(super) struct Excerpt<'a> {
    source: &'a Arc<Source>,
    marks: Vec<Mark<'a>>,
}

/// A label with its place worked out.
struct Mark<'a> {
    label: &'a Label,
    primary: bool,
    start: Position,
    /// The last underlined place, inclusive; on the start itself when the range is empty.
    end: Position,
}

impl Mark<'_> {
    fn is_tall(&self) -> bool {
        self.end.line > self.start.line
    }

    fn sign(&self) -> char {
        if self.primary { '^' } else { '-' }
    }
}

impl<'a> Excerpt<'a> {
    pub(super) fn new(source: &'a Arc<Source>, labels: &[&'a Label], primary: Option<&Label>) -> Self {
        let marks = labels
            .iter()
            .map(|&label| {
                let last = label.span.end.saturating_sub(1).max(label.span.start);
                let primary = primary.is_some_and(|primary| std::ptr::eq(primary, label));
                Mark { label, primary, start: source.position(label.span.start), end: source.position(last) }
            })
            .collect();
        Self { source, marks }
    }

    /// `file:line:column` of the first label.
    pub(super) fn location(&self) -> String {
        let offset = self.marks.first().map_or(0, |mark| mark.label.span.start);
        self.source.location(offset)
    }

    /// Whether there is text to show.
    pub(super) fn has_lines(&self) -> bool {
        !self.source.text.is_empty()
    }

    pub(super) fn gutter_width(&self) -> usize {
        if !self.has_lines() {
            return 1;
        }
        self.marks.iter().map(|mark| mark.end.line.to_string().len()).max().unwrap_or(1)
    }

    /// Draws the lines in the order of the text. Ranges over several lines come in their own piece, after the others.
    pub(super) fn draw(&self, out: &mut String, gutter: usize, severity: Severity, paint: Paint) {
        if !self.has_lines() {
            return;
        }
        let mut canvas = Canvas { out, gutter, severity, paint, last_line: None };
        canvas.separator();
        let mut by_line: BTreeMap<u32, Vec<&Mark<'_>>> = BTreeMap::new();
        for mark in self.marks.iter().filter(|mark| !mark.is_tall()) {
            by_line.entry(mark.start.line).or_default().push(mark);
        }
        for (number, marks) in by_line {
            self.draw_line(&mut canvas, number, &marks);
        }
        for mark in self.marks.iter().filter(|mark| mark.is_tall()) {
            self.draw_tall(&mut canvas, mark);
        }
    }

    fn text(&self, number: u32) -> &'a str {
        self.source.line_span(number).map_or("", |span| self.source.slice(span))
    }

    fn draw_line(&self, canvas: &mut Canvas<'_>, number: u32, marks: &[&Mark<'_>]) {
        let text = self.text(number);
        if text.len() > LONG_LINE {
            // Each label has its own window on a long line.
            for mark in marks {
                let window = Window::around(text, column_index(text, mark.start.column));
                canvas.source_line(number, &window.shown());
                canvas.underline(&window, mark);
            }
            return;
        }
        let window = Window::whole(text);
        canvas.source_line(number, &window.shown());
        for mark in marks {
            canvas.underline(&window, mark);
        }
    }

    /// A bar beside the lines, from the first to the last.
    fn draw_tall(&self, canvas: &mut Canvas<'_>, mark: &Mark<'_>) {
        let (first, last) = (mark.start.line, mark.end.line);
        let first_text = self.text(first);
        let lead = first_text.get(..column_index(first_text, mark.start.column)).unwrap_or_default();
        let bar = canvas.bar("|");
        if lead.trim().is_empty() {
            let corner = canvas.mark(mark, "/");
            canvas.source_line(first, &format!("{corner} {}", Window::head(first_text).shown()));
        } else {
            let window = Window::around_if_long(first_text, lead.len());
            canvas.source_line(first, &format!("  {}", window.shown()));
            let reach = "_".repeat(window.columns_before(lead.len()) + 1);
            let pointer = canvas.mark(mark, &format!(" {reach}{}", mark.sign()));
            canvas.note(&pointer);
        }
        let tall = last - first > TALL_RANGE;
        let inner = |from: u32, to: u32| from..to;
        let shown = if tall { inner(first + 1, first + 3) } else { inner(first + 1, last) };
        for number in shown {
            canvas.source_line(number, &format!("{bar} {}", Window::head(self.text(number)).shown()));
        }
        if tall {
            canvas.note(&format!("{bar} ..."));
            canvas.last_line = Some(last - 1);
        }
        let last_text = self.text(last);
        let end = column_index(last_text, mark.end.column);
        let window = Window::around_if_long(last_text, end);
        canvas.source_line(last, &format!("{bar} {}", window.shown()));
        let reach = "_".repeat(window.columns_before(end) + 1);
        let pointer = canvas.mark(mark, &format!("|{reach}{}", mark.sign()));
        canvas.labelled(&pointer, mark);
    }
}

/// Index into the line of a 1-based byte column, moved back to the start of a character.
fn column_index(text: &str, column: u32) -> usize {
    let mut index = (column.saturating_sub(1) as usize).min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

/// A stretch of a line, and whether text was cut off on either side.
struct Window<'a> {
    line: &'a str,
    start: usize,
    end: usize,
}

impl<'a> Window<'a> {
    fn whole(line: &'a str) -> Self {
        Self { line, start: 0, end: line.len() }
    }

    fn around(line: &'a str, index: usize) -> Self {
        let before = line[..index].char_indices().rev().take(KEPT_BEFORE).last();
        let after = line[index..].char_indices().nth(KEPT_AFTER);
        Self {
            line,
            start: before.map_or(index, |(start, _)| start),
            end: after.map_or(line.len(), |(end, _)| index + end),
        }
    }

    fn around_if_long(line: &'a str, index: usize) -> Self {
        if line.len() > LONG_LINE { Self::around(line, index) } else { Self::whole(line) }
    }

    fn head(line: &'a str) -> Self {
        Self::around_if_long(line, 0)
    }

    fn shown(&self) -> String {
        let text = visible(&self.line[self.start..self.end]);
        let ellipsis = |cut: bool| if cut { "..." } else { "" };
        format!("{}{text}{}", ellipsis(self.start > 0), ellipsis(self.end < self.line.len()))
    }

    /// Columns that stand before the character at `index` of the line.
    fn columns_before(&self, index: usize) -> usize {
        let index = index.clamp(self.start, self.end);
        width(&self.line[self.start..index]) + if self.start > 0 { 3 } else { 0 }
    }

    /// Columns of the underline from `from` to `to`, both indexes into the line; at least one.
    fn columns_between(&self, from: usize, to: usize) -> usize {
        let from = from.clamp(self.start, self.end);
        let to = to.clamp(from, self.end);
        width(&self.line[from..to]).max(1)
    }
}

/// Where the lines go: knows the gutter and which line was printed last.
struct Canvas<'a> {
    out: &'a mut String,
    gutter: usize,
    severity: Severity,
    paint: Paint,
    last_line: Option<u32>,
}

impl Canvas<'_> {
    fn separator(&mut self) {
        self.note("");
    }

    /// A line without number.
    fn note(&mut self, text: &str) {
        let frame = self.paint.frame("|");
        let blank = " ".repeat(self.gutter);
        line(self.out, &format!("{blank} {frame} {text}"));
    }

    fn source_line(&mut self, number: u32, text: &str) {
        if self.last_line.is_some_and(|last| number != last && number != last + 1) {
            let dots = self.paint.frame("...");
            line(self.out, &dots);
        }
        self.last_line = Some(number);
        let label = self.paint.frame(&format!("{number:>width$} |", width = self.gutter));
        line(self.out, &format!("{label} {text}"));
    }

    fn mark(&self, mark: &Mark<'_>, text: &str) -> String {
        self.paint.underline(self.severity, mark.primary, text)
    }

    fn bar(&self, text: &str) -> String {
        self.paint.frame(text)
    }

    fn labelled(&mut self, pointer: &str, mark: &Mark<'_>) {
        let text = self.mark(mark, &visible(&mark.label.text));
        self.note(&format!("{pointer} {text}"));
    }

    fn underline(&mut self, window: &Window<'_>, mark: &Mark<'_>) {
        let start = column_index(window.line, mark.start.column);
        let length = mark.label.span.len() as usize;
        // A range within one line; one that includes the line break ends with the text.
        let mut end = (start + length).min(window.line.len());
        while !window.line.is_char_boundary(end) {
            end += 1;
        }
        let blank = " ".repeat(window.columns_before(start));
        let signs: String = std::iter::repeat_n(mark.sign(), window.columns_between(start, end)).collect();
        let signs = self.mark(mark, &signs);
        self.labelled(&format!("{blank}{signs}"), mark);
    }
}
