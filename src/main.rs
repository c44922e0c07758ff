//! The `invar` binary.
fn main() {}
