//! What Weir costs, measured against the same traffic without any program in its way.
//!
//! * [`workload`]: what a client pod and a server pod do to each other; only what was delivered counts.
//! * [`peer`]: the two processes in the pods, and how they are told what to do.
//! * [`stage`]: the lab around them; puts Weir in force and takes it away, and does not believe it before the
//!   kernel confirms it.
//! * [`traffic`]: pairs of measurements, interleaved; [`hook`]: the nanoseconds of a `connect`;
//!   [`nodeport`]: packets that a node sends on to another one; [`policies`]: compiling NetworkPolicies.
//! * [`stats`]: ratios to a median, an interval and one of three answers; [`record`]: every single measurement as
//!   JSON.
//!
//! Run by `cargo xtask bench`, through `weir-bench`.

pub mod cpu;
pub mod hook;
pub mod manifests;
pub mod nodeport;
pub mod peer;
pub mod policies;
pub mod programs;
pub mod record;
pub mod report;
pub mod stage;
pub mod stats;
pub mod traffic;
pub mod workload;
