//! What the agent knows about itself: one value, replaced as a whole, read by whoever asks.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use super::hold::HoldReport;
use crate::source::{Connection, Health, ObjectRef, Problem};
use crate::state::Counts;
use crate::tables::{Sizes, Usage};

/// A snapshot of the agent. `weir status` may be of another version than the agent: what one does not know of the
/// other's is left out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// All lists are known and the tables say what they say; set once.
    pub ready: bool,
    /// The agent's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The node that it serves.
    pub node: String,
    /// Where its objects come from.
    pub source: String,
    /// How the source stands with the API server, if there is one.
    pub connection: Option<Connection>,
    /// Services, EndpointSlices and endpoints that it knows.
    pub objects: Counts,
    /// Rows in use.
    pub usage: Usage,
    /// Rows that there is room for.
    pub sizes: Sizes,
    /// Batches of changes that were written.
    pub syncs: u64,
    /// The longest that writing a batch took, in microseconds.
    pub slowest_sync_us: u64,
    /// How long the last one took, in microseconds.
    pub last_sync_us: u64,
    /// Sockets that were closed because their backend is gone.
    pub closed_sockets: u64,
    /// This node's devices and pods.
    pub network: NetworkReport,
    /// Flows that are translated per packet.
    pub flows: FlowReport,
    /// Policies in force.
    pub policies: PolicyReport,
    /// Drops of which the agent has read, one by one.
    pub drops_read: u64,
    /// Where this node's pods are, and who is held.
    pub places: PlaceReport,
    /// What is wrong, in the order of the objects. `weir status --json` has it beside the report, not in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ReportedProblem>,
}

/// This node's network, as the agent sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkReport {
    /// Devices that lead to other nodes and the world.
    pub devices: Vec<ReportedDevice>,
    /// Pods of this node.
    pub pods: usize,
    /// Those of them whose network namespace nobody has found a way into.
    pub pods_without_namespace: usize,
    /// Their addresses.
    pub pod_addresses: usize,
    /// Cgroups that hold all pods of the node's kubelet: without any nobody is held at a socket.
    pub pod_cgroups: usize,
    /// Those of pods that are known.
    pub seen_cgroups: usize,
    /// Networks of which this node's pods have their addresses: without any nobody is held by address.
    pub pod_networks: usize,
    /// The node's own IPv4 address.
    pub v4: Option<IpAddr>,
    /// The same in IPv6.
    pub v6: Option<IpAddr>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ReportedProblem>,
}

/// A device with our programs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportedDevice {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its first IPv4 address.
    pub v4: Option<IpAddr>,
    /// Its first IPv6 address.
    pub v6: Option<IpAddr>,
}

/// What the sweeper found the last time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowReport {
    /// Rows: two or three for each flow.
    pub rows: usize,
    /// Flows that were forgotten since the agent started, because their lifetime was over.
    pub swept: u64,
    /// Flows that were forgotten since the agent started, because their backend was gone.
    pub stale: u64,
    /// How long ago the oldest began, in seconds.
    pub oldest_s: u32,
}

/// Policies on this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyReport {
    /// Whether the cluster has any.
    pub is_on: bool,
    /// Pods of this node that are known by their device and by their Pod.
    pub pods: usize,
    /// Those of them that something isolates.
    pub isolated: usize,
    /// Rows of `judged` when it was last swept: one for each flow of an isolated pod.
    pub judged: usize,
    /// Rows that were forgotten since the agent started, because their lifetime was over.
    pub swept: u64,
}

/// Devices and pods that policies do not know, and how long pods were held until they did.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PlaceReport {
    /// Whether they are held, and where not.
    pub hold: HoldReport,
    /// Devices that are held.
    pub held: Vec<HeldDevice>,
    /// Devices behind which nobody of the cluster is, and in which cgroup that is: they pass.
    pub others: Vec<String>,
    /// Pods that no policy holds: those behind no device of ours, and those with another network than the cluster's.
    pub unenforced: Vec<String>,
    /// Addresses on devices which they are not for.
    pub contested: usize,
    /// Pods that were held until they were known, since the agent started.
    pub holds: u64,
    /// How long all of them were held together, in seconds.
    pub hold_seconds: f64,
    /// The longest of it, in seconds.
    pub longest_hold_seconds: f64,
}

/// A device that is held.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HeldDevice {
    /// Its name.
    pub name: String,
    /// Why.
    pub why: String,
    /// For how many seconds nobody has known who is behind it.
    pub for_s: u64,
}

/// Something wrong with an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ReportedProblem {
    /// Kind, namespace and name.
    pub object: String,
    /// The field.
    pub field: String,
    /// What is wrong, and what was done about it.
    pub message: String,
}

impl ReportedProblem {
    /// In the words of the source.
    #[must_use]
    pub fn new(object: &ObjectRef, problem: &Problem) -> Self {
        Self { object: object.to_string(), field: problem.field.clone(), message: problem.message.clone() }
    }
}

/// The current report.
#[derive(Clone, Debug, Default)]
pub struct SharedReport(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    report: RwLock<Report>,
    health: OnceLock<Health>,
}

impl SharedReport {
    /// The report as it is now.
    #[must_use]
    pub fn read(&self) -> Report {
        let mut report = self.0.report.read().unwrap_or_else(PoisonError::into_inner).clone();
        report.connection = self.0.health.get().map(Health::read);
        report
    }

    /// Changes it.
    pub fn update(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.0.report.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Tells of a source's connection from now on; the first one counts.
    pub fn follow(&self, health: Health) {
        let _first = self.0.health.set(health);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_versions_report_is_read_as_far_as_it_goes() {
        let report: Report = serde_json::from_str(r#"{"ready":true,"version":"9","news":[1]}"#).unwrap();
        assert!(report.ready);
        assert_eq!((report.version.as_str(), report.pid), ("9", 0));
    }
}
