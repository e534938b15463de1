//! One row for each step of the decision, and what stands in the tables when they are wrong.

use core::net::IpAddr;

use crate::abi::{
    Addr, ClassId, NetworkKey, PodPolicy, PolicySetId, Port, PortRule, PortRuleKey, PortRulesId, Side,
    VerdictKey,
};
use crate::datapath::policy::{Access, Judgement, PolicyTables, judge, judge_rules, lookup_class};
use crate::testing::MemoryPolicy;

const SET: PolicySetId = PolicySetId::FIRST;
const PEERS: ClassId = ClassId(7);
const WEB: PortRulesId = PortRulesId(3);

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn access(side: Side, peer: &str, protocol: u8, port: u16) -> Access {
    Access { side, pod: addr("10.0.0.1"), peer: addr(peer), protocol, port: Port::new(port) }
}

fn network(text: &str, bits: u32) -> NetworkKey {
    NetworkKey::new(addr(text), bits)
}

/// 10.0.0.1 takes 8080 to 8083 by TCP from the class of 10.0.0.2 and of 192.0.2.0/24, and sends nothing.
fn tables() -> MemoryPolicy {
    let mut tables = MemoryPolicy::default();
    tables.pods.insert(addr("10.0.0.1"), PodPolicy::new(SET, PolicySetId::CLOSED));
    tables.addresses.insert(addr("10.0.0.2"), PEERS);
    tables.networks.insert(network("0.0.0.0", 96), ClassId::EVERYBODY);
    tables.networks.insert(network("192.0.2.0", 120), PEERS);
    tables.networks.insert(network("192.0.2.64", 122), ClassId::EVERYBODY);
    tables.networks.insert(network("::", 0), PEERS);
    tables.verdicts.insert(VerdictKey { set: SET, class: PEERS }, WEB);
    tables.port_rules.insert(PortRuleKey::new(WEB, 6, Port::new(8080), 14), PortRule::ALLOW);
    tables
}

#[test]
fn classes_by_address_then_by_the_longest_prefix() {
    let mut tables = tables();
    for (text, class) in [
        ("10.0.0.2", PEERS),
        ("10.0.0.3", ClassId::EVERYBODY),
        ("192.0.2.1", PEERS),
        ("192.0.2.64", ClassId::EVERYBODY),
        ("192.0.2.128", PEERS),
        ("2001:db8::1", PEERS),
    ] {
        assert_eq!(lookup_class(&tables, addr(text)), class, "{text}");
    }
    tables.addresses.insert(addr("192.0.2.1"), ClassId(9));
    assert_eq!(lookup_class(&tables, addr("192.0.2.1")), ClassId(9));
    assert_eq!(lookup_class(&MemoryPolicy::default(), addr("192.0.2.1")), ClassId::EVERYBODY);
}

#[test]
fn ports_of_the_peers_class() {
    let tables = tables();
    for (peer, protocol, port, passes) in [
        ("10.0.0.2", 6, 8080, true),
        ("10.0.0.2", 6, 8083, true),
        ("10.0.0.2", 6, 8079, false),
        ("10.0.0.2", 6, 8084, false),
        ("10.0.0.2", 17, 8080, false),
        ("10.0.0.2", 1, 0, false),
        ("10.0.0.3", 6, 8080, false),
    ] {
        let judged = judge(&tables, &access(Side::Ingress, peer, protocol, port));
        assert_eq!(judged.passes(), passes, "{peer} {protocol} {port}: {judged:?}");
    }
}

#[test]
fn who_has_no_row_gets_what_everybody_gets() {
    let mut tables = tables();
    let everybody = VerdictKey { set: SET, class: ClassId::EVERYBODY };
    tables.verdicts.insert(everybody, PortRulesId::ALL);
    // A class with a row of its own has that alone.
    for (peer, passes) in [("10.0.0.2", false), ("10.0.0.3", true), ("192.0.2.64", true)] {
        assert_eq!(judge(&tables, &access(Side::Ingress, peer, 1, 0)).passes(), passes, "{peer}");
    }
    // One that has none yet is no exception from what all get.
    tables.addresses.insert(addr("10.0.0.3"), ClassId(8));
    let judged = judge(&tables, &access(Side::Ingress, "10.0.0.3", 1, 0));
    assert_eq!(judged, Judgement::Allowed(SET, ClassId(8)));
}

#[test]
fn without_rows_nothing_is_allowed() {
    let mut tables = tables();
    tables.port_rules.clear();
    assert!(!judge(&tables, &access(Side::Ingress, "10.0.0.2", 6, 8080)).passes());
    tables.verdicts.clear();
    assert!(!judge(&tables, &access(Side::Ingress, "10.0.0.2", 6, 8080)).passes());
    let closed = judge(&tables, &access(Side::Egress, "10.0.0.2", 6, 8080));
    assert_eq!(closed, Judgement::Denied(PolicySetId::CLOSED, PEERS));
    tables.pods.clear();
    let unknown = judge(&tables, &access(Side::Ingress, "10.0.0.2", 6, 8080));
    assert_eq!(unknown, Judgement::NotAPod);
    assert!(!unknown.passes());
}

#[test]
fn itself_and_open_need_no_rows() {
    let tables = MemoryPolicy::default();
    assert_eq!(judge(&tables, &access(Side::Ingress, "10.0.0.1", 6, 80)), Judgement::Itself);
    let open = judge_rules(&tables, PolicySetId::OPEN, &access(Side::Egress, "10.0.0.9", 1, 0));
    assert_eq!(open, Judgement::Open);
    assert!(open.passes());
}

#[test]
fn the_tables_in_memory_find_the_longest_prefix_of_ports() {
    let mut tables = MemoryPolicy::default();
    let whole = PortRuleKey::new(WEB, 17, Port::new(0), 0);
    tables.port_rules.insert(whole, PortRule::ALLOW);
    for (protocol, port, found) in [(17, 0, true), (17, 65_535, true), (6, 0, false), (132, 53, false)] {
        let key = PortRuleKey::new(WEB, protocol, Port::new(port), 16);
        assert_eq!(tables.lookup_port_rule(&key).is_some(), found, "{protocol} {port}");
    }
    let other = PortRuleKey::new(PortRulesId(4), 17, Port::new(53), 16);
    assert_eq!(tables.lookup_port_rule(&other), None);
}

#[test]
fn what_would_be_denied_passes_and_what_is_denied_by_a_row_does_not() {
    let mut tables = tables();
    let everybody = VerdictKey { set: SET, class: ClassId::EVERYBODY };
    let judge = |tables: &MemoryPolicy, peer: &str, protocol, port| {
        judge(tables, &access(Side::Ingress, peer, protocol, port))
    };
    tables.verdicts.insert(everybody, PortRulesId::AUDIT);
    let audited = judge(&tables, "10.0.0.3", 17, 53);
    assert_eq!(audited, Judgement::Audited(SET, ClassId::EVERYBODY));
    assert!(audited.passes());
    // A row of a class is not made up for by everybody's.
    tables.verdicts.insert(everybody, PortRulesId::ALL);
    tables.verdicts.insert(VerdictKey { set: SET, class: PEERS }, PortRulesId::NONE);
    assert_eq!(judge(&tables, "10.0.0.2", 6, 8080), Judgement::Denied(SET, PEERS));
    // A verdict for all of a set, another for a protocol, others for ports.
    let verdict = VerdictKey { set: SET, class: PEERS };
    tables.verdicts.insert(verdict, WEB);
    tables.port_rules.insert(PortRuleKey::otherwise(WEB), PortRule::AUDIT);
    tables.port_rules.insert(PortRuleKey::new(WEB, 17, Port::new(0), 0), PortRule::ALLOW);
    tables.port_rules.insert(PortRuleKey::new(WEB, 17, Port::new(53), 16), PortRule::DENY);
    for (protocol, port, want) in [
        (6, 8080, Judgement::Allowed(SET, PEERS)),
        (6, 80, Judgement::Audited(SET, PEERS)),
        (1, 0, Judgement::Audited(SET, PEERS)),
        (17, 54, Judgement::Allowed(SET, PEERS)),
        (17, 53, Judgement::Denied(SET, PEERS)),
    ] {
        assert_eq!(judge(&tables, "10.0.0.2", protocol, port), want, "{protocol} {port}");
    }
}
