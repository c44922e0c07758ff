//! How the store is reached: with authorities of the settings, through the scheduler's view, and what settings cannot be.

use server::{Certificate, Instead};

use super::*;

#[tokio::test]
async fn a_store_with_a_certificate_of_its_own_authority_is_reached_with_that_authority_alone() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let files = Certificate { certificate: &certificate, key: &key };
    let Some(server) = Versitygw::start(folder.path(), Some(&files)) else { return };
    let endpoint = format!("https://localhost:{}", server.address().port());
    let mut settings = SourceSettings::for_s3(S3Settings {
        bucket: BUCKET.to_owned(),
        key: Some("main.alloy".to_owned()),
        endpoint: Some(endpoint),
        ..S3Settings::default()
    });
    settings.auth = Some(aws(keys()));
    let open = |settings: &SourceSettings| S3Source::open(settings, &environment(folder.path())).unwrap();
    let error = refused(&open(&settings), None).await;
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    assert!(error.message.contains("certificate"), "{error}");
    settings.tls = Some(invar_sources::TlsSettings { ca: Some(certificate), ..Default::default() });
    let error = refused(&open(&settings), None).await;
    // The store itself has answered.
    assert_eq!(error.class, ErrorClass::NotFound, "{error}");
}

#[tokio::test]
async fn the_bucket_is_part_of_the_path_or_of_the_hosts_name() {
    let folder = tempfile::tempdir().unwrap();
    for (path_style, place) in [
        (None, "http://store.example/fleet"),
        (Some(true), "http://store.example/fleet"),
        (Some(false), "http://fleet.store.example/"),
    ] {
        // A name that is not this host's, behind a proxy that answers in its stead.
        let proxy = FaultProxy::start("127.0.0.1:9".parse().unwrap()).unwrap();
        proxy.script(|_| Some(Instead::error(404, "NoSuchBucket")));
        let mut settings = SourceSettings::for_s3(S3Settings {
            bucket: BUCKET.to_owned(),
            prefix: Some("f".to_owned()),
            endpoint: Some("http://store.example".to_owned()),
            path_style,
            ..S3Settings::default()
        });
        settings.auth = Some(aws(keys()));
        settings.proxy = Some(invar_sources::ProxySettings {
            url: proxy.url(),
            no_proxy: Vec::new(),
            username: None,
            password: None,
        });
        let source = S3Source::open(&settings, &environment(folder.path())).unwrap();
        assert_eq!(refused(&source, None).await.class, ErrorClass::NotFound);
        let asked = proxy.take();
        assert!(asked[0].target.starts_with(place), "{path_style:?}: {asked:?}");
    }
}

#[tokio::test]
async fn what_cannot_work_is_said_before_anything_is_sent() {
    let environment = environment(Path::new("/nonexistent"));
    let base = S3Settings {
        bucket: BUCKET.to_owned(),
        prefix: Some("f".to_owned()),
        endpoint: Some("http://127.0.0.1:9".to_owned()),
        ..S3Settings::default()
    };
    type Set = fn(&mut SourceSettings, &mut S3Settings);
    let cases: [(Set, &str); 9] = [
        (|_, s3| s3.key = Some("x".to_owned()), "exactly one"),
        (|_, s3| s3.prefix = Some("../x".to_owned()), ".."),
        (|_, s3| s3.prefix = Some("/x".to_owned()), "absolute"),
        (|_, s3| s3.version = Some("1".to_owned()), "goes with"),
        (|_, s3| s3.bucket = "a/b".to_owned(), "cannot be the name of a bucket"),
        (|_, s3| s3.endpoint = Some("ftp://x".to_owned()), "not an http"),
        (|_, s3| (s3.prefix, s3.key) = (None, Some("a/../b".to_owned())), "not a name"),
        (
            |settings, _| {
                settings.auth =
                    Some(aws(AwsSettings { access_key: Some("x".to_owned()), ..AwsSettings::default() }));
            },
            "go together",
        ),
        (
            |settings, s3| {
                (s3.prefix, s3.key) = (None, Some("a".to_owned()));
                settings.path = vec!["base".to_owned()];
            },
            "`path` goes with",
        ),
    ];
    for (change, part) in cases {
        let mut s3 = base.clone();
        let mut settings = SourceSettings::for_s3(S3Settings::default());
        change(&mut settings, &mut s3);
        settings.s3 = Some(s3);
        let error = S3Source::open(&settings, &environment).err().unwrap_or_else(|| panic!("{part}"));
        assert_eq!(error.class, ErrorClass::Stalled, "{error}");
        assert!(error.message.contains(part), "{part:?} in {error}");
    }
}

#[tokio::test]
async fn the_poller_follows_a_bucket() {
    let Some(world) = World::start().await else { return };
    world.put("f/a.alloy", "one").await;
    let mut settings = world.prefix("f");
    settings.interval = Some(Duration::from_secs(1));
    let source = invar_sources::open(&settings, &world.environment()).unwrap();
    assert_eq!(source.description(), format!("s3://{BUCKET}/f/ at {}", world.proxy.url()));
    assert_eq!(source.host(), Some("127.0.0.1"));
    assert!(!source.is_atomic());
    let poller = invar_sources::Poller::start(invar_sources::PollerOptions::new(vec![source]));
    let mut states = poller.subscribe();
    let mut until = async |content: &str| {
        let seen = states.wait_for(|state| {
            let snapshot = state.sources.first().and_then(|source| source.snapshot.clone());
            snapshot.is_some_and(|snapshot| snapshot.files["a.alloy"] == content)
        });
        drop(tokio::time::timeout(Duration::from_secs(30), seen).await.unwrap().unwrap());
    };
    until("one").await;
    world.put("f/a.alloy", "two").await;
    until("two").await;
    poller.shutdown().await;
}
