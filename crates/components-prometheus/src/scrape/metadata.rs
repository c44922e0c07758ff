//! What a target says about metric families: forwarded when it changes, and again after a while for receivers that came later.

use std::sync::Arc;

use foldhash::HashMap;
use invar_telemetry::exposition::{
    ExpositionSink, HistogramEvent, MetadataEvent, ParseOptions, SampleEvent, parse,
};
use invar_telemetry::{MetricKind, MetricMetadata};
use tokio::time::{Duration, Instant};

use super::fetch::Page;

/// How often everything is said again.
const REPEAT: Duration = Duration::from_secs(600);

/// What was said last. A steady page costs one comparison: only a hash of what it says is kept, and a page that says something else
/// is read once more for it.
#[derive(Debug, Default)]
pub(super) struct MetadataMemory {
    said: Option<(u64, Instant)>,
}

#[derive(Default)]
struct Collector {
    order: Vec<MetricMetadata>,
    places: HashMap<String, usize>,
}

// === impl MetadataMemory ===

impl MetadataMemory {
    /// Lets everything be said again with the next page.
    pub(super) fn forget(&mut self) {
        self.said = None;
    }

    /// What a page says, if its hash differs from the page's before.
    pub(super) fn changed(
        &mut self,
        hash: u64,
        page: &Page,
        options: &ParseOptions,
    ) -> Vec<Arc<MetricMetadata>> {
        if self.said.is_some_and(|(said, at)| said == hash && at.elapsed() < REPEAT) {
            return Vec::new();
        }
        self.said = Some((hash, Instant::now()));
        let mut collector = Collector::default();
        // It was read without an error just now.
        drop(parse(page.format, &page.body, options, &mut collector));
        collector.order.into_iter().map(Arc::new).collect()
    }
}

impl ExpositionSink for Collector {
    type Error = std::convert::Infallible;

    fn series(&mut self, _: SampleEvent<'_>) -> Result<(), Self::Error> {
        Ok(())
    }

    fn histogram(&mut self, _: HistogramEvent<'_>) -> Result<(), Self::Error> {
        Ok(())
    }

    fn metadata(&mut self, family: &str, metadata: MetadataEvent<'_>) -> Result<(), Self::Error> {
        let place = match self.places.get(family) {
            Some(place) => *place,
            None => {
                self.places.insert(family.to_owned(), self.order.len());
                self.order.push(MetricMetadata {
                    family: family.to_owned(),
                    kind: MetricKind::Unknown,
                    help: String::new(),
                    unit: String::new(),
                });
                self.order.len() - 1
            }
        };
        let known = &mut self.order[place];
        match metadata {
            MetadataEvent::Kind(kind) => known.kind = kind,
            MetadataEvent::Help(help) => help.clone_into(&mut known.help),
            MetadataEvent::Unit(unit) => unit.clone_into(&mut known.unit),
        }
        Ok(())
    }
}
