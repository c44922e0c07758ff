//! What commands print: tables that line up on a terminal and stay plain text elsewhere, ages and durations as
//! people say them, and colour only where someone can see it.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::Colour;

/// Whether standard output and standard error are coloured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Styling {
    out: bool,
    err: bool,
}

/// What a piece of text means; colour follows from it, never the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Strong,
    Good,
    Attention,
    Bad,
    Faint,
}

impl Styling {
    /// Without any colour.
    pub(crate) const PLAIN: Self = Self { out: false, err: false };

    /// Colour as asked; by default on terminals, unless NO_COLOR is set.
    #[must_use]
    pub(crate) fn detect(colour: Colour) -> Self {
        let quiet = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        match colour {
            Colour::Always => Self { out: true, err: true },
            Colour::Never => Self::PLAIN,
            Colour::Auto => Self {
                out: !quiet && std::io::stdout().is_terminal(),
                err: !quiet && std::io::stderr().is_terminal(),
            },
        }
    }

    /// Whether standard error is coloured.
    #[must_use]
    pub(crate) fn errors(self) -> bool {
        self.err
    }

    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Strong => "1",
            Tone::Good => "32",
            Tone::Attention => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
        };
        if self.out { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Prints a line to standard output. A reader that went away (`| head`) is not an error.
pub(crate) fn line(text: impl AsRef<str>) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{}", text.as_ref()));
}

/// Prints a line to standard error.
pub(crate) fn complain(text: impl AsRef<str>) {
    drop(writeln!(std::io::stderr().lock(), "{}", text.as_ref()));
}

/// Prints a value as JSON.
pub(crate) fn json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => line(text),
        Err(error) => complain(format!("invar: cannot print as JSON: {error}")),
    }
}

/// Columns of text that line up.
pub(crate) struct Table {
    rows: Vec<Vec<(Tone, String)>>,
}

impl Table {
    pub(crate) fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|cell| (Tone::Strong, (*cell).to_owned())).collect()] }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = (Tone, String)>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn print(&self, styling: Styling) {
        for text in self.lines(styling) {
            line(text);
        }
    }

    /// The lines, the header first.
    pub(crate) fn lines(&self, styling: Styling) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows
                    .iter()
                    .filter_map(|row| row.get(column))
                    .map(|cell| cell.1.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        self.rows
            .iter()
            .map(|row| {
                let mut text = String::new();
                for (column, (tone, cell)) in row.iter().enumerate() {
                    text.push_str(&styling.paint(*tone, cell));
                    if column + 1 < row.len() {
                        let pad = widths[column] - cell.chars().count() + 2;
                        text.extend(std::iter::repeat_n(' ', pad));
                    }
                }
                text
            })
            .collect()
    }
}

/// How long ago, as people say it: `12 s`, `4 m`, `2 h 11 m`, `3 d`.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, m) if seconds.is_multiple_of(60) || m >= 5 => format!("{m} m"),
        (0, 0, m) => format!("{m} m {} s", seconds % 60),
        (0, h, 0) => format!("{h} h"),
        (0, h, m) => format!("{h} h {m} m"),
        (d, 0, _) => format!("{d} d"),
        (d, h, _) => format!("{d} d {h} h"),
    }
}

/// A size as people say it: `512 bytes`, `1.5 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.into_iter().find(|(_, bits)| bytes >> bits > 0) {
        None => format!("{bytes} bytes"),
        Some((unit, bits)) => {
            let tenths = (u128::from(bytes) * 10) >> bits;
            match tenths % 10 {
                0 => format!("{} {unit}", tenths / 10),
                rest => format!("{}.{rest} {unit}", tenths / 10),
            }
        }
    }
}

/// Reads a duration such as `90s`, `2h30m` or `500ms`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    invar_rollout::parse_duration(text)
}

/// The first characters of a commit id inside a revision: `main@sha1:4be21c09`.
pub(crate) fn short_revision(revision: &str) -> String {
    // An environment may take its base from another commit.
    if let Some((head, pin)) = revision.split_once("+base@") {
        let pin =
            if pin.bytes().all(|byte| byte.is_ascii_hexdigit()) { pin.get(..8).unwrap_or(pin) } else { pin };
        return format!("{}+base@{pin}", short_revision(head));
    }
    match revision.rsplit_once(':') {
        Some((head, id)) if id.len() > 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            format!("{head}:{}", &id[..8])
        }
        _ => revision.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_the_last_is_not_padded() {
        let mut table = Table::new(&["GEN", "REVISION"]);
        table.row([(Tone::Plain, "1041".to_owned()), (Tone::Good, "é".to_owned())]);
        assert_eq!(table.lines(Styling::PLAIN), ["GEN   REVISION", "1041  é"]);
    }

    #[test]
    fn spans_read_as_people_say_them() {
        let said =
            [7, 60, 115, 600, 7_860, 7_200, 86_400, 90_000].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(said, ["7 s", "1 m", "1 m 55 s", "10 m", "2 h 11 m", "2 h", "1 d", "1 d 1 h"]);
    }

    #[test]
    fn sizes_read_as_people_say_them() {
        let said = [0, 512, 1024, 1536, 5 << 20, (2 << 30) + (1 << 29), u64::MAX].map(size);
        assert_eq!(said[..6], ["0 bytes", "512 bytes", "1 KiB", "1.5 KiB", "5 MiB", "2.5 GiB"]);
    }

    #[test]
    fn only_commit_ids_are_shortened() {
        assert_eq!(
            short_revision("main@sha1:4be21c09aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
            "main@sha1:4be21c09"
        );
        assert_eq!(short_revision("conf.d@12:30:01"), "conf.d@12:30:01");
    }
}
