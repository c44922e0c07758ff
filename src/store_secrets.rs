//! The secret stores as the engine asks for them: `secret("store/path#field")` of a pipeline becomes a live secret of the
//! stores.

use futures_util::future::BoxFuture;
use invar_engine::{SecretFailure, SecretLack, SecretSource};
use invar_secrets::{SecretError, SecretReference, SecretStores};
use invar_syntax::LiveSecret;
use tokio::sync::watch;

/// The stores of this agent.
pub(crate) struct StoreSecrets(pub(crate) SecretStores);

impl SecretSource for StoreSecrets {
    fn find(&self, reference: &str) -> Option<LiveSecret> {
        self.0.find(&reference.parse().ok()?)
    }

    fn resolve(&self, reference: String) -> BoxFuture<'_, Result<LiveSecret, SecretFailure>> {
        Box::pin(async move {
            let parsed: SecretReference = reference.parse().map_err(|error| SecretFailure {
                message: format!("\"{reference}\" names no secret: {error}"),
                help: None,
                lack: SecretLack::Unusable,
            })?;
            self.0.live(&parsed).await.map_err(|error| self.failure(&error))
        })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes()
    }
}

impl StoreSecrets {
    fn failure(&self, error: &SecretError) -> SecretFailure {
        let help = match error {
            SecretError::UnknownStore { store, .. } => {
                let known: Vec<&str> = self.0.stores().map(|(name, _)| name).collect();
                let known = known.join(", ");
                Some(format!(
                    "give the store a table, [secrets.{store}], in the settings of this host; there are: {known}"
                ))
            }
            SecretError::Missing { .. } => Some("write it to its store, or correct the reference".to_owned()),
            SecretError::Denied { .. } => Some("give the agent's identity the right to read it".to_owned()),
            _ => None,
        };
        let lack = match error {
            SecretError::Missing { .. } | SecretError::UnknownStore { .. } => SecretLack::Missing,
            SecretError::Denied { .. } | SecretError::Compromised { .. } => SecretLack::Denied,
            SecretError::Unavailable { .. } => SecretLack::Unavailable,
            SecretError::Invalid { .. } => SecretLack::Unusable,
        };
        SecretFailure { message: error.to_string(), help, lack }
    }
}
