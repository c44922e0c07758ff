//! Buckets of S3: a prefix or an object a case, on a real versitygw. S3 hides from some whether there is anything at all,
//! and its answers say that they do.

use std::net::SocketAddr;

use invar_integration::fault_proxy::Fault;

use crate::faults;
use crate::matrix::{Case, Kind, Outcomes, Place, Trouble, play};
use crate::s3_writer::writer;
use crate::versitygw::{ACCESS_KEY, SECRET_KEY, Versitygw};

const BUCKET: &str = "fleet";
/// Cases that begin with this follow one object, the others all below a prefix.
const OBJECT: &str = "object_";

struct S3 {
    server: Versitygw,
    client: aws_sdk_s3::Client,
    runtime: tokio::runtime::Runtime,
    _directory: tempfile::TempDir,
}

impl S3 {
    fn start() -> Option<Box<dyn Kind>> {
        let directory = tempfile::tempdir().unwrap();
        let server = Versitygw::start(directory.path(), None)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = writer(&format!("http://{}", server.address()), ACCESS_KEY, SECRET_KEY);
        runtime.block_on(client.create_bucket().bucket(BUCKET).send()).unwrap();
        Some(Box::new(Self { server, client, runtime, _directory: directory }))
    }
}

impl Kind for S3 {
    fn upstream(&self) -> Option<SocketAddr> {
        Some(self.server.address())
    }

    fn settings(&self, place: &Place<'_>) -> String {
        let (at, case) = (place.address.unwrap(), place.case);
        let what = if case.starts_with(OBJECT) {
            format!("key = \"{case}/main.alloy\"")
        } else {
            format!("prefix = \"{case}\"")
        };
        format!(
            "s3 = {{ bucket = \"{BUCKET}\", {what}, endpoint = \"http://{at}\", region = \"us-east-1\" }}\n\
             auth = {{ aws = {{ access_key = \"{ACCESS_KEY}\", secret_key = \"{SECRET_KEY}\" }} }}\n"
        )
    }

    fn publish(&self, texts: &[(&str, String)]) {
        for (case, text) in texts {
            let put = self.client.put_object().bucket(BUCKET).key(format!("{case}/main.alloy"));
            self.runtime.block_on(put.body(text.as_bytes().to_vec().into()).send()).unwrap();
        }
    }

    fn secrets(&self) -> Vec<String> {
        vec![SECRET_KEY.to_owned()]
    }
}

/// An answer as S3 refuses.
fn refusal(status: u16, body: &'static str) -> Fault {
    Fault::Answer { status, headers: vec![("content-type", "application/xml")], body }
}

const ACCESS_DENIED: &str = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
const NO_SUCH_BUCKET: &str = "<Error><Code>NoSuchBucket</Code><Message>as told</Message></Error>";
const NO_SUCH_KEY: &str = "<Error><Code>NoSuchKey</Code><Message>as told</Message></Error>";
const SLOW_DOWN: &str = "<Error><Code>SlowDown</Code><Message>as told</Message></Error>";
const SKEWED: &str = "<Error><Code>RequestTimeTooSkewed</Code><Message>as told</Message></Error>";
const EXPIRED: &str = "<Error><Code>ExpiredToken</Code><Message>as told</Message></Error>";
const UNKNOWN_KEY: &str = "<Error><Code>InvalidAccessKeyId</Code><Message>as told</Message></Error>";

fn of_stores() -> Vec<Case> {
    let case = |name, fault| Case::new(name, Trouble::Proxy(fault));
    vec![
        case("too_long", Fault::TooLong).fails("transient", &["broke the connection off"]),
        // Where the listing is cut decides what else is said of it.
        case("too_short", Fault::TooShort).fails("rejected", &["not one of an object store"]),
        case("not_modified", Fault::not_modified()).fails("rejected", &["304", "without having been asked"]),
        case("request_timeout", Fault::status(408)).fails("transient", &["too slow", "408"]),
        case("precondition_failed", Fault::status(412)).fails("transient", &["412"]),
        case("too_many_requests", Fault::status_with(429, "retry-after", "2"))
            .fails("rate_limited", &["asks for fewer requests", "429"]),
        case("slow_down", refusal(503, SLOW_DOWN))
            .fails("transient", &["asks for fewer requests", "SlowDown"]),
        case("server_error", Fault::status(500)).fails("transient", &["failed", "500"]),
        case("unavailable", Fault::status(503)).fails("transient", &["failed", "503"]),
        case("unavailable_for_a_while", Fault::status_with(503, "retry-after", "2"))
            .fails("rate_limited", &["asks for fewer requests", "503"]),
        case("page", Fault::page()).fails("rejected", &["not one of an object store", "login page"]),
        case("clock_ahead", Fault::SkewDate(24 * 60 * 60)),
        case("clock_refused", refusal(403, SKEWED)).fails("transient", &["clock of this host", "NTP"]),
        case("no_such_bucket", refusal(404, NO_SUCH_BUCKET))
            .fails("not_found", &["no such bucket", "NoSuchBucket"]),
        case("object_not_found", refusal(404, NO_SUCH_KEY))
            .fails("not_found", &["no such object", "only to those who may list the bucket"]),
        case("object_page", Fault::page()).fails("rejected", &["web page", "login page"]),
        case("object_not_modified", Fault::not_modified()).hides(),
    ]
}

pub(crate) fn of_a_bucket() -> Option<Outcomes> {
    // The words for what breaks are the same, whether it is before the answer or within.
    let connections = faults::of_connections();
    play("s3", S3::start(), connections.into_iter().chain(of_stores()).collect())
}

pub(crate) fn of_a_bucket_denied() -> Option<Outcomes> {
    let case = |name, fault| Case::new(name, Trouble::Proxy(fault)).patient();
    let cases = vec![
        case("listing_forbidden", refusal(403, ACCESS_DENIED))
            .fails("forbidden", &["may not be listed", "s3:ListBucket"]),
        case("object_forbidden", refusal(403, ACCESS_DENIED))
            .fails("forbidden", &["may not be read", "or it is not there", "s3:GetObject"]),
        case("unauthorized", Fault::status(401))
            .fails("auth_expired", &["does not accept the credential", "401"]),
        case("unknown_key", refusal(403, UNKNOWN_KEY))
            .fails("auth_expired", &["does not accept the credential", "InvalidAccessKeyId"]),
        case("expired", refusal(400, EXPIRED)).fails("auth_expired", &["has expired", "ExpiredToken"]),
    ];
    play("s3_denied", S3::start(), cases)
}
