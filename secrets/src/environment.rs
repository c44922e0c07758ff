//! The store `env`: variables of the process's environment, read at each use.

use invar_syntax::Secret;

use crate::error::SecretError;
use crate::snapshot::SecretSnapshot;
use crate::store::{BoxFuture, SecretStore, StoreKind};

type Lookup = dyn Fn(&str) -> Option<String> + Send + Sync;

/// Reads environment variables; the path is the variable's name.
pub struct EnvironmentStore {
    lookup: Box<Lookup>,
    /// The names that may be read; all where none are named.
    variables: Option<Vec<String>>,
}

impl EnvironmentStore {
    /// The environment of this process.
    #[must_use]
    pub fn process() -> Self {
        Self::with_lookup(|name| std::env::var(name).ok())
    }

    /// Any lookup, so that tests need not change the environment of the process.
    #[must_use]
    pub fn with_lookup(lookup: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self { lookup: Box::new(lookup), variables: None }
    }

    /// The same store, of these variables only.
    #[must_use]
    pub fn only(mut self, variables: Vec<String>) -> Self {
        self.variables = Some(variables);
        self
    }

    /// The variable's value.
    ///
    /// # Errors
    /// [`SecretError::Missing`] when it is not set, not UTF-8, or empty; [`SecretError::Denied`] when the store is not for it.
    pub fn get(&self, name: &str) -> Result<Secret, SecretError> {
        if self.variables.as_ref().is_some_and(|variables| !variables.iter().any(|variable| variable == name))
        {
            return Err(SecretError::Denied {
                reference: format!("env/{name}"),
                reason: format!("`{name}` is not among the `variables` of the store's settings"),
            });
        }
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
        let store = store.only(vec!["EMPTY".to_owned()]);
        assert!(matches!(store.read("TOKEN").await, Err(SecretError::Denied { .. })));
    }
}
