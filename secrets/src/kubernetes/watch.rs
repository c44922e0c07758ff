//! A watch that is kept open for as long as somebody polls its future: opened again after its end, slower after
//! failures, and tried now and then where it is forbidden.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::Instant;

use super::api::{ApiError, KubernetesApi};
use super::object::{ObjectKind, ObjectName, WatchEvent};

/// How long opening may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
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
    namespace: String,
    name: Option<String>,
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchNotice {
    /// It is open now: whatever happened before has to be looked for, whatever happens from now on is told.
    Open,
    /// The object of that name came, changed, or went.
    Changed(String),
    /// It is not open, and why: not allowed, so that only polling is left.
    Denied(String),
    /// It is not open, and why; it will be tried again soon.
    Interrupted(String),
}

enum Ended {
    InOrder,
    Expired,
    Denied(String),
    Failed(String),
}

impl ObjectWatch {
    /// Of one object. The permission `watch` on that name is enough.
    pub fn object(api: KubernetesApi, kind: ObjectKind, name: &ObjectName) -> Self {
        Self { api, kind, namespace: name.namespace().to_owned(), name: Some(name.name().to_owned()) }
    }

    /// Of all objects of a kind in a namespace. Needs `list` and `watch` on all of them.
    pub(super) fn namespace(api: KubernetesApi, kind: ObjectKind, namespace: &str) -> Self {
        Self { api, kind, namespace: namespace.to_owned(), name: None }
    }

    /// Watches until the future is dropped, and tells what happens.
    pub async fn follow(&self, mut notice: impl FnMut(WatchNotice) + Send) -> Infallible {
        let mut delay = FIRST_DELAY;
        loop {
            let mut opened = None;
            let ended = self.once(&mut opened, &mut notice).await;
            let lasted = opened.map_or(Duration::ZERO, |opened: Instant| opened.elapsed());
            let enough = if matches!(ended, Ended::InOrder) { ENDED } else { WORKED };
            if lasted >= enough {
                delay = FIRST_DELAY;
            }
            let pause = match ended {
                Ended::Denied(reason) => {
                    notice(WatchNotice::Denied(reason));
                    (delay * 4).min(DENIED_DELAY)
                }
                Ended::Failed(reason) => {
                    notice(WatchNotice::Interrupted(reason));
                    delay
                }
                Ended::InOrder | Ended::Expired => delay,
            };
            delay = (delay * 2).min(LONGEST_DELAY);
            tokio::time::sleep(pause.mul_f64(0.75 + 0.5 * rand::random::<f64>())).await;
        }
    }

    async fn once(
        &self,
        opened: &mut Option<Instant>,
        notice: &mut (impl FnMut(WatchNotice) + Send),
    ) -> Ended {
        match self.events(opened, notice).await {
            Ok(()) => Ended::InOrder,
            Err(ApiError::Gone(_)) => Ended::Expired,
            Err(ApiError::Denied(reason)) => Ended::Denied(reason),
            Err(error) => Ended::Failed(error.to_string()),
        }
    }

    async fn events(
        &self,
        opened: &mut Option<Instant>,
        notice: &mut (impl FnMut(WatchNotice) + Send),
    ) -> Result<(), ApiError> {
        // The events of one name may begin with what is there; those of a whole namespace begin now.
        let from = match &self.name {
            Some(_) => None,
            None => Some(self.api.version(self.kind, &self.namespace, OPEN_TIMEOUT).await?),
        };
        let (name, from) = (self.name.as_deref(), from.as_deref());
        let mut stream = self.api.watch(self.kind, &self.namespace, name, from, OPEN_TIMEOUT).await?;
        *opened = Some(Instant::now());
        notice(WatchNotice::Open);
        while let Some(event) = stream.next().await? {
            if let WatchEvent::Changed { name } = event {
                notice(WatchNotice::Changed(name));
            }
        }
        Ok(())
    }
}
