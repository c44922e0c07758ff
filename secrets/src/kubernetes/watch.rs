//! A watch that is kept open for as long as somebody polls its future: opened again after its end, slower after
//! failures, and tried now and then where it is forbidden. [`ObjectWatch`] is that of one object; one of a namespace is
//! in [`super::namespace`].

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::Instant;

use super::api::{ApiError, KubernetesApi};
use super::object::{ObjectKind, ObjectName, WatchEvent};

/// How long opening may take.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// Delays after failures, before jitter.
const FIRST_DELAY: Duration = Duration::from_millis(800);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// A watch that broke off after this long counts as one that worked.
const WORKED: Duration = Duration::from_secs(120);
/// So does one that the server ended in order after this long.
const ENDED: Duration = Duration::from_secs(10);
/// How often it is looked whether a watch is allowed by now, in the long run. At first more often: a server that has just
/// started forbids what it will allow.
const DENIED_DELAY: Duration = Duration::from_secs(60);

/// What is watched.
#[derive(Clone)]
pub struct ObjectWatch {
    api: KubernetesApi,
    kind: ObjectKind,
    name: ObjectName,
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchNotice {
    /// It is open now: whatever happened before has to be looked for, whatever happens from now on is told.
    Open,
    /// The object came or changed, and has this version; or it went, and has none.
    Changed(Option<String>),
    /// It is not open, and why: not allowed, so that only polling is left.
    Denied(String),
    /// It is not open, and why; it will be tried again soon.
    Interrupted(String),
}

/// How a watch came to its end.
pub(super) enum Ended {
    InOrder,
    /// What it would go on from is not held any more.
    Expired,
    Denied(String),
    Failed(String),
}

/// The pauses between watches.
pub(super) struct WatchPauses(Duration);

impl Ended {
    pub(super) fn of(result: Result<(), ApiError>) -> Self {
        match result {
            Ok(()) => Self::InOrder,
            Err(ApiError::Gone(_)) => Self::Expired,
            Err(ApiError::Denied(reason)) => Self::Denied(reason),
            Err(error) => Self::Failed(error.to_string()),
        }
    }
}

impl Default for WatchPauses {
    fn default() -> Self {
        Self(FIRST_DELAY)
    }
}

impl WatchPauses {
    /// How long to wait after a watch that was open since then.
    pub(super) fn after(&mut self, ended: &Ended, opened: Option<Instant>) -> Duration {
        let lasted = opened.map_or(Duration::ZERO, |opened| opened.elapsed());
        let enough = if matches!(ended, Ended::InOrder) { ENDED } else { WORKED };
        if lasted >= enough {
            self.0 = FIRST_DELAY;
        }
        let pause = match ended {
            Ended::Denied(_) => (self.0 * 4).min(DENIED_DELAY),
            Ended::Failed(_) | Ended::InOrder | Ended::Expired => self.0,
        };
        self.0 = (self.0 * 2).min(LONGEST_DELAY);
        pause.mul_f64(0.75 + 0.5 * rand::random::<f64>())
    }
}

impl ObjectWatch {
    /// Of one object. The permission `watch` on that name is enough.
    pub fn object(api: KubernetesApi, kind: ObjectKind, name: &ObjectName) -> Self {
        Self { api, kind, name: name.clone() }
    }

    /// Watches until the future is dropped, and tells what happens.
    pub async fn follow(&self, mut notice: impl FnMut(WatchNotice) + Send) -> Infallible {
        let mut pauses = WatchPauses::default();
        loop {
            let mut opened = None;
            let ended = Ended::of(self.events(&mut opened, &mut notice).await);
            match &ended {
                Ended::Denied(reason) => notice(WatchNotice::Denied(reason.clone())),
                Ended::Failed(reason) => notice(WatchNotice::Interrupted(reason.clone())),
                Ended::InOrder | Ended::Expired => {}
            }
            tokio::time::sleep(pauses.after(&ended, opened)).await;
        }
    }

    async fn events(
        &self,
        opened: &mut Option<Instant>,
        notice: &mut (impl FnMut(WatchNotice) + Send),
    ) -> Result<(), ApiError> {
        // It begins with what is there.
        let (namespace, name) = (self.name.namespace(), Some(self.name.name()));
        let mut stream = self.api.watch(self.kind, namespace, name, None, OPEN_TIMEOUT).await?;
        *opened = Some(Instant::now());
        notice(WatchNotice::Open);
        while let Some(event) = stream.next().await? {
            if let WatchEvent::Changed { version, gone, .. } = event {
                notice(WatchNotice::Changed((!gone).then_some(version)));
            }
        }
        Ok(())
    }
}
