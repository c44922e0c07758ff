//! The engine as a whole, with components made for it.

#![allow(clippy::unwrap_used)]

mod apply;
mod checks;
mod components;
mod expansion;
mod isolation;
mod modules;
mod rotation;
mod simulation;
mod tasks;
mod variables;
mod verdicts;
mod waves;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use invar_syntax::diagnostic::Diagnostics;
use invar_syntax::schema::Stability;
use invar_telemetry::{Labels, MetricBatch, Series, SeriesList, Timestamps};

use crate::configuration::{Configuration, Inputs};
use crate::definition::typed;
use crate::engine::{CutError, CutReport, Engine, EngineOptions, PrepareFailure, PrepareMode};
use crate::health::HealthState;
use crate::prepare::Prepared;
use crate::registry::Registry;
use components::{Book, Consumer, Pass, Sink, Source, Values};

/// An engine with the components of these tests.
struct Rig {
    engine: Engine,
    book: Arc<Book>,
    directory: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(adjust: impl FnOnce(&mut EngineOptions)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut options = EngineOptions::new(registry(), directory.path());
        options.minimum_stability = Stability::Experimental;
        options.wave_interval = Duration::from_millis(1);
        adjust(&mut options);
        let book = Arc::new(Book::default());
        options.services.insert(Arc::clone(&book));
        Self { engine: Engine::new(options), book, directory }
    }

    async fn prepare(&self, text: &str) -> Result<Prepared, PrepareFailure> {
        self.engine.prepare(configuration(text), PrepareMode::AllOrNothing).await
    }

    /// Swaps, on probation.
    async fn candidate(&self, text: &str) -> CutReport {
        let prepared = self.prepare(text).await.unwrap();
        self.cut(prepared).await.unwrap()
    }

    /// Swaps and commits.
    async fn apply(&self, text: &str) -> CutReport {
        let report = self.candidate(text).await;
        self.engine.commit().await;
        report
    }

    async fn cut(&self, prepared: Prepared) -> Result<CutReport, CutError<Infallible>> {
        self.engine.cut(prepared, |_| Ok(())).await
    }

    async fn offer(&self, node: &str, number: u64) -> Result<(), crate::DeliveryError> {
        self.engine.offer_metrics(node, "receiver", batch(number)).await
    }

    fn instance_number(&self, node: &str) -> String {
        self.engine.component(node).unwrap().instance.unwrap()
    }

    fn health(&self, node: &str) -> (HealthState, String) {
        let health = self.engine.component(node).unwrap().health;
        (health.state, health.message)
    }

    fn state_of<C: crate::Component>(&self, node: &str) -> Arc<C::State> {
        typed(&self.engine.unit_of(node).unwrap().state)
    }

    fn instance_of<C: crate::Component>(&self, node: &str) -> Arc<C::Instance> {
        typed(self.engine.unit_of(node).unwrap().cell.instance())
    }

    async fn shutdown(self) {
        self.engine.shutdown(Duration::from_secs(10)).await;
    }
}

pub(crate) fn registry() -> Registry {
    Registry::new().with::<Source>().with::<Pass>().with::<Sink>().with::<Values>().with::<Consumer>()
}

fn parse(text: &str) -> Result<Configuration, Diagnostics> {
    Configuration::parse([("main.alloy", text)], Inputs::default(), "test")
}

pub(crate) fn configuration(text: &str) -> Arc<Configuration> {
    Arc::new(parse(text).unwrap())
}

/// A batch of one sample that carries its number.
fn batch(number: u64) -> Arc<MetricBatch> {
    let series = SeriesList::new(vec![Series::new(&Labels::default())]);
    #[allow(clippy::cast_precision_loss)]
    Arc::new(MetricBatch::new(series, vec![number as f64], Timestamps::One(0)))
}

/// Waits until `condition` holds.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let polling = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(20), polling).await.is_ok(),
        "waited in vain until {what}"
    );
}
