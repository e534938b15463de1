//! The agent: what the cluster wants, compiled into the tables that the eBPF programs read.
//!
//! Data flows one way, and a module uses only those above it: [`source`] (typed events) -> [`state`] (the
//! cluster as this node needs it) -> [`compile`] (pure: what each Service means) -> [`tables`] (pure: which rows
//! to write, in which order) -> `kernel` (programs, maps, links). `observe` tells what is going on, `daemon` drives
//! it all, `cli` is what a person types; [`host`] finds the node around a container.
//!
//! Without the feature `live` there is no watching: what is told of a cluster and what it means, for tests and fuzzers.

#![cfg_attr(
    not(feature = "live"),
    expect(
        dead_code,
        unused_imports,
        reason = "what only those use who watch is small, and stands where it belongs"
    )
)]

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
