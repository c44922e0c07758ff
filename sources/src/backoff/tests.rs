#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::error::Rejection;

/// A count of failures at a moment that the test moves.
struct Course {
    backoff: Backoff,
    now: Instant,
}

impl Course {
    fn new() -> Self {
        Self { backoff: Backoff::default(), now: Instant::now() }
    }

    fn pass(&mut self, seconds: u64) -> &mut Self {
        self.now += Duration::from_secs(seconds);
        self
    }

    fn succeed(&mut self) -> &mut Self {
        self.backoff.after_success(self.now, MINUTE, 0.5);
        self
    }

    /// Fails without jitter in its disfavour; the delay in milliseconds.
    fn fail(&mut self, class: &ErrorClass) -> Option<u128> {
        self.backoff.after_error(self.now, class, MINUTE, 1.0).map(|delay| delay.as_millis())
    }

    fn transient(&mut self) -> u128 {
        self.fail(&ErrorClass::Transient).unwrap()
    }
}

#[test]
fn the_interval_is_spread_by_ten_percent_at_each_tick() {
    let after = |unit| Backoff::default().after_success(Instant::now(), Duration::from_secs(100), unit);
    assert_eq!((after(0.0), after(0.5)), (Duration::from_secs(90), Duration::from_secs(100)));
    assert_eq!(after(1.0), Duration::from_secs(110));
}

#[test]
fn transient_failures_double_from_one_second_up_to_five_minutes() {
    let mut course = Course::new();
    let delays: Vec<u128> = (0..11).map(|_| course.transient() / 1000).collect();
    assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
}

#[test]
fn half_of_a_transient_delay_is_fixed_and_half_random() {
    let delay = |unit| Backoff::default().after_error(Instant::now(), &ErrorClass::Transient, MINUTE, unit);
    assert_eq!(delay(0.0), Some(Duration::from_millis(500)));
    assert_eq!(delay(0.5), Some(Duration::from_millis(750)));
    assert_eq!(delay(1.0), Some(Duration::from_secs(1)));
}

#[test]
fn a_success_that_is_stable_for_a_minute_takes_two_failures_off() {
    let mut course = Course::new();
    for _ in 0..5 {
        course.transient();
    }
    course.succeed().pass(60);
    // Five failures less two, and the new one: the fourth step.
    assert_eq!(course.transient(), 8000);
}

#[test]
fn a_success_that_is_not_stable_for_a_minute_takes_nothing_off() {
    let mut course = Course::new();
    for _ in 0..5 {
        course.transient();
    }
    course.succeed().pass(59);
    assert_eq!(course.transient(), 32_000);
    // However often it flaps: successes do not add up.
    for step in [64_000, 128_000, 256_000, 300_000] {
        course.succeed().pass(30);
        course.succeed().pass(29);
        assert_eq!(course.transient(), step);
    }
}

#[test]
fn a_source_that_stays_well_is_forgiven_step_by_step() {
    let mut course = Course::new();
    for _ in 0..9 {
        course.transient();
    }
    for _ in 0..6 {
        course.succeed().pass(60);
    }
    assert_eq!(course.transient(), 1000, "five minutes of success take ten failures off");
}

#[test]
fn rate_limited_waits_as_long_as_the_server_says_within_a_second_and_an_hour() {
    let delay = |seconds, unit| {
        let class = ErrorClass::RateLimited { after: Some(Duration::from_secs(seconds)) };
        Backoff::default().after_error(Instant::now(), &class, MINUTE, unit).unwrap()
    };
    assert_eq!(delay(17, 0.0), Duration::from_secs(17));
    assert_eq!(delay(0, 0.0), Duration::from_secs(1));
    assert_eq!(delay(100_000, 0.0), Duration::from_secs(3600));
    assert_eq!(delay(100, 1.0), Duration::from_secs(110), "a fleet does not come back at one moment");
}

#[test]
fn rate_limited_without_a_time_doubles_from_a_minute_to_fifteen() {
    let mut backoff = Backoff::default();
    let class = ErrorClass::RateLimited { after: None };
    let delays: Vec<u64> = (0..6)
        .filter_map(|_| backoff.after_error(Instant::now(), &class, MINUTE, 0.5))
        .map(|delay| delay.as_secs() / 60)
        .collect();
    assert_eq!(delays, [1, 2, 4, 8, 15, 15]);
}

#[test]
fn forbidden_and_expired_credentials_are_tried_again_after_one_to_fifteen_minutes() {
    for class in [ErrorClass::Forbidden, ErrorClass::AuthExpired] {
        let mut backoff = Backoff::default();
        let delays: Vec<u64> = (0..6)
            .filter_map(|_| backoff.after_error(Instant::now(), &class, MINUTE, 0.5))
            .map(|delay| delay.as_secs() / 60)
            .collect();
        assert_eq!(delays, [1, 2, 4, 8, 15, 15], "{class}");
    }
}

#[test]
fn what_is_missing_or_rejected_is_looked_for_at_the_interval() {
    let mut course = Course::new();
    for class in [ErrorClass::NotFound, ErrorClass::Rejected(Rejection::Limits)] {
        for _ in 0..5 {
            assert_eq!(course.fail(&class), Some(66_000), "{class}");
        }
    }
    assert_eq!(course.transient(), 1000, "a server that answers is none that fails");
}

#[test]
fn an_integrity_failure_is_never_retried_quickly() {
    let second = Duration::from_secs(1);
    let mut backoff = Backoff::default();
    for _ in 0..3 {
        let delay = backoff.after_error(Instant::now(), &ErrorClass::Integrity, second, 0.0).unwrap();
        assert!(delay >= Duration::from_secs(54), "{delay:?}");
    }
    let hour = Duration::from_secs(3600);
    assert_eq!(backoff.after_error(Instant::now(), &ErrorClass::Integrity, hour, 0.5), Some(hour));
}

#[test]
fn a_stalled_source_is_not_retried() {
    assert_eq!(Course::new().fail(&ErrorClass::Stalled), None);
}

#[test]
fn a_server_may_ask_for_longer_intervals_within_bounds() {
    let bounded =
        |suggested: Option<u64>| bounded_interval(MINUTE, suggested.map(Duration::from_secs)).as_secs();
    assert_eq!(bounded(None), 60);
    assert_eq!(bounded(Some(5)), 60, "never more often than the settings say");
    assert_eq!(bounded(Some(300)), 300);
    assert_eq!(bounded(Some(1_000_000)), 600, "and at most ten times less often");
}

#[test]
fn the_first_poll_has_its_own_place_in_the_window() {
    let delays: std::collections::BTreeSet<Duration> =
        (0..100).map(|n| first_delay(&format!("web-{n}"), "git", MINUTE)).collect();
    assert!(delays.len() > 90 && delays.iter().all(|delay| *delay < Duration::from_secs(30)));
    assert_eq!(first_delay("a", "b", MINUTE), first_delay("a", "b", MINUTE));
    assert!(first_delay("a", "b", SECOND) < SECOND);
}

fn class() -> impl Strategy<Value = ErrorClass> {
    prop_oneof![
        Just(ErrorClass::Transient),
        any::<Option<u64>>()
            .prop_map(|after| ErrorClass::RateLimited { after: after.map(Duration::from_secs) }),
        Just(ErrorClass::AuthExpired),
        Just(ErrorClass::Forbidden),
        Just(ErrorClass::NotFound),
        Just(ErrorClass::Integrity),
    ]
}

proptest! {
    /// Whatever happens, nothing is asked more than twice a second, and nothing is forgotten for longer than an hour (and
    /// a tenth), or than the interval where that is longer.
    #[test]
    fn every_delay_is_within_bounds(
        course in proptest::collection::vec((proptest::option::of(class()), 0_u64..5000, 0.0..1.0_f64), 1..60),
        interval in 1_u64..86_400,
    ) {
        let interval = Duration::from_secs(interval);
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        for (class, passed, unit) in course {
            now += Duration::from_secs(passed);
            let delay = match class {
                Some(class) => backoff.after_error(now, &class, interval, unit).unwrap(),
                None => backoff.after_success(now, interval, unit),
            };
            prop_assert!(delay >= Duration::from_millis(500));
            prop_assert!(delay <= RETRY_AFTER_CAP.max(interval).mul_f64(1.1));
        }
    }
}
