//! Where this node's pods are, in the running agent: network and objects put together, batch by batch; and who is held because
//! nobody knows them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use globset::GlobSet;
use weir_ebpf::abi::Addr;

use crate::network::{Facts, Told};
use crate::observe::{HeldDevice, PlaceReport};
use crate::source::{ObjectKey, ObjectRef, Problem};
use crate::state::{Behind, Placement, State, Unknown};

/// A device that is held for longer than this is told of in the log: somebody has to look.
const LONG: Duration = Duration::from_secs(120);

/// A pod that has addresses for longer than this, and no device, has none that we could see.
const UNSEEN: Duration = Duration::from_secs(30);

/// What is asked for about places.
#[derive(Clone, Debug, Default)]
pub(super) struct PlaceOptions {
    /// Whether pods that nobody knows are held.
    pub(super) holds: bool,
    /// Devices, and pods by namespace and name, that may send with any source.
    pub(super) trusted: Option<GlobSet>,
    pub(super) trusted_pods: Option<GlobSet>,
}

/// See the module.
pub(super) struct Places {
    options: PlaceOptions,
    facts: Facts,
    placement: Placement,
    facts_changed: bool,
    told: Option<(Told, bool)>,
    /// Devices of whom nobody knows whose they are: since when, and whether that was told.
    unknown: BTreeMap<u32, (Instant, bool)>,
    /// Pods that have addresses and no device: since when, and whether it was looked what that means.
    unseen: BTreeMap<ObjectKey, (Instant, bool)>,
    /// Since when who is not known is held.
    holding: Option<Instant>,
    holds: Holds,
    problems: Vec<(ObjectRef, Problem)>,
}

/// How long pods were held.
#[derive(Clone, Copy, Default)]
struct Holds {
    count: u64,
    sum: Duration,
    longest: Duration,
}

impl Places {
    /// `before`: who had which address when an agent before this one wrote it down.
    pub(super) fn new(options: PlaceOptions, before: BTreeMap<IpAddr, u32>) -> Self {
        Self {
            options,
            facts: Facts::default(),
            placement: Placement::before(before),
            facts_changed: false,
            told: None,
            unknown: BTreeMap::new(),
            unseen: BTreeMap::new(),
            holding: None,
            holds: Holds::default(),
            problems: Vec::new(),
        }
    }

    pub(super) fn set_facts(&mut self, facts: Facts) {
        self.facts_changed |= facts != self.facts;
        self.facts = facts;
    }

    /// Puts together what changed; whether something is another.
    pub(super) fn place(&mut self, state: &mut State, now: Instant) -> bool {
        if !(std::mem::take(&mut self.facts_changed) | state.take_pods_here_changed()) {
            return false;
        }
        let placement = state.place(&self.facts, &self.placement.addresses);
        let changed = placement != self.placement;
        self.placement = placement;
        self.follow_unknown(now);
        self.unseen.retain(|key, _| self.placement.unplaced.get(key) == Some(&true));
        for key in
            self.placement.unplaced.iter().filter_map(|(key, has_addresses)| has_addresses.then_some(key))
        {
            self.unseen.entry(key.clone()).or_insert((now, false));
        }
        changed
    }

    /// Devices whose owner is known now were held until now.
    fn follow_unknown(&mut self, now: Instant) {
        let devices = &self.placement.devices;
        let is_unknown = |index: &u32| matches!(devices.get(index), Some(Behind::Unknown(_)));
        let known: Vec<u32> = self.unknown.keys().filter(|index| !is_unknown(index)).copied().collect();
        for index in known {
            let since = self.unknown.remove(&index).map_or(now, |(since, _)| since);
            // One that is gone was nobody's.
            if let (Some(Behind::Pod(_)), Some(holding)) = (devices.get(&index), self.holding) {
                let held = now.saturating_duration_since(since.max(holding));
                self.holds.count += 1;
                self.holds.sum += held;
                self.holds.longest = self.holds.longest.max(held);
            }
        }
        for index in devices.keys().filter(|index| is_unknown(index)) {
            self.unknown.entry(*index).or_insert((now, false));
        }
    }

    /// The pods of the cluster's network: each address, and the device that it is behind.
    pub(super) fn workloads(&self) -> impl Iterator<Item = (Addr, u32)> {
        let is_pods = |index: &u32| matches!(self.placement.devices.get(index), Some(Behind::Pod(_)));
        let of_pods = self.placement.addresses.iter().filter(move |(_, index)| is_pods(index));
        of_pods.map(|(ip, index)| ((*ip).into(), *index))
    }

    /// Devices that no policy is about.
    pub(super) fn free(&self) -> BTreeSet<u32> {
        let is_free = |behind: &Behind| matches!(behind, Behind::Second(_) | Behind::Other(_));
        self.placement.devices.iter().filter(|(_, behind)| is_free(behind)).map(|(index, _)| *index).collect()
    }

    /// Devices of pods that may send with any source.
    pub(super) fn trusted(&self) -> BTreeSet<u32> {
        let by_device = |index: &u32| {
            let name = self.facts.pods.get(index).map(|pod| &pod.name);
            name.zip(self.options.trusted.as_ref()).is_some_and(|(name, trusted)| trusted.is_match(name))
        };
        let by_pod = |behind: &Behind| match (behind, &self.options.trusted_pods) {
            (Behind::Pod(key), Some(trusted)) => trusted.is_match(key.to_string()),
            _ => false,
        };
        let devices = self.placement.devices.iter();
        devices
            .filter(|(index, behind)| by_device(index) || by_pod(behind))
            .map(|(index, _)| *index)
            .collect()
    }

    /// Takes in whether there are policies.
    pub(super) fn set_on(&mut self, is_on: bool, now: Instant) {
        let holds = is_on && self.options.holds;
        if holds != self.holding.is_some() {
            self.holding = holds.then_some(now);
        }
    }

    /// What the tables of the node are to say, and whether pods are to be sought that are behind no device of ours: if that is
    /// something else than before.
    pub(super) fn take_told(&mut self, state: &State) -> Option<(Told, bool)> {
        // A pod whose namespace nobody can reach could never be known at its sockets.
        let is_blind = self.facts.pods.values().any(|pod| pod.netns.is_none());
        let told = Told {
            addresses: self.placement.addresses.clone(),
            elsewhere: self.placement.elsewhere.clone(),
            pod_networks: state.pod_networks().into(),
            holds: self.holding.is_some() && !is_blind,
        };
        let told = (told, self.placement.seeks);
        if self.told.as_ref() == Some(&told) {
            return None;
        }
        self.told = Some(told.clone());
        Some(told)
    }

    /// Whether something is to be told when some time has passed.
    pub(super) fn is_waiting(&self) -> bool {
        self.unknown.values().chain(self.unseen.values()).any(|(_, was_told)| !was_told)
    }

    /// Logs who is held for long; returns what is wrong with pods, where policies are about them.
    pub(super) fn look(&mut self, state: &State, now: Instant) -> &[(ObjectRef, Problem)] {
        for (index, (since, was_told)) in &mut self.unknown {
            if *was_told || now.saturating_duration_since(*since) < LONG {
                continue;
            }
            *was_told = true;
            let (Some(pod), Some(Behind::Unknown(why))) =
                (self.facts.pods.get(index), self.placement.devices.get(index))
            else {
                continue;
            };
            if self.holding.is_some() {
                tracing::warn!("{} is held: {}; {}", pod.name, describe(why), remedy(why));
            }
        }
        for (since, was_told) in self.unseen.values_mut() {
            *was_told |= now.saturating_duration_since(*since) >= UNSEEN;
        }
        let mut problems = Vec::new();
        let seconds = self.placement.devices.iter().filter_map(|(index, behind)| match behind {
            Behind::Second(key) => Some((key, format!("its device {}", self.device(*index)))),
            _ => None,
        });
        let unseen = self.unseen.iter().filter(|(_, (_, was_told))| *was_told);
        let unseen =
            unseen.map(|(key, _)| (key, "it is behind no veth of this node, and what it sends".to_owned()));
        for (key, what) in seconds.chain(unseen) {
            if state.policy().pod(key).is_some_and(|view| state.policy().is_selected(&view)) {
                problems.push((key, format!("{what} is not held by the NetworkPolicies that select it")));
            }
        }
        let mut found: Vec<(ObjectRef, Problem)> = problems
            .into_iter()
            .map(|(key, message)| (object_of(key), Problem { field: "network".into(), message }))
            .collect();
        found.extend(self.contested());
        self.problems = found;
        &self.problems
    }

    /// Addresses that are on a device which they are not for.
    fn contested(&self) -> Vec<(ObjectRef, Problem)> {
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

    /// What is in force, for people and metrics.
    pub(super) fn tell(&self, report: &mut PlaceReport, now: Instant) {
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
        (report.holds, report.hold_seconds) = (self.holds.count, self.holds.sum.as_secs_f64());
        report.longest_hold_seconds = self.holds.longest.as_secs_f64();
    }

    fn device(&self, index: u32) -> String {
        self.facts.pods.get(&index).map_or_else(|| format!("device {index}"), |pod| pod.name.clone())
    }
}

fn object_of(key: &ObjectKey) -> ObjectRef {
    ObjectRef { kind: "Pod", namespace: key.namespace.clone(), name: key.name.clone() }
}

/// Why nobody knows who is behind a device.
fn describe(why: &Unknown) -> String {
    match why {
        Unknown::NoWay => "its network namespace cannot be reached from here".into(),
        Unknown::NoProcess => "no process is in its network namespace that says whose it is".into(),
        Unknown::NoPod(uid) => format!("the cluster has told of no pod of this node with the UID {uid}"),
        Unknown::NoAddress(key) => format!("pod {key} has no address that is its own"),
    }
}

/// What a person can do about it.
fn remedy(why: &Unknown) -> &'static str {
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
        Unknown::NoAddress(_) => "look at the pod's status and at what the CNI plugin logs",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_waited_for_when_all_was_looked_at() {
        let now = Instant::now();
        let mut places = Places::new(PlaceOptions::default(), BTreeMap::new());
        assert!(!places.is_waiting());
        // One that no policy selects: nothing is said of it.
        places.unseen.insert(ObjectKey::new("ns", "macvlan"), (now, false));
        let state = State::new("here");
        assert!(places.look(&state, now).is_empty() && places.is_waiting());
        assert!(places.look(&state, now + UNSEEN).is_empty() && !places.is_waiting());
    }
}
