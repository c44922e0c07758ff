//! What an answer other than the expected one means, and what can be done about it at once: sign for another region, with
//! another time, or with another credential.

use std::error::Error;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use invar_cloud_identity::AnswerTooLong;

use crate::bucket::is_region;
use crate::error::StoreError;

/// Sentences of a store that are longer than this are cut.
const LONGEST_MESSAGE: usize = 300;

/// A failure of one request.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) error: StoreError,
    pub(crate) remedy: Option<Remedy>,
}

/// What would make the same request succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// To sign for, and to ask in, this region.
    Region(String),
    /// To take this for the time.
    Time(SystemTime),
    /// To sign with a newer credential.
    Renew,
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self { error, remedy: None }
    }
}

/// What was said, apart from how.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Said<'a> {
    pub(crate) status: u16,
    pub(crate) code: &'a str,
    pub(crate) message: &'a str,
    /// `x-amz-bucket-region`.
    pub(crate) region: Option<&'a str>,
    pub(crate) date: Option<&'a str>,
    pub(crate) retry_after: Option<&'a str>,
    pub(crate) location: Option<&'a str>,
    pub(crate) body: &'a [u8],
}

pub(crate) fn refusal<E>(error: SdkError<E, HttpResponse>, listing: bool) -> Refusal
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::TimeoutError(_) => {
            StoreError::Unavailable { message: "the store does not answer in time".to_owned() }.into()
        }
        SdkError::DispatchFailure(failure) => {
            let source = failure.as_connector_error().and_then(Error::source);
            if let Some(AnswerTooLong { largest }) = source.and_then(|source| source.downcast_ref()) {
                let what = if listing { "a page of the listing" } else { "the object" };
                return StoreError::TooMuch { what: format!("{what} is longer than {largest} bytes") }.into();
            }
            let why = source.map_or_else(String::new, |source| printable(&source.to_string()));
            let message = if failure.is_timeout() {
                "the store does not answer in time".to_owned()
            } else {
                format!("the store cannot be reached, or broke the connection off: {why}")
            };
            StoreError::Unavailable { message }.into()
        }
        SdkError::ResponseError(wrong) => classify(&said(wrong.raw(), "", ""), listing),
        SdkError::ServiceError(refused) => {
            let (code, message) = (refused.err().code(), refused.err().message());
            classify(&said(refused.raw(), code.unwrap_or_default(), message.unwrap_or_default()), listing)
        }
        other => {
            let mut message = String::new();
            let mut cause = Error::source(&other);
            while let Some(current) = cause {
                message.push_str(if message.is_empty() { "" } else { ": " });
                message.push_str(&printable(&current.to_string()));
                cause = current.source();
            }
            StoreError::Refused { status: 0, code: "client".to_owned(), message }.into()
        }
    }
}

fn said<'a>(raw: &'a HttpResponse, code: &'a str, message: &'a str) -> Said<'a> {
    let header = |name: &'static str| raw.headers().get(name);
    Said {
        status: raw.status().as_u16(),
        code,
        message,
        region: header("x-amz-bucket-region"),
        date: header("date"),
        retry_after: header("retry-after"),
        location: header("location"),
        body: raw.body().bytes().unwrap_or_default(),
    }
}

/// What an answer means.
pub(crate) fn classify(said: &Said<'_>, listing: bool) -> Refusal {
    let status = said.status;
    let code = if said.code.is_empty() { status.to_string() } else { printable(said.code) };
    let with = |error: StoreError, remedy: Option<Remedy>| Refusal { error, remedy };
    let unavailable =
        |what: &str| StoreError::Unavailable { message: format!("the store {what} ({code})") }.into();
    match (status, said.code) {
        // Success, and yet nothing that the library understands.
        (200..=299, "") => {
            let message = if listing { "it is no listing" } else { "it is no object" };
            StoreError::Shape { message: message.to_owned() }.into()
        }
        // A listing has no condition that this could be the answer to.
        (304, _) if listing => {
            let message = "it says that nothing changed (304), without having been asked that";
            StoreError::Shape { message: message.to_owned() }.into()
        }
        (412, _) if listing => unavailable("refuses a request without a condition"),
        (304, _) => StoreError::NotModified.into(),
        (412, _) | (_, "PreconditionFailed") => StoreError::Changed.into(),
        (301 | 302 | 307 | 308, _)
        | (
            _,
            "PermanentRedirect"
            | "TemporaryRedirect"
            | "Redirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException",
        ) => {
            let region = region_of(said);
            let remedy = region.clone().map(Remedy::Region);
            with(StoreError::Elsewhere { code, region }, remedy)
        }
        (_, "RequestTimeTooSkewed") => {
            let date = said.date.and_then(|date| DateTime::from_str(date, Format::HttpDate).ok());
            let remedy = date.and_then(|date| SystemTime::try_from(date).ok()).map(Remedy::Time);
            with(StoreError::ClockSkew { code }, remedy)
        }
        (_, "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "InvalidToken") => {
            with(StoreError::Expired { code }, Some(Remedy::Renew))
        }
        (_, "SlowDown" | "TooManyRequests" | "RequestLimitExceeded" | "Throttling") | (429, _) => {
            StoreError::Busy { code, after: retry_after(said) }.into()
        }
        (503, _) if said.retry_after.is_some() => StoreError::Busy { code, after: retry_after(said) }.into(),
        // The last one is versitygw's word for a key it does not know.
        (401, _) | (_, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "XAdminUserNotFound") => {
            StoreError::BadCredential { code }.into()
        }
        (_, "RequestTimeout") | (408 | 425, _) => unavailable("was too slow"),
        (500..=599, _) | (_, "InternalError" | "ServiceUnavailable") => unavailable("failed"),
        (_, "NoSuchBucket") => StoreError::NoSuchBucket { code }.into(),
        (403, "InvalidObjectState") => StoreError::Refused {
            status,
            code,
            message: "the object is in an archive and has to be restored first".to_owned(),
        }
        .into(),
        (403, _) => StoreError::Denied { listing, code }.into(),
        (404 | 410, _) if listing => StoreError::NoSuchBucket { code }.into(),
        (404 | 410, _) | (_, "NoSuchKey" | "NoSuchVersion") => StoreError::NoSuchObject { code }.into(),
        // What a version that marks a deletion answers.
        (405, "MethodNotAllowed") if !listing => StoreError::NoSuchObject { code }.into(),
        (407, _) => {
            StoreError::Refused { status, code, message: "the proxy asks for a credential".to_owned() }.into()
        }
        _ => StoreError::Refused { status, code, message: printable(said.message) }.into(),
    }
}

/// Where the bucket is: said in a header, in the body, or by the host that we are sent to.
fn region_of(said: &Said<'_>) -> Option<String> {
    let valid = |region: &str| is_region(region).then(|| region.to_owned());
    let body = std::str::from_utf8(said.body).unwrap_or_default();
    let element = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        rest.split_once("</").map(|(text, _)| text.trim().to_owned())
    };
    said.region.and_then(valid).or_else(|| element("Region").as_deref().and_then(valid)).or_else(|| {
        let host = element("Endpoint").or_else(|| {
            let url = url::Url::parse(said.location?).ok()?;
            url.host_str().map(str::to_owned)
        })?;
        region_of_host(&host)
    })
}

/// The region in a name of S3's own hosts: `bucket.s3.REGION.amazonaws.com`, `s3-REGION.amazonaws.com`.
fn region_of_host(host: &str) -> Option<String> {
    let host = host.strip_suffix(".amazonaws.com").or_else(|| host.strip_suffix(".amazonaws.com.cn"))?;
    let last = host.rsplit('.').next()?;
    let region = last.strip_prefix("s3-").unwrap_or(last);
    (region != "s3" && is_region(region)).then(|| region.to_owned())
}

/// Seconds, or a date seen from the answer's own.
fn retry_after(said: &Said<'_>) -> Option<Duration> {
    let text = said.retry_after?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| DateTime::from_str(text, Format::HttpDate).ok().map(|date| date.secs());
    let seconds = date(text)?.saturating_sub(date(said.date?)?);
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}

fn printable(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).take(LONGEST_MESSAGE).collect();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn of(status: u16, code: &str) -> Refusal {
        classify(&Said { status, code, ..Said::default() }, false)
    }

    #[test]
    fn each_answer_has_its_meaning() {
        assert!(matches!(of(304, "").error, StoreError::NotModified));
        assert!(matches!(of(412, "PreconditionFailed").error, StoreError::Changed));
        let listing = |status| classify(&Said { status, ..Said::default() }, true).error;
        assert!(matches!(listing(304), StoreError::Shape { .. }), "nobody asked with a condition");
        assert!(matches!(listing(412), StoreError::Unavailable { .. }));
        assert!(matches!(of(404, "NoSuchKey").error, StoreError::NoSuchObject { .. }));
        assert!(matches!(of(404, "NoSuchBucket").error, StoreError::NoSuchBucket { .. }));
        assert!(matches!(of(403, "AccessDenied").error, StoreError::Denied { .. }));
        assert!(matches!(of(403, "InvalidAccessKeyId").error, StoreError::BadCredential { .. }));
        assert!(matches!(of(403, "SignatureDoesNotMatch").error, StoreError::BadCredential { .. }));
        assert!(matches!(of(503, "SlowDown").error, StoreError::Busy { after: None, .. }));
        assert!(matches!(of(429, "").error, StoreError::Busy { .. }));
        assert!(matches!(of(500, "InternalError").error, StoreError::Unavailable { .. }));
        assert!(matches!(of(400, "RequestTimeout").error, StoreError::Unavailable { .. }));
        assert!(matches!(of(418, "Odd").error, StoreError::Refused { status: 418, .. }));
        assert!(matches!(of(405, "MethodNotAllowed").error, StoreError::NoSuchObject { .. }));
        assert_eq!(of(400, "ExpiredToken").remedy, Some(Remedy::Renew));
    }

    #[test]
    fn both_messages_say_what_the_store_hides() {
        let denied = of(403, "AccessDenied").error.to_string();
        assert!(denied.contains("or it is not there"), "{denied}");
        let missing = of(404, "NoSuchKey").error.to_string();
        assert!(missing.contains("only to those who may list"), "{missing}");
        let listing = classify(&Said { status: 403, code: "AccessDenied", ..Said::default() }, true).error;
        assert!(listing.help().unwrap().contains("s3:ListBucket"));
    }

    #[test]
    fn the_region_is_found_wherever_it_is_said() {
        let region = |said: Said<'_>| match classify(&said, false).remedy {
            Some(Remedy::Region(region)) => Some(region),
            _ => None,
        };
        let moved = Said { status: 301, code: "PermanentRedirect", ..Said::default() };
        assert_eq!(region(moved), None);
        assert_eq!(region(Said { region: Some("eu-west-1"), ..moved }).as_deref(), Some("eu-west-1"));
        assert_eq!(region(Said { region: Some("a b"), ..moved }), None);
        let body = b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>ap-south-1</Region></Error>";
        let malformed = Said { status: 400, code: "AuthorizationHeaderMalformed", body, ..Said::default() };
        assert_eq!(region(malformed).as_deref(), Some("ap-south-1"));
        let endpoint = b"<Error><Endpoint>b.s3-eu-central-1.amazonaws.com</Endpoint></Error>";
        assert_eq!(region(Said { body: endpoint, ..moved }).as_deref(), Some("eu-central-1"));
        let temporary = Said {
            status: 307,
            code: "TemporaryRedirect",
            location: Some("https://b.s3.eu-west-3.amazonaws.com/key"),
            ..Said::default()
        };
        assert_eq!(region(temporary).as_deref(), Some("eu-west-3"));
        assert_eq!(region(Said { location: Some("https://evil.example/key"), ..temporary }), None);
    }

    #[test]
    fn dates_are_seen_from_the_answers_own() {
        let skewed = Said {
            status: 403,
            code: "RequestTimeTooSkewed",
            date: Some("Sun, 06 Nov 1994 08:49:37 GMT"),
            ..Said::default()
        };
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(classify(&skewed, false).remedy, Some(Remedy::Time(time)));
        let busy = Said {
            status: 503,
            code: "SlowDown",
            retry_after: Some("Sun, 06 Nov 1994 08:50:37 GMT"),
            ..skewed
        };
        let StoreError::Busy { after, .. } = classify(&busy, false).error else { unreachable!() };
        assert_eq!(after, Some(Duration::from_secs(60)));
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_is_said_makes_it_panic(
            status in 0_u16..1000, code in ".{0,30}", message in ".{0,400}", region in ".{0,50}", date in ".{0,40}",
            body in proptest::collection::vec(proptest::num::u8::ANY, 0..200), listing in proptest::bool::ANY,
        ) {
            let said = Said {
                status, code: &code, message: &message, region: Some(&region), date: Some(&date),
                retry_after: Some(&date), location: Some(&region), body: &body,
            };
            let refusal = classify(&said, listing);
            proptest::prop_assert!(!refusal.error.to_string().is_empty());
            if let Some(Remedy::Region(region)) = refusal.remedy {
                proptest::prop_assert!(is_region(&region));
            }
        }
    }
}
