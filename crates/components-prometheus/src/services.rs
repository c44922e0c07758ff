//! What the binary tells these components through the engine's services.

/// Largest size of the write-ahead log of one component, in bytes: `[limits] log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimit(pub u64);

/// The address under which the agent's own component handlers are reached in process and never on the network,
/// `alloy.internal:12345` by default. A scrape of it is a call to `invar_engine::Engine::serve_component`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InProcessAddress(pub String);
