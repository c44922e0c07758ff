//! Text that must never be shown: passwords, tokens, keys. [`Secret`] is the only type in which the program carries
//! them; it prints as `(secret)` everywhere, and its memory is wiped when the last copy goes.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

/// What stands in place of a secret wherever it would be shown.
pub const REDACTED: &str = "(secret)";

/// Secret text. Cloning shares the memory; `Debug`, `Display` and `Serialize` print [`REDACTED`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<Zeroizing<String>>);

/// Set with the first secret.
static HELD: AtomicBool = AtomicBool::new(false);

impl Secret {
    /// Takes the text over.
    pub fn new(text: impl Into<String>) -> Self {
        let text = Zeroizing::new(text.into());
        if !text.is_empty() && !HELD.load(Ordering::Relaxed) {
            HELD.store(true, Ordering::Relaxed);
        }
        Self(Arc::new(text))
    }

    /// Whether this process has held any secret yet.
    #[must_use]
    pub fn were_held() -> bool {
        HELD.load(Ordering::Relaxed)
    }

    /// The parts joined, without a copy of them that is left behind as a text grows.
    #[must_use]
    pub fn of_parts(parts: &[&str]) -> Self {
        let mut text = String::with_capacity(parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| text.push_str(part));
        Self::new(text)
    }

    /// The plain text, for the one place that has to send or compare it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.as_str()
    }

    /// Whether the text is empty, which means "not given".
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for Secret {
    fn default() -> Self {
        Self::new("")
    }
}

impl Hash for Secret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.expose().hash(state);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

/// Text that may or may not be secret, as the content of a file read with `is_secret` set or unset.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OptionalSecret {
    /// Ordinary text; converts to a string.
    Plain(String),
    /// Secret text; never converts to a string.
    Secret(Secret),
}

impl OptionalSecret {
    /// The plain text of either kind.
    #[must_use]
    pub fn expose(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Secret(secret) => secret.expose(),
        }
    }

    /// Whether the text has to be kept from sight.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        matches!(self, Self::Secret(_))
    }
}

impl Default for OptionalSecret {
    fn default() -> Self {
        Self::Plain(String::new())
    }
}

impl fmt::Display for OptionalSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) => formatter.write_str(text),
            Self::Secret(secret) => secret.fmt(formatter),
        }
    }
}

impl Serialize for OptionalSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(text) => serializer.serialize_str(text),
            Self::Secret(secret) => secret.serialize(serializer),
        }
    }
}
