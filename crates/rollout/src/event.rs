//! Typed events of the rollout: numbered, kept in a bounded backlog and broadcast, so that a
//! subscriber that was away can resume after the last id it saw.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::status::Phase;
use crate::time::Timestamp;

/// Events that are kept for subscribers that resume.
const BACKLOG: usize = 1024;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Ascending by one within a process.
    pub id: u64,
    /// When.
    pub time: Timestamp,
    /// What happened.
    pub kind: EventKind,
    /// The phase that the candidate is in now.
    pub phase: Phase,
    /// Revision concerned.
    pub revision: Option<String>,
    /// Digest concerned.
    pub digest: Option<String>,
    /// Generation concerned.
    pub generation: Option<u64>,
    /// For people.
    pub message: String,
}

/// What happened.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The process started and decided what to run.
    Booted,
    /// Somebody asked to look at sources now: a person, a signal, a webhook.
    Triggered,
    /// A source is missing again and again: somebody should look.
    SourceMissing,
    /// A source brought what is not what was promised: somebody may be tampering.
    Security,
    /// A source has something new.
    Observed,
    /// The candidate was composed.
    Composed,
    /// The candidate passed its static checks.
    Validated,
    /// The plan was made.
    Planned,
    /// The content equals what runs.
    NoEffectiveChange,
    /// Applying is stopped by a hold, a quarantine or the breaker.
    Stopped,
    /// States and instances are being made.
    Preparing,
    /// The candidate runs.
    Swapped,
    /// A finding during probation.
    Finding,
    /// The probation window was extended.
    Extended,
    /// The candidate is last known good.
    Committed,
    /// The candidate never ran.
    Rejected,
    /// The candidate was undone.
    RolledBack,
    /// A newer candidate took over.
    Superseded,
    /// Content was quarantined.
    Quarantined,
    /// A quarantine ended.
    Released,
    /// A hold was set.
    Held,
    /// A hold was lifted.
    Unheld,
    /// The flap breaker opened.
    BreakerOpened,
    /// The flap breaker closed.
    BreakerClosed,
    /// Something could not be written to the state directory.
    PersistFailed,
    /// Another value of a secret is in use.
    SecretRotated,
    /// A new value of a secret does not work; the one before is in use.
    SecretRejected,
    /// A secret cannot be read, or has ended.
    SecretTrouble,
    /// A secret is as it should be again.
    SecretRecovered,
    /// Nothing good was left to run.
    Degraded,
}

impl EventKind {
    /// The text that the API shows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Booted => "booted",
            Self::Triggered => "triggered",
            Self::SourceMissing => "source_missing",
            Self::Security => "security",
            Self::Observed => "observed",
            Self::Composed => "composed",
            Self::Validated => "validated",
            Self::Planned => "planned",
            Self::NoEffectiveChange => "no_effective_change",
            Self::Stopped => "stopped",
            Self::Preparing => "preparing",
            Self::Swapped => "swapped",
            Self::Finding => "finding",
            Self::Extended => "extended",
            Self::Committed => "committed",
            Self::Rejected => "rejected",
            Self::RolledBack => "rolled_back",
            Self::Superseded => "superseded",
            Self::Quarantined => "quarantined",
            Self::Released => "released",
            Self::Held => "held",
            Self::Unheld => "unheld",
            Self::BreakerOpened => "breaker_opened",
            Self::BreakerClosed => "breaker_closed",
            Self::PersistFailed => "persist_failed",
            Self::SecretRotated => "secret_rotated",
            Self::SecretRejected => "secret_rejected",
            Self::SecretTrouble => "secret_trouble",
            Self::SecretRecovered => "secret_recovered",
            Self::Degraded => "degraded",
        }
    }
}

/// What a subscriber gets: what it missed, then what follows.
#[derive(Debug)]
pub struct EventStream {
    /// Kept events after the id the subscriber named, oldest first.
    pub missed: Vec<Arc<Event>>,
    /// What follows. A receiver that lags is told how many it lost and resumes from there.
    pub live: broadcast::Receiver<Arc<Event>>,
}

/// The bounded log of events.
#[derive(Clone, Debug)]
pub(crate) struct EventLog {
    inner: Arc<Mutex<Backlog>>,
    live: broadcast::Sender<Arc<Event>>,
}

#[derive(Debug, Default)]
struct Backlog {
    next: u64,
    kept: VecDeque<Arc<Event>>,
}

impl EventLog {
    pub(crate) fn new() -> Self {
        Self {
            inner: Arc::new(Mutex::new(Backlog { next: 1, kept: VecDeque::new() })),
            live: broadcast::channel(BACKLOG).0,
        }
    }

    /// Numbers `event`, keeps it and sends it to whoever listens.
    pub(crate) fn publish(&self, mut event: Event) -> Arc<Event> {
        let mut backlog = self.inner.lock();
        event.id = backlog.next;
        backlog.next += 1;
        let event = Arc::new(event);
        if backlog.kept.len() == BACKLOG {
            backlog.kept.pop_front();
        }
        backlog.kept.push_back(Arc::clone(&event));
        // Sent under the lock, so that a subscriber sees each event once: in the backlog or live.
        // Nobody listening is not an error.
        drop(self.live.send(Arc::clone(&event)));
        event
    }

    /// Events after `after` (all kept ones for `None`), then live ones.
    pub(crate) fn subscribe(&self, after: Option<u64>) -> EventStream {
        let backlog = self.inner.lock();
        let live = self.live.subscribe();
        let after = after.unwrap_or(0);
        EventStream { missed: backlog.kept.iter().filter(|event| event.id > after).cloned().collect(), live }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn event(message: &str) -> Event {
        Event {
            id: 0,
            time: Timestamp::default(),
            kind: EventKind::Observed,
            phase: Phase::Observed,
            revision: None,
            digest: None,
            generation: None,
            message: message.to_owned(),
        }
    }

    #[test]
    fn a_subscriber_resumes_without_gap_or_repeat() {
        let log = EventLog::new();
        for n in 0..3 {
            log.publish(event(&n.to_string()));
        }
        let mut stream = log.subscribe(Some(2));
        log.publish(event("3"));
        let missed: Vec<u64> = stream.missed.iter().map(|event| event.id).collect();
        assert_eq!(missed, [3]);
        assert_eq!(stream.live.try_recv().unwrap().id, 4);
        assert!(stream.live.try_recv().is_err());
    }

    #[test]
    fn the_backlog_is_bounded() {
        let log = EventLog::new();
        for n in 0..BACKLOG + 10 {
            log.publish(event(&n.to_string()));
        }
        let stream = log.subscribe(None);
        assert_eq!(stream.missed.len(), BACKLOG);
        assert_eq!(stream.missed[0].id, 11);
    }
}
