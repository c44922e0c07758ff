//! Buckets of S3: a prefix or an object a case, on a real versitygw. S3 hides from some whether there is anything at all,
//! and its answers say that they do.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use invar_integration::fault_proxy::Fault;

use crate::faults;
use crate::matrix::{Case, Kind, Outcomes, Place, Trouble, play};
use crate::publisher::digest;
use crate::s3_writer::writer;
use crate::versitygw::{ACCESS_KEY, SECRET_KEY, Versitygw};

const BUCKET: &str = "fleet";
/// Cases that begin with this follow one object, or what a manifest names, the others all below a prefix.
const OBJECT: &str = "object_";
const MANIFEST: &str = "manifest_";
/// What an object has that is none to the agent.
const GZIP: &[u8] = b"\x1f\x8b";

struct S3 {
    server: Versitygw,
    client: aws_sdk_s3::Client,
    runtime: tokio::runtime::Runtime,
    scheme: &'static str,
    /// What came while a case was spoilt: its text, or nothing yet.
    aside: RefCell<BTreeMap<String, Option<String>>>,
    /// The last version of each manifest.
    versions: RefCell<BTreeMap<String, u64>>,
    _directory: tempfile::TempDir,
}

impl S3 {
    fn start(scheme: &'static str) -> Option<Box<dyn Kind>> {
        let directory = tempfile::tempdir().unwrap();
        let server = Versitygw::start(directory.path(), None)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = writer(&format!("http://{}", server.address()), ACCESS_KEY, SECRET_KEY);
        runtime.block_on(client.create_bucket().bucket(BUCKET).send()).unwrap();
        let (aside, versions) = (RefCell::default(), RefCell::default());
        Some(Box::new(Self { server, client, runtime, scheme, aside, versions, _directory: directory }))
    }

    fn upload(&self, key: &str, content: impl Into<Vec<u8>>) {
        let put = self.client.put_object().bucket(BUCKET).key(key).body(content.into().into());
        self.runtime.block_on(put.send()).unwrap();
    }

    fn delete(&self, key: &str) {
        let delete = self.client.delete_object().bucket(BUCKET).key(key);
        self.runtime.block_on(delete.send()).unwrap();
    }

    /// The object that a case lives from.
    fn put(&self, case: &str, text: &str) {
        self.upload(&format!("{case}/main.alloy"), text);
        if case.starts_with(MANIFEST) {
            let next = self.versions.borrow().get(case).copied().unwrap_or(1) + 1;
            self.name(case, next, text);
        }
    }

    /// The manifest of a version that names this content.
    fn name(&self, case: &str, version: u64, text: &str) {
        let digest = digest(text.as_bytes());
        let digest = digest.trim_start_matches("sha256:");
        let manifest = format!("{{\"version\": {version}, \"files\": {{\"main.alloy\": \"{digest}\"}}}}");
        self.upload(&format!("{case}/manifest.json"), manifest);
        self.versions.borrow_mut().insert(case.to_owned(), version);
    }
}

impl Kind for S3 {
    fn upstream(&self) -> Option<SocketAddr> {
        Some(self.server.address())
    }

    fn settings(&self, place: &Place<'_>) -> String {
        let (at, case) = (place.address.unwrap(), place.case);
        let (what, more) = match case {
            "many" => (format!("prefix = \"{case}\", objects = 2"), ""),
            "large" => (format!("prefix = \"{case}\""), "limits = { file = \"64KiB\" }\n"),
            _ if case.starts_with(OBJECT) => (format!("key = \"{case}/main.alloy\""), ""),
            // An object that is not what the manifest says is read again after 1, 2 and 4 seconds.
            _ if case.starts_with(MANIFEST) => {
                (format!("manifest = \"{case}/manifest.json\""), "timeout = \"15s\"\n")
            }
            _ => (format!("prefix = \"{case}\""), ""),
        };
        format!(
            "s3 = {{ bucket = \"{BUCKET}\", {what}, endpoint = \"{}://{at}\", region = \"us-east-1\" }}\n\
             auth = {{ aws = {{ access_key = \"{ACCESS_KEY}\", secret_key = \"{SECRET_KEY}\" }} }}\n{more}",
            self.scheme
        )
    }

    fn publish(&self, texts: &[(&str, String)]) {
        for (case, text) in texts {
            match self.aside.borrow_mut().get_mut(*case) {
                Some(aside) => *aside = Some(text.clone()),
                None => {
                    self.put(case, text);
                    if *case == "many" {
                        self.upload("many/2.md", "more");
                    }
                }
            }
        }
    }

    fn spoil(&self, case: &str) {
        self.aside.borrow_mut().insert(case.to_owned(), None);
        let main = format!("{case}/main.alloy");
        match case {
            "emptied" | "object_deleted" => self.delete(&main),
            "object_emptied" => self.upload(&main, Vec::new()),
            "object_compressed" => {
                let put = self.client.put_object().bucket(BUCKET).key(&main).content_encoding("gzip");
                self.runtime.block_on(put.body(GZIP.to_vec().into()).send()).unwrap();
            }
            "large" => self.upload(&main, vec![b'\n'; 100 << 10]),
            // One beyond what may be there: see `publish`.
            "many" => self.upload(&format!("{case}/3.md"), "more"),
            "manifest_of_before" => self.name(case, 1, "// an old one\n"),
            "manifest_twice" => self.name(case, 2, "// another of the same version\n"),
            "manifest_that_is_none" => self.upload(&format!("{case}/manifest.json"), "{"),
            "manifest_without_objects" => {
                self.name(case, 3, "// not there yet\n");
                self.delete(&main);
            }
            "manifest_that_lies" => {
                self.name(case, 3, "// what was meant\n");
                self.upload(&main, "// what is there\n");
            }
            other => panic!("{other} cannot be spoilt"),
        }
    }

    fn mend(&self, case: &str) {
        let Some(text) = self.aside.borrow_mut().remove(case) else { return };
        if case == "many" {
            self.delete(&format!("{case}/3.md"));
        }
        let version = self.versions.borrow().get(case).copied();
        if version.is_some_and(|version| version < 3) {
            self.versions.borrow_mut().insert(case.to_owned(), 3);
        }
        self.put(case, &text.unwrap());
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
const UNSAFE_KEY: &str = "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated><Contents>\
     <Key>unsafe_key/../../etc/passwd</Key><ETag>\"e\"</ETag><Size>1</Size></Contents></ListBucketResult>";
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
        case("odd_status", Fault::status(400)).fails("transient", &["refuses the request", "400"]),
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

/// What is in buckets where it cannot be read, or should not be.
pub(crate) fn of_contents() -> Option<Outcomes> {
    let content = |name, class, says| Case::new(name, Trouble::Content).fails(class, says);
    let unsafe_key =
        Fault::Answer { status: 200, headers: vec![("content-type", "application/xml")], body: UNSAFE_KEY };
    let cases = vec![
        content("emptied", "rejected/empty_source", &["has no objects", "those stay in use"]),
        content("object_emptied", "rejected/empty_source", &["is empty", "those stay in use"]),
        content("object_deleted", "not_found", &["no such object", "who may list"]).alarms(),
        content("object_compressed", "rejected/shape", &["content encoding `gzip`", "uncompressed"]),
        content("large", "rejected/limits", &["limit for one file"]),
        content("many", "rejected/limits", &["more than 2 objects"]),
        content("manifest_of_before", "rejected/history", &["version 1 after version 2", "higher `version`"])
            .alarms(),
        content("manifest_twice", "rejected/history", &["still has version 2", "higher `version`"]).alarms(),
        content("manifest_that_is_none", "rejected/shape", &["not what it should be"]),
        content(
            "manifest_without_objects",
            "not_found",
            &["names what is not there", "upload the objects first"],
        )
        .alarms(),
        Case::new("unsafe_key", Trouble::Proxy(unsafe_key)).fails("rejected/name", &["`..`"]),
    ];
    play("s3_contents", S3::start("http"), cases)
}

pub(crate) fn over_https() -> Option<Outcomes> {
    // What is inside TLS is as without.
    let inside = faults::of_connections().into_iter().filter(|case| case.name == "reset");
    play("s3_https", S3::start("https"), faults::of_tls().into_iter().chain(inside).collect())
}

pub(crate) fn of_a_bucket() -> Option<Outcomes> {
    // The words for what breaks are the same, whether it is before the answer or within.
    let connections = faults::of_connections();
    play("s3", S3::start("http"), connections.into_iter().chain(of_stores()).collect())
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
        Case::new("manifest_that_lies", Trouble::Content)
            .fails("integrity", &["another object than was expected"])
            .alarms()
            .patient(),
    ];
    play("s3_denied", S3::start("http"), cases)
}
