//! Protection of node ports. Called by the hooks at `bind`.
//!
//! kube-proxy used to hold each node port open itself, so that no process of the node took it; it no longer does, and
//! such a process then waits for clients that never come.

use crate::abi::{Addr, AddressUses, Counter, FrontendKey, Netns, Peer, Protocol};
use crate::datapath::Tables;

/// The error of a refused `bind`.
pub const EADDRINUSE: i32 = 98;

/// Whether a socket may not be bound to `local`: in the host's network namespace, where that is a node port at an address
/// at which node ports are served. `netns` gives the cookie of the socket's namespace.
#[inline(always)]
pub fn is_refused(
    tables: &impl Tables,
    protocol: Protocol,
    local: Peer,
    netns: impl FnOnce() -> u64,
) -> bool {
    let is_taken = is_node_port(tables, protocol, local) && is_served(tables, local.addr);
    let is_refused =
        is_taken && tables.lookup_netns(netns()).is_some_and(|netns| netns.flags & Netns::HOST != 0);
    if is_refused {
        tables.count(Counter::BindRefused);
    }
    is_refused
}

/// A socket at `::` takes what comes over IPv4 as well. Whether it renounced that (`IPV6_V6ONLY`) is not to be seen here;
/// then a port that is a node port of IPv4 alone is refused without need.
#[inline(always)]
fn is_node_port(tables: &impl Tables, protocol: Protocol, local: Peer) -> bool {
    let has = |addr: Addr| {
        tables
            .lookup_frontend(&FrontendKey::new(Peer { addr: addr.unspecified(), port: local.port }, protocol))
            .is_some()
    };
    has(local.addr) || (local.addr == Addr::from_words([0; 4]) && has(Addr::from_v4(0)))
}

#[inline(always)]
fn is_served(tables: &impl Tables, addr: Addr) -> bool {
    addr == addr.unspecified()
        || tables
            .lookup_frontend(&FrontendKey::whole_address(addr))
            .is_some_and(|row| row.uses().contains(AddressUses::NODE_PORTS))
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use super::*;
    use crate::abi::{Frontend, FrontendKind, ServiceId};
    use crate::testing::MemoryTables;
    use std::net::SocketAddr;

    const HOST: u64 = 1;
    const POD: u64 = 2;

    fn peer(text: &str) -> Peer {
        text.parse::<SocketAddr>().unwrap().into()
    }

    /// Node ports 30080 of IPv4 and 30090 of IPv6, served at 192.0.2.1, 2001:db8::1 and loopback, not at 192.0.2.2.
    fn tables() -> MemoryTables {
        let mut tables = MemoryTables::default();
        for text in ["0.0.0.0:30080", "[::]:30090"] {
            let row = Frontend::new(ServiceId(1), 0, FrontendKind::NodePort, 0);
            tables.frontends.insert(FrontendKey::new(peer(text), Protocol::Tcp), row);
        }
        let served = AddressUses::NODE.and(AddressUses::NODE_PORTS);
        for (text, uses) in [
            ("192.0.2.1:0", served),
            ("[2001:db8::1]:0", served),
            ("127.0.0.1:0", AddressUses::LOOPBACK.and(AddressUses::NODE_PORTS)),
            ("192.0.2.2:0", AddressUses::NODE),
        ] {
            tables
                .frontends
                .insert(FrontendKey::whole_address(peer(text).addr), Frontend::whole_address(uses));
        }
        let netns = |flags| Netns { v4: Addr::default(), v6: Addr::default(), flags };
        tables.netns.insert(HOST, netns(Netns::HOST));
        tables.netns.insert(POD, netns(0));
        tables
    }

    fn refused(tables: &MemoryTables, protocol: Protocol, local: &str, netns: u64) -> bool {
        is_refused(tables, protocol, peer(local), || netns)
    }

    #[test]
    fn a_node_port_is_refused_where_it_is_served() {
        let tables = tables();
        let refused = |local: &str| refused(&tables, Protocol::Tcp, local, HOST);
        for local in [
            "0.0.0.0:30080",
            "192.0.2.1:30080",
            "127.0.0.1:30080",
            // Takes IPv4 as well.
            "[::]:30080",
            "[::ffff:192.0.2.1]:30080",
            "[::]:30090",
            "[2001:db8::1]:30090",
        ] {
            assert!(refused(local), "{local}");
        }
        for local in [
            "192.0.2.2:30080",
            "127.0.0.2:30080",
            "0.0.0.0:30081",
            "0.0.0.0:0",
            "0.0.0.0:30090",
            "[2001:db8::1]:30080",
        ] {
            assert!(!refused(local), "{local}");
        }
        assert_eq!(tables.counted(Counter::BindRefused), 7);
    }

    #[test]
    fn other_protocols_and_pods_bind_as_they_like() {
        let tables = tables();
        assert!(!refused(&tables, Protocol::Udp, "0.0.0.0:30080", HOST));
        assert!(!refused(&tables, Protocol::Tcp, "0.0.0.0:30080", POD));
        assert!(!refused(&tables, Protocol::Tcp, "0.0.0.0:30080", 3), "a namespace that nobody knows");
        assert_eq!(tables.counted(Counter::BindRefused), 0);
    }
}
