//! The store `env`: variables of the process's environment, read at each use.

use invar_syntax::Secret;

use crate::error::SecretError;
use crate::snapshot::SecretSnapshot;
use crate::store::{BoxFuture, SecretStore, StoreKind};

type Lookup = dyn Fn(&str) -> Option<String> + Send + Sync;

/// Reads environment variables; the path is the variable's name.
pub struct EnvironmentStore {
    lookup: Box<Lookup>,
}

impl EnvironmentStore {
    /// The environment of this process.
    #[must_use]
    pub fn process() -> Self {
        Self { lookup: Box::new(|name| std::env::var(name).ok()) }
    }

    /// Any lookup, so that tests need not change the environment of the process.
    #[must_use]
    pub fn with_lookup(lookup: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self { lookup: Box::new(lookup) }
    }

    /// The variable's value.
    ///
    /// # Errors
    /// [`SecretError::Missing`] when it is not set, not UTF-8, or empty.
    pub fn get(&self, name: &str) -> Result<Secret, SecretError> {
        match (self.lookup)(name) {
            Some(value) if !value.is_empty() => Ok(Secret::new(value)),
            Some(_) => Err(SecretError::Missing {
                reference: format!("env/{name}"),
                reason: format!("the environment variable `{name}` is empty"),
            }),
            None => Err(SecretError::Missing {
                reference: format!("env/{name}"),
                reason: format!("the environment variable `{name}` is not set"),
            }),
        }
    }
}

impl SecretStore for EnvironmentStore {
    fn kind(&self) -> StoreKind {
        StoreKind::Environment
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<SecretSnapshot, SecretError>> {
        Box::pin(async move { self.get(path).map(SecretSnapshot::single) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn variables_are_read_by_name() {
        let store = EnvironmentStore::with_lookup(|name| match name {
            "TOKEN" => Some("abc".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        });
        let snapshot = store.read("TOKEN").await.unwrap();
        assert_eq!(snapshot.field(&"env/TOKEN".parse().unwrap()).unwrap().expose(), "abc");
        assert!(store.read("EMPTY").await.unwrap_err().to_string().contains("is empty"));
        assert!(store.read("OTHER").await.unwrap_err().to_string().contains("is not set"));
    }
}
