//! When changes of the sources become applies: quiet time, the least gap, and what is told of sources that need somebody.

use super::*;
use crate::event::EventKind;
use crate::settings::QuiesceSettings;
use tokio::time::Instant;

const MILLISECOND: Duration = Duration::from_millis(1);

/// Two files on this host, which are no single commit.
fn two_plain_sources() -> Start<'static> {
    Start { feed: ScriptedFeed::new(&[("one", true, false), ("two", true, false)]), ..Start::new(None) }
}

async fn both_running(fixture: &Fixture) {
    fixture.feed.push("one", "o1", "a");
    fixture.feed.push("two", "t1", "b");
    fixture.in_probation("o1 + t1").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn each_change_starts_the_quiet_time_again() {
    let fixture = two_plain_sources().start();
    both_running(&fixture).await;
    let began = Instant::now();
    for number in 2..6 {
        fixture.feed.push("one", &format!("o{number}"), &format!("a{number}"));
        tokio::time::sleep(150 * MILLISECOND).await;
    }
    fixture.in_probation("o5 + t1").await;
    let took = began.elapsed();
    // The last change came after 450 ms, and 200 ms of quiet follow.
    assert!(took >= 650 * MILLISECOND && took < 700 * MILLISECOND, "{took:?}");
    assert_eq!(fixture.pipeline.log().iter().filter(|line| line.starts_with("prepare")).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn quiet_is_waited_for_at_most_ten_seconds() {
    let fixture = two_plain_sources().start();
    both_running(&fixture).await;
    let began = Instant::now();
    let mut number = 1;
    while running(&fixture.rollout.status()) == "o1 + t1" {
        assert!(
            began.elapsed() < Duration::from_secs(11),
            "it never becomes quiet, and that must not matter"
        );
        number += 1;
        fixture.feed.push("one", &format!("o{number}"), &format!("a{number}"));
        tokio::time::sleep(100 * MILLISECOND).await;
    }
    assert!(began.elapsed() >= Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn one_commit_of_the_only_source_that_changed_waits_for_no_quiet() {
    let feed = ScriptedFeed::new(&[("git", true, true), ("file", true, false)]);
    let quiesce = QuiesceSettings { min: Duration::from_secs(60), max: Duration::from_secs(600) };
    let settings = RolloutSettings { quiesce, ..RolloutSettings::default() };
    let fixture = Start { feed, settings, ..Start::new(None) }.start();
    fixture.feed.push("git", "g1", "a");
    fixture.feed.push("file", "f1", "b");
    fixture.in_probation("g1 + f1").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let began = Instant::now();
    fixture.feed.push("git", "g2", "c");
    fixture.in_probation("g2 + f1").await;
    assert!(began.elapsed() < 50 * MILLISECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn applies_are_a_second_apart_and_coalesce_to_the_newest() {
    let fixture = Start::new(None).start();
    fixture.feed.push("git", "r1", "a");
    fixture.in_probation("r1").await;
    let began = Instant::now();
    for (revision, text) in [("r2", "b"), ("r3", "c"), ("r4", "d")] {
        fixture.feed.push("git", revision, text);
        tokio::time::sleep(100 * MILLISECOND).await;
    }
    fixture.in_probation("r4").await;
    let took = began.elapsed();
    assert!(took >= 990 * MILLISECOND && took < 1100 * MILLISECOND, "{took:?}");
    assert_eq!((fixture.pipeline.count("prepare b"), fixture.pipeline.count("prepare c")), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_person_who_pushes_six_times_in_a_minute_is_not_made_to_wait() {
    let fixture = Start::new(None).start();
    fixture.feed.push("git", "r0", "zero");
    fixture.in_probation("r0").await;
    for number in 1..=6 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let began = Instant::now();
        let revision = format!("r{number}");
        fixture.feed.push("git", &revision, &format!("text {number}"));
        fixture.in_probation(&revision).await;
        assert!(began.elapsed() < 100 * MILLISECOND, "{revision}: {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn an_alarm_of_a_source_is_an_event_once() {
    let fixture = Start::new(None).start();
    fixture.feed.push("git", "r1", "a");
    fixture.committed("r1").await;
    for (class, alarm) in [
        (Some("not_found"), false),
        (Some("not_found"), true),
        (Some("not_found"), true),
        (None, false),
        (Some("integrity"), true),
    ] {
        fixture.feed.fail("git", class, alarm);
        tokio::time::sleep(MILLISECOND).await;
    }
    let told: Vec<EventKind> = fixture
        .rollout
        .events(None)
        .missed
        .iter()
        .map(|event| event.kind)
        .filter(|kind| matches!(kind, EventKind::SourceMissing | EventKind::Security))
        .collect();
    assert_eq!(told, [EventKind::SourceMissing, EventKind::Security]);
    let status = fixture.until("the alarm is shown", |status| status.sources[0].alarm).await;
    assert_eq!(running(&status), "r1", "what runs stays");
}

#[tokio::test(start_paused = true)]
async fn who_asks_to_look_is_told() {
    let fixture = Start::new(None).start();
    fixture.rollout.triggered("SIGHUP: all sources");
    let events = fixture.rollout.events(None).missed;
    let event = events.iter().find(|event| event.kind == EventKind::Triggered).unwrap();
    assert_eq!(event.message, "SIGHUP: all sources");
}
