//! The agent: what the cluster wants, compiled into the tables that the eBPF programs read.
//!
//! Data flows one way, and a module uses only those above it: [`source`] (typed events) -> [`state`] (the
//! cluster as this node needs it) -> [`compile`] (pure: what each Service means) -> [`tables`] (pure: which rows
//! to write, in which order) -> `kernel` (programs, maps, links). `observe` watches; `cli` is what a person types.

pub mod compile;
#[cfg(feature = "kernel")]
pub mod kernel;
pub mod source;
pub mod state;
pub mod tables;
