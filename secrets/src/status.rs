//! What is said of the secrets that are in use: where they come from, how they do, who uses them and what a change costs.
//! Never a value, nor anything that is made from one.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::cell::{Cell, Trouble};
use crate::error::SecretError;
use crate::missing::WhenMissing;
use crate::reference::SecretReference;
use crate::store::StoreKind;
use crate::stores::SecretStores;

/// How one path of a store does. Changes to the shape are additive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretStatus {
    /// `<store>/<path>`.
    pub reference: String,
    /// The store.
    pub store: String,
    /// The path within it.
    pub path: String,
    /// The kind of the store.
    pub kind: StoreKind,
    /// How it does.
    pub state: SecretState,
    /// Since when it does so.
    #[serde(with = "moment", default)]
    pub since: Option<SystemTime>,
    /// Why, where that is not as it should be.
    #[serde(default)]
    pub reason: Option<String>,
    /// What a person can do about it.
    #[serde(default)]
    pub fix: Option<String>,
    /// What is to be known beside that, such as why changes are noticed late.
    #[serde(default)]
    pub note: Option<String>,
    /// Counts the changes within this process; none as long as there was no value.
    #[serde(default)]
    pub version: Option<u64>,
    /// What the store calls the version.
    #[serde(default)]
    pub store_version: Option<String>,
    /// Since when the version is in use.
    #[serde(with = "moment", default)]
    pub changed: Option<SystemTime>,
    /// When the store last answered with a value, the same or another.
    #[serde(with = "moment", default)]
    pub read: Option<SystemTime>,
    /// When the value ends.
    #[serde(with = "moment", default)]
    pub expires: Option<SystemTime>,
    /// When it is read or renewed next.
    #[serde(with = "moment", default)]
    pub next_read: Option<SystemTime>,
    /// Whether it is granted for a time and has to be renewed.
    #[serde(default)]
    pub lease: bool,
    /// How often the value changed.
    #[serde(default)]
    pub rotations: u64,
    /// How often reading, renewing or publishing failed.
    #[serde(default)]
    pub failures: u64,
    /// How often its lease was extended as far as was asked.
    #[serde(default)]
    pub renewals: u64,
    /// How often it was not: a new one was taken then, or the renewal tried again.
    #[serde(default)]
    pub failed_renewals: u64,
    /// Who uses it.
    #[serde(default)]
    pub users: Vec<SecretUser>,
}

/// How a secret does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretState {
    /// The value is what the store has.
    Ready,
    /// The value works, and cannot be refreshed.
    Stale,
    /// A new value is about to replace the one in use.
    Rotating,
    /// A new value does not work; the one before is in use.
    Rejected,
    /// The store does not have it.
    Missing,
    /// The store has it and says no.
    Denied,
    /// The store cannot be asked, and there is no value.
    Unavailable,
    /// The value has ended.
    Expired,
}

/// How all secrets in use do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretsStanding {
    /// How many paths are in use.
    pub held: usize,
    /// How many of them are not as they should be.
    pub in_trouble: usize,
    /// The first of these by name, how it does, and why.
    pub first_trouble: Option<(String, SecretState, String)>,
}

/// Somebody who uses a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretUser {
    /// The component, or `source NAME`, `store NAME` …
    pub component: String,
    /// How a change reaches it.
    pub class: ChangeClass,
}

/// How a change of a secret reaches who uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeClass {
    /// It is read at each use.
    PerUse,
    /// New connections use the new one; old ones are drained.
    Reconnect,
    /// A new TLS context, under the same listener or dialler.
    TlsReload,
    /// The component is replaced.
    Rebuild,
}

/// What a trial of a reference, or of a store, gave. Fields by name only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretTrial {
    /// The store.
    pub store: String,
    /// Its kind.
    pub kind: StoreKind,
    /// Whether the store lets us in, and as whom.
    pub access: TrialOutcome<String>,
    /// What a read of the path gave, where one was asked for.
    #[serde(default)]
    pub read: Option<TrialOutcome<SecretShape>>,
}

/// What came of one part of a trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrialOutcome<T> {
    /// It worked.
    Ok(T),
    /// It did not.
    Failed {
        /// As for [`SecretStatus`].
        state: SecretState,
        /// Why.
        reason: String,
    },
}

/// All that may be told of a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretShape {
    /// `<store>/<path>`.
    pub reference: String,
    /// The names of its fields.
    pub fields: Vec<String>,
    /// What the store calls the version.
    #[serde(default)]
    pub store_version: Option<String>,
    /// When it ends.
    #[serde(with = "moment", default)]
    pub expires: Option<SystemTime>,
    /// Whether it is granted for a time. The grant of a trial is given back at once.
    #[serde(default)]
    pub lease: bool,
}

// === impl SecretsStanding ===

impl SecretsStanding {
    /// Counts what somebody wants and nobody has.
    pub fn add_lacking(&mut self, lacking: Vec<(String, SecretState, String)>) {
        self.held += lacking.len();
        self.in_trouble += lacking.len();
        if self.first_trouble.is_none() {
            self.first_trouble = lacking.into_iter().next();
        }
    }
}

// === impl SecretState ===

impl SecretState {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Ready,
        Self::Stale,
        Self::Rotating,
        Self::Rejected,
        Self::Missing,
        Self::Denied,
        Self::Unavailable,
        Self::Expired,
    ];

    /// The word for programs and people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Stale => "stale",
            Self::Rotating => "rotating",
            Self::Rejected => "rejected",
            Self::Missing => "missing",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
            Self::Expired => "expired",
        }
    }

    /// What a failure to read means for a secret that has no value.
    #[must_use]
    pub fn of(error: &SecretError) -> Self {
        match error {
            SecretError::Missing { .. } | SecretError::UnknownStore { .. } => Self::Missing,
            SecretError::Denied { .. } | SecretError::Compromised { .. } => Self::Denied,
            SecretError::Unavailable { .. } => Self::Unavailable,
            SecretError::Invalid { .. } => Self::Rejected,
        }
    }
}

// === impl ChangeClass ===

impl fmt::Display for ChangeClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PerUse => "per use",
            Self::Reconnect => "reconnect",
            Self::TlsReload => "tls reload",
            Self::Rebuild => "rebuild",
        })
    }
}

// === impl StoreKind ===

impl StoreKind {
    const ALL: [Self; 7] =
        [Self::Environment, Self::File, Self::Vault, Self::Kubernetes, Self::Systemd, Self::Exec, Self::Age];

    /// As settings call it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Environment => "env",
            Self::File => "file",
            Self::Vault => "vault",
            Self::Kubernetes => "kubernetes",
            Self::Systemd => "systemd",
            Self::Exec => "exec",
            Self::Age => "age",
        }
    }
}

impl Serialize for StoreKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for StoreKind {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let known = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        known.ok_or_else(|| serde::de::Error::custom("no kind of store"))
    }
}

// === impl SecretStores ===

impl SecretStores {
    /// Asks a store whether it lets us in and, where a path is named, reads it now. What is in use stays as it is.
    ///
    /// # Errors
    /// [`SecretError::UnknownStore`]. Everything else is told by the trial.
    pub async fn try_out(&self, store: &str, path: Option<&str>) -> Result<SecretTrial, SecretError> {
        let reference = SecretReference {
            store: store.to_owned(),
            path: path.unwrap_or_default().to_owned(),
            field: None,
        };
        let opened = self.store(store).ok_or_else(|| SecretError::UnknownStore {
            reference: reference.to_string(),
            store: store.to_owned(),
        })?;
        let access = TrialOutcome::of(opened.check().await);
        let read = match path {
            None => None,
            Some(path) => Some(match opened.read(path).await {
                Ok(snapshot) => {
                    if let Some(lease) = &snapshot.lease
                        && let Err(error) = opened.revoke(lease).await
                    {
                        tracing::warn!(%reference, error = error.reason(), "what a trial was granted could not be given back");
                    }
                    TrialOutcome::Ok(SecretShape {
                        reference: reference.to_string(),
                        fields: snapshot.fields.into_keys().collect(),
                        store_version: snapshot.store_version,
                        expires: snapshot.not_after,
                        lease: snapshot.lease.is_some(),
                    })
                }
                Err(error) => TrialOutcome::of(Err(error)),
            }),
        };
        Ok(SecretTrial { store: store.to_owned(), kind: opened.kind(), access, read })
    }

    /// How all of them do, in short.
    #[must_use]
    pub fn standing(&self) -> SecretsStanding {
        let mut found = SecretsStanding::default();
        for cell in self.cells() {
            found.held += 1;
            let ended = cell.snapshot().not_after.is_some_and(|end| end <= SystemTime::now());
            if cell.standing().trouble.is_some() || ended {
                found.in_trouble += 1;
                if found.first_trouble.is_none() {
                    let status = SecretStatus::of(&cell);
                    let reason = status.reason.unwrap_or_else(|| "its value has ended".to_owned());
                    found.first_trouble = Some((status.reference, status.state, reason));
                }
            }
        }
        found
    }

    /// What is in use, by reference.
    #[must_use]
    pub fn status(&self) -> Vec<SecretStatus> {
        let with_note = |cell: &Arc<Cell>| {
            let note = self.store(&cell.store).and_then(|store| store.notice(&cell.path));
            SecretStatus { note, ..SecretStatus::of(cell) }
        };
        self.cells().iter().map(with_note).collect()
    }
}

// === impl SecretStatus ===

impl SecretStatus {
    /// How one does that somebody wants and nobody has.
    #[must_use]
    pub fn lacking(reference: &SecretReference, kind: StoreKind, state: SecretState, reason: String) -> Self {
        let (store, path) = (reference.store.clone(), reference.path.clone());
        Self {
            reference: format!("{store}/{path}"),
            store,
            path,
            kind,
            state,
            since: None,
            reason: Some(reason),
            fix: None,
            note: None,
            version: None,
            store_version: None,
            changed: None,
            read: None,
            expires: None,
            next_read: None,
            lease: false,
            rotations: 0,
            failures: 0,
            renewals: 0,
            failed_renewals: 0,
            users: Vec::new(),
        }
    }

    fn of(cell: &Cell) -> Self {
        let (snapshot, standing) = (cell.snapshot(), cell.standing());
        let ended = snapshot.not_after.filter(|end| *end <= SystemTime::now());
        let (state, reason, since) = match (&standing.trouble, ended) {
            (_, Some(end)) => {
                let reason = standing.trouble.as_ref().map(|(trouble, _)| trouble.reason());
                (SecretState::Expired, reason, Some(end))
            }
            (None, None) => (SecretState::Ready, None, Some(standing.changed_at)),
            (Some((trouble, since)), None) => (trouble.state(), Some(trouble.reason()), Some(*since)),
        };
        Self {
            reference: cell.name(),
            store: cell.store.clone(),
            path: cell.path.clone(),
            kind: cell.kind,
            state,
            since,
            reason,
            fix: standing.trouble.as_ref().and_then(|(trouble, _)| trouble.fix(cell.when_missing())),
            note: None,
            version: Some(snapshot.version),
            store_version: snapshot.store_version.clone(),
            changed: Some(standing.changed_at),
            read: Some(standing.read_at),
            expires: snapshot.not_after,
            next_read: standing.next,
            lease: snapshot.lease.is_some(),
            rotations: standing.rotations,
            failures: standing.failures,
            renewals: standing.renewals,
            failed_renewals: standing.failed_renewals,
            users: Vec::new(),
        }
    }
}

impl Trouble {
    fn state(&self) -> SecretState {
        match self {
            // There is a value; it is only not renewed.
            Self::Unread(SecretError::Unavailable { .. }) => SecretState::Stale,
            Self::Unread(error) => SecretState::of(error),
            Self::Rejected(_) => SecretState::Rejected,
        }
    }

    fn reason(&self) -> String {
        match self {
            Self::Unread(error) => error.reason().to_owned(),
            Self::Rejected(reason) => reason.clone(),
        }
    }

    fn fix(&self, when_missing: WhenMissing) -> Option<String> {
        let text = match self {
            Self::Unread(SecretError::Denied { .. }) => "give the agent's identity the right to read it",
            Self::Unread(SecretError::Missing { .. }) => match when_missing {
                WhenMissing::Keep => "write it again; until then the value in use stays",
                WhenMissing::Empty => "write it; until then its users get an empty text",
            },
            Self::Unread(SecretError::Compromised { .. }) => "find out who unwrapped it, and issue a new one",
            Self::Unread(_) => return None,
            Self::Rejected(_) => "write a value that works; the one before is in use until then",
        };
        Some(text.to_owned())
    }
}

// === impl TrialOutcome ===

impl<T> TrialOutcome<T> {
    fn of(result: Result<T, SecretError>) -> Self {
        match result {
            Ok(value) => Self::Ok(value),
            Err(error) => Self::Failed { state: SecretState::of(&error), reason: error.reason().to_owned() },
        }
    }
}

/// Moments as RFC 3339 texts.
mod moment {
    use std::time::{Duration, SystemTime};

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        // What is outside of the calendar is as good as never.
        let time = time.and_then(|time| jiff::Timestamp::try_from(time).ok());
        match time {
            Some(time) => serializer.collect_str(&format_args!("{time:.3}")),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let Some(text) = text else { return Ok(None) };
        let time: jiff::Timestamp = text.parse().map_err(|_| de::Error::custom("not a time"))?;
        let millis = u64::try_from(time.as_millisecond()).unwrap_or_default();
        Ok(SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use invar_syntax::Secret;

    use super::*;
    use crate::snapshot::{Lease, SecretSnapshot};
    use crate::store::{BoxFuture, SecretStore};

    /// Grants what it is asked for, and counts what is given back.
    #[derive(Default)]
    struct Granting {
        revoked: AtomicUsize,
    }

    impl SecretStore for Arc<Granting> {
        fn kind(&self) -> StoreKind {
            StoreKind::Vault
        }

        fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<SecretSnapshot, SecretError>> {
            Box::pin(async move {
                if path == "other" {
                    let reason = "policy lacks read".to_owned();
                    return Err(SecretError::Denied { reference: path.to_owned(), reason });
                }
                let fields = ["user", "password"].map(|name| (name.to_owned(), Secret::new("hunter2")));
                let lease = Lease {
                    id: "hunter2-lease".to_owned(),
                    duration: Duration::from_secs(60),
                    renewable: true,
                };
                Ok(SecretSnapshot {
                    lease: Some(lease),
                    store_version: Some("7".to_owned()),
                    ..SecretSnapshot::new(BTreeMap::from(fields))
                })
            })
        }

        fn revoke<'a>(&'a self, _: &'a Lease) -> BoxFuture<'a, Result<(), SecretError>> {
            self.revoked.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(()) })
        }
    }

    #[tokio::test]
    async fn a_trial_tells_the_shape_and_gives_back_what_it_was_granted() {
        let granting = Arc::new(Granting::default());
        let store: Arc<dyn SecretStore> = Arc::new(Arc::clone(&granting));
        let stores = SecretStores::new(BTreeMap::from([("vault".to_owned(), store)]));
        let trial = stores.try_out("vault", Some("db/creds/ro")).await.unwrap();
        let text = serde_json::to_string(&trial).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
        let Some(TrialOutcome::Ok(shape)) = &trial.read else { panic!("{trial:?}") };
        assert_eq!(shape.fields, ["password", "user"]);
        assert_eq!((shape.store_version.as_deref(), shape.lease), (Some("7"), true));
        assert_eq!(granting.revoked.load(Ordering::Relaxed), 1);
        assert_eq!(serde_json::from_str::<SecretTrial>(&text).unwrap(), trial);

        let trial = stores.try_out("vault", Some("other")).await.unwrap();
        let denied =
            TrialOutcome::Failed { state: SecretState::Denied, reason: "policy lacks read".to_owned() };
        assert_eq!(trial.read, Some(denied));
        assert!(stores.try_out("vault", None).await.unwrap().read.is_none());
        assert!(matches!(stores.try_out("bao", None).await, Err(SecretError::UnknownStore { .. })));
    }

    #[test]
    fn a_status_comes_back_as_it_was() {
        let reference = "vault/kv/es".parse().unwrap();
        let lacking =
            SecretStatus::lacking(&reference, StoreKind::Vault, SecretState::Stale, "sealed".to_owned());
        let status = SecretStatus {
            since: Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123)),
            version: Some(7),
            rotations: 6,
            failures: 1,
            renewals: 3,
            failed_renewals: 1,
            users: vec![SecretUser {
                component: "prometheus.remote_write.out".to_owned(),
                class: ChangeClass::PerUse,
            }],
            ..lacking
        };
        let text = serde_json::to_string(&status).unwrap();
        assert!(text.contains("\"since\":\"2023-11-14T22:13:20.123Z\""), "{text}");
        assert!(text.contains("\"state\":\"stale\"") && text.contains("\"kind\":\"vault\""), "{text}");
        assert_eq!(serde_json::from_str::<SecretStatus>(&text).unwrap(), status);
    }
}
