//! The writer: the one place that replaces the running generation. Its steps are synchronous and run under one short lock, so
//! that a verdict never waits for a preparation, a component or the network.

use std::sync::Arc;
use std::time::Instant;

use foldhash::{HashMap, HashSet};

use crate::aside::aside;
use crate::definition::ErasedTransition;
use crate::engine::{CutError, CutReport, RollbackReport, Shared};
use crate::generation::{Generation, Occupant, Place, Retained, Unit};
use crate::logging::{self, LogSettings};
use crate::node::NodeId;
use crate::prepare::Prepared;
use crate::run::Phase;
use crate::vitals::Baseline;

/// What only the writer changes beside the running generation.
pub(crate) struct Writer {
    /// The id of the last generation that was announced.
    pub(crate) last_id: u64,
    /// What a rollback goes back to; none once the running configuration is committed.
    pub(crate) retained: Option<Arc<Retained>>,
    /// The vitals at the cut.
    pub(crate) baseline: Arc<Baseline>,
    /// The log settings that apply, and those a rollback goes back to.
    logging: LogSettings,
    retained_logging: LogSettings,
}

/// Why a generation is replaced.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Cause {
    Cut,
    Wave,
    Rollback,
}

/// What happened to the nodes when a generation was replaced.
#[derive(Default)]
struct Settled {
    kept: Vec<NodeId>,
    updated: Vec<NodeId>,
    started: Vec<NodeId>,
    unparked: Vec<NodeId>,
    parked: Vec<NodeId>,
    retired: Vec<NodeId>,
}

/// How an attempt to cut ended.
enum Attempted<E> {
    Done(CutReport),
    /// The epoch has moved: catch up.
    Moved(Prepared),
    Refused(CutError<E>),
}

// === impl Writer ===

impl Writer {
    pub(crate) fn new(last_id: u64) -> Self {
        Self {
            last_id,
            retained: None,
            baseline: Arc::default(),
            logging: LogSettings::default(),
            retained_logging: LogSettings::default(),
        }
    }
}

impl Shared {
    /// The running generation and what is retained beside it, as of one moment.
    pub(crate) fn base(&self) -> (Arc<Generation>, Option<Arc<Retained>>) {
        let writer = self.writer.lock();
        (self.root.current(), writer.retained.clone())
    }

    /// Swaps to what was prepared; catches up with epochs that passed since.
    pub(crate) async fn cut<E: Send + 'static>(
        self: &Arc<Self>,
        mut prepared: Prepared,
        swapped: impl FnOnce(u64) -> Result<(), E> + Send + 'static,
    ) -> Result<CutReport, CutError<E>> {
        let mut swapped = Some(swapped);
        // Waves wait: none finds the lock taken while the disk is waited for, and the second round finds nothing that moved.
        let _pause = self.pause_waves();
        loop {
            let shared = Arc::clone(self);
            // It waits for the disk and looks at every node.
            let attempt = aside(move || {
                let attempted = shared.try_cut(prepared, &mut swapped);
                (attempted, swapped)
            });
            let attempted;
            (attempted, swapped) = attempt.await;
            match attempted {
                Attempted::Done(report) => return Ok(report),
                Attempted::Refused(error) => return Err(error),
                Attempted::Moved(moved) => {
                    prepared = self.catch_up(moved).await.map_err(CutError::Prepare)?;
                }
            }
        }
    }

    fn try_cut<E>(
        self: &Arc<Self>,
        prepared: Prepared,
        swapped: &mut Option<impl FnOnce(u64) -> Result<(), E>>,
    ) -> Attempted<E> {
        let mut writer = self.writer.lock();
        let current = self.root.current();
        if current.id != prepared.base.id {
            return Attempted::Refused(CutError::Superseded);
        }
        if current.epoch != prepared.base.epoch {
            drop(writer);
            return Attempted::Moved(prepared);
        }
        // A verdict may have retired what was to be taken over: that ends, and cannot run again.
        if prepared.places.iter().filter_map(Place::unit).any(|unit| unit.cell.is_retired()) {
            drop(writer);
            return Attempted::Moved(prepared);
        }
        let id = writer.last_id + 1;
        let Prepared { configuration, graph, places, logging, .. } = prepared;
        let next = Arc::new(Generation::assemble(id, 0, configuration, graph, places));
        let first_cut = writer.retained.is_none();
        let retained = writer.retained.clone().unwrap_or_else(|| Arc::new(Retained::of(&current)));
        if let Some(Err(error)) = swapped.take().map(|swapped| swapped(id)) {
            return Attempted::Refused(CutError::Record(error));
        }
        // Nothing fallible from here on.
        writer.last_id = id;
        writer.baseline = Arc::new(Baseline::of(&current));
        let settled = self.publish(&mut writer, &next, Some(retained), Cause::Cut);
        if first_cut {
            writer.retained_logging = writer.logging.clone();
        }
        writer.logging = logging.unwrap_or_default();
        logging::apply(&self.host.services, &writer.logging);
        drop(writer);
        self.root.wake_waves();
        let failed =
            next.graph.nodes.iter().zip(&next.slots).filter_map(|(node, slot)| match &slot.place.occupant {
                Occupant::Failed(failure) => Some((node.id.clone(), failure.reason.clone())),
                Occupant::Ready(_) | Occupant::Value(_) => None,
            });
        let mut started = settled.started;
        started.extend(settled.unparked);
        Attempted::Done(CutReport {
            generation: id,
            kept: settled.kept,
            updated: settled.updated,
            started,
            parked: settled.parked,
            failed: failed.collect(),
        })
    }

    /// Replaces the running generation by another epoch of it, if nothing else has replaced it meanwhile.
    pub(crate) fn store_epoch(
        self: &Arc<Self>,
        base: &Arc<Generation>,
        base_retained: Option<&Arc<Retained>>,
        next: Generation,
        retained: Option<Arc<Retained>>,
    ) -> bool {
        let mut writer = self.writer.lock();
        let unmoved = Arc::ptr_eq(&self.root.current(), base)
            && writer.retained.as_ref().map(Arc::as_ptr) == base_retained.map(Arc::as_ptr);
        if unmoved {
            let next = Arc::new(next);
            self.publish(&mut writer, &next, retained.clone(), Cause::Wave);
            // What the retained configuration no longer has, and nothing else.
            let units = |retained: Option<&Arc<Retained>>| -> Vec<Arc<Unit>> {
                retained
                    .iter()
                    .flat_map(|retained| &retained.places)
                    .filter_map(Place::unit)
                    .cloned()
                    .collect()
            };
            let kept: HashSet<u64> = units(retained.as_ref())
                .iter()
                .chain(next.units())
                .chain(base.units())
                .map(|unit| unit.cell.number())
                .collect();
            for unit in units(base_retained) {
                if !kept.contains(&unit.cell.number()) {
                    self.retire(&unit.cell);
                }
            }
        }
        unmoved
    }

    /// Keeps what was prepared as the configuration to roll back to.
    pub(crate) fn retain(&self, prepared: Prepared) -> Result<(), Prepared> {
        let mut writer = self.writer.lock();
        if self.root.current().graph.len() > 0 || writer.retained.is_some() {
            drop(writer);
            return Err(prepared);
        }
        let Prepared { configuration, graph, places, logging, .. } = prepared;
        for unit in places.iter().filter_map(|place| place.unit()) {
            unit.cell.set_phase(Phase::Parked);
        }
        writer.retained = Some(Arc::new(Retained { configuration, graph, places }));
        writer.retained_logging = logging.unwrap_or_default();
        writer.logging = writer.retained_logging.clone();
        Ok(())
    }

    /// The verdict for the running configuration.
    pub(crate) fn commit(self: &Arc<Self>) {
        let mut writer = self.writer.lock();
        let Some(retained) = writer.retained.take() else { return };
        let current = self.root.current();
        let staying: HashSet<u64> = current.units().map(|unit| unit.cell.number()).collect();
        for unit in current.units() {
            let digest = &current.configuration.digest;
            unit.cell.transition(ErasedTransition::Committed { state: &unit.state, digest });
        }
        for unit in retained.places.iter().filter_map(|place| place.unit()) {
            if !staying.contains(&unit.cell.number()) {
                self.retire(&unit.cell);
            }
        }
        drop(writer);
        drop(retained);
    }

    /// The verdict against the running configuration.
    pub(crate) fn rollback(self: &Arc<Self>) -> RollbackReport {
        let mut writer = self.writer.lock();
        let Some(retained) = writer.retained.take() else {
            let current = self.root.current();
            return RollbackReport {
                generation: current.id,
                digest: current.configuration.digest.clone(),
                restored: Vec::new(),
                retired: Vec::new(),
            };
        };
        let id = writer.last_id + 1;
        writer.last_id = id;
        let (configuration, graph) = (Arc::clone(&retained.configuration), Arc::clone(&retained.graph));
        let next = Arc::new(Generation::assemble(id, 0, configuration, graph, retained.places.clone()));
        let settled = self.publish(&mut writer, &next, None, Cause::Rollback);
        writer.logging = writer.retained_logging.clone();
        logging::apply(&self.host.services, &writer.logging);
        drop(writer);
        self.meters.rollbacks.inc();
        self.root.wake_waves();
        let mut restored = settled.updated;
        restored.extend(settled.unparked);
        restored.extend(settled.started);
        RollbackReport {
            generation: id,
            digest: next.configuration.digest.clone(),
            restored,
            retired: settled.retired,
        }
    }

    /// The store, and what follows it at once.
    fn publish(
        self: &Arc<Self>,
        writer: &mut Writer,
        next: &Arc<Generation>,
        retained: Option<Arc<Retained>>,
        cause: Cause,
    ) -> Settled {
        let old = self.root.current();
        let staying: HashSet<u64> = next.units().map(|unit| unit.cell.number()).collect();
        for unit in old.units() {
            if !staying.contains(&unit.cell.number()) {
                unit.cell.hold_drain_lease(&old);
            }
        }
        let started = Instant::now();
        self.root.store(Arc::clone(next));
        old.close();
        self.meters.swap_seconds.observe(started.elapsed().as_secs_f64());
        let settled = self.settle(&old, next, retained.as_deref(), cause);
        writer.retained = retained;
        self.watch_until_quiet(old);
        settled
    }

    /// Wakes what changed, starts what is new, parks or retires what is gone.
    fn settle(
        self: &Arc<Self>,
        old: &Arc<Generation>,
        next: &Arc<Generation>,
        retained: Option<&Retained>,
        cause: Cause,
    ) -> Settled {
        let mut settled = Settled::default();
        let before: HashMap<u64, &Arc<Unit>> = old.units().map(|unit| (unit.cell.number(), unit)).collect();
        let mut starting = Vec::new();
        // Those that change first: what they take note of is the position of the cut.
        for index in next.graph.order() {
            let Some(unit) = next.slot(*index).unit() else { continue };
            let node = unit.cell.node().clone();
            match before.get(&unit.cell.number()) {
                Some(from) if Arc::ptr_eq(from, unit) => settled.kept.push(node),
                Some(from) => {
                    announce(unit, Some(from), next, retained.is_some(), cause);
                    settled.updated.push(node);
                }
                None => starting.push(unit),
            }
        }
        for unit in starting {
            let node = unit.cell.node().clone();
            if unit.cell.phase_now() == Phase::Parked && unit.cell.has_run() {
                unit.cell.transition(ErasedTransition::Unparked);
                announce(unit, None, next, retained.is_some(), cause);
                unit.cell.release_drain_lease();
                unit.cell.set_phase(Phase::Running);
                settled.unparked.push(node);
            } else {
                let (digest, candidate) = (&*next.configuration.digest, retained.is_some());
                unit.cell.transition(ErasedTransition::Started { state: &unit.state, digest, candidate });
                self.start(&unit.cell);
                settled.started.push(node);
            }
        }
        let staying: HashSet<u64> = next.units().map(|unit| unit.cell.number()).collect();
        let kept_back: HashSet<u64> = retained
            .iter()
            .flat_map(|retained| &retained.places)
            .filter_map(|place| place.unit())
            .map(|unit| unit.cell.number())
            .collect();
        // Dependants before what they depend on: sources stop first.
        for index in old.graph.order().iter().rev() {
            let Some(unit) = old.slot(*index).unit() else { continue };
            let number = unit.cell.number();
            if staying.contains(&number) {
                continue;
            }
            let node = unit.cell.node().clone();
            if kept_back.contains(&number) {
                unit.cell.transition(ErasedTransition::Parked);
                unit.cell.set_phase(Phase::Parked);
                settled.parked.push(node);
            } else {
                if cause == Cause::Rollback {
                    let digest = &*next.configuration.digest;
                    unit.cell.transition(ErasedTransition::RolledBack { to: None, digest });
                }
                self.retire(&unit.cell);
                settled.retired.push(node);
            }
        }
        settled
    }
}

/// Tells an instance that it goes on under another state.
fn announce(unit: &Arc<Unit>, from: Option<&Arc<Unit>>, next: &Generation, candidate: bool, cause: Cause) {
    let digest = &*next.configuration.digest;
    let to = &unit.state;
    unit.cell.health().evaluated();
    unit.cell.transition(match cause {
        Cause::Rollback => ErasedTransition::RolledBack { to: Some(to), digest },
        Cause::Cut | Cause::Wave => {
            ErasedTransition::Swapped { from: from.map(|from| &from.state), to, digest, candidate }
        }
    });
    unit.cell.bump_version();
}
