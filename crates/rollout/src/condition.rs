//! Conditions: the status once more, as a list of yes, no and not known, each with a reason and since when. What watches
//! many agents asks these; what they are made of is the status alone.

use invar_secrets::SecretsStanding;
use serde::{Deserialize, Serialize};

use crate::status::{OverallHealth, Phase, Status};
use crate::time::Timestamp;

/// One thing that should be so, or should not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// `SourcesFresh`, `Verified`, `Composed`, `Valid`, `Applied`, `Healthy`, `SecretsReady`, `InSync` or `Held`.
    pub name: String,
    /// Whether it is so.
    pub status: ConditionStatus,
    /// One word for programs.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
    /// Since when the status is what it is.
    pub since: Timestamp,
    /// The generation that ran when this was said.
    pub generation: Option<u64>,
}

/// Whether something is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConditionStatus {
    /// It is.
    True,
    /// It is not.
    False,
    /// Nothing is known of it yet, or nobody asked for it.
    Unknown,
}

use ConditionStatus::{False, True, Unknown};

type Verdict = (ConditionStatus, String, String);

/// The conditions of a status; `before` are those of the one before, which keep their time while they stay.
pub(crate) fn conditions(
    status: &Status,
    secrets: &SecretsStanding,
    before: &[Condition],
    now: Timestamp,
) -> Vec<Condition> {
    let generation = status.running.as_ref().and_then(|running| running.generation);
    let of = |name: &str, (found, reason, message): Verdict| {
        let held = before.iter().find(|condition| condition.name == name && condition.status == found);
        let since = held.map_or(now, |condition| condition.since);
        Condition { name: name.to_owned(), status: found, reason, message, since, generation }
    };
    vec![
        of("SourcesFresh", fresh(status)),
        of("Verified", verified(status)),
        of("Composed", stage(status, &["compose", "fetch"])),
        of("Valid", stage(status, &["validate", "plan"])),
        of("Applied", applied(status)),
        of("Healthy", healthy(status)),
        of("SecretsReady", secrets_ready(secrets)),
        of("InSync", in_sync(status)),
        of("Held", held(status)),
    ]
}

fn verdict(status: ConditionStatus, reason: &str, message: impl Into<String>) -> Verdict {
    (status, reason.to_owned(), message.into())
}

fn fresh(status: &Status) -> Verdict {
    let failing: Vec<_> = status.sources.iter().filter(|source| source.error.is_some()).collect();
    if let Some((source, error)) = failing.first().and_then(|source| Some((source, source.error.as_ref()?))) {
        let others = match failing.len() - 1 {
            0 => String::new(),
            count => format!(" (and {count} more)"),
        };
        return verdict(False, &error.class, format!("{}: {}{others}", source.name, error.message));
    }
    match status.sources.iter().find(|source| source.checked.is_none()) {
        Some(source) => verdict(Unknown, "waiting", format!("{} has not answered yet", source.name)),
        None if status.sources.is_empty() => verdict(Unknown, "waiting", "no source is known yet"),
        None => verdict(True, "answered", "every source answered its last check"),
    }
}

fn verified(status: &Status) -> Verdict {
    let refused = status.sources.iter().find_map(|source| {
        let error = source.error.as_ref()?;
        (error.rejection.as_deref() == Some("verification")).then_some((source, error))
    });
    if let Some((source, error)) = refused {
        return verdict(False, "verification", format!("{}: {}", source.name, error.message));
    }
    match status.desired.as_ref().or(status.running.as_ref()).and_then(|revision| revision.signer.as_ref()) {
        Some(signer) => verdict(True, "signed", format!("signed by {signer}")),
        None => verdict(Unknown, "not_required", "no signature is asked for"),
    }
}

/// Whether the newest candidate got past these stages.
fn stage(status: &Status, stages: &[&str]) -> Verdict {
    let here = status.reason.as_ref().filter(|reason| stages.contains(&reason.stage.as_str()));
    if let Some(reason) = here.filter(|reason| reason.kind == "rejected") {
        return verdict(False, &reason.kind, reason.message.clone());
    }
    if status.desired.is_none() {
        return verdict(Unknown, "waiting", "there is no candidate yet");
    }
    let past = match stages {
        ["compose", ..] => !matches!(status.phase, Phase::Waiting | Phase::Observed | Phase::Fetched),
        _ => !matches!(
            status.phase,
            Phase::Waiting | Phase::Observed | Phase::Fetched | Phase::Composed | Phase::Rejected
        ),
    };
    // A candidate that was rejected elsewhere got no further than there; that one is another condition's.
    match past || status.in_sync {
        true => verdict(True, "passed", "the newest candidate passed"),
        false => verdict(Unknown, status.phase.as_str(), "the newest candidate is not there yet"),
    }
}

fn applied(status: &Status) -> Verdict {
    match (&status.desired, status.in_sync) {
        (None, _) => verdict(Unknown, "waiting", "there is no candidate yet"),
        (Some(_), true) => verdict(True, status.phase.as_str(), "the newest candidate runs"),
        (Some(_), false) => why_not(status, "the newest candidate does not run"),
    }
}

fn why_not(status: &Status, otherwise: &str) -> Verdict {
    match &status.reason {
        Some(reason) => verdict(False, &reason.kind, reason.message.clone()),
        None => verdict(False, status.phase.as_str(), otherwise),
    }
}

fn healthy(status: &Status) -> Verdict {
    if status.health == OverallHealth::Healthy {
        return verdict(True, "healthy", "what runs is well");
    }
    let unwell: u64 =
        ["unhealthy", "exited"].iter().filter_map(|health| status.components.get(*health)).sum();
    match unwell {
        0 => why_not(status, "the agent is degraded"),
        count => verdict(False, "components", format!("{count} components are not well")),
    }
}

fn secrets_ready(secrets: &SecretsStanding) -> Verdict {
    match &secrets.first_trouble {
        Some((reference, state, reason)) => {
            let others = match secrets.in_trouble.saturating_sub(1) {
                0 => String::new(),
                count => format!(" (and {count} more)"),
            };
            verdict(False, state.as_str(), format!("{reference}: {reason}{others}"))
        }
        None if secrets.held == 0 => verdict(Unknown, "none", "no secret is in use"),
        None => verdict(True, "ready", "every secret in use is the newest"),
    }
}

fn in_sync(status: &Status) -> Verdict {
    match status.in_sync {
        true => verdict(True, "in_sync", "what runs is what the sources want"),
        false => why_not(status, "what runs is not what the sources want"),
    }
}

fn held(status: &Status) -> Verdict {
    match &status.hold {
        Some(hold) => verdict(True, "held", format!("by {}: {}", hold.by, hold.reason)),
        None => verdict(False, "not_held", "new revisions are applied"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use invar_secrets::SecretState;

    use super::*;
    use crate::status::{RevisionSummary, SourceErrorState, SourceState};

    fn revision(signer: Option<&str>) -> RevisionSummary {
        RevisionSummary {
            generation: Some(7),
            revision: "main@sha1:4be2".to_owned(),
            digest: "d".to_owned(),
            since: Timestamp::from_millis(0),
            author: None,
            subject: None,
            signer: signer.map(str::to_owned),
        }
    }

    fn source(error: Option<(&str, Option<&str>)>) -> SourceState {
        SourceState {
            name: "platform".to_owned(),
            kind: "git".to_owned(),
            revision: None,
            checked: Some(Timestamp::from_millis(1)),
            changed: None,
            error: error.map(|(class, rejection)| SourceErrorState {
                class: class.to_owned(),
                message: "it fails".to_owned(),
                since: Timestamp::from_millis(1),
                rejection: rejection.map(str::to_owned),
            }),
            checks: Default::default(),
            alarm: false,
        }
    }

    /// A status where all is well.
    fn well() -> Status {
        let text = serde_json::json!({
            "version": 1,
            "agent": { "name": "a", "environment": "", "labels": {}, "version": "0" },
            "health": "healthy", "in_sync": true, "phase": "committed", "running": null, "desired": null,
            "last_known_good": null, "reason": null, "sources": [], "components": {}, "rollback_count": 0,
            "quarantined": [], "hold": null, "probation": null, "offline_boot": true, "unproven": false,
        });
        let status: Status = serde_json::from_value(text).unwrap();
        Status {
            running: Some(revision(None)),
            desired: Some(revision(None)),
            sources: vec![source(None)],
            ..status
        }
    }

    fn rejected(stage: &str) -> Status {
        let reason = serde_json::json!({
            "stage": stage, "kind": "rejected", "message": "E212", "file": null, "line": null, "until": null
        });
        Status {
            reason: Some(serde_json::from_value(reason).unwrap()),
            in_sync: false,
            phase: Phase::Rejected,
            ..well()
        }
    }

    fn of(status: &Status) -> Vec<(String, ConditionStatus)> {
        let found = conditions(status, &SecretsStanding::default(), &[], Timestamp::from_millis(5));
        found.into_iter().map(|condition| (condition.name, condition.status)).collect()
    }

    fn is(status: &Status, name: &str) -> ConditionStatus {
        of(status).into_iter().find(|(found, _)| found == name).unwrap().1
    }

    #[test]
    fn secrets_are_ready_or_named() {
        let (status, reason, _) = secrets_ready(&SecretsStanding { held: 3, ..SecretsStanding::default() });
        assert_eq!((status, reason.as_str()), (True, "ready"));
        let waited = ("vault/kv/new#key".to_owned(), SecretState::Missing, "it was never there".to_owned());
        let mut standing = SecretsStanding { held: 3, ..SecretsStanding::default() };
        standing.add_lacking(vec![waited]);
        let (status, reason, message) = secrets_ready(&standing);
        assert_eq!((status, reason.as_str()), (False, "missing"));
        assert_eq!(message, "vault/kv/new#key: it was never there");
        let denied = ("vault/kv/sasl".to_owned(), SecretState::Denied, "policy lacks read".to_owned());
        let standing = SecretsStanding { held: 3, in_trouble: 2, first_trouble: Some(denied) };
        let (status, reason, message) = secrets_ready(&standing);
        assert_eq!((status, reason.as_str()), (False, "denied"));
        assert_eq!(message, "vault/kv/sasl: policy lacks read (and 1 more)");
    }

    #[test]
    fn all_is_well() {
        let expected = [True, Unknown, True, True, True, True, Unknown, True, False];
        assert_eq!(of(&well()).into_iter().map(|(_, status)| status).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_source_that_fails_is_not_fresh_and_one_that_is_not_signed_not_verified() {
        let failing = Status { sources: vec![source(None), source(Some(("forbidden", None)))], ..well() };
        assert_eq!(is(&failing, "SourcesFresh"), False);
        assert_eq!(is(&failing, "Verified"), Unknown);
        let unsigned = Status { sources: vec![source(Some(("rejected", Some("verification"))))], ..well() };
        assert_eq!((is(&unsigned, "SourcesFresh"), is(&unsigned, "Verified")), (False, False));
        let signed = Status { desired: Some(revision(Some("ana"))), ..well() };
        assert_eq!(is(&signed, "Verified"), True);
        let asked = Status { sources: vec![SourceState { checked: None, ..source(None) }], ..well() };
        assert_eq!(is(&asked, "SourcesFresh"), Unknown);
    }

    #[test]
    fn a_candidate_stops_at_one_stage() {
        let composing = rejected("compose");
        assert_eq!((is(&composing, "Composed"), is(&composing, "Valid")), (False, Unknown));
        let invalid = rejected("validate");
        assert_eq!((is(&invalid, "Composed"), is(&invalid, "Valid")), (True, False));
        assert_eq!((is(&invalid, "Applied"), is(&invalid, "InSync")), (False, False));
    }

    #[test]
    fn a_condition_keeps_its_time_while_it_stays() {
        let secrets = SecretsStanding::default();
        let first = conditions(&well(), &secrets, &[], Timestamp::from_millis(5));
        let failing = Status { sources: vec![source(Some(("forbidden", None)))], ..well() };
        let second = conditions(&failing, &secrets, &first, Timestamp::from_millis(9));
        assert_eq!((second[0].status, second[0].since), (False, Timestamp::from_millis(9)));
        assert_eq!((second[5].status, second[5].since), (True, Timestamp::from_millis(5)));
        assert_eq!(second[5].generation, Some(7));
        let third = conditions(&failing, &secrets, &second, Timestamp::from_millis(12));
        assert_eq!(third, second, "nothing changed, so nothing is told anew");
    }
}
