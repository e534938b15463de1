//! Rules from a fuzzer's bytes: as rows of the tables, and as a list that is read from front to back for every question.

use arbitrary::Arbitrary;
use weir_ebpf::abi::{
    Addr, ClassId, NetworkKey, PodPolicy, PolicySetId, Port, PortRule, PortRuleKey, PortRulesId, VerdictKey,
};
use weir_ebpf::testing::MemoryPolicy;

use crate::pool::{Place, PortSeed, Transport};

/// Sets, and classes beside that of everybody.
const SETS: usize = 3;
const CLASSES: usize = 3;
/// Numbers that nothing else has.
const FIRST_SET: u32 = 10;
/// The most rows of anything.
const MANY: usize = 6;

/// What everybody may, whom which class is, and who is in it.
#[derive(Arbitrary, Clone, Debug)]
pub(super) struct RulesSeed {
    sets: [[Option<Ports>; CLASSES + 1]; SETS],
    networks: Vec<(Place, u8, u8)>,
    addresses: Vec<(Place, u8)>,
}

/// Which ports.
#[derive(Arbitrary, Clone, Debug)]
enum Ports {
    All,
    None,
    Some { otherwise: Option<bool>, ranges: Vec<(Transport, PortSeed, u8, bool)> },
}

/// How a pod is isolated in one direction.
#[derive(Arbitrary, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SetSeed {
    Open,
    Closed,
    Set(u8),
}

impl SetSeed {
    pub(super) fn id(self) -> PolicySetId {
        match self {
            Self::Open => PolicySetId::OPEN,
            Self::Closed => PolicySetId::CLOSED,
            Self::Set(n) => PolicySetId(FIRST_SET + u32::from(n) % 3),
        }
    }
}

/// Both directions of a pod.
pub(super) fn pod_policy(ingress: SetSeed, egress: SetSeed) -> PodPolicy {
    PodPolicy::new(ingress.id(), egress.id())
}

/// The rules as they are read, and who is in which class now.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    seed: RulesSeed,
    addresses: Vec<(Addr, u32)>,
}

impl Rules {
    pub(super) fn new(seed: &RulesSeed) -> Self {
        let mut rules = Self { seed: seed.clone(), addresses: Vec::new() };
        for (place, class) in seed.addresses.iter().take(MANY) {
            rules.set_class(*place, Some(*class));
        }
        rules
    }

    /// Puts an address, in both families, into a class, or into none of its own.
    pub(super) fn set_class(&mut self, place: Place, class: Option<u8>) {
        for v6 in [false, true] {
            let addr = place.addr(v6);
            self.addresses.retain(|(other, _)| *other != addr);
            self.addresses.extend(class.map(|class| (addr, class_of(class))));
        }
    }

    /// The rows.
    pub(super) fn tables(&self) -> MemoryPolicy {
        let mut tables = MemoryPolicy::default();
        for (addr, class) in &self.addresses {
            tables.addresses.insert(*addr, ClassId(*class));
        }
        for (addr, bits, class) in self.networks() {
            tables.networks.insert(NetworkKey::new(addr, bits), ClassId(class));
        }
        let mut next = PortRulesId::FIRST.0;
        for (set, classes) in (FIRST_SET..).zip(&self.seed.sets) {
            for (class, ports) in (0..).zip(classes) {
                let Some(ports) = ports else { continue };
                let id = ports.write(PortRulesId(next), &mut tables);
                tables.verdicts.insert(VerdictKey { set: PolicySetId(set), class: ClassId(class) }, id);
                next += 1;
            }
        }
        tables
    }

    /// Prefixes, with their length and whose they are.
    fn networks(&self) -> Vec<(Addr, u32, u32)> {
        let networks = self.seed.networks.iter().take(MANY);
        let both = networks.flat_map(|network| [false, true].map(|v6| (*network, v6)));
        both.map(|((place, bits, class), v6)| {
            let bits = if v6 { u32::from(bits % 129) } else { 96 + u32::from(bits % 33) };
            (masked(place.addr(v6), bits), bits, class_of(class))
        })
        .collect()
    }

    /// Whether a pod with this set may speak with this peer by this protocol and port.
    pub(super) fn allow(&self, set: PolicySetId, peer: Addr, protocol: u8, port: Port) -> bool {
        if set == PolicySetId::OPEN {
            return true;
        }
        let Some(classes) = set.0.checked_sub(FIRST_SET).and_then(|set| self.seed.sets.get(set as usize))
        else {
            return false;
        };
        let row = classes.get(self.class(peer) as usize).and_then(Option::as_ref);
        let Some(ports) = row.or(classes[0].as_ref()) else { return false };
        ports.allow(protocol, port)
    }

    fn class(&self, peer: Addr) -> u32 {
        if let Some((_, class)) = self.addresses.iter().find(|(addr, _)| *addr == peer) {
            return *class;
        }
        let networks = self.networks();
        // Of two that are written the same the later counts, as in a table.
        let containing = networks.iter().filter(|(addr, bits, _)| masked(peer, *bits) == *addr);
        containing.max_by_key(|(_, bits, _)| *bits).map_or(0, |(_, _, class)| *class)
    }
}

fn class_of(class: u8) -> u32 {
    u32::from(class) % 4
}

/// The first bits of an address.
fn masked(addr: Addr, bits: u32) -> Addr {
    let mut words = addr.words().map(u32::from_be);
    for (at, word) in (0..).zip(&mut words) {
        let kept = bits.saturating_sub(at * 32).min(32);
        *word &= u32::MAX.checked_shl(32 - kept).unwrap_or(0);
    }
    Addr::from_words(words.map(u32::to_be))
}

impl Ports {
    fn ranges(&self) -> &[(Transport, PortSeed, u8, bool)] {
        match self {
            Self::Some { ranges, .. } => &ranges[..ranges.len().min(MANY)],
            Self::All | Self::None => &[],
        }
    }

    fn write(&self, id: PortRulesId, tables: &mut MemoryPolicy) -> PortRulesId {
        let rule = |allows| if allows { PortRule::ALLOW } else { PortRule::DENY };
        match self {
            Self::All => return PortRulesId::ALL,
            Self::None => return PortRulesId::NONE,
            Self::Some { otherwise, .. } => {
                let rows = otherwise.map(|allows| (PortRuleKey::otherwise(id), rule(allows)));
                tables.port_rules.extend(rows);
            }
        }
        for (transport, port, bits, allows) in self.ranges() {
            let (port, bits) = range(*port, *bits);
            let key = PortRuleKey::new(id, transport.protocol() as u8, Port::new(port), bits);
            tables.port_rules.insert(key, rule(*allows));
        }
        id
    }

    fn allow(&self, protocol: u8, port: Port) -> bool {
        let otherwise = match self {
            Self::All => return true,
            Self::None => return false,
            Self::Some { otherwise, .. } => otherwise.unwrap_or(false),
        };
        let mut best: Option<(u32, bool)> = None;
        for (transport, first, bits, allows) in self.ranges() {
            let (first, bits) = range(*first, *bits);
            let matches = transport.protocol() as u8 == protocol && mask(port.host(), bits) == first;
            if matches && best.is_none_or(|(longest, _)| longest <= bits) {
                best = Some((bits, *allows));
            }
        }
        best.map_or(otherwise, |(_, allows)| allows)
    }
}

fn range(port: PortSeed, bits: u8) -> (u16, u32) {
    let bits = u32::from(bits % 17);
    (mask(port.port().host(), bits), bits)
}

fn mask(port: u16, bits: u32) -> u16 {
    port & u16::MAX.checked_shl(16 - bits).unwrap_or(0)
}
