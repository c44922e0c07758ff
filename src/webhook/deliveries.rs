//! The ids of deliveries: what the Git hosts call each delivery, and which of them came before.

use std::collections::{HashSet, VecDeque};

use axum::http::HeaderMap;

use super::WebhookKind;
use super::signature::only;

/// Ids that are remembered.
const REMEMBERED: usize = 1024;
/// Longest id.
const LONGEST: usize = 128;

/// The ids of the last deliveries.
#[derive(Default)]
pub(super) struct Deliveries {
    known: HashSet<String>,
    order: VecDeque<String>,
}

impl Deliveries {
    /// Remembers an id; `false` if it is known.
    pub(super) fn note(&mut self, id: &str) -> bool {
        if !self.known.insert(id.to_owned()) {
            return false;
        }
        if self.order.len() == REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(id.to_owned());
        true
    }
}

/// The id of a delivery; `None` where there is none, or none that could be shown to people as it is.
pub(super) fn id_of(kind: WebhookKind, headers: &HeaderMap) -> Option<String> {
    let names: &[&str] = match kind {
        WebhookKind::GitHub => &["x-github-delivery", "x-gitea-delivery"],
        WebhookKind::Gitea => &["x-gitea-delivery"],
        // The first stays the same when a delivery is repeated.
        WebhookKind::GitLab => &["idempotency-key", "x-gitlab-event-uuid"],
        WebhookKind::Bitbucket => &["x-request-uuid", "x-request-id"],
        WebhookKind::Generic => &["x-request-id"],
    };
    let id = names.iter().find_map(|name| only(headers, name))?.trim();
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '{' | '}');
    (!id.is_empty() && id.len() <= LONGEST && id.chars().all(usual)).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_number_of_ids_is_remembered() {
        let mut deliveries = Deliveries::default();
        for number in 0..REMEMBERED {
            assert!(deliveries.note(&number.to_string()));
        }
        assert!(!deliveries.note("0"));
        assert!(deliveries.note("one more"));
        assert!(deliveries.note("0"), "the oldest is forgotten");
        assert!(!deliveries.note("2"));
        assert_eq!((deliveries.known.len(), deliveries.order.len()), (REMEMBERED, REMEMBERED));
    }

    #[test]
    fn an_id_that_could_harm_a_log_is_none() {
        let id = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-github-delivery", axum::http::HeaderValue::from_static(value));
            id_of(WebhookKind::GitHub, &headers)
        };
        assert_eq!(id("72d3162e-cc78-11e3"), Some("72d3162e-cc78-11e3".to_owned()));
        for wrong in ["", "a b", "a\tb", "x=\"y\"", "a/b"] {
            assert_eq!(id(wrong), None, "{wrong:?}");
        }
        let long: &'static str = Box::leak("x".repeat(129).into_boxed_str());
        assert_eq!(id(long), None);
    }
}
