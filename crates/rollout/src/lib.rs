//! The reconciler: from a source's snapshot to a committed generation, or back.
