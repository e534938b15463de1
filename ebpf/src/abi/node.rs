//! This node: its devices, its pods, and what holds for all of it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Addr, Port};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Row of the `workloads` table, under a pod's address: where on this node it is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Workload {
    /// The host's end of its veth; 0: it is known, and reached by no device with our programs.
    pub ifindex: u32,
    /// The pod's own end.
    pub mac: Mac,
    /// The host's end.
    pub host_mac: Mac,
}

/// What the cgroups in `pod_cgroups` are: values of that map.
#[derive(Clone, Copy, Debug)]
pub struct PodCgroups;

impl PodCgroups {
    /// All pods of the node's kubelet are below it.
    pub const ALL: u32 = 1;
    /// It is that of a pod whose network namespace has a row in `netns`.
    pub const SEEN: u32 = 2;
}

/// Row of the `netns` table, under a network namespace's cookie (`SO_NETNS_COOKIE`): whose sockets these are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Netns {
    /// Its IPv4 address towards others (of the host: the node's); all zero where it has none.
    pub v4: Addr,
    /// Its IPv6 address; all zero where it has none.
    pub v6: Addr,
    /// The constants below.
    pub flags: u64,
}

impl Netns {
    /// The host's own: node ports on loopback addresses, local listeners.
    pub const HOST: u64 = 1;
    /// Sockets are left alone; the per-packet path translates (`--socket-lb`).
    pub const NO_SOCKET_TRANSLATION: u64 = 2;

    /// Its address in the family of `other`.
    #[inline(always)]
    #[must_use]
    pub const fn address_like(&self, other: Addr) -> Addr {
        if other.is_v4() { self.v4 } else { self.v6 }
    }
}

/// Row of the `devices` table, under its index: a device with our programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Device {
    /// The node's IPv4 address that backends behind this device may answer to; all zero: none.
    pub v4: Addr,
    /// The same in IPv6.
    pub v6: Addr,
    /// Its own Ethernet address; all zero where it has none.
    pub mac: Mac,
    /// The constants below.
    pub flags: u16,
    /// The longest IP packet that it takes, in bytes.
    pub mtu: u64,
    /// The pod's network namespace, where the sockets in it are those that speak under the pod's addresses: its number here
    /// (`IFLA_LINK_NETNSID`), and one more. 0: they are not, or nobody knows.
    pub netns: u64,
}

impl Device {
    /// Its packets have no Ethernet header (tun, WireGuard, IP in IP).
    pub const NO_ETHERNET: u16 = 1;
    /// It leads to other nodes and the world; otherwise it is the host's end of a pod's veth.
    pub const NODE_FACING: u16 = 2;
    /// It sends what XDP programs at other devices redirect to it.
    pub const XDP_TARGET: u16 = 4;

    /// Its address in the family of `other`; `None` where it has none.
    #[inline(always)]
    #[must_use]
    pub fn address_like(&self, other: Addr) -> Option<Addr> {
        let addr = if other.is_v4() { self.v4 } else { self.v6 };
        (addr.words() != [0; 4]).then_some(addr)
    }
}

/// A network: the first `bits` of the 128 of `addr` (of IPv4: 96 more than its prefix length).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Prefix {
    /// With every bit turned round, so that a row of zeros, as a table has before anybody writes to it, is
    /// [`Prefix::NONE`] and not every address that there is.
    pub(super) addr: Addr,
    pub(super) mask: [u32; 4],
}

impl Prefix {
    /// No network: contains nothing.
    pub const NONE: Self = Self { addr: Addr::from_words([0; 4]), mask: [0; 4] };

    /// The first `bits` of `addr`, at most 128.
    #[must_use]
    pub const fn new(addr: Addr, bits: u32) -> Self {
        let words = addr.words();
        let (mut masked, mut mask) = ([0; 4], [0; 4]);
        let mut at = 0;
        while at < 4 {
            let left = bits.saturating_sub(32 * [0, 1, 2, 3][at]);
            let word = if left >= 32 { u32::MAX } else { !(u32::MAX >> left) };
            mask[at] = word.to_be();
            masked[at] = !(words[at] & mask[at]);
            at += 1;
        }
        Self { addr: Addr::from_words(masked), mask }
    }

    /// Whether the address is in it.
    #[inline(always)]
    #[must_use]
    pub const fn contains(&self, addr: Addr) -> bool {
        let (words, net, mask) = (addr.words(), self.addr.words(), self.mask);
        words[0] & mask[0] == !net[0]
            && words[1] & mask[1] == !net[1]
            && words[2] & mask[2] == !net[2]
            && words[3] & mask[3] == !net[3]
    }
}

/// The one row of the `config` table: what holds for the whole node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Config {
    /// The networks of ClusterIPs: an address of theirs that no Service has is refused. Unused ones are
    /// [`Prefix::NONE`].
    pub service_networks: [Prefix; 4],
    /// The networks of which this node's pods have their addresses, where they have them of networks of their own
    /// (`Node.spec.podCIDRs`). Unused ones are [`Prefix::NONE`].
    pub pod_networks: [Prefix; 2],
    /// The node's IPv4 address for backends on other nodes, where the device has none; all zero: none.
    pub v4: Addr,
    /// The same in IPv6.
    pub v6: Addr,
    /// The first port that hidden clients get, in host order.
    pub first_port: u16,
    /// How many there are from there on; 0: none, and such flows are refused.
    pub ports: u16,
    /// The constants below.
    pub flags: u32,
    /// The UDP ports at which the node takes packets out of tunnels (VXLAN, Geneve); unused ones are 0.
    pub tunnel_ports: [Port; 4],
}

impl Config {
    /// Every flow goes through the stack (`--forwarding stack`).
    pub const NO_REDIRECT: u32 = 1;
    /// Some network namespace has [`Netns::NO_SOCKET_TRANSLATION`]: only then is it looked for.
    pub const SOME_WITHOUT_SOCKETS: u32 = 2;
    /// Packets of clients outside that the stack forwards get the firewall mark 0x4000: flannel's masquerade leaves them
    /// alone.
    /// Not while kube-proxy's rules are there, which masquerade what has it.
    pub const MARK_FORWARDED: u32 = 4;
    /// Clients outside stay visible to every backend of a ClusterIP, for networks that bring its answers back through
    /// this node by themselves (`--cluster-ip-clients show`).
    pub const SHOW_CLUSTER_IP_CLIENTS: u32 = 8;
    /// The node takes packets out of IP in IP: protocols 4 and 41.
    pub const IP_IN_IP: u32 = 16;
    /// The node takes packets out of GRE: protocol 47.
    pub const GRE: u32 = 32;
    /// Pods that nobody knows yet are held also where no program is at their devices: at their sockets, and by their addresses
    /// where packets come to the node and leave it. While there are policies (`--unknown-pods hold`).
    pub const HOLD_STRANGERS: u32 = 64;

    /// Before the agent has written one: nothing is refused, nothing hidden.
    pub const EMPTY: Self = Self {
        service_networks: [Prefix::NONE; 4],
        pod_networks: [Prefix::NONE; 2],
        v4: Addr::from_words([0; 4]),
        v6: Addr::from_words([0; 4]),
        first_port: 0,
        ports: 0,
        flags: 0,
        tunnel_ports: [Port::from_network(0); 4],
    };
}

const _: () = {
    let flags = [
        Config::NO_REDIRECT,
        Config::SOME_WITHOUT_SOCKETS,
        Config::MARK_FORWARDED,
        Config::SHOW_CLUSTER_IP_CLIENTS,
        Config::IP_IN_IP,
        Config::GRE,
        Config::HOLD_STRANGERS,
    ];
    let mut all = 0;
    let mut at = 0;
    while at < flags.len() {
        assert!(all & flags[at] == 0, "two flags with one bit");
        all |= flags[at];
        at += 1;
    }
};

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    #[test]
    fn a_config_that_nobody_wrote_has_no_network() {
        let unwritten = Config::new_zeroed();
        assert_eq!(unwritten.service_networks, [Prefix::NONE; 4]);
        assert_eq!(unwritten.pod_networks, [Prefix::NONE; 2]);
        for addr in [Addr::from_v4(0), Addr::from_words([0; 4]), Addr::from_words([u32::MAX; 4])] {
            assert!(!Prefix::NONE.contains(addr));
            assert!(Prefix::new(addr, 128).contains(addr));
            assert!(Prefix::new(Addr::from_words([0; 4]), 0).contains(addr));
        }
        assert!(!Prefix::new(Addr::from_words([0; 4]), 128).contains(Addr::from_v4(0)));
    }
}
