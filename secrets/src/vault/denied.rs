//! Paths that the token may not read: asked again after a minute, and then ever more seldom, so that one forbidden path
//! does not keep the server busy. A new token is a new chance.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::failure::VaultFailure;
use super::pace::Pace;
use super::place::Place;

/// The paths.
pub(crate) struct Denials {
    pace: Pace,
    paths: Mutex<BTreeMap<Place, Denial>>,
}

struct Denial {
    /// Of the token that was denied.
    generation: u64,
    wait: Duration,
    until: Instant,
    failure: VaultFailure,
}

impl Denials {
    pub(crate) fn new(pace: Pace) -> Self {
        Self { pace, paths: Mutex::default() }
    }

    /// Whether asking is worth it.
    ///
    /// # Errors
    /// The denial, while it is not.
    pub(crate) fn check(&self, place: &Place, generation: u64) -> Result<(), VaultFailure> {
        match self.paths.lock().get(place) {
            Some(denial) if denial.generation == generation && denial.until > Instant::now() => {
                Err(denial.failure.clone())
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn add(&self, place: &Place, generation: u64, failure: &VaultFailure) {
        let mut paths = self.paths.lock();
        let wait = match paths.get(place) {
            Some(denial) => (denial.wait * 2).min(self.pace.denied_longest),
            None => self.pace.denied_first,
        };
        let until = Instant::now() + wait;
        paths.insert(place.clone(), Denial { generation, wait, until, failure: failure.clone() });
    }

    pub(crate) fn forget(&self, place: &Place) {
        self.paths.lock().remove(place);
    }
}
