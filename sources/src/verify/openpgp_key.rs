//! What an OpenPGP key says about itself: which of its parts may sign, until when, for whom, and whether it was revoked.
//!
//! The library below reads packets and checks single signatures; what a key as a whole is worth is judged here. All
//! statements of a key about itself are checked once, when it is read; what they mean depends on the time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgp::composed::{SignedPublicKey, SignedPublicSubKey};
use pgp::packet::{Signature, SignatureType, SubpacketData};
use pgp::types::{Fingerprint, KeyDetails as _, SignedUser, Tag};

use super::error::SignatureError;

/// A key with what it validly says about itself.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    pub(crate) key: SignedPublicKey,
    revoked: bool,
    /// About the primary key.
    statements: Vec<Statement>,
    users: Vec<User>,
    /// One for each of the key's subkeys.
    subkeys: Vec<Subkey>,
}

/// What a valid signature of the primary key says about a key.
#[derive(Clone, Debug)]
struct Statement {
    /// In seconds since 1970.
    made: u64,
    /// How long the key is valid after it was made, in seconds.
    lifetime: Option<u64>,
    may_sign: Option<bool>,
}

#[derive(Clone, Debug)]
struct User {
    name: String,
    is_primary: bool,
    statements: Vec<Statement>,
    /// When it was revoked last, in seconds since 1970.
    revoked: Option<u64>,
}

#[derive(Clone, Debug)]
struct Subkey {
    revoked: bool,
    bindings: Vec<Statement>,
}

impl Certificate {
    pub(crate) fn new(key: SignedPublicKey) -> Self {
        let primary = &key.primary_key;
        let revoked = key.details.revocation_signatures.iter().any(|signature| {
            signature.typ() == Some(SignatureType::KeyRevocation) && signature.verify_key(primary).is_ok()
        });
        let direct = key.details.direct_signatures.iter().filter(|signature| {
            signature.typ() == Some(SignatureType::Key) && signature.verify_key(primary).is_ok()
        });
        let statements = direct.filter_map(Statement::of).collect();
        let users = key.details.users.iter().map(|user| User::of(user, &key)).collect();
        let subkeys = key.public_subkeys.iter().map(|subkey| Subkey::of(subkey, &key)).collect();
        Self { revoked, statements, users, subkeys, key }
    }

    /// The fingerprint of the primary key.
    pub(crate) fn fingerprint(&self) -> String {
        show(&self.key.primary_key.fingerprint())
    }

    /// Names of its owner, the one to show first; without those that were revoked.
    pub(crate) fn names(&self, now: SystemTime) -> Vec<&str> {
        let now = seconds(now);
        let mut names: Vec<(bool, u64, &str)> = self
            .users
            .iter()
            .filter_map(|user| Some((user.is_primary, user.current(now)?.made, user.name.as_str())))
            .collect();
        names.sort_by_key(|(is_primary, made, _)| std::cmp::Reverse((*is_primary, *made)));
        names.into_iter().map(|(_, _, name)| name).collect()
    }

    /// Whether the primary key is valid now; with `to_sign` also whether it signs data.
    pub(crate) fn judge_primary(
        &self,
        shown: &str,
        to_sign: bool,
        now: SystemTime,
    ) -> Result<(), SignatureError> {
        let key = || shown.to_owned();
        if self.revoked {
            return Err(SignatureError::Revoked { key: key() });
        }
        let moment = seconds(now);
        let mut statements: Vec<&Statement> =
            self.statements.iter().filter(|statement| statement.made <= moment).collect();
        statements.extend(self.users.iter().filter_map(|user| user.current(moment)));
        statements.sort_by_key(|statement| std::cmp::Reverse(statement.made));
        let created = u64::from(self.key.primary_key.created_at().as_secs());
        judge(&statements, created, shown, moment)?;
        // A key that does not say what it is for signs, if it is a primary one.
        let may_sign = statements.iter().find_map(|statement| statement.may_sign).unwrap_or(true);
        if to_sign && !may_sign {
            return Err(SignatureError::Unusable {
                key: key(),
                reason: "the key is not for signing".to_owned(),
            });
        }
        Ok(())
    }

    /// Whether the subkey at `index` is valid now and signs data.
    pub(crate) fn judge_subkey(
        &self,
        index: usize,
        shown: &str,
        now: SystemTime,
    ) -> Result<(), SignatureError> {
        self.judge_primary(shown, false, now)?;
        let (Some(subkey), Some(packet)) = (self.subkeys.get(index), self.key.public_subkeys.get(index))
        else {
            return Err(SignatureError::UnknownKey { key: shown.to_owned() });
        };
        if subkey.revoked {
            return Err(SignatureError::Revoked { key: shown.to_owned() });
        }
        let moment = seconds(now);
        let mut bindings: Vec<&Statement> =
            subkey.bindings.iter().filter(|statement| statement.made <= moment).collect();
        bindings.sort_by_key(|statement| std::cmp::Reverse(statement.made));
        judge(&bindings, u64::from(packet.key.created_at().as_secs()), shown, moment)?;
        if bindings.first().and_then(|binding| binding.may_sign) != Some(true) {
            let reason = "the subkey is not for signing".to_owned();
            return Err(SignatureError::Unusable { key: shown.to_owned(), reason });
        }
        Ok(())
    }
}

/// Judges by the newest statement.
fn judge(statements: &[&Statement], created: u64, shown: &str, now: u64) -> Result<(), SignatureError> {
    let key = shown.to_owned();
    if created > now {
        return Err(SignatureError::NotYetValid { key, from: moment(created) });
    }
    let Some(newest) = statements.first() else {
        let reason = "it has no valid signature by its own primary key".to_owned();
        return Err(SignatureError::Unusable { key, reason });
    };
    match newest.lifetime.map(|lifetime| created.saturating_add(lifetime)) {
        Some(end) if now >= end => Err(SignatureError::Expired { key, since: moment(end) }),
        _ => Ok(()),
    }
}

impl Statement {
    fn of(signature: &Signature) -> Option<Self> {
        let made = u64::from(signature.created()?.as_secs());
        let lifetime = signature.key_expiration_time().map(|time| u64::from(time.as_secs()));
        let says_what_for = signature.config().is_some_and(|config| {
            config.hashed_subpackets().any(|packet| matches!(packet.data, SubpacketData::KeyFlags(_)))
        });
        Some(Self {
            made,
            // Zero seconds stand for ever.
            lifetime: lifetime.filter(|seconds| *seconds != 0),
            may_sign: says_what_for.then(|| signature.key_flags().sign()),
        })
    }
}

impl User {
    fn of(user: &SignedUser, key: &SignedPublicKey) -> Self {
        let mut statements = Vec::new();
        let mut revoked = None;
        let mut is_primary = false;
        for signature in &user.signatures {
            if signature.verify_certification(&key.primary_key, Tag::UserId, &user.id).is_err() {
                continue;
            }
            let Some(statement) = Statement::of(signature) else { continue };
            if signature.typ() == Some(SignatureType::CertRevocation) {
                revoked = revoked.max(Some(statement.made));
            } else {
                is_primary |= signature.is_primary();
                statements.push(statement);
            }
        }
        Self { name: String::from_utf8_lossy(user.id.id()).into_owned(), is_primary, statements, revoked }
    }

    /// The newest statement, unless the name was revoked since.
    fn current(&self, now: u64) -> Option<&Statement> {
        let newest =
            self.statements.iter().filter(|statement| statement.made <= now).max_by_key(|s| s.made)?;
        self.revoked.is_none_or(|revoked| revoked < newest.made).then_some(newest)
    }
}

impl Subkey {
    fn of(subkey: &SignedPublicSubKey, key: &SignedPublicKey) -> Self {
        let primary = &key.primary_key;
        let mut this = Self { revoked: false, bindings: Vec::new() };
        for signature in &subkey.signatures {
            if signature.verify_subkey_binding(primary, &subkey.key).is_err() {
                continue;
            }
            if signature.typ() == Some(SignatureType::SubkeyRevocation) {
                this.revoked = true;
                continue;
            }
            let Some(mut statement) = Statement::of(signature) else { continue };
            // A subkey that signs has to say itself that it belongs here: or one could adopt somebody else's.
            let belongs = signature
                .embedded_signature()
                .is_some_and(|back| back.verify_primary_key_binding(&subkey.key, primary).is_ok());
            statement.may_sign = statement.may_sign.map(|may| may && belongs);
            this.bindings.push(statement);
        }
        this
    }
}

/// A fingerprint as GnuPG shows it, without blanks.
pub(crate) fn show(fingerprint: &Fingerprint) -> String {
    format!("{fingerprint:X}")
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn moment(seconds: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH)
}
