//! What each Service means on this node: plain data in, plain data out. No I/O, no clock, no kernel, no ids.
//!
//! The semantics are kube-proxy's; each rule names its source.

mod plan;

pub use plan::{FrontendPlan, PortName, PortPlan, ServicePlan, SetPlan};
