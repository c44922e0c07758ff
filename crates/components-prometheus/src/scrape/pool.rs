//! Keeps one task per target in step with the running configuration: starts what is new, tells what changed, and lets go of what is
//! gone, without touching the rest.

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use invar_engine::vitals::VitalCounters;
use invar_engine::{Phase, RunContext};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::status::StatusCell;
use super::target_task::{Assignment, Order, TargetTask, status_of};
use super::{Instance, Scrape, State};

/// Health is told at most this often.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

/// The tasks of a component's targets.
pub(super) struct Pool {
    context: RunContext<Scrape>,
    instance: Arc<Instance>,
    handles: HashMap<u64, Handle>,
    /// Each answers its target's key when it ends.
    tasks: JoinSet<u64>,
}

struct Handle {
    orders: watch::Sender<Order>,
    assignment: Arc<Assignment>,
    status: StatusCell,
    /// Whether it is in the list.
    listed: bool,
}

// === impl Pool ===

impl Pool {
    pub(super) fn new(context: RunContext<Scrape>, instance: Arc<Instance>) -> Self {
        Self { context, instance, handles: HashMap::default(), tasks: JoinSet::new() }
    }

    /// Follows the phases of the component until it ends.
    pub(super) async fn run(mut self) {
        let mut phases = self.context.phase();
        loop {
            let phase = *phases.borrow_and_update();
            match phase {
                Phase::Ready => {}
                Phase::Running => {
                    let state = Arc::clone(self.context.enter().state());
                    self.follow(&state);
                }
                Phase::Parked => self.order_all(|_| Order::Pause),
                Phase::Draining | Phase::Stopped => {
                    let retired = self.instance.is_retired();
                    self.order_all(|_| if retired { Order::Retire } else { Order::Stop });
                    while self.tasks.join_next().await.is_some() {}
                    return;
                }
            }
            let running = phase == Phase::Running;
            loop {
                tokio::select! {
                    changed = phases.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        break;
                    }
                    () = self.context.changed(), if running => break,
                    ended = self.tasks.join_next(), if !self.tasks.is_empty() => {
                        if self.forget(ended) && running {
                            break;
                        }
                    }
                    () = self.instance.turned.notified(), if running => {
                        self.context.set_health(self.instance.board.lock().health());
                        // Targets that flap must not keep this task busy.
                        tokio::select! {
                            () = tokio::time::sleep(HEALTH_INTERVAL) => {}
                            () = self.context.changed() => break,
                            _ = phases.wait_for(|phase| *phase != Phase::Running) => break,
                        }
                    }
                }
            }
        }
    }

    /// Brings the tasks in line with a state.
    fn follow(&mut self, state: &State) {
        let count = state.resolved.targets.len();
        let limit = state.settings.arguments.target_limit;
        let excess = (limit > 0 && count > limit).then_some(count);
        if excess.is_some() {
            self.instance.meters.exceeded_target_limit.inc();
        }
        let mut vitals: HashMap<&str, Arc<VitalCounters>> = HashMap::default();
        let mut cells = Vec::with_capacity(count);
        for handle in self.handles.values_mut() {
            handle.listed = false;
        }
        for target in &state.resolved.targets {
            let counters = vitals.entry(target.job()).or_insert_with(|| self.context.vitals(target.job()));
            if let Some(handle) = self.handles.get_mut(&target.key) {
                handle.listed = true;
                let known = &handle.assignment;
                let same = **target == *known.target
                    && Arc::ptr_eq(&known.settings, &state.settings)
                    && known.excess == excess;
                if !same {
                    handle.assignment = Arc::new(Assignment {
                        target: Arc::clone(target),
                        settings: Arc::clone(&state.settings),
                        vitals: Arc::clone(counters),
                        excess,
                    });
                }
                if !same || !matches!(*handle.orders.borrow(), Order::Scrape(_)) {
                    handle.orders.send_replace(Order::Scrape(Arc::clone(&handle.assignment)));
                }
                cells.push(Arc::clone(&handle.status));
                continue;
            }
            let assignment = Arc::new(Assignment {
                target: Arc::clone(target),
                settings: Arc::clone(&state.settings),
                vitals: Arc::clone(counters),
                excess,
            });
            let handle = self.start(assignment);
            cells.push(Arc::clone(&handle.status));
            self.handles.insert(target.key, handle);
        }
        for handle in self.handles.values().filter(|handle| !handle.listed) {
            if !matches!(*handle.orders.borrow(), Order::Remove) {
                handle.orders.send_replace(Order::Remove);
            }
        }
        self.instance.meters.targets.set(i64::try_from(count).unwrap_or(i64::MAX));
        let mut board = self.instance.board.lock();
        board.cells = cells;
        board.problems.clone_from(&state.resolved.problems);
        if let Some(count) = excess {
            board
                .problems
                .push(format!("target_limit exceeded (number of targets: {count}, limit: {limit})"));
        }
        let health = board.health();
        drop(board);
        self.context.set_health(health);
    }

    fn start(&mut self, assignment: Arc<Assignment>) -> Handle {
        let key = assignment.target.key;
        let status = status_of(&assignment.target);
        let (orders, receiver) = watch::channel(Order::Scrape(Arc::clone(&assignment)));
        let task = TargetTask::new(
            self.context.clone(),
            Arc::clone(&self.instance),
            Arc::clone(&assignment),
            Arc::clone(&status),
            receiver,
        );
        self.tasks.spawn(async move {
            task.run().await;
            key
        });
        Handle { orders, assignment, status, listed: true }
    }

    fn order_all(&self, order: impl Fn(&Handle) -> Order) {
        for handle in self.handles.values() {
            handle.orders.send_replace(order(handle));
        }
    }

    /// Forgets targets whose task has ended; answers whether one of them should go on.
    fn forget(&mut self, ended: Option<Result<u64, tokio::task::JoinError>>) -> bool {
        match ended {
            Some(Ok(key)) => self.handles.remove(&key).is_some_and(|handle| handle.listed),
            Some(Err(error)) => {
                // The target is not known; those without a task have nobody who listens.
                tracing::error!(node = %self.context.node(), %error, "the task of a target panicked");
                self.handles.retain(|_, handle| handle.orders.receiver_count() > 0);
                true
            }
            None => false,
        }
    }
}
