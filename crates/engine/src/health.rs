//! How well a component is, and how several opinions on that combine: the least healthy wins.

use std::fmt;

use jiff::Timestamp;
use parking_lot::Mutex;

/// How well a component is, best first: the order is that of combination.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// It works.
    Healthy,
    /// It has not been evaluated or has not started.
    #[default]
    Unknown,
    /// Something is wrong; it may still work in part.
    Unhealthy,
    /// Its task has ended and is not restarted.
    Exited,
}

/// One opinion on a component's health.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Health {
    /// The verdict.
    pub state: HealthState,
    /// Why, in one line.
    pub message: String,
    /// Since when.
    #[serde(serialize_with = "as_text")]
    pub since: Timestamp,
}

fn as_text<S: serde::Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

// === impl HealthState ===

impl HealthState {
    /// All states, in the order of combination.
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Unknown, Self::Unhealthy, Self::Exited];

    /// The word that the API and metrics use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unknown => "unknown",
            Self::Unhealthy => "unhealthy",
            Self::Exited => "exited",
        }
    }
}

impl fmt::Display for HealthState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Health ===

impl Health {
    /// An opinion as of now.
    pub fn new(state: HealthState, message: impl Into<String>) -> Self {
        Self { state, message: message.into(), since: Timestamp::now() }
    }

    /// It works, as of now.
    pub fn healthy(message: impl Into<String>) -> Self {
        Self::new(HealthState::Healthy, message)
    }

    /// Something is wrong, as of now.
    pub fn unhealthy(message: impl Into<String>) -> Self {
        Self::new(HealthState::Unhealthy, message)
    }

    /// The less healthy of two opinions; of equally healthy ones the later.
    #[must_use]
    pub fn least(self, other: Self) -> Self {
        if (other.state, other.since) > (self.state, self.since) { other } else { self }
    }
}

/// The opinions on one instance.
#[derive(Debug)]
pub(crate) struct HealthBoard {
    opinions: Mutex<Opinions>,
}

#[derive(Debug)]
struct Opinions {
    /// Of the evaluation of its arguments.
    evaluation: Health,
    /// Of its task.
    run: Health,
    /// Its own.
    reported: Option<Health>,
    /// That it panicked under the present state.
    failure: Option<Health>,
}

// === impl HealthBoard ===

impl HealthBoard {
    pub(crate) fn new() -> Self {
        Self {
            opinions: Mutex::new(Opinions {
                evaluation: Health::healthy("component evaluated"),
                run: Health::new(HealthState::Unknown, "component created"),
                reported: None,
                failure: None,
            }),
        }
    }

    /// The least healthy of all opinions.
    pub(crate) fn combined(&self) -> Health {
        let opinions = self.opinions.lock();
        let mut health = opinions.evaluation.clone().least(opinions.run.clone());
        for opinion in [&opinions.reported, &opinions.failure].into_iter().flatten() {
            health = health.least(opinion.clone());
        }
        health
    }

    /// The component's own opinion.
    pub(crate) fn report(&self, health: Health) {
        self.opinions.lock().reported = Some(health);
    }

    pub(crate) fn set_run(&self, health: Health) {
        self.opinions.lock().run = health;
    }

    /// Its arguments were accepted; a failure under the state before no longer counts.
    pub(crate) fn evaluated(&self) {
        let mut opinions = self.opinions.lock();
        opinions.evaluation = Health::healthy("component evaluated");
        opinions.failure = None;
    }

    /// Its arguments were accepted again, without a change of state.
    pub(crate) fn accepted(&self) {
        let mut opinions = self.opinions.lock();
        if opinions.evaluation.state != HealthState::Healthy {
            opinions.evaluation = Health::healthy("component evaluated");
        }
    }

    /// Its new arguments were not accepted.
    pub(crate) fn rejected(&self, reason: &str) {
        self.opinions.lock().evaluation = Health::unhealthy(format!("component evaluation failed: {reason}"));
    }

    /// It panicked under its present state.
    pub(crate) fn fail(&self, reason: String) {
        self.opinions.lock().failure = Some(Health::unhealthy(reason));
    }

    /// Why it counts as failed under its present state: it panicked, or its task has ended for good.
    pub(crate) fn failure(&self) -> Option<String> {
        let opinions = self.opinions.lock();
        if let Some(failure) = &opinions.failure {
            return Some(failure.message.clone());
        }
        (opinions.run.state == HealthState::Exited).then(|| opinions.run.message.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_healthy_opinion_wins() {
        let board = HealthBoard::new();
        assert_eq!(board.combined().state, HealthState::Unknown);
        board.set_run(Health::healthy("started component"));
        assert_eq!(board.combined().state, HealthState::Healthy);
        board.report(Health::unhealthy("no endpoint answers"));
        assert_eq!(board.combined().message, "no endpoint answers");
        board.set_run(Health::new(HealthState::Exited, "gave up"));
        assert_eq!(board.combined().state, HealthState::Exited);
        assert_eq!(board.failure().as_deref(), Some("gave up"));
    }

    #[test]
    fn a_failure_lasts_until_the_next_state() {
        let board = HealthBoard::new();
        board.set_run(Health::healthy("started component"));
        board.fail("panicked".to_owned());
        board.accepted();
        assert_eq!(board.failure().as_deref(), Some("panicked"), "the state is the same");
        board.evaluated();
        assert_eq!(board.combined().state, HealthState::Healthy);
    }
}
