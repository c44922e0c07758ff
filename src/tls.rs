//! The process's one TLS provider.

/// Makes ring the provider of every TLS connection of the process. Called again, it changes nothing.
pub(crate) fn install_provider() {
    // An error means that it is installed already, which is what is wanted.
    drop(rustls::crypto::ring::default_provider().install_default());
}
