//! Few addresses and ports, so that what a fuzzer makes up meets what it made up before.

use arbitrary::Arbitrary;
use weir_ebpf::abi::{Addr, Peer, Port, Protocol};

/// An address, by what it is to the node; each exists in both families.
#[derive(Arbitrary, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// Of a Service.
    Cluster(bool),
    /// In the network of ClusterIPs, and no Service's.
    Unallocated,
    /// A load balancer's.
    Balancer,
    /// `spec.externalIPs`
    External,
    /// The node's own.
    Node,
    /// Another of the node's.
    SecondNode,
    /// The node's, and nobody else's.
    Loopback,
    /// 0.0.0.0 or ::
    Unspecified,
    /// A pod of this node.
    LocalPod(bool),
    /// A pod of another node.
    RemotePod(bool),
    /// Another node.
    OtherNode,
    /// Outside the cluster.
    Client(bool),
}

impl Place {
    /// In the family.
    pub(crate) fn addr(self, v6: bool) -> Addr {
        let host: u32 = match self {
            Self::Cluster(second) => 0x0a60_0001 + u32::from(second),
            Self::Unallocated => 0x0a60_0063,
            Self::Balancer => 0x0a61_0001,
            Self::External => 0x0a62_0001,
            Self::Node => 0x0a01_0001,
            Self::SecondNode => 0x0a01_0101,
            Self::Loopback if v6 => return Addr::from_words([0, 0, 0, 1_u32.to_be()]),
            Self::Loopback => 0x7f00_0001,
            Self::Unspecified if v6 => return Addr::from_words([0; 4]),
            Self::Unspecified => 0,
            Self::LocalPod(second) => 0x0af4_0001 + u32::from(second),
            Self::RemotePod(second) => 0x0af4_0101 + u32::from(second),
            Self::OtherNode => 0x0a01_0002,
            Self::Client(second) => 0x0b00_0001 + u32::from(second),
        };
        if v6 {
            Addr::from_words([0xfd00_u32.to_be(), 0, 0, host.to_be()])
        } else {
            Addr::from_v4(host.to_be())
        }
    }

    /// Whether it is on this node.
    pub(crate) const fn is_here(self) -> bool {
        matches!(self, Self::LocalPod(_) | Self::Node | Self::SecondNode)
    }
}

/// A port.
#[derive(Arbitrary, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PortSeed {
    /// A Service's.
    Service(bool),
    /// A pod's.
    Backend,
    /// 30080
    NodePort,
    /// One of a client's.
    Client(u8),
    /// One that a client's stack does not choose by itself.
    Privileged(u8),
    /// Near the first of those that hidden clients get by default.
    Ours(u8),
    /// Any.
    Any(u16),
}

impl PortSeed {
    pub(crate) fn port(self) -> Port {
        Port::new(match self {
            Self::Service(tls) => 80 + 363 * u16::from(tls),
            Self::Backend => 8080,
            Self::NodePort => 30_080,
            Self::Client(n) => 40_000 + u16::from(n),
            Self::Privileged(n) => 700 + u16::from(n),
            Self::Ours(n) => FIRST_PORT + u16::from(n),
            Self::Any(n) => n,
        })
    }
}

/// The first of the ports that hidden clients get, unless a world has others.
pub(crate) const FIRST_PORT: u16 = 16_384;

/// One end of a flow.
#[derive(Arbitrary, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct End {
    pub(crate) at: Place,
    pub(crate) port: PortSeed,
}

impl End {
    pub(crate) fn peer(self, v6: bool) -> Peer {
        Peer { addr: self.at.addr(v6), port: self.port.port() }
    }
}

/// A protocol that Services have.
#[derive(Arbitrary, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transport {
    Tcp,
    Udp,
    Sctp,
}

impl Transport {
    pub(crate) const fn protocol(self) -> Protocol {
        match self {
            Self::Tcp => Protocol::Tcp,
            Self::Udp => Protocol::Udp,
            Self::Sctp => Protocol::Sctp,
        }
    }
}
