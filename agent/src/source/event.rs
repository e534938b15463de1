//! What a source tells the state.

use std::sync::Arc;

use super::{
    ClusterNetworkPolicy, EndpointSlice, Namespace, NetworkPolicy, Node, NodeAddress, ObjectKey, ObjectRef,
    Pod, PolicySync, Problem, Service,
};

/// One change. Sources send every object once and then [`Event::Synced`]; after that, changes as they happen. Of
/// namespaces and other nodes' pods a source may leave out what no [`super::PolicyDemand`] asks for.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// The Service as it is now; `None` when it is gone, or is none of ours (headless, ExternalName, another
    /// proxy's).
    Service(ObjectKey, Option<Service>),
    /// The EndpointSlice as it is now; `None` when it is gone.
    EndpointSlice(ObjectKey, Option<EndpointSlice>),
    /// A node as it is now; `None` when it is gone.
    Node(Arc<str>, Option<Node>),
    /// The pod as it is now; `None` when it is gone, has ended, or is on its node's network: no policy selects it.
    Pod(ObjectKey, Option<Pod>),
    /// The Namespace as it is now; `None` when it is gone.
    Namespace(Arc<str>, Option<Namespace>),
    /// The NetworkPolicy as it is now; `None` when it is gone.
    NetworkPolicy(ObjectKey, Option<NetworkPolicy>),
    /// The ClusterNetworkPolicy as it is now; `None` when it is gone.
    ClusterNetworkPolicy(Arc<str>, Option<ClusterNetworkPolicy>),
    /// All addresses of this node's devices, those of loopback devices included; replaces what was said before.
    NodeAddresses(Vec<NodeAddress>),
    /// Everything that is wrong with this object; replaces what was said before. Empty: all is well, or it is
    /// gone.
    Problems(ObjectRef, Vec<Problem>),
    /// How far Pods, Namespaces and policies have been sent; replaces what was said before.
    PolicySync(PolicySync),
    /// All Services, EndpointSlices and Nodes that existed at the start have been sent. What policies are about has an
    /// event of its own: [`Event::PolicySync`].
    Synced,
}
