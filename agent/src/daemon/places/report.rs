//! What [`Places`] says of itself to people: problems, the report, and the words for why somebody is held.

use std::time::Instant;

use super::{Places, UNSEEN};
use crate::observe::{HeldDevice, HoldReport, PlaceReport};
use crate::source::{ObjectKey, ObjectRef, Problem};
use crate::state::{Behind, Unknown};

impl Places {
    /// Addresses that are on a device which they are not for.
    pub(super) fn contested(&self) -> Vec<(ObjectRef, Problem)> {
        let mut found = Vec::new();
        for (index, ip) in &self.placement.contested {
            let holder = self
                .placement
                .addresses
                .get(ip)
                .map_or_else(|| "another".into(), |index| self.device(*index));
            let message = format!(
                "{ip} on its device {} belongs to {holder}: nothing is sent there, and nothing taken from it under this address",
                self.device(*index)
            );
            if let Some(Behind::Pod(key) | Behind::Second(key) | Behind::Unknown(Unknown::NoAddress(key))) =
                self.placement.devices.get(index)
            {
                found.push((object_of(key), Problem { field: "network".into(), message }));
            } else {
                let object =
                    ObjectRef { kind: "Device", namespace: "".into(), name: self.device(*index).into() };
                found.push((object, Problem { field: "network".into(), message }));
            }
        }
        found
    }

    /// Pods because of which nobody is held at sockets and addresses.
    pub(super) fn untold(&self) -> Vec<(ObjectRef, Problem)> {
        let all = self.placement.untold.iter().filter(|_| self.holding.is_some());
        let pods = all.filter_map(|index| match self.placement.devices.get(index) {
            Some(Behind::Pod(key)) => Some((index, key)),
            _ => None,
        });
        pods.map(|(index, key)| {
            let message = format!(
                "nobody has found a way into the network namespace behind its device {}, and it has no metadata.uid: its sockets \
                 cannot be told from those of a pod that nobody knows, so while it is here such pods are held at their devices alone",
                self.device(*index)
            );
            (object_of(key), Problem { field: "network".into(), message })
        })
        .collect()
    }

    /// What is in force, for people and metrics.
    pub(in crate::daemon) fn tell(&self, report: &mut PlaceReport, now: Instant) {
        let held = self.placement.devices.iter().filter_map(|(index, behind)| match behind {
            Behind::Unknown(why) if self.holding.is_some() => {
                let since = self.unknown.get(index).map_or(now, |(since, _)| *since);
                let for_s = now.saturating_duration_since(since).as_secs();
                Some(HeldDevice { name: self.device(*index), why: describe(why), for_s })
            }
            _ => None,
        });
        report.held = held.collect();
        let others = self.placement.devices.iter().filter_map(|(index, behind)| match behind {
            Behind::Other(cgroup) => Some(format!("{} ({cgroup})", self.device(*index))),
            _ => None,
        });
        report.others = others.collect();
        let seconds = self.placement.devices.iter().filter_map(|(index, behind)| match behind {
            Behind::Second(key) => Some(format!("{key} at {}", self.device(*index))),
            _ => None,
        });
        let unseen =
            self.unseen.iter().filter(|(_, (since, _))| now.saturating_duration_since(*since) >= UNSEEN);
        report.unenforced = seconds.chain(unseen.map(|(key, _)| key.to_string())).collect();
        report.contested = self.placement.contested.len();
        report.hold = HoldReport {
            is_asked: self.options.holds,
            is_on: self.holding.is_some(),
            untold: self.placement.untold.iter().map(|index| self.device(*index)).collect(),
        };
        (report.holds, report.hold_seconds) = (self.holds.count, self.holds.sum.as_secs_f64());
        report.longest_hold_seconds = self.holds.longest.as_secs_f64();
    }

    pub(super) fn device(&self, index: u32) -> String {
        self.facts.pods.get(&index).map_or_else(|| format!("device {index}"), |pod| pod.name.clone())
    }
}

pub(super) fn object_of(key: &ObjectKey) -> ObjectRef {
    ObjectRef { kind: "Pod", namespace: key.namespace.clone(), name: key.name.clone() }
}

/// Why nobody knows who is behind a device.
pub(super) fn describe(why: &Unknown) -> String {
    match why {
        Unknown::NoWay => "its network namespace cannot be reached from here".into(),
        Unknown::NoProcess => "no process is in its network namespace that says whose it is".into(),
        Unknown::NoPod(uid) => format!("the cluster has told of no pod of this node with the UID {uid}"),
        Unknown::NoAddress(key) => format!("pod {key} has no address that is its own"),
        Unknown::MayBe(key) => format!(
            "its processes are no pod's, but it may be pod {key} in the making, which no other device is known to lead to"
        ),
    }
}

/// What a person can do about it.
pub(super) fn remedy(why: &Unknown) -> &'static str {
    match why {
        Unknown::NoWay => {
            "run the agent with the node's PID namespace and CAP_SYS_PTRACE, or with --unknown-pods allow"
        }
        Unknown::NoProcess => {
            "if nobody needs it remove it (`ip link delete`, `ip netns`); if it leads to a machine or a container without processes \
             here, --unknown-pods allow lets it pass"
        }
        Unknown::NoPod(_) => {
            "if the pod runs, look whether the agent may list pods, and whether --node-name is this node's name; if it has ended, \
             its sandbox is still there (`crictl pods`)"
        }
        Unknown::NoAddress(_) | Unknown::MayBe(_) => {
            "look at the pod's status and at what the CNI plugin logs"
        }
    }
}
