//! The lab's address plan. Every lab has the same: they cannot see each other.
//!
//! | network        | IPv4            | IPv6                  |
//! | -------------- | --------------- | --------------------- |
//! | nodes          | 172.18.0.0/24   | fd00:172:18::/64      |
//! | pods of n1, n2 | 10.244.N.0/24   | fd00:10:244:N::/64    |
//! | Services       | 10.96.0.0/16    | fd00:10:96::/112      |
//! | load balancers  | 198.51.100.0/25 | 2001:db8:51::/112     |
//! | external IPs   | 198.51.100.128/25 | 2001:db8:51::1:0/112 |
//! | outside client | 203.0.113.0/24  | 2001:db8:113::/64     |

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An address of each family.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DualStack {
    /// The IPv4 address.
    pub v4: Ipv4Addr,
    /// The IPv6 address.
    pub v6: Ipv6Addr,
}

/// How an application writes an address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Form {
    /// IPv4 on an `AF_INET` socket.
    V4,
    /// IPv6 on an `AF_INET6` socket.
    V6,
    /// IPv4, written `::ffff:a.b.c.d`, on an `AF_INET6` socket.
    Mapped,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Mapped];
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
            Self::Mapped => "v4-mapped",
        })
    }
}

impl DualStack {
    /// The address as an application writes it in that form.
    #[must_use]
    pub fn in_form(self, form: Form) -> IpAddr {
        match form {
            Form::V4 => self.v4.into(),
            Form::V6 => self.v6.into(),
            Form::Mapped => self.v4.to_ipv6_mapped().into(),
        }
    }

    /// The address with a port, as an application writes it in that form.
    #[must_use]
    pub fn dial(self, form: Form, port: u16) -> SocketAddr {
        SocketAddr::new(self.in_form(form), port)
    }

    /// Both, IPv4 first.
    #[must_use]
    pub fn both(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// Whether `addr` is one of the two; a v4-mapped address is an IPv4 address.
    #[must_use]
    pub fn has(self, addr: IpAddr) -> bool {
        self.both().contains(&addr.to_canonical())
    }
}

const fn host(net4: [u8; 3], net6: [u16; 4], host: u8) -> DualStack {
    let [a, b, c] = net4;
    let [d, e, f, g] = net6;
    DualStack {
        v4: Ipv4Addr::new(a, b, c, host),
        // the same digits in both families: .11 is ::11
        v6: Ipv6Addr::new(d, e, f, g, 0, 0, 0, digits(host)),
    }
}

/// The number whose hexadecimal digits are the decimal digits of `n`.
const fn digits(n: u8) -> u16 {
    let n = n as u16;
    ((n / 100) << 8) | ((n / 10 % 10) << 4) | (n % 10)
}

/// The number of nodes: n1 and n2.
pub const NODES: u8 = 2;

/// The router between the nodes and the client, as the nodes see it.
pub const ROUTER: DualStack = host([172, 18, 0], [0xfd00, 0x172, 0x18, 0], 1);
/// The router as the client sees it.
pub const ROUTER_OUTSIDE: DualStack = host([203, 0, 113], [0x2001, 0xdb8, 0x113, 0], 1);
/// The client outside.
pub const CLIENT: DualStack = host([203, 0, 113], [0x2001, 0xdb8, 0x113, 0], 2);

/// Node `number` (1, 2) on the nodes' network.
#[must_use]
pub const fn node(number: u8) -> DualStack {
    host([172, 18, 0], [0xfd00, 0x172, 0x18, 0], 10 + number)
}

/// The first address of a node's pod networks: the bridge's own.
#[must_use]
pub const fn gateway(node: u8) -> DualStack {
    pod_net(node, 1)
}

/// A node's address on its tunnel: the first of its pod networks, which no pod has.
#[must_use]
pub const fn tunnel(node: u8) -> DualStack {
    pod_net(node, 0)
}

/// The pod that was made as number `ordinal` (from 0) on a node.
#[must_use]
pub const fn pod(node: u8, ordinal: u8) -> DualStack {
    pod_net(node, 10 + ordinal)
}

const fn pod_net(node: u8, last: u8) -> DualStack {
    host([10, 244, node], [0xfd00, 0x10, 0x244, node as u16], last)
}

/// ClusterIPs number `number` of a Service that Weir serves.
#[must_use]
pub const fn service(number: u8) -> DualStack {
    host([10, 96, 0], [0xfd00, 0x10, 0x96, 0], number)
}

/// ClusterIPs that the router answers itself: whoever reaches the router there was not translated.
#[must_use]
pub const fn foreign(number: u8) -> DualStack {
    let mut both = host([10, 96, 255], [0xfd00, 0x10, 0x96, 0], number);
    both.v6 = Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0xff00 | number as u16);
    both
}

/// ClusterIPs that only say that something was applied; see [`Cluster::settle`](super::Cluster::settle).
#[must_use]
pub const fn marker(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 96, 254, number))
}

/// An IPv4 network and an IPv6 network, as `ip` writes them.
#[must_use]
pub fn pod_cidrs(node: u8) -> [String; 2] {
    [format!("10.244.{node}.0/24"), format!("fd00:10:244:{node}::/64")]
}

/// Load balancer address number `number`: no device has it, the router leads it to n1.
#[must_use]
pub const fn balancer(number: u8) -> DualStack {
    host([198, 51, 100], [0x2001, 0xdb8, 0x51, 0], number)
}

/// External address number `number` (up to 99), likewise.
#[must_use]
pub const fn external(number: u8) -> DualStack {
    let mut both = host([198, 51, 100], [0x2001, 0xdb8, 0x51, 0], 128 + number);
    both.v6 = Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 1, digits(number));
    both
}

/// The networks that the router leads to n1: load balancers', external ones and Services'.
pub const LED_TO_N1: [&str; 4] = ["198.51.100.0/24", "10.96.0.0/24", "2001:db8:51::/64", "fd00:10:96::/120"];

/// The networks of all pods.
pub const CLUSTER_CIDRS: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/48"];

/// The networks of [`foreign`].
pub const FOREIGN_CIDRS: [&str; 2] = ["10.96.255.0/24", "fd00:10:96::ff00/120"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_have_the_same_digits() {
        assert_eq!(pod(2, 1).v4, Ipv4Addr::new(10, 244, 2, 11));
        assert_eq!(pod(2, 1).v6, "fd00:10:244:2::11".parse::<Ipv6Addr>().unwrap());
        assert_eq!(service(123).v6, "fd00:10:96::123".parse::<Ipv6Addr>().unwrap());
    }

    #[test]
    fn a_mapped_address_is_the_pods() {
        assert!(pod(1, 0).has(pod(1, 0).in_form(Form::Mapped)));
        assert!(!pod(1, 0).has(pod(1, 1).v4.into()));
    }
}
