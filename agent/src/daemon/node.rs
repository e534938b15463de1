//! This node's devices and pods: what `network` says becomes rows and attached programs.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use weir_ebpf::abi::PodCgroups;

use super::Config;
use crate::kernel::{DeviceKind, Generation, Hooks, NodeTables, PinRoot};
use crate::network::find_pod_cgroups;
use crate::network::{Facts, NodeRows, Owner, RowOptions, Seeks, Told, Watch};
use crate::observe::{NetworkReport, ReportedDevice, ReportedProblem, SharedReport};
use crate::source::{Event, PodUid};

/// How long the cgroup of a pod is looked for.
const CGROUPS: Duration = Duration::from_mins(1);

/// Follows the network.
pub(super) struct Node {
    watch: Watch,
    facts: Facts,
    hooks: Hooks,
    tables: NodeTables,
    pin_root: PinRoot,
    options: RowOptions,
    cgroup_root: PathBuf,
    told: Told,
    report: SharedReport,
    problems: Vec<ReportedProblem>,
    /// The cgroups that hold all pods of the node's kubelet.
    pod_cgroups: usize,
    /// That there are none was logged.
    told_of_cgroups: bool,
    /// Those of pods that are known.
    seen_cgroups: usize,
    /// The kubelet makes a pod's cgroup when it has heard of the pod, which may be after us: until when it is looked for.
    looks_until: Option<Instant>,
}

impl Node {
    /// Looks at the network for the first time. Nothing is written.
    pub(super) fn start(
        config: &Config,
        generation: &Generation,
        hooks: Hooks,
        report: SharedReport,
    ) -> anyhow::Result<Self> {
        let mut watch = Watch::start(config.network.clone())?;
        let facts = watch.now();
        Ok(Self {
            watch,
            facts,
            hooks,
            tables: NodeTables::open(generation)?,
            pin_root: config.pin_root.clone(),
            options: config.rows.clone(),
            cgroup_root: config.cgroup_root.clone(),
            told: Told::default(),
            report,
            problems: Vec::new(),
            pod_cgroups: 0,
            told_of_cgroups: false,
            seen_cgroups: 0,
            looks_until: None,
        })
    }

    /// Returns when the network is different.
    pub(super) async fn changed(&mut self) -> anyhow::Result<()> {
        self.watch.changed().await
    }

    /// What the state is to know of it.
    pub(super) fn event(&self) -> Event {
        Event::NodeAddresses(self.facts.addresses.clone())
    }

    /// What is known of the network.
    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Who had which address when an agent before this one wrote it down.
    pub(super) fn holders(&self) -> BTreeMap<IpAddr, u32> {
        self.tables.holders()
    }

    /// Takes in what the cluster's objects say of this node; and whether pods are to be sought that are behind no device of ours.
    pub(super) fn set_told(&mut self, told: Told, seeks: Seeks) {
        if told.seen != self.told.seen {
            self.looks_until = Some(Instant::now() + CGROUPS);
        }
        self.told = told;
        self.watch.seek(seeks);
    }

    /// Looks again.
    pub(super) fn refresh(&mut self) {
        self.facts = self.watch.now();
    }

    /// The programs of the node's cgroup.
    pub(super) fn hooks(&mut self) -> &mut Hooks {
        &mut self.hooks
    }

    /// Rows, then programs on devices; what is no more goes last, in the opposite order.
    pub(super) fn sync(&mut self) {
        let rows = NodeRows::compile(&self.facts, &self.told, &self.options);
        let cgroups = find_pod_cgroups(&self.cgroup_root, &self.seen());
        let count = |wanted| cgroups.iter().filter(|(_, what)| *what == wanted).count();
        (self.pod_cgroups, self.seen_cgroups) = (count(PodCgroups::ALL), count(PodCgroups::SEEN));
        let refused = self.tables.put(&rows).into_iter().chain(self.tables.put_pod_cgroups(&cgroups));
        let mut problems: Vec<ReportedProblem> = refused.map(|message| problem("node", message)).collect();
        match self.hooks.sync_devices(&self.pin_root, &self.wanted()) {
            Ok(found) => {
                problems
                    .extend(found.into_iter().map(|(device, message)| problem(&self.name(device), message)));
                let pruned = self.tables.prune(&rows);
                problems.extend(pruned.into_iter().map(|message| problem("node", message)));
            }
            Err(error) => problems.push(problem("node", format!("attaching programs to devices: {error:#}"))),
        }
        self.tell(problems);
    }

    /// The pods whose namespaces have rows, and others that are known. In a namespace that one of their processes makes nobody is
    /// held.
    fn seen(&self) -> HashSet<PodUid> {
        let behind = self.facts.pods.values().filter(|pod| pod.netns.is_some());
        let behind = behind.filter_map(|pod| match pod.owner {
            Owner::Pod(uid) => Some(uid),
            Owner::Unknown | Owner::Nobody | Owner::Other(_) => None,
        });
        let elsewhere = self.told.elsewhere.keys().filter_map(|cookie| self.facts.elsewhere.get(cookie));
        behind.chain(elsewhere.copied()).chain(self.told.seen.iter().copied()).collect()
    }

    /// Whether [`Node::sync`] is to be tried again: something was refused, or is on its way.
    pub(super) fn is_unfinished(&self) -> bool {
        !self.problems.is_empty() || self.looks_until.is_some_and(|until| Instant::now() < until)
    }

    fn wanted(&self) -> BTreeMap<u32, DeviceKind> {
        let devices = self.facts.devices.iter().map(|(index, device)| {
            (*index, if device.mac.is_some() { DeviceKind::Net } else { DeviceKind::L3 })
        });
        devices.chain(self.facts.pods.keys().map(|index| (*index, DeviceKind::Pod))).collect()
    }

    fn name(&self, index: u32) -> String {
        let (device, pod) = (self.facts.devices.get(&index), self.facts.pods.get(&index));
        let name = device.map(|device| &device.name).or(pod.map(|pod| &pod.name));
        name.map_or_else(|| format!("device {index}"), |name| format!("device {name}"))
    }

    fn tell(&mut self, problems: Vec<ReportedProblem>) {
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            tracing::warn!("{}: {}", problem.object, problem.message);
        }
        self.problems = problems;
        let lacks_cgroups = self.told.holds && self.pod_cgroups == 0;
        if lacks_cgroups && !self.told_of_cgroups {
            let root = self.cgroup_root.display();
            tracing::warn!(
                "the kubelet has no cgroup for pods below {root}: pods that nobody knows are not held at their sockets"
            );
        }
        self.told_of_cgroups = lacks_cgroups;
        let devices = self.facts.devices.iter().map(|(&index, device)| ReportedDevice {
            index,
            name: device.name.clone(),
            v4: device.v4,
            v6: device.v6,
        });
        let network = NetworkReport {
            devices: devices.collect(),
            pods: self.facts.pods.len(),
            pods_without_namespace: self.facts.pods.values().filter(|pod| pod.netns.is_none()).count(),
            pod_addresses: self.facts.pods.values().map(|pod| pod.addresses.len()).sum(),
            pod_cgroups: self.pod_cgroups,
            seen_cgroups: self.seen_cgroups,
            pod_networks: self.options.pod_networks(&self.told).len(),
            v4: self.facts.primary_v4,
            v6: self.facts.primary_v6,
            problems: self.problems.clone(),
        };
        if self.report.read().network.devices != network.devices {
            let names: Vec<&str> = network.devices.iter().map(|device| device.name.as_str()).collect();
            tracing::info!(devices = names.join(","), pods = network.pods, "this node's network");
        }
        self.report.update(|report| report.network = network);
    }
}

fn problem(object: &str, message: String) -> ReportedProblem {
    ReportedProblem { object: object.to_owned(), field: "network".into(), message }
}
