//! `Cache-Control: max-age`: for how long a server says that asking again is of no use.

use std::time::Duration;

use http::{HeaderMap, header};

/// For how much longer an answer is fresh; `None` where the server does not say, or says that it never is.
pub(super) fn fresh_for(headers: &HeaderMap) -> Option<Duration> {
    let mut fresh = None;
    for value in headers.get_all(header::CACHE_CONTROL) {
        for directive in value.to_str().ok()?.split(',') {
            let (name, value) = match directive.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (directive, None),
            };
            match (name.trim().to_ascii_lowercase().as_str(), value) {
                ("no-cache" | "no-store", _) => return None,
                ("max-age", Some(value)) => fresh = value.trim().trim_matches('"').parse::<u64>().ok(),
                _ => {}
            }
        }
    }
    let age = headers.get(header::AGE).and_then(|age| age.to_str().ok()?.trim().parse::<u64>().ok());
    fresh.map(|fresh| Duration::from_secs(fresh.saturating_sub(age.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fresh(fields: &[(&'static str, &str)]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        fresh_for(&headers).map(|fresh| fresh.as_secs())
    }

    #[test]
    fn max_age_is_read() {
        assert_eq!(fresh(&[]), None);
        assert_eq!(fresh(&[("cache-control", "max-age=300")]), Some(300));
        assert_eq!(fresh(&[("cache-control", "public, Max-Age=\"300\"")]), Some(300));
        assert_eq!(fresh(&[("cache-control", "max-age=300"), ("age", "100")]), Some(200));
        assert_eq!(fresh(&[("cache-control", "max-age=300"), ("age", "500")]), Some(0));
        assert_eq!(fresh(&[("cache-control", "max-age=300, no-cache")]), None);
        assert_eq!(fresh(&[("cache-control", "no-store"), ("cache-control", "max-age=3")]), None);
        assert_eq!(fresh(&[("cache-control", "max-age=-1")]), None);
        assert_eq!(fresh(&[("cache-control", "max-age=99999999999999999999")]), None);
    }
}
