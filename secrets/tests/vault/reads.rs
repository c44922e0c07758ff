//! What paths mean on a real server.
use super::*;

pub(super) fn prepare(vault: &Vault) {
    vault.write("sys/mounts/old", &json!({ "type": "kv", "options": { "version": "1" } }));
    vault.write("old/team/es", &json!({ "password": VALUE, "port": 9200, "ttl": "1h" }));
    vault.write("sys/mounts/transit", &json!({ "type": "transit" }));
    vault.write("transit/keys/app", &json!({}));
    vault.write("sys/mounts/pki", &json!({ "type": "pki" }));
    vault.write("pki/root/generate/internal", &json!({ "common_name": "the root", "ttl": "1h" }));
    let role = json!({ "allowed_domains": "example", "allow_subdomains": true, "max_ttl": "10m", "generate_lease": true });
    vault.write("pki/roles/web", &role);
}

#[tokio::test]
async fn both_versions_of_the_key_value_engine_are_read_by_logical_paths() {
    let Some(shared) = shared() else { return };
    let store = store(&shared.vault, &userpass());
    let snapshot = store.read("kv/team/es").await.unwrap();
    assert_eq!((snapshot.fields["user"].expose(), snapshot.fields["password"].expose()), ("elastic", VALUE));
    assert_eq!(snapshot.store_version.as_deref(), Some("1"));
    let snapshot = store.read("old/team/es").await.unwrap();
    assert_eq!((snapshot.fields["port"].expose(), snapshot.fields["password"].expose()), ("9200", VALUE));
    assert_eq!(snapshot.read_again, None, "the duration is advice");
    store.shutdown().await;
}

#[tokio::test]
async fn a_new_version_is_read_as_a_whole() {
    let Some(shared) = shared() else { return };
    let store = store(&shared.vault, &userpass());
    for turn in 1..=3 {
        let value = json!({ "data": { "user": format!("u{turn}"), "password": format!("p{turn}") } });
        shared.vault.write("kv/data/team/turns", &value);
        let snapshot = store.read("kv/team/turns").await.unwrap();
        assert_eq!(snapshot.fields["user"].expose()[1..], snapshot.fields["password"].expose()[1..]);
        assert_eq!(snapshot.store_version, Some(turn.to_string()));
    }
}

#[tokio::test]
async fn a_deleted_version_and_a_destroyed_one_say_so() {
    let Some(shared) = shared() else { return };
    let store = store(&shared.vault, &userpass());
    shared.vault.write("kv/data/team/gone", &json!({ "data": { "p": "v" } }));
    store.read("kv/team/gone").await.unwrap();
    shared.vault.delete("kv/data/team/gone");
    let reason = is_missing(store.read("kv/team/gone").await);
    assert!(reason.contains("version 1") && reason.contains("was deleted at 20"), "{reason}");
    shared.vault.write("kv/undelete/team/gone", &json!({ "versions": [1] }));
    store.read("kv/team/gone").await.unwrap();
    shared.vault.write("kv/destroy/team/gone", &json!({ "versions": [1] }));
    assert!(is_missing(store.read("kv/team/gone").await).contains("destroyed"));
}

#[tokio::test]
async fn an_absent_path_and_a_wrong_mount_say_which() {
    let Some(shared) = shared() else { return };
    let store = store(&shared.vault, &userpass());
    let reason = is_missing(store.read("kv/team/absent").await);
    assert!(reason.contains("nothing at `team/absent` in `kv/`") && reason.contains("version 2"), "{reason}");
    let reason = is_missing(store.read("old/team/absent").await);
    assert!(reason.contains("version 1"), "{reason}");
    // The policy is the same in both cases; only root is told that there is no such mount.
    let root = super::store(&shared.vault, &format!("auth = {{ token = '{}' }}\n", shared.vault.root));
    let reason = is_missing(root.read("nowhere/team/es").await);
    assert!(reason.contains("nothing is mounted"), "{reason}");
    assert!(matches!(store.read("nowhere/team/es").await, Err(SecretError::Denied { .. })));
    let reason = is_missing(root.read("kv/data/team/es").await);
    assert!(reason.contains("without `data/`"), "{reason}");
}

#[tokio::test]
async fn one_forbidden_path_of_many_makes_no_login() {
    let Some(shared) = shared() else { return };
    let user = json!({ "password": PASSWORD, "token_policies": "obs" });
    shared.vault.write("auth/userpass/users/forbidden", &user);
    let settings = format!("auth = {{ userpass = {{ username = 'forbidden', password = '{PASSWORD}' }} }}\n");
    let store = store(&shared.vault, &settings);
    for _ in 0..50 {
        match store.read("kv/secret/of/others").await {
            Err(SecretError::Denied { reason, .. }) => {
                assert!(reason.contains("`read` on `kv/data/secret/of/others`"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(password(&store).await.unwrap(), VALUE);
    }
    assert_eq!(shared.vault.audited("auth/userpass/login/forbidden").len(), 1);
    assert_eq!(shared.vault.audited("kv/data/secret/of/others").len(), 1);
}

#[tokio::test]
async fn ciphertexts_are_decrypted() {
    let Some(shared) = shared() else { return };
    // "hunter2".
    let made = shared.vault.write("transit/encrypt/app", &json!({ "plaintext": "aHVudGVyMg==" }));
    let ciphertext = made["data"]["ciphertext"].as_str().unwrap();
    let named = format!(
        "{}[read.db]\npath = 'transit/decrypt/app'\nmethod = 'POST'\nparams = {{ ciphertext = '{ciphertext}' }}\nbase64 = ['plaintext']\n",
        userpass()
    );
    let store = store(&shared.vault, &named);
    let snapshot = store.read(&format!("transit/decrypt/app/{ciphertext}")).await.unwrap();
    assert_eq!(snapshot.fields["value"].expose(), "hunter2");
    assert_eq!(store.read("@db").await.unwrap().fields["plaintext"].expose(), "hunter2");
    match store.read("transit/decrypt/app/vault:v1:AAAA").await {
        Err(SecretError::Invalid { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_certificate_is_issued_by_a_named_read() {
    let Some(shared) = shared() else { return };
    let read = "[read.web]\npath = 'pki/issue/web'\nmethod = 'POST'\nparams = { common_name = 'a.example', ttl = '5m' }\n";
    let store = store(&shared.vault, &format!("{}{read}", userpass()));
    let snapshot = store.read("@web").await.unwrap();
    assert!(snapshot.fields["private_key"].expose().contains("PRIVATE KEY"));
    let left = snapshot.not_after.unwrap().duration_since(std::time::SystemTime::now()).unwrap();
    assert!((200..=300).contains(&left.as_secs()), "{left:?}");
    store.revoke(snapshot.lease.as_ref().unwrap()).await.unwrap();
    assert!(matches!(
        store.read("pki/issue/web").await,
        Err(SecretError::Denied { .. } | SecretError::Invalid { .. })
    ));
}

#[tokio::test]
async fn a_namespace_is_sent_as_a_header() {
    let Some(shared) = shared() else { return };
    // Namespaces are an edition's own: this one takes the header for nothing, but tells that it came.
    shared.vault.write("sys/config/auditing/request-headers/X-Vault-Namespace", &json!({ "hmac": false }));
    shared.vault.write("kv/data/team/of-namespaces", &json!({ "data": { "p": "v" } }));
    let store = store(&shared.vault, &format!("namespace = 'obs'\n{}", userpass()));
    store.read("kv/team/of-namespaces").await.unwrap();
    store.read("/east/one//kv/team/of-namespaces").await.unwrap();
    // The first one is that of the test itself.
    let asked = shared.vault.audited("kv/data/team/of-namespaces").split_off(1);
    let namespaces: Vec<&Value> =
        asked.iter().map(|entry| &entry["request"]["headers"]["x-vault-namespace"][0]).collect();
    assert_eq!(namespaces, [&json!("obs"), &json!("obs/east/one")]);
}

#[tokio::test]
async fn a_check_says_who_we_are() {
    let Some(shared) = shared() else { return };
    let store = store(&shared.vault, &userpass());
    let line = store.check().await.unwrap();
    assert!(
        line.contains("`userpass-agent`") && line.contains("default, obs") && line.contains("1.21.1"),
        "{line}"
    );
}
