//! The decisions, on tables in memory.
#![cfg(feature = "testing")]

mod events;
mod packet;
mod policy;
mod select;
mod socket;

use crate::abi::{
    Addr, AddressUses, Backend, DropReason, Frontend, FrontendKey, FrontendKind, Peer, Port, Protocol, Run,
    Scope, ServiceId, SetWord,
};
use crate::testing::MemoryTables;

const SERVICE: ServiceId = ServiceId(7);
const OTHER: ServiceId = ServiceId(8);

/// The same addresses in both families.
#[derive(Clone, Copy)]
struct Family {
    prefix: [u32; 3],
}

fn families() -> [Family; 2] {
    let v4 = Addr::from_v4(0).words();
    [Family { prefix: [v4[0], v4[1], v4[2]] }, Family { prefix: [0xfd00_u32.to_be(), 0, 0] }]
}

impl Family {
    fn peer(self, host: u32, port: u16) -> Peer {
        let [a, b, c] = self.prefix;
        Peer { addr: Addr::from_words([a, b, c, host.to_be()]), port: Port::new(port) }
    }

    fn vip(self) -> Peer {
        self.peer(0x0a60_0001, 80)
    }

    fn backend(self, index: u32) -> Peer {
        self.peer(0x0af4_0000 + index, 8080)
    }

    /// A Service at [`Family::vip`] for both protocols, with these backends.
    fn world(self, backends: u32, affinity_s: u32) -> MemoryTables {
        let mut tables = MemoryTables::default();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let row = Frontend::new(SERVICE, affinity_s, FrontendKind::ClusterIp, 0);
            tables.frontends.insert(FrontendKey::new(self.vip(), protocol), row);
        }
        let whole = Frontend::whole_address(AddressUses::CLUSTER_IP);
        tables.frontends.insert(FrontendKey::whole_address(self.vip().addr), whole);
        let peers: Vec<Peer> = (0..backends).map(|index| self.backend(index)).collect();
        fill(&mut tables, SERVICE, 100, &peers);
        tables
    }
}

/// Gives a Service port these backends, from that index on.
fn fill(tables: &mut MemoryTables, service: ServiceId, offset: u32, peers: &[Peer]) {
    let backends = sorted(peers);
    let len = u32::try_from(peers.len()).unwrap();
    let word =
        if len == 0 { SetWord::empty(DropReason::NoEndpoint) } else { SetWord::of(Run { offset, len }) };
    tables.sets.insert(service.set(Scope::Cluster), word);
    tables.backends.extend((offset..).zip(backends));
}

/// As they stand in a set.
fn sorted(peers: &[Peer]) -> Vec<Backend> {
    let mut backends: Vec<Backend> = peers.iter().map(|peer| Backend::new(*peer, 0)).collect();
    backends.sort_by(Backend::order);
    backends
}
