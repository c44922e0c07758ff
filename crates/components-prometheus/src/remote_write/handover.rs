//! What a rolled-back candidate's log did not deliver, appended to the log that the candidate had taken away.

use std::sync::Arc;

use invar_telemetry::batch::ExemplarSample;
use invar_telemetry::remote_write::message::{ExemplarMessage, parse_histogram};
use invar_telemetry::{HistogramSample, MetricBatch, SeriesList, Timestamps};

use super::node_log::NodeLog;
use crate::wal::{AppendError, Content, Entry, Position, Reader};

/// What was handed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct HandedOver {
    /// Float samples and histograms.
    pub(super) samples: usize,
    /// Exemplars.
    pub(super) exemplars: usize,
}

/// Copies everything from `from` on to the end of another log, durably. Blocks on the disk.
///
/// # Errors
/// When reading or writing fails; the part that was copied will be sent twice if it is copied again.
pub(super) fn hand_over(source: &NodeLog, from: Position, heir: &NodeLog) -> Result<HandedOver, AppendError> {
    let mut reader = Reader::new(Arc::clone(&source.log), from);
    let mut done = HandedOver::default();
    // Metadata that came before is known to the reader only once it has read something.
    let mut families_known = false;
    while let Some(entry) = reader.next_entry()? {
        let mut batch = batch(&entry);
        if !std::mem::replace(&mut families_known, true) {
            batch.metadata.extend(entry.definitions.families().cloned());
        }
        done.exemplars += batch.exemplars.len();
        done.samples += heir.log.append_overdue(&batch)?.samples;
    }
    heir.log.sync()?;
    Ok(done)
}

fn batch(entry: &Entry<'_>) -> MetricBatch {
    let (mut series, mut values, mut timestamps, mut created) = (vec![], vec![], vec![], vec![]);
    entry.each_sample(|reference, timestamp, value| {
        if let Some(found) = entry.definitions.series(reference) {
            created.extend(entry.definitions.created(reference).map(|at| (series.len() as u32, at)));
            series.push(found.clone());
            values.push(value);
            timestamps.push(timestamp);
        }
    });
    let mut batch = MetricBatch::new(SeriesList::new(series), values, Timestamps::Each(timestamps));
    batch.created = created;
    entry.each_histogram(|record| {
        if let (Some(series), Ok(message)) =
            (entry.definitions.series(record.series), parse_histogram(record.message))
        {
            batch.histograms.push(HistogramSample {
                series: series.clone(),
                timestamp: record.timestamp,
                histogram: Arc::new(message.histogram),
                created: record.created,
            });
        }
    });
    entry.each_exemplar(|reference, message| {
        if let (Some(series), Ok(message)) =
            (entry.definitions.series(reference), ExemplarMessage::parse(message))
        {
            batch.exemplars.push(ExemplarSample { series: series.clone(), exemplar: message.to_exemplar() });
        }
    });
    if let Content::Metadata(metadata) = &entry.content {
        batch.metadata.push(Arc::clone(metadata));
    }
    batch
}
