//! Where configuration comes from: Git, files, and the scheduling that polls them.
