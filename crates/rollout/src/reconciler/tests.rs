//! Every transition of the reconciler, on paused time, against a scripted pipeline and scripted sources.

#![allow(clippy::unwrap_used)]

mod crashes;
mod modules;
mod operators;
mod pace;
mod transitions;
mod trust;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::crash::Faults;
use crate::handle::{Rollout, RolloutOptions};
use crate::record::Verdict;
use crate::scripted::{ScriptedFeed, ScriptedPipeline};
use crate::scripted_modules::ScriptedModules;
use crate::settings::RolloutSettings;
use crate::state::StateDirectory;
use crate::status::{AgentIdentity, Phase, Status};
use crate::time::{RuntimeClock, Timestamp};

/// A running rollout with its surroundings.
struct Fixture {
    rollout: Rollout,
    pipeline: Arc<ScriptedPipeline>,
    feed: Arc<ScriptedFeed>,
    modules: Arc<ScriptedModules>,
    faults: Arc<Faults>,
}

struct Start<'a> {
    directory: Option<&'a Path>,
    boot_id: &'a str,
    settings: RolloutSettings,
    pipeline: Arc<ScriptedPipeline>,
    feed: Arc<ScriptedFeed>,
    modules: Arc<ScriptedModules>,
    now: i64,
    kill_at: Option<usize>,
}

impl<'a> Start<'a> {
    fn new(directory: Option<&'a Path>) -> Self {
        Self {
            directory,
            boot_id: "boot-1",
            settings: RolloutSettings::default(),
            pipeline: Arc::default(),
            feed: ScriptedFeed::new(&[("git", true, true)]),
            modules: ScriptedModules::new(),
            now: 1_790_000_000_000,
            kill_at: None,
        }
    }

    fn start(self) -> Fixture {
        let state = match self.directory {
            Some(directory) => StateDirectory::open_under(directory, self.boot_id).unwrap(),
            None => StateDirectory::in_memory(),
        };
        let faults = Arc::clone(&state.faults);
        if let Some(n) = self.kill_at {
            faults.kill_at(n);
        }
        let options = RolloutOptions {
            settings: self.settings,
            agent: AgentIdentity {
                name: "web-17".into(),
                version: "1.0.0".into(),
                ..AgentIdentity::default()
            },
            clock: RuntimeClock::starting_at(Timestamp::from_millis(self.now)),
            modules: Arc::clone(&self.modules) as _,
            ..RolloutOptions::new(state)
        };
        let rollout =
            Rollout::start(options, Arc::clone(&self.pipeline), Arc::clone(&self.feed) as _).unwrap();
        Fixture { rollout, pipeline: self.pipeline, feed: self.feed, modules: self.modules, faults }
    }
}

impl Fixture {
    /// Waits, in virtual time, for a status.
    async fn until(&self, what: &str, condition: impl Fn(&Status) -> bool) -> Arc<Status> {
        let mut watch = self.rollout.watch_status();
        let found =
            tokio::time::timeout(Duration::from_secs(4 * 3600), watch.wait_for(|status| condition(status)))
                .await;
        match found {
            Ok(Ok(status)) => Arc::clone(&status),
            _ => panic!("never {what}; status: {:#?}; log: {:?}", self.rollout.status(), self.pipeline.log()),
        }
    }

    async fn committed(&self, revision: &str) -> Arc<Status> {
        self.until(&format!("committed {revision}"), |status| {
            status.phase == Phase::Committed
                && status.last_known_good.as_ref().is_some_and(|good| good.revision == revision)
        })
        .await
    }

    async fn in_probation(&self, revision: &str) -> Arc<Status> {
        self.until(&format!("in probation {revision}"), |status| {
            status.phase == Phase::Probation
                && status.running.as_ref().is_some_and(|running| running.revision == revision)
        })
        .await
    }

    async fn reason(&self, kind: &str) -> Arc<Status> {
        self.until(&format!("reason {kind}"), |status| {
            status.reason.as_ref().is_some_and(|reason| reason.kind == kind)
        })
        .await
    }

    async fn verdicts(&self) -> Vec<(String, Verdict)> {
        self.rollout
            .history()
            .await
            .unwrap()
            .into_iter()
            .map(|record| (record.revision, record.verdict))
            .collect()
    }
}

fn running(status: &Status) -> &str {
    status.running.as_ref().map_or("nothing", |running| &running.revision)
}
