//! What paths mean, and what comes of them.
use super::*;

#[tokio::test(start_paused = true)]
async fn both_versions_of_the_key_value_engine_are_read_by_logical_paths() {
    let mut logins = 0;
    let server = Scripted::new(move |asked| match asked.path.as_str() {
        path if path.starts_with("sys/internal/ui/mounts/old/") => mount("old/", "kv", "1"),
        path if path.starts_with("sys/internal/ui/mounts/team/kv/") => mount("team/kv/", "kv", "2"),
        "old/es" => ok(json!({ "lease_duration": 2_764_800, "data": { "password": "one", "port": 9200 } })),
        "team/kv/data/es" => kv2(json!({ "password": "two" }), 7),
        _ => ordinary(asked, &mut logins),
    });
    let store = server.store(USERPASS);
    let snapshot = store.read("old/es").await.unwrap();
    assert_eq!((snapshot.fields["password"].expose(), snapshot.fields["port"].expose()), ("one", "9200"));
    assert_eq!((snapshot.read_again, snapshot.store_version), (None, None));
    let snapshot = store.read("team/kv/es").await.unwrap();
    assert_eq!(snapshot.store_version.as_deref(), Some("7"));
    store.read("team/kv/es").await.unwrap();
    store.read("old/es").await.unwrap();
    assert_eq!(server.count("sys/internal"), 2, "what is mounted where is asked once");
    assert_eq!(store.refresh_interval(), Some(Duration::from_secs(300)));
}

#[tokio::test(start_paused = true)]
async fn where_the_server_does_not_say_the_configured_version_is_used() {
    for (version, path) in [("", "kv/data/a"), ("kv_version = 1\n", "kv/a")] {
        let mut logins = 0;
        let server = Scripted::new(move |asked| match asked.path.as_str() {
            path if path.starts_with("sys/internal") => denied(),
            "kv/a" => ok(json!({ "data": { "p": "v" } })),
            "kv/absent" | "kv/data/absent" => Say::Answer(404, json!({ "errors": [] })),
            _ => ordinary(asked, &mut logins),
        });
        let store = server.store(&format!("{version}{USERPASS}"));
        store.read("kv/a").await.unwrap();
        store.read("kv/a").await.unwrap();
        assert_eq!(server.asked("kv/").last().unwrap().path, path);
        assert_eq!(server.count("sys/internal"), 1, "for a while it is not asked again");
        let reason = is_missing(store.read("kv/absent").await);
        assert!(reason.contains("does not say") && reason.contains("version may be another"), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_absent_says_in_which_way() {
    let mut logins = 0;
    let server = Scripted::new(move |asked| match asked.path.as_str() {
        "kv/data/deleted" => Say::Answer(
            404,
            json!({ "data": { "data": null, "metadata": {
            "deletion_time": "2026-01-02T03:04:05Z", "destroyed": false, "version": 2 } } }),
        ),
        "kv/data/destroyed" => Say::Answer(
            404,
            json!({ "data": { "data": null, "metadata": {
            "deletion_time": "", "destroyed": true, "version": 2 } } }),
        ),
        path if path.starts_with("sys/internal/ui/mounts/nowhere") => denied(),
        "nowhere/data/x" => errors(404, "no handler for route \"nowhere/data/x\". route entry not found."),
        path if path.starts_with("sys/internal/ui/mounts/pki/") => mount("pki/", "pki", ""),
        "pki/issue/web" => errors(405, "unsupported operation"),
        _ => ordinary(asked, &mut logins),
    });
    let server = {
        let mut server = server;
        server.takes = Duration::ZERO;
        server
    };
    let store = server.store(USERPASS);
    let absent = |path: &'static str| {
        let store = &store;
        async move { is_missing(store.read(path).await) }
    };
    assert!(absent("kv/deleted").await.contains("deleted at 2026-01-02"));
    assert!(absent("kv/destroyed").await.contains("destroyed"));
    assert!(absent("nowhere/x").await.contains("nothing is mounted"));
    store.read("kv/data/es").await.unwrap();
    match store.read("pki/issue/web").await {
        Err(SecretError::Invalid { reason, .. }) => assert!(reason.contains("method POST"), "{reason}"),
        other => panic!("{other:?}"),
    }
    for wrong in ["/kv/a", "kv//", "kv/../sys/x", "@nothing", "kv"] {
        assert!(matches!(store.read(wrong).await, Err(SecretError::Invalid { .. })), "{wrong}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_path_with_data_in_it_is_told_apart() {
    let mut logins = 0;
    let server = Scripted::new(move |asked| match asked.path.as_str() {
        path if path.starts_with("kv/data/data/") => Say::Answer(404, json!({ "errors": [] })),
        _ => ordinary(asked, &mut logins),
    });
    let store = server.store(USERPASS);
    let reason = is_missing(store.read("kv/data/es").await);
    assert!(reason.contains("without `data/`"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_mount_that_became_another_is_noticed() {
    let (mut logins, upgraded) = (0, Arc::new(AtomicU64::new(1)));
    let state = Arc::clone(&upgraded);
    let server = Scripted::new(move |asked| {
        let version = state.load(Ordering::Relaxed);
        match asked.path.as_str() {
            path if path.starts_with("sys/internal/ui/mounts/kv/") => {
                mount("kv/", "kv", &version.to_string())
            }
            "kv/a" if version == 1 => ok(json!({ "data": { "p": "first" } })),
            "kv/data/a" if version == 2 => kv2(json!({ "p": "second" }), 1),
            path if path.starts_with("kv/") => Say::Answer(404, json!({ "errors": [] })),
            _ => ordinary(asked, &mut logins),
        }
    });
    let store = server.store(USERPASS);
    assert_eq!(store.read("kv/a").await.unwrap().fields["p"].expose(), "first");
    upgraded.store(2, Ordering::Relaxed);
    assert_eq!(store.read("kv/a").await.unwrap().fields["p"].expose(), "second");
}

#[tokio::test(start_paused = true)]
async fn namespaces_are_those_of_the_store_and_of_the_reference() {
    let mut logins = 0;
    let server = Scripted::new(move |asked| ordinary(asked, &mut logins));
    let store = server.store(&format!("namespace = '/obs/'\n{USERPASS}"));
    store.read("kv/a").await.unwrap();
    store.read("/team/a//kv/a").await.unwrap();
    let namespaces: Vec<String> = server.asked("kv/data").into_iter().map(|asked| asked.namespace).collect();
    assert_eq!(namespaces, ["obs", "obs/team/a"]);
    let mounts: Vec<String> = server.asked("sys/internal").into_iter().map(|asked| asked.namespace).collect();
    assert_eq!(mounts, ["obs", "obs/team/a"], "each has mounts of its own");
    assert_eq!(server.asked("auth/")[0].namespace, "obs");
}

#[tokio::test(start_paused = true)]
async fn named_reads_have_methods_and_parameters() {
    let mut logins = 0;
    let server = Scripted::new(move |asked| match (asked.method, asked.path.as_str()) {
        (VaultMethod::Post, "pki/issue/web") => ok(json!({ "data": {
            "certificate": "c", "private_key": "k", "ca_chain": ["a", "b"], "expiration": 5000 } })),
        (VaultMethod::Get, "aws/creds/role") => ok(
            json!({ "lease_id": "aws/creds/role/1", "lease_duration": 60, "renewable": true, "data": { "k": "v" } }),
        ),
        (VaultMethod::Post, "transit/decrypt/app") => ok(json!({ "data": { "plaintext": "aHVudGVyMg==" } })),
        _ => ordinary(asked, &mut logins),
    });
    let store = server.store(&format!(
        "{USERPASS}\
         [read.web]\npath = 'pki/issue/web'\nmethod = 'POST'\nparams = {{ common_name = 'a.example', ttl = '1h' }}\n\
         [read.aws]\npath = 'aws/creds/role'\nparams = {{ ttl = 60 }}\nnamespace = 'cloud'\n\
         [read.db]\npath = 'transit/decrypt/app'\nmethod = 'POST'\nparams = {{ ciphertext = 'vault:v1:x' }}\nbase64 = ['plaintext']\n"
    ));
    let snapshot = store.read("@web").await.unwrap();
    assert_eq!(snapshot.fields["ca_chain"].expose(), r#"["a","b"]"#);
    assert_eq!(snapshot.not_after, Some(UNIX_EPOCH + Duration::from_secs(5000)));
    assert_eq!(server.asked("pki/")[0].body, json!({ "common_name": "a.example", "ttl": "1h" }));
    let lease = store.read("@aws").await.unwrap().lease.unwrap();
    let asked = &server.asked("aws/")[0];
    assert_eq!((asked.query[0].1.as_str(), asked.namespace.as_str()), ("60", "cloud"));
    assert_eq!(store.read("@db").await.unwrap().fields["plaintext"].expose(), "hunter2");
    drop(store.renew(&lease).await);
    assert_eq!(
        server.asked("sys/leases/renew")[0].namespace,
        "cloud",
        "a lease is known where it was granted"
    );
}

#[tokio::test(start_paused = true)]
async fn ciphertexts_are_decrypted_where_they_stand() {
    let mut logins = 0;
    let server = Scripted::new(move |asked| match asked.path.as_str() {
        "transit/decrypt/app" => {
            assert_eq!(asked.body, json!({ "ciphertext": "vault:v1:a//b+c==" }));
            ok(json!({ "data": { "plaintext": "aHVudGVyMg==" } }))
        }
        "transit/decrypt/other" => errors(400, "cipher: message authentication failed"),
        _ => ordinary(asked, &mut logins),
    });
    let store = server.store(USERPASS);
    let snapshot = store.read("transit/decrypt/app/vault:v1:a//b+c==").await.unwrap();
    assert_eq!(snapshot.fields["value"].expose(), "hunter2");
    match store.read("transit/decrypt/other/vault:v1:x").await {
        Err(SecretError::Invalid { reason, .. }) => {
            assert!(reason.contains("authentication failed"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_password_that_is_about_to_turn_over_is_waited_for() {
    let mut logins = 0;
    let server = Scripted::new(move |asked| match asked.path.as_str() {
        path if path.starts_with("sys/internal/ui/mounts/database/") => mount("database/", "database", ""),
        "database/static-creds/app" => {
            let left = 60 - asked.at.as_secs() % 60;
            let left = if left == 60 { 0 } else { left };
            let turn = asked.at.as_secs() / 60;
            ok(json!({ "data": { "username": "u", "password": format!("p{turn}"), "ttl": left,
                "last_vault_rotation": "2026-01-01T00:00:00Z", "rotation_period": 60 } }))
        }
        _ => ordinary(asked, &mut logins),
    });
    let store = server.store(USERPASS);
    pass(30).await;
    let snapshot = store.read("database/static-creds/app").await.unwrap();
    assert_eq!(snapshot.read_again, Some(Duration::from_secs(31)), "a second after it turned over");
    pass(28).await;
    let snapshot = store.read("database/static-creds/app").await.unwrap();
    assert_eq!(snapshot.fields["password"].expose(), "p1", "and not the one that was about to go");
    assert!(snapshot.read_again.unwrap() > Duration::from_secs(50));
}

#[tokio::test(start_paused = true)]
async fn leases_are_renewed_lost_and_given_back() {
    let mut logins = 0;
    let server = Scripted::new(move |asked| match asked.path.as_str() {
        path if path.starts_with("sys/internal/ui/mounts/database/") => mount("database/", "database", ""),
        "database/creds/app" => {
            ok(json!({ "lease_id": "database/creds/app/marker-lease", "lease_duration": 600,
            "renewable": true, "data": { "username": "u", "password": "p" } }))
        }
        "sys/leases/renew" if asked.at < Duration::from_secs(100) => ok(
            json!({ "lease_id": "database/creds/app/marker-lease", "lease_duration": 300, "renewable": true }),
        ),
        "sys/leases/renew" => errors(400, "lease not found"),
        "sys/leases/revoke" => Say::Answer(204, Value::Null),
        _ => ordinary(asked, &mut logins),
    });
    let store = server.store(USERPASS);
    let snapshot = store.read("database/creds/app").await.unwrap();
    let lease = snapshot.lease.clone().unwrap();
    assert_eq!(lease.duration, Duration::from_secs(600));
    assert!(snapshot.not_after.unwrap() >= UNIX_EPOCH + Duration::from_secs(600));
    let renewed = store.renew(&lease).await.unwrap();
    assert_eq!(renewed.duration, Duration::from_secs(300), "the caller sees that it shrinks");
    let asked = &server.asked("sys/leases/renew")[0];
    assert_eq!(asked.body, json!({ "lease_id": "database/creds/app/marker-lease", "increment": 600 }));
    store.revoke(&lease).await.unwrap();
    pass(100).await;
    match store.renew(&lease).await {
        Err(error @ SecretError::Missing { .. }) => assert!(!format!("{error} {error:?}").contains("marker")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_holds_a_lease_is_told_when_its_token_is_replaced() {
    let mut logins = 0;
    let server = Scripted::new(move |asked| match asked.path.as_str() {
        "auth/userpass/login/u" => grant(&format!("token-{}", asked.at.as_secs()), 100, false),
        path if path.starts_with("sys/internal/ui/mounts/database/") => mount("database/", "database", ""),
        "database/creds/app" => ok(json!({ "lease_id": "database/creds/app/1", "lease_duration": 600,
            "renewable": true, "data": { "username": "u" } })),
        _ => ordinary(asked, &mut logins),
    });
    let store = server.store(USERPASS);
    let mut leased = store.watch("database/creds/app").unwrap();
    let plain = store.watch("kv/a").unwrap();
    store.read("database/creds/app").await.unwrap();
    store.read("kv/a").await.unwrap();
    assert!(!leased.has_changed().unwrap());
    leased.changed().await.unwrap();
    assert_eq!(server.seconds("auth/userpass"), [0, 80], "while the old token, and with it the lease, lasts");
    store.read("database/creds/app").await.unwrap();
    pass(10).await;
    assert_eq!(*leased.borrow_and_update(), 1);
    assert!(!plain.has_changed().unwrap(), "values without a lease stay");
    store.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_wrapped_is_unwrapped() {
    let mut logins = 0;
    let server = Scripted::new(move |asked| match asked.path.as_str() {
        "kv/data/a" => {
            ok(json!({ "wrap_info": { "token": "marker-wrap", "ttl": 60, "creation_path": "kv/data/a" } }))
        }
        "kv/data/b" => {
            ok(json!({ "wrap_info": { "token": "foreign", "ttl": 60, "creation_path": "kv/data/b" } }))
        }
        "sys/wrapping/lookup" if asked.body["token"] == "foreign" => {
            ok(json!({ "data": { "creation_path": "kv/data/elsewhere", "creation_ttl": 60 } }))
        }
        "sys/wrapping/lookup" => ok(json!({ "data": { "creation_path": "kv/data/a", "creation_ttl": 60 } })),
        "sys/wrapping/unwrap" => {
            assert_eq!(asked.token, "marker-wrap");
            kv2(json!({ "p": "inner" }), 2)
        }
        _ => ordinary(asked, &mut logins),
    });
    let store = server.store(USERPASS);
    assert_eq!(store.read("kv/a").await.unwrap().fields["p"].expose(), "inner");
    match store.read("kv/b").await {
        Err(SecretError::Compromised { reason, .. }) => {
            assert!(reason.contains("kv/data/elsewhere"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_says_who_we_are_and_nothing_secret_is_shown() {
    let mut logins = 0;
    let server = Scripted::new(move |asked| match asked.path.as_str() {
        "auth/token/lookup-self" => {
            ok(json!({ "data": { "ttl": 1800, "renewable": true, "display_name": "userpass-u",
            "policies": ["default", "obs"], "id": "marker-token" } }))
        }
        _ => ordinary(asked, &mut logins),
    });
    let store = server.store(USERPASS);
    let line = store.check().await.unwrap();
    assert!(
        line.contains("`userpass-u`") && line.contains("default, obs") && line.contains("version 1.21.1"),
        "{line}"
    );
    let snapshot = store.read("kv/a").await.unwrap();
    let shown = format!("{line} {store:?} {snapshot:?} {:?}", server.store(USERPASS));
    assert!(!shown.contains("marker"), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn nonsense_is_unavailable_and_not_repeated() {
    let mut logins = 0;
    let server = Scripted::new(move |asked| match asked.path.as_str() {
        "kv/data/a" => ok(json!({ "data": { "data": "marker-nonsense" } })),
        "kv/data/b" => ok(json!("marker-nonsense")),
        _ => ordinary(asked, &mut logins),
    });
    let store = server.store(USERPASS);
    for path in ["kv/a", "kv/b"] {
        let error = store.read(path).await.unwrap_err();
        assert!(!format!("{error:?}").contains("marker"), "{error:?}");
    }
}
