//! The text form of a secret's name: `<store>/<path>#<field>`.

use std::fmt;
use std::str::FromStr;

/// A parsed reference to a secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretReference {
    /// The configured store: what stands before the first slash.
    pub store: String,
    /// The logical path within the store.
    pub path: String,
    /// The field of what the path names; may be left out where there is only one.
    pub field: Option<String>,
}

/// Why a text is not a reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// There is no slash, or nothing on one side of it.
    #[error("a secret is named `<store>/<path>#<field>`, such as `vault/kv/git#token`")]
    Shape,
    /// The part after `#` is empty.
    #[error("the field after `#` is empty")]
    EmptyField,
    /// A control character, or longer than 1024 bytes.
    #[error("a secret's name is at most 1024 bytes long and has no control characters")]
    Characters,
}

impl FromStr for SecretReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.len() > 1024 || text.chars().any(char::is_control) {
            return Err(ReferenceError::Characters);
        }
        let (location, field) = match text.rsplit_once('#') {
            Some((_, "")) => return Err(ReferenceError::EmptyField),
            Some((location, field)) => (location, Some(field.to_owned())),
            None => (text, None),
        };
        match location.split_once('/') {
            Some((store, path)) if !store.is_empty() && !path.is_empty() => {
                Ok(Self { store: store.to_owned(), path: path.to_owned(), field })
            }
            _ => Err(ReferenceError::Shape),
        }
    }
}

impl fmt::Display for SecretReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.store, self.path)?;
        match &self.field {
            Some(field) => write!(f, "#{field}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn references_have_a_store_a_path_and_perhaps_a_field() {
        let reference: SecretReference = "vault/kv/team/es#password".parse().unwrap();
        assert_eq!(
            (reference.store.as_str(), reference.path.as_str(), reference.field.as_deref()),
            ("vault", "kv/team/es", Some("password"))
        );
        assert_eq!(reference.to_string(), "vault/kv/team/es#password");
        let reference: SecretReference = "env/TOKEN".parse().unwrap();
        assert_eq!(reference.field, None);
        assert_eq!(reference.to_string(), "env/TOKEN");
    }

    #[test]
    fn other_texts_are_refused() {
        for (text, error) in [
            ("TOKEN", ReferenceError::Shape),
            ("/x", ReferenceError::Shape),
            ("env/", ReferenceError::Shape),
            ("env/#x", ReferenceError::Shape),
            ("env/x#", ReferenceError::EmptyField),
            ("env/x\n", ReferenceError::Characters),
        ] {
            assert_eq!(text.parse::<SecretReference>(), Err(error), "{text:?}");
        }
    }
}
