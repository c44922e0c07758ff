//! All objects below a prefix, without torn reads.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use server::{Asked, Instead};

use super::*;

#[tokio::test]
async fn files_are_named_below_the_prefix_and_markers_of_folders_are_left_out() {
    let Some(world) = World::start().await else { return };
    for (key, content) in [
        ("fleet/base/main.alloy", "base"),
        ("fleet/hosts/web 1+2/x.alloy", "host"),
        ("fleet/empty/", ""),
        ("fleets/other.alloy", "other"),
        ("top.alloy", "top"),
    ] {
        world.put(key, content).await;
    }
    for prefix in ["fleet", "fleet/"] {
        let snapshot = changed(&world.open(&world.prefix(prefix)), None).await;
        assert_eq!(files(&snapshot), [("base/main.alloy", "base"), ("hosts/web 1+2/x.alloy", "host")]);
        assert!(snapshot.revision.text.starts_with("s3:etag-index:"), "{}", snapshot.revision.text);
    }
    let whole = changed(&world.open(&world.prefix("")), None).await;
    assert_eq!(whole.files.len(), 4);
}

#[tokio::test]
async fn paths_select_as_with_git() {
    let Some(world) = World::start().await else { return };
    for key in
        ["f/base/a.alloy", "f/base/sub/b.alloy", "f/baseline/c.alloy", "f/environments/production/d.alloy"]
    {
        world.put(key, key).await;
    }
    let mut settings = world.prefix("f");
    settings.path =
        vec!["base".to_owned(), "environments/production/d.alloy".to_owned(), "hosts/me".to_owned()];
    let source = world.open(&settings);
    let snapshot = changed(&source, None).await;
    let names: Vec<&str> = snapshot.files.keys().map(String::as_str).collect();
    assert_eq!(names, ["base/a.alloy", "base/sub/b.alloy", "environments/production/d.alloy"]);
    assert_eq!(snapshot.paths, settings.path);
    // What is not selected is not read: a listing, three objects, a listing.
    assert_eq!(world.proxy.take().len(), 5);
    // A change beside the selection is another revision of the same files.
    world.put("f/baseline/c.alloy", "changed").await;
    let second = changed(&source, Some(&snapshot)).await;
    assert_ne!(second.revision, snapshot.revision);
    assert_eq!(second.digest, snapshot.digest);
    settings.path = vec!["nothing".to_owned()];
    rejected(&refused(&world.open(&settings), None).await, Rejection::EmptySource, "nothing");
}

#[tokio::test]
async fn what_is_not_selected_can_still_be_read_by_imports() {
    let Some(world) = World::start().await else { return };
    for key in ["f/base/a.alloy", "f/modules/m.alloy", "f/modules/n.alloy", "f/modules/deep/o.alloy"] {
        world.put(key, key).await;
    }
    let mut settings = world.prefix("f");
    settings.path = vec!["base".to_owned()];
    let source = world.open(&settings);
    let snapshot = changed(&source, None).await;
    // A source of a later process, which has nothing in memory, too.
    for source in [source, world.open(&settings)] {
        let read = async |path: &str| source.read(&snapshot, path, &context(30)).await.unwrap();
        use invar_sources::TreeEntry::{File, Folder};
        assert!(
            matches!(read("modules/m.alloy").await, Some(File(content)) if content == "f/modules/m.alloy")
        );
        let Some(Folder(folder)) = read("modules").await else { panic!("no folder") };
        assert_eq!(folder.keys().collect::<Vec<_>>(), ["m.alloy", "n.alloy"]);
        assert!(read("nothing").await.is_none());
    }
    world.put("f/new.alloy", "x").await;
    let error = world.open(&settings).read(&snapshot, "modules", &context(30)).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
}

#[tokio::test]
async fn only_changed_objects_are_downloaded_on_the_condition_that_they_are_the_listed_ones() {
    let Some(world) = World::start().await else { return };
    for number in 0..5 {
        world.put(&format!("f/{number}.alloy"), "one").await;
    }
    let source = world.open(&world.prefix("f"));
    let first = changed(&source, None).await;
    world.put("f/3.alloy", "two").await;
    world.delete("f/4.alloy").await;
    world.proxy.take();
    let second = changed(&source, Some(&first)).await;
    let asked = world.proxy.take();
    let reads: Vec<&Asked> = asked.iter().filter(|asked| !asked.is_listing()).collect();
    assert_eq!((asked.len(), reads.len()), (3, 1), "{asked:#?}");
    assert!(reads[0].target.contains("3.alloy") && reads[0].header("if-match").len() > 2);
    assert_eq!(second.files.len(), 4);
    assert_eq!(second.files["3.alloy"], "two");
}

#[tokio::test]
async fn an_unchanged_prefix_of_a_thousand_objects_costs_one_listing() {
    let Some(world) = World::start().await else { return };
    many(&world, 1000).await;
    let mut settings = world.prefix("f");
    settings.limits.files = 1000;
    let source = world.open(&settings);
    let snapshot = changed(&source, None).await;
    assert_eq!(snapshot.files.len(), 1000);
    world.proxy.take();
    unchanged(&source, &snapshot).await;
    let asked = world.proxy.take();
    assert_eq!(asked.len(), 1, "{asked:#?}");
    assert!(asked[0].is_listing());
    // So it does for a process that has just started with the snapshot from its cache.
    unchanged(&world.open(&settings), &snapshot).await;
    assert_eq!(world.proxy.take().len(), 1);
    // One more is one too many.
    world.put("f/one-more.alloy", "x").await;
    rejected(&refused(&source, Some(&snapshot)).await, Rejection::Limits, "more than 1000 objects");
}

/// Objects `f/NNNN.alloy`.
pub(crate) async fn many(world: &Arc<World>, count: usize) {
    let mut tasks = tokio::task::JoinSet::new();
    for part in 0..8 {
        let world = Arc::clone(world);
        tasks.spawn(async move {
            for number in (part..count).step_by(8) {
                world.put(&format!("f/{number:04}.alloy"), &format!("// {number}\n")).await;
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test]
async fn all_pages_are_read_and_an_error_midway_discards_the_attempt() {
    let Some(world) = World::start().await else { return };
    many(&world, 1100).await;
    let settings = world.settings(|s3| {
        s3.prefix = Some("f".to_owned());
        s3.objects = 2000;
    });
    let second_page = |asked: &Asked| asked.target.contains("continuation-token");
    world.proxy.script(move |asked| second_page(asked).then(|| Instead::error(500, "InternalError")));
    let source = world.open(&settings);
    let error = refused(&source, None).await;
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    assert!(world.proxy.take().iter().all(Asked::is_listing), "nothing is read on half a listing");
    world.proxy.behave();
    let snapshot = changed(&source, None).await;
    assert_eq!(snapshot.files.len(), 1100);
    // Two pages each before and after the objects.
    assert_eq!(world.proxy.take().iter().filter(|asked| asked.is_listing()).count(), 4);
}

/// Lets `change` happen when the first object after a listing is asked for, as often as it says.
fn while_reading(world: &Arc<World>, mut change: impl FnMut(usize) -> Vec<Change> + Send + 'static) {
    let apply = world.blocking();
    let (mut after_listing, mut round) = (false, 0);
    world.proxy.script(move |asked| {
        if asked.is_listing() {
            after_listing = true;
        } else if std::mem::take(&mut after_listing) {
            round += 1;
            change(round).into_iter().for_each(&apply);
        }
        None
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_is_replaced_while_others_are_read_is_never_mixed_with_them() {
    let Some(world) = World::start().await else { return };
    for name in ["a", "b", "c", "d", "e", "f"] {
        world.put(&format!("f/{name}.alloy"), "one").await;
    }
    let source = world.open(&world.prefix("f"));
    while_reading(&world, |round| {
        let put = |name: &str| Change::Put(format!("f/{name}.alloy"), "two".to_owned());
        if round == 1 { ["a", "b", "c", "d", "e", "f"].map(put).into() } else { Vec::new() }
    });
    let snapshot = changed(&source, None).await;
    let contents: BTreeSet<&str> = files(&snapshot).into_iter().map(|(_, content)| content).collect();
    assert_eq!(contents, BTreeSet::from(["two"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_goes_away_while_others_are_read_restarts_the_attempt() {
    let Some(world) = World::start().await else { return };
    for name in ["a", "b", "c", "d", "e", "f"] {
        world.put(&format!("f/{name}.alloy"), "one").await;
    }
    let source = world.open(&world.prefix("f"));
    while_reading(
        &world,
        |round| {
            if round == 1 { vec![Change::Delete("f/f.alloy".to_owned())] } else { Vec::new() }
        },
    );
    let snapshot = changed(&source, None).await;
    assert_eq!(snapshot.files.len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_comes_while_others_are_read_is_seen_by_the_second_listing() {
    let Some(world) = World::start().await else { return };
    world.put("f/a.alloy", "one").await;
    let source = world.open(&world.prefix("f"));
    while_reading(&world, |round| {
        if round == 1 { vec![Change::Put("f/z.alloy".to_owned(), "new".to_owned())] } else { Vec::new() }
    });
    let snapshot = changed(&source, None).await;
    assert_eq!(files(&snapshot), [("a.alloy", "one"), ("z.alloy", "new")]);
    // What the first attempt had read was not read again.
    let asked = world.proxy.take();
    assert_eq!(asked.iter().filter(|asked| asked.target.contains("a.alloy")).count(), 1, "{asked:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_never_holds_still_is_given_up_after_three_restarts() {
    let Some(world) = World::start().await else { return };
    world.put("f/a.alloy", "0").await;
    let source = world.open(&world.prefix("f"));
    let rounds = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&rounds);
    while_reading(&world, move |round| {
        counted.store(round, Ordering::Relaxed);
        vec![Change::Put("f/a.alloy".to_owned(), round.to_string())]
    });
    let started = tokio::time::Instant::now();
    let error = refused(&source, None).await;
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    assert!(error.message.contains("did not hold still over 4 attempts"), "{error}");
    assert_eq!(rounds.load(Ordering::Relaxed), 4);
    assert!(started.elapsed() >= Duration::from_secs(7), "1, 2 and 4 seconds lie between the attempts");
    world.proxy.behave();
    assert_eq!(files(&changed(&source, None).await), [("a.alloy", "4")]);
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_seen_through() {
    let Some(world) = World::start().await else { return };
    world.put("f/a.alloy", "one").await;
    let source = world.open(&world.prefix("f"));
    let mut first = true;
    // The object is another one than was listed, and is sent all the same.
    world.proxy.script(move |asked| {
        (!asked.is_listing() && std::mem::take(&mut first)).then(|| Instead::Answer {
            status: 200,
            headers: vec![("etag".to_owned(), "\"another\"".to_owned())],
            body: "two".to_owned(),
        })
    });
    let snapshot = changed(&source, None).await;
    assert_eq!(files(&snapshot), [("a.alloy", "one")]);
}

#[tokio::test]
async fn a_prefix_that_became_empty_is_refused_and_its_last_content_kept() {
    let Some(world) = World::start().await else { return };
    let source = world.open(&world.prefix("f"));
    rejected(&refused(&source, None).await, Rejection::EmptySource, "has no objects");
    world.put("f/a.alloy", "one").await;
    let first = changed(&source, None).await;
    world.delete("f/a.alloy").await;
    rejected(
        &refused(&source, Some(&first)).await,
        Rejection::EmptySource,
        "where 1 were before; those stay in use",
    );
    world.put("f/a.alloy", "two").await;
    assert_eq!(files(&changed(&source, Some(&first)).await), [("a.alloy", "two")]);
}

#[tokio::test]
async fn limits_hold_before_anything_is_downloaded() {
    let Some(world) = World::start().await else { return };
    world.put("f/a.alloy", &"x".repeat(600)).await;
    world.put("f/b.alloy", &"x".repeat(600)).await;
    type Set = fn(&mut SourceSettings);
    let cases: [(Set, &str); 3] = [
        (|settings| settings.limits.files = 1, "2 files are selected; the limit is 1"),
        (|settings| settings.limits.file = 500, "the limit for one file"),
        (|settings| settings.limits.bytes = 1000, "together"),
    ];
    for (limit, part) in cases {
        let mut settings = world.prefix("f");
        limit(&mut settings);
        rejected(&refused(&world.open(&settings), None).await, Rejection::Limits, part);
    }
    assert!(world.proxy.take().iter().all(Asked::is_listing));
}

#[tokio::test]
async fn what_an_etag_is_made_of_does_not_matter() {
    use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
    let Some(world) = World::start().await else { return };
    let begun = world.client.create_multipart_upload().bucket(BUCKET).key("f/a.alloy").send().await.unwrap();
    let upload = begun.upload_id.unwrap();
    let part = world.client.upload_part().bucket(BUCKET).key("f/a.alloy").upload_id(&upload).part_number(1);
    let sent = part.body(b"one".to_vec().into()).send().await.unwrap();
    let part = CompletedPart::builder().part_number(1).set_e_tag(sent.e_tag).build();
    let parts = CompletedMultipartUpload::builder().parts(part).build();
    let complete =
        world.client.complete_multipart_upload().bucket(BUCKET).key("f/a.alloy").upload_id(&upload);
    complete.multipart_upload(parts).send().await.unwrap();
    let source = world.open(&world.prefix("f"));
    let snapshot = changed(&source, None).await;
    assert_eq!(files(&snapshot), [("a.alloy", "one")]);
    let asked = world.proxy.take();
    assert!(asked[1].header("if-match").ends_with("-1\""), "the ETag counts parts: {asked:?}");
    unchanged(&source, &snapshot).await;
}

/// A listing as a store gives it that lets everything be a key.
fn listing(keys: &[&str]) -> Instead {
    let objects: String = keys
        .iter()
        .map(|key| format!("<Contents><Key>{key}</Key><ETag>\"e\"</ETag><Size>1</Size></Contents>"))
        .collect();
    Instead::Answer {
        status: 200,
        headers: vec![("content-type".to_owned(), "application/xml".to_owned())],
        body: format!(
            "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <Name>fleet</Name><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>{objects}\
             </ListBucketResult>"
        ),
    }
}

#[tokio::test]
async fn keys_that_are_no_safe_names_refuse_the_whole_prefix() {
    let Some(world) = World::start().await else { return };
    for (key, part) in [
        ("f/../secret.alloy", "`..`"),
        ("f/a/../../b.alloy", "`..`"),
        ("f//a.alloy", "not a name"),
        ("f/a%01b.alloy", "control characters"),
        ("f/a%0Ab.alloy", "control characters"),
        ("f/.git/config", ".git"),
        ("f/a%5Cb", "backslash"),
        ("f/./a", "`.`"),
    ] {
        world.proxy.script(move |_| Some(listing(&["f/good.alloy", key])));
        let error = refused(&world.open(&world.prefix("f")), None).await;
        rejected(&error, Rejection::Name, part);
    }
    world.proxy.script(|_| Some(listing(&["f/a", "f/a.x", "f/a/b"])));
    rejected(
        &refused(&world.open(&world.prefix("f")), None).await,
        Rejection::Name,
        "both an object and a folder",
    );
    world.proxy.script(|_| Some(listing(&["/etc/passwd"])));
    rejected(&refused(&world.open(&world.prefix("")), None).await, Rejection::Name, "not a name");
    world.proxy.script(|_| Some(listing(&["elsewhere/a.alloy"])));
    rejected(&refused(&world.open(&world.prefix("f")), None).await, Rejection::Shape, "not asked for");
}
