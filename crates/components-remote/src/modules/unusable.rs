//! A module whose import cannot work as it is written: a source that says why whenever it is asked.

use std::sync::Arc;
use std::time::Duration;

use invar_engine::modules::ModuleKind;
use invar_sources::{
    BoxFuture, ErrorClass, Poll, PollContext, Snapshot, Source, SourceError, SourceKind, SourceName,
};

#[derive(Debug)]
struct Unusable {
    kind: SourceKind,
    error: SourceError,
}

/// A source that always fails with this.
pub(super) fn source(
    name: &SourceName,
    kind: ModuleKind,
    message: String,
    help: Option<String>,
) -> Arc<dyn Source> {
    let kind = match kind {
        ModuleKind::Git => SourceKind::Git,
        ModuleKind::Http => SourceKind::Http,
        ModuleKind::RemoteConfig => SourceKind::RemoteConfig,
        ModuleKind::File | ModuleKind::String => SourceKind::File,
    };
    let error = SourceError { class: ErrorClass::Stalled, message, help, source_name: name.clone() };
    Arc::new(Unusable { kind, error })
}

impl Source for Unusable {
    fn name(&self) -> &SourceName {
        &self.error.source_name
    }

    fn kind(&self) -> SourceKind {
        self.kind
    }

    fn description(&self) -> String {
        "an import that cannot work".to_owned()
    }

    fn interval(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn timeout(&self, _first: bool) -> Duration {
        Duration::from_secs(1)
    }

    fn poll<'a>(
        &'a self,
        _previous: Option<&'a Snapshot>,
        _context: &'a PollContext,
    ) -> BoxFuture<'a, Result<Poll, SourceError>> {
        Box::pin(std::future::ready(Err(self.error.clone())))
    }

    fn is_atomic(&self) -> bool {
        true
    }

    fn required(&self) -> bool {
        false
    }
}
