//! Labels `__type__` and `__unit__`, taken from the metadata that version 2 requests carry with each series.

use std::collections::HashMap;
use std::convert::Infallible;

use invar_telemetry::remote_write::SeriesMemory;
use invar_telemetry::{LabelsBuilder, METRIC_NAME, MetricBatch, MetricKind, MetricMetadata, Series};

const TYPE: &str = "__type__";
const UNIT: &str = "__unit__";

/// Gives all series of the batch their labels. The same series as before come out as the same series as before.
pub(super) fn add_labels(batch: &mut MetricBatch, memory: &SeriesMemory) {
    let families = batch.metadata.iter().filter(|of| of.kind != MetricKind::Unknown || !of.unit.is_empty());
    let families: HashMap<&str, &MetricMetadata> = families.map(|of| (of.family.as_str(), &**of)).collect();
    if families.is_empty() {
        return;
    }
    let mut writer = Writer { families, memory, builder: LabelsBuilder::new(), last: None };
    let series: Vec<Series> = batch.series.iter().map(|series| writer.labelled(series)).collect();
    for histogram in &mut batch.histograms {
        histogram.series = writer.labelled(&histogram.series);
    }
    for exemplar in &mut batch.exemplars {
        exemplar.series = writer.labelled(&exemplar.series);
    }
    batch.series = memory.list(series);
}

struct Writer<'a> {
    families: HashMap<&'a str, &'a MetricMetadata>,
    memory: &'a SeriesMemory,
    builder: LabelsBuilder,
    /// The series before and what became of it: samples of one series follow each other.
    last: Option<(Series, Series)>,
}

impl Writer<'_> {
    fn labelled(&mut self, series: &Series) -> Series {
        if let Some((from, to)) = &self.last
            && from.same(series)
        {
            return to.clone();
        }
        let labels = series.to_labels();
        let Some(metadata) = labels.get(METRIC_NAME).and_then(|name| self.families.get(name)) else {
            return series.clone();
        };
        self.builder.reset(&labels);
        // The metadata is what counts, also where it does not say one of the two.
        self.builder
            .set(TYPE, if metadata.kind == MetricKind::Unknown { "" } else { metadata.kind.as_str() });
        self.builder.set(UNIT, &metadata.unit);
        let pairs: Vec<(&str, &str)> = self.builder.iter().collect();
        let Ok(to) = self.memory.series(&pairs, || Ok::<_, Infallible>(self.builder.series()));
        self.last = Some((series.clone(), to.clone()));
        to
    }
}
