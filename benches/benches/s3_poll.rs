//! What it costs to find that a prefix of a thousand objects is unchanged: one signed request for a listing, its page of XML, and
//! the comparison. The server is a thread that answers what it has, so what is measured is the agent's part.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use invar_secrets::{Credential, Secret, SecretStores};
use invar_sources::{
    AuthSettings, AwsSettings, Poll, PollContext, S3Settings, S3Source, Source as _, SourceEnvironment,
    SourceSettings,
};
use tokio_util::sync::CancellationToken;

const OBJECTS: usize = 1000;

fn listing() -> String {
    let mut page = String::from(
        "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>fleet</Name>\
         <Prefix>f/</Prefix><KeyCount>1000</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>",
    );
    for number in 0..OBJECTS {
        write!(
            page,
            "<Contents><Key>f/teams/team-{number:04}/pipeline.alloy</Key><LastModified>2026-11-27T12:00:00.000Z</LastModified>\
             <ETag>&quot;9f86d081884c7d659a2feaa0c55ad015&quot;</ETag><Size>1</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )
        .unwrap();
    }
    page + "</ListBucketResult>"
}

/// Answers listings with the page, and anything else with an object of one byte.
fn serve(mut stream: TcpStream, page: &str) -> std::io::Result<()> {
    let (mut head, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut part)?;
        if read == 0 {
            return Ok(());
        }
        head.extend_from_slice(&part[..read]);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let is_listing = head.windows(11).any(|window| window == b"list-type=2");
        let body = if is_listing { page } else { "/" };
        let answer = format!(
            "HTTP/1.1 200 OK\r\netag: \"9f86d081884c7d659a2feaa0c55ad015\"\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes())?;
        head.clear();
    }
}

fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let page: Arc<str> = listing().into();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let page = Arc::clone(&page);
            std::thread::spawn(move || drop(serve(stream, &page)));
        }
    });
    address
}

fn context() -> PollContext {
    PollContext {
        deadline: tokio::time::Instant::now() + Duration::from_secs(60),
        cancellation: CancellationToken::new(),
        now: SystemTime::now(),
    }
}

fn polls(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut settings = SourceSettings::for_s3(S3Settings {
        bucket: "fleet".to_owned(),
        prefix: Some("f".to_owned()),
        endpoint: Some(format!("http://{}", server())),
        ..S3Settings::default()
    });
    settings.auth = Some(AuthSettings {
        aws: Some(AwsSettings {
            access_key: Some("AKID".to_owned()),
            secret_key: Some(Credential::Text(Secret::new("key"))),
            ..AwsSettings::default()
        }),
        ..AuthSettings::default()
    });
    let folder = tempfile::tempdir().unwrap();
    let environment =
        SourceEnvironment { state_directory: folder.path().to_owned(), secrets: SecretStores::default() };
    let source = S3Source::open(&settings, &environment).unwrap();
    let first = runtime.block_on(async { source.poll(None, &context()).await.unwrap() });
    let Poll::Changed(snapshot) = first else { panic!("the first poll brings a snapshot") };
    assert_eq!(snapshot.files.len(), OBJECTS);
    criterion.bench_function("s3_poll/unchanged_prefix_of_1000", |bencher| {
        bencher.iter(|| {
            let poll = runtime.block_on(async { source.poll(Some(&snapshot), &context()).await.unwrap() });
            assert!(matches!(poll, Poll::Unchanged));
        });
    });
}

criterion_group!(benches, polls);
criterion_main!(benches);
