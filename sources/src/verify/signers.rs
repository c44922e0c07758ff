//! Who signed, and who may.

/// Who signed something, as far as that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// Whose key it is, by the file of keys: a principal of `allowed_signers`, the address or name of an OpenPGP key, the
    /// key itself where it has no other name.
    pub principal: String,
    /// The key, as its tools show it.
    pub key: String,
}

/// Who of those whose keys are trusted may sign; everybody, if nobody is named.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signers {
    names: Vec<String>,
}

impl Signers {
    pub(crate) fn new(names: &[String]) -> Self {
        Self { names: names.to_vec() }
    }

    /// Everybody.
    pub(crate) fn any() -> Self {
        Self::default()
    }

    /// The name that lets somebody sign: the first that `is_theirs`, or `own` where nobody is named. `None` where none
    /// of the names is theirs.
    pub(crate) fn admit(&self, own: &str, is_theirs: impl Fn(&str) -> bool) -> Option<String> {
        if self.names.is_empty() {
            return Some(own.to_owned());
        }
        self.names.iter().find(|name| is_theirs(name)).cloned()
    }
}
