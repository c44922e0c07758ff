//! The token: one login at a time, renewal, and what a refusal means.
use super::*;

#[tokio::test(start_paused = true)]
async fn fifty_who_want_a_token_make_one_login() {
    let mut logins = 0;
    let server = Scripted::new(move |asked| ordinary(asked, &mut logins));
    let store = server.store(USERPASS);
    let read = |index: usize| {
        let store = &store;
        async move { store.read(&format!("kv/{index}")).await.unwrap() }
    };
    futures_util::future::join_all((0..50).map(read)).await;
    assert_eq!(server.count("auth/userpass"), 1);
    assert_eq!(server.asked("auth/userpass")[0].body, json!({ "password": "marker-password" }));
    assert!(server.asked("kv/data").iter().all(|asked| asked.token == "token-1"));
    store.shutdown().await;
    assert!(is_unavailable(store.read("kv/1").await).0.contains("closed"));
}

#[tokio::test(start_paused = true)]
async fn a_login_that_fails_is_tried_again_ever_more_seldom() {
    let server = Scripted::new(|asked| match asked.path.as_str() {
        "auth/userpass/login/u" => errors(400, "invalid username or password"),
        _ => panic!("{asked:?}"),
    });
    let store = server.store(USERPASS);
    // Somebody asks all the time.
    for _ in 0..7000 {
        let reason = is_denied(store.read("kv/a").await);
        assert!(reason.contains("invalid username or password"), "{reason}");
        assert!(!reason.contains("marker"), "{reason}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(server.seconds("auth/"), [0, 1, 3, 7, 15, 31, 63, 127, 255, 511]);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_at_two_thirds_for_ever_if_it_is_periodic() {
    let mut logins = 0;
    let server = Scripted::new(move |asked| ordinary(asked, &mut logins));
    let store = server.store(USERPASS);
    store.read("kv/a").await.unwrap();
    pass(10_000).await;
    assert_eq!(server.seconds("auth/token/renew-self"), [2400, 4800, 7200, 9600]);
    assert_eq!(server.count("auth/userpass"), 1);
    // The largest part of a grace of a fifth comes on top.
    let (mut logins, fate) = (0, Fate::default());
    fate.drawn.store(1000, Ordering::Relaxed);
    let server = Scripted::new(move |asked| ordinary(asked, &mut logins));
    let store = server.store_with(USERPASS, &fate);
    store.read("kv/a").await.unwrap();
    pass(3000).await;
    assert_eq!(server.seconds("auth/token/renew-self"), [2640]);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_nears_its_longest_time_is_replaced_before_it_ends() {
    let mut logins = 0;
    let server = Scripted::new(move |asked| match asked.path.as_str() {
        // 4000 s at most: 1600 are left when it is renewed at 2400.
        "auth/token/renew-self" if asked.token == "token-1" => grant("token-1", 1600, true),
        // The first attempts fail.
        "auth/userpass/login/u" if (1000..3760).contains(&asked.at.as_secs()) => {
            errors(500, "internal error")
        }
        _ => ordinary(asked, &mut logins),
    });
    let store = server.store(USERPASS);
    store.read("kv/a").await.unwrap();
    pass(3650).await;
    assert_eq!(
        server.seconds("auth/token/renew-self"),
        [2400],
        "what is granted ever less is not renewed again"
    );
    assert_eq!(server.count("auth/userpass"), 1);
    pass(36).await;
    assert_eq!(server.count("auth/userpass"), 4, "four fifths of the rest are over");
    store.read("kv/a").await.unwrap();
    assert_eq!(
        server.asked("kv/data").last().unwrap().token,
        "token-1",
        "the old one serves while the new one fails"
    );
    pass(200).await;
    store.read("kv/a").await.unwrap();
    assert_eq!(server.asked("kv/data").last().unwrap().token, "token-2");
    assert!(server.asked("auth/userpass").last().unwrap().at < Duration::from_secs(4000), "before it ended");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_renewed_is_replaced_at_four_fifths() {
    for batch in [false, true] {
        let mut logins = 0;
        let server = Scripted::new(move |asked| match asked.path.as_str() {
            "auth/userpass/login/u" => ok(json!({ "auth": {
                "client_token": format!("token-{}", asked.at.as_secs()),
                "lease_duration": 100, "renewable": batch,
                "token_type": if batch { "batch" } else { "service" },
            } })),
            _ => ordinary(asked, &mut logins),
        });
        let store = server.store(USERPASS);
        store.read("kv/a").await.unwrap();
        pass(250).await;
        assert_eq!(server.seconds("auth/userpass"), [0, 80, 160, 240]);
        assert_eq!(server.count("auth/token/renew-self"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_root_token_is_only_looked_at() {
    let mut logins = 0;
    let server = Scripted::new(move |asked| match asked.path.as_str() {
        "auth/token/lookup-self" => {
            ok(json!({ "data": { "ttl": 0, "renewable": false, "type": "service" } }))
        }
        _ => ordinary(asked, &mut logins),
    });
    let store = server.store("auth = { token = ' marker-root ' }\n");
    store.read("kv/a").await.unwrap();
    pass(7300).await;
    assert_eq!(server.seconds("auth/token/lookup-self"), [0, 3600, 7200]);
    assert_eq!(server.asked("kv/data")[0].token, "marker-root", "white space around it is not part of it");
    assert_eq!(server.count("auth/token/renew-self"), 0);
    store.client().revoke_token().await.unwrap();
    assert_eq!(server.count("auth/token/revoke-self"), 0, "it is not ours to revoke");
}

#[tokio::test(start_paused = true)]
async fn a_refused_renewal_leads_to_a_login_at_once() {
    let mut logins = 0;
    let server = Scripted::new(move |asked| match asked.path.as_str() {
        "auth/token/renew-self" if asked.token == "token-1" => errors(403, "permission denied"),
        _ => ordinary(asked, &mut logins),
    });
    let store = server.store(USERPASS);
    store.read("kv/a").await.unwrap();
    pass(2500).await;
    assert_eq!(server.seconds("auth/userpass"), [0, 2400]);
    store.client().revoke_token().await.unwrap();
    assert_eq!(server.asked("auth/token/revoke-self")[0].token, "token-2");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_breaks_off_is_tried_again_and_given_up_before_the_end() {
    let mut logins = 0;
    let server = Scripted::new(move |asked| match asked.path.as_str() {
        "auth/token/renew-self" => Say::Unreachable,
        _ => ordinary(asked, &mut logins),
    });
    let store = server.store(USERPASS);
    store.read("kv/a").await.unwrap();
    pass(3600).await;
    let tried = server.seconds("auth/token/renew-self");
    assert_eq!(tried[..6], [2400, 2401, 2403, 2407, 2415, 2431]);
    assert!(tried.len() < 14, "{tried:?}");
    let logins = server.seconds("auth/userpass");
    assert!(logins.len() == 2 && (2880..3600).contains(&logins[1]), "{logins:?}");
}

#[tokio::test(start_paused = true)]
async fn one_forbidden_path_of_many_makes_no_login() {
    let mut logins = 0;
    let server = Scripted::new(move |asked| match asked.path.as_str() {
        "kv/data/forbidden" => denied(),
        _ => ordinary(asked, &mut logins),
    });
    let store = server.store(USERPASS);
    let mut asked_at = Vec::new();
    for second in 0..4000_u64 {
        let reason = is_denied(store.read("kv/forbidden").await);
        assert!(
            reason.contains("`read` on `kv/data/forbidden`") && reason.contains("permission denied"),
            "{reason}"
        );
        if second % 100 == 0 {
            store.read("kv/allowed").await.unwrap();
        }
        asked_at = server.seconds("kv/data/forbidden");
        pass(1).await;
    }
    assert_eq!(server.count("auth/userpass"), 1);
    // A minute, two, four, eight, and then a quarter of an hour.
    let waits: Vec<u64> = asked_at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(waits.len(), 7, "{waits:?}");
    for (wait, expected) in waits.iter().zip([60, 120, 240, 480, 900, 900, 900]) {
        assert!(wait.abs_diff(expected) <= 1, "{waits:?}");
    }
    assert_eq!(server.count("auth/token/lookup-self"), asked_at.len());
}

#[tokio::test(start_paused = true)]
async fn a_revoked_token_costs_one_lookup_and_one_login_however_many_notice() {
    let (mut logins, revoked) = (0, Arc::new(AtomicU64::new(0)));
    let gone = Arc::clone(&revoked);
    let server = Scripted::new(move |asked| {
        let is_gone = asked.token == "token-1" && gone.load(Ordering::Relaxed) == 1;
        if is_gone { errors(403, "permission denied") } else { ordinary(asked, &mut logins) }
    });
    let store = server.store(USERPASS);
    store.read("kv/a").await.unwrap();
    revoked.store(1, Ordering::Relaxed);
    server.forget();
    let read = |index: usize| {
        let store = &store;
        async move { store.read(&format!("kv/{index}")).await.unwrap() }
    };
    futures_util::future::join_all((0..20).map(read)).await;
    assert_eq!((server.count("auth/token/lookup-self"), server.count("auth/userpass")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_may_not_look_at_itself_makes_no_storm_either() {
    let mut logins = 0;
    let server = Scripted::new(move |asked| match asked.path.as_str() {
        "auth/token/lookup-self" | "kv/data/forbidden" => denied(),
        path if path.starts_with("kv/data/no-") => denied(),
        _ => ordinary(asked, &mut logins),
    });
    let store = server.store(USERPASS);
    for second in 0..1000_u64 {
        is_denied(store.read(&format!("kv/no-{}", second % 10)).await);
        store.read("kv/allowed").await.unwrap();
        pass(1).await;
    }
    let logins = server.count("auth/userpass");
    assert!(logins <= 5, "{logins} logins");
    assert!(server.count("auth/token/lookup-self") <= 3);
}

#[tokio::test(start_paused = true)]
async fn after_the_host_was_suspended_the_token_is_looked_at() {
    let (mut logins, fate) = (0, Fate::default());
    let server = Scripted::new(move |asked| ordinary(asked, &mut logins));
    let store = server.store_with(USERPASS, &fate);
    store.read("kv/a").await.unwrap();
    pass(130).await;
    assert_eq!(server.count("auth/token/lookup-self"), 0);
    fate.suspended.store(1800, Ordering::Relaxed);
    pass(60).await;
    assert_eq!(server.count("auth/token/lookup-self"), 1);
    // It says that half an hour is left.
    pass(1250).await;
    assert_eq!(server.count("auth/token/renew-self"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_rewritten_token_file_is_in_use_within_a_minute_and_at_once_after_a_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "token-a\n").unwrap();
    let (mut logins, revoked) = (0, Arc::new(Mutex::new(String::new())));
    let gone = Arc::clone(&revoked);
    let server = Scripted::new(move |asked| match asked.token == *gone.lock() {
        true => errors(403, "permission denied"),
        false => ordinary(asked, &mut logins),
    });
    let store = server.store(&format!("auth = {{ token = {{ file = '{}' }} }}\n", file.display()));
    let used = async || {
        store.read("kv/a").await.unwrap();
        server.asked("kv/data").last().unwrap().token.clone()
    };
    assert_eq!(used().await, "token-a");
    std::fs::write(&file, "token-b\n").unwrap();
    assert_eq!(used().await, "token-a");
    pass(61).await;
    assert_eq!(used().await, "token-b");
    std::fs::write(&file, "token-c\n").unwrap();
    "token-b".clone_into(&mut revoked.lock());
    assert_eq!(used().await, "token-c");
    // A file that holds a token which is not valid changes nothing.
    "token-d".clone_into(&mut revoked.lock());
    std::fs::write(&file, "token-d\n").unwrap();
    pass(200).await;
    assert_eq!(used().await, "token-c");
}
