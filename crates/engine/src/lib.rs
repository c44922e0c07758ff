//! The component engine: registry, graph, generations, hot swap, health.
