//! What there is to tell of secrets: a new value in use, one that does not work, one that cannot be had, and that all is
//! well again. They change beside revisions, and are told beside them.

use std::collections::BTreeMap;
use std::time::Duration;

use invar_secrets::{SecretState, SecretStatus};
use tokio::time::Instant;

use super::Reconciler;
use crate::event::EventKind;
use crate::pipeline::Pipeline;

/// How long to wait between looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// How each secret did when it was last looked at, by its reference.
pub(super) type KnownSecrets = BTreeMap<String, (Option<u64>, SecretState)>;

impl<P: Pipeline> Reconciler<P> {
    /// Tells what is new since it was called last. What was not in use then is not news.
    pub(super) fn tell_secrets(&mut self) {
        let statuses = self.secrets.status();
        let mut now = KnownSecrets::new();
        for status in &statuses {
            if let Some(before) = self.known_secrets.get(&status.reference) {
                for (kind, message) in news(*before, status) {
                    self.emit(kind, None, format!("secret {}: {message}", status.reference));
                }
            }
            now.insert(status.reference.clone(), (status.version, status.state));
        }
        self.known_secrets = now;
        self.next_secrets = Instant::now() + BETWEEN_LOOKS;
    }
}

fn news(before: (Option<u64>, SecretState), status: &SecretStatus) -> Vec<(EventKind, String)> {
    let (version, state) = before;
    let mut found = Vec::new();
    let reason = || status.reason.clone().unwrap_or_else(|| status.state.as_str().to_owned());
    // Going back to the value before is another version, too.
    if status.version != version && status.state != SecretState::Rejected {
        let version = status.version.unwrap_or_default();
        found.push((EventKind::SecretRotated, format!("version {version} is in use")));
    }
    if status.state != state {
        found.extend(match status.state {
            SecretState::Ready => Some((EventKind::SecretRecovered, "the newest value is in use".to_owned())),
            SecretState::Rotating => None,
            SecretState::Rejected => Some((EventKind::SecretRejected, reason())),
            _ => Some((EventKind::SecretTrouble, format!("{}: {}", status.state.as_str(), reason()))),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn status(version: u64, state: &str) -> SecretStatus {
        let value = serde_json::json!({
            "reference": "vault/kv/es", "store": "vault", "path": "kv/es", "kind": "vault",
            "state": state, "version": version, "reason": "why",
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn each_turn_is_told_once() {
        let kinds = |before: (u64, SecretState), now: SecretStatus| {
            let found = news((Some(before.0), before.1), &now);
            found.into_iter().map(|(kind, _)| kind).collect::<Vec<_>>()
        };
        let ready = (1, SecretState::Ready);
        assert_eq!(kinds(ready, status(1, "ready")), []);
        assert_eq!(kinds(ready, status(2, "ready")), [EventKind::SecretRotated]);
        assert_eq!(kinds(ready, status(3, "rejected")), [EventKind::SecretRejected]);
        assert_eq!(kinds(ready, status(1, "denied")), [EventKind::SecretTrouble]);
        let denied = (1, SecretState::Denied);
        assert_eq!(kinds(denied, status(1, "denied")), []);
        assert_eq!(kinds(denied, status(2, "ready")), [EventKind::SecretRotated, EventKind::SecretRecovered]);
        let (_, message) = news((Some(1), SecretState::Ready), &status(1, "stale")).remove(0);
        assert_eq!(message, "stale: why");
    }
}
