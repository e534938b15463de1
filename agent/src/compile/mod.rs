//! What each Service means on this node: plain data in, plain data out. No I/O, no clock, no kernel, no ids.
//!
//! The semantics are kube-proxy's; each rule names its source.

mod frontends;
mod plan;
pub mod policy;
mod service;
#[cfg(test)]
mod tests;
pub mod topology;

pub use plan::{FrontendPlan, PortName, PortPlan, ServicePlan, SetPlan};
pub use service::compile_service;
