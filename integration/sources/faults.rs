//! The faults that every kind behind a server meets, with what has to be seen of each. Kinds say where they differ.

use std::time::Duration;

use invar_integration::fault_proxy::Fault;

use crate::certificates::Shown;
use crate::matrix::{Case, Trouble};

/// One byte of an answer each time; no answer is through within the time of a poll.
pub(crate) const DRIP: Duration = Duration::from_millis(100);
const DAY: i64 = 24 * 60 * 60;

/// What breaks connections, whatever is spoken over them.
pub(crate) fn of_connections() -> Vec<Case> {
    let case = |name, fault, says: &'static [&'static str]| {
        Case::new(name, Trouble::Proxy(fault)).fails("transient", says)
    };
    vec![
        case("refuse", Fault::Refuse, &["cannot be reached", "refused"]),
        case("hang", Fault::Hang, &["does not answer in time"]),
        case("reset", Fault::Reset, &["broke the connection off"]),
        case("drip", Fault::Drip(DRIP), &["does not answer in time"]),
        case("truncate", Fault::Truncate, &["broke the connection off"]),
        case("half_open", Fault::HalfOpen, &["does not answer in time"]),
    ]
}

/// What HTTP servers, and what stands before them, answer on bad days.
pub(crate) fn of_http() -> Vec<Case> {
    let case = |name, fault| Case::new(name, Trouble::Proxy(fault));
    vec![
        case("too_long", Fault::TooLong).fails("transient", &["broke the connection off"]),
        case("too_short", Fault::TooShort).fails("transient", &["ended early"]),
        case("not_modified", Fault::not_modified()).fails("rejected", &["304", "cache"]),
        case("not_found", Fault::status(404)).fails("not_found", &["is not there", "404"]),
        case("request_timeout", Fault::status(408)).fails("transient", &["too slow", "408"]),
        case("precondition_failed", Fault::status(412)).fails("transient", &["412"]),
        case("too_many_requests", Fault::status_with(429, "retry-after", "2"))
            .fails("rate_limited", &["asks for fewer requests", "429"]),
        case("odd_status", Fault::status(400)).fails("transient", &["refuses the request", "400"]),
        case("server_error", Fault::status(500)).fails("transient", &["failed", "500"]),
        case("unavailable", Fault::status(503)).fails("transient", &["503"]),
        case("unavailable_for_a_while", Fault::status_with(503, "retry-after", "2"))
            .fails("rate_limited", &["not available", "503"]),
        case("page", Fault::page()).fails("rejected", &["login page"]),
        case("clock_ahead", Fault::SkewDate(DAY)),
        case("clock_behind", Fault::SkewDate(-DAY)),
    ]
}

/// What an HTTP server answers to who may not ask, or not so often. The agent does not ask again for a minute.
pub(crate) fn of_denial() -> Vec<Case> {
    let case = |name, status| Case::new(name, Trouble::Proxy(Fault::status(status))).patient();
    vec![
        case("unauthorized", 401).fails("auth_expired", &["does not accept the credential", "401", "token"]),
        case("forbidden", 403).fails("forbidden", &["403", "permission"]),
        case("too_many_requests_for_who_knows_how_long", 429).fails("rate_limited", &["429"]),
    ]
}

/// What is wrong with certificates.
pub(crate) fn of_tls() -> Vec<Case> {
    let case = |name, shown, says: &'static [&'static str]| {
        Case::new(name, Trouble::Certificate(shown)).fails("transient", says)
    };
    vec![
        case("expired_certificate", Shown::Expired, &["certificate", "xpired", "renew"]),
        case("certificate_for_another_name", Shown::OtherName, &["certificate", "tls.server_name"]),
        case("unknown_authority", Shown::UnknownAuthority, &["certificate", "tls.ca"]),
    ]
}
