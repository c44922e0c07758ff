//! Secrets that change while they are in use. A [`LiveSecret`] is what `secret("store/path#field")` gives: not a text but
//! a place where the newest text is found, or texts joined and encoded from such places. Whoever keeps one and reads it at
//! each use follows a rotation without being told. Where an argument takes a text instead, the live secret is *frozen*:
//! its text of that moment is used, and [`recording`] tells whoever evaluates what has to be evaluated again after a
//! change.

use std::cell::RefCell;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::secret::{REDACTED, Secret};

/// A place where the newest text of one secret is found. Implemented by whoever keeps secrets up to date.
pub trait SecretCell: Send + Sync + 'static {
    /// What it stands for: `store/path#field`. Two cells of one reference are the same secret.
    fn reference(&self) -> &str;

    /// Counts up with every change.
    fn version(&self) -> u64;

    /// The newest text.
    fn read(&self) -> Secret;

    /// The text before the newest, for as long as it may still be accepted somewhere.
    fn previous(&self) -> Option<Secret> {
        None
    }

    /// Says that the text of this version was refused: where the one before was accepted, or where there is none before.
    fn refused(&self, version: u64) {
        let _ = version;
    }

    /// Says that the text of this version was refused, and every other one that is known as well.
    fn lost(&self, version: u64) {
        let _ = version;
    }
}

/// A secret whose text may change while it is held; or a text that does not.
#[derive(Clone)]
pub struct LiveSecret(Kind);

#[derive(Clone)]
enum Kind {
    Fixed(Secret),
    Cell(Arc<dyn SecretCell>),
    Derived(Arc<Derived>),
}

/// Text that may be shown, or a secret in its place: a user name, a certificate. Both may come from one path of a store, and
/// then change together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LiveText {
    /// Ordinary text.
    Plain(String),
    /// A secret, whose text may change.
    Secret(LiveSecret),
}

/// The text made of others; nothing where they cannot be made into one any more.
type Make = dyn Fn(&[Secret]) -> Option<Secret> + Send + Sync;

struct Derived {
    identity: String,
    parts: Vec<LiveSecret>,
    make: Box<Make>,
    /// The last text that could be made, and of which version.
    last: Mutex<(u64, Secret)>,
}

/// A live secret whose text of one version is in use somewhere.
#[derive(Clone, Debug)]
pub struct Frozen {
    /// The secret.
    pub secret: LiveSecret,
    /// The version of the text in use.
    pub version: u64,
}

/// All that are made of others, as long as somebody holds them.
static DERIVED: Mutex<Vec<Weak<Derived>>> = Mutex::new(Vec::new());

/// Makes every derived text anew whose parts have changed, so that none made of superseded ones stays in memory.
pub fn renew_derived() {
    let known: Vec<Arc<Derived>> = DERIVED.lock().iter().filter_map(Weak::upgrade).collect();
    for derived in known {
        drop(derived.read());
    }
}

thread_local! {
    static FROZEN: RefCell<Option<Vec<Frozen>>> = const { RefCell::new(None) };
}

/// Runs `work`, and answers beside its result all live secrets that were frozen in it on this thread.
pub fn recording<T>(work: impl FnOnce() -> T) -> (T, Vec<Frozen>) {
    /// Restores what an outer recording had, also when `work` panics.
    struct Outer(Option<Vec<Frozen>>);
    impl Drop for Outer {
        fn drop(&mut self) {
            let outer = self.0.take();
            FROZEN.with_borrow_mut(|frozen| *frozen = outer);
        }
    }
    let outer = Outer(FROZEN.replace(Some(Vec::new())));
    let result = work();
    let frozen = FROZEN.take().unwrap_or_default();
    drop(outer);
    (result, frozen)
}

impl Frozen {
    /// Whether the secret has another text by now.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        self.secret.version() != self.version
    }
}

/// The texts of several secrets, such that those of one path are of one version.
#[must_use]
pub fn read_together(secrets: &[&LiveSecret]) -> Vec<Secret> {
    read_versioned(secrets).1
}

/// As [`read_together`], with the version of them all: [`version_of`] as of the same moment.
#[must_use]
pub fn read_versioned(secrets: &[&LiveSecret]) -> (u64, Vec<Secret>) {
    loop {
        let before = version_of(secrets);
        let texts = secrets.iter().map(|secret| secret.read()).collect();
        // Versions only grow: none has changed in between if their sum has not.
        if version_of(secrets) == before {
            return (before, texts);
        }
    }
}

/// What may be accepted in place of the texts of several secrets: of each the text before the last change, or the newest where
/// there is none before; those of one path of one version. Nothing where none has a text before.
#[must_use]
pub fn read_previous(secrets: &[&LiveSecret]) -> Option<Vec<Secret>> {
    loop {
        let before = version_of(secrets);
        let read: Vec<(bool, Secret)> = secrets
            .iter()
            .map(|secret| match secret.previous() {
                Some(previous) => (true, previous),
                None => (false, secret.read()),
            })
            .collect();
        // Neither a change, nor the end of the time for which a text before is kept, came in between.
        let same = secrets.iter().zip(&read).all(|(secret, (had, _))| secret.previous().is_some() == *had);
        if same && version_of(secrets) == before {
            let any = read.iter().any(|(had, _)| *had);
            return any.then(|| read.into_iter().map(|(_, text)| text).collect());
        }
    }
}

/// The version of several secrets together: differs after each change of one of them, and is 0 where none can change.
#[must_use]
pub fn version_of(secrets: &[&LiveSecret]) -> u64 {
    secrets.iter().map(|secret| secret.version()).fold(0, u64::wrapping_add)
}

/// Tells whoever keeps the secrets that those of this version, as [`version_of`] has it, were refused; `tell` says how. Of
/// newer ones nothing is known, so that nothing is said then.
pub fn report(secrets: &[&LiveSecret], version: u64, tell: impl Fn(&LiveSecret, u64)) {
    let versions: Vec<u64> = secrets.iter().map(|secret| secret.version()).collect();
    if versions.iter().copied().fold(0, u64::wrapping_add) == version {
        secrets.iter().zip(versions).for_each(|(secret, version)| tell(secret, version));
    }
}

// === impl LiveSecret ===

impl LiveSecret {
    /// What is found in a cell.
    #[must_use]
    pub fn cell(cell: Arc<dyn SecretCell>) -> Self {
        Self(Kind::Cell(cell))
    }

    /// The text that `make` makes of the texts of `parts`. Where it makes none of changed ones, the last one stays.
    /// `operation` says what is done, as an identity: equal operations on equal parts are the same secret.
    pub fn derived(
        operation: &str,
        parts: Vec<Self>,
        make: impl Fn(&[Secret]) -> Option<Secret> + Send + Sync + 'static,
    ) -> Option<Self> {
        let all: Vec<&Self> = parts.iter().collect();
        let (version, texts) = read_versioned(&all);
        let text = make(&texts)?;
        let of: Vec<String> = parts.iter().map(Self::identity).collect();
        let identity = format!("{operation}({})", of.join(", "));
        let derived =
            Arc::new(Derived { identity, parts, make: Box::new(make), last: Mutex::new((version, text)) });
        let mut known = DERIVED.lock();
        if known.len() == known.capacity() {
            known.retain(|derived| derived.strong_count() > 0);
        }
        known.push(Arc::downgrade(&derived));
        drop(known);
        Some(Self(Kind::Derived(derived)))
    }

    /// The text as it is now.
    #[must_use]
    pub fn read(&self) -> Secret {
        match &self.0 {
            Kind::Fixed(secret) => secret.clone(),
            Kind::Cell(cell) => cell.read(),
            Kind::Derived(derived) => derived.read(),
        }
    }

    /// The text before the last change, while it may still be accepted somewhere.
    #[must_use]
    pub fn previous(&self) -> Option<Secret> {
        match &self.0 {
            Kind::Fixed(_) => None,
            Kind::Cell(cell) => cell.previous(),
            Kind::Derived(derived) => read_previous(&derived.all()).and_then(|texts| (derived.make)(&texts)),
        }
    }

    /// Says that the text of this version was refused: where the one before was accepted, or where there is none before.
    pub fn refused(&self, version: u64) {
        match &self.0 {
            Kind::Fixed(_) => {}
            Kind::Cell(cell) => cell.refused(version),
            Kind::Derived(derived) => report(&derived.all(), version, Self::refused),
        }
    }

    /// Says that the text of this version was refused, and every other one that is known as well.
    pub fn lost(&self, version: u64) {
        match &self.0 {
            Kind::Fixed(_) => {}
            Kind::Cell(cell) => cell.lost(version),
            Kind::Derived(derived) => report(&derived.all(), version, Self::lost),
        }
    }

    /// Differs after each change of the text; never changes for a text that is fixed.
    #[must_use]
    pub fn version(&self) -> u64 {
        match &self.0 {
            Kind::Fixed(_) => 0,
            Kind::Cell(cell) => cell.version(),
            Kind::Derived(derived) => derived.version(),
        }
    }

    /// Whether the text can change.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !matches!(self.0, Kind::Fixed(_))
    }

    /// Whether it is a fixed text without characters, which means "not given".
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(&self.0, Kind::Fixed(secret) if secret.is_empty())
    }

    /// The text of now, for whoever cannot follow changes: noted for [`recording`].
    #[must_use]
    pub fn freeze(&self) -> Secret {
        if self.is_live() {
            // Before the text: should it change in between, it counts as outdated.
            let version = self.version();
            FROZEN.with_borrow_mut(|frozen| {
                if let Some(frozen) = frozen
                    && !frozen.iter().any(|known| known.secret == *self && known.version == version)
                {
                    frozen.push(Frozen { secret: self.clone(), version });
                }
            });
        }
        self.read()
    }

    /// Calls `visit` with the reference of every cell that the text is made of.
    pub fn visit_references(&self, visit: &mut dyn FnMut(&str)) {
        match &self.0 {
            Kind::Fixed(_) => {}
            Kind::Cell(cell) => visit(cell.reference()),
            Kind::Derived(derived) => derived.parts.iter().for_each(|part| part.visit_references(visit)),
        }
    }

    /// What tells it from others, without its text.
    fn identity(&self) -> String {
        match &self.0 {
            Kind::Fixed(secret) => {
                // Enough to tell texts from each other within this process, and no way back to them.
                let mut hasher = DefaultHasher::new();
                PROCESS_KEY.hash(&mut hasher);
                secret.hash(&mut hasher);
                format!("text {:016x}", hasher.finish())
            }
            Kind::Cell(cell) => cell.reference().to_owned(),
            Kind::Derived(derived) => derived.identity.clone(),
        }
    }
}

/// Chosen anew by every process, so that what identities say of fixed texts cannot be compared with a dictionary.
static PROCESS_KEY: std::sync::LazyLock<u64> = std::sync::LazyLock::new(|| {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0_u8)
});

// === impl LiveText ===

impl LiveText {
    /// The text as something that may change.
    #[must_use]
    pub fn live(&self) -> LiveSecret {
        match self {
            Self::Plain(text) => Secret::new(text.as_str()).into(),
            Self::Secret(secret) => secret.clone(),
        }
    }

    /// Whether it is a fixed text without characters, which means "not given".
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Plain(text) => text.is_empty(),
            Self::Secret(secret) => secret.is_empty(),
        }
    }
}

impl Default for LiveText {
    fn default() -> Self {
        Self::Plain(String::new())
    }
}

impl From<&str> for LiveText {
    fn from(text: &str) -> Self {
        Self::Plain(text.to_owned())
    }
}

impl From<String> for LiveText {
    fn from(text: String) -> Self {
        Self::Plain(text)
    }
}

impl Derived {
    fn all(&self) -> Vec<&LiveSecret> {
        self.parts.iter().collect()
    }

    fn version(&self) -> u64 {
        self.parts.iter().map(LiveSecret::version).fold(0, u64::wrapping_add)
    }

    fn read(&self) -> Secret {
        let mut last = self.last.lock();
        if last.0 != self.version() {
            let (version, texts) = read_versioned(&self.all());
            if let Some(text) = (self.make)(&texts) {
                last.1 = text;
            }
            last.0 = version;
        }
        last.1.clone()
    }
}

impl From<Secret> for LiveSecret {
    fn from(secret: Secret) -> Self {
        Self(Kind::Fixed(secret))
    }
}

impl Default for LiveSecret {
    fn default() -> Self {
        Secret::default().into()
    }
}

/// Live secrets are equal if they stand for the same, whatever its text is at the moment; fixed ones by their text.
impl PartialEq for LiveSecret {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Kind::Fixed(left), Kind::Fixed(right)) => left == right,
            (Kind::Fixed(_), _) | (_, Kind::Fixed(_)) => false,
            _ => self.identity() == other.identity(),
        }
    }
}

impl Eq for LiveSecret {}

impl Hash for LiveSecret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match &self.0 {
            Kind::Fixed(secret) => secret.hash(state),
            _ => self.identity().hash(state),
        }
    }
}

impl fmt::Debug for LiveSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(REDACTED)
    }
}

impl serde::Serialize for LiveSecret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// A cell that a test turns by hand.
    pub(crate) struct Turned {
        reference: String,
        texts: Mutex<Vec<Secret>>,
    }

    impl Turned {
        pub(crate) fn new(reference: &str, text: &str) -> Arc<Self> {
            Arc::new(Self { reference: reference.to_owned(), texts: Mutex::new(vec![Secret::new(text)]) })
        }

        pub(crate) fn turn(&self, text: &str) {
            self.texts.lock().push(Secret::new(text));
        }
    }

    impl SecretCell for Turned {
        fn reference(&self) -> &str {
            &self.reference
        }

        fn version(&self) -> u64 {
            self.texts.lock().len() as u64
        }

        fn read(&self) -> Secret {
            self.texts.lock().last().unwrap().clone()
        }

        fn previous(&self) -> Option<Secret> {
            self.texts.lock().iter().rev().nth(1).cloned()
        }
    }

    #[test]
    fn what_is_made_of_a_superseded_text_is_made_anew_without_being_read() {
        let cell = Turned::new("vault/kv/renewed#b", "one");
        let secret = LiveSecret::cell(cell.clone());
        let double = |texts: &[Secret]| Some(Secret::new(texts[0].expose().repeat(2)));
        let derived = LiveSecret::derived("double", vec![secret], double).unwrap();
        let Kind::Derived(inner) = &derived.0 else { panic!("it is derived") };
        cell.turn("two");
        assert_eq!(inner.last.lock().1.expose(), "oneone");
        renew_derived();
        assert_eq!(inner.last.lock().1.expose(), "twotwo");
    }

    #[test]
    fn a_live_secret_shows_the_newest_text_and_stays_equal() {
        let cell = Turned::new("vault/kv/a#b", "one");
        let secret = LiveSecret::cell(cell.clone());
        let same = LiveSecret::cell(Turned::new("vault/kv/a#b", "other text"));
        assert_eq!((secret.read().expose(), secret.previous()), ("one", None));
        cell.turn("two");
        assert_eq!(secret.read().expose(), "two");
        assert_eq!(secret.previous().unwrap().expose(), "one");
        assert_eq!(secret, same);
        assert_ne!(secret, LiveSecret::from(Secret::new("two")));
        assert_eq!(format!("{secret:?}"), REDACTED);
    }

    #[test]
    fn what_is_derived_follows_and_keeps_the_last_text_that_could_be_made() {
        let (user, password) = (Turned::new("v/x#user", "u1"), Turned::new("v/x#password", "p1"));
        let parts = vec![LiveSecret::cell(user.clone()), LiveSecret::cell(password.clone())];
        let join = |texts: &[Secret]| {
            let text = format!("{}:{}", texts[0].expose(), texts[1].expose());
            (!text.contains("bad")).then(|| Secret::new(text))
        };
        let pair = LiveSecret::derived("join", parts.clone(), join).unwrap();
        assert_eq!(pair.read().expose(), "u1:p1");
        password.turn("p2");
        assert_eq!(pair.read().expose(), "u1:p2");
        assert_eq!(pair.previous().unwrap().expose(), "u1:p1");
        user.turn("bad");
        assert_eq!(pair.read().expose(), "u1:p2");
        assert_eq!(pair, LiveSecret::derived("join", parts, |_| Some(Secret::new("x"))).unwrap());
        assert!(LiveSecret::derived("join", vec![LiveSecret::cell(user)], |_| None).is_none());
    }

    #[test]
    fn freezing_is_recorded_with_the_references_behind_it() {
        let cell = Turned::new("v/x#user", "u1");
        let secret = LiveSecret::cell(cell.clone());
        let other = LiveSecret::cell(Turned::new("v/y", "u2"));
        let (text, frozen) = recording(|| {
            drop(other.read());
            let ((), inner) = recording(|| drop(other.freeze()));
            assert_eq!(inner.iter().map(|frozen| frozen.secret.clone()).collect::<Vec<_>>(), [other]);
            secret.freeze()
        });
        assert_eq!(text.expose(), "u1");
        assert_eq!(frozen.iter().map(|frozen| frozen.secret.clone()).collect::<Vec<_>>(), [secret]);
        assert!(!frozen[0].is_outdated());
        cell.turn("u2");
        assert!(frozen[0].is_outdated());
    }
}
