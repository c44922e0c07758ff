//! Who reads: keys of the settings, a role, a web identity, nobody; and what a refusal says.

use std::collections::VecDeque;
use std::sync::Mutex;

use server::Instead;

use super::*;

/// A token service that hands out the server's own keys, with these lifetimes in turn, and counts how often.
fn token_service(world: &World) -> (FaultProxy, Arc<Mutex<Vec<String>>>) {
    let _ = world;
    // Everything is answered by the script, so it stands before nothing.
    let proxy = FaultProxy::start("127.0.0.1:9".parse().unwrap()).unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&asked);
    proxy.script(move |request| {
        kept.lock().unwrap().push(request.header("authorization").to_owned());
        let result = |operation: &str| {
            format!(
                "<{operation}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{operation}Result><Credentials>\
                 <AccessKeyId>{ACCESS_KEY}</AccessKeyId><SecretAccessKey>{SECRET_KEY}</SecretAccessKey>\
                 <SessionToken></SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>\
                 </Credentials></{operation}Result></{operation}Response>"
            )
        };
        // Which operation it is stands in the body, which the proxy does not read; web identities come unsigned.
        let operation =
            if request.header("authorization").is_empty() { "AssumeRoleWithWebIdentity" } else { "AssumeRole" };
        Some(Instead::Answer {
            status: 200,
            headers: vec![("content-type".to_owned(), "text/xml".to_owned())],
            body: result(operation),
        })
    });
    (proxy, asked)
}

fn with(world: &World, identity: AwsSettings) -> SourceSettings {
    let mut settings = world.prefix("f");
    settings.auth = Some(aws(identity));
    settings
}

#[tokio::test]
async fn a_wrong_key_is_said_to_be_one_and_never_shown() {
    let Some(world) = World::start().await else { return };
    world.put("f/a.alloy", "one").await;
    for (id, key) in [(ACCESS_KEY, "hunter2-wrong"), ("AKIDUNKNOWN", SECRET_KEY)] {
        let identity = AwsSettings {
            access_key: Some(id.to_owned()),
            secret_key: Some(secret(key)),
            ..AwsSettings::default()
        };
        let source = world.open(&with(&world, identity));
        let error = refused(&source, None).await;
        assert_eq!(error.class, ErrorClass::AuthExpired, "{error}");
        assert!(error.message.contains("does not accept the credential"), "{error}");
        assert!(!format!("{source:?}").contains("hunter2"));
    }
}

#[tokio::test]
async fn a_bucket_for_everyone_is_read_unsigned_and_others_are_refused_with_what_s3_hides() {
    let Some(world) = World::start().await else { return };
    world.put("f/a.alloy", "one").await;
    let nobody = AwsSettings { anonymous: true, ..AwsSettings::default() };
    let error = refused(&world.open(&with(&world, nobody.clone())), None).await;
    assert_eq!(error.class, ErrorClass::Forbidden, "{error}");
    assert!(error.help.as_deref().is_some_and(|help| help.contains("s3:ListBucket")), "{error:?}");
    let mut object = world.settings(|s3| s3.key = Some("f/a.alloy".to_owned()));
    object.auth = Some(aws(nobody.clone()));
    let error = refused(&world.open(&object), None).await;
    assert_eq!(error.class, ErrorClass::Forbidden, "{error}");
    assert!(error.message.contains("or it is not there"), "{error}");
    let everyone = format!(
        "{{\"Version\":\"2012-10-17\",\"Statement\":[{{\"Effect\":\"Allow\",\"Principal\":\"*\",\
         \"Action\":[\"s3:GetObject\",\"s3:ListBucket\"],\"Resource\":[\"arn:aws:s3:::{BUCKET}\",\"arn:aws:s3:::{BUCKET}/*\"]}}]}}"
    );
    world.client.put_bucket_policy().bucket(BUCKET).policy(everyone).send().await.unwrap();
    world.proxy.take();
    let snapshot = changed(&world.open(&with(&world, nobody)), None).await;
    assert_eq!(files(&snapshot), [("a.alloy", "one")]);
    assert!(world.proxy.take().iter().all(|asked| asked.header("authorization").is_empty()));
}

#[tokio::test]
async fn a_role_is_assumed_with_the_keys_and_kept() {
    let Some(world) = World::start().await else { return };
    world.put("f/a.alloy", "one").await;
    let (sts, asked) = token_service(&world);
    let identity = AwsSettings {
        access_key: Some("AKIDBASE".to_owned()),
        secret_key: Some(secret("hunter2-base")),
        role_arn: Some("arn:aws:iam::1:role/read".to_owned()),
        external_id: Some("ours".to_owned()),
        sts_endpoint: Some(sts.url()),
        ..AwsSettings::default()
    };
    let source = world.open(&with(&world, identity));
    let snapshot = changed(&source, None).await;
    unchanged(&source, &snapshot).await;
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 1, "one exchange serves many requests");
    assert!(asked[0].contains("Credential=AKIDBASE/"), "{asked:?}");
}

#[tokio::test]
async fn a_web_identity_is_exchanged_for_the_role() {
    let Some(world) = World::start().await else { return };
    world.put("f/a.alloy", "one").await;
    let (sts, asked) = token_service(&world);
    let token = world.folder.path().join("token");
    let identity = AwsSettings {
        role_arn: Some("arn:aws:iam::1:role/pod".to_owned()),
        web_identity_token_file: Some(token.clone()),
        sts_endpoint: Some(sts.url()),
        ..AwsSettings::default()
    };
    let source = world.open(&with(&world, identity));
    let error = refused(&source, None).await;
    assert_eq!(error.class, ErrorClass::AuthExpired, "{error}");
    assert!(error.message.contains("token") && error.message.contains("cannot be read"), "{error}");
    std::fs::write(&token, "hunter2-token\n").unwrap();
    // A failure is remembered for a second.
    let end = std::time::Instant::now() + Duration::from_secs(20);
    let snapshot = loop {
        match source.poll(None, &context(30)).await {
            Ok(Poll::Changed(snapshot)) => break snapshot,
            other => assert!(std::time::Instant::now() < end, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(files(&snapshot), [("a.alloy", "one")]);
    assert_eq!(*asked.lock().unwrap(), [""]);
}

#[tokio::test]
async fn an_expired_token_is_renewed_once_and_the_request_repeated() {
    let Some(world) = World::start().await else { return };
    world.put("f/a.alloy", "one").await;
    let (sts, asked) = token_service(&world);
    let identity = AwsSettings {
        access_key: Some("AKIDBASE".to_owned()),
        secret_key: Some(secret("hunter2-base")),
        role_arn: Some("arn:aws:iam::1:role/read".to_owned()),
        sts_endpoint: Some(sts.url()),
        ..AwsSettings::default()
    };
    let source = world.open(&with(&world, identity));
    let mut faults = VecDeque::from([Instead::error(400, "ExpiredToken")]);
    world.proxy.script(move |_| faults.pop_front());
    let snapshot = changed(&source, None).await;
    assert_eq!(files(&snapshot), [("a.alloy", "one")]);
    assert_eq!(asked.lock().unwrap().len(), 2);
    // One that is said to have expired whatever is done is given up after one more.
    world.proxy.script(|_| Some(Instead::error(400, "ExpiredToken")));
    world.proxy.take();
    let error = refused(&source, Some(&snapshot)).await;
    assert_eq!(error.class, ErrorClass::AuthExpired, "{error}");
    assert_eq!(world.proxy.take().len(), 2);
    assert_eq!(asked.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_rotated_key_is_used_at_once_and_its_refusal_forgiven_for_a_minute() {
    let Some(world) = World::start().await else { return };
    world.put("f/a.alloy", "one").await;
    let file = world.folder.path().join("key");
    std::fs::write(&file, "hunter2-old").unwrap();
    let identity = AwsSettings {
        access_key: Some(ACCESS_KEY.to_owned()),
        secret_key: Some(Credential::File(file.clone())),
        ..AwsSettings::default()
    };
    let source = world.open(&with(&world, identity));
    assert_eq!(refused(&source, None).await.class, ErrorClass::AuthExpired);
    std::fs::write(&file, "hunter2-newer-but-early").unwrap();
    let error = refused(&source, None).await;
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    assert!(error.message.contains("less than a minute ago"), "{error}");
    std::fs::write(&file, SECRET_KEY).unwrap();
    assert_eq!(files(&changed(&source, None).await), [("a.alloy", "one")]);
}
