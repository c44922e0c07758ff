//! Each secret store of the settings: whether it lets the agent in, and as whom; and the key of what outlives the process.
//! No other secret is read for it.

use futures_util::future::join_all;
use invar_secrets::{OfflineSettings, SecretError, SecretStores, StoreKind};
use invar_sources::Finding;

use super::DoctorArguments;
use super::report::{Area, Entry};
use crate::settings::Settings;

/// All stores at the same time.
pub(super) async fn entries_of(
    settings: &Settings,
    stores: &SecretStores,
    arguments: &DoctorArguments,
) -> Vec<Entry> {
    let looks = settings.secrets.keys().filter_map(|name| {
        let store = stores.store(name)?;
        if arguments.offline && is_remote(store.kind()) {
            return None;
        }
        Some(async move {
            let checked = match tokio::time::timeout(arguments.timeout, store.check()).await {
                Ok(checked) => checked,
                Err(_) => {
                    let reason = format!("it did not answer within {} s", arguments.timeout.as_secs());
                    Err(SecretError::unavailable("", reason))
                }
            };
            Entry { area: Area::Store, subject: Some(name.clone()), finding: finding(store.kind(), &checked) }
        })
    });
    let mut entries = join_all(looks).await;
    entries.extend(offline(settings, stores).await);
    entries
}

/// Whether the key of what outlives the process can be had.
async fn offline(settings: &Settings, stores: &SecretStores) -> Option<Entry> {
    let OfflineSettings::Encrypted(offline) = &settings.state.offline_secrets else { return None };
    let finding = match offline.key_in(stores).await {
        Ok(_) => Finding::ok("offline_secrets", "the key of offline secrets is there"),
        Err(error) => Finding::problem("offline_secrets", "the key of offline secrets cannot be used")
            .because(error.to_string())
            .fix("at least 32 random characters, where `[state] offline_secrets` has them: openssl rand -base64 32"),
    };
    Some(Entry { area: Area::Settings, subject: None, finding })
}

/// Whether asking it needs the network.
fn is_remote(kind: StoreKind) -> bool {
    match kind {
        StoreKind::Vault | StoreKind::Kubernetes => true,
        StoreKind::Environment | StoreKind::File | StoreKind::Systemd | StoreKind::Exec | StoreKind::Age => {
            false
        }
    }
}

fn finding(kind: StoreKind, checked: &Result<String, SecretError>) -> Finding {
    let kind = kind.as_str();
    let error = match checked {
        Ok(said) => return Finding::ok("store", format!("{kind}: {said}")),
        Err(error) => error,
    };
    let fix = match error {
        SecretError::Missing { .. } | SecretError::UnknownStore { .. } => {
            "put it there, or correct the settings"
        }
        SecretError::Denied { .. } => {
            "give the agent's identity the right, or correct the credentials of the store"
        }
        SecretError::Unavailable { .. } => "is it up, and reached from here?",
        SecretError::Compromised { .. } => "find out who unwrapped it, and issue a new one",
        SecretError::Invalid { .. } => "correct what it names",
    };
    Finding::problem("store", format!("{kind}: it cannot be used")).because(error.reason()).fix(fix)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use invar_sources::Severity;

    use super::*;

    #[test]
    fn a_store_that_does_not_let_us_in_is_a_problem_with_a_fix() {
        let fine = finding(StoreKind::Vault, &Ok("as approle invar".to_owned()));
        assert_eq!((fine.severity, fine.what.as_str()), (Severity::Ok, "vault: as approle invar"));
        let denied = SecretError::Denied { reference: String::new(), reason: "403".to_owned() };
        let found = finding(StoreKind::Vault, &Err(denied));
        assert_eq!((found.severity, found.why.as_deref()), (Severity::Problem, Some("403")));
        assert!(found.fix.unwrap().contains("identity"));
    }
}
