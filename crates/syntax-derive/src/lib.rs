//! Derive macros by which a component declares its arguments and exports.
