#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Bytes;
use axum::http::{HeaderName, HeaderValue};
use futures_util::StreamExt as _;
use proptest::prelude::*;
use ring::hmac;

use super::signature::{Prefix, decode};
use super::*;

const SECRET: &str = "marker-webhook-secret";

/// What deliveries led to.
#[derive(Default)]
struct Scripted {
    held: AtomicBool,
    announced: Mutex<Vec<String>>,
    looked: Mutex<Vec<Vec<SourceName>>>,
}

impl Target for Scripted {
    fn is_held(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }

    fn announce(&self, message: String) {
        self.announced.lock().push(message);
    }

    fn look(&self, sources: &[SourceName]) {
        self.looked.lock().push(sources.to_vec());
    }
}

struct Fixture {
    webhooks: Webhooks,
    target: Arc<Scripted>,
    registry: Registry,
}

/// The webhooks of some settings, as they would be in `invar.toml`.
fn start(text: &str) -> Fixture {
    #[derive(serde::Deserialize)]
    struct Holder {
        webhook: BTreeMap<String, WebhookSettings>,
    }
    let settings: Holder = toml::from_str(text).unwrap();
    check(&settings.webhook, &["platform".to_owned(), "other".to_owned()]).unwrap();
    let (target, registry) = (Arc::new(Scripted::default()), Registry::new());
    let stores = SecretStores::default();
    let webhooks =
        Webhooks::start(&settings.webhook, Arc::clone(&target) as Arc<dyn Target>, stores, &registry)
            .unwrap();
    Fixture { webhooks, target, registry }
}

fn of_kind(kind: &str) -> Fixture {
    start(&format!("[webhook.git]\nkind = \"{kind}\"\nsecret = \"{SECRET}\""))
}

impl Fixture {
    async fn deliver(&self, headers: &[(&str, &str)], body: &str) -> Result<Outcome, Refused> {
        self.deliver_from(None, headers, Body::from(body.to_owned())).await
    }

    async fn deliver_from(
        &self,
        peer: Option<IpAddr>,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Result<Outcome, Refused> {
        let headers = headers.iter().map(|(name, value)| {
            (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap())
        });
        let headers: HeaderMap = headers.collect();
        self.webhooks.receive("git", peer, &headers, body).await.map(|(outcome, _)| outcome)
    }

    fn counted(&self, outcome: &str) -> u64 {
        let family =
            self.registry.gather().into_iter().find(|family| family.name().ends_with("deliveries_total"));
        let metrics = family.map(|family| family.get_metric().to_vec()).unwrap_or_default();
        let of = |metric: &&prometheus::proto::Metric| {
            metric.get_label().iter().any(|label| label.value() == outcome)
        };
        metrics.iter().find(of).map_or(0, |metric| metric.get_counter().get_value() as u64)
    }

    /// Lets what was accepted be acted on.
    async fn looked(&self) -> usize {
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.target.looked.lock().len()
    }
}

fn sign(secret: &str, body: &str) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), body.as_bytes());
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A vendor's delivery: its kind, the header with the signature and what stands before the digits, the header with the id,
/// and a body of the shape that it sends.
const VENDORS: [(&str, &str, &str, &str, &str); 5] = [
    (
        "github",
        "x-hub-signature-256",
        "sha256=",
        "x-github-delivery",
        r#"{"ref":"refs/heads/main","after":"9c1f","repository":{"full_name":"obs/fleet"}}"#,
    ),
    (
        "gitea",
        "x-gitea-signature",
        "",
        "x-gitea-delivery",
        r#"{"ref":"refs/heads/main","commits":[],"repository":{"clone_url":"https://evil.example/x.git"}}"#,
    ),
    (
        "bitbucket",
        "x-hub-signature",
        "sha256=",
        "x-request-uuid",
        r#"{"push":{"changes":[{"new":{"type":"branch","name":"main"}}]}}"#,
    ),
    ("generic", "x-signature", "sha256=", "x-request-id", "ref=main"),
    ("generic", "x-signature", "", "x-request-id", ""),
];

#[tokio::test(start_paused = true)]
async fn the_right_signature_of_each_vendor_is_accepted() {
    for (kind, header, before, id, body) in VENDORS {
        let fixture = of_kind(kind);
        let signature = format!("{before}{}", sign(SECRET, body));
        let outcome = fixture.deliver(&[(header, &signature), (id, "one")], body).await;
        assert_eq!(outcome, Ok(Outcome::Accepted), "{kind}");
        assert_eq!(fixture.looked().await, 1, "{kind}");
        assert_eq!(
            *fixture.target.announced.lock(),
            ["webhook git, delivery one: all Git sources"],
            "{kind}"
        );
    }
    let fixture = of_kind("gitlab");
    let body = r#"{"object_kind":"push","ref":"refs/heads/main"}"#;
    assert_eq!(fixture.deliver(&[("x-gitlab-token", SECRET)], body).await, Ok(Outcome::Accepted));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_signature_of_each_vendor_is_refused_and_counted() {
    for (kind, header, before, id, body) in VENDORS {
        let fixture = of_kind(kind);
        let right = sign(SECRET, body);
        let wrong = [
            format!("{before}{}", sign("another secret", body)),
            format!("{before}{}", sign(SECRET, &format!("{body} "))),
            format!("{before}{}", &right[..62]),
            format!("{before}{right}00"),
            format!("sha1={right}"),
            before.to_owned(),
            "null".to_owned(),
        ];
        for signature in &wrong {
            let outcome = fixture.deliver(&[(header, signature), (id, "one")], body).await;
            assert_eq!(outcome, Err(Refused::Unauthenticated), "{kind}: {signature}");
        }
        assert_eq!(fixture.counted("unauthenticated"), wrong.len() as u64);
        assert_eq!(fixture.looked().await, 0, "{kind}");
        // Nobody who is refused uses an id up.
        let signature = format!("{before}{right}");
        let outcome = fixture.deliver(&[(header, &signature), (id, "one")], body).await;
        assert_eq!(outcome, Ok(Outcome::Accepted), "{kind}");
    }
    let fixture = of_kind("gitlab");
    for wrong in ["", "marker-webhook-secre", "marker-webhook-secret2", "MARKER-WEBHOOK-SECRET"] {
        assert_eq!(fixture.deliver(&[("x-gitlab-token", wrong)], "{}").await, Err(Refused::Unauthenticated));
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_signature_of_each_vendor_is_refused() {
    for (kind, _, _, id, body) in VENDORS.into_iter().chain([("gitlab", "", "", "idempotency-key", "{}")]) {
        let fixture = of_kind(kind);
        assert_eq!(fixture.deliver(&[(id, "one")], body).await, Err(Refused::Unauthenticated), "{kind}");
    }
    // A signature in the header of another vendor is none.
    let fixture = of_kind("github");
    let signature = sign(SECRET, "{}");
    for header in ["x-gitea-signature", "x-signature", "x-hub-signature"] {
        let outcome = fixture.deliver(&[(header, &format!("sha256={signature}"))], "{}").await;
        assert_eq!(outcome, Err(Refused::Unauthenticated), "{header}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_signatures_are_none() {
    let fixture = of_kind("github");
    let right = format!("sha256={}", sign(SECRET, "{}"));
    let mut headers = HeaderMap::new();
    for value in [&right, &right] {
        headers.append("x-hub-signature-256", HeaderValue::try_from(value).unwrap());
    }
    let outcome = fixture.webhooks.receive("git", None, &headers, Body::from("{}")).await;
    assert_eq!(outcome.map(|(outcome, _)| outcome), Err(Refused::Unauthenticated));
}

#[tokio::test(start_paused = true)]
async fn the_header_of_a_generic_webhook_can_be_chosen() {
    let fixture = start(&format!(
        "[webhook.git]\nkind = \"generic\"\nsecret = \"{SECRET}\"\nheader = \"X-My-Signature\"\nsources = [\"platform\"]"
    ));
    let signature = sign(SECRET, "{}");
    assert_eq!(fixture.deliver(&[("x-signature", &signature)], "{}").await, Err(Refused::Unauthenticated));
    assert_eq!(fixture.deliver(&[("x-my-signature", &signature)], "{}").await, Ok(Outcome::Accepted));
    fixture.looked().await;
    assert_eq!(*fixture.target.looked.lock(), [[SourceName::new("platform")]]);
    assert_eq!(*fixture.target.announced.lock(), ["webhook git, delivery without an id: platform"]);
}

#[tokio::test(start_paused = true)]
async fn a_replay_is_answered_and_changes_nothing() {
    let fixture = of_kind("gitea");
    let signature = sign(SECRET, "{}");
    let headers = [("x-gitea-signature", signature.as_str()), ("x-gitea-delivery", "d-1")];
    assert_eq!(fixture.deliver(&headers, "{}").await, Ok(Outcome::Accepted));
    fixture.looked().await;
    assert_eq!(fixture.deliver(&headers, "{}").await, Ok(Outcome::Duplicate));
    assert_eq!(fixture.looked().await, 1);
    assert_eq!((fixture.counted("accepted"), fixture.counted("duplicate")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn while_applying_is_held_a_delivery_is_ignored() {
    let fixture = of_kind("gitlab");
    fixture.target.held.store(true, Ordering::SeqCst);
    assert_eq!(fixture.deliver(&[("x-gitlab-token", SECRET)], "{}").await, Ok(Outcome::Ignored));
    assert_eq!(fixture.looked().await, 0);
    fixture.target.held.store(false, Ordering::SeqCst);
    assert_eq!(fixture.deliver(&[("x-gitlab-token", SECRET)], "{}").await, Ok(Outcome::Accepted));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_name_is_refused_without_being_counted() {
    let fixture = of_kind("gitlab");
    let outcome = fixture.webhooks.receive("other", None, &HeaderMap::new(), Body::empty()).await;
    assert_eq!(outcome, Err(Refused::Unknown));
    assert!(
        fixture.registry.gather().iter().all(|family| family.get_metric().is_empty()),
        "strangers make no series"
    );
}

#[tokio::test(start_paused = true)]
async fn ten_deliveries_at_once_and_then_one_a_second_for_each_sender() {
    let fixture = of_kind("gitlab");
    let from = |number: u8| Some(IpAddr::from([192, 0, 2, number]));
    let headers = [("x-gitlab-token", "wrong")];
    for _ in 0..10 {
        let outcome = fixture.deliver_from(from(1), &headers, Body::empty()).await;
        assert_eq!(outcome, Err(Refused::Unauthenticated));
    }
    let limited = fixture.deliver_from(from(1), &headers, Body::empty()).await;
    assert!(
        matches!(limited, Err(Refused::Limited(wait)) if wait <= Duration::from_millis(1001)),
        "{limited:?}"
    );
    let right = [("x-gitlab-token", SECRET)];
    assert_eq!(fixture.deliver_from(from(2), &right, Body::empty()).await, Ok(Outcome::Accepted));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(fixture.deliver_from(from(1), &right, Body::empty()).await, Ok(Outcome::Accepted));
}

#[tokio::test(start_paused = true)]
async fn deliveries_within_the_jitter_are_one_look() {
    let fixture = start(&format!("[webhook.git]\nkind = \"gitlab\"\nsecret = \"{SECRET}\"\njitter = \"5s\""));
    for _ in 0..5 {
        assert_eq!(fixture.deliver(&[("x-gitlab-token", SECRET)], "{}").await, Ok(Outcome::Accepted));
    }
    tokio::time::sleep(Duration::from_secs(11)).await;
    let looks = fixture.target.looked.lock().len();
    // The first may have been on its way when the rest came.
    assert!((1..=2).contains(&looks), "{looks}");
}

#[tokio::test(start_paused = true)]
async fn a_body_over_a_mebibyte_is_refused_said_or_unsaid() {
    let fixture = of_kind("gitlab");
    let headers = [("x-gitlab-token", SECRET), ("content-length", "1048577")];
    assert_eq!(fixture.deliver_from(None, &headers, Body::empty()).await, Err(Refused::TooLarge));
    let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![0; 65536])));
    let outcome = fixture.deliver_from(None, &headers[..1], Body::from_stream(endless)).await;
    assert_eq!(outcome, Err(Refused::TooLarge));
    let whole = Body::from(vec![0; BODY_LIMIT]);
    assert_eq!(fixture.deliver_from(None, &headers[..1], whole).await, Ok(Outcome::Accepted));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up_after_ten_seconds() {
    let fixture = of_kind("gitlab");
    let slow = futures_util::stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(b"{")) })
        .chain(futures_util::stream::pending());
    let began = Instant::now();
    let outcome = fixture.deliver_from(None, &[("x-gitlab-token", SECRET)], Body::from_stream(slow)).await;
    assert_eq!(outcome, Err(Refused::TimedOut));
    assert_eq!(began.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn only_so_many_bodies_are_read_at_a_time() {
    let fixture = of_kind("gitlab");
    let stuck = || Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
    let headers = [("x-gitlab-token", SECRET)];
    let peer = |number: usize| Some(IpAddr::from([192, 0, 2, u8::try_from(number).unwrap()]));
    let held = futures_util::future::join_all(
        (0..READING).map(|number| fixture.deliver_from(peer(number), &headers, stuck())),
    );
    let late = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        fixture.deliver_from(peer(200), &headers, Body::empty()).await
    };
    let (held, late) = tokio::join!(held, late);
    assert!(matches!(late, Err(Refused::Limited(_))), "{late:?}");
    assert!(held.iter().all(|outcome| *outcome == Err(Refused::TimedOut)));
    assert_eq!(fixture.deliver_from(peer(200), &headers, Body::empty()).await, Ok(Outcome::Accepted));
}

#[tokio::test]
async fn a_rotated_secret_is_used_at_once_and_the_one_before_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "first\n").unwrap();
    let fixture =
        start(&format!("[webhook.git]\nkind = \"gitlab\"\nsecret = {{ file = \"{}\" }}", file.display()));
    let shown = |secret| [("x-gitlab-token", secret)];
    assert_eq!(fixture.deliver(&shown("first"), "{}").await, Ok(Outcome::Accepted));
    std::fs::write(&file, "second\n").unwrap();
    assert_eq!(fixture.deliver(&shown("second"), "{}").await, Ok(Outcome::Accepted));
    assert_eq!(fixture.deliver(&shown("first"), "{}").await, Ok(Outcome::Accepted), "the other side is late");
    assert_eq!(fixture.deliver(&shown("zeroth"), "{}").await, Err(Refused::Unauthenticated));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(fixture.deliver(&shown("second"), "{}").await, Err(Refused::Unavailable));
}

#[tokio::test]
async fn an_empty_secret_lets_nobody_in() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "\n").unwrap();
    let fixture =
        start(&format!("[webhook.git]\nkind = \"github\"\nsecret = {{ file = \"{}\" }}", file.display()));
    let signature = format!("sha256={}", sign("", "{}"));
    let outcome = fixture.deliver(&[("x-hub-signature-256", &signature)], "{}").await;
    assert_eq!(outcome, Err(Refused::Unavailable));
}

#[test]
fn settings_that_cannot_work_are_refused_with_what_is_wrong() {
    let problems = |text: &str| {
        let webhook: WebhookSettings = toml::from_str(&format!("secret = \"x\"\n{text}")).unwrap();
        check(&BTreeMap::from([("git".to_owned(), webhook)]), &["platform".to_owned()])
            .err()
            .unwrap_or_default()
            .join("\n")
    };
    assert_eq!(problems("sources = [\"platform\"]\njitter = \"5s\""), "");
    assert!(problems("sources = [\"nope\"]").contains("no source `nope`; there is platform"));
    assert!(problems("jitter = \"1h\"").contains("at most 5m"));
    assert!(problems("header = \"x\"").contains("goes with `kind = \"generic\"`"));
    assert!(problems("kind = \"generic\"\nheader = \"a b\"").contains("not the name of a header"));
    let named = |name: &str| {
        let webhook: WebhookSettings = toml::from_str("secret = \"x\"").unwrap();
        check(&BTreeMap::from([(name.to_owned(), webhook)]), &[])
    };
    assert!(named("a/b").is_err() && named("").is_err() && named("git-1.x").is_ok());
    assert!(toml::from_str::<WebhookSettings>("kind = \"github\"").is_err(), "without a secret");
    assert!(toml::from_str::<WebhookSettings>("secret = \"x\"\nkind = \"svn\"").is_err());
}

proptest! {
    /// Every signature that is written is read, in either case of its digits, and whatever else comes is only refused.
    #[test]
    fn signatures_are_read_as_they_are_written(bytes in any::<[u8; 32]>(), text in ".{0,80}") {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        prop_assert_eq!(decode(&digits, Prefix::Absent), Some(bytes));
        prop_assert_eq!(decode(&digits.to_uppercase(), Prefix::Optional), Some(bytes));
        prop_assert_eq!(decode(&format!("sha256={digits}"), Prefix::Required), Some(bytes));
        prop_assert_eq!(decode(&digits, Prefix::Required), None);
        for prefix in [Prefix::Required, Prefix::Optional, Prefix::Absent] {
            if let Some(read) = decode(&text, prefix) {
                let again: String = read.iter().map(|byte| format!("{byte:02x}")).collect();
                prop_assert!(text.to_lowercase().contains(&again));
            }
        }
    }
}
