//! The component engine: registry, graph, generations, hot swap, health.
//!
//! A configuration becomes an immutable [`generation`]: for each node its *state* (what its evaluated arguments mean) and the
//! routes between nodes. What outlives generations is an *instance* (queues, caches, tasks), and what outlives instances is a
//! *resource* (sockets, logs). The running pipeline is one atomic pointer to a generation: to apply a configuration is to
//! prepare everything beside the running one and then to store that pointer.
//!
//! Read first: [`Component`], what an author writes, and [`Engine`], what applies configurations.
//!
//! Invariants: the engine knows no component by name; preparing spawns nothing and touches nothing that runs; nothing fallible
//! comes after the store; no lock is held across an await; every task is owned by an instance or by the engine.

// The model test of the lease compiles its word a second time, over other atomics.
#![cfg_attr(test, allow(clippy::duplicate_mod))]

mod aside;
mod authors;
mod block;
mod ceiling;
mod definition;
mod evaluate;
mod graph;
mod inputs;
mod inspect;
mod instance;
mod lease;
mod lint;
mod meters;
mod prepare;
mod runner;
pub mod secrets;
mod shutdown;
mod static_scope;
#[cfg(test)]
mod tests;
mod validate;
mod value_node;
mod wave;
mod writer;

pub mod call;
pub mod codes;
pub mod component;
pub mod configuration;
pub mod context;
pub mod delivery;
pub mod engine;
pub mod generation;
pub mod harness;
pub mod health;
pub mod language;
pub mod listener;
pub mod logging;
pub mod modules;
pub mod node;
pub mod plan;
mod plan_notes;
pub mod receiver;
pub mod registry;
pub mod report;
pub mod resources;
pub mod run;
pub mod services;
pub mod tap;
#[cfg(feature = "testing")]
pub mod testing_components;
pub mod variables;
pub mod vitals;

pub use aside::compute_aside;
pub use authors::Authors;
pub use call::{Call, Flow};
pub use component::{Component, Transition, VitalGroup};
pub use configuration::{Configuration, ConfigurationBuilder, Inputs};
pub use context::{Check, ExportContext, InstanceContext, StateContext};
pub use delivery::{DeliveryError, PrepareError, PrepareErrorKind, RunError};
pub use engine::{
    CutError, CutReport, Engine, EngineOptions, FailureClass, PrepareFailure, PrepareMode, RollbackReport,
};
pub use generation::Generation;
pub use health::{Health, HealthState};
pub use invar_syntax::schema::Stability;
pub use listener::{Dispatcher, ListenRequest, ListenerLoan, ListenerRegistry};
pub use logging::LogControl;
pub use modules::{
    ImportArguments, ImportRequest, ModuleContent, ModuleFault, ModuleFile, ModuleKey, ModuleKind, ModuleSet,
};
pub use node::NodeId;
pub use plan::{Action, ArgumentChange, Change, Plan};
pub use prepare::Prepared;
pub use receiver::{MetricsReceiver, Receiver, Signal};
pub use registry::Registry;
pub use report::{ComponentStatus, GenerationStatus, GraphReport, Provenance};
pub use resources::{Loan, ResourceRegistry};
pub use run::{Entry, Phase, RunContext};
pub use secrets::{LackingSecret, SecretFailure, SecretLack, SecretSource, SecretUse, SecretUser, Secrets};
pub use services::Services;
pub use static_scope::{StaticScope, static_scope};
pub use tap::{TapEvent, TapStream};
pub use validate::{ValidateOptions, validate, validate_with};
pub use variables::{Definition, VariablePath, Variables};
pub use vitals::{VitalCounters, VitalsReport};

/// A request for a component, its body read in full: what a slow client sends must not hold a generation.
pub type Request = http::Request<bytes::Bytes>;

/// A component's answer.
pub type Response = http::Response<bytes::Bytes>;
