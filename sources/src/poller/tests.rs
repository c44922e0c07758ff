#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::time::Instant;

use super::*;
use crate::backoff::FixedJitter;
use crate::error::{ErrorClass, Failure, Rejection, SourceError};
use crate::snapshot::{Revision, SourceKind, tree_digest};
use crate::source::{BoxFuture, Poll, PollContext};

mod fleet;

/// What a scripted source does at a poll.
enum Step {
    Same,
    New(&'static str),
    Fail(ErrorClass),
    Hang,
    Panic,
    Take(Duration),
}

struct Scripted {
    name: SourceName,
    host: Option<String>,
    atomic: bool,
    steps: Mutex<VecDeque<Step>>,
    /// When each poll began.
    polls: Mutex<Vec<Instant>>,
    running: Arc<AtomicUsize>,
    most_running: Arc<AtomicUsize>,
    hints: watch::Sender<u64>,
    interval: Duration,
    suggested: Mutex<Option<Duration>>,
    /// Whether it makes its credentials itself, and how often it was told to make another.
    mints: bool,
    renewals: AtomicUsize,
}

impl Scripted {
    fn new(name: &str, steps: Vec<Step>) -> Arc<Self> {
        Arc::new(Self::with(name, steps))
    }

    fn with(name: &str, steps: Vec<Step>) -> Self {
        Self {
            name: name.into(),
            host: None,
            atomic: true,
            steps: Mutex::new(steps.into()),
            polls: Mutex::default(),
            running: Arc::default(),
            most_running: Arc::default(),
            hints: watch::Sender::new(0),
            interval: Duration::from_secs(60),
            suggested: Mutex::default(),
            mints: false,
            renewals: AtomicUsize::new(0),
        }
    }

    fn polls(&self) -> usize {
        self.polls.lock().len()
    }

    /// The seconds between the starts of polls.
    fn gaps(&self) -> Vec<u64> {
        self.polls.lock().windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect()
    }
}

fn snapshot(source: &SourceName, content: &str) -> Snapshot {
    let files = BTreeMap::from([("a.alloy".to_owned(), Bytes::copy_from_slice(content.as_bytes()))]);
    let digest = tree_digest(&files);
    Snapshot {
        source: source.clone(),
        kind: SourceKind::Git,
        revision: Revision::content(SourceKind::Git, content),
        files,
        paths: Vec::new(),
        digest,
        selection: String::new(),
        author: None,
        subject: None,
        signer: None,
        trust: None,
        committed_at: None,
        fetched_at: SystemTime::UNIX_EPOCH,
        notices: Vec::new(),
    }
}

impl Source for Scripted {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Git
    }

    fn description(&self) -> String {
        "scripted".to_owned()
    }

    fn interval(&self) -> Duration {
        self.interval
    }

    fn suggested_interval(&self) -> Option<Duration> {
        *self.suggested.lock()
    }

    fn renew_credential(&self) -> bool {
        self.renewals.fetch_add(usize::from(self.mints), Ordering::SeqCst);
        self.mints
    }

    fn timeout(&self, _first: bool) -> Duration {
        Duration::from_secs(10)
    }

    fn poll<'a>(
        &'a self,
        _previous: Option<&'a Snapshot>,
        _context: &'a PollContext,
    ) -> BoxFuture<'a, Result<Poll, SourceError>> {
        Box::pin(async move {
            self.polls.lock().push(Instant::now());
            let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_running.fetch_max(running, Ordering::SeqCst);
            let step = self.steps.lock().pop_front().unwrap_or(Step::Same);
            let result = match step {
                Step::Same => Ok(Poll::Unchanged),
                Step::New(content) => Ok(Poll::Changed(Box::new(snapshot(&self.name, content)))),
                Step::Fail(class) => Err(Failure::new(class, "scripted").of(&self.name)),
                Step::Hang => std::future::pending().await,
                Step::Panic => panic!("scripted"),
                Step::Take(time) => {
                    tokio::time::sleep(time).await;
                    Ok(Poll::Unchanged)
                }
            };
            self.running.fetch_sub(1, Ordering::SeqCst);
            result
        })
    }

    fn watch(&self) -> Option<watch::Receiver<u64>> {
        Some(self.hints.subscribe())
    }

    fn is_atomic(&self) -> bool {
        self.atomic
    }

    fn required(&self) -> bool {
        true
    }

    fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }
}

/// A wall clock that goes with the runtime's, which tests pause.
struct PausedClock(Instant);

impl Clock for PausedClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.0.elapsed()
    }
}

fn start(sources: &[&Arc<Scripted>]) -> Poller {
    start_with(sources, BTreeMap::new())
}

fn start_with(sources: &[&Arc<Scripted>], cached: BTreeMap<SourceName, Arc<Snapshot>>) -> Poller {
    let sources = sources.iter().map(|source| Arc::clone(source) as Arc<dyn Source>).collect();
    Poller::start(PollerOptions {
        cached,
        agent_name: "web-17".to_owned(),
        jitter: Arc::new(FixedJitter(0.5)),
        clock: Arc::new(PausedClock(Instant::now())),
        ..PollerOptions::new(sources)
    })
}

/// Waits, on virtual time, until the source has begun so many polls.
async fn until(source: &Scripted, polls: usize) {
    while source.polls() < polls {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Its outcome is published without further waiting.
    tokio::time::sleep(Duration::from_millis(10)).await;
}

#[tokio::test(start_paused = true)]
async fn snapshots_are_published_at_the_interval() {
    let source = Scripted::new("git", vec![Step::New("one"), Step::Same, Step::New("two")]);
    let poller = start(&[&source]);
    assert!(!poller.state().is_composable());
    until(&source, 3).await;
    assert_eq!(source.gaps(), [60, 60]);
    let state = poller.state();
    assert!(state.is_composable());
    assert_eq!(state.version, 2);
    let status = &state.sources[0].status;
    assert_eq!(status.revision.as_ref().unwrap().text, "git:sha256:two");
    assert_eq!((status.polls, status.failures, status.polling), (3, 0, false));
    let since =
        |time: Option<SystemTime>| time.unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!((since(status.checked), since(status.changed), since(status.next)), (120, 120, 180));
    poller.shutdown().await;
    let polls = source.polls();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(source.polls(), polls);
}

#[tokio::test(start_paused = true)]
async fn failures_keep_the_snapshot_and_back_off() {
    let fail = || Step::Fail(ErrorClass::Transient);
    let source = Scripted::new("git", vec![Step::New("one"), fail(), fail(), fail(), Step::Same]);
    let poller = start(&[&source]);
    until(&source, 4).await;
    let state = poller.state();
    let failure = state.sources[0].status.error.clone().unwrap();
    assert_eq!(failure.class, ErrorClass::Transient);
    assert_eq!(failure.since, SystemTime::UNIX_EPOCH + Duration::from_secs(60));
    assert!(state.sources[0].snapshot.is_some());
    until(&source, 5).await;
    // 0.75 s, 1.5 s and 3 s with half of the jitter.
    assert_eq!(source.gaps(), [60, 0, 1, 3]);
    assert_eq!(poller.state().sources[0].status.error, None);
    assert_eq!(poller.state().sources[0].status.failures, 3);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_patience_gets_it() {
    let after = Some(Duration::from_secs(300));
    let source = Scripted::new("git", vec![Step::Fail(ErrorClass::RateLimited { after })]);
    let _poller = start(&[&source]);
    until(&source, 2).await;
    assert_eq!(source.gaps(), [315], "and a twentieth more with half of the jitter");
}

#[tokio::test(start_paused = true)]
async fn a_stalled_source_waits_for_a_request() {
    let source = Scripted::new("git", vec![Step::Fail(ErrorClass::Stalled), Step::New("one")]);
    let poller = start(&[&source]);
    until(&source, 1).await;
    tokio::time::sleep(Duration::from_secs(24 * 60 * 60)).await;
    assert_eq!(source.polls(), 1);
    assert_eq!(poller.state().sources[0].status.next, None);
    let state = poller.reconcile_now(&["git".into()]).await.unwrap();
    assert!(state.sources[0].snapshot.is_some());
}

#[tokio::test(start_paused = true)]
async fn missing_three_times_raises_the_alarm() {
    let missing = || Step::Fail(ErrorClass::NotFound);
    let source = Scripted::new("git", vec![Step::New("one"), missing(), missing(), missing(), Step::Same]);
    let poller = start(&[&source]);
    until(&source, 3).await;
    assert_eq!(
        (poller.state().sources[0].status.missing_polls, poller.state().sources[0].status.alarm),
        (2, false)
    );
    until(&source, 4).await;
    assert!(poller.state().sources[0].status.alarm);
    assert!(poller.state().sources[0].snapshot.is_some(), "the last good one stays");
    until(&source, 5).await;
    assert!(!poller.state().sources[0].status.alarm);
    assert_eq!(source.gaps(), [60, 60, 60, 60]);
}

#[tokio::test(start_paused = true)]
async fn an_integrity_failure_raises_the_alarm_at_once_and_is_not_retried_quickly() {
    let every_second = Duration::from_secs(1);
    let steps = vec![Step::New("one"), Step::Fail(ErrorClass::Integrity), Step::New("two")];
    let source = Arc::new(Scripted { interval: every_second, ..Scripted::with("git", steps) });
    let poller = start(&[&source]);
    until(&source, 2).await;
    let state = poller.state();
    assert!(state.sources[0].status.alarm);
    assert_eq!(state.sources[0].snapshot.as_ref().unwrap().revision.text, "git:sha256:one");
    until(&source, 3).await;
    assert_eq!(source.gaps(), [1, 60]);
    assert!(!poller.state().sources[0].status.alarm);
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_expired_is_made_anew_once_and_tried_once() {
    let expired = || Step::Fail(ErrorClass::AuthExpired);
    let steps = vec![expired(), Step::New("one"), expired(), expired(), Step::Same];
    let source = Arc::new(Scripted { mints: true, ..Scripted::with("git", steps) });
    let poller = start(&[&source]);
    until(&source, 2).await;
    assert_eq!((source.gaps(), source.renewals.load(Ordering::SeqCst)), (vec![0], 1));
    let status = poller.state().sources[0].status.clone();
    assert_eq!((status.polls, status.failures, status.error), (1, 0, None), "nobody needs to know");
    until(&source, 4).await;
    assert_eq!(source.renewals.load(Ordering::SeqCst), 2);
    let error = poller.state().sources[0].status.error.clone().unwrap();
    assert_eq!(error.class, ErrorClass::Forbidden, "a new one is refused as well: a permission is missing");
    until(&source, 5).await;
    assert_eq!(source.gaps(), [0, 60, 0, 60], "then it is tried again after a minute");
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_was_given_is_not_made_anew() {
    let steps = vec![Step::Fail(ErrorClass::AuthExpired), Step::Same];
    let source = Scripted::new("git", steps);
    let poller = start(&[&source]);
    until(&source, 1).await;
    assert_eq!(poller.state().sources[0].status.error.as_ref().unwrap().class, ErrorClass::AuthExpired);
    until(&source, 2).await;
    assert_eq!(source.gaps(), [60]);
}

#[tokio::test(start_paused = true)]
async fn a_server_may_ask_to_be_polled_less_often() {
    let source = Scripted::new("http", Vec::new());
    *source.suggested.lock() = Some(Duration::from_secs(300));
    let _poller = start(&[&source]);
    until(&source, 2).await;
    *source.suggested.lock() = Some(Duration::from_secs(1));
    until(&source, 4).await;
    *source.suggested.lock() = Some(Duration::from_secs(1_000_000));
    until(&source, 6).await;
    assert_eq!(source.gaps(), [300, 300, 60, 60, 600]);
}

#[tokio::test(start_paused = true)]
async fn a_nudge_makes_the_next_poll_come_at_once_and_only_once() {
    let source = Scripted::new("git", vec![Step::Same, Step::Take(Duration::from_secs(5)), Step::New("one")]);
    let poller = start(&[&source]);
    until(&source, 1).await;
    poller.nudge(&["git".into(), "unknown".into()]);
    until(&source, 2).await;
    for _ in 0..5 {
        poller.nudge(&["git".into()]);
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(source.gaps(), [0, 5], "while busy, one bit is remembered");
    assert!(poller.state().sources[0].snapshot.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_nudge_or_a_hint_does_not_break_the_peace_that_a_server_asked_for_but_a_person_does() {
    let after = Some(Duration::from_secs(300));
    let limited = || Step::Fail(ErrorClass::RateLimited { after });
    let source = Scripted::new("git", vec![limited(), limited(), Step::New("one")]);
    let poller = start(&[&source]);
    until(&source, 1).await;
    poller.nudge(&["git".into()]);
    source.hints.send_modify(|count| *count += 1);
    until(&source, 2).await;
    assert_eq!(source.gaps(), [315]);
    poller.reconcile_now(&[]).await.unwrap();
    assert_eq!(source.gaps(), [315, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_nudge_does_not_wake_a_stalled_source() {
    let source = Scripted::new("git", vec![Step::Fail(ErrorClass::Stalled), Step::New("one")]);
    let poller = start(&[&source]);
    until(&source, 1).await;
    poller.nudge(&["git".into()]);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(source.polls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_source_is_tried_again_when_its_settings_change() {
    let source = Scripted::new("module", vec![Step::Fail(ErrorClass::Stalled)]);
    let poller = start(&[&source]);
    until(&source, 1).await;
    let corrected = Scripted::new("module", vec![Step::New("one")]);
    poller.follow(vec![Arc::clone(&corrected) as _]);
    until(&corrected, 1).await;
    assert!(poller.state().sources[0].snapshot.is_some());
}

#[tokio::test(start_paused = true)]
async fn the_first_poll_is_immediate_without_anything_to_go_on_with() {
    let started = Instant::now();
    let source = Arc::new(Scripted { host: Some("git.example".into()), ..Scripted::with("git", Vec::new()) });
    let _poller = start(&[&source]);
    until(&source, 1).await;
    assert_eq!(source.polls.lock()[0], started);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_has_something_to_go_on_with_asks_servers_at_a_place_of_its_own() {
    let mut seen = std::collections::BTreeSet::new();
    for agent in ["web-1", "web-2", "web-3", "web-4"] {
        let started = Instant::now();
        let remote =
            Arc::new(Scripted { host: Some("git.example".into()), ..Scripted::with("git", Vec::new()) });
        let local = Scripted::new("file", Vec::new());
        let poller = Poller::start(PollerOptions {
            warm: true,
            agent_name: agent.to_owned(),
            ..PollerOptions::new(vec![Arc::clone(&remote) as _, Arc::clone(&local) as _])
        });
        until(&remote, 1).await;
        let waited = remote.polls.lock()[0] - started;
        assert!(waited < Duration::from_secs(30), "{waited:?}");
        seen.insert(waited.as_millis());
        assert_eq!(local.polls.lock()[0], started, "what is on this host is no reason to wait");
        poller.shutdown().await;
    }
    assert!(seen.len() >= 3, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hanging_or_panicking_poll_harms_nobody_else() {
    let hanging = Scripted::new("hanging", vec![Step::Hang, Step::New("late")]);
    let panicking = Scripted::new("panicking", vec![Step::Panic, Step::New("late")]);
    let well = Scripted::new("well", vec![Step::New("one")]);
    let poller = start(&[&hanging, &panicking, &well]);
    until(&well, 1).await;
    until(&panicking, 1).await;
    assert!(poller.state().sources[2].snapshot.is_some());
    assert_eq!(poller.state().sources[1].status.error.as_ref().unwrap().class, ErrorClass::Transient);
    assert!(poller.state().sources[0].status.polling);
    until(&hanging, 2).await;
    assert_eq!(hanging.gaps(), [20], "twice the time, then the first step of the backoff");
    assert_eq!(poller.state().sources[0].status.aborted, 1);
    assert!(poller.state().sources[0].snapshot.is_some());
}

#[tokio::test(start_paused = true)]
async fn requests_while_busy_cause_exactly_one_more_poll() {
    let source = Scripted::new("git", vec![Step::Take(Duration::from_secs(5)), Step::New("one")]);
    let poller = start(&[&source]);
    until(&source, 1).await;
    for _ in 0..5 {
        poller.request(&[]).unwrap();
    }
    let state = poller.reconcile_now(&[]).await.unwrap();
    assert!(state.sources[0].snapshot.is_some(), "the poll under way does not count");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(source.polls(), 2);
    let unknown = poller.reconcile_now(&["other".into()]).await;
    assert_eq!(unknown.unwrap_err(), ReconcileError::UnknownSource("other".into()));
}

#[tokio::test(start_paused = true)]
async fn a_request_ends_when_the_poller_does() {
    let source = Scripted::new("git", vec![Step::Hang]);
    let poller = start(&[&source]);
    until(&source, 1).await;
    let (outcome, ()) = tokio::join!(poller.reconcile_now(&[]), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        poller.shutdown().await;
    });
    assert_eq!(outcome.unwrap_err(), ReconcileError::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_hint_makes_the_next_poll_come_at_once() {
    let source = Scripted::new("file", vec![Step::New("one"), Step::New("two")]);
    let poller = start(&[&source]);
    until(&source, 1).await;
    source.hints.send_modify(|count| *count += 1);
    until(&source, 2).await;
    assert_eq!(source.gaps(), [0]);
    assert_eq!(poller.state().version, 2);
}

#[tokio::test(start_paused = true)]
async fn one_host_is_asked_one_thing_at_a_time_and_all_hosts_four() {
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let on = |name: &str, host: &str| {
        Arc::new(Scripted {
            host: Some(host.to_owned()),
            running: Arc::clone(&running),
            most_running: Arc::clone(&most),
            ..Scripted::with(name, vec![Step::Take(Duration::from_secs(5))])
        })
    };
    let same: Vec<_> = (0..4).map(|number| on(&format!("s{number}"), "one")).collect();
    let poller = start(&same.iter().collect::<Vec<_>>());
    until(&same[3], 1).await;
    assert_eq!(most.load(Ordering::SeqCst), 1);
    poller.shutdown().await;

    running.store(0, Ordering::SeqCst);
    let other: Vec<_> = (0..6).map(|number| on(&format!("o{number}"), &number.to_string())).collect();
    let poller = start(&other.iter().collect::<Vec<_>>());
    until(&other[5], 1).await;
    assert_eq!(most.load(Ordering::SeqCst), 4);
    let mut starts: Vec<Instant> = other.iter().map(|source| source.polls.lock()[0]).collect();
    starts.sort();
    assert!(starts[1] - starts[0] >= Duration::from_millis(100), "ten starts per second");
    poller.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_cached_snapshot_is_there_at_once_and_checked_soon() {
    let source = Scripted::new("git", vec![Step::Same]);
    let name: SourceName = "git".into();
    let cached = BTreeMap::from([(name.clone(), Arc::new(snapshot(&name, "old")))]);
    let started = Instant::now();
    let poller = start_with(&[&source], cached);
    assert!(poller.state().is_composable());
    assert_eq!(poller.state().sources[0].status.checked, None);
    until(&source, 1).await;
    let waited = source.polls.lock()[0] - started;
    assert!(waited > Duration::ZERO && waited < Duration::from_secs(30), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn changes_settle_before_they_are_used() {
    let (min, max) = (Duration::from_millis(200), Duration::from_secs(10));
    let git = Scripted::new("git", vec![Step::New("one"), Step::New("two")]);
    let file = Arc::new(Scripted { atomic: false, ..Scripted::with("file", vec![Step::New("one")]) });
    let poller = start(&[&git, &file]);
    until(&git, 1).await;
    until(&file, 1).await;
    let at = Instant::now();
    let state = poller.state();
    let both = state.settled_at(&BTreeMap::new(), min, max).unwrap();
    assert!(both > at && both <= at + min);
    let composed: BTreeMap<SourceName, String> = state
        .sources
        .iter()
        .map(|source| (source.status.name.clone(), source.status.revision.as_ref().unwrap().text.clone()))
        .collect();
    assert_eq!(state.settled_at(&composed, min, max), None);
    until(&git, 2).await;
    let one = poller.state().settled_at(&composed, min, max).unwrap();
    assert!(one <= Instant::now(), "one commit is atomic already");
}

#[tokio::test(start_paused = true)]
async fn sources_that_never_hold_still_are_waited_for_no_longer_than_the_most() {
    let (min, max) = (Duration::from_millis(200), Duration::from_secs(10));
    let first = Arc::new(Scripted { atomic: false, ..Scripted::with("first", vec![Step::New("one")]) });
    let restless = Arc::new(Scripted {
        atomic: false,
        interval: Duration::from_secs(3),
        ..Scripted::with("restless", ["1", "2", "3", "4", "5"].map(Step::New).into())
    });
    let poller = start(&[&first, &restless]);
    until(&first, 1).await;
    let begun = Instant::now();
    let mut settled = Vec::new();
    for polls in 1..=5 {
        until(&restless, polls).await;
        settled.push(poller.state().settled_at(&BTreeMap::new(), min, max).unwrap() - begun);
    }
    assert!(settled.windows(2).all(|pair| pair[0] <= pair[1]), "each change moves the moment: {settled:?}");
    let last = settled.pop().unwrap();
    assert!(settled[2] < last && last <= max, "but not beyond ten seconds after the first: {last:?}");
    assert!(begun.elapsed() > max, "the last change came later than that");
}

#[tokio::test(start_paused = true)]
async fn a_rejected_revision_is_looked_for_again_at_the_interval() {
    let rejected = || Step::Fail(ErrorClass::Rejected(Rejection::Limits));
    let source = Scripted::new("git", vec![rejected(), rejected(), Step::Same]);
    let _poller = start(&[&source]);
    until(&source, 3).await;
    assert_eq!(source.gaps(), [60, 60]);
}

#[tokio::test(start_paused = true)]
async fn sources_come_and_go_while_the_others_are_not_disturbed() {
    let stays = Scripted::new("stays", vec![Step::New("one")]);
    let goes = Scripted::new("goes", vec![Step::New("two")]);
    let poller = Poller::start(PollerOptions::new(vec![Arc::clone(&stays) as _, Arc::clone(&goes) as _]));
    poller.reconcile_now(&[]).await.unwrap();
    let before = stays.polls();
    let comes = Scripted::new("comes", vec![Step::New("three")]);
    poller.follow(vec![Arc::clone(&comes) as _, Arc::clone(&stays) as _]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let state = poller.state();
    let shown: Vec<_> = state
        .sources
        .iter()
        .map(|source| {
            (source.status.name.to_string(), source.snapshot.as_ref().unwrap().revision.text.clone())
        })
        .collect();
    assert_eq!(
        shown,
        [("comes".into(), "git:sha256:three".to_owned()), ("stays".into(), "git:sha256:one".to_owned())]
    );
    assert_eq!(stays.polls(), before);
    let polls = goes.polls();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(goes.polls(), polls, "what is not followed is not polled");
    assert_eq!(poller.request(&["goes".into()]), Err(ReconcileError::UnknownSource("goes".into())));
    assert!(poller.source(&"goes".into()).is_none() && poller.source(&"comes".into()).is_some());
    poller.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_takes_a_name_over_keeps_the_snapshot_until_it_has_its_own() {
    let first = Scripted::new("module", vec![Step::New("one")]);
    let poller = Poller::start(PollerOptions::new(vec![Arc::clone(&first) as _]));
    poller.reconcile_now(&[]).await.unwrap();
    let second = Scripted::new("module", vec![Step::Fail(ErrorClass::Transient), Step::New("two")]);
    poller.follow(vec![Arc::clone(&second) as _]);
    poller.reconcile_now(&[]).await.unwrap();
    let state = poller.state();
    assert_eq!(state.sources[0].snapshot.as_ref().unwrap().revision.text, "git:sha256:one");
    assert!(state.sources[0].status.error.is_some());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(poller.state().sources[0].snapshot.as_ref().unwrap().revision.text, "git:sha256:two");
    poller.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn two_pollers_share_a_budget() {
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let make = |name: &str| {
        let mut source = Scripted::with(name, vec![Step::Take(Duration::from_secs(3))]);
        source.host = Some("git.example".to_owned());
        source.running = Arc::clone(&running);
        source.most_running = Arc::clone(&most);
        Arc::new(source)
    };
    let (one, two) = (make("one"), make("two"));
    let poller = Poller::start(PollerOptions::new(vec![one as _]));
    let beside = poller.start_beside(PollerOptions::new(vec![two as _]));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(most.load(Ordering::SeqCst), 1);
    poller.shutdown().await;
    beside.shutdown().await;
}
