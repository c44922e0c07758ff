//! What of a log is kept: segments go when every leg has passed them, and under the laggards when the log is at its limit
//! or too old. What had to go too early is counted and remembered for those who come to read it.

use std::cmp;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::writer::{Segment, Writer};
use super::{Log, Lost};
use crate::wal::frame;
use crate::wal::position::Position;

/// How many deleted segments are remembered for the readers that missed them.
const LOST_SEGMENTS: usize = 4096;

// === impl Log ===

impl Log {
    /// Frees space for `length` bytes: first what everybody has read, then, while at least one leg keeps up, the oldest
    /// segment under the laggards. Files are deleted while nobody waits for the holders: a verdict moves them.
    pub(super) fn make_room(&self, writer: &mut Writer, length: u64) -> bool {
        loop {
            let lowest = self.holders.lock().values().min().copied();
            self.delete_below(writer, lowest.map_or(writer.segment, |position| position.segment));
            if writer.total + length <= writer.options.limit {
                return true;
            }
            let Some((&oldest, &segment)) = writer.segments.first_key_value() else { return false };
            let all_lag = self.holders.lock().values().all(|position| position.segment <= oldest);
            if oldest >= writer.segment || all_lag || !self.delete(writer, oldest) {
                return false;
            }
            self.lose(oldest, &segment);
        }
    }

    /// Remembers a segment that is deleted although somebody needed it.
    fn lose(&self, number: u64, segment: &Segment) {
        self.counters.forced_bytes.fetch_add(segment.bytes, Ordering::Relaxed);
        self.counters.forced_samples.fetch_add(segment.samples, Ordering::Relaxed);
        let mut lost = self.lost.lock();
        lost.insert(number, Lost { bytes: segment.bytes, samples: segment.samples });
        if lost.len() > LOST_SEGMENTS {
            lost.pop_first();
        }
    }

    /// How many samples from `from` to `to` are gone because they had to be deleted; of a part of a segment an estimate.
    pub(in crate::wal) fn lost_between(&self, from: Position, to: Position) -> u64 {
        let lost = self.lost.lock();
        let range = lost.range(from.segment..=to.segment.max(from.segment));
        range.map(|(number, lost)| lost.rest(*number, from).saturating_sub(lost.rest(*number, to))).sum()
    }

    /// Everything before this is deleted: the end of the newest segment that had to be.
    pub(in crate::wal) fn lost_before(&self) -> Position {
        let newest = self.lost.lock().last_key_value().map(|(number, _)| *number);
        newest.map_or_else(Position::default, |number| Position::start_of(number + 1))
    }

    /// Deletes everything: what the log held has found another place.
    pub fn clear(&self) {
        let mut writer = self.writer.lock();
        if writer.file.is_some() {
            writer.roll();
        }
        let segment = writer.segment;
        self.delete_below(&mut writer, segment);
        self.end.send_replace(Position::start_of(segment));
    }

    fn delete_below(&self, writer: &mut Writer, segment: u64) {
        let segment = segment.min(writer.segment);
        while let Some((&number, _)) = writer.segments.first_key_value() {
            if number >= segment || !self.delete(writer, number) {
                break;
            }
        }
    }

    /// Deletes a segment; `false` if that cannot be done, and nothing has changed.
    fn delete(&self, writer: &mut Writer, number: u64) -> bool {
        let path = frame::segment_path(&self.directory, number);
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "cannot delete a segment of the write-ahead log");
            return false;
        }
        if let Some(segment) = writer.segments.remove(&number) {
            writer.total -= segment.bytes;
        }
        true
    }

    /// Deletes the segments that every holder has passed, except those written within `keep` (unless the log is more than
    /// half full), and those older than `expire`, needed or not. Returns the bytes of the latter that were still needed.
    pub fn truncate(&self, keep: Duration, expire: Duration, now: SystemTime) -> u64 {
        let mut writer = self.writer.lock();
        let pressed = writer.total > writer.options.limit / 2;
        let lowest = self.holders.lock().values().min().map_or(writer.segment, |position| position.segment);
        let mut forced = 0;
        while let Some((&number, &segment)) = writer.segments.first_key_value() {
            let age = now.duration_since(segment.written).unwrap_or_default();
            let passed = number < lowest && (pressed || age >= keep);
            let due = passed || age >= expire;
            if number >= writer.segment || !due || !self.delete(&mut writer, number) {
                break;
            }
            if number >= lowest {
                forced += segment.bytes;
                self.lose(number, &segment);
            }
        }
        forced
    }

    /// Registers or moves a holder. One whose position is deleted has lost what it needed.
    pub fn hold(&self, holder: u64, position: Position) {
        self.holders.lock().insert(holder, position);
    }

    /// Replaces all holders.
    pub fn hold_only(&self, holders: impl Iterator<Item = (u64, Position)>) {
        *self.holders.lock() = holders.collect();
    }

    /// The first position that can still be read.
    pub fn oldest(&self) -> Position {
        let writer = self.writer.lock();
        Position::start_of(writer.segments.first_key_value().map_or(writer.segment, |(number, _)| *number))
    }

    /// Bytes between `from` and `to`.
    pub fn bytes_between(&self, from: Position, to: Position) -> u64 {
        let writer = self.writer.lock();
        let mut bytes = 0;
        for (&number, segment) in writer.segments.range(from.segment..=to.segment.max(from.segment)) {
            let start = if number == from.segment { from.offset } else { 0 };
            let end = if number == to.segment { to.offset } else { segment.bytes };
            bytes += end.saturating_sub(start);
        }
        bytes
    }

    /// The first segment at or after `number` that exists.
    pub(in crate::wal) fn segment_at_or_after(&self, number: u64) -> Option<u64> {
        self.writer.lock().segments.range(number..).next().map(|(number, _)| *number)
    }
}

// === impl Lost ===

impl Lost {
    /// How many samples of this segment, the one of `number`, lie at or after `position`.
    fn rest(&self, number: u64, position: Position) -> u64 {
        match number.cmp(&position.segment) {
            cmp::Ordering::Less => 0,
            cmp::Ordering::Greater => self.samples,
            cmp::Ordering::Equal => {
                let rest = u128::from(self.bytes.saturating_sub(position.offset));
                (u128::from(self.samples) * rest / u128::from(self.bytes.max(1))) as u64
            }
        }
    }
}
