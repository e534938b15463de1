//! The pure run.
