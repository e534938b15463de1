//! From an event to a record: names for numbers, and the policies that the pod is isolated by, as they are known at this moment.

use std::collections::HashMap;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use weir_ebpf::abi::{DropEvent, DropReason, Peer, Protocol, Side};
use weir_ebpf::wire::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

use super::blame::{Blame, Flow, Policies};
use super::record::{DropEnd, DropRecord, DropRule};
use crate::network::Facts;
use crate::source::ObjectKey;
use crate::state::{PodView, State};
use crate::tables::{PolicyRows, Tables};

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
    /// What of policies is in the tables.
    pub rows: &'a PolicyRows,
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

/// A pod, and one direction.
type Asked = (ObjectKey, Side);

/// Explains the events of one batch; what it finds out it remembers for the next event of the same batch.
#[derive(Debug)]
pub struct Explainer<'a> {
    known: Known<'a>,
    clocks: Clocks,
    policies: HashMap<Asked, Option<Policies<'a>>>,
    services: HashMap<IpAddr, Option<String>>,
}

impl<'a> Explainer<'a> {
    /// Of a batch that is explained now.
    #[must_use]
    pub fn new(known: Known<'a>, clocks: Clocks) -> Self {
        Self { known, clocks, policies: HashMap::new(), services: HashMap::new() }
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
            DropReason::PolicyIngress => self.by_policies(event, pod, Side::Ingress, &mut record),
            DropReason::PolicyEgress => self.by_policies(event, pod, Side::Egress, &mut record),
            _ => sentence(reason),
        };
        Some(record)
    }

    /// The pod of this node that it is about: of a socket by its address; of a packet by the device, whatever addresses are there
    /// (a sandbox may keep them to itself, and a pod give itself another's).
    fn pod_of(&self, event: &DropEvent) -> Option<ObjectKey> {
        let policy = self.known.state.policy();
        match event.device {
            0 => policy.workload(event.src().addr.into()).map(key),
            device => policy.pod_behind(device).cloned(),
        }
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
        record: &mut DropRecord,
    ) -> String {
        const GONE: &str = "the pod is not known any more";
        let Some(pod) = pod else { return GONE.to_owned() };
        let (known, would) = (self.known, event.has(DropEvent::WOULD));
        let find = || Policies::of(known.state.policy(), &pod, asked);
        let policies = self.policies.entry((pod.clone(), asked)).or_insert_with(find);
        let Some(policies) = policies else { return GONE.to_owned() };
        // The flow is the other way round than the packet: that was a reply.
        let reply = event.side().is_some_and(|side| side != asked);
        let prefix = if reply { "a reply; " } else { "" };
        let word = word(asked);
        let is = if would { "would be" } else { "is" };
        let blame = flow(event, reply).and_then(|flow| policies.blame(&flow, would));
        if let Some(Blame::Rule { policy, rule, sure }) = &blame {
            record.policies = vec![format!("{CLUSTER}{policy}")];
            record.rule = Some(DropRule { number: rule.number, name: rule.name.as_deref().map(Into::into) });
            let unsure = if *sure { "" } else { ", as long as the labels of a namespace are not known" };
            return format!("{prefix}{pod}: {word} {is} denied by {CLUSTER}{policy}, {rule}{unsure}");
        }
        let own = policies.isolating(would).map(|name| format!("{}/{name}", pod.namespace));
        let of_cluster = policies.denying(would).map(|name| format!("{CLUSTER}{name}"));
        // Of those that were not asked nothing is said.
        let of_cluster = of_cluster.filter(|_| blame != Some(Blame::Isolation));
        let (names, by) = name_some(of_cluster.chain(own));
        record.policies = names;
        // What a reply came from may stand under another address by now.
        if blame == Some(Blame::Nobody) && !reply {
            return match known.rows.denies_beside(event.device, asked) {
                Some(why) if !would => format!("{prefix}{pod}: {word}: {why}"),
                _ if by.is_empty() => {
                    format!("{prefix}the policies that isolated {pod} for {word} have changed since")
                }
                _ => format!(
                    "{prefix}{pod} {is} isolated for {word} by {by}; since then they, or who has these addresses, have changed"
                ),
            };
        }
        if by.is_empty() {
            return format!("{prefix}the policies that isolated {pod} for {word} have changed since");
        }
        // Those without a namespace may deny what others allow.
        let how =
            if by.contains(CLUSTER) { "one of them denies it, or none allows it" } else { "none allows it" };
        format!("{prefix}{pod} {is} isolated for {word} by {by}; {how}")
    }
}

/// What policies were asked about; `None` where its ports are not known.
fn flow(event: &DropEvent, reply: bool) -> Option<Flow> {
    if !event.has(DropEvent::READ) || event.has(DropEvent::PIECE) {
        return None;
    }
    let dialled = event.new_dst().unwrap_or(event.dst());
    let (peer, port) = match (event.side()?, reply) {
        (Side::Egress, false) => (dialled, dialled.port),
        (Side::Ingress, false) => (event.src(), dialled.port),
        // It comes from the port that was dialled.
        (Side::Egress, true) => (dialled, event.src().port),
        (Side::Ingress, true) => (event.src(), event.src().port),
    };
    let protocol = Protocol::from_number(event.protocol.into());
    Some(Flow { peer: peer.addr.into(), protocol, port: port.host() })
}

/// The first of these names, and all of them in words.
fn name_some(mut all: impl Iterator<Item = String>) -> (Vec<String>, String) {
    let names: Vec<String> = all.by_ref().take(MOST_NAMES).collect();
    let mut words = names.join(", ");
    match all.count() {
        0 => {}
        more => words += &format!(" and {more} more"),
    }
    (names, words)
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
