//! A lab on one machine: network namespaces for two nodes, their pods, the network between them and a client
//! outside; a cgroup for each; one agent per node.
//!
//! Called by the lab tests, the demo and the benchmarks. A [`Lab`] is only the wires; a [`Cluster`] has the
//! agents, a prober in every pod and the manifests as well. Both leave nothing behind when they are dropped;
//! [`teardown::watch_signals`] does the same for an interrupted process, [`teardown::sweep`] for a killed
//! one.

pub mod address;
pub mod agent;
pub mod binary;
pub mod cgroup;
pub mod cluster;
pub mod firewall;
mod ident;
pub mod kernel_log;
pub mod manifests;
pub mod netns;
mod offload;
mod overlay;
pub mod process;
pub mod teardown;
pub mod topology;
pub mod wire;

pub use address::{DualStack, Form};
pub use agent::Agent;
pub use cluster::Cluster;
pub use firewall::Neighbour;
pub use ident::LabId;
pub use kernel_log::KernelLog;
pub use process::Place;
pub use topology::{Lab, Network, Node, Pod, Settings};
pub use wire::Wire;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after another thread panicked: what is guarded here is never left half changed.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
