//! NetworkPolicies judged twice: by an evaluator that reads the objects for every question ([`reference`]), and by the agent's
//! own tables ([`node`]), by their rules and by packets at the hooks.
//!
//! Used by the conformance vectors and the benchmarks of `weir-tests` and `weir-bench`, and by random histories
//! ([`history`]): those of the tests here, and those of a fuzzer.

pub mod cluster;
pub mod history;
mod hooks;
pub mod node;
pub mod reference;
pub mod scale;
#[cfg(test)]
mod tests;

pub use cluster::{Cluster, Flow, Name};
pub use node::{Node, Placement};
