//! Secrets that are granted for a time: by Vault's engine for Consul, whose Consul is a few lines of ours.
use invar_secrets::Lease;

use super::*;

pub(super) fn prepare(vault: &Vault) {
    let consul = server::serve(|line, _| match line.split(' ').next() {
        Some("PUT") if line.contains("/v1/acl/token") => {
            let unique =
                std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
            (
                200,
                json!({ "AccessorID": format!("accessor-{unique}"), "SecretID": format!("marker-consul-{unique}"),
                "Description": "", "Local": false }),
            )
        }
        Some("DELETE") => (200, json!(true)),
        _ => (404, json!({})),
    });
    vault.write("sys/mounts/consul", &json!({ "type": "consul" }));
    vault.write(
        "consul/config/access",
        &json!({ "address": consul.to_string(), "scheme": "http", "token": "t" }),
    );
    vault.write("consul/roles/app", &json!({ "consul_policies": ["p"], "ttl": "4s", "max_ttl": "9s" }));
    vault.write("consul/roles/long", &json!({ "consul_policies": ["p"], "ttl": "1h", "max_ttl": "2h" }));
}

async fn granted(store: &VaultStore, path: &str) -> Lease {
    let snapshot = store.read(path).await.unwrap();
    assert!(snapshot.fields["token"].expose().starts_with("marker-consul-"));
    assert!(snapshot.not_after.is_some());
    snapshot.lease.unwrap()
}

#[tokio::test]
async fn a_lease_is_renewed_and_what_is_granted_shrinks_towards_its_longest_time() {
    let Some(shared) = shared() else { return };
    let store = store(&shared.vault, &userpass());
    let lease = granted(&store, "consul/creds/app").await;
    assert_eq!((lease.duration, lease.renewable), (Duration::from_secs(4), true));
    let mut granted = Vec::new();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(2500)).await;
        granted.push(store.renew(&lease).await.unwrap().duration.as_secs());
    }
    assert_eq!(granted[0], 4);
    assert!(granted[2] < 3, "the caller sees that it is time for another: {granted:?}");
}

#[tokio::test]
async fn a_lease_that_ended_is_missing() {
    let Some(shared) = shared() else { return };
    let store = store(&shared.vault, &userpass());
    let lease = granted(&store, "consul/creds/app").await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    match store.renew(&lease).await {
        Err(SecretError::Missing { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_revoked_lease_is_missing_and_revoking_again_is_no_error() {
    let Some(shared) = shared() else { return };
    let store = store(&shared.vault, &userpass());
    let lease = granted(&store, "consul/creds/long").await;
    store.renew(&lease).await.unwrap();
    store.revoke(&lease).await.unwrap();
    match store.renew(&lease).await {
        Err(error @ SecretError::Missing { .. }) => assert!(!error.to_string().contains(&lease.id)),
        other => panic!("{other:?}"),
    }
    store.revoke(&lease).await.unwrap();
}

#[tokio::test]
async fn a_lease_ends_with_its_token_and_whoever_holds_it_is_told_before() {
    let Some(shared) = shared() else { return };
    let user =
        json!({ "password": PASSWORD, "token_policies": "obs", "token_ttl": "20s", "token_max_ttl": "20s" });
    shared.vault.write("auth/userpass/users/lessee", &user);
    let settings = format!("auth = {{ userpass = {{ username = 'lessee', password = '{PASSWORD}' }} }}\n");
    let store = store(&shared.vault, &settings);
    let mut told = store.watch("consul/creds/long").unwrap();
    let first = granted(&store, "consul/creds/long").await;
    tokio::time::timeout(Duration::from_secs(60), told.changed()).await.unwrap().unwrap();
    store.renew(&first).await.unwrap();
    let second = granted(&store, "consul/creds/long").await;
    assert_ne!(first.id, second.id);
    let gone = async {
        while !matches!(store.renew(&first).await, Err(SecretError::Missing { .. })) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("it goes with the old token");
    store.shutdown().await;
}
