//! The names of the codes: what machine-readable outputs call a kind of finding, stable as the codes themselves.

/// A kind of finding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// `E101`.
    pub(super) code: &'static str,
    /// `unknown-name`.
    pub(super) name: &'static str,
    /// What it means, in a sentence.
    pub(super) meaning: &'static str,
}

const fn rule(code: &'static str, name: &'static str, meaning: &'static str) -> Rule {
    Rule { code, name, meaning }
}

/// The rule of a code; one without a name of its own where a room below has added a code since.
pub(super) fn of(code: &'static str) -> Rule {
    match RULES.binary_search_by(|rule| rule.code.cmp(code)) {
        Ok(found) => RULES[found],
        Err(_) => rule(code, code, "See the message."),
    }
}

/// Ordered by code.
#[rustfmt::skip]
const RULES: &[Rule] = &[
    rule("E001", "illegal-character", "A character that no token begins with."),
    rule("E002", "single-quoted-string", "Strings stand in double quotes or backticks."),
    rule("E003", "unterminated-string", "A string has no closing quote."),
    rule("E004", "unterminated-comment", "A comment has no end."),
    rule("E005", "invalid-escape", "An escape sequence that the language lacks."),
    rule("E006", "escape-not-utf8", "Byte escapes that together are no valid UTF-8."),
    rule("E007", "missing-exponent", "An exponent without digits."),
    rule("E008", "half-operator", "A single | or &."),
    rule("E009", "not-utf8", "The file is not UTF-8."),
    rule("E010", "too-large", "The file is larger than a configuration may be."),
    rule("E011", "too-deep-syntax", "Blocks or expressions nest too deeply."),
    rule("E012", "too-many-errors", "There are more errors than are listed."),
    rule("E020", "unexpected-token", "Another token was expected."),
    rule("E021", "expected-identifier", "A statement begins with a name."),
    rule("E022", "expected-statement-body", "After a name there must be a value or a body."),
    rule("E023", "expected-block-body", "After a block's name and label there must be a body."),
    rule("E024", "expected-block-label", "Between a block's name and its body there may only be a label."),
    rule("E025", "label-not-double-quoted", "A label stands in double quotes."),
    rule("E026", "label-not-identifier", "A label must be a valid identifier."),
    rule("E027", "dotted-attribute", "The name of an attribute has no dots."),
    rule("E028", "labelled-attribute", "An attribute has no label."),
    rule("E029", "expected-expression", "A value was expected."),
    rule("E030", "expected-field-name", "An object's keys are names or strings."),
    rule("E031", "missing-comma", "Elements are separated by commas."),
    rule("E032", "block-as-expression", "A block is a statement, not a value."),
    rule("E033", "expected-terminator", "Each statement stands on its own line."),
    rule("E101", "unknown-name", "No attribute or block has that name."),
    rule("E102", "missing-required", "A required attribute, block or label is missing."),
    rule("E103", "wrong-type", "A value is of the wrong type."),
    rule("E104", "duplicate-argument", "An attribute or block is given more often than it may be."),
    rule("E105", "wrong-kind", "A block stands where an attribute belongs, or the reverse."),
    rule("E106", "label-misuse", "A block has a label that takes none."),
    rule("E107", "invalid-arguments", "The values do not make sense together."),
    rule("E108", "evaluation", "An expression has no value."),
    rule("E109", "unknown-name-in-expression", "A name refers to nothing."),
    rule("E201", "unknown-component", "No component type has that name."),
    rule("E202", "missing-label", "A component block has no label."),
    rule("E203", "duplicate-block", "Two blocks have the same name and label."),
    rule("E204", "unknown-reference", "A reference leads to no component."),
    rule("E205", "cycle", "Components refer to each other in a circle."),
    rule("E206", "unsupported-block", "A block of the language that this version lacks."),
    rule("E207", "stray-attribute", "An attribute stands outside of any block."),
    rule("E208", "stability", "Something is less settled than allowed."),
    rule("E209", "community", "A community component is not allowed."),
    rule("E210", "refused-by-component", "The component refuses its arguments."),
    rule("E211", "address-taken", "Two components would listen on the same address."),
    rule("E212", "not-prepared", "A component could not be made."),
    rule("E213", "import", "An import does not say what to import, or that cannot be had."),
    rule("E214", "misplaced-block", "A block stands where it may not."),
    rule("E215", "too-deep", "Modules or templates nest too deep, or make too many components."),
    rule("E216", "module-argument", "A custom component is given an argument that it has not, or lacks one."),
    rule("E217", "not-allowed", "The ceiling of the host's settings does not allow it."),
    rule("E218", "secret-reference", "Which secret is meant is not known before anything runs."),
    rule("E219", "secret-unavailable", "A secret is not to be had."),
    rule("E220", "component-not-available", "A component that Alloy has and this version lacks."),
    rule("E301", "variables-not-toml", "A file of variables is not TOML."),
    rule("E302", "variable-name", "A variable has a name that expressions cannot use."),
    rule("E303", "variable-value", "A variable has a value that the language has no type for."),
    rule("E304", "variable-table", "A variable is a table in one layer and a value in another."),
    rule("E305", "variable-type", "A variable changes its type from one layer to the next."),
    rule("E306", "pin", "The pin of an environment cannot be followed."),
    rule("E401", "credential-in-variables", "A variable holds text that looks like a credential."),
    rule("W401", "deprecated-function", "A function is used under a name that is going to vanish."),
    rule("W402", "shadowed-library-name", "A component hides a name of the standard library."),
    rule("W403", "doubtful-argument", "The component doubts that an argument is meant so."),
    rule("W404", "unused-declare", "A declare that nothing uses."),
    rule("W405", "unused-import", "An import that nothing uses."),
    rule("W406", "unused-argument", "An argument that nothing uses."),
    rule("W407", "secret-in-text", "A secret argument is written in the configuration."),
    rule("W408", "credential-in-text", "A text looks like a token or a private key."),
    rule("W409", "password-in-address", "An address holds a password."),
    rule("W410", "needs-permission", "An agent refuses it unless told to allow it."),
    rule("W411", "unread-import", "What is imported could not be read here, and was not checked."),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::RULES;

    /// The codes that the sources of a folder define, as in `= "E101";`.
    fn defined(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
            let path = entry.unwrap_or_else(|error| panic!("{error}")).path();
            if path.is_dir() {
                defined(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let values = text.split("= \"").skip(1).filter_map(|rest| rest.split_once("\";"));
                let codes = values.map(|(value, _)| value).filter(|value| {
                    value.len() == 4
                        && value.starts_with(['E', 'W'])
                        && value[1..].bytes().all(|byte| byte.is_ascii_digit())
                });
                found.extend(codes.map(str::to_owned));
            }
        }
    }

    #[test]
    fn every_code_has_a_name_of_its_own() {
        assert!(RULES.is_sorted_by(|left, right| left.code < right.code));
        let names: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).collect();
        assert_eq!(names.len(), RULES.len());
        let mut codes = BTreeSet::new();
        for room in ["crates/syntax/src", "crates/engine/src", "crates/rollout/src", "src"] {
            defined(&Path::new(env!("CARGO_MANIFEST_DIR")).join(room), &mut codes);
        }
        assert!(codes.len() > 50, "{codes:?}");
        let unnamed: Vec<&String> =
            codes.iter().filter(|code| !RULES.iter().any(|rule| rule.code == code.as_str())).collect();
        assert!(unnamed.is_empty(), "codes without a name in rules.rs: {unnamed:?}");
    }
}
