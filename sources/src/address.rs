//! Addresses.
use crate::settings::SourceSettings;
/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It cannot be parsed.
    #[error("{0}")]
    Invalid(String),
}
/// Parses an address.
///
/// # Errors
/// [`AddressError`].
#[allow(clippy::todo)]
pub fn parse_address(_text: &str) -> Result<SourceSettings, AddressError> {
    todo!()
}
/// An address without what may be secret in it.
#[must_use]
#[allow(clippy::todo)]
pub fn redact(_text: &str) -> String {
    todo!()
}
