//! What a policy asks for, each thing as often as it asks.

use std::sync::Arc;

use crate::source::{ClusterNetworkPolicy, NetworkPolicy, PolicyPeer, PolicyPort, Selector};

/// A policy that asks.
#[derive(Clone, Copy)]
pub(in crate::state) enum Asker<'a> {
    /// Of this namespace.
    Policy(&'a Arc<str>, &'a NetworkPolicy),
    /// Of none.
    Cluster(&'a ClusterNetworkPolicy),
}

/// What a policy asks for.
#[derive(Clone, Copy)]
pub(super) enum Need<'a> {
    /// What the annotations of the policy's own namespace say.
    Annotations(&'a Arc<str>),
    /// The pods of the policy's own namespace.
    Own(&'a Arc<str>),
    /// Those of namespaces by their labels.
    Selected(&'a Selector),
    /// What everybody calls a port.
    Everywhere,
}

impl<'a> Asker<'a> {
    pub(super) fn needs(self) -> Vec<Need<'a>> {
        let mut needs = Needs { own: None, all: Vec::new() };
        match self {
            Self::Policy(namespace, policy) => {
                needs.own = Some(namespace);
                needs.all.push(Need::Annotations(namespace));
                policy.ingress.iter().flatten().for_each(|rule| needs.add_peers(rule.peers.as_deref()));
                for rule in policy.egress.iter().flatten() {
                    needs.add_egress(rule.peers.as_deref(), rule.ports.as_deref());
                }
            }
            Self::Cluster(policy) => {
                policy.ingress.iter().for_each(|rule| needs.add_peers(rule.peers.as_deref()));
                for rule in &policy.egress {
                    needs.add_egress(rule.peers.as_deref(), rule.ports.as_deref());
                }
            }
        }
        needs.all
    }

    /// Whether it selects by what a namespace is like.
    pub(super) fn asks_whose(self) -> bool {
        match self {
            Self::Policy(..) => false,
            Self::Cluster(policy) => !policy.subject.namespaces.selects_all(),
        }
    }
}

struct Needs<'a> {
    own: Option<&'a Arc<str>>,
    all: Vec<Need<'a>>,
}

impl<'a> Needs<'a> {
    /// A name of a port is what each destination calls so: of whomever the rule is about.
    fn add_egress(&mut self, peers: Option<&'a [PolicyPeer]>, ports: Option<&'a [PolicyPort]>) {
        let named = ports.into_iter().flatten().any(|port| matches!(port, PolicyPort::Named { .. }));
        let is_block = |peer: &PolicyPeer| matches!(peer, PolicyPeer::Block(_));
        if named && peers.is_none_or(|peers| peers.iter().any(is_block)) {
            self.all.push(Need::Everywhere);
        }
        self.add_peers(peers);
    }

    fn add_peers(&mut self, peers: Option<&'a [PolicyPeer]>) {
        for peer in peers.into_iter().flatten() {
            match peer {
                PolicyPeer::Block(_) => {}
                PolicyPeer::Pods { namespaces: None, .. } => self.all.extend(self.own.map(Need::Own)),
                PolicyPeer::Pods { namespaces: Some(selector), .. } => {
                    self.all.push(Need::Selected(selector));
                    // There is no use in waiting for all their names.
                    if selector.selects_all() {
                        self.all.push(Need::Everywhere);
                    }
                }
            }
        }
    }
}
