//! What one read of a store gives: fields that belong together, of one version.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use invar_syntax::Secret;

use crate::error::SecretError;
use crate::reference::SecretReference;

/// A grant for a time, as dynamic secrets come with.
#[derive(Clone, PartialEq, Eq)]
pub struct Lease {
    /// By what the store knows it. It gives whoever may renew it power over the credential: never shown.
    pub id: String,
    /// For how long it was granted, from the receipt of the answer.
    pub duration: Duration,
    /// Whether it can be extended.
    pub renewable: bool,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({:?}, renewable: {})", self.duration, self.renewable)
    }
}

/// What one read of a path gave: its fields belong together, such as a user name with its password.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretSnapshot {
    /// Counts up from 1 with every change of the fields, within this process.
    pub version: u64,
    /// The fields by name. A store that has one unnamed value calls it `value`.
    pub fields: BTreeMap<String, Secret>,
    /// When the values end, as the store said it.
    pub not_after: Option<SystemTime>,
    /// What has to be renewed for the values to last.
    pub lease: Option<Lease>,
    /// When the store replaces the values by itself: nothing new is to be had before.
    pub read_again: Option<Duration>,
    /// What the store calls this version, for people.
    pub store_version: Option<String>,
    /// A mark of what the lease was granted under, where it ends with that, as with a token. Only the store knows what it
    /// stands for.
    pub granted_under: Option<String>,
}

impl fmt::Debug for SecretSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretSnapshot")
            .field("version", &self.version)
            .field("fields", &self.fields.keys())
            .field("not_after", &self.not_after)
            .finish()
    }
}

impl SecretSnapshot {
    /// A first version of `fields`.
    #[must_use]
    pub fn new(fields: BTreeMap<String, Secret>) -> Self {
        Self {
            version: 1,
            fields,
            not_after: None,
            lease: None,
            read_again: None,
            store_version: None,
            granted_under: None,
        }
    }

    /// With the end that its lease gives it, if nothing else does.
    #[must_use]
    pub(crate) fn with_end_of_lease(mut self) -> Self {
        if let (None, Some(lease)) = (self.not_after, &self.lease) {
            self.not_after = SystemTime::now().checked_add(lease.duration);
        }
        self
    }

    /// The same with another term: a lease says when what it is for ends.
    #[must_use]
    pub(crate) fn with_lease(&self, lease: Lease) -> Self {
        let not_after = SystemTime::now().checked_add(lease.duration);
        Self { lease: Some(lease), not_after, ..self.clone() }
    }

    /// A first version with one unnamed field.
    #[must_use]
    pub fn single(secret: Secret) -> Self {
        Self::new(BTreeMap::from([("value".to_owned(), secret)]))
    }

    /// The field a reference names; the only one where it names none.
    ///
    /// # Errors
    /// [`SecretError::Missing`] when there is no such field, or several and none is named.
    pub fn field(&self, reference: &SecretReference) -> Result<&Secret, SecretError> {
        let missing = |reason: String| SecretError::Missing { reference: reference.to_string(), reason };
        match &reference.field {
            Some(name) => self.fields.get(name).ok_or_else(|| missing(format!("it has no field `{name}`"))),
            None => {
                let mut fields = self.fields.values();
                match (fields.next(), fields.next()) {
                    (Some(only), None) => Ok(only),
                    (None, _) => Err(missing("it has no fields".to_owned())),
                    (Some(_), Some(_)) => {
                        let names: Vec<&str> = self.fields.keys().map(String::as_str).collect();
                        Err(missing(format!("it has several fields, name one of them: {}", names.join(", "))))
                    }
                }
            }
        }
    }
}
