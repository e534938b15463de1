//! The lab: a cluster of network namespaces on one kernel, and what is proved and measured in it.
//!
//! * [`lab`]: two nodes with a bridge CNI's topology, pods, an outside client; an agent per node; no trace left.
//! * [`prober`]: the process in each pod that serves, connects and tells what it saw.
//! * [`cases`]: one table of what must hold, run in pure Rust and with real sockets.
//! * [`demo`]: the table that `cargo xtask demo` prints.
//!
//! Used by this package's own tests, by `weir-lab` and by the benchmarks.

pub mod cases;
pub mod demo;
pub mod lab;
pub mod prober;
