//! Tokens that end, are taken away, or near their longest time.
use super::*;

/// A user of its own, so that its logins can be counted.
fn user(vault: &Vault, name: &str, terms: &Value) -> String {
    let mut user = json!({ "password": PASSWORD, "token_policies": "obs" });
    for (key, value) in terms.as_object().unwrap() {
        user[key] = value.clone();
    }
    vault.write(&format!("auth/userpass/users/{name}"), &user);
    format!("auth = {{ userpass = {{ username = '{name}', password = '{PASSWORD}' }} }}\n")
}

fn logins(vault: &Vault, name: &str) -> usize {
    vault.audited(&format!("auth/userpass/login/{name}")).len()
}

/// Reads for a while; no read fails.
async fn read_for(store: &VaultStore, time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        assert_eq!(password(store).await.unwrap(), VALUE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_revoked_token_is_replaced_by_the_read_that_notices() {
    let Some(shared) = shared() else { return };
    let store = store(&shared.vault, &user(&shared.vault, "revoked", &json!({})));
    assert_eq!(password(&store).await.unwrap(), VALUE);
    shared.vault.write("sys/leases/revoke-prefix/auth/userpass/login/revoked", &json!({}));
    let reads = (0..20).map(|_| password(&store));
    for read in futures_util::future::join_all(reads).await {
        assert_eq!(read.unwrap(), VALUE);
    }
    assert_eq!(logins(&shared.vault, "revoked"), 2);
}

#[tokio::test]
async fn a_short_token_is_renewed_and_replaced_before_its_longest_time_without_a_failed_read() {
    let Some(shared) = shared() else { return };
    let terms = json!({ "token_ttl": "3s", "token_max_ttl": "8s" });
    let store = store(&shared.vault, &user(&shared.vault, "short", &terms));
    read_for(&store, Duration::from_secs(20)).await;
    let logins = logins(&shared.vault, "short");
    assert!((3..=5).contains(&logins), "{logins} logins in 20 s, of 8 s at most each");
    store.shutdown().await;
}

#[tokio::test]
async fn a_batch_token_is_replaced_before_it_ends() {
    let Some(shared) = shared() else { return };
    let terms = json!({ "token_ttl": "4s", "token_type": "batch" });
    let store = store(&shared.vault, &user(&shared.vault, "batch", &terms));
    read_for(&store, Duration::from_secs(9)).await;
    let logins = logins(&shared.vault, "batch");
    assert!((3..=4).contains(&logins), "{logins}");
    store.shutdown().await;
}

#[tokio::test]
async fn a_periodic_token_is_renewed_for_ever() {
    let Some(shared) = shared() else { return };
    let store = store(&shared.vault, &user(&shared.vault, "periodic", &json!({ "token_period": "3s" })));
    read_for(&store, Duration::from_secs(10)).await;
    assert_eq!(logins(&shared.vault, "periodic"), 1);
    store.shutdown().await;
}

#[tokio::test]
async fn a_token_that_ended_while_nobody_renewed_it_is_replaced() {
    let Some(shared) = shared() else { return };
    let store = store(
        &shared.vault,
        &user(&shared.vault, "ended", &json!({ "token_ttl": "1s", "token_max_ttl": "1s" })),
    );
    assert_eq!(password(&store).await.unwrap(), VALUE);
    // Longer than the token, with whatever the task does meanwhile.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(password(&store).await.unwrap(), VALUE);
}

#[tokio::test]
async fn a_clean_end_gives_the_token_back() {
    let Some(shared) = shared() else { return };
    let store = store(&shared.vault, &user(&shared.vault, "leaving", &json!({})));
    assert_eq!(password(&store).await.unwrap(), VALUE);
    let before = shared.vault.audited("auth/token/revoke-self").len();
    store.client().revoke_token().await.unwrap();
    assert_eq!(shared.vault.audited("auth/token/revoke-self").len(), before + 1);
    store.shutdown().await;
    assert!(password(&store).await.is_err());
}
