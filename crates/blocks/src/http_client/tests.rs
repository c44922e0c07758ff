//! Tests of the client against servers of their own.
