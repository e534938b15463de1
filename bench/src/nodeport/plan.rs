//! Addresses and ports. Client and node are in the networks set aside for benchmarks (RFC 2544, RFC 5180); the backends'
//! addresses are pods' of another node, which is their next hop.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The node's device towards the client.
pub(super) const UPLINK: &str = "up0";
/// The node's device towards the other node.
pub(super) const FABRIC: &str = "fab0";
/// Both lead out of the node.
pub(super) const DEVICES: [&str; 2] = [UPLINK, FABRIC];

/// Endpoints of a Service: as many as a small deployment has.
pub(super) const ENDPOINTS: u32 = 3;
/// The first of the range that Kubernetes takes node ports from.
const FIRST_NODE_PORT: u16 = 30_000;
/// The most Services: the last node ports are left to the TCP workloads.
pub(super) const MOST_SERVICES: u32 = 2_760;
/// Where datagrams are counted.
pub(super) const SINK_PORT: u16 = 9001;

/// A family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// How figures say it.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::V4 => "",
            Self::V6 => ".v6",
        }
    }
}

/// An end of a wire: the last number of its address.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Client,
    NodeUplink,
    NodeFabric,
    Other,
}

impl End {
    pub(super) fn mac(self) -> [u8; 6] {
        [2, 0x57, 0x65, 0, 0, 1 + self as u8]
    }

    pub(super) fn mac_text(self) -> String {
        let [a, b, c, d, e, f] = self.mac();
        format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }

    pub(super) fn address(self, family: Family) -> IpAddr {
        let (net, host) = match self {
            Self::NodeUplink => (0x12, 1),
            Self::Client => (0x12, 2),
            Self::NodeFabric => (0x13, 1),
            Self::Other => (0x13, 2),
        };
        match family {
            Family::V4 => Ipv4Addr::new(198, net, 0, host).into(),
            Family::V6 => Ipv6Addr::new(0x2001, 2, 0, net.into(), 0, 0, 0, host.into()).into(),
        }
    }
}

/// The networks of an end's wire.
pub(super) fn network(end: End, family: Family) -> &'static str {
    match (end, family) {
        (End::Client | End::NodeUplink, Family::V4) => "198.18.0.0/16",
        (End::Client | End::NodeUplink, Family::V6) => "2001:2:0:12::/64",
        (End::NodeFabric | End::Other, Family::V4) => "198.19.0.0/16",
        (End::NodeFabric | End::Other, Family::V6) => "2001:2:0:13::/64",
    }
}

/// The networks of the backends.
pub(super) fn backends(family: Family) -> &'static str {
    match family {
        Family::V4 => "10.128.0.0/16",
        Family::V6 => "2001:2:0:80::/64",
    }
}

/// Endpoint `number` of all Services' endpoints.
pub(super) fn backend(family: Family, number: u32) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(0x0a80_0001 + number).into(),
        Family::V6 => {
            Ipv6Addr::from_bits(0x2001_0002_0000_0080_0000_0000_0000_0001 + u128::from(number)).into()
        }
    }
}

/// Endpoint `endpoint` of Service `service`.
pub(super) fn endpoint(family: Family, service: u32, endpoint: u32) -> IpAddr {
    backend(family, service * ENDPOINTS + endpoint)
}

/// A client of the uplink's network: the real one, and after it those that are only written into packets.
pub(super) fn client(family: Family, number: u32) -> IpAddr {
    match End::Client.address(family) {
        IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits() + number).into(),
        IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() + u128::from(number)).into(),
    }
}

/// The node port of Service `number` (UDP).
pub(super) fn node_port(number: u32) -> u16 {
    FIRST_NODE_PORT + u16::try_from(number).unwrap_or(u16::MAX - FIRST_NODE_PORT)
}

/// Where datagram `number` of an endless series goes: to one frontend after the other.
pub(super) fn dial(family: Family, through_node_port: bool, services: u32, number: u64) -> SocketAddr {
    let service = u32::try_from(number % u64::from(services.max(1))).unwrap_or_default();
    if through_node_port {
        SocketAddr::new(End::NodeUplink.address(family), node_port(service))
    } else {
        SocketAddr::new(endpoint(family, service, 0), SINK_PORT)
    }
}
