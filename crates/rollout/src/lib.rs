//! The reconciler: from a source's snapshot to a committed generation, or back.
//!
//! It stands between the sources, which say what is wanted, and the engine, which runs it. It owns
//! the life of a revision (compose, validate, plan, prepare, swap, probation, commit or roll back),
//! quarantine, holds and the flap breaker, and the state on disk from which the agent always starts.

mod breaker;
mod compose;
mod condition;
mod crash;
mod engine_pipeline;
mod event;
mod feed;
mod handle;
mod memory;
mod metrics;
mod module;
mod pipeline;
mod poller_feed;
mod probation;
mod reconciler;
mod record;
mod recover;
#[cfg(test)]
mod scripted;
#[cfg(test)]
mod scripted_modules;
mod settings;
mod source_detail;
mod state;
mod status;
mod time;
mod variables;

pub use compose::{Composed, ComposedFile, Composition, ContentDigest, VariableLayers, compose};
pub use condition::{Condition, ConditionStatus};
pub use engine_pipeline::{EnginePipeline, agent_value, configuration, configuration_with, secret_state_of};
pub use event::{Event, EventKind, EventStream};
pub use feed::{Origin, SnapshotFeed, SourceContent, SourceView};
pub use handle::{Rollout, RolloutError, RolloutOptions};
pub use module::{
    ComposedModule, ModuleFeed, ModuleView, NoModules, Place, is_module, locate, module_digest,
    tree_module_path,
};
pub use pipeline::{CutFailure, Failure, FailureClass, Mode, Parsed, Pipeline, PlanSummary, SwappedHook};
pub use poller_feed::{PollerFeed, failure_of, read as read_in_tree, state_of};
pub use probation::{
    Baseline, Counters, FailedComponent, GroupBaseline, GroupVitals, Judge, JudgeOptions, Judgement,
    MemoryVitals, RuleSet, Vitals,
};
pub use record::{Hold, QuarantineEntry, RevisionRecord, Verdict};
pub use settings::{
    BootMode, OnInconclusive, ProbationSettings, QuiesceSettings, RollbackMode, RolloutSettings,
    StateSettings,
};
pub use source_detail::{ContentDetail, NoticeDetail, SourceDetail};
pub use state::{
    Control, Head, HeadError, OpenError, PanicNote, StateDirectory, decode_head, decode_journal, encode_head,
};
pub use status::{
    AgentIdentity, OverallHealth, Phase, ProbationStatus, Reason, RevisionSummary, SourceChecks,
    SourceErrorState, SourceState, Status,
};
pub use time::{Clock, ParseTimestampError, RuntimeClock, SystemClock, Timestamp, parse_duration};
pub use variables::{
    VARIABLES_FILE, VariablePlace, VariableReport, codes as variable_codes, explain_variable, read_variables,
};

/// Lowercase hexadecimal text.
fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}
