//! The codes of the lexer's and parser's diagnostics, E001 to E099, each with what it means. A code never changes its
//! meaning and is never used again for another one.

/// A diagnostic's code and its explanation.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Code {
    /// Such as `E001`.
    pub code: &'static str,
    /// What is wrong and how to mend it, in full sentences.
    pub explanation: &'static str,
}

macro_rules! codes {
    ($($(#[doc = $explanation:literal])+ $name:ident = $code:literal;)+) => {
        $($(#[doc = $explanation])+ pub const $name: &str = $code;)+

        /// Every code of lexer and parser, in order.
        pub const SYNTAX_CODES: &[Code] =
            &[$(Code { code: $code, explanation: concat!($($explanation),+) }),+];
    };
}

codes! {
    /// A character that no token begins with, a NUL character, or a byte order mark that is not at the very start.
    ILLEGAL_CHARACTER = "E001";
    /// Strings stand in double quotes (or in backticks, without escapes), never in single quotes.
    SINGLE_QUOTED_STRING = "E002";
    /// A string has no closing quote. One in double quotes must end on its line; one in backticks may span lines.
    UNTERMINATED_STRING = "E003";
    /// A `/*` comment has no `*/`. Comments do not nest.
    UNTERMINATED_COMMENT = "E004";
    /// An escape sequence that the language lacks or that is incomplete. The known ones are
    /// \a \b \f \n \r \t \v \\ \" \ooo \xhh \uhhhh \Uhhhhhhhh; a backslash itself is written \\.
    INVALID_ESCAPE = "E005";
    /// Byte escapes (\xhh, \ooo) that together are no valid UTF-8. Strings hold text; write characters as \uhhhh.
    ESCAPE_NOT_UTF8 = "E006";
    /// An exponent, as in 1e9, without digits.
    MISSING_EXPONENT = "E007";
    /// A single `|` or `&`, where the operators are `||` and `&&`.
    HALF_OPERATOR = "E008";
    /// The text is not UTF-8. Save the file as UTF-8; a UTF-8 byte order mark is accepted.
    NOT_UTF8 = "E009";
    /// The text is larger than a configuration may be.
    TOO_LARGE = "E010";
    /// Blocks, brackets or operators nest too deeply, or one expression has too many terms.
    TOO_DEEP = "E011";
    /// There are more errors than are worth listing; mend the first ones and try again.
    TOO_MANY_ERRORS = "E012";
    /// Another token was expected here, such as a closing bracket or the name after a dot.
    UNEXPECTED_TOKEN = "E020";
    /// A statement begins with a name; so does every part of a dotted block name.
    EXPECTED_IDENTIFIER = "E021";
    /// After a name there must be `= value` or `{ … }`.
    EXPECTED_STATEMENT_BODY = "E022";
    /// After a block's name and label there must be `{ … }`.
    EXPECTED_BLOCK_BODY = "E023";
    /// Between a block's name and its body there may only be a label in double quotes.
    EXPECTED_BLOCK_LABEL = "E024";
    /// A block label stands in double quotes, not in backticks.
    LABEL_NOT_DOUBLE_QUOTED = "E025";
    /// A block label must be a valid identifier: letters, digits and underscores, not beginning with a digit, and no
    /// keyword.
    LABEL_NOT_IDENTIFIER = "E026";
    /// The name of an attribute has no dots.
    DOTTED_ATTRIBUTE = "E027";
    /// An attribute has no label; only blocks do.
    LABELLED_ATTRIBUTE = "E028";
    /// A value was expected here.
    EXPECTED_EXPRESSION = "E029";
    /// An object's keys are names or strings.
    EXPECTED_FIELD_NAME = "E030";
    /// Elements are separated by commas; a list that ends on a new line needs one after its last element too.
    MISSING_COMMA = "E031";
    /// A block is a statement, not a value. To use a component's export, name it: `value = prometheus.x.label.export`.
    BLOCK_AS_EXPRESSION = "E032";
    /// Each statement stands on its own line.
    EXPECTED_TERMINATOR = "E033";
}

#[cfg(test)]
mod tests {
    use super::SYNTAX_CODES;

    #[test]
    fn codes_are_unique_ascending_and_explained() {
        for pair in SYNTAX_CODES.windows(2) {
            assert!(pair[0].code < pair[1].code, "{} before {}", pair[0].code, pair[1].code);
        }
        for code in SYNTAX_CODES {
            assert!(code.code.len() == 4 && code.code.starts_with("E0"), "{}", code.code);
            assert!(
                code.explanation.trim().ends_with(|end: char| end.is_ascii_punctuation()),
                "{}",
                code.code
            );
        }
    }
}
