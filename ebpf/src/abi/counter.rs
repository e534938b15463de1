//! What the programs count. One per-CPU row each, indexed by the discriminant.

macro_rules! counters {
    ($(#[$meta:meta])* $enum:ident { $($(#[doc = $doc:literal])* $variant:ident = $label:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u32)]
        pub enum $enum { $($(#[doc = $doc])* $variant,)* }

        impl $enum {
            /// Every one of them, in the order of their discriminants.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The label in metrics and in what a person reads.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// What it means, in a sentence.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),*).trim_ascii(),)* }
            }
        }
    };
}

counters! {
    /// Why the datapath did not let something through: the return value, the metric label and the text that a
    /// person sees. The first counters are these, under the same index.
    DropReason {
        /// The Service port has no endpoint at all (refused, as kube-proxy rejects).
        NoEndpoint = "no-endpoint",
        /// The address is a ClusterIP but no Service has this port (refused).
        UnknownPort = "unknown-port",
        /// The traffic policy is Local and no endpoint is on this node (dropped, as kube-proxy drops).
        NoLocalEndpoint = "no-local-endpoint",
        /// The client is in none of the Service's `loadBalancerSourceRanges` (dropped, as kube-proxy drops).
        SourceRange = "source-range",
        /// An address of the Service networks that no Service has (dropped, as kube-proxy drops).
        UnknownAddress = "unknown-address",
        /// The `flows` table has no room for another flow (refused).
        FlowsFull = "flows-full",
        /// No port is left under which the client could be hidden from this backend (refused).
        NoSourcePort = "no-source-port",
        /// A later piece of a datagram to a ClusterIP whose first piece was not seen (dropped).
        FragmentWithoutFirst = "fragment-without-first",
        /// An IPv6 header with a v4-mapped address: it would borrow an IPv4 pod's name (dropped).
        MappedAddress = "v4-mapped-address",
        /// No policy of the pod that it is for allows it (dropped).
        PolicyIngress = "policy-ingress",
        /// No policy of the pod that it comes from allows it (dropped).
        PolicyEgress = "policy-egress",
        /// Its pod is not known yet, and such pods are held (dropped).
        UnknownPod = "unknown-pod",
        /// A pod sends it with an address that is not the pod's (dropped).
        SpoofedSource = "spoofed-source",
        /// A pod sends what only routers send: advertisements, redirects (dropped).
        RouterMessage = "router-message",
        /// Of or for a pod, and nobody can say what it is: no IP, or headers that cannot be read (dropped).
        Unreadable = "unreadable",
        /// A new flow of a pod that has its share of what is remembered for policies, or no room for anybody's (dropped).
        JudgedFull = "judged-full",
        /// A pod sends what the node itself would take out of a tunnel: it would come in under whatever address stands in it
        /// (dropped).
        NodeTunnel = "node-tunnel",
    }
}

impl DropReason {
    /// Whether the sender is told at once, by a refusal; otherwise nobody is. As kube-proxy has it: what nobody anywhere takes
    /// is refused, what another node would serve, and what may not come from there, is dropped.
    #[inline(always)]
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        match self {
            Self::NoEndpoint | Self::UnknownPort | Self::FlowsFull | Self::NoSourcePort => true,
            Self::NoLocalEndpoint
            | Self::SourceRange
            | Self::UnknownAddress
            | Self::FragmentWithoutFirst
            | Self::MappedAddress
            | Self::PolicyIngress
            | Self::PolicyEgress
            | Self::UnknownPod
            | Self::SpoofedSource
            | Self::RouterMessage
            | Self::Unreadable
            | Self::JudgedFull
            | Self::NodeTunnel => false,
        }
    }
}

impl core::fmt::Display for DropReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.label())
    }
}

counters! {
    /// A counter of the programs.
    Counter {
        /// Sockets and datagrams refused because the Service port has no endpoint.
        NoEndpoint = "no-endpoint",
        /// Sockets and datagrams refused because the ClusterIP has no such port.
        UnknownPort = "unknown-port",
        /// Sockets and datagrams dropped because no endpoint is on this node and the policy is Local.
        NoLocalEndpoint = "no-local-endpoint",
        /// Packets and sockets dropped because the client is outside the Service's source ranges.
        SourceRange = "source-range",
        /// Packets dropped because their address is in a Service network and no Service's.
        UnknownAddress = "unknown-address",
        /// New flows refused because the table of flows is full.
        FlowsFull = "flows-full",
        /// New flows refused because every source port towards the backend is taken.
        NoSourcePort = "no-source-port",
        /// Later fragments to a ClusterIP dropped because their first was not seen.
        FragmentWithoutFirst = "fragment-without-first",
        /// Packets dropped because an address in their IPv6 header is v4-mapped.
        MappedAddress = "v4-mapped-address",
        /// Packets for pods that none of the pod's policies allows.
        PolicyIngress = "policy-ingress",
        /// Packets of pods that none of the pod's policies allows.
        PolicyEgress = "policy-egress",
        /// Packets of and for pods that are not known yet, dropped while policies are in force.
        UnknownPod = "unknown-pod",
        /// Packets of pods with an address that is not the pod's, neighbour discovery and ARP counted.
        SpoofedSource = "spoofed-source",
        /// Router advertisements and redirects of pods.
        RouterMessage = "router-message",
        /// Packets of and for pods, while policies are in force, that are no IP or whose headers cannot be read.
        Unreadable = "unreadable",
        /// New flows dropped because their pod has its share of the judged table, or that is full.
        JudgedFull = "judged-full",
        /// Packets of pods for the node's own tunnels.
        NodeTunnel = "node-tunnel",
        /// Flows that began on the per-packet path.
        FlowBegun = "flow-begun",
        /// Packets from clients that were translated.
        PacketForward = "packet-forward",
        /// Packets from backends that were translated back.
        PacketReply = "packet-reply",
        /// ICMP errors that were translated with the flow that they quote.
        PacketError = "packet-icmp-error",
        /// Echo requests to Service addresses that were answered.
        Echo = "echo",
        /// Packets that were to go past the stack and could not (too long, no next hop); they went through it.
        RedirectFailed = "redirect-failed",
        /// Binds of a node port by a process of the node that were refused.
        BindRefused = "bind-refused",
        /// TCP sockets whose destination was translated at connect.
        TcpConnect = "tcp-connect",
        /// UDP sockets whose destination was translated at connect.
        UdpConnect = "udp-connect",
        /// Datagrams of unconnected UDP sockets whose destination was translated.
        UdpSend = "udp-send",
        /// Source addresses of received datagrams and peer names translated back.
        Reverse = "reverse",
        /// Translated sockets that could not be remembered: they see the backend's address.
        ConnectionLost = "connection-lost",
        /// Datagrams' translations that could not be remembered: their replies show the backend's address.
        DatagramLost = "datagram-lost",
        /// Clients with session affinity that could not be remembered.
        AffinityLost = "affinity-lost",
        /// Packets that were translated and sent on at XDP; counted as packets of clients or backends as well.
        PacketXdp = "packet-xdp",
        /// Flows to pods that policies which only watch would deny.
        WouldDropIngress = "would-drop-ingress",
        /// Flows of pods that policies which only watch would deny.
        WouldDropEgress = "would-drop-egress",
        /// Ends of TCP connections that were told by a reset that policies no longer allow their connection.
        Reset = "reset",
        /// Drops and refusals of which the agent was told, one by one (`weir drops`).
        DropTold = "drop-told",
        /// Drops and refusals of which the agent was not told, because there were too many.
        DropUntold = "drop-untold",
        /// Drops and refusals of which the agent was not told, because it has not read those before (or does not run).
        DropLost = "drop-lost",
    }
}

impl From<DropReason> for Counter {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        match reason {
            DropReason::NoEndpoint => Self::NoEndpoint,
            DropReason::UnknownPort => Self::UnknownPort,
            DropReason::NoLocalEndpoint => Self::NoLocalEndpoint,
            DropReason::SourceRange => Self::SourceRange,
            DropReason::UnknownAddress => Self::UnknownAddress,
            DropReason::FlowsFull => Self::FlowsFull,
            DropReason::NoSourcePort => Self::NoSourcePort,
            DropReason::FragmentWithoutFirst => Self::FragmentWithoutFirst,
            DropReason::MappedAddress => Self::MappedAddress,
            DropReason::PolicyIngress => Self::PolicyIngress,
            DropReason::PolicyEgress => Self::PolicyEgress,
            DropReason::UnknownPod => Self::UnknownPod,
            DropReason::SpoofedSource => Self::SpoofedSource,
            DropReason::RouterMessage => Self::RouterMessage,
            DropReason::Unreadable => Self::Unreadable,
            DropReason::JudgedFull => Self::JudgedFull,
            DropReason::NodeTunnel => Self::NodeTunnel,
        }
    }
}
