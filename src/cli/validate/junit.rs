//! `-o junit`: the format that every continuous integration service shows as a list of tests.

use invar_syntax::Severity;

use super::report::Checked;

/// A suite for every configuration, a case for every finding; one that passes where there is none.
pub(super) fn junit(checked: &[Checked]) -> String {
    let failures =
        |checked: &Checked| checked.count(Severity::Error) + usize::from(checked.unreadable.is_some());
    let cases =
        |checked: &Checked| (checked.findings.len() + usize::from(checked.unreadable.is_some())).max(1);
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let sum = |count: &dyn Fn(&Checked) -> usize| checked.iter().map(count).sum::<usize>();
    text.push_str(&format!(
        "<testsuites name=\"invar validate\" tests=\"{}\" failures=\"{}\">\n",
        sum(&cases),
        sum(&failures)
    ));
    for checked in checked {
        text.push_str(&format!(
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\">\n",
            xml(&checked.what),
            cases(checked),
            failures(checked)
        ));
        let case = |text: &mut String, name: &str, inner: &str| {
            text.push_str(&format!(
                "    <testcase classname=\"{}\" name=\"{}\">{inner}</testcase>\n",
                xml(&checked.what),
                xml(name)
            ));
        };
        if let Some(problem) = &checked.unreadable {
            let inner = format!("<failure type=\"unreadable\" message=\"{}\"/>", xml(problem));
            case(&mut text, "reading", &inner);
        } else if checked.findings.is_empty() {
            case(&mut text, "valid", "");
        }
        for finding in &checked.findings {
            let rule = finding.rule();
            let place = finding
                .place()
                .map_or_else(|| checked.what.clone(), |(label, _)| label.source.location(label.span.start));
            let name = format!("{place} {}", rule.name);
            let inner = if finding.is_error() {
                format!(
                    "<failure type=\"{}\" message=\"{}\">{}</failure>",
                    rule.code,
                    xml(&finding.diagnostic.message),
                    xml(&format!("{place}: {}", finding.words()))
                )
            } else {
                let words = format!("{place}: warning[{}]: {}", rule.code, finding.words());
                format!("<system-out>{}</system-out>", xml(&words))
            };
            case(&mut text, &name, &inner);
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>");
    text
}

/// Text within XML, in an attribute or not. Characters that XML cannot hold are left out.
fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push_str(&format!("&#{};", u32::from(character))),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {}
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::checked;
    use super::*;

    #[test]
    fn findings_are_cases() {
        let text = junit(&[checked("a<b>.alloy", "x = 1\ny = [\n")]);
        assert!(text.contains("<testsuites name=\"invar validate\" tests=\"2\" failures=\"1\">"), "{text}");
        assert!(text.contains("<testsuite name=\"a&lt;b&gt;.alloy\" tests=\"2\" failures=\"1\">"), "{text}");
        assert!(text.contains("<failure type=\"E101\" message=\"no such &quot;x&quot;\">"), "{text}");
        assert!(text.contains("<system-out>"), "{text}");
        let valid = Checked { what: "v".to_owned(), files: 1, ..Checked::default() };
        assert!(junit(&[valid]).contains("<testcase classname=\"v\" name=\"valid\"></testcase>"));
    }

    #[test]
    fn characters_that_xml_lacks_are_left_out() {
        assert_eq!(xml("a\u{1}\u{1b}[1m\n<&\">"), "a[1m&#10;&lt;&amp;&quot;&gt;");
    }
}
