//! Reads objects of S3 and of the stores that speak its protocol: one object, or the list of a prefix.
//!
//! The room is a wall around `aws-sdk-s3`, so that a change of a source or a component never builds it again. It knows
//! what the protocol asks of a reader: signatures with credentials that are renewed, the region a bucket turns out to be
//! in, a clock that is wrong, conditions, checksums. It spawns nothing, retries nothing that time has to mend, and sends
//! everything over the client it is given. What to read when, and what a failure means for a schedule, is decided by
//! those who ask.
//!
//! Read first: [`Bucket`] and [`Session`].

mod bucket;
mod error;
mod refusal;
mod session;

pub use bucket::{Bucket, BucketSettings, InvalidBucket};
pub use error::StoreError;
pub use session::{Entry, Get, Object, Session};

/// Lowercase hexadecimal digits of `bytes`.
fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
