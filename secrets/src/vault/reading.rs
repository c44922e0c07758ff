//! What a read gives, by the kind of engine: the fields, and for how long they are good.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use invar_syntax::Secret;
use zeroize::Zeroize as _;

use super::answer::{Answer, Tree};
use super::failure::VaultFailure;
use super::link::Reply;
use super::mounts::{Engine, Mount};
use super::settings::KvVersion;
use super::token::Under;
use crate::snapshot::{Lease, SecretSnapshot};

/// What a read gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The fields by name.
    pub fields: BTreeMap<String, Secret>,
    /// What has to be renewed for them to last.
    pub lease: Option<Lease>,
    /// When they end, as far as the server says.
    pub not_after: Option<SystemTime>,
    /// When the server replaces them by itself.
    pub read_again: Option<Duration>,
    /// The version, of engines that count them.
    pub version: Option<String>,
    /// Under which token the lease was granted.
    pub(crate) under: Option<Under>,
}

impl Reading {
    pub(crate) fn into_snapshot(self) -> SecretSnapshot {
        let mut snapshot = SecretSnapshot::new(self.fields);
        snapshot.not_after = self.not_after;
        snapshot.lease = self.lease;
        snapshot.read_again = self.read_again;
        snapshot.store_version = self.version;
        snapshot
    }

    /// Of an engine whose answers are what was asked for.
    pub(crate) fn of_answer(answer: Answer, now: SystemTime) -> Result<Self, VaultFailure> {
        let Some(Tree::Map(data)) = answer.data else {
            return Err(VaultFailure::missing("the answer holds no fields"));
        };
        // A certificate ends by itself, with or without a lease.
        let expiration = data.get("certificate").and(data.get("expiration")).and_then(Tree::as_u64);
        let expiration = expiration.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
        let not_after = match &answer.lease {
            Some(lease) if !lease.duration.is_zero() => now.checked_add(lease.duration),
            _ => expiration,
        };
        let read_again = rotates_after(&data).map(|ttl| ttl + Duration::from_secs(1));
        Ok(Self {
            fields: fields(&data),
            lease: answer.lease,
            not_after,
            read_again,
            version: None,
            under: None,
        })
    }

    /// The same, if it comes with a lease, granted under this token.
    pub(crate) fn granted_under(mut self, under: Under) -> Self {
        self.under = self.lease.is_some().then_some(under);
        self
    }

    /// Of version 1 of the key/value engine: the duration that comes with it is advice of whoever wrote it.
    pub(crate) fn of_kv1(answer: Answer) -> Result<Self, VaultFailure> {
        match answer.data {
            Some(Tree::Map(data)) => Ok(Self::plain(fields(&data))),
            _ => Err(VaultFailure::missing("the answer holds no fields")),
        }
    }

    /// Of version 2 of the key/value engine.
    pub(crate) fn of_kv2(answer: &Answer, path: &str) -> Result<Self, VaultFailure> {
        let Some(data) = &answer.data else {
            return Err(VaultFailure::missing("the answer holds no version"));
        };
        if let Some(gone) = gone(data, path) {
            return Err(gone);
        }
        let Some(Tree::Map(values)) = data.get("data") else {
            return Err(VaultFailure::missing("the newest version holds no fields"));
        };
        let metadata = data.get("metadata");
        let version = metadata.and_then(|metadata| metadata.get("version")).and_then(Tree::as_u64);
        Ok(Self { version: version.map(|version| version.to_string()), ..Self::plain(fields(values)) })
    }

    /// Of whatever engine's answer was wrapped.
    pub(crate) fn of_unwrapped(answer: Answer, now: SystemTime) -> Result<Self, VaultFailure> {
        let is_versioned = answer.data.as_ref().is_some_and(|data| {
            data.get("data").is_some()
                && data.get("metadata").is_some_and(|about| about.get("version").is_some())
        });
        if is_versioned { Self::of_kv2(&answer, "the wrapped answer") } else { Self::of_answer(answer, now) }
    }

    /// The same with these fields decoded.
    pub(crate) fn decoded(mut self, base64: &[String]) -> Result<Self, VaultFailure> {
        base64.iter().try_for_each(|field| self.decode(field))?;
        Ok(self)
    }

    pub(crate) fn plain(fields: BTreeMap<String, Secret>) -> Self {
        Self { fields, lease: None, not_after: None, read_again: None, version: None, under: None }
    }

    /// Decodes a field that is base64.
    pub(crate) fn decode(&mut self, field: &str) -> Result<(), VaultFailure> {
        let Some(encoded) = self.fields.get(field) else {
            return Err(VaultFailure::missing(format!("the answer has no field `{field}` to decode")));
        };
        let not_text = |what: &str| VaultFailure::invalid(format!("the field `{field}` is not {what}"));
        let decoded = BASE64.decode(encoded.expose()).map_err(|_| not_text("base64"))?;
        let text = String::from_utf8(decoded).map_err(|error| {
            error.into_bytes().zeroize();
            not_text("text in base64")
        })?;
        self.fields.insert(field.to_owned(), Secret::new(text));
        Ok(())
    }
}

/// How long it takes until the server replaces the password of a static role.
pub(crate) fn rotates_after(data: &BTreeMap<String, Tree>) -> Option<Duration> {
    data.get("last_vault_rotation")?;
    data.get("ttl").and_then(Tree::as_u64).map(Duration::from_secs)
}

/// Why a version has no values, if it was taken away; `data` is what the engine says of it.
pub(crate) fn gone(data: &Tree, path: &str) -> Option<VaultFailure> {
    if data.get("data").is_some_and(|values| *values != Tree::Null) {
        return None;
    }
    let metadata = data.get("metadata")?;
    let version = metadata.get("version").and_then(Tree::as_u64).unwrap_or(0);
    if metadata.get("destroyed").is_some_and(Tree::is_true) {
        return Some(VaultFailure::missing(format!(
            "version {version} of `{path}` was destroyed, which nothing brings back: write a new one"
        )));
    }
    let deleted = metadata.get("deletion_time").and_then(Tree::as_text).filter(|time| !time.is_empty())?;
    let deleted: String = deleted.chars().filter(|char| !char.is_control()).take(40).collect();
    Some(VaultFailure::missing(format!(
        "version {version} of `{path}` was deleted at {deleted}: undelete it, or write a new one"
    )))
}

/// What a 404 without a body says of a path.
pub(crate) fn absent(reply: &Reply, path: &str, mount: Option<&Mount>) -> VaultFailure {
    if reply.says("no handler for route") {
        return VaultFailure::missing(format!(
            "nothing is mounted that `{path}` could be in: check the first part of the path"
        ));
    }
    let Some(mount) = mount else { return VaultFailure::missing(format!("there is nothing at `{path}`")) };
    let version = match mount.engine {
        Engine::Kv(KvVersion::One) => ", a key/value engine of version 1",
        Engine::Kv(KvVersion::Two) => ", a key/value engine of version 2",
        Engine::Other => "",
    };
    let within = path.strip_prefix(&mount.path).unwrap_or(path);
    let within =
        within.strip_prefix("data/").filter(|_| mount.engine == Engine::Kv(KvVersion::Two)).unwrap_or(within);
    let mut message = format!("there is nothing at `{within}` in `{}`{version}", mount.path);
    if within.starts_with("data/") && mount.engine == Engine::Kv(KvVersion::Two) {
        message.push_str("; paths are written without `data/`");
    }
    if !mount.told {
        message.push_str(
            " as far as is known: the server does not say what is mounted there, so the mount or its version may be another",
        );
    }
    VaultFailure::missing(message)
}

fn fields(data: &BTreeMap<String, Tree>) -> BTreeMap<String, Secret> {
    data.iter().filter_map(|(name, value)| Some((name.clone(), value.to_secret()?))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::vault::answer::decode_answer;

    fn answer(text: &str) -> Answer {
        decode_answer(text.as_bytes()).unwrap()
    }

    #[test]
    fn versions_that_were_taken_away_say_so() {
        let deleted = answer(
            r#"{"data":{"data":null,"metadata":{"deletion_time":"2026-01-02T03:04:05Z","destroyed":false,"version":3}}}"#,
        );
        let failure = Reading::of_kv2(&deleted, "kv/a").unwrap_err();
        assert!(
            failure.message.contains("version 3 of `kv/a` was deleted at 2026-01-02T03:04:05Z"),
            "{failure}"
        );
        let destroyed =
            answer(r#"{"data":{"data":null,"metadata":{"deletion_time":"x","destroyed":true,"version":1}}}"#);
        assert!(Reading::of_kv2(&destroyed, "kv/a").unwrap_err().message.contains("destroyed"));
        // A time in the future is not one that has come.
        let to_come = answer(
            r#"{"data":{"data":{"p":"q"},"metadata":{"deletion_time":"2999-01-01T00:00:00Z","destroyed":false,"version":7}}}"#,
        );
        let reading = Reading::of_kv2(&to_come, "kv/a").unwrap();
        assert_eq!((reading.fields["p"].expose(), reading.version.as_deref()), ("q", Some("7")));
    }

    #[test]
    fn what_ends_or_turns_over_says_when() {
        let leased = answer(
            r#"{"lease_id":"db/creds/a/1","lease_duration":60,"renewable":true,"data":{"username":"u","password":"p"}}"#,
        );
        let reading = Reading::of_answer(leased, UNIX_EPOCH).unwrap();
        assert_eq!(reading.not_after, Some(UNIX_EPOCH + Duration::from_secs(60)));
        let role = answer(r#"{"data":{"username":"u","password":"p","ttl":41,"last_vault_rotation":"x"}}"#);
        let reading = Reading::of_answer(role, UNIX_EPOCH).unwrap();
        assert_eq!(reading.read_again, Some(Duration::from_secs(42)));
        let certificate = answer(r#"{"data":{"certificate":"c","private_key":"k","expiration":1000}}"#);
        let reading = Reading::of_answer(certificate, UNIX_EPOCH).unwrap();
        assert_eq!(reading.not_after, Some(UNIX_EPOCH + Duration::from_secs(1000)));
        let advice = answer(r#"{"lease_duration":2764800,"data":{"ttl":"1h","p":"q"}}"#);
        let reading = Reading::of_kv1(advice).unwrap();
        assert_eq!((reading.read_again, reading.not_after), (None, None));
    }

    #[test]
    fn base64_is_decoded_where_it_is_asked_for() {
        let mut reading =
            Reading::of_answer(answer(r#"{"data":{"plaintext":"aHVudGVyMg==","b":"/w=="}}"#), UNIX_EPOCH)
                .unwrap();
        reading.decode("plaintext").unwrap();
        assert_eq!(reading.fields["plaintext"].expose(), "hunter2");
        assert!(reading.decode("plaintext").unwrap_err().message.contains("not base64"));
        assert!(reading.decode("b").unwrap_err().message.contains("not text"));
        assert!(reading.decode("c").unwrap_err().message.contains("no field `c`"));
    }
}
