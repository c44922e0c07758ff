//! What a start does with what it finds: the recovery table, as a function from the control state
//! to a decision. It runs nothing and writes nothing.

use std::time::Duration;

use crate::record::Hold;
use crate::state::{Condemnation, Control, Pointer};
use crate::time::Timestamp;

/// Starts within this span count as a boot loop.
const LOOP_SPAN: Duration = Duration::from_secs(5 * 60);
/// So many starts, each dead before its pipeline was up, are a boot loop.
const LOOP_STARTS: usize = 3;
/// A boot loop is held for so long.
const LOOP_HOLD: Duration = Duration::from_secs(30 * 60);
/// Deaths under a candidate without any good predecessor until the fallback runs instead.
const COLD_DEATHS: u32 = 3;
const FIRST_COLD_RETRY: Duration = Duration::from_secs(5);
const LONGEST_COLD_RETRY: Duration = Duration::from_secs(5 * 60);

/// What is known beside the control state.
#[derive(Clone, Debug)]
pub(crate) struct BootFacts<'a> {
    pub(crate) now: Timestamp,
    pub(crate) boot_id: &'a str,
    pub(crate) panic_note: Option<&'a str>,
    pub(crate) agent_version: &'a str,
    pub(crate) has_fallback: bool,
}

/// What runs first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// Last known good, or nothing yet where there is none.
    LastKnownGood,
    /// Last known good, then the candidate on top of it, for a new window of hard and small-number rules.
    Resume(Pointer),
    /// No last known good: the candidate again, after a wait.
    StartAgain { candidate: Pointer, after: Duration },
    /// The local fallback.
    Fallback,
    /// Nothing: a boot loop without a fallback. The API answers.
    Nothing,
}

/// A decision, with what a person should hear of it.
#[derive(Clone, Debug)]
pub(crate) struct BootDecision {
    pub(crate) run: Run,
    pub(crate) remarks: Vec<String>,
    /// Records whose candidate was undone by the start, with the reason.
    pub(crate) undone: Vec<(Pointer, String)>,
}

/// Decides, and changes `control` to what must be durable before anything starts.
pub(crate) fn recover(control: &mut Control, facts: &BootFacts<'_>) -> BootDecision {
    let mut decision = BootDecision { run: Run::LastKnownGood, remarks: Vec::new(), undone: Vec::new() };
    release_for_new_version(control, facts, &mut decision);
    strike_intent(control, facts, &mut decision);
    judge_probation(control, facts, &mut decision);
    break_boot_loop(control, facts, &mut decision);
    control.boot_id = facts.boot_id.to_owned();
    decision
}

fn release_for_new_version(control: &mut Control, facts: &BootFacts<'_>, decision: &mut BootDecision) {
    let version = facts.agent_version;
    for entry in control.release(|entry| entry.deterministic && entry.agent_version != version) {
        decision
            .remarks
            .push(format!("{} is no longer quarantined: this is another version of the agent", entry.digest));
    }
}

/// Died while preparing: a strike; the second one quarantines.
fn strike_intent(control: &mut Control, facts: &BootFacts<'_>, decision: &mut BootDecision) {
    let Some(intent) = control.intent.take() else { return };
    let strikes = control.strikes_of(&intent.digest, facts.now);
    strikes.prepare_deaths += 1;
    let deaths = strikes.prepare_deaths;
    decision
        .remarks
        .push(format!("the process died while {} was being prepared (strike {deaths})", intent.revision));
    if deaths >= 2 {
        let reason = format!("the process died {deaths} times while this was being prepared");
        control.condemn(
            &Condemnation {
                digest: &intent.digest,
                revision: &intent.revision,
                stage: "prepare",
                reason: &reason,
                deterministic: false,
                agent_version: facts.agent_version,
            },
            facts.now,
        );
    }
}

fn judge_probation(control: &mut Control, facts: &BootFacts<'_>, decision: &mut BootDecision) {
    let Some(mark) = control.probation.take() else { return };
    let same_boot = mark.boot_id == facts.boot_id;
    let candidate = mark.candidate.clone();
    // Told to stop, or the host went down once: that says nothing about the candidate.
    if mark.clean || (!same_boot && !mark.resumed) {
        let why = if mark.clean { "the agent was stopped" } else { "the host went down" };
        decision.remarks.push(format!("{why} during the probation of {}: it is resumed", candidate.revision));
        control.probation = Some(crate::state::ProbationMark {
            clean: false,
            resumed: true,
            boot_id: facts.boot_id.to_owned(),
            candidate: candidate.clone(),
        });
        decision.run = Run::Resume(candidate);
        return;
    }
    let (reason, deterministic) = match (same_boot, facts.panic_note) {
        (true, Some(note)) => (format!("the process died under this configuration: {note}"), true),
        (true, None) => ("the process died under this configuration".to_owned(), false),
        (false, _) => ("the host went down twice under this configuration".to_owned(), false),
    };
    if control.last_known_good.is_none() {
        return start_again(control, facts, decision, candidate, &reason);
    }
    control.condemn(
        &Condemnation {
            digest: &candidate.digest,
            revision: &candidate.revision,
            stage: "process",
            reason: &reason,
            deterministic,
            agent_version: facts.agent_version,
        },
        facts.now,
    );
    control.rollback_count += 1;
    control.breaker.note_rolled_back(&candidate.digest, facts.now);
    control.running = control.last_known_good.clone();
    decision.remarks.push(format!("{}: {reason}; it is quarantined", candidate.revision));
    decision.undone.push((candidate, reason));
}

/// There is nothing good to return to, so that the candidate is tried again, ever more slowly.
fn start_again(
    control: &mut Control,
    facts: &BootFacts<'_>,
    decision: &mut BootDecision,
    candidate: Pointer,
    reason: &str,
) {
    let strikes = control.strikes_of(&candidate.digest, facts.now);
    strikes.cold_deaths += 1;
    let deaths = strikes.cold_deaths;
    decision
        .remarks
        .push(format!("{}: {reason} (death {deaths}); nothing else is known to be good", candidate.revision));
    if deaths >= COLD_DEATHS && facts.has_fallback {
        control.condemn(
            &Condemnation {
                digest: &candidate.digest,
                revision: &candidate.revision,
                stage: "process",
                reason,
                deterministic: false,
                agent_version: facts.agent_version,
            },
            facts.now,
        );
        control.running = None;
        decision.undone.push((candidate, reason.to_owned()));
        decision.run = Run::Fallback;
        return;
    }
    let after = match deaths.checked_sub(COLD_DEATHS) {
        None => Duration::ZERO,
        Some(more) => FIRST_COLD_RETRY.saturating_mul(1 << more.min(10)).min(LONGEST_COLD_RETRY),
    };
    control.probation = Some(crate::state::ProbationMark {
        candidate: candidate.clone(),
        clean: false,
        resumed: false,
        boot_id: facts.boot_id.to_owned(),
    });
    decision.run = Run::StartAgain { candidate, after };
}

fn break_boot_loop(control: &mut Control, facts: &BootFacts<'_>, decision: &mut BootDecision) {
    let now = facts.now;
    control.starts.retain(|start| now.since(*start) <= LOOP_SPAN && *start <= now);
    if control.starts.len() >= LOOP_STARTS {
        decision.remarks.push(format!(
            "{} starts in {} minutes died before their pipeline was up",
            control.starts.len(),
            LOOP_SPAN.as_secs() / 60
        ));
        // A candidate without a verdict may be what kills the starts: it is not resumed into the loop.
        control.probation = None;
        control.running = None;
        control.hold = Some(Hold {
            by: "agent".to_owned(),
            reason: "boot loop: the process died before its pipeline was up".to_owned(),
            since: now,
            until: Some(now.plus(LOOP_HOLD)),
            digest: None,
        });
        decision.run = if facts.has_fallback { Run::Fallback } else { Run::Nothing };
        control.starts.clear();
    }
    control.starts.push(now);
}

#[cfg(test)]
#[path = "recover_tests.rs"]
mod tests;
