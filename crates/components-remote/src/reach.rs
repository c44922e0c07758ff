//! Whether a server may be connected to, for clients that do not ask at each connection: what they reach is decided by its
//! name, once, when they are made.

use invar_policy::{Access, Reach, Refusal};

/// Whether the server that `address` names may be reached, whatever its name resolves to.
///
/// # Errors
/// It may not, or only some of its addresses may, which such a client does not tell apart.
pub(crate) fn by_name(address: &str, access: &Access) -> Result<(), Refusal> {
    match access.destination_text(address)? {
        Reach::Anywhere => Ok(()),
        Reach::ByAddress => Err(Refusal {
            message: format!(
                "{} may not be connected to: `egress` names networks only",
                invar_sources::redact(address)
            ),
            help: "allow its host by name in `egress` of [policy] in this host's settings".to_owned(),
        }),
    }
}
