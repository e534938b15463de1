//! Tables without the numbers that they happened to get.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;

use weir_ebpf::abi::{ClassId, PolicySetId, PortRulesId};
use weir_ebpf::testing::MemoryPolicy;

/// Two tables are the same but for their numbers if these are equal.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Canonical {
    pods: BTreeMap<IpAddr, [u32; 3]>,
    addresses: BTreeMap<IpAddr, u32>,
    networks: Vec<(IpAddr, u32, u32)>,
    verdicts: BTreeMap<[u32; 2], u32>,
    /// Set, protocol, port, bits, verdict.
    port_rules: Vec<(u32, u8, u16, u32, String)>,
}

/// Numbers in the order in which they are met. Those below `fixed` mean something.
struct Renamed<T> {
    known: HashMap<T, u32>,
    next: u32,
}

impl<T: Copy + Eq + Hash> Renamed<T> {
    fn new(fixed: &[(T, u32)]) -> Self {
        let next = fixed.iter().map(|(_, name)| name + 1).max().unwrap_or(0);
        Self { known: fixed.iter().copied().collect(), next }
    }

    fn meet(&mut self, id: T) -> u32 {
        *self.known.entry(id).or_insert_with(|| {
            self.next += 1;
            self.next - 1
        })
    }
}

/// # Errors
/// A row that nothing points to.
pub(super) fn canonical(tables: &MemoryPolicy) -> Result<Canonical, String> {
    let mut sets = Renamed::new(&[(PolicySetId::OPEN, 0), (PolicySetId::CLOSED, 1)]);
    let pods: BTreeMap<IpAddr, _> = tables.pods.iter().map(|(addr, row)| ((*addr).into(), row)).collect();
    let pods = pods
        .into_iter()
        .map(|(addr, row)| (addr, [sets.meet(row.ingress), sets.meet(row.egress), row.flags]))
        .collect();
    let mut classes = Renamed::new(&[(ClassId::EVERYBODY, 0)]);
    let addresses: BTreeMap<IpAddr, _> =
        tables.addresses.iter().map(|(addr, row)| ((*addr).into(), *row)).collect();
    let addresses = addresses.into_iter().map(|(addr, class)| (addr, classes.meet(class))).collect();
    let networks = tables.networks.iter();
    let networks =
        networks.map(|(key, class)| (key.addr().into(), key.prefix_len, classes.meet(*class))).collect();
    let mut verdicts = BTreeMap::new();
    for (key, rules) in &tables.verdicts {
        let known = sets.known.get(&key.set).zip(classes.known.get(&key.class));
        let (set, class) = known.ok_or_else(|| format!("{key:?} is nobody's"))?;
        verdicts.insert([*set, *class], *rules);
    }
    let mut rules = Renamed::new(&[(PortRulesId::ALL, 0), (PortRulesId::AUDIT, 1), (PortRulesId::NONE, 2)]);
    let verdicts = verdicts.into_iter().map(|(key, id)| (key, rules.meet(id))).collect();
    let mut port_rules = Vec::new();
    for (key, row) in &tables.port_rules {
        let id = rules.known.get(&key.rules).ok_or_else(|| format!("{key:?} is nobody's"))?;
        port_rules.push((*id, key.protocol, key.port().host(), key.prefix_len, format!("{row:?}")));
    }
    port_rules.sort_unstable();
    Ok(Canonical { pods, addresses, networks, verdicts, port_rules })
}
