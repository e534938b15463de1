//! Where this node's pods are, in the running agent: network and objects put together, batch by batch; and who is held because
//! nobody knows them.

mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use globset::GlobSet;
use ipnet::IpNet;
use weir_ebpf::abi::Addr;

use self::report::{describe, object_of, remedy};
use crate::network::{Facts, Seeks, Told};
use crate::source::{ObjectKey, ObjectRef, Problem};
use crate::state::{Behind, Given, Placement, State};

/// A device that is held for longer than this is told of in the log: somebody has to look.
const LONG: Duration = Duration::from_secs(120);

/// A pod that has addresses for longer than this, and no device, has none that we could see.
const UNSEEN: Duration = Duration::from_secs(30);

/// Whoever seems to be nobody of the cluster's for longer than this is no pod whose object is on its way.
const SETTLED: Duration = Duration::from_secs(60);

/// What is asked for about places.
#[derive(Clone, Debug, Default)]
pub(super) struct PlaceOptions {
    /// Whether pods that nobody knows are held.
    pub(super) holds: bool,
    /// The networks of which this node's pods have their addresses; none: as the Node says.
    pub(super) pod_networks: Vec<IpNet>,
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
    told: Option<(Told, Seeks)>,
    /// Devices of whom nobody knows whose they are: since when, and whether that was told.
    unknown: BTreeMap<u32, (Instant, bool)>,
    /// Devices behind which is nobody of the cluster's: since when, and who.
    others: BTreeMap<u32, (Instant, Arc<str>)>,
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
            others: BTreeMap::new(),
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
        let settled =
            self.others.iter().filter(|(_, (since, _))| now.saturating_duration_since(*since) >= SETTLED);
        let settled = settled.map(|(index, _)| *index).collect();
        let (before, networks) = (&self.placement.addresses, &*self.options.pod_networks);
        let placement = state.place(&self.facts, Given { before, networks, settled: &settled });
        let changed = placement != self.placement;
        self.placement = placement;
        self.follow_others(now);
        self.follow_unknown(now);
        self.unseen.retain(|key, _| self.placement.unplaced.get(key) == Some(&true));
        for key in
            self.placement.unplaced.iter().filter_map(|(key, has_addresses)| has_addresses.then_some(key))
        {
            self.unseen.entry(key.clone()).or_insert((now, false));
        }
        changed
    }

    /// One that is held, or of another now, or gone, is not there for long.
    fn follow_others(&mut self, now: Instant) {
        let other = |index: &u32| match self.placement.devices.get(index) {
            Some(Behind::Other(who)) => Some(who),
            _ => None,
        };
        self.others.retain(|index, (_, who)| other(index) == Some(who));
        let all = self.placement.devices.keys().filter_map(|index| Some((*index, other(index)?.clone())));
        for (index, who) in all {
            self.others.entry(index).or_insert((now, who));
        }
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
    pub(super) fn take_told(&mut self, state: &State) -> Option<(Told, Seeks)> {
        // Nobody is going to see a device of theirs. Where the agent may not look into processes, it finds no namespace either.
        let unseen = self.unseen.iter().filter(|(_, (_, was_told))| *was_told).map(|(key, _)| key.clone());
        let mut seen = state.policy().uids_of(&unseen.collect());
        seen.extend(&self.placement.by_cgroup);
        let told = Told {
            addresses: self.placement.addresses.clone(),
            elsewhere: self.placement.elsewhere.clone(),
            seen,
            pod_networks: state.pod_networks().into(),
            // One that has no UID would be taken for one that nobody knows.
            holds: self.holding.is_some() && self.placement.untold.is_empty(),
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
        found.extend(self.untold());
        self.problems = found;
        &self.problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Owner, Pod as Device};
    use crate::observe::PlaceReport;
    use crate::source::{Event, Pod, PodIdentity, PodUid};

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

    fn pod(uid: Option<&str>, address: [u8; 4]) -> Pod {
        let identity =
            uid.map(|uid| Box::new(PodIdentity { uid: PodUid::parse(uid).unwrap(), mirrors: None }));
        let addresses = [IpAddr::from(address)].into();
        Pod { identity, addresses, node: Some("here".into()), ..Pod::default() }
    }

    fn place(state: &mut State, places: &mut Places, name: &str, pod: Pod) -> Told {
        state.apply(Event::Pod(ObjectKey::new("ns", name), Some(pod)));
        let now = Instant::now();
        places.place(state, now);
        places.set_on(true, now);
        places.take_told(state).unwrap().0
    }

    #[test]
    fn a_namespace_out_of_reach_releases_its_own_pod_and_nobody_else() {
        const UID: &str = "0b6fcf3e-7a0c-4a4e-9d7d-1f0a6e2b3c4d";
        let options = PlaceOptions { holds: true, ..PlaceOptions::default() };
        let mut places = Places::new(options, BTreeMap::new());
        let device = |address: [u8; 4]| Device { addresses: vec![address.into()], ..Device::default() };
        let pods = BTreeMap::from([(7, device([10, 0, 0, 5])), (8, device([10, 0, 0, 6]))]);
        places.set_facts(Facts { pods, ..Facts::default() });
        let mut state = State::new("here");
        let told = place(&mut state, &mut places, "a", pod(Some(UID), [10, 0, 0, 5]));
        assert!(told.holds);
        assert_eq!(told.seen, BTreeSet::from([PodUid::parse(UID).unwrap()]));
        // Its sockets are nobody's that could be told.
        let told = place(&mut state, &mut places, "b", pod(None, [10, 0, 0, 6]));
        assert!(!told.holds);
        let problems = places.look(&state, Instant::now());
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].0.to_string(), "Pod ns/b");
        let mut report = PlaceReport::default();
        places.tell(&mut report, Instant::now());
        assert_eq!(report.hold.untold.len(), 1);
    }

    #[test]
    fn a_pod_that_no_device_leads_to_is_free_at_its_sockets_by_and_by() {
        const UID: &str = "0b6fcf3e-7a0c-4a4e-9d7d-1f0a6e2b3c4d";
        let options = PlaceOptions { holds: true, ..PlaceOptions::default() };
        let mut places = Places::new(options, BTreeMap::new());
        let mut state = State::new("here");
        let told = place(&mut state, &mut places, "macvlan", pod(Some(UID), [10, 0, 0, 5]));
        assert!(told.holds && told.seen.is_empty(), "its device may come at any moment");
        places.look(&state, Instant::now() + UNSEEN);
        let (told, _) = places.take_told(&state).unwrap();
        assert_eq!(told.seen, BTreeSet::from([PodUid::parse(UID).unwrap()]));
    }

    #[test]
    fn who_was_there_long_before_a_pod_is_not_held_for_it() {
        let networks = vec!["10.0.0.0/24".parse().unwrap()];
        let options = PlaceOptions { holds: true, pod_networks: networks, ..PlaceOptions::default() };
        for (after, is_held) in [(SETTLED / 2, true), (SETTLED, false)] {
            let mut places = Places::new(options.clone(), BTreeMap::new());
            let device = Device {
                netns: Some(1),
                owner: Owner::Other("/docker".into()),
                addresses: vec![[10, 0, 0, 5].into()],
                ..Device::default()
            };
            places.set_facts(Facts { pods: BTreeMap::from([(7, device)]), ..Facts::default() });
            let (mut state, begun) = (State::new("here"), Instant::now());
            places.place(&mut state, begun);
            assert!(places.free().contains(&7));
            let made = Pod { addresses: Box::default(), ..pod(None, [10, 0, 0, 6]) };
            state.apply(Event::Pod(ObjectKey::new("ns", "made"), Some(made)));
            places.place(&mut state, begun + after);
            assert_eq!(!places.free().contains(&7), is_held, "{after:?}");
        }
    }
}
