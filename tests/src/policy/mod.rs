//! NetworkPolicies judged twice: by an evaluator that reads the objects for every question ([`reference`]), and by the agent's
//! own tables ([`node`]), by their rules and by packets at the hooks. Used by the conformance vectors, and by random histories ([`history`]) of the tests here and of a fuzzer.

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
