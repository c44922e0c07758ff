//! A server that is sealed, loses its leader, or is restarted while it is used. Each test has one of its own.
use super::*;

/// One of these at a time: each takes hundreds of megabytes.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn own(folder: &TempDir, storage: Storage) -> Option<Vault> {
    let vault = Vault::start(folder.path(), storage, None)?;
    prepare(&vault);
    Some(vault)
}

/// Reads until it works; what fails meanwhile is unavailable and nothing else.
async fn until_served(store: &VaultStore, limit: Duration) -> Duration {
    let began = Instant::now();
    loop {
        match password(store).await {
            Ok(value) => {
                assert_eq!(value, VALUE);
                return began.elapsed();
            }
            Err(SecretError::Unavailable { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
        assert!(began.elapsed() < limit, "not served within {limit:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_server_that_is_sealed_under_use_serves_again_when_it_is_unsealed() {
    let _one = ONE.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let Some(vault) = own(&folder, Storage::File) else { return };
    let store = store(&vault, &userpass());
    assert_eq!(password(&store).await.unwrap(), VALUE);
    vault.seal();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        match password(&store).await {
            Err(SecretError::Unavailable { reason, retry_after, .. }) => {
                assert!(reason.contains("sealed"), "{reason}");
                assert!(retry_after.is_some());
            }
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    vault.unseal();
    until_served(&store, Duration::from_secs(10)).await;
    assert_eq!(vault.audited("auth/userpass/login/agent").len(), 1, "the token outlived it");
    store.shutdown().await;
}

#[tokio::test]
async fn a_leader_that_steps_down_costs_no_login() {
    let _one = ONE.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let Some(vault) = own(&folder, Storage::Raft) else { return };
    let store = store(&vault, &userpass());
    assert_eq!(password(&store).await.unwrap(), VALUE);
    vault.write("sys/step-down", &json!({}));
    until_served(&store, Duration::from_secs(60)).await;
    vault.wait_until_active();
    assert_eq!(password(&store).await.unwrap(), VALUE);
    assert_eq!(vault.audited("auth/userpass/login/agent").len(), 1);
    store.shutdown().await;
}

#[tokio::test]
async fn a_restarted_server_is_found_again() {
    let _one = ONE.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let Some(mut vault) = own(&folder, Storage::File) else { return };
    let store = store(&vault, &userpass());
    assert_eq!(password(&store).await.unwrap(), VALUE);
    vault.kill();
    match password(&store).await {
        Err(SecretError::Unavailable { reason, .. }) => {
            assert!(reason.contains("is not reached"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
    vault.launch();
    assert!(matches!(password(&store).await, Err(SecretError::Unavailable { .. })), "it is sealed at first");
    vault.unseal();
    until_served(&store, Duration::from_secs(10)).await;
    store.shutdown().await;
}
