//! `invar fmt`: configurations in the canonical form, written back, checked, or shown as a difference. Every file is
//! looked at, whatever is wrong with the others.

mod files;

use std::io::{Read, Write};
use std::path::Path;

use invar_syntax::limits::MAX_SOURCE_BYTES;
use invar_syntax::{Style, format, parse_bytes, render};
use similar::TextDiff;

use super::output::{Styling, Tone, complain};
use crate::exit::Exit;

/// Lines of context around a difference.
const CONTEXT: usize = 3;

/// The name of standard input in messages.
const STANDARD_INPUT: &str = "<stdin>";

#[derive(Debug, clap::Args)]
pub(crate) struct FmtArguments {
    /// Files, folders (every *.alloy file in them) and patterns such as 'hosts/*/*.alloy'; `-` or nothing is standard
    /// input
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// Write the result to the file it was read from, if it differs
    #[arg(short = 'w', long)]
    write: bool,
    /// Print nothing, but fail if a file is not formatted
    #[arg(short = 't', long, visible_alias = "test", conflicts_with = "write")]
    check: bool,
    /// Print what would change as a unified diff
    #[arg(long)]
    diff: bool,
}

/// What became of one file.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Verdict {
    Good,
    Bad,
}

pub(crate) fn main(arguments: &FmtArguments, styling: Styling) -> Exit {
    let from_input = arguments.paths.is_empty() || arguments.paths.iter().any(|path| path == "-");
    if from_input && arguments.write {
        complain("invar: cannot use -w with standard input");
        return Exit::Usage;
    }
    let (paths, problems) = files::find(arguments.paths.iter().filter(|path| *path != "-"));
    let mut verdicts = Vec::new();
    for problem in problems {
        complain(format!("invar: {problem}"));
        verdicts.push(Verdict::Bad);
    }
    let one_file = Format { arguments, styling };
    if from_input {
        let mut bytes = Vec::new();
        // One byte more than allowed is enough to be refused.
        let mut input = std::io::stdin().lock().take(MAX_SOURCE_BYTES as u64 + 1);
        verdicts.push(match input.read_to_end(&mut bytes) {
            Ok(_) => one_file.run(STANDARD_INPUT, &bytes, None),
            Err(error) => failed(STANDARD_INPUT, &error),
        });
    }
    for path in paths {
        let name = path.display().to_string();
        verdicts.push(match std::fs::read(&path) {
            Ok(bytes) => one_file.run(&name, &bytes, Some(&path)),
            Err(error) => failed(&name, &error),
        });
    }
    if verdicts.contains(&Verdict::Bad) { Exit::Failed } else { Exit::Done }
}

fn failed(name: &str, problem: &dyn std::fmt::Display) -> Verdict {
    complain(format!("invar: {name}: {problem}"));
    Verdict::Bad
}

/// What is done with every file.
struct Format<'a> {
    arguments: &'a FmtArguments,
    styling: Styling,
}

impl Format<'_> {
    fn run(&self, name: &str, bytes: &[u8], path: Option<&Path>) -> Verdict {
        let (file, diagnostics) = parse_bytes(name, bytes);
        let Some(file) = file else {
            complain(render(&diagnostics, Style { color: self.styling.errors() }).trim_end());
            return Verdict::Bad;
        };
        let formatted = match format(&file) {
            Ok(formatted) => formatted,
            Err(error) => return failed(name, &error),
        };
        let changed = formatted.as_bytes() != bytes;
        if self.arguments.diff && changed {
            print(&self.difference(name, &file.source.text, &formatted));
        }
        if self.arguments.check {
            if changed {
                complain(format!("file {name} is not formatted correctly"));
                return Verdict::Bad;
            }
            return Verdict::Good;
        }
        match path {
            Some(path) if self.arguments.write => {
                if let Err(error) = if changed { files::replace(path, &formatted) } else { Ok(()) } {
                    return failed(name, &error);
                }
            }
            _ if self.arguments.diff => {}
            _ => print(&formatted),
        }
        Verdict::Good
    }

    fn difference(&self, name: &str, before: &str, after: &str) -> String {
        let difference = TextDiff::from_lines(before, after);
        let mut unified = difference.unified_diff();
        let text = unified.context_radius(CONTEXT).header(&format!("{name}.orig"), name).to_string();
        let painted = text.split_inclusive('\n').map(|line| {
            let tone = match line.as_bytes() {
                [b'@', b'@', ..] => Tone::Faint,
                [b'+', b'+', b'+', ..] | [b'-', b'-', b'-', ..] => Tone::Strong,
                [b'+', ..] => Tone::Good,
                [b'-', ..] => Tone::Bad,
                _ => Tone::Plain,
            };
            match line.strip_suffix('\n') {
                Some(line) => self.styling.paint(tone, line) + "\n",
                None => self.styling.paint(tone, line),
            }
        });
        painted.collect()
    }
}

/// Prints a text as it is. A reader that went away is not an error.
fn print(text: &str) {
    drop(std::io::stdout().lock().write_all(text.as_bytes()));
}
