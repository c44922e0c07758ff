//! How settings name a credential: as text, or by where it is kept.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use invar_syntax::Secret;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::environment::EnvironmentStore;
use crate::error::SecretError;
use crate::file::read_secret_file;
use crate::reference::SecretReference;
use crate::stores::SecretStores;

/// A credential in settings: `"text"`, `{ secret = "…" }`, `{ file = "…" }` or `{ env = "…" }`.
///
/// It is resolved at each use, so that a rotated file or secret is picked up.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// Written into the settings themselves.
    Text(Secret),
    /// A secret of a store.
    Secret(SecretReference),
    /// A file on this host.
    File(PathBuf),
    /// A variable of the process's environment.
    Environment(String),
}

impl Credential {
    /// The value, read now.
    ///
    /// # Errors
    /// [`SecretError`]; it names where the value should have been.
    pub async fn resolve(&self, stores: &SecretStores) -> Result<Secret, SecretError> {
        match self {
            Self::Text(secret) => Ok(secret.clone()),
            Self::Secret(reference) => stores.read(reference).await,
            Self::File(path) => {
                let path = path.clone();
                tokio::task::spawn_blocking(move || read_secret_file(&path)).await.unwrap_or_else(|_| {
                    Err(SecretError::unavailable("file".to_owned(), "reading was interrupted".to_owned()))
                })
            }
            Self::Environment(name) => EnvironmentStore::process().get(name),
        }
    }

    /// Says that what this gave was refused where it was shown. A secret of a store is read again soon, at most every ten
    /// seconds; a file and a variable are read at each use anyway.
    pub fn refused(&self, stores: &SecretStores) {
        if let Self::Secret(reference) = self
            && let Some(secret) = stores.find(reference)
        {
            secret.lost(secret.version());
        }
    }

    /// Where the value is kept; stable, and the same for equal credentials except texts, which are only
    /// said to be texts.
    #[must_use]
    pub fn location(&self) -> String {
        match self {
            Self::Text(_) => "text".to_owned(),
            Self::Secret(reference) => format!("secret {reference}"),
            Self::File(path) => format!("file {}", path.display()),
            Self::Environment(name) => format!("env {name}"),
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Credential((secret))"),
            _ => write!(f, "Credential({})", self.location()),
        }
    }
}

impl<'de> Deserialize<'de> for Credential {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CredentialVisitor)
    }
}

impl JsonSchema for Credential {
    fn schema_name() -> Cow<'static, str> {
        "Credential".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let place = |key: &str, description: &str| {
            json_schema!({
                "type": "object",
                "description": description,
                "properties": { key: { "type": "string", "minLength": 1 } },
                "required": [key],
                "additionalProperties": false,
            })
        };
        json_schema!({
            "description": "A credential, resolved at each use.",
            "anyOf": [
                { "type": "string", "minLength": 1, "description": "The text itself." },
                place("secret", "A secret of a store: `store/path#field`."),
                place("file", "A file on this host."),
                place("env", "A variable of the agent's environment."),
            ],
        })
    }
}

struct CredentialVisitor;

impl<'de> Visitor<'de> for CredentialVisitor {
    type Value = Credential;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a credential: text, { secret = … }, { file = … } or { env = … }")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Credential, E> {
        if text.is_empty() {
            return Err(E::custom("a credential is not empty"));
        }
        Ok(Credential::Text(Secret::new(text)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Credential, A::Error> {
        const KEYS: &[&str] = &["secret", "file", "env"];
        let Some(key) = map.next_key::<String>()? else {
            return Err(de::Error::custom("a credential names one of secret, file, env"));
        };
        let credential = match key.as_str() {
            "secret" => {
                let text: String = map.next_value()?;
                Credential::Secret(text.parse().map_err(de::Error::custom)?)
            }
            "file" => Credential::File(map.next_value()?),
            "env" => Credential::Environment(map.next_value()?),
            other => return Err(de::Error::unknown_field(other, KEYS)),
        };
        if map.next_key::<String>()?.is_some() {
            return Err(de::Error::custom("a credential names only one of secret, file, env"));
        }
        Ok(credential)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Holder {
        token: Credential,
    }

    fn parse(text: &str) -> Result<Credential, String> {
        toml::from_str::<Holder>(text).map(|holder| holder.token).map_err(|error| error.to_string())
    }

    #[test]
    fn the_four_forms() {
        assert_eq!(parse("token = 'hunter2'").unwrap(), Credential::Text(Secret::new("hunter2")));
        assert_eq!(
            parse("token = { secret = 'vault/kv/git#token' }").unwrap(),
            Credential::Secret("vault/kv/git#token".parse().unwrap())
        );
        assert_eq!(parse("token = { file = '/run/token' }").unwrap(), Credential::File("/run/token".into()));
        assert_eq!(parse("token = { env = 'TOKEN' }").unwrap(), Credential::Environment("TOKEN".to_owned()));
    }

    #[test]
    fn other_forms_are_errors() {
        assert!(parse("token = ''").unwrap_err().contains("not empty"));
        assert!(parse("token = {}").unwrap_err().contains("one of secret, file, env"));
        assert!(parse("token = { fil = 'x' }").unwrap_err().contains("unknown field `fil`"));
        assert!(parse("token = { env = 'A', file = 'b' }").unwrap_err().contains("only one"));
        assert!(parse("token = { secret = 'x' }").unwrap_err().contains("<store>/<path>"));
        assert!(parse("token = 1").unwrap_err().contains("a credential"));
    }

    #[test]
    fn a_text_is_never_printed() {
        let credential = Credential::Text(Secret::new("hunter2"));
        assert!(!format!("{credential:?} {}", credential.location()).contains("hunter2"));
    }

    #[tokio::test]
    async fn files_are_read_at_each_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let credential = Credential::File(path.clone());
        let stores = SecretStores::default();
        assert!(matches!(credential.resolve(&stores).await, Err(SecretError::Missing { .. })));
        std::fs::write(&path, "one\n").unwrap();
        assert_eq!(credential.resolve(&stores).await.unwrap().expose(), "one");
        std::fs::write(&path, "two\n").unwrap();
        assert_eq!(credential.resolve(&stores).await.unwrap().expose(), "two");
    }
}
