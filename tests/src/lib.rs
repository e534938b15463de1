//! What is proved outside of the packages that it is about, and the lab in which it is proved and measured.
//!
//! * [`vectors`]: Kubernetes' own conformance vectors, run through the whole chain from API objects to decisions.
//! * [`lab`]: two nodes with a bridge CNI's topology, pods, an outside client; an agent per node; no trace left.
//! * [`prober`]: the process in each pod that serves, connects and tells what it saw.
//! * [`cases`]: one table of what must hold, run in pure Rust and with real sockets.
//! * [`packets`]: single packets through the programs in this kernel, and the table of what must come of them.
//! * [`deploy`]: the manifests of `deploy/`, rendered and read strictly.
//! * [`demo`]: the table that `cargo xtask demo` prints.
//! * [`apiserver`]: an API server that speaks list/watch truthfully, and misbehaves when told to.
//!
//! Used by this package's own tests, by `weir-lab` and by the benchmarks.

pub mod apiserver;
pub mod cases;
pub mod demo;
pub mod deploy;
pub mod lab;
pub mod packets;
pub mod prober;
pub mod vectors;
