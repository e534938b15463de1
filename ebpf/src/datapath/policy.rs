//! Whether policies let a flow begin: at most six look-ups, whatever the number of policies.
//!
//! Called once for each side of a new flow that is a pod of this node; again when the pod's set or the peer's class is not
//! what it was. The ends are those after Service translation: the peer of egress is the backend, its port the pod's own.
//! The caller lets pass what policies do not decide: replies, errors about a flow that passed, what the host itself
//! originates towards its own pods and what they send to it, neighbour discovery.

use crate::abi::{
    Addr, ClassId, NetworkKey, PodPolicy, PolicySetId, Port, PortRule, PortRuleKey, PortRulesId, Side,
    VerdictKey,
};

/// The tables of policies. Look-ups return copies.
pub trait PolicyTables {
    /// `address_classes`
    fn lookup_address_class(&self, addr: Addr) -> Option<ClassId>;
    /// `network_classes`: the longest prefix that the key's address has.
    fn lookup_network_class(&self, key: &NetworkKey) -> Option<ClassId>;
    /// `verdicts`
    fn lookup_verdict(&self, key: &VerdictKey) -> Option<PortRulesId>;
    /// `port_rules`: the longest prefix that the key has.
    fn lookup_port_rule(&self, key: &PortRuleKey) -> Option<PortRule>;
}

/// Tables that also know pods by their addresses, wherever they are: those of tests, and of commands that explain. At a hook the
/// device says which pod it is ([`crate::datapath::enforce`]).
pub trait PodPolicies: PolicyTables {
    /// How the pod with this address is isolated.
    fn lookup_pod_policy(&self, addr: Addr) -> Option<PodPolicy>;
}

/// What is asked: the flow as one of its two sides sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// The pod's part in it.
    pub side: Side,
    /// The pod.
    pub pod: Addr,
    /// The other end.
    pub peer: Addr,
    /// IANA number
    pub protocol: u8,
    /// The destination's port, whichever side that is; 0 where the protocol has none.
    pub port: Port,
}

/// What the answer is, and what a flow has to remember to know when it is no longer true.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judgement {
    /// No pod of this node has the address: whether it is held or let pass is the caller's to say.
    NotAPod,
    /// The pod speaks with itself, which nothing forbids (kubernetes.io, Network Policies). The only way past its device
    /// to its own address is a Service.
    Itself,
    /// Nothing isolates it.
    Open,
    /// Some rule allows it.
    Allowed(PolicySetId, ClassId),
    /// It passes; but a policy that only watches would deny it.
    Audited(PolicySetId, ClassId),
    /// No rule does.
    Denied(PolicySetId, ClassId),
}

impl Judgement {
    /// Whether it is allowed; of what is no pod nothing is.
    #[inline(always)]
    #[must_use]
    pub const fn passes(self) -> bool {
        matches!(self, Self::Itself | Self::Open | Self::Allowed(..) | Self::Audited(..))
    }
}

/// Judges one side of a flow.
#[inline(always)]
pub fn judge(tables: &impl PodPolicies, access: &Access) -> Judgement {
    if access.pod == access.peer {
        return Judgement::Itself;
    }
    let Some(policy) = tables.lookup_pod_policy(access.pod) else { return Judgement::NotAPod };
    judge_rules(tables, policy.set(access.side), access)
}

/// The same by the rules of a set alone, for whom it is said to be.
#[inline(always)]
pub fn judge_rules(tables: &impl PolicyTables, set: PolicySetId, access: &Access) -> Judgement {
    if set == PolicySetId::OPEN {
        return Judgement::Open;
    }
    judge_class(tables, set, lookup_class(tables, access.peer), access)
}

/// The same of a peer whose class is known. The set is not [`PolicySetId::OPEN`].
#[inline(always)]
pub fn judge_class(
    tables: &impl PolicyTables,
    set: PolicySetId,
    class: ClassId,
    access: &Access,
) -> Judgement {
    match lookup_rule(tables, set, class, access) {
        PortRule::ALLOW => Judgement::Allowed(set, class),
        PortRule::AUDIT => Judgement::Audited(set, class),
        _ => Judgement::Denied(set, class),
    }
}

/// The class of an address.
#[inline(always)]
#[must_use]
pub fn lookup_class(tables: &impl PolicyTables, addr: Addr) -> ClassId {
    if let Some(class) = tables.lookup_address_class(addr) {
        return class;
    }
    tables.lookup_network_class(&NetworkKey::new(addr, 128)).unwrap_or(ClassId::EVERYBODY)
}

#[inline(always)]
fn lookup_rule(tables: &impl PolicyTables, set: PolicySetId, class: ClassId, access: &Access) -> PortRule {
    if set == PolicySetId::CLOSED {
        return PortRule::DENY;
    }
    let mut rules = tables.lookup_verdict(&VerdictKey { set, class });
    if rules.is_none() && class != ClassId::EVERYBODY {
        rules = tables.lookup_verdict(&VerdictKey { set, class: ClassId::EVERYBODY });
    }
    match rules {
        None | Some(PortRulesId::NONE) => PortRule::DENY,
        Some(PortRulesId::ALL) => PortRule::ALLOW,
        Some(PortRulesId::AUDIT) => PortRule::AUDIT,
        Some(rules) => {
            let key = PortRuleKey::new(rules, access.protocol, access.port, 16);
            tables.lookup_port_rule(&key).unwrap_or(PortRule::DENY)
        }
    }
}
