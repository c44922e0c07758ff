//! The first stage: tokens, the layout between them, and comments, to cells and lines.
//!
//! Layout (a blank, a new line, deeper indentation) waits until the next token is written, because comments that stand
//! before that token take the place of some of it. Which comments those are follows from the token's place in the
//! source. The walk gives the places of some tokens; the place of any other is taken to be just behind the token before
//! it.

use super::Rules;
use super::align::Aligner;
use crate::ast::{Comment, CommentKind, File};

/// Most line ends in a row: two make one empty line.
const MOST_LINE_ENDS: u32 = 2;

/// What can stand between two tokens.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Layout {
    /// One blank.
    Blank,
    /// The end of a cell: what follows is lined up with its neighbours.
    Align,
    /// A line end.
    Line,
    /// A line end at which no column goes on.
    Section,
    /// One level deeper.
    Indent,
    /// One level less.
    Unindent,
    /// Something a comment has replaced.
    Replaced,
}

/// A place in the source, as far as layout depends on it.
#[derive(Copy, Clone, Debug)]
struct Place {
    offset: u32,
    line: u32,
}

/// Writes tokens and, between them, layout and comments.
pub(super) struct Printer<'a> {
    text: &'a str,
    rules: Rules,
    lines: Lines<'a>,
    aligner: Aligner,
    /// Comments not written yet.
    comments: &'a [Comment],
    /// Layout since the last token.
    waiting: Vec<Layout>,
    indent: usize,
    /// Where the next token stands in the source, as far as is known.
    next: Place,
    /// The line of the source on which what was written last ends.
    last_line: u32,
    /// Whether nothing is on the current line yet.
    at_line_start: bool,
    /// Whether nothing is written yet at all.
    empty: bool,
    /// Whether the previous item is an integer, which a `.` behind it would make a float.
    after_number: bool,
}

impl<'a> Printer<'a> {
    pub(super) fn new(file: &'a File, rules: Rules) -> Self {
        let text = &*file.source.text;
        Self {
            text,
            rules,
            lines: Lines { starts: file.source.line_starts(), current: 0 },
            aligner: Aligner::new(text.len() + text.len() / 8),
            comments: &file.comments,
            waiting: Vec::with_capacity(16),
            indent: 0,
            next: Place { offset: 0, line: 1 },
            last_line: 0,
            at_line_start: true,
            empty: true,
            after_number: false,
        }
    }

    /// Which rules hold.
    pub(super) fn rules(&self) -> Rules {
        self.rules
    }

    /// The line of an offset in the source; the first is 1.
    pub(super) fn line(&mut self, offset: u32) -> u32 {
        self.lines.line(offset)
    }

    /// Puts layout before the next token.
    pub(super) fn layout(&mut self, layout: Layout) {
        self.waiting.push(layout);
        self.after_number = false;
    }

    /// Says where the next token stands.
    pub(super) fn at(&mut self, offset: u32) {
        self.next = Place { offset, line: self.lines.line(offset) };
    }

    /// Says where the next token stands, if all places are to be exact.
    pub(super) fn exactly_at(&mut self, offset: u32) {
        if self.rules == Rules::Exact {
            self.at(offset);
        }
    }

    /// Writes an operator, a bracket or another sign.
    pub(super) fn sign(&mut self, text: &str) {
        if self.after_number && text == "." {
            self.waiting.push(Layout::Blank);
        }
        self.word(text);
    }

    /// Writes a name, a keyword or a number that is no integer.
    pub(super) fn word(&mut self, text: &str) {
        self.begin_token();
        self.aligner.text(text);
        self.next.offset += length(text);
        self.end_token();
    }

    /// Writes an integer.
    pub(super) fn number(&mut self, text: &str) {
        self.word(text);
        self.after_number = true;
    }

    /// Writes a string as it is in the source, quotes included, which may stretch over several lines.
    pub(super) fn string(&mut self, text: &str) {
        if !text.bytes().any(|byte| byte < b' ') {
            return self.word(text);
        }
        self.begin_token();
        match self.rules {
            Rules::Alloy => self.string_in_cells(text),
            Rules::Exact => {
                for (index, line) in text.split('\n').enumerate() {
                    if index > 0 {
                        self.aligner.end_line();
                    }
                    self.aligner.protected(line);
                }
            }
        }
        self.next.offset += length(text);
        self.next.line += line_ends(text);
        self.end_token();
    }

    /// Alloy takes tabs and line ends in strings for layout.
    fn string_in_cells(&mut self, text: &str) {
        let mut rest = text;
        while let Some(control) = rest.find(['\t', '\u{b}', '\n', '\u{c}']) {
            self.aligner.text(&rest[..control]);
            match rest.as_bytes()[control] {
                b'\n' => self.aligner.end_line(),
                b'\x0c' => self.aligner.end_section(),
                tab => self.aligner.end_cell(tab == b'\t'),
            }
            rest = &rest[control + 1..];
        }
        self.aligner.text(rest);
    }

    /// Writes the comments behind the last token and gives the text, with its last line end. `None` when it would be
    /// larger than a source may be.
    pub(super) fn finish(mut self) -> Option<String> {
        while !self.comments.is_empty() {
            self.comment(None);
        }
        self.aligner.finish()
    }

    fn begin_token(&mut self) {
        let place = self.next;
        if self.comments.first().is_some_and(|comment| comment.span.start <= place.offset) {
            self.comments_before(place);
        } else {
            self.release(self.waiting.len());
        }
        self.begin();
        self.next = place;
    }

    fn end_token(&mut self) {
        self.last_line = self.next.line;
        self.after_number = false;
    }

    /// Begins to write something: at the beginning of a line, with the indentation.
    fn begin(&mut self) {
        if self.at_line_start {
            for _ in 0..self.indent {
                self.aligner.end_cell(true);
            }
        }
        self.at_line_start = false;
        self.empty = false;
    }

    fn blank(&mut self) {
        self.begin();
        self.aligner.blank();
    }

    fn end_cell(&mut self, hard: bool) {
        self.begin();
        self.aligner.end_cell(hard);
    }

    fn end_lines(&mut self, count: u32, section: bool) {
        if count == 0 {
            return;
        }
        self.begin();
        for _ in 0..count {
            if section {
                self.aligner.end_section();
            } else {
                self.aligner.end_line();
            }
        }
        self.at_line_start = true;
    }

    /// Writes the first `count` pieces of waiting layout.
    fn release(&mut self, count: usize) {
        for index in 0..count {
            match self.waiting[index] {
                Layout::Blank => self.blank(),
                Layout::Align => self.end_cell(false),
                Layout::Line => self.end_lines(1, false),
                Layout::Section => self.end_lines(1, true),
                Layout::Indent => self.indent += 1,
                Layout::Unindent => self.indent = self.indent.saturating_sub(1),
                Layout::Replaced => {}
            }
        }
        self.waiting.drain(..count);
    }

    /// Writes all comments that stand before a token at `place`, group by group, and what separates them from it.
    fn comments_before(&mut self, place: Place) {
        let mut last = None;
        while let Some(first) = self.comments.first()
            && first.span.start <= place.offset
        {
            let group = self.group_len();
            for _ in 0..group {
                last = self.comment(Some(place)).or(last);
            }
        }
        let Some(last) = last else { return };
        if last.kind == CommentKind::Block && self.lines.line(last.span.end - 1) == place.line {
            self.blank();
        }
        let gap = place.line.saturating_sub(self.last_line).min(MOST_LINE_ENDS);
        let section = self.waiting.contains(&Layout::Section);
        for layout in &mut self.waiting {
            if !matches!(layout, Layout::Indent | Layout::Unindent) {
                *layout = Layout::Replaced;
            }
        }
        self.release(self.waiting.len());
        self.end_lines(gap, section);
    }

    /// How many of the comments belong together: nothing but blanks and at most one line end stand between them.
    fn group_len(&self) -> usize {
        let belong = |pair: &[Comment]| {
            let between = self.text.get(pair[0].span.end as usize..pair[1].span.start as usize);
            between.is_some_and(|between| {
                between.bytes().all(|byte| byte.is_ascii_whitespace()) && line_ends(between) <= 1
            })
        };
        1 + self.comments.windows(2).take_while(|pair| belong(pair)).count()
    }

    /// Writes the next comment, before a token at `next` or at the end of the file.
    fn comment(&mut self, next: Option<Place>) -> Option<Comment> {
        let (&comment, rest) = self.comments.split_first()?;
        self.comments = rest;
        let line = self.lines.line(comment.span.start);
        if self.empty {
            // Nothing to be separated from.
        } else if line == self.last_line {
            if next.is_some_and(|next| next.line == line) {
                self.blank();
            } else {
                self.end_cell(true);
            }
        } else {
            let keeps = |layout: &Layout| matches!(layout, Layout::Indent | Layout::Unindent);
            if let Some(replaced) = self.waiting.iter().position(|layout| !keeps(layout)) {
                self.waiting[replaced] = Layout::Replaced;
                self.release(replaced);
            }
            self.end_lines(line.saturating_sub(self.last_line).min(MOST_LINE_ENDS), true);
        }
        self.begin();
        let written =
            self.text.get(comment.span.start as usize..comment.span.end as usize).unwrap_or_default();
        if written.contains('\r') {
            self.aligner.protected(&written.replace('\r', ""));
        } else {
            self.aligner.protected(written);
        }
        self.last_line = line + line_ends(written);
        Some(comment)
    }
}

/// Finds lines of offsets, quickly where each offset is near the one before.
struct Lines<'a> {
    starts: &'a [u32],
    /// Index of the line found last.
    current: usize,
}

impl Lines<'_> {
    fn line(&mut self, offset: u32) -> u32 {
        /// Lines to go step by step before searching.
        const STEPS: usize = 8;
        let start_of = |index: usize| self.starts.get(index).copied().unwrap_or(u32::MAX);
        let mut index = self.current;
        for _ in 0..STEPS {
            if offset < start_of(index) {
                index -= 1;
            } else if offset >= start_of(index + 1) {
                index += 1;
            } else {
                break;
            }
        }
        if offset < start_of(index) || offset >= start_of(index + 1) {
            index = self.starts.partition_point(|&start| start <= offset).saturating_sub(1);
        }
        self.current = index;
        u32::try_from(index + 1).unwrap_or(u32::MAX)
    }
}

fn line_ends(text: &str) -> u32 {
    u32::try_from(text.bytes().filter(|&byte| byte == b'\n').count()).unwrap_or(u32::MAX)
}

fn length(text: &str) -> u32 {
    u32::try_from(text.len()).unwrap_or(u32::MAX)
}
