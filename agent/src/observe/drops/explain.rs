//! From an event to a record: names for numbers, and the policies that the pod is isolated by, as they are known at this moment.

use std::collections::HashMap;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use weir_ebpf::abi::{DropEvent, DropReason, Peer, Protocol, Side};
use weir_ebpf::wire::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

use super::record::{DropEnd, DropRecord};
use crate::network::Facts;
use crate::source::{ClusterRule, ObjectKey, RuleAction};
use crate::state::{PodView, State};
use crate::tables::Tables;

/// Names of policies that a record has; there may be thousands.
const MOST_NAMES: usize = 10;
/// Of a batch, how many addresses are looked for in all Services: those of ports that no Service has.
const MOST_SEARCHES: usize = 16;

/// Before the name of a policy that is in no namespace.
const CLUSTER: &str = "ClusterNetworkPolicy ";

/// What is known of the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Its objects.
    pub state: &'a State,
    /// Its Services, by what is dialled.
    pub tables: &'a Tables,
    /// This node's devices and pods.
    pub network: &'a Facts,
}

/// What turns the time since boot into that of the day.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// Nanoseconds since boot, as the hooks count them.
    pub boot_ns: u64,
    /// The same moment.
    pub now: Timestamp,
}

impl Clocks {
    fn time(&self, when_ns: u64) -> String {
        let ago = i64::try_from(self.boot_ns.saturating_sub(when_ns)).unwrap_or(i64::MAX);
        let time = self.now.checked_sub(SignedDuration::from_nanos(ago)).unwrap_or(self.now);
        format!("{time:.3}")
    }
}

/// A pod, one direction, and whether policies that are only watched are meant.
type Asked = (ObjectKey, Side, bool);

/// Explains the events of one batch; what it finds out it remembers for the next event of the same batch.
#[derive(Debug)]
pub struct Explainer<'a> {
    known: Known<'a>,
    clocks: Clocks,
    isolating: HashMap<Asked, (Vec<String>, usize)>,
    services: HashMap<IpAddr, Option<String>>,
}

impl<'a> Explainer<'a> {
    /// Of a batch that is explained now.
    #[must_use]
    pub fn new(known: Known<'a>, clocks: Clocks) -> Self {
        Self { known, clocks, isolating: HashMap::new(), services: HashMap::new() }
    }

    /// The record of an event; `None`: it is of another version.
    pub fn explain(&mut self, event: &DropEvent) -> Option<DropRecord> {
        let (reason, hook) = (event.reason()?, event.hook()?);
        let pod = self.pod_of(event);
        let verdict = match () {
            () if event.has(DropEvent::WOULD) => "would-drop",
            () if event.has(DropEvent::REFUSED) => "refuse",
            () => "drop",
        };
        let mut record = DropRecord {
            time: self.clocks.time(event.when_ns),
            verdict: verdict.to_owned(),
            reason: reason.label().to_owned(),
            hook: hook.label().to_owned(),
            pod: pod.as_ref().map(ToString::to_string),
            device: self.device(event.device),
            direction: event.side().map(|side| word(side).to_owned()),
            protocol: protocol(event),
            detail: detail(event),
            judged: event.has(DropEvent::JUDGED).then_some((event.set.0, event.class.0)),
            ..DropRecord::default()
        };
        if event.has(DropEvent::READ) {
            let number = Protocol::from_number(event.protocol.into());
            record.src = Some(self.end(event.src(), number, None));
            record.dst = Some(self.end(event.dst(), number, Some(reason)));
            record.backend = event.new_dst().map(|backend| self.end(backend, number, None));
        }
        record.why = match reason {
            DropReason::PolicyIngress => self.by_policies(event, pod, Side::Ingress, &mut record.policies),
            DropReason::PolicyEgress => self.by_policies(event, pod, Side::Egress, &mut record.policies),
            _ => sentence(reason),
        };
        Some(record)
    }

    /// The pod of this node that it is about: by its device, and of a socket by its address.
    fn pod_of(&self, event: &DropEvent) -> Option<ObjectKey> {
        let policy = self.known.state.policy();
        if event.device == 0 {
            return policy.workload(event.src().addr.into()).map(key);
        }
        let pod = self.known.network.pods.get(&event.device)?;
        pod.addresses.iter().find_map(|addr| policy.workload(*addr)).map(key)
    }

    fn device(&self, index: u32) -> Option<String> {
        let network = self.known.network;
        let pod = network.pods.get(&index).map(|pod| &pod.name);
        let name = pod.or_else(|| network.devices.get(&index).map(|device| &device.name));
        (index != 0).then(|| name.map_or_else(|| format!("{index}"), Clone::clone))
    }

    /// Of what was dialled: why it was dropped may say that it is a Service's.
    fn end(&mut self, peer: Peer, protocol: Option<Protocol>, dialled: Option<DropReason>) -> DropEnd {
        let addr = IpAddr::from(peer.addr);
        let pod = self.known.state.policy().owner(addr).map(|view| key(view).to_string());
        let service = match dialled {
            Some(reason) if pod.is_none() => self.service(peer, protocol, reason),
            _ => None,
        };
        let node = self.known.state.addresses().is_some_and(|addresses| addresses.contains_key(&addr));
        let port = peer.port.host();
        DropEnd { addr, port: (port != 0).then_some(port), pod, service, node }
    }

    fn service(&mut self, dialled: Peer, protocol: Option<Protocol>, reason: DropReason) -> Option<String> {
        let at = |peer| self.known.tables.service_at(peer, protocol?);
        let node_port = Peer { addr: dialled.addr.unspecified(), ..dialled };
        if let Some(service) = at(dialled).or_else(|| at(node_port)) {
            return Some(service.to_string());
        }
        let addr = IpAddr::from(dialled.addr);
        if !matches!(reason, DropReason::UnknownPort | DropReason::FragmentWithoutFirst) {
            return None;
        }
        if self.services.len() >= MOST_SEARCHES && !self.services.contains_key(&addr) {
            return None;
        }
        let search = || self.known.state.service_at(addr).map(ToString::to_string);
        self.services.entry(addr).or_insert_with(search).clone()
    }

    /// Why policies deny it, and their names.
    fn by_policies(
        &mut self,
        event: &DropEvent,
        pod: Option<ObjectKey>,
        asked: Side,
        names: &mut Vec<String>,
    ) -> String {
        let Some(pod) = pod else { return "the pod is not known any more".to_owned() };
        let (known, would) = (self.known, event.has(DropEvent::WOULD));
        let find = || isolating(known.state, &pod, asked, would);
        let (found, more) = self.isolating.entry((pod.clone(), asked, would)).or_insert_with(find);
        names.clone_from(found);
        let mut by = found.join(", ");
        if *more > 0 {
            by += &format!(" and {more} more");
        }
        // The flow is the other way round than the packet: that was a reply.
        let reply = if event.side().is_some_and(|side| side != asked) { "a reply; " } else { "" };
        if by.is_empty() {
            return format!("{reply}the policies that isolated {pod} for {} have changed since", word(asked));
        }
        // Those without a namespace may deny what others allow.
        let how =
            if by.contains(CLUSTER) { "one of them denies it, or none allows it" } else { "none allows it" };
        let is = if would { "would be" } else { "is" };
        format!("{reply}{pod} {is} isolated for {} by {by}; {how}", word(asked))
    }
}

/// The names of the policies that isolate a pod in one direction, and how many there are beyond; of those that are enforced, or
/// of those that are only watched.
fn isolating(state: &State, pod: &ObjectKey, side: Side, watched: bool) -> (Vec<String>, usize) {
    let policies = state.policy();
    let Some(found) = policies.pod(pod).map(|view| view.pod) else { return (Vec::new(), 0) };
    let labels = &found.labels;
    let isolates = policies.named_policies(&pod.namespace).filter(|(_, policy)| {
        let direction = match side {
            Side::Ingress => &policy.ingress,
            Side::Egress => &policy.egress,
        };
        direction.is_some()
            && policies.is_audited(&pod.namespace, policy) == watched
            && policy.pods.matches(labels)
    });
    let of_cluster =
        policies.cluster_policies(&PodView { namespace: &pod.namespace, name: &pod.name, pod: found });
    let denies = |rule: &ClusterRule| rule.action != RuleAction::Accept;
    let of_cluster = of_cluster
        .into_iter()
        .filter(|one| one.policy.modes.audit == watched && one.policy.rules(side).iter().any(denies));
    let of_cluster = of_cluster.map(|one| format!("{CLUSTER}{}", one.name));
    let mut all = of_cluster.chain(isolates.map(|(name, _)| format!("{}/{name}", pod.namespace)));
    let names: Vec<String> = all.by_ref().take(MOST_NAMES).collect();
    (names, all.count())
}

fn key(view: PodView<'_>) -> ObjectKey {
    ObjectKey { namespace: view.namespace.clone(), name: view.name.clone() }
}

const fn word(side: Side) -> &'static str {
    match side {
        Side::Ingress => "ingress",
        Side::Egress => "egress",
    }
}

/// What the reason means, as metrics and `weir status` say it, without what became of it.
fn sentence(reason: DropReason) -> String {
    let help = reason.help().trim_end_matches('.');
    help.rsplit_once(" (").map_or(help, |(before, _)| before).to_owned()
}

fn protocol(event: &DropEvent) -> String {
    if !event.has(DropEvent::READ) {
        return format!("ether type {:#06x}", event.ether_type);
    }
    match (Protocol::from_number(event.protocol.into()), event.protocol) {
        (Some(protocol), _) => protocol.name().to_owned(),
        (None, 1) => "ICMP".to_owned(),
        (None, 58) => "ICMPv6".to_owned(),
        (None, number) => format!("protocol {number}"),
    }
}

fn detail(event: &DropEvent) -> String {
    if event.has(DropEvent::PIECE) {
        return "later fragment".to_owned();
    }
    match event.protocol {
        _ if !event.has(DropEvent::READ) || event.device == 0 => String::new(),
        1 | 58 => format!("type {}", event.detail),
        6 => {
            let flags = [(TCP_SYN, "SYN"), (TCP_FIN, "FIN"), (TCP_RST, "RST"), (TCP_ACK, "ACK")];
            let set: Vec<&str> =
                flags.iter().filter(|(flag, _)| event.detail & flag != 0).map(|(_, name)| *name).collect();
            set.join("+")
        }
        _ => String::new(),
    }
}
