//! Legs: who reads the log from where, under which configuration. Pure bookkeeping, so that every sequence of cuts and
//! verdicts can be tested without a disk or a network.
//!
//! A leg is one endpoint as one generation has it. Any difference in the endpoint opens a new leg; a candidate's legs never
//! move those of the last known good configuration, which resume where they were when it is rolled back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::position::Position;

/// Names a leg within its log, for ever.
pub type LegId = u64;

/// What an endpoint is to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointIdentity {
    /// Its `name`, else its URL and its ordinal among the unnamed ones of that URL.
    pub key: String,
    /// Where it sends, without credentials. Equal URLs mean one receiver, to which order must hold.
    pub url: String,
    /// Differs when anything in the endpoint or the external labels does. Never leaves the process.
    pub settings: u64,
}

/// One endpoint's way through the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    /// Its name.
    pub id: LegId,
    /// The endpoint's key.
    pub key: String,
    /// Where it sends.
    pub url: String,
    /// The endpoint's settings; unknown after a restart, when key and URL have to do.
    #[serde(skip)]
    settings: Option<u64>,
    /// Where it began.
    pub from: Position,
    /// Where it ends: the cut that replaced it.
    pub to: Option<Position>,
    /// Everything before this was delivered, or dropped and counted.
    pub position: Position,
    /// Stopped where it is, because another leg goes on to the same URL.
    pub stopped: bool,
    /// The leg to the same URL that this one goes on for: where that one ends, this one begins.
    pub after: Option<LegId>,
    /// Shared by the legs that go on for each other: only one of them may send at a time.
    pub chain: LegId,
    /// Grows when the position was set back, so that whoever sends starts again from there.
    #[serde(skip)]
    pub rewinds: u32,
}

/// The legs of one configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Side {
    digest: String,
    /// In the order of the endpoints.
    legs: Vec<LegId>,
}

/// All legs of a log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Legs {
    committed: Side,
    candidate: Option<Side>,
    legs: BTreeMap<LegId, Leg>,
    next: LegId,
}

/// What is stored beside the log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LegsFile {
    /// The legs.
    pub legs: Legs,
    /// When the component was removed, Unix seconds.
    #[serde(default)]
    pub closed: Option<i64>,
    /// How long the log is kept once closed, seconds: the component's `max_keepalive_time`.
    #[serde(default)]
    pub keep: Option<u64>,
    /// The nodes that the candidate took away when it brought this one: should it be undone, they go on for this log.
    #[serde(default)]
    pub replaces: BTreeSet<String>,
}

// === impl Leg ===

impl Leg {
    fn matches(&self, endpoint: &EndpointIdentity) -> bool {
        self.key == endpoint.key
            && self.url == endpoint.url
            && self.settings.is_none_or(|settings| settings == endpoint.settings)
    }

    /// Whether it still has something to send before its end, or may have.
    pub fn is_done(&self) -> bool {
        self.stopped || self.to.is_some_and(|to| self.position >= to)
    }
}

// === impl Legs ===

impl Legs {
    /// All legs by id.
    pub fn iter(&self) -> impl Iterator<Item = &Leg> {
        self.legs.values()
    }

    /// A leg.
    pub fn get(&self, id: LegId) -> Option<&Leg> {
        self.legs.get(&id)
    }

    /// The legs of the configuration that runs, in the order of its endpoints.
    pub fn active(&self) -> &[LegId] {
        &self.candidate.as_ref().unwrap_or(&self.committed).legs
    }

    /// Whether a candidate's legs exist beside the committed ones.
    pub fn has_candidate(&self) -> bool {
        self.candidate.is_some()
    }

    /// Whether only a candidate ever used this log.
    pub fn is_candidate_only(&self) -> bool {
        self.committed.digest.is_empty() && self.candidate.is_some()
    }

    /// The lowest position that anybody needs.
    pub fn lowest(&self) -> Option<Position> {
        self.legs.values().map(|leg| leg.position).min()
    }

    /// Moves a leg forward: everything before `position` is delivered.
    pub fn advance(&mut self, id: LegId, position: Position) {
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.position = leg.position.max(position);
        }
    }

    /// The requests in flight of a stopped leg have ended at its position: its successors begin there.
    pub fn quiet(&mut self, id: LegId) {
        let position = self.legs.get(&id).map(|leg| leg.position);
        for leg in self.legs.values_mut().filter(|leg| leg.after == Some(id)) {
            leg.after = None;
            if let Some(position) = position {
                leg.position = leg.position.max(position);
                leg.from = leg.position;
            }
        }
    }

    /// What a process that starts finds: the verdict that fell while it was down is applied. `digest` is of the
    /// configuration that boots.
    pub fn boot(&mut self, digest: &str, candidate: bool) {
        match &self.candidate {
            Some(side) if side.digest == digest && candidate => {}
            Some(side) if side.digest == digest => self.commit(),
            Some(_) => self.roll_back(),
            None => {}
        }
        // Nothing is in flight any more.
        let waiting: Vec<LegId> = self.legs.values().filter_map(|leg| leg.after).collect();
        waiting.into_iter().for_each(|id| self.quiet(id));
    }

    /// A process or a node starts with `endpoints`; the log goes from `oldest` to `end`. What was stored may lag behind
    /// what the process before it did, never lead: a configuration that the stored legs do not know was cut after they were
    /// stored, so its new legs begin where the lowest of them was, and send twice rather than never. A log that was `closed`
    /// is complete, and new legs begin at its end.
    pub fn start(
        &mut self,
        digest: &str,
        endpoints: &[EndpointIdentity],
        (oldest, end): (Position, Position),
        closed: bool,
        candidate: bool,
    ) {
        self.boot(digest, candidate);
        let known = [Some(&self.committed), self.candidate.as_ref()];
        let known = known.into_iter().flatten().any(|side| side.digest == digest);
        let at = match self.lowest() {
            None => oldest,
            Some(lowest) if !known && !closed => lowest,
            Some(_) => end,
        };
        self.cut(digest, endpoints, at.min(end), candidate);
    }

    /// The lowest position that the running configuration needs.
    pub fn lowest_active(&self) -> Option<Position> {
        self.active().iter().filter_map(|id| self.legs.get(id)).map(|leg| leg.position).min()
    }

    /// The pipeline now runs `endpoints`, from position `at` of the log.
    pub fn cut(&mut self, digest: &str, endpoints: &[EndpointIdentity], at: Position, candidate: bool) {
        let previous = self.active().to_vec();
        let mut legs = Vec::with_capacity(endpoints.len());
        let mut created = Vec::new();
        for endpoint in endpoints {
            let reusable =
                previous.iter().chain(&self.committed.legs).copied().find(|id| {
                    !legs.contains(id) && self.legs.get(id).is_some_and(|leg| leg.matches(endpoint))
                });
            let id = match reusable {
                Some(id) => {
                    self.reopen(id);
                    if let Some(leg) = self.legs.get_mut(&id) {
                        leg.settings = Some(endpoint.settings);
                    }
                    id
                }
                None => {
                    let id = self.open(endpoint, &previous, &legs, at);
                    created.push(id);
                    id
                }
            };
            legs.push(id);
        }
        for id in &previous {
            if !legs.contains(id)
                && let Some(leg) = self.legs.get_mut(id)
                && !leg.stopped
            {
                leg.to = Some(leg.to.unwrap_or(at));
            }
        }
        let side = Side { digest: digest.to_owned(), legs };
        if candidate {
            self.candidate = Some(side);
        } else {
            self.candidate = None;
            self.committed = side;
        }
        self.bequeath(&created, at);
    }

    /// The candidate passed its probation.
    pub fn commit(&mut self) {
        let Some(side) = self.candidate.take() else { return };
        let created: Vec<LegId> =
            side.legs.iter().copied().filter(|id| !self.committed.legs.contains(id)).collect();
        self.committed = side;
        let end = self.legs.values().filter_map(|leg| leg.to).max().unwrap_or_default();
        self.bequeath(&created, end);
    }

    /// The candidate is undone: its legs go, those of the last known good resume where they were.
    pub fn roll_back(&mut self) {
        if self.candidate.take().is_none() {
            return;
        }
        let kept = self.committed.legs.clone();
        self.legs.retain(|id, _| kept.contains(id));
        kept.into_iter().for_each(|id| self.reopen(id));
        for leg in self.legs.values_mut() {
            leg.after = None;
        }
    }

    fn reopen(&mut self, id: LegId) {
        if let Some(leg) = self.legs.get_mut(&id) {
            if leg.stopped {
                // The leg that took over sent beyond this position: what lies between is sent again.
                leg.rewinds += 1;
            }
            leg.to = None;
            leg.stopped = false;
        }
    }

    fn open(
        &mut self,
        endpoint: &EndpointIdentity,
        previous: &[LegId],
        taken: &[LegId],
        at: Position,
    ) -> LegId {
        let id = self.next;
        self.next += 1;
        let free = |leg: &&Leg| previous.contains(&leg.id) && !taken.contains(&leg.id) && !leg.stopped;
        let same_url = self
            .legs
            .values()
            .filter(free)
            .filter(|leg| leg.url == endpoint.url)
            .max_by_key(|leg| leg.key == endpoint.key)
            .map(|leg| leg.id);
        let (mut position, mut chain) = (at, id);
        if let Some(leg) = same_url.and_then(|id| self.legs.get_mut(&id)) {
            leg.stopped = true;
            (position, chain) = (leg.position, leg.chain);
        }
        let leg = Leg {
            id,
            key: endpoint.key.clone(),
            url: endpoint.url.clone(),
            settings: Some(endpoint.settings),
            from: position,
            to: None,
            position,
            stopped: false,
            after: same_url,
            chain,
            rewinds: 0,
        };
        self.legs.insert(id, leg);
        id
    }

    /// Removes the legs that no configuration has any more. What they did not deliver goes to their heirs: the leg of the
    /// same key, else the only one, else all new ones.
    fn bequeath(&mut self, created: &[LegId], at: Position) {
        let heirs = self.active().to_vec();
        let retained = |legs: &Self, id: &LegId| legs.committed.legs.contains(id) || heirs.contains(id);
        let gone: Vec<LegId> = self.legs.keys().copied().filter(|id| !retained(self, id)).collect();
        for id in gone {
            let Some(leg) = self.legs.remove(&id) else { continue };
            if leg.stopped || leg.position >= leg.to.unwrap_or(at) {
                continue;
            }
            let same_key =
                heirs.iter().copied().find(|heir| self.legs.get(heir).is_some_and(|h| h.key == leg.key));
            let inheriting = match (same_key, &heirs[..]) {
                (Some(heir), _) => vec![heir],
                (None, [only]) => vec![*only],
                (None, _) if !created.is_empty() => created.to_vec(),
                (None, all) => all.to_vec(),
            };
            for heir in inheriting {
                if let Some(heir) = self.legs.get_mut(&heir)
                    && leg.position < heir.position
                {
                    heir.position = leg.position;
                    heir.from = heir.from.min(leg.position);
                    heir.rewinds += 1;
                }
            }
        }
    }
}

// === impl LegsFile ===

impl LegsFile {
    /// Reads the file; an absent one is empty, a damaged one too (the log is then sent from its beginning).
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn load(path: &Path) -> io::Result<Self> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "the positions of the write-ahead log are damaged");
            Self::default()
        }))
    }

    /// Replaces the file, durably if `sync`.
    ///
    /// # Errors
    /// When writing fails; the file then is as it was.
    pub fn save(&self, path: &Path, sync: bool) -> io::Result<()> {
        let temporary = path.with_extension("new");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        // Always: a rename must never show a file whose content is not there yet.
        file.sync_data()?;
        std::fs::rename(&temporary, path)?;
        if sync && let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    }
}
