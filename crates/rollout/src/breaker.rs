//! The flap breaker: when several different contents had to be undone in a short time, or two
//! contents take turns, something writes that should not, and applying stops for a while. Rejections
//! never count, and a return to known good content always passes.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

const ROLLBACKS: usize = 3;
const ROLLBACK_SPAN: Duration = Duration::from_secs(30 * 60);
const ALTERNATIONS: usize = 4;
const ALTERNATION_SPAN: Duration = Duration::from_secs(10 * 60);
const OPEN_FOR: Duration = Duration::from_secs(15 * 60);
const KEPT: usize = 16;

/// What the breaker remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Breaker {
    /// Contents that were undone.
    pub rolled_back: Vec<(Timestamp, String)>,
    /// Contents that were swapped in.
    pub applied: Vec<(Timestamp, String)>,
    /// Applying is stopped until then.
    pub open_until: Option<Timestamp>,
}

impl Breaker {
    /// Notes that `digest` was swapped in. Returns whether the breaker opened by that.
    pub fn note_applied(&mut self, digest: &str, now: Timestamp) -> bool {
        push(&mut self.applied, digest, now);
        let recent: Vec<&str> = self
            .applied
            .iter()
            .filter(|(time, _)| now.since(*time) <= ALTERNATION_SPAN)
            .map(|(_, digest)| digest.as_str())
            .collect();
        let alternations =
            recent.windows(3).filter(|three| three[0] == three[2] && three[0] != three[1]).count();
        alternations > ALTERNATIONS && self.open(now)
    }

    /// Notes that `digest` was undone. Returns whether the breaker opened by that.
    pub fn note_rolled_back(&mut self, digest: &str, now: Timestamp) -> bool {
        push(&mut self.rolled_back, digest, now);
        let distinct: BTreeSet<&str> = self
            .rolled_back
            .iter()
            .filter(|(time, _)| now.since(*time) <= ROLLBACK_SPAN)
            .map(|(_, digest)| digest.as_str())
            .collect();
        distinct.len() >= ROLLBACKS && self.open(now)
    }

    /// Closes the breaker when its time is over, or its memory is from a clock that ran ahead. Returns whether it closed.
    pub fn expire(&mut self, now: Timestamp) -> bool {
        match self.open_until {
            Some(until) if until <= now || until > now.plus(OPEN_FOR) => {
                *self = Self::default();
                true
            }
            _ => false,
        }
    }

    fn open(&mut self, now: Timestamp) -> bool {
        let news = self.open_until.is_none();
        self.open_until = Some(now.plus(OPEN_FOR));
        news
    }
}

fn push(list: &mut Vec<(Timestamp, String)>, digest: &str, now: Timestamp) {
    list.push((now, digest.to_owned()));
    if list.len() > KEPT {
        list.remove(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_790_000_000_000).plus(Duration::from_secs(seconds))
    }

    #[test]
    fn three_distinct_rolled_back_contents_in_half_an_hour_open_it() {
        let mut breaker = Breaker::default();
        assert!(!breaker.note_rolled_back("a", at(0)));
        assert!(!breaker.note_rolled_back("a", at(60)), "the same content twice is one");
        assert!(!breaker.note_rolled_back("b", at(120)));
        assert!(breaker.note_rolled_back("c", at(180)));
        assert!(!breaker.expire(at(181)));
        assert!(breaker.expire(at(180 + 15 * 60)));
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn rollbacks_far_apart_do_not_open_it() {
        let mut breaker = Breaker::default();
        for (n, digest) in ["a", "b", "c", "d"].into_iter().enumerate() {
            assert!(!breaker.note_rolled_back(digest, at(n as u64 * 16 * 60)), "{digest}");
        }
    }

    #[test]
    fn two_contents_that_take_turns_open_it() {
        let mut breaker = Breaker::default();
        let opened: Vec<bool> =
            (0..8).map(|n| breaker.note_applied(if n % 2 == 0 { "a" } else { "b" }, at(n * 30))).collect();
        assert_eq!(opened, [false, false, false, false, false, false, true, false], "on the fifth return");
        let mut slow = Breaker::default();
        assert!((0..20).all(|n| !slow.note_applied(if n % 2 == 0 { "a" } else { "b" }, at(n * 240))));
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_keep_it_open() {
        let mut breaker = Breaker { open_until: Some(at(1_000_000)), ..Breaker::default() };
        assert!(breaker.expire(at(0)));
    }
}
