//! Requests of operators.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Reconciler;
use super::model::{Job, Stage, Trigger};
use super::verdict::Undo;
use crate::event::EventKind;
use crate::handle::RolloutError;
use crate::pipeline::{Pipeline, PlanSummary};
use crate::probation::RuleSet;
use crate::record::{Hold, QuarantineEntry, RevisionRecord, Verdict};
use crate::state::Step;
use crate::status::{RevisionSummary, Status};
use crate::time::Timestamp;

/// What an operator rolled back to is watched for so long, by the hard rules.
const OPERATOR_WINDOW: std::time::Duration = std::time::Duration::from_secs(30);

/// A request of the handle.
#[derive(Debug)]
pub(crate) enum Command {
    History(oneshot::Sender<Vec<RevisionRecord>>),
    Plan(oneshot::Sender<Option<PlanSummary>>),
    QuarantineRetry {
        key: String,
        reply: oneshot::Sender<Result<Vec<QuarantineEntry>, RolloutError>>,
    },
    QuarantineClear {
        key: Option<String>,
        reply: oneshot::Sender<Result<Vec<QuarantineEntry>, RolloutError>>,
    },
    Hold {
        by: String,
        reason: String,
        until: Option<Timestamp>,
        reply: oneshot::Sender<()>,
    },
    Unhold {
        by: String,
        reply: oneshot::Sender<bool>,
    },
    Rollback {
        generation: Option<u64>,
        by: String,
        reason: String,
        reply: oneshot::Sender<Result<u64, RolloutError>>,
    },
    Settle(oneshot::Sender<Arc<Status>>),
}

impl<P: Pipeline> Reconciler<P> {
    /// Answers a request. Whoever asked may have gone; then the answer is dropped.
    pub(super) async fn command(&mut self, command: Command) {
        match command {
            Command::History(reply) => {
                let history = self.disk(|state| state.history()).await;
                drop(reply.send(history.unwrap_or_default()));
            }
            Command::Plan(reply) => drop(reply.send(self.plan.clone())),
            Command::QuarantineRetry { key, reply } => {
                let released = self.release(Some(&key), "an operator asked for one more attempt").await;
                self.publish();
                drop(reply.send(released));
            }
            Command::QuarantineClear { key, reply } => {
                let released = self.release(key.as_deref(), "cleared by an operator").await;
                if let Ok(released) = &released {
                    for entry in released {
                        self.control.strikes.remove(&entry.digest);
                    }
                    self.save(Step::Control).await;
                }
                self.publish();
                drop(reply.send(released));
            }
            Command::Hold { by, reason, until, reply } => {
                self.emit(EventKind::Held, None, format!("held by {by}: {reason}"));
                self.control.hold = Some(Hold { by, reason, since: self.now(), until, digest: None });
                self.save(Step::Control).await;
                self.publish();
                reply.send(()).unwrap_or_default();
            }
            Command::Unhold { by, reply } => {
                let held = self.control.hold.is_some();
                self.lift_hold(&format!("lifted by {by}")).await;
                self.publish();
                reply.send(held).unwrap_or_default();
            }
            Command::Rollback { generation, by, reason, reply } => {
                self.operator_rollback(generation, by, reason, reply).await
            }
            Command::Settle(reply) => self.waiters.push(reply),
        }
    }

    async fn release(&mut self, key: Option<&str>, why: &str) -> Result<Vec<QuarantineEntry>, RolloutError> {
        let released = self.control.release(|entry| key.is_none_or(|key| names(entry, key)));
        if released.is_empty() {
            return Err(RolloutError::NotFound(match key {
                Some(key) => {
                    format!("nothing that is quarantined is called `{key}`; see `invar quarantine list`")
                }
                None => "nothing is quarantined".to_owned(),
            }));
        }
        self.reconsider_modules();
        for entry in &released {
            self.emit_for(EventKind::Released, None, Some(&entry.digest), why.to_owned());
        }
        self.save(Step::Control).await;
        Ok(released)
    }

    async fn operator_rollback(
        &mut self,
        generation: Option<u64>,
        by: String,
        reason: String,
        reply: oneshot::Sender<Result<u64, RolloutError>>,
    ) {
        let good = self.control.last_known_good.clone();
        let undoes_probation = self.control.probation.is_some()
            && match (generation, &good) {
                (None, Some(_)) => true,
                (Some(wanted), Some(good)) => good.generation == wanted,
                (_, None) => false,
            };
        if undoes_probation {
            self.cancel_preparation("an operator rolled back").await;
            let generation = self.undo(Undo::Operator { by, reason }).await;
            self.publish();
            drop(reply.send(Ok(generation)));
            return;
        }
        let running = self.running.as_ref().map(|running| running.digest.clone());
        let target = self
            .disk(move |state| {
                let found = match generation {
                    Some(wanted) => {
                        state.committed().into_iter().find(|stored| stored.record.generation == Some(wanted))
                    }
                    None => state
                        .committed()
                        .into_iter()
                        .find(|stored| Some(&stored.record.digest) != running.as_ref()),
                };
                let found = found.cloned()?;
                Some(state.load(&found.manifest_digest).map(|composition| (found, composition)))
            })
            .await
            .flatten();
        let (stored, composition) = match target {
            Some(Ok(target)) => target,
            Some(Err(error)) => {
                drop(
                    reply.send(Err(RolloutError::Refused(format!(
                        "that revision is damaged on disk: {error}"
                    )))),
                );
                return;
            }
            None => {
                let message = match generation {
                    Some(wanted) => format!(
                        "generation {wanted} is not among the committed ones that are kept; see `invar history`"
                    ),
                    None => "there is no other committed generation; see `invar history`".to_owned(),
                };
                drop(reply.send(Err(RolloutError::NotFound(message))));
                return;
            }
        };
        if let Some(running) = &self.running
            && running.digest == stored.record.digest
        {
            let generation = running.generation.unwrap_or_default();
            self.emit(EventKind::Held, None, format!("held by {by}: {reason}"));
            self.control.hold = Some(Hold { by, reason, since: self.now(), until: None, digest: None });
            self.save(Step::Control).await;
            self.publish();
            drop(reply.send(Ok(generation)));
            return;
        }
        let parsed = match self.vouch(&composition).await {
            Ok(()) => self.parse(&composition).await,
            Err(failure) => Err(failure),
        };
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(failure) => {
                drop(reply.send(Err(RolloutError::Refused(failure.to_string()))));
                return;
            }
        };
        self.cancel_preparation("an operator rolled back").await;
        let summary = RevisionSummary {
            generation: None,
            revision: stored.record.revision.clone(),
            digest: parsed.digest,
            since: self.now(),
            author: stored.record.author.clone(),
            subject: stored.record.subject.clone(),
            signer: stored.record.signer.clone(),
        };
        let mut record = self.record_of(&summary, Verdict::Pending);
        record.note = Some(format!("rolled back by {by}: {reason}"));
        let (digest, copy) = (summary.digest.clone(), composition);
        let stored = self.disk(move |state| state.store_revision(&copy, &digest, record)).await;
        let Some(Ok((sequence, manifest))) = stored else {
            let message = "the state directory cannot be written; nothing was changed".to_owned();
            drop(reply.send(Err(RolloutError::Refused(message))));
            return;
        };
        let window = if self.settings.probation.window.is_zero() {
            self.settings.probation.window
        } else {
            OPERATOR_WINDOW
        };
        let job = Job {
            candidate: parsed.candidate,
            summary,
            sequence,
            manifest,
            trigger: Trigger::Operator { by, reason, reply },
            rules: RuleSet::Hard,
            window,
            outdated: 0,
            plan: None,
            started: Instant::now(),
        };
        self.begin(job).await;
    }

    /// Answers whoever waits for rest.
    pub(super) fn answer_waiters(&mut self, status: &Arc<Status>) {
        if self.waiters.is_empty() || !self.is_at_rest() {
            return;
        }
        for waiter in self.waiters.drain(..) {
            drop(waiter.send(Arc::clone(status)));
        }
    }

    fn is_at_rest(&self) -> bool {
        let watching = self.watch.as_ref().is_some_and(|watch| watch.failed.is_none());
        let desired = self.desired.as_ref().map(|desired| &desired.stage);
        self.pending.is_none()
            && self.preparing.is_none()
            && !watching
            && !matches!(desired, Some(Stage::Ready | Stage::Preparing | Stage::Waiting(_)))
    }
}

fn names(entry: &QuarantineEntry, key: &str) -> bool {
    !key.is_empty()
        && (entry.digest.starts_with(key) || entry.revisions.iter().any(|revision| revision.contains(key)))
}
