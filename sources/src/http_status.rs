//! What the status of an HTTP answer means for a source, and how long a server asks us to wait.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};

use crate::error::{ErrorClass, Failure, Rejection, SourceError};
use crate::snapshot::SourceName;

/// What an answer with a status other than success means for the source `name`. `place` is a redacted address,
/// `credential` whether one was sent.
#[must_use]
pub fn http_refusal(
    name: &SourceName,
    status: StatusCode,
    headers: &HeaderMap,
    place: &str,
    credential: bool,
    now: SystemTime,
) -> SourceError {
    failure(status, headers, place, credential, now).of(name)
}

/// The failure that a status other than success stands for. `place` is a redacted address.
pub(crate) fn failure(
    status: StatusCode,
    headers: &HeaderMap,
    place: &str,
    credential: bool,
    now: SystemTime,
) -> Failure {
    let after = retry_after(headers, now);
    let exhausted = headers.get("x-ratelimit-remaining").is_some_and(|remaining| remaining == "0");
    match status {
        StatusCode::TOO_MANY_REQUESTS => {
            Failure::new(ErrorClass::RateLimited { after }, format!("{place} asks for fewer requests (429)"))
        }
        StatusCode::FORBIDDEN if exhausted || headers.contains_key(header::RETRY_AFTER) => Failure::new(
            ErrorClass::RateLimited { after },
            format!("the rate limit at {place} is used up (403)"),
        ),
        StatusCode::UNAUTHORIZED if credential => {
            Failure::new(ErrorClass::AuthExpired, format!("{place} does not accept the credential (401)"))
                .with_help("check that the token is valid, not expired, and goes with the user name")
        }
        StatusCode::UNAUTHORIZED => {
            Failure::new(ErrorClass::AuthExpired, format!("{place} asks for a credential (401)"))
                .with_help("give the source an `auth` table")
        }
        StatusCode::FORBIDDEN => {
            let who = if credential { "with this credential " } else { "without a credential " };
            Failure::new(ErrorClass::Forbidden, format!("{place} may not be read {who}(403)"))
                .with_help("the credential needs permission to read the repository's contents")
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            let doubt =
                if credential { "or this credential may not see it" } else { "or it needs a credential" };
            Failure::new(ErrorClass::NotFound, format!("{place} is not there, {doubt} ({})", status.as_u16()))
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => {
            Failure::transient(format!("{place} was too slow ({})", status.as_u16()))
        }
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            Failure::new(ErrorClass::Forbidden, "the proxy asks for a credential (407)".to_owned())
        }
        status if status.is_server_error() => match after {
            // A server under maintenance says when to come back.
            Some(after) => Failure::new(
                ErrorClass::RateLimited { after: Some(after) },
                format!("{place} is not available ({})", status.as_u16()),
            ),
            None => Failure::transient(format!("{place} failed ({})", status.as_u16())),
        },
        StatusCode::NOT_MODIFIED => Failure::rejected(
            Rejection::Shape,
            format!("{place} answers \"not modified\" to a question without a condition (304)"),
        )
        .with_help("a cache or proxy on the way gives away what is not for this agent"),
        status if status.is_redirection() => Failure::new(
            ErrorClass::Integrity,
            format!("{place} redirects in a way that is not followed ({})", status.as_u16()),
        ),
        // A proxy or a gateway in between may say this for a while, so that it is asked again by itself.
        status => Failure::transient(format!("{place} refuses the request ({})", status.as_u16())),
    }
}

/// What `Retry-After` or GitHub's reset header say. Dates are measured against the answer's own `Date`,
/// so that a wrong clock on either side does no harm.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let server_now = text("date").and_then(parse_date).unwrap_or_else(|| seconds_since_epoch(now));
    if let Some(value) = text("retry-after") {
        if let Ok(seconds) = value.trim().parse::<u64>() {
            return Some(Duration::from_secs(seconds));
        }
        if let Some(date) = parse_date(value) {
            return Some(Duration::from_secs(date.saturating_sub(server_now)));
        }
    }
    let reset = text("x-ratelimit-reset")?.trim().parse::<u64>().ok()?;
    Some(Duration::from_secs(reset.saturating_sub(server_now)))
}

fn seconds_since_epoch(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Seconds since the epoch of an HTTP date in its current form (`Sun, 06 Nov 1994 08:49:37 GMT`).
pub(crate) fn parse_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, date) = text.trim().split_once(", ")?;
    let mut words = date.split(' ');
    let day: u64 = words.next()?.parse().ok()?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as u64 + 1;
    let year: u64 = words.next()?.parse().ok()?;
    let mut time = words.next()?.split(':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    if words.next()? != "GMT" || !(1970..10_000).contains(&year) || !(1..=31).contains(&day) {
        return None;
    }
    since_epoch(year, month, day, [hour, minute, second])
}

/// Seconds since the epoch of a time in UTC as RFC 3339 writes it (`1994-11-06T08:49:37Z`); fractions are left out.
pub(crate) fn parse_timestamp(text: &str) -> Option<u64> {
    let (date, time) = text.trim().strip_suffix('Z')?.split_once('T')?;
    let time = time.split('.').next()?;
    let numbers = |text: &str, mark: char| -> Option<[u64; 3]> {
        let parts: Vec<u64> = text.split(mark).map(|part| part.parse().ok()).collect::<Option<_>>()?;
        parts.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    if !(1970..10_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    since_epoch(year, month, day, numbers(time, ':')?)
}

fn since_epoch(year: u64, month: u64, day: u64, [hour, minute, second]: [u64; 3]) -> Option<u64> {
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days of the civil calendar, with years that begin in March.
    let (shifted_year, shifted_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * shifted_year + shifted_year / 4 - shifted_year / 100
        + shifted_year / 400
        + (153 * shifted_month + 2) / 5
        + day
        - 1;
    Some((days.checked_sub(719_468)?) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn class(status: u16, headers: &[(&'static str, &'static str)]) -> ErrorClass {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
        failure(StatusCode::from_u16(status).unwrap(), &map, "https://x", true, now).class
    }

    #[test]
    fn each_status_has_its_class() {
        assert_eq!(class(401, &[]), ErrorClass::AuthExpired);
        assert_eq!(class(403, &[]), ErrorClass::Forbidden);
        assert_eq!(class(404, &[]), ErrorClass::NotFound);
        assert_eq!(class(304, &[]), ErrorClass::Rejected(Rejection::Shape));
        assert_eq!(class(429, &[]), ErrorClass::RateLimited { after: None });
        for status in [408, 425, 500, 502, 503, 504] {
            assert_eq!(class(status, &[]), ErrorClass::Transient, "{status}");
        }
        assert_eq!(class(302, &[]), ErrorClass::Integrity);
        for status in [400, 405, 412, 418] {
            assert_eq!(class(status, &[]), ErrorClass::Transient, "{status}: recovery needs nobody");
        }
        assert_eq!(class(410, &[]), ErrorClass::NotFound);
        assert_eq!(class(407, &[]), ErrorClass::Forbidden);
        assert_eq!(class(304, &[]), ErrorClass::Rejected(Rejection::Shape));
    }

    #[test]
    fn a_server_says_how_long_to_wait() {
        let limited = |seconds| ErrorClass::RateLimited { after: Some(Duration::from_secs(seconds)) };
        assert_eq!(class(429, &[("retry-after", "17")]), limited(17));
        assert_eq!(class(403, &[("retry-after", "17")]), limited(17));
        assert_eq!(class(503, &[("retry-after", "17")]), limited(17));
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(class(429, &[date, ("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT")]), limited(60));
        assert_eq!(
            class(403, &[date, ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "784111787")]),
            limited(10)
        );
        assert_eq!(class(403, &[("x-ratelimit-remaining", "7")]), ErrorClass::Forbidden);
    }

    #[test]
    fn dates_are_measured_against_the_answers_own_date() {
        // The test's own clock says 1970.
        let limited = |seconds| ErrorClass::RateLimited { after: Some(Duration::from_secs(seconds)) };
        let retry = ("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT");
        assert_eq!(class(503, &[("date", "Sun, 06 Nov 1994 08:50:30 GMT"), retry]), limited(7));
        assert_eq!(class(503, &[("date", "Sun, 06 Nov 1994 09:50:30 GMT"), retry]), limited(0), "it is past");
        let reset = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "35")];
        assert_eq!(class(403, &reset), limited(30), "without a date our own clock has to do");
    }

    #[test]
    fn a_refusal_of_something_missing_says_that_a_permission_may_be_missing() {
        let text = |status: StatusCode, credential| {
            let now = SystemTime::UNIX_EPOCH;
            failure(status, &HeaderMap::new(), "https://x", credential, now).message
        };
        assert!(text(StatusCode::NOT_FOUND, true).contains("this credential may not see it"));
        assert!(text(StatusCode::NOT_FOUND, false).contains("needs a credential"));
    }

    #[test]
    fn timestamps() {
        assert_eq!(parse_timestamp("1994-11-06T08:49:37Z"), Some(784_111_777));
        assert_eq!(parse_timestamp("2024-02-29T00:00:00.123Z"), Some(1_709_164_800));
        for text in [
            "",
            "Z",
            "TZ",
            "1994-11-06T08:49:37",
            "1994-11-06T08:49:37+01:00",
            "1994-13-06T08:49:37Z",
            "0-0-0T0:0:0Z",
        ] {
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
    }

    #[test]
    fn dates() {
        assert_eq!(parse_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(parse_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(parse_date("Thu, 29 Feb 2024 00:00:00 GMT"), Some(1_709_164_800));
        for text in ["", "x", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Xxx 1994 08:49:37 GMT", "a, b c d e GMT"]
        {
            assert_eq!(parse_date(text), None, "{text}");
        }
    }
}
