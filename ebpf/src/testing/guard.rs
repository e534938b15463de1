//! Policies as tests of the hooks say them: who is a friend, and what a pod may. The tables have no more than these words.

use super::MemoryTables;
use crate::abi::{
    Addr, BoundPod, ClassId, Enforcement, PodPolicy, PolicySetId, Port, PortRule, PortRuleKey, PortRulesId,
    Protocol, VerdictKey,
};

/// Of whoever some policy knows.
const FRIENDS: ClassId = ClassId(7);
const PORTS: PortRulesId = PortRulesId(3);
/// The only TCP and UDP port that policies know: the backends' of tests.
pub const GUARDED_PORT: u16 = 8080;

/// What a pod is allowed on one side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Allows {
    /// Nothing isolates it.
    Everything,
    /// Nothing at all.
    Nothing,
    /// Whatever friends send, or are sent.
    Friends,
    /// The same to [`GUARDED_PORT`] alone.
    FriendsPort,
    /// Everything, though what is not from and to friends would be denied.
    Watched,
}

impl Allows {
    /// The set that says so.
    #[must_use]
    pub const fn set(self) -> PolicySetId {
        match self {
            Self::Everything => PolicySetId::OPEN,
            Self::Nothing => PolicySetId::CLOSED,
            Self::Friends => PolicySetId(10),
            Self::FriendsPort => PolicySetId(11),
            Self::Watched => PolicySetId(12),
        }
    }
}

impl MemoryTables {
    /// There are policies, and none of them is about anybody. A pod has so many rows of `judged` at most.
    pub fn guard(&mut self, most_per_pod: u32) {
        self.enforcement = Enforcement::new(Enforcement::ON | Enforcement::HOLD_UNKNOWN, 1, most_per_pod);
        for (allows, class, rules) in [
            (Allows::Friends, FRIENDS, PortRulesId::ALL),
            (Allows::FriendsPort, FRIENDS, PORTS),
            (Allows::Watched, FRIENDS, PortRulesId::ALL),
            (Allows::Watched, ClassId::EVERYBODY, PortRulesId::AUDIT),
        ] {
            self.policy.verdicts.insert(VerdictKey { set: allows.set(), class }, rules);
        }
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let key = PortRuleKey::new(PORTS, protocol as u8, Port::new(GUARDED_PORT), 16);
            self.policy.port_rules.insert(key, PortRule::ALLOW);
        }
    }

    /// The pod with this address is behind that device, and may get and send this from now on.
    pub fn isolate(&mut self, device: u32, addr: Addr, ingress: Allows, egress: Allows) {
        let none = Addr::from_words([0; 4]);
        let (v4, v6) = if addr.is_v4() { (addr, none) } else { (none, addr) };
        let mut policy = PodPolicy::new(ingress.set(), egress.set());
        for (allows, flag) in [(ingress, PodPolicy::WATCH_INGRESS), (egress, PodPolicy::WATCH_EGRESS)] {
            if allows == Allows::Watched {
                policy.flags |= flag;
            }
        }
        self.pods.insert(device, BoundPod::new(v4, v6, policy, 0));
    }

    /// Policies know this address.
    pub fn befriend(&mut self, addr: Addr) {
        self.policy.addresses.insert(addr, FRIENDS);
    }
}
