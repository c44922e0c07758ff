//! The tasks of instances: starting, restarting after an early end, and retiring.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use crate::definition::ErasedTransition;
use crate::engine::Shared;
use crate::generation::Generation;
use crate::health::{Health, HealthState};
use crate::instance::{CANCELLATION_GRACE, InstanceCell, abandon, panic_message};
use crate::run::Phase;

/// How often in a row a task may end early before it is left alone.
const RESTART_BUDGET: u32 = 10;

/// A task that ran this long has earned a full budget again.
const STEADY: Duration = Duration::from_secs(600);

/// How often those that are late in draining are named in the log.
const LATE_NOTICE: Duration = Duration::from_secs(5);

impl Shared {
    /// Starts an instance's task.
    pub(crate) fn start(&self, cell: &Arc<InstanceCell>) {
        cell.release_drain_lease();
        cell.set_phase(Phase::Running);
        cell.mark_run();
        cell.health().set_run(Health::healthy("started component"));
        let supervised = Arc::clone(cell);
        let supervision = cell.tasks().track_future(async move { supervise(&supervised).await });
        self.spawn(supervision);
    }

    /// Tells an instance to end, and sees to it that it does.
    pub(crate) fn retire(self: &Arc<Self>, cell: &Arc<InstanceCell>) {
        cell.transition(ErasedTransition::Retired);
        cell.set_phase(Phase::Draining);
        let (shared, cell) = (Arc::clone(self), Arc::clone(cell));
        let deadline = self.options.drain_deadline;
        self.spawn(self.retirements.track_future(async move { shared.end(&cell, deadline).await }));
    }

    /// Waits until a draining instance has ended, cancels what is late.
    pub(crate) async fn end(&self, cell: &Arc<InstanceCell>, deadline: Duration) {
        cell.set_phase(Phase::Draining);
        let by = Instant::now() + deadline;
        let mut notice = tokio::time::interval_at(Instant::now() + LATE_NOTICE, LATE_NOTICE);
        let in_time = loop {
            tokio::select! {
                biased;
                () = cell.tasks().wait() => break true,
                () = tokio::time::sleep_until(by) => break false,
                _ = notice.tick() => tracing::info!(node = %cell.node(), "component is still draining"),
            }
        };
        if !in_time {
            tracing::warn!(node = %cell.node(), "component did not drain in time; cancelling it");
            self.meters.abandoned.inc();
            cell.cancellation().cancel();
            let grace = CANCELLATION_GRACE + CANCELLATION_GRACE;
            if tokio::time::timeout(grace, cell.tasks().wait()).await.is_err() {
                tracing::error!(node = %cell.node(), "component blocks its thread and is left behind");
                cell.set_phase(Phase::Stopped);
                return;
            }
        }
        cell.set_phase(Phase::Stopped);
        cell.release_drain_lease();
    }

    /// Gives the calls that still run under a closed generation until the drain deadline.
    pub(crate) fn watch_until_quiet(&self, generation: Arc<Generation>) {
        if generation.quiet().is_cancelled() {
            return;
        }
        self.meters.generations_live.inc();
        let live = self.meters.generations_live.clone();
        let (deadline, stop) = (self.options.drain_deadline, self.stop.clone());
        self.spawn(async move {
            tokio::select! {
                () = generation.quiet().cancelled() => {}
                () = tokio::time::sleep(deadline) => {
                    let (id, epoch, calls) = (generation.id, generation.epoch, generation.word().count());
                    tracing::warn!(generation = id, epoch, calls, "calls outlast their generation; cancelling them");
                    generation.cancellation().cancel();
                    tokio::select! {
                        () = generation.quiet().cancelled() => {}
                        () = stop.cancelled() => {}
                    }
                }
            }
            live.dec();
        });
    }
}

/// Runs an instance's task until it is told to end; starts it again when it ends early.
async fn supervise(cell: &Arc<InstanceCell>) {
    let mut phase = cell.phase();
    let mut failures = 0;
    loop {
        cell.set_down(false);
        cell.health().set_run(Health::healthy("started component"));
        let (started, parks) = (Instant::now(), cell.parks());
        let task = AssertUnwindSafe(cell.definition().run(cell)).catch_unwind();
        let outcome = tokio::select! {
            outcome = task => outcome,
            () = abandon(cell.cancellation().clone()) => return,
        };
        let told_to_stop = cell.parks() != parks || cell.phase_now() != Phase::Running;
        if !told_to_stop || !matches!(outcome, Ok(Ok(()))) {
            if started.elapsed() >= STEADY {
                failures = 0;
            }
            failures += 1;
            let reason = match &outcome {
                Ok(Ok(())) => "component ended".to_owned(),
                Ok(Err(error)) => format!("component ended with error: {error}"),
                Err(panic) => format!("component panicked: {}", panic_message(&**panic)),
            };
            if let Err(panic) = &outcome {
                cell.panicked(&**panic);
            }
            if !pause_before_restart(cell, failures, &reason).await {
                return;
            }
        }
        // A task that ended when parked starts again when the node comes back.
        let Ok(now) = phase.wait_for(|phase| *phase != Phase::Parked).await.map(|phase| *phase) else {
            return;
        };
        if now != Phase::Running {
            cell.health().set_run(Health::new(HealthState::Exited, "component shut down cleanly"));
            return;
        }
    }
}

/// Waits out the backoff. False if the task is not to be started again.
async fn pause_before_restart(cell: &Arc<InstanceCell>, failures: u32, reason: &str) -> bool {
    let mut phase = cell.phase();
    cell.set_down(true);
    let draining = |phase: &Phase| matches!(phase, Phase::Draining | Phase::Stopped);
    if failures > RESTART_BUDGET {
        tracing::error!(node = %cell.node(), reason, "component is not started again");
        cell.health().set_run(Health::new(HealthState::Exited, reason));
        let _told = phase.wait_for(draining).await;
        return false;
    }
    tracing::warn!(node = %cell.node(), reason, failures, "component ended early; starting it again");
    cell.health().set_run(Health::unhealthy(reason));
    cell.count_restart();
    let first = cell.environment().host.restart_backoff;
    let backoff = first.saturating_mul(1 << (failures - 1).min(6));
    tokio::select! {
        () = tokio::time::sleep(backoff) => true,
        _ = phase.wait_for(draining) => false,
    }
}
