//! `prometheus.receive_http`: an HTTP server that takes remote write requests, versions 1 and 2, and hands each
//! request as one batch to its receivers before it answers. Every answer states what became of the samples.
//!
//! It has no queue: a receiver downstream that cannot take more is what the sender hears of, and the sender keeps the
//! samples. What a request may occupy, and all requests together, is bounded.

mod arguments;
mod component;
mod intake;
mod meters;
mod negotiation;
#[cfg(test)]
mod tests;
mod type_and_unit;

pub use arguments::ReceiveHttpArguments;
pub use component::ReceiveHttp;
