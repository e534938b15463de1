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
                match self { $(Self::$variant => concat!($($doc),*),)* }
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
    }
}

impl From<DropReason> for Counter {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        match reason {
            DropReason::NoEndpoint => Self::NoEndpoint,
            DropReason::UnknownPort => Self::UnknownPort,
            DropReason::NoLocalEndpoint => Self::NoLocalEndpoint,
        }
    }
}
