//! Servers that do not serve, limit, or have not heard of it yet.
use super::*;

#[tokio::test(start_paused = true)]
async fn a_sealed_server_is_left_alone_and_not_stormed_once_it_is_unsealed() {
    let (mut logins, fate, sealed) = (0, Fate::default(), Arc::new(AtomicU64::new(0)));
    fate.drawn.store(500, Ordering::Relaxed);
    let state = Arc::clone(&sealed);
    let server = Scripted::new(move |asked| match (state.load(Ordering::Relaxed), asked.path.as_str()) {
        (0, _) => ordinary(asked, &mut logins),
        (_, "sys/health") => Say::Answer(503, json!({ "initialized": true, "sealed": true })),
        _ => errors(503, "Vault is sealed"),
    });
    let store = server.store_with(USERPASS, &fate);
    store.read("kv/a").await.unwrap();
    sealed.store(1, Ordering::Relaxed);
    server.forget();
    let began = Instant::now();
    let (reason, retry_after) = is_unavailable(store.read("kv/a").await);
    assert!(reason.contains("Vault is sealed"), "{reason}");
    assert_eq!(retry_after, Some(Duration::from_secs(10)));
    // Somebody asks all the time, and a renewal falls due.
    while began.elapsed() < Duration::from_secs(3000) {
        is_unavailable(store.read("kv/b").await);
        pass(1).await;
    }
    assert_eq!(server.all().iter().filter(|asked| asked.path != "sys/health").count(), 1);
    let probes: Vec<u64> =
        server.asked("sys/health").windows(2).map(|pair| (pair[1].at - pair[0].at).as_secs()).collect();
    assert_eq!(probes[..4], [20, 40, 60, 60]);
    assert!(probes.len() < 55, "{probes:?}");
    sealed.store(0, Ordering::Relaxed);
    server.forget();
    let mut served = None;
    for _ in 0..120 {
        if store.read("kv/a").await.is_ok() {
            served = Some(server.seconds("kv/data")[0] - server.seconds("sys/health")[0]);
            break;
        }
        pass(1).await;
    }
    assert_eq!(served, Some(15), "half of the longest wait of thirty seconds was drawn");
    assert_eq!(server.count("sys/health"), 1);
    assert!(server.count("auth/userpass") <= 1, "the token outlived the outage");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_never_initialised_is_an_outage() {
    let server = Scripted::new(|_| Say::Answer(501, json!({ "errors": [] })));
    let store = server.store(USERPASS);
    let (reason, _) = is_unavailable(store.read("kv/a").await);
    assert!(reason.contains("not initialised"), "{reason}");
    pass(11).await;
    assert!(is_unavailable(store.read("kv/a").await).0.contains("not initialised"));
    assert_eq!(server.count("sys/health"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_standby_serves() {
    let mut first = true;
    let mut logins = 0;
    let server = Scripted::new(move |asked| match asked.path.as_str() {
        "sys/health" => Say::Answer(429, json!({ "initialized": true, "standby": true })),
        _ if std::mem::take(&mut first) => Say::Answer(503, json!({ "errors": [] })),
        _ => ordinary(asked, &mut logins),
    });
    let store = server.store(USERPASS);
    is_unavailable(store.read("kv/a").await);
    pass(10).await;
    store.read("kv/a").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_server_is_asked_again_by_whoever_asks() {
    let (mut logins, down) = (0, Arc::new(AtomicU64::new(0)));
    let state = Arc::clone(&down);
    let server = Scripted::new(move |asked| match state.load(Ordering::Relaxed) {
        0 => ordinary(asked, &mut logins),
        _ => Say::Unreachable,
    });
    let store = server.store(USERPASS);
    store.read("kv/a").await.unwrap();
    down.store(1, Ordering::Relaxed);
    let (reason, _) = is_unavailable(store.read("kv/a").await);
    assert!(reason.contains("https://vault.example is not reached: connection refused"), "{reason}");
    down.store(0, Ordering::Relaxed);
    store.read("kv/a").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_limit_closes_the_mount_for_as_long_as_the_server_says() {
    let mut logins = 0;
    let server = Scripted::new(move |asked| match asked.path.as_str() {
        "kv/data/a" if asked.at < Duration::from_secs(1) => {
            Say::After(7, 429, json!({ "errors": ["quota exceeded"] }))
        }
        "other/x" => ok(json!({ "data": { "p": "q" } })),
        path if path.starts_with("sys/internal/ui/mounts/other") => mount("other/", "kv", "1"),
        _ => ordinary(asked, &mut logins),
    });
    let store = server.store(USERPASS);
    assert_eq!(is_unavailable(store.read("kv/a").await).1, Some(Duration::from_secs(7)));
    let asked = server.all().len();
    pass(1).await;
    assert_eq!(is_unavailable(store.read("kv/b").await).1, Some(Duration::from_secs(6)));
    assert_eq!(server.all().len(), asked, "nothing of the mount is asked");
    store.read("other/x").await.unwrap();
    pass(6).await;
    store.read("kv/b").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn state_that_is_not_replicated_yet_is_waited_for_a_second() {
    let (mut logins, mut behind) = (0, 10);
    let server = Scripted::new(move |asked| match asked.path.as_str() {
        "auth/userpass/login/u" => Say::Index(
            "index-of-login",
            200,
            json!({ "auth": {
            "client_token": "t", "lease_duration": 3600, "renewable": true } }),
        ),
        "kv/data/a" if behind > 0 => {
            behind -= 1;
            Say::Answer(412, json!({ "errors": ["required index state not present"] }))
        }
        "kv/data/never" => Say::Answer(412, json!({ "errors": [] })),
        _ => ordinary(asked, &mut logins),
    });
    let store = server.store(USERPASS);
    store.read("kv/a").await.unwrap();
    let asked = server.asked("kv/data/a");
    assert_eq!(asked.len(), 11);
    assert!(asked.iter().all(|asked| asked.index.as_deref() == Some("index-of-login")));
    assert!((asked[10].at - asked[0].at).as_millis() >= 1000);
    assert!(is_unavailable(store.read("kv/never").await).0.contains("replicated"));
    assert_eq!(server.count("kv/data/never"), 11);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_reads_reach_the_server_at_a_bounded_rate() {
    let mut logins = 0;
    let server = Scripted::new(move |asked| ordinary(asked, &mut logins));
    let store = server.store(USERPASS);
    let read = |index: usize| {
        let store = &store;
        async move { store.read(&format!("kv/{index}")).await.unwrap() }
    };
    futures_util::future::join_all((0..200).map(read)).await;
    let times: Vec<Duration> =
        server.all().iter().filter(|asked| !asked.path.starts_with("auth/")).map(|asked| asked.at).collect();
    for window in times.windows(11) {
        assert!(window[10] - window[0] >= Duration::from_millis(990), "{window:?}");
    }
}
