//! `-o github`: workflow commands, which the runner turns into annotations beside the lines.

use super::report::Checked;

/// A command a finding.
pub(super) fn annotations(checked: &[Checked]) -> Vec<String> {
    let mut lines = Vec::new();
    for checked in checked {
        if let Some(problem) = &checked.unreadable {
            lines.push(format!("::error::{}", escape_data(problem)));
        }
        for finding in &checked.findings {
            let command = finding.diagnostic.severity;
            let rule = finding.rule();
            let title = escape_property(&format!("{} {}", rule.code, rule.name));
            let place = finding.place().map_or_else(String::new, |(label, region)| {
                let mut place = format!(
                    "file={},line={},endLine={},",
                    escape_property(&label.source.name),
                    region.start.0,
                    region.end.0
                );
                // Columns make sense to the runner within one line only.
                if region.start.0 == region.end.0 {
                    let end = region.end.1.max(region.start.1);
                    place.push_str(&format!("col={},endColumn={end},", region.start.1));
                }
                place
            });
            lines.push(format!("::{command} {place}title={title}::{}", escape_data(&finding.words())));
        }
    }
    lines
}

fn escape_data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn escape_property(text: &str) -> String {
    escape_data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::checked;
    use super::*;

    #[test]
    fn commands_are_escaped() {
        let lines = annotations(&[checked("a,b:c.alloy", "x = 1\ny = [\n")]);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            lines[0].starts_with(
                "::error file=a%2Cb%3Ac.alloy,line=1,endLine=1,col=1,endColumn=2,title=E101 unknown-name::"
            ),
            "{lines:?}"
        );
        assert!(lines.iter().all(|line| !line.contains('\n')), "{lines:?}");
        assert!(lines[1].contains("50%25 is too much%0Ahelp: "), "{lines:?}");
    }
}
