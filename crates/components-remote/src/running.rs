//! A component of this room in a running engine, for tests: a configuration is applied, and what it shows is looked at.

use std::time::Duration;

use invar_engine::{Configuration, Engine, EngineOptions, Inputs, PrepareMode, Registry};
use tempfile::TempDir;

pub(crate) struct Running {
    pub(crate) engine: Engine,
    _data: TempDir,
}

impl Running {
    /// An engine that runs this configuration, or why it does not.
    pub(crate) async fn start(configuration: &str) -> Result<Self, String> {
        let data = tempfile::tempdir().map_err(|error| error.to_string())?;
        let engine = Engine::new(EngineOptions::new(crate::register(Registry::new()), data.path()));
        let running = Self { engine, _data: data };
        running.apply(configuration).await?;
        Ok(running)
    }

    /// Swaps to this configuration, or says why not.
    pub(crate) async fn apply(&self, configuration: &str) -> Result<(), String> {
        let parsed = Configuration::parse([("main.alloy", configuration)], Inputs::default(), "test");
        let parsed = parsed.map_err(|error| format!("{error:?}"))?;
        let prepared = self.engine.prepare(parsed.into(), PrepareMode::AllOrNothing).await;
        let prepared = prepared.map_err(|failure| failure.to_string())?;
        self.engine.cut(prepared, |_| Ok::<_, String>(())).await.map_err(|error| error.to_string())?;
        self.engine.commit().await;
        Ok(())
    }

    /// Exports and health of a component as text.
    pub(crate) fn shown(&self, id: &str) -> (String, String) {
        let status = self.engine.component(id).expect("the configuration has the component");
        (status.exports.to_string(), format!("{} {}", status.health.state, status.health.message))
    }

    /// Waits until a component shows what `accept` takes.
    pub(crate) async fn until(&self, id: &str, accept: impl Fn(&str, &str) -> bool) {
        let waiting = async {
            loop {
                let (exports, health) = self.shown(id);
                if accept(&exports, &health) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        assert!(waited.is_ok(), "last seen: {:?}", self.shown(id));
    }
}
