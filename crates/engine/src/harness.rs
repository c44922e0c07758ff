//! Runs one component in isolation, in a real engine between a feed and a capture, for the tests of component crates.
//!
//! The component's arguments are given as the text of its block's body. In it `capture.receiver` stands for a receiver that
//! keeps what is forwarded: `forward_to = [harness.capture.out.receiver]`.
