//! The log against kills at every byte, and the legs against every sequence of cuts and verdicts.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use invar_telemetry::batch::{Exemplar, ExemplarSample};
use invar_telemetry::{Labels, MetricBatch, MetricKind, MetricMetadata, Series, SeriesList, Timestamps};
use proptest::prelude::*;

use super::*;

fn series(name: &str, index: usize) -> Series {
    let labels: Labels = [("__name__", name), ("index", &format!("{index}"))].into_iter().collect();
    Series::new(&labels)
}

fn list(name: &str, count: usize) -> Arc<SeriesList> {
    SeriesList::new((0..count).map(|index| series(name, index)).collect::<Vec<_>>())
}

fn batch(list: &Arc<SeriesList>, timestamp: i64) -> MetricBatch {
    let values = (0..list.len()).map(|index| timestamp as f64 + index as f64 / 1000.0).collect();
    MetricBatch::new(list.clone(), values, Timestamps::One(timestamp))
}

type Read = Vec<(String, i64, u64)>;

fn read_from(log: &Arc<Log>, position: Position) -> Read {
    let mut reader = Reader::new(log.clone(), position);
    let mut out = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut found = Vec::new();
        entry.each_sample(|reference, timestamp, value| found.push((reference, timestamp, value)));
        for (reference, timestamp, value) in found {
            let series = entry.definitions.series(reference).unwrap().to_string();
            out.push((series, timestamp, value.to_bits()));
        }
    }
    out
}

fn expected(batches: &[MetricBatch]) -> Read {
    batches
        .iter()
        .flat_map(|b| b.samples().map(|(s, t, v)| (s.to_string(), t, v.to_bits())).collect::<Vec<_>>())
        .collect()
}

fn open(directory: &Path) -> Arc<Log> {
    Arc::new(Log::open(directory, LogOptions { limit: 1 << 30, segment: 1 << 20 }).unwrap())
}

#[test]
fn a_steady_list_is_a_column_of_eight_bytes_a_sample() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let list = list("steady", 1000);
    log.append(&batch(&list, 1)).unwrap();
    log.append(&batch(&list, 2)).unwrap();
    let before = log.end().offset;
    assert_eq!(log.append(&batch(&list, 3)).unwrap(), Appended { samples: 1000, out_of_order: 0 });
    assert_eq!(log.end().offset - before, 8000 + 12 + 9);
}

#[test]
fn what_is_not_newer_is_refused_per_series() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let wide = list("ooo", 3);
    log.append(&batch(&wide, 10)).unwrap();
    assert_eq!(log.append(&batch(&wide, 10)).unwrap(), Appended { samples: 0, out_of_order: 3 });
    assert_eq!(log.append(&batch(&wide, 11)).unwrap().samples, 3);
    // Another list with one of the series: only that one is overtaken.
    let other = SeriesList::new(vec![series("ooo", 0), series("fresh", 0)]);
    assert_eq!(log.append(&batch(&other, 11)).unwrap(), Appended { samples: 1, out_of_order: 1 });
    // The same series twice in one batch.
    let twice = SeriesList::new(vec![series("twice", 0), series("twice", 0)]);
    let each = MetricBatch::new(twice, vec![1.0, 2.0], Timestamps::Each(vec![5, 4]));
    assert_eq!(log.append(&each).unwrap(), Appended { samples: 1, out_of_order: 1 });
    assert_eq!(log.counters().out_of_order.load(std::sync::atomic::Ordering::Relaxed), 5);
    assert_eq!(read_from(&log, Position::default()).len(), 3 + 3 + 1 + 1);
}

#[test]
fn exemplars_and_metadata_are_written_once() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let list = list("m", 1);
    let mut sample = batch(&list, 1);
    sample.exemplars.push(ExemplarSample {
        series: list[0].clone(),
        exemplar: Exemplar { labels: [("t", "1")].into_iter().collect(), value: 2.0, timestamp: Some(3) },
    });
    sample.metadata.push(Arc::new(MetricMetadata {
        family: "m".into(),
        kind: MetricKind::Gauge,
        help: "Help.".into(),
        unit: String::new(),
    }));
    sample.created.push((0, 77));
    log.append(&sample).unwrap();
    sample.timestamps = Timestamps::One(2);
    log.append(&sample).unwrap();
    let mut reader = Reader::new(log, Position::default());
    let (mut exemplars, mut metadata, mut created) = (0, 0, None);
    while let Some(entry) = reader.next_entry().unwrap() {
        entry.each_exemplar(|_, _| exemplars += 1);
        metadata += usize::from(matches!(&entry.content, Content::Metadata(found) if found.help == "Help."));
        entry.each_sample(|reference, _, _| created = entry.definitions.created(reference));
    }
    assert_eq!((exemplars, metadata, created), (1, 1, Some(77)));
}

/// A crash may leave any prefix of the file: what was whole is read, what was torn is not, and appending goes on.
#[test]
fn every_cut_of_the_file_keeps_the_whole_records() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let wide = list("cut", 5);
    let batches: Vec<_> = (1..=4).map(|timestamp| batch(&wide, timestamp)).collect();
    let mut ends = vec![0];
    for batch in &batches {
        log.append(batch).unwrap();
        ends.push(log.end().offset);
    }
    log.sync().unwrap();
    let segment = log.end().segment;
    let path = frame::segment_path(directory.path(), segment);
    let content = std::fs::read(&path).unwrap();
    assert_eq!(content.len() as u64, log.end().offset);
    drop(log);
    for cut in 0..=content.len() {
        let copy = tempfile::tempdir().unwrap();
        std::fs::write(frame::segment_path(copy.path(), segment), &content[..cut]).unwrap();
        let log = open(copy.path());
        let next = batch(&wide, 9);
        log.append(&next).unwrap();
        let whole = ends.iter().filter(|end| **end > 0 && **end <= cut as u64).count();
        let mut wanted = expected(&batches[..whole]);
        wanted.extend(expected(&[next]));
        assert_eq!(read_from(&log, Position::default()), wanted, "cut at {cut}");
        // Resuming at each batch's end loads what is needed and nothing before it.
        for (index, end) in ends.iter().enumerate().skip(1).filter(|(_, end)| **end <= cut as u64) {
            let from = Position { segment, offset: *end };
            let mut wanted = expected(&batches[index..whole]);
            wanted.extend(expected(&[batch(&wide, 9)]));
            assert_eq!(read_from(&log, from), wanted, "cut at {cut}, resumed at {end}");
        }
    }
}

#[test]
fn only_named_series_are_loaded_again() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    log.append(&batch(&list("explosion", 10_000), 1)).unwrap();
    let small = list("small", 3);
    log.append(&batch(&small, 1)).unwrap();
    let from = log.end();
    log.append(&batch(&small, 2)).unwrap();
    drop(log);
    let log = open(directory.path());
    log.append(&batch(&small, 3)).unwrap();
    let mut reader = Reader::new(log, from);
    let entry = reader.next_entry().unwrap().unwrap();
    assert_eq!(entry.definitions.len(), 3);
}

/// A reader that enters the segment being written cannot know what will be named: it must not miss a list that was
/// defined before its position and is used again only later.
#[test]
fn a_reader_of_the_living_segment_understands_what_comes_later() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let (early, late) = (list("early", 3), list("late", 3));
    for timestamp in 1..=2 {
        log.append(&batch(&early, timestamp)).unwrap();
        log.append(&batch(&late, timestamp)).unwrap();
    }
    let mut reader = Reader::new(log.clone(), log.end());
    log.append(&batch(&early, 3)).unwrap();
    assert!(reader.next_entry().unwrap().is_some());
    log.append(&batch(&late, 3)).unwrap();
    // A new list of series that are all known already.
    log.append(&batch(&SeriesList::new(vec![late[2].clone(), early[0].clone()]), 4)).unwrap();
    let mut samples = 0;
    while let Some(entry) = reader.next_entry().unwrap() {
        entry.each_sample(|reference, _, _| {
            samples += 1;
            let series = entry.definitions.series(reference).unwrap();
            // The handles are the writer's own: labels are not in memory twice.
            assert!(early.iter().chain(late.iter()).any(|known| known.same(series)));
        });
    }
    assert_eq!(samples, 5);
}

#[test]
fn segments_roll_and_only_the_passed_ones_go() {
    let directory = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::open(directory.path(), LogOptions { limit: 1 << 30, segment: 4096 }).unwrap());
    let wide = list("roll", 50);
    let batches: Vec<_> = (1..=100).map(|timestamp| batch(&wide, timestamp)).collect();
    for batch in &batches {
        log.append(batch).unwrap();
    }
    assert!(log.end().segment > 5);
    assert_eq!(read_from(&log, Position::default()), expected(&batches));
    log.hold(7, Position::start_of(4));
    assert_eq!(log.truncate(Duration::ZERO, Duration::from_secs(3600), SystemTime::now()), 0);
    assert_eq!(log.oldest(), Position::start_of(4));
    let forced = log.truncate(Duration::ZERO, Duration::ZERO, SystemTime::now() + Duration::from_secs(1));
    assert!(forced > 0);
    assert_eq!(log.oldest().segment, log.end().segment);
}

#[test]
fn a_full_log_slows_producers_only_if_every_leg_lags() {
    let directory = tempfile::tempdir().unwrap();
    let options = LogOptions { limit: 32 << 10, segment: 4 << 10 };
    let log = Arc::new(Log::open(directory.path(), options).unwrap());
    let wide = list("full", 100);
    log.hold(1, log.end());
    log.hold(2, log.end());
    let mut timestamp = 0;
    let refused = loop {
        timestamp += 1;
        if let Err(error) = log.append(&batch(&wide, timestamp)) {
            break error;
        }
    };
    assert!(matches!(refused, AppendError::Full));
    assert!(matches!(log.append(&batch(&wide, timestamp)), Err(AppendError::Full)));
    // One leg catches up: now the other one loses its place, counted.
    log.hold(1, log.end());
    log.append(&batch(&wide, timestamp)).unwrap();
    assert!(log.counters().forced_bytes.load(std::sync::atomic::Ordering::Relaxed) > 0);
    assert!(log.bytes() <= options.limit);
    assert_eq!(read_from(&log, Position::default()).last().unwrap().1, timestamp);
}

/// A segment in place of which something lies that cannot be deleted.
#[test]
fn a_segment_that_cannot_be_deleted_is_not_counted_as_lost_and_fills_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let options = LogOptions { limit: 32 << 10, segment: 4 << 10 };
    let log = Arc::new(Log::open(directory.path(), options).unwrap());
    let wide = list("stuck", 100);
    log.append(&batch(&wide, 1)).unwrap();
    let first = log.end();
    let path = frame::segment_path(directory.path(), first.segment);
    std::fs::rename(&path, directory.path().join("kept")).unwrap();
    std::fs::create_dir(&path).unwrap();
    log.hold(1, first);
    let mut timestamp = 1;
    let refused = loop {
        timestamp += 1;
        log.hold(2, log.end());
        if let Err(error) = log.append(&batch(&wide, timestamp)) {
            break error;
        }
    };
    assert!(matches!(refused, AppendError::Full));
    log.truncate(Duration::ZERO, Duration::ZERO, SystemTime::now() + Duration::from_secs(1));
    assert_eq!(log.counters().forced_samples.load(std::sync::atomic::Ordering::Relaxed), 0);
    // It can again: nothing was forgotten meanwhile.
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(directory.path().join("kept"), &path).unwrap();
    log.hold(2, log.end());
    log.append(&batch(&wide, timestamp)).unwrap();
    assert!(log.counters().forced_samples.load(std::sync::atomic::Ordering::Relaxed) > 0);
}

/// What a laggard does at the limit of its log.
#[derive(Debug, Clone)]
enum Lagging {
    /// As many batches come.
    Append(usize),
    /// It reads as many records.
    Read(usize),
    /// It tells what it has lost.
    Tell,
    /// The log is truncated by age, needed or not.
    Expire,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whenever segments are deleted before a reader comes to them, and whenever it is asked: what it has read and what it
    /// has lost is all there was, and no sample is in both.
    #[test]
    fn a_laggard_reads_or_counts_every_sample(steps in prop::collection::vec(
        prop_oneof![
            4 => (1usize..30).prop_map(Lagging::Append),
            4 => (1usize..12).prop_map(Lagging::Read),
            2 => Just(Lagging::Tell),
            1 => Just(Lagging::Expire),
        ],
        1..40,
    )) {
        let directory = tempfile::tempdir().unwrap();
        let options = LogOptions { limit: 8 << 10, segment: 1 << 10 };
        let log = Arc::new(Log::open(directory.path(), options).unwrap());
        let wide = list("lag", 20);
        let mut reader = Reader::new(log.clone(), log.end());
        let (mut fed, mut read, mut lost) = (0, BTreeSet::new(), 0);
        let mut read_some = |reader: &mut Reader, records: usize| {
            for _ in 0..records {
                let Some(entry) = reader.next_entry().unwrap() else { break };
                entry.each_sample(|reference, timestamp, _| assert!(read.insert((reference, timestamp))));
            }
            read.len()
        };
        for step in steps.into_iter().chain([Lagging::Read(usize::MAX), Lagging::Tell]) {
            match step {
                Lagging::Append(batches) => for _ in 0..batches {
                    fed += 1;
                    log.hold(1, reader.position());
                    log.hold(2, log.end());
                    log.append(&batch(&wide, fed)).unwrap();
                },
                Lagging::Read(records) => {
                    read_some(&mut reader, records);
                }
                Lagging::Tell => lost += reader.take_lost(),
                Lagging::Expire => {
                    log.truncate(Duration::ZERO, Duration::ZERO, SystemTime::now() + Duration::from_secs(1));
                }
            }
        }
        prop_assert_eq!(read_some(&mut reader, 0) as u64 + lost, 20 * fed as u64);
    }
}

/// Between two looks at its losses a reader leaves the segment that it has open, and enters one behind those deleted.
#[test]
fn what_was_deleted_since_a_reader_told_its_losses_is_counted_when_it_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::open(directory.path(), LogOptions { limit: 1 << 30, segment: 4 << 10 }).unwrap());
    let wide = list("skipped", 100);
    let mut reader = Reader::new(log.clone(), log.end());
    log.append(&batch(&wide, 1)).unwrap();
    log.hold(1, reader.position());
    let mut read = 0;
    let mut read_next = |reader: &mut Reader| match reader.next_entry().unwrap() {
        Some(entry) => {
            entry.each_sample(|_, _, _| read += 1);
            true
        }
        None => false,
    };
    assert!(read_next(&mut reader));
    for timestamp in 2..=100 {
        log.append(&batch(&wide, timestamp)).unwrap();
    }
    assert_eq!(reader.take_lost(), 0);
    log.truncate(Duration::MAX, Duration::ZERO, SystemTime::now() + Duration::from_secs(1));
    while read_next(&mut reader) {}
    let lost = reader.take_lost();
    assert!(lost > 5000);
    assert_eq!(read + lost, 100 * 100);
    assert_eq!(reader.take_lost(), 0);
}

#[test]
fn a_reader_loses_nothing_behind_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::open(directory.path(), LogOptions { limit: 1 << 30, segment: 4 << 10 }).unwrap());
    let wide = list("until", 100);
    let from = log.end();
    log.hold(1, from);
    let mut cut = from;
    for timestamp in 1..=100 {
        log.append(&batch(&wide, timestamp)).unwrap();
        if timestamp == 42 {
            cut = log.end();
        }
    }
    log.truncate(Duration::MAX, Duration::ZERO, SystemTime::now() + Duration::from_secs(1));
    let mut before = Reader::new(log.clone(), from).until(Some(cut));
    let mut behind = Reader::new(log.clone(), cut);
    let (lost_before, lost_behind) = (before.take_lost(), behind.take_lost());
    let kept = read_from(&log, cut).len() as u64;
    assert!(lost_before.abs_diff(4200) < 500, "{lost_before}");
    // Of the segment that the cut divides each has an estimate; together they are exact.
    assert_eq!(lost_before + lost_behind + kept, 100 * 100);
}

// --- legs ---

fn at(offset: u64) -> Position {
    Position { segment: 1, offset }
}

fn endpoint(key: &str, url: &str, settings: u64) -> EndpointIdentity {
    EndpointIdentity { key: key.into(), url: url.into(), settings }
}

/// A world in which a sample is an offset: what each configuration delivered, and to which legs.
struct World {
    legs: Legs,
    stored: Legs,
    end: u64,
    /// Offsets delivered by legs that the committed configuration had at that time, or that a superseded or committed
    /// candidate had: everything but what a rolled-back candidate alone delivered.
    delivered: BTreeSet<u64>,
    by_candidate: BTreeSet<u64>,
    by_leg: BTreeMap<LegId, u64>,
}

impl World {
    fn new() -> Self {
        let mut legs = Legs::default();
        legs.cut("d0", &[endpoint("a", "u0", 0)], at(0), false);
        Self {
            stored: legs.clone(),
            legs,
            end: 0,
            delivered: BTreeSet::new(),
            by_candidate: BTreeSet::new(),
            by_leg: BTreeMap::new(),
        }
    }

    /// Each leg sends up to `amount`, as its bounds allow.
    fn send(&mut self, amount: u64) {
        let legs: Vec<Leg> = self.legs.iter().cloned().collect();
        let committed = |legs: &Legs, id| {
            let mut without = legs.clone();
            without.roll_back();
            without.get(id).is_some()
        };
        for leg in legs {
            if leg.stopped {
                self.legs.quiet(leg.id);
            }
            let Some(leg) = self.legs.get(leg.id).cloned() else { continue };
            if leg.stopped || leg.after.is_some_and(|after| self.legs.get(after).is_some()) {
                continue;
            }
            let start = leg.position.offset;
            let stop = (start + amount).min(leg.to.map_or(self.end, |to| to.offset)).max(start);
            let set =
                if committed(&self.legs, leg.id) { &mut self.delivered } else { &mut self.by_candidate };
            set.extend(start..stop);
            self.legs.advance(leg.id, at(stop));
            *self.by_leg.entry(leg.id).or_default() += stop - start;
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append(u64),
    Send(u64),
    Cut { url: u8, settings: u64, named: bool },
    Commit,
    RollBack,
    Save,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1u64..20).prop_map(Step::Append),
        3 => (0u64..15).prop_map(Step::Send),
        3 => (0u8..3, 0u64..3, any::<bool>()).prop_map(|(url, settings, named)| Step::Cut { url, settings, named }),
        1 => Just(Step::Commit),
        1 => Just(Step::RollBack),
        1 => Just(Step::Save),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_sequence_loses_a_sample(steps in steps()) {
        let mut world = World::new();
        let mut digest = 0;
        let mut running: (String, bool) = ("d0".to_owned(), false);
        let mut endpoints = vec![endpoint("a", "u0", 0)];
        let mut good = (running.0.clone(), endpoints.clone());
        for step in steps {
            match step {
                Step::Append(count) => world.end += count,
                Step::Send(amount) => world.send(amount),
                Step::Cut { url, settings, named } => {
                    digest += 1;
                    let url = format!("u{url}");
                    let key = if named { "a".to_owned() } else { format!("{url}#0") };
                    endpoints = vec![endpoint(&key, &url, settings)];
                    running = (format!("d{digest}"), true);
                    // What a superseded candidate delivered counts, unless its successor is rolled back as well.
                    world.legs.cut(&running.0, &endpoints, at(world.end), true);
                }
                Step::Commit => {
                    world.legs.commit();
                    world.delivered.append(&mut world.by_candidate);
                    running.1 = false;
                    good = (running.0.clone(), endpoints.clone());
                }
                Step::RollBack => {
                    world.legs.roll_back();
                    world.by_candidate.clear();
                    running = (good.0.clone(), false);
                    endpoints = good.1.clone();
                }
                Step::Save => world.stored = world.legs.clone(),
                Step::Crash => {
                    // Cuts, verdicts and positions since the last save are lost; a crash under a candidate is its verdict.
                    let text = serde_json::to_string(&world.stored).unwrap();
                    world.legs = serde_json::from_str(&text).unwrap();
                    running = (good.0.clone(), false);
                    endpoints = good.1.clone();
                    world.by_candidate.clear();
                    let range = (at(0), at(world.end));
                    world.legs.start(&running.0, &endpoints, range, false, false);
                }
            }
            prop_assert!(world.legs.active().len() == 1);
            for leg in world.legs.iter() {
                prop_assert!(leg.position.offset <= world.end);
            }
        }
        world.legs.commit();
        world.delivered.append(&mut world.by_candidate);
        world.send(u64::MAX / 2);
        world.send(u64::MAX / 2);
        let lost: Vec<u64> = (0..world.end).filter(|sample| !world.delivered.contains(sample)).collect();
        prop_assert!(lost.is_empty(), "lost {lost:?}");
    }
}

#[test]
fn another_url_splits_at_the_cut_and_the_same_url_goes_on_where_it_was() {
    let mut legs = Legs::default();
    legs.cut("good", &[endpoint("a", "old", 1)], at(0), false);
    let old = legs.active()[0];
    legs.advance(old, at(40));
    legs.cut("candidate", &[endpoint("a", "new", 1)], at(100), true);
    let new = legs.active()[0];
    assert_eq!((legs.get(old).unwrap().to, legs.get(new).unwrap().position), (Some(at(100)), at(100)));
    // Rolled back: the candidate's leg is gone, the old one has no end and has to send everything.
    let mut undone = legs.clone();
    undone.roll_back();
    assert_eq!((undone.get(old).unwrap().to, undone.get(old).unwrap().position), (None, at(40)));
    assert!(undone.get(new).is_none());
    // Committed: what the old one did not deliver is the heir's.
    legs.advance(new, at(150));
    legs.commit();
    assert_eq!((legs.get(new).unwrap().position, legs.get(new).unwrap().rewinds), (at(40), 1));
    // Credentials change, same URL: the old leg stops, the new one waits for what is in flight.
    legs.advance(new, at(160));
    legs.cut("rotated", &[endpoint("a", "new", 2)], at(200), true);
    let rotated = legs.active()[0];
    assert!(legs.get(new).unwrap().stopped);
    assert_eq!(legs.get(rotated).unwrap().after, Some(new));
    legs.advance(new, at(170));
    legs.quiet(new);
    assert_eq!((legs.get(rotated).unwrap().position, legs.get(rotated).unwrap().after), (at(170), None));
    legs.roll_back();
    assert_eq!((legs.get(new).unwrap().position, legs.get(new).unwrap().stopped), (at(170), false));
}

#[test]
fn an_endpoint_equal_to_a_retained_leg_reopens_it() {
    let mut legs = Legs::default();
    legs.cut("good", &[endpoint("a", "u", 1)], at(0), false);
    let kept = legs.active()[0];
    legs.cut("first", &[endpoint("a", "v", 1)], at(10), true);
    legs.cut("second", &[endpoint("a", "u", 1)], at(20), true);
    assert_eq!(legs.active(), [kept]);
    assert_eq!((legs.get(kept).unwrap().to, legs.iter().count()), (None, 1));
}

#[test]
fn boot_applies_the_verdict_that_fell_meanwhile() {
    let mut legs = Legs::default();
    legs.cut("good", &[endpoint("a", "u", 1)], at(0), false);
    let old = legs.active()[0];
    legs.cut("candidate", &[endpoint("a", "v", 1)], at(10), true);
    let new = legs.active()[0];
    let reload =
        |legs: &Legs| -> Legs { serde_json::from_str(&serde_json::to_string(legs).unwrap()).unwrap() };
    let mut committed = reload(&legs);
    committed.boot("candidate", false);
    assert_eq!(committed.active(), [new]);
    assert_eq!(committed.get(new).unwrap().position, at(0), "inherits what the old leg left");
    let mut undone = reload(&legs);
    undone.boot("good", false);
    assert_eq!((undone.active(), undone.get(old).unwrap().to), (&[old][..], None));
}

#[test]
fn an_endpoint_whose_cut_was_not_stored_misses_nothing() {
    let mut stored = Legs::default();
    let (old, new) = (endpoint("a", "u", 1), endpoint("b", "v", 1));
    stored.cut("good", std::slice::from_ref(&old), at(0), false);
    stored.advance(stored.active()[0], at(40));
    // The candidate was cut at 50 and committed at 80; the process dies at 90 and nothing of it was stored.
    stored.start("candidate", &[old, new], (at(0), at(90)), false, false);
    let added = stored.active()[1];
    assert_eq!(stored.get(added).unwrap().position, at(40), "not later than the cut");
}
