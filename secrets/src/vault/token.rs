//! For how long a token is good, and whether the clock it is measured by can be believed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use invar_syntax::Secret;
use ring::digest::{SHA256, digest};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::answer::{Grant, Tree};
use super::pace::World;

/// The wall clock may run ahead of the monotonic one by this much before the host counts as having been suspended.
const JUMP: Duration = Duration::from_secs(30);

/// A token.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) secret: Secret,
    /// Counts up with every login of the session.
    pub(crate) generation: u64,
    pub(crate) term: Term,
    /// By which login it was had, if it may be kept for the next start.
    pub(crate) login: Option<Arc<str>>,
    /// Whether an earlier process had it.
    pub(crate) resumed: bool,
}

/// Under which token something was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Under {
    pub(crate) generation: u64,
    pub(crate) mark: String,
}

/// For how long a token is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Term {
    pub(crate) received: Instant,
    /// `None` for ever.
    pub(crate) lifetime: Option<Duration>,
    pub(crate) renewable: bool,
}

/// Both clocks at one moment.
pub(crate) struct Clock {
    monotonic: Instant,
    wall: SystemTime,
}

// === impl Token ===

impl Token {
    pub(crate) fn under(&self) -> Under {
        Under { generation: self.generation, mark: self.mark() }
    }

    /// Tells it from others, in whichever process; nothing that helps anybody to guess it.
    pub(crate) fn mark(&self) -> String {
        let marked = Zeroizing::new([b"invar lease of ", self.secret.expose().as_bytes()].concat());
        hex(&digest(&SHA256, &marked).as_ref()[..16])
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// === impl Term ===

impl Term {
    pub(crate) fn of_grant(grant: &Grant, received: Instant) -> Self {
        let renewable = grant.renewable && !grant.batch && grant.lifetime.is_some();
        Self { received, lifetime: grant.lifetime, renewable }
    }

    pub(crate) fn of_lookup(data: &Tree, received: Instant) -> Self {
        let seconds = data.get("ttl").and_then(Tree::as_u64).unwrap_or(0);
        let batch = data.get("type").and_then(Tree::as_text) == Some("batch");
        let renewable = data.get("renewable").is_some_and(Tree::is_true) && !batch;
        let lifetime = Some(Duration::from_secs(seconds)).filter(|lifetime| !lifetime.is_zero());
        Self { received, lifetime, renewable: renewable && lifetime.is_some() }
    }

    pub(crate) fn has_ended(&self, now: Instant) -> bool {
        self.lifetime.is_some_and(|lifetime| now >= self.received + lifetime)
    }

    /// Whether less was granted than before; seconds are rounded.
    pub(crate) fn is_shorter_than(&self, before: &Self) -> bool {
        match (self.lifetime, before.lifetime) {
            (Some(granted), Some(before)) => granted + Duration::from_secs(1) < before,
            _ => false,
        }
    }
}

impl Clock {
    pub(crate) fn new(world: &World) -> Self {
        Self { monotonic: Instant::now(), wall: world.now() }
    }

    /// Whether the host was suspended since: then the monotonic clock stood still, and terms are shorter than they seem.
    pub(crate) fn jumped(&self, world: &World) -> bool {
        let wall = world.now().duration_since(self.wall).unwrap_or_default();
        wall.saturating_sub(self.monotonic.elapsed()) > JUMP
    }
}
