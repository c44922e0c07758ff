use std::sync::Arc;

use super::{Style, render};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::parser::{parse_bytes, parse_file};
use crate::source::Source;
use crate::span::Span;

const PLAIN: Style = Style { color: false };

fn source(text: &str) -> Arc<Source> {
    Arc::new(Source::new("site/in.alloy", text))
}

/// The span of the first occurrence of `part`.
fn find(source: &Source, part: &str) -> Span {
    let start = source.text.find(part).map_or(0, |start| u32::try_from(start).unwrap_or(0));
    Span::new(start, start + u32::try_from(part.len()).unwrap_or(0))
}

fn print(diagnostic: Diagnostic) -> String {
    render(&diagnostic.into(), PLAIN)
}

#[test]
fn a_label_underlines_its_text() {
    let source = source("batch {\n  max_byte = \"4MiB\"\n}\n");
    let printed = print(
        Diagnostic::error("E212", "unknown field `max_byte`")
            .with_label(&source, find(&source, "max_byte"), "did you mean `max_bytes`?")
            .with_help("accepted: max_bytes, max_events"),
    );
    assert_eq!(
        printed,
        "\
error[E212]: unknown field `max_byte`
 --> site/in.alloy:2:3
  |
2 |   max_byte = \"4MiB\"
  |   ^^^^^^^^ did you mean `max_bytes`?
  |
  = help: accepted: max_bytes, max_events
"
    );
}

#[test]
fn several_labels_share_their_lines_and_gaps_are_marked() {
    let text = format!("first = 1{}first = second", "\n".repeat(11));
    let source = source(&text);
    let again = Span::new(20, 25);
    let printed = print(
        Diagnostic::warning("E300", "`first` is set twice")
            .with_label(&source, again, "again here")
            .with_label(&source, find(&source, "second"), "with this")
            .with_label(&source, find(&source, "first"), "set here first"),
    );
    assert_eq!(
        printed,
        "\
warning[E300]: `first` is set twice
  --> site/in.alloy:12:1
   |
 1 | first = 1
   | ----- set here first
...
12 | first = second
   | ^^^^^ again here
   |         ------ with this
"
    );
}

#[test]
fn other_files_follow_the_first() {
    let here = source("a = 1");
    let there = Arc::new(Source::new("other.alloy", "a = 2"));
    let printed =
        print(Diagnostic::error("E301", "twice").with_label(&here, Span::new(0, 1), "").with_label(
            &there,
            Span::new(0, 1),
            "also here",
        ));
    assert_eq!(
        printed,
        "\
error[E301]: twice
 --> site/in.alloy:1:1
  |
1 | a = 1
  | ^
 ::: other.alloy:1:1
  |
1 | a = 2
  | - also here
"
    );
}

#[test]
fn ranges_over_lines_have_a_bar() {
    let text = "a = b \"l\" {\n  c = 1\n}\n";
    let (_, diagnostics) = parse_file(source(text));
    assert_eq!(
        render(&diagnostics, PLAIN),
        "\
error[E032]: cannot use a block as an expression
 --> site/in.alloy:1:5
  |
1 |   a = b \"l\" {
  |  _____^
2 | |   c = 1
3 | | }
  | |_^
  |
  = help: move the block out of the assignment and refer to its export by name
"
    );
    let tall = source("b {\n1\n2\n3\n4\n5\n6\n7\n}");
    let printed = print(Diagnostic::error("E302", "tall").with_label(&tall, Span::new(0, 19), "all of it"));
    assert_eq!(
        printed,
        "\
error[E302]: tall
 --> site/in.alloy:1:1
  |
1 | / b {
2 | | 1
3 | | 2
  | | ...
9 | | }
  | |_^ all of it
"
    );
}

#[test]
fn tabs_wide_characters_and_controls_keep_the_underline_in_place() {
    let source = source("\ta = \"日本\u{1b}[31m\u{202e}\", x");
    let printed =
        print(Diagnostic::error("E303", "here\u{1b}[0m").with_label(&source, find(&source, "x"), "\u{7}"));
    assert_eq!(
        printed,
        "\
error[E303]: here␛[0m
 --> site/in.alloy:1:24
  |
1 |     a = \"日本␛[31m\u{fffd}\", x
  |                       ^ ␇
"
    );
}

#[test]
fn long_lines_are_cut_around_the_label() {
    let text = format!("a = [{}!, {}]", "1, ".repeat(1_000), "2, ".repeat(1_000));
    let source = source(&text);
    let printed = print(Diagnostic::error("E304", "here").with_label(&source, find(&source, "!"), "this"));
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines.iter().all(|line| line.chars().count() < 170), "{printed}");
    assert!(lines[3].contains("...") && lines[3].ends_with("..."), "{printed}");
    let (column, caret) = (lines[3].find('!'), lines[4].find('^'));
    assert_eq!(column, caret, "{printed}");
    assert!(column.is_some());
}

#[test]
fn places_at_line_ends_and_past_the_text_have_a_caret() {
    let (_, diagnostics) = parse_file(source("a = [\n  1\n]\nb {"));
    assert_eq!(
        render(&diagnostics, PLAIN),
        "\
error[E031]: missing ',' in expression list
 --> site/in.alloy:2:4
  |
2 |   1
  |    ^
  |
  = help: the last element needs a comma too when the closing bracket is on another line

error[E020]: expected }, got EOF
 --> site/in.alloy:4:4
  |
4 | b {
  |    ^
  |   - this `{` is not closed
"
    );
    let (_, diagnostics) = parse_bytes("in.alloy", b"\xff\xfe");
    assert_eq!(
        render(&diagnostics, PLAIN),
        "\
error[E009]: configuration is encoded with UTF-16LE but must be UTF-8
 --> in.alloy:1:1
  = help: save the file as UTF-8
"
    );
}

#[test]
fn findings_without_a_place_are_a_header() {
    let printed = print(Diagnostic::error("E305", "nowhere").with_help("look elsewhere"));
    assert_eq!(printed, "error[E305]: nowhere\n = help: look elsewhere\n");
    assert_eq!(render(&Diagnostics::new(), PLAIN), "");
}

#[test]
fn colour_changes_nothing_but_colour() {
    let (_, diagnostics) = parse_file(source("a = b {\n c = +\n}\nd {"));
    let coloured = render(&diagnostics, Style { color: true });
    assert!(coloured.contains("\u{1b}[1;31m^"), "{coloured}");
    let mut bare = String::new();
    let mut rest = coloured.as_str();
    while let Some(start) = rest.find('\u{1b}') {
        bare.push_str(&rest[..start]);
        let end = rest[start..].find('m').map_or(rest.len(), |end| start + end + 1);
        rest = &rest[end..];
    }
    bare.push_str(rest);
    let trimmed: Vec<&str> = bare.lines().map(str::trim_end).collect();
    assert_eq!(trimmed, render(&diagnostics, PLAIN).lines().collect::<Vec<_>>());
}
