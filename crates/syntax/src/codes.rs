//! The codes of the lexer's and parser's diagnostics.
