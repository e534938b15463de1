//! The agent: what the cluster wants, compiled into the tables that the eBPF programs read.
//!
//! Data flows one way, and a module uses only those above it: [`source`] (typed events) -> [`state`] (the
//! cluster as this node needs it) -> [`compile`] (pure: what each Service means) -> [`tables`] (pure: which rows
//! to write, in which order) -> `kernel` (programs, maps, links). `observe` tells what is going on, `daemon` drives
//! it all, `cli` is what a person types; [`host`] finds the node around a container.

#[cfg(feature = "kernel")]
pub mod cli;
pub mod compile;
#[cfg(feature = "kernel")]
pub mod daemon;
pub mod host;
#[cfg(feature = "kernel")]
pub mod kernel;
pub mod network;
#[cfg(feature = "kernel")]
pub mod observe;
pub mod source;
pub mod state;
pub mod tables;
