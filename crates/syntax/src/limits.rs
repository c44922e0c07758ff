//! Bounds that keep hostile or broken input from exhausting stack or memory. Exceeding one is a diagnostic.

/// Largest source text in bytes: 16 MiB.
pub const MAX_SOURCE_BYTES: usize = 16 * 1024 * 1024;

/// How deep blocks, brackets, unary operators and right-associative operators may nest, taken together.
pub const MAX_NESTING: u32 = 200;

/// How high one expression tree may grow, chains such as `a + b + c` or `a.b.c` included. Whoever walks a tree
/// recursively may rely on it.
pub const MAX_EXPRESSION_HEIGHT: u32 = 500;

/// How many diagnostics one text may yield before the rest is counted, not listed.
pub const MAX_DIAGNOSTICS: usize = 1_000;
