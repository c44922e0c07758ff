//! What stores, networks and clocks do wrong. After each fault the next poll goes well by itself.

use std::collections::VecDeque;

use server::Instead;

use super::*;

/// The class and message of a poll under a fault; the poll after it brings the snapshot.
async fn fault(world: &Arc<World>, instead: Instead) -> SourceError {
    let source = world.open(&world.prefix("f"));
    world.proxy.script(move |_| Some(instead.clone()));
    let error = refused(&source, None).await;
    world.proxy.behave();
    assert_eq!(files(&changed(&source, None).await), [("a.alloy", "one")], "after {error}");
    error
}

async fn world() -> Option<Arc<World>> {
    let world = World::start().await?;
    world.put("f/a.alloy", "one").await;
    Some(world)
}

#[tokio::test]
async fn slow_down_is_transient_and_limited_by_what_the_store_says() {
    let Some(world) = world().await else { return };
    let error = fault(&world, Instead::error(503, "SlowDown")).await;
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    assert!(error.message.contains("fewer requests"), "{error}");
    let error = fault(&world, Instead::error(503, "SlowDown").with_header("retry-after", "17")).await;
    assert_eq!(error.class, ErrorClass::RateLimited { after: Some(Duration::from_secs(17)) });
    let error = fault(&world, Instead::error(429, "TooManyRequests").with_header("retry-after", "3")).await;
    assert_eq!(error.class, ErrorClass::RateLimited { after: Some(Duration::from_secs(3)) });
}

#[tokio::test]
async fn a_listing_that_is_cut_off_is_not_a_shorter_one() {
    let Some(world) = world().await else { return };
    let entry = "<Contents><Key>f/a.alloy</Key><ETag>\"x\"</ETag><Size>3</Size></Contents>";
    for head in ["<KeyCount>2</KeyCount><IsTruncated>false</IsTruncated>", "<Prefix>f/</Prefix>"] {
        // As a proxy that counts wrong leaves it: the end is missing.
        let body = format!("<?xml version=\"1.0\"?><ListBucketResult>{head}{entry}");
        let headers = vec![("content-type".to_owned(), "application/xml".to_owned())];
        let error = fault(&world, Instead::Answer { status: 200, headers, body }).await;
        rejected(&error, Rejection::Shape, "cut off");
    }
}

#[tokio::test]
async fn what_a_listing_cannot_be_answered_with_has_words() {
    let Some(world) = world().await else { return };
    let error =
        fault(&world, Instead::Answer { status: 304, headers: Vec::new(), body: String::new() }).await;
    rejected(&error, Rejection::Shape, "without having been asked");
    let error = fault(&world, Instead::error(412, "PreconditionFailed")).await;
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    assert!(error.message.contains("without a condition"), "{error}");
}

#[tokio::test]
async fn a_store_that_repeats_the_credential_is_not_quoted() {
    let Some(world) = world().await else { return };
    let body = format!("<Error><Code>{SECRET_KEY}</Code><Message>no {SECRET_KEY} here</Message></Error>");
    let headers = vec![("content-type".to_owned(), "application/xml".to_owned())];
    let error = fault(&world, Instead::Answer { status: 400, headers, body }).await;
    assert!(error.message.contains("no (the credential) here"), "{error}");
}

#[tokio::test]
async fn the_scheduler_retries_and_not_the_library() {
    let Some(world) = world().await else { return };
    let source = world.open(&world.prefix("f"));
    world.proxy.script(|_| Some(Instead::error(500, "InternalError")));
    refused(&source, None).await;
    assert_eq!(world.proxy.take().len(), 1);
}

#[tokio::test]
async fn failures_of_the_store_and_of_the_network_are_transient() {
    let Some(world) = world().await else { return };
    for instead in [
        Instead::error(500, "InternalError"),
        Instead::error(503, "ServiceUnavailable"),
        Instead::error(408, "RequestTimeout"),
        Instead::error(400, "RequestTimeout"),
        Instead::Answer { status: 502, headers: Vec::new(), body: "<html>bad gateway</html>".to_owned() },
        Instead::Close,
        Instead::Truncate(0),
        Instead::Truncate(40),
        Instead::Truncate(900),
    ] {
        let shown = format!("{instead:?}");
        let error = fault(&world, instead).await;
        assert_eq!(error.class, ErrorClass::Transient, "{shown}: {error}");
    }
}

#[tokio::test]
async fn an_answer_that_nobody_understands_does_not_stop_a_source_for_good() {
    let Some(world) = world().await else { return };
    for (status, code, class) in [
        (400, "", ErrorClass::Transient),
        (400, "InvalidRequest", ErrorClass::Transient),
        (418, "", ErrorClass::Transient),
        (425, "", ErrorClass::Transient),
        (407, "", ErrorClass::Forbidden),
        (403, "InvalidObjectState", ErrorClass::Forbidden),
    ] {
        let error = fault(&world, Instead::error(status, code)).await;
        assert_eq!(error.class, class, "{status} {code}: {error}");
    }
}

#[tokio::test]
async fn an_object_that_is_cut_off_is_transient() {
    let Some(world) = world().await else { return };
    world.put("f/a.alloy", &"x".repeat(5000)).await;
    let source = world.open(&world.prefix("f"));
    world.proxy.script(|asked| (!asked.is_listing()).then_some(Instead::Truncate(3000)));
    let error = refused(&source, None).await;
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
}

#[tokio::test]
async fn a_login_page_is_no_listing_and_no_object() {
    let Some(world) = world().await else { return };
    let page = Instead::Answer {
        status: 200,
        headers: vec![("content-type".to_owned(), "text/html".to_owned())],
        body: "<html><body>Please log in</body></html>".to_owned(),
    };
    let error = fault(&world, page.clone()).await;
    rejected(&error, Rejection::Shape, "no listing");
    let source = world.open(&world.settings(|s3| s3.key = Some("f/a.alloy".to_owned())));
    world.proxy.script(move |_| Some(page.clone()));
    rejected(&refused(&source, None).await, Rejection::Shape, "web page");
}

#[tokio::test]
async fn a_304_that_was_not_asked_for_is_an_error() {
    let Some(world) = world().await else { return };
    let source = world.open(&world.settings(|s3| s3.key = Some("f/a.alloy".to_owned())));
    world.proxy.script(|_| Some(Instead::error(304, "")));
    let error = refused(&source, None).await;
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
}

#[tokio::test]
async fn a_permission_that_is_missing_is_named() {
    let Some(world) = world().await else { return };
    let error = fault(&world, Instead::error(403, "AccessDenied")).await;
    assert_eq!(error.class, ErrorClass::Forbidden, "{error}");
    assert!(error.help.unwrap().contains("s3:ListBucket"));
}

#[tokio::test]
async fn the_region_is_learnt_from_the_store_and_said() {
    let Some(world) = world().await else { return };
    // This one the server itself says: a signature for another region is refused with the right one.
    let mut settings = world.prefix("f");
    settings.s3.as_mut().unwrap().region = Some("eu-west-1".to_owned());
    let source = world.open(&settings);
    let snapshot = changed(&source, None).await;
    let notice = &snapshot.notices[0];
    assert_eq!(notice.kind, invar_sources::NoticeKind::Redirected);
    assert!(notice.message.contains("`us-east-1`"), "{}", notice.message);
    // It is learnt once: one request was refused, and none later.
    assert_eq!(world.proxy.take().len(), 4);
    unchanged(&source, &snapshot).await;
    assert_eq!(world.proxy.take().len(), 1);
}

#[tokio::test]
async fn redirects_to_a_region_are_followed_and_others_are_not() {
    let Some(world) = world().await else { return };
    for redirect in [
        Instead::error(301, "PermanentRedirect").with_header("x-amz-bucket-region", "us-east-1"),
        Instead::error(307, "TemporaryRedirect")
            .with_header("location", "https://fleet.s3.us-east-1.amazonaws.com/"),
    ] {
        let mut settings = world.prefix("f");
        settings.s3.as_mut().unwrap().region = Some("eu-west-1".to_owned());
        let source = world.open(&settings);
        let mut faults = VecDeque::from([redirect]);
        world.proxy.script(move |_| faults.pop_front());
        assert_eq!(files(&changed(&source, None).await), [("a.alloy", "one")]);
    }
    world.proxy.take();
    let elsewhere = Instead::error(307, "TemporaryRedirect").with_header("location", "https://evil.example/");
    let error = fault(&world, elsewhere).await;
    assert_eq!(error.class, ErrorClass::Integrity, "{error}");
    // A store that sends us in a circle is not followed for ever.
    let source = world.open(&world.prefix("f"));
    let mut turn = 0;
    world.proxy.script(move |_| {
        turn += 1;
        Some(
            Instead::error(301, "PermanentRedirect")
                .with_header("x-amz-bucket-region", &format!("region-{turn}")),
        )
    });
    world.proxy.take();
    assert_eq!(refused(&source, None).await.class, ErrorClass::Integrity);
    assert_eq!(world.proxy.take().len(), 2);
}

#[tokio::test]
async fn a_wrong_clock_is_corrected_by_the_answers_date_and_the_request_repeated_once() {
    let Some(world) = world().await else { return };
    let source = world.open(&world.prefix("f"));
    // A store whose time is six years ago.
    let skewed =
        Instead::error(403, "RequestTimeTooSkewed").with_header("date", "Sat, 05 Dec 2020 10:00:00 GMT");
    let (sender, received) = std::sync::mpsc::channel();
    world.proxy.script(move |asked| {
        sender.send(asked.header("x-amz-date").to_owned()).unwrap();
        Some(skewed.clone())
    });
    let error = refused(&source, None).await;
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    assert!(
        error.message.contains("clock") && error.help.as_deref().is_some_and(|help| help.contains("NTP"))
    );
    let stamps: Vec<String> = received.try_iter().collect();
    assert_eq!(stamps.len(), 2, "once more, and not again: {stamps:?}");
    assert!(stamps[1].starts_with("20201205T1000"), "{stamps:?}");
    // The server itself refuses that time, says its own, and all is well.
    world.proxy.behave();
    assert_eq!(files(&changed(&source, None).await), [("a.alloy", "one")]);
}

#[tokio::test]
async fn a_store_that_says_nothing_holds_a_poll_no_longer_than_it_may_take() {
    let Some(world) = world().await else { return };
    let source = world.open(&world.prefix("f"));
    world.proxy.script(|_| Some(Instead::Hang));
    let error = source.poll(None, &context(1)).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    assert!(error.message.contains("in time"), "{error}");
    // Nor longer than anybody wants it.
    let context = context(600);
    context.cancellation.cancel();
    let error = source.poll(None, &context).await.unwrap_err();
    assert!(error.message.contains("cancelled"), "{error}");
}

#[tokio::test]
async fn a_store_that_is_not_there_is_transient() {
    let Some(world) = world().await else { return };
    let mut settings = world.prefix("f");
    settings.s3.as_mut().unwrap().endpoint = Some("http://127.0.0.1:9".to_owned());
    let error = refused(&world.open(&settings), None).await;
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    assert!(error.message.contains("cannot be reached"), "{error}");
}

#[tokio::test]
async fn a_listing_without_end_is_refused() {
    let Some(world) = world().await else { return };
    let page = |contents: &str, token: &str| Instead::Answer {
        status: 200,
        headers: Vec::new(),
        body: format!(
            "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>true</IsTruncated>{contents}{token}</ListBucketResult>"
        ),
    };
    let same = page("", "<NextContinuationToken>x</NextContinuationToken>");
    rejected(&fault(&world, same).await, Rejection::Shape, "no end");
    rejected(&fault(&world, page("", "")).await, Rejection::Shape, "does not say where");
    let source = world.open(&world.prefix("f"));
    let mut turn = 0;
    world.proxy.script(move |_| {
        turn += 1;
        Some(page("", &format!("<NextContinuationToken>{turn}</NextContinuationToken>")))
    });
    rejected(&refused(&source, None).await, Rejection::Shape, "no end");
}

#[tokio::test]
async fn ten_thousand_polls_that_fail_leave_nothing_behind() {
    let Some(world) = world().await else { return };
    let source = world.open(&world.prefix("f"));
    let snapshot = changed(&source, None).await;
    let descriptors = || std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let before = descriptors();
    let rounds = if std::env::var_os("INVAR_REQUIRE_SERVERS").is_some() { 10_000 } else { 300 };
    for round in 0..rounds {
        match round % 3 {
            0 => world.proxy.script(|_| Some(Instead::Close)),
            1 => world.proxy.script(|_| Some(Instead::error(503, "SlowDown"))),
            _ => world.proxy.behave(),
        }
        drop(poll(&source, Some(&snapshot)).await);
        world.proxy.take();
    }
    assert!(descriptors() <= before + 20, "{before} descriptors became {}", descriptors());
}
