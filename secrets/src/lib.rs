//! Secret stores and the handles by which values of theirs are used.
