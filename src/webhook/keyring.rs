//! The secrets that deliveries may be signed with: the one of now and, for a minute after a rotation was noticed, the one
//! before, since the two sides never change at the same moment.

use std::time::Duration;

use invar_secrets::Secret;
use tokio::time::Instant;

/// How long the secret of before is still good.
const GRACE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Keyring {
    current: Option<Secret>,
    previous: Option<(Secret, Instant)>,
}

impl Keyring {
    /// What is good at `now`, when the secret reads `secret`.
    pub(super) fn with(&mut self, secret: Secret, now: Instant) -> Vec<Secret> {
        if let Some(held) = self.current.take_if(|held| *held != secret) {
            self.previous = Some((held, now));
        }
        self.previous.take_if(|(_, at)| now.saturating_duration_since(*at) >= GRACE);
        self.current = Some(secret.clone());
        let previous = self.previous.as_ref().map(|(secret, _)| secret.clone());
        std::iter::once(secret).chain(previous).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_of_before_is_good_for_a_minute_after_the_rotation_was_noticed() {
        let mut keyring = Keyring::default();
        let start = Instant::now();
        let mut good = |secret: &str, seconds| -> Vec<String> {
            let all = keyring.with(Secret::new(secret), start + Duration::from_secs(seconds));
            all.iter().map(|secret| secret.expose().to_owned()).collect()
        };
        assert_eq!(good("one", 0), ["one"]);
        assert_eq!(good("one", 500), ["one"]);
        assert_eq!(good("two", 1000), ["two", "one"]);
        assert_eq!(good("two", 1059), ["two", "one"]);
        assert_eq!(good("two", 1060), ["two"]);
        assert_eq!(good("three", 2000), ["three", "two"]);
        assert_eq!(good("four", 2001), ["four", "three"], "one before, not more");
    }
}
