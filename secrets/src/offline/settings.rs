//! `[state] offline_secrets`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use invar_syntax::Secret;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::record::key_problem;
use crate::credential::Credential;
use crate::duration::{DurationText, positive};
use crate::error::SecretError;
use crate::settings::{StoreSettings, StoreTable};
use crate::stores::SecretStores;

/// Whether values of secrets outlive the process: `"deny"`, or `{ key = …, max_age = "24h" }`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OfflineSettings {
    /// They do not.
    #[default]
    Deny,
    /// They do, encrypted.
    Encrypted(EncryptedOffline),
}

/// How values are kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EncryptedOffline {
    /// What they are encrypted with: at least 32 random characters, kept outside of the state directory, as in a file or a
    /// credential of systemd.
    pub key: Credential,
    /// The longest time for which a value is used that no store confirmed.
    #[serde(default = "default_max_age", deserialize_with = "positive")]
    #[schemars(with = "DurationText", extend("default" = "24h"))]
    pub max_age: Duration,
}

fn default_max_age() -> Duration {
    Duration::from_secs(24 * 3600)
}

impl EncryptedOffline {
    /// The key, read now; `stores` hold it, if it is a secret.
    ///
    /// # Errors
    /// It cannot be had, or is none.
    pub async fn key_in(&self, stores: &SecretStores) -> Result<Secret, SecretError> {
        let reference = self.key.location();
        let key = self.key.resolve(stores).await;
        let key = key.map_err(|error| error.of_part(&reference, "the key of offline secrets"))?;
        match key_problem(&key) {
            None => Ok(key),
            Some(problem) => Err(SecretError::Invalid {
                reference,
                reason: format!("the key of offline secrets: {problem}"),
            }),
        }
    }
}

impl OfflineSettings {
    /// What is wrong with them, given the stores of the settings; a sentence.
    #[must_use]
    pub fn problem(&self, stores: &StoreTable) -> Option<String> {
        let Self::Encrypted(EncryptedOffline { key: Credential::Secret(reference), .. }) = self else {
            return None;
        };
        let remote = match stores.get(&reference.store) {
            Some(StoreSettings::Kubernetes(_) | StoreSettings::Vault(_)) => true,
            Some(
                StoreSettings::File(_)
                | StoreSettings::Env(_)
                | StoreSettings::Systemd(_)
                | StoreSettings::Exec(_)
                | StoreSettings::Age(_),
            )
            | None => false,
        };
        remote.then(|| {
            format!(
                "`[state] offline_secrets` has its key in the store `{}`, which may be out of reach just then: keep the \
                 key in a file, a credential of systemd, or behind a command",
                reference.store
            )
        })
    }
}

impl<'de> Deserialize<'de> for OfflineSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = OfflineSettings;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"deny\", or a table with `key`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OfflineSettings, E> {
                match text {
                    "deny" => Ok(OfflineSettings::Deny),
                    // The text is not repeated: it may be a key in the wrong place.
                    _ => Err(E::custom("offline_secrets is \"deny\", or a table with `key`")),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OfflineSettings, A::Error> {
                EncryptedOffline::deserialize(MapAccessDeserializer::new(map)).map(OfflineSettings::Encrypted)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for OfflineSettings {
    fn schema_name() -> Cow<'static, str> {
        "OfflineSettings".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let encrypted = generator.subschema_for::<EncryptedOffline>();
        json_schema!({
            "description": "Whether values of secrets outlive the process.",
            "anyOf": [
                { "type": "string", "enum": ["deny"], "description": "They do not; the default." },
                encrypted,
            ],
        })
    }
}
