//! Policies on the node of the cases: who may what.

use weir_ebpf::abi::{
    Addr, BoundPod, ClassId, Enforcement, PodPolicy, PolicySetId, Port, PortRule, PortRuleKey, PortRulesId,
    Protocol, VerdictKey,
};

use super::case::Who;
use super::node::{FIRST_POD, LOCAL, Node};

const FRIENDS: ClassId = ClassId(7);
const FRIENDS_SET: PolicySetId = PolicySetId(10);
const PORT_SET: PolicySetId = PolicySetId(11);
const PORTS: PortRulesId = PortRulesId(3);
/// The backends' port, which is the only one in policies.
const PORT: u16 = 8080;

/// What a pod is allowed on one side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Allows {
    /// Nothing isolates it.
    Everything,
    /// Nothing at all.
    Nothing,
    /// Whatever friends send, or are sent.
    Friends,
    /// The same to the backends' port alone.
    FriendsPort,
}

impl Allows {
    const fn set(self) -> PolicySetId {
        match self {
            Self::Everything => PolicySetId::OPEN,
            Self::Nothing => PolicySetId::CLOSED,
            Self::Friends => FRIENDS_SET,
            Self::FriendsPort => PORT_SET,
        }
    }
}

impl Node {
    /// There are policies. The pods of this node are known; the first is isolated like this, the other is not.
    pub(super) fn guard(&mut self, ingress: Allows, egress: Allows) {
        self.tables.enforcement = Enforcement::new(Enforcement::ON | Enforcement::HOLD_UNKNOWN, 1, 8);
        let policy = &mut self.tables.policy;
        policy.verdicts.insert(VerdictKey { set: FRIENDS_SET, class: FRIENDS }, PortRulesId::ALL);
        policy.verdicts.insert(VerdictKey { set: PORT_SET, class: FRIENDS }, PORTS);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let key = PortRuleKey::new(PORTS, protocol as u8, Port::new(PORT), 16);
            policy.port_rules.insert(key, PortRule::ALLOW);
        }
        for pod in 0..LOCAL {
            self.isolate(pod, Allows::Everything, Allows::Everything);
        }
        self.isolate(0, ingress, egress);
    }

    /// How a pod of this node is isolated from now on.
    pub(super) fn isolate(&mut self, pod: u32, ingress: Allows, egress: Allows) {
        let (addr, none) = (self.peer(Who::Pod(pod)).addr, Addr::from_words([0; 4]));
        let (v4, v6) = if addr.is_v4() { (addr, none) } else { (none, addr) };
        let policy = PodPolicy::new(ingress.set(), egress.set());
        self.tables.pods.insert(FIRST_POD + pod, BoundPod::new(v4, v6, policy, 0));
    }

    /// A pod of this node that nobody knows yet.
    pub(super) fn forget_pod(&mut self, pod: u32) {
        self.tables.pods.remove(&(FIRST_POD + pod));
    }

    /// The node takes packets out of tunnels at a UDP port.
    pub(super) fn take_tunnels(&mut self, port: u16) {
        if let Some(config) = &mut self.tables.config {
            config.tunnel_ports[1] = Port::new(port);
        }
    }

    /// Policies know this address from now on.
    pub(super) fn befriend(&mut self, who: Who) {
        self.tables.policy.addresses.insert(self.peer(who).addr, FRIENDS);
        self.tables.enforcement.generation += 1;
    }

    /// Policies know no address any more.
    pub(super) fn forget_friends(&mut self) {
        self.tables.policy.addresses.clear();
        self.tables.enforcement.generation += 1;
    }

    /// What each pod may have of the table of judged flows.
    pub(super) fn set_share(&mut self, most_per_pod: u32) {
        self.tables.enforcement.most_per_pod = most_per_pod;
    }
}
