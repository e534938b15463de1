//! `NetworkPolicy`: what each field means, and that what is wrong with one allows nothing.

use serde_json::{Value, json};

use super::{merge, said};
use crate::source::parse::{Parsed, parse_network_policy};
use crate::source::{
    IpBlock, Labels, NetworkPolicy, PolicyModes, PolicyPeer, PolicyPort, PolicyRule, Protocol, Selector,
};

/// A policy for ingress and egress without rules, and `patch` laid over its spec.
fn policy(patch: Value) -> Parsed<NetworkPolicy> {
    let mut spec = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    merge(&mut spec, patch);
    let object = json!({"metadata": {"namespace": "ns", "name": "p"}, "spec": spec});
    parse_network_policy(&serde_json::from_value(object).unwrap())
}

/// The one ingress rule of a policy, and what is wrong with it.
fn rule(rule: Value) -> (PolicyRule, Vec<String>) {
    let parsed = policy(json!({"ingress": [rule]}));
    let rules = parsed.object.clone().unwrap().ingress.unwrap();
    assert_eq!(rules.len(), 1, "a rule never goes, whatever is wrong with it");
    (rules[0].clone(), said(&parsed))
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

fn selector(api: Value) -> Selector {
    let (rule, said) = rule(json!({"from": [{"podSelector": api}]}));
    assert_eq!(said, [""; 0]);
    let Some(PolicyPeer::Pods { namespaces: None, pods }) = rule.peers.unwrap().first().cloned() else {
        panic!("no peer")
    };
    pods
}

#[test]
fn types_said_and_not_said() {
    let types = |patch| {
        let parsed = policy(patch);
        assert_eq!(parsed.problems, []);
        let policy = parsed.object.unwrap();
        (policy.ingress.is_some(), policy.egress.is_some())
    };
    assert_eq!(types(json!({"policyTypes": ["Ingress"]})), (true, false));
    assert_eq!(types(json!({"policyTypes": ["Egress"], "ingress": [{}]})), (false, true));
    for none in [json!(null), json!([])] {
        assert_eq!(types(json!({"policyTypes": none})), (true, false));
        assert_eq!(types(json!({"policyTypes": none, "egress": []})), (true, false));
        assert_eq!(types(json!({"policyTypes": none, "egress": [{}]})), (true, true));
    }
    let unknown = policy(json!({"policyTypes": ["ingress"]}));
    assert_eq!(
        said(&unknown),
        [
            "spec.policyTypes[0]: \"ingress\" is no policy type (Ingress, Egress): this policy isolates in both directions"
        ]
    );
    let unknown = unknown.object.unwrap();
    assert!(unknown.ingress.is_some() && unknown.egress.is_some());
}

#[test]
fn without_a_spec_all_pods_are_isolated_for_ingress() {
    let bare = json!({"metadata": {"namespace": "ns", "name": "p"}});
    let parsed = parse_network_policy(&serde_json::from_value(bare).unwrap());
    assert_eq!(parsed.problems, []);
    let expected = NetworkPolicy {
        pods: Selector::default(),
        ingress: Some(Box::default()),
        egress: None,
        modes: PolicyModes::default(),
    };
    assert_eq!(parsed.object, Some(expected));
}

#[test]
fn lists_that_are_empty_are_as_good_as_none() {
    for open in [json!({}), json!({"from": [], "ports": []}), json!({"from": null, "ports": null})] {
        assert_eq!(rule(open), (PolicyRule { peers: None, ports: None }, vec![]));
    }
}

#[test]
fn lists_of_which_nothing_is_left_stay_lists() {
    let nothing = json!({"from": [{}], "ports": [{"protocol": "ICMP"}]});
    let (rule, said) = rule(nothing);
    assert_eq!(rule, PolicyRule { peers: Some(Box::default()), ports: Some(Box::default()) });
    assert_eq!(
        said,
        [
            "spec.ingress[0].from[0]: neither ipBlock nor a selector: this peer matches nobody",
            "spec.ingress[0].ports[0].protocol: \"ICMP\" is no protocol (TCP, UDP, SCTP): this item allows no port",
        ]
    );
}

#[test]
fn ports() {
    let range = |protocol, first, last| PolicyPort::Range { protocol, first, last };
    for (api, port) in [
        (json!({}), range(Protocol::Tcp, 0, 65_535)),
        (json!({"protocol": "UDP"}), range(Protocol::Udp, 0, 65_535)),
        (json!({"port": 80}), range(Protocol::Tcp, 80, 80)),
        (json!({"port": 80, "endPort": 80}), range(Protocol::Tcp, 80, 80)),
        (json!({"port": 1, "endPort": 65_535, "protocol": "SCTP"}), range(Protocol::Sctp, 1, 65_535)),
        (json!({"port": "web"}), PolicyPort::Named { protocol: Protocol::Tcp, name: "web".into() }),
        (json!({"port": "80"}), PolicyPort::Named { protocol: Protocol::Tcp, name: "80".into() }),
    ] {
        let (rule, said) = rule(json!({"ports": [api]}));
        assert_eq!((rule.ports.as_deref(), said), (Some(&[port][..]), vec![]), "{api}");
    }
    for (api, field, what) in [
        (json!({"port": 0}), "port", "0 is no port (1 to 65535)"),
        (json!({"port": -1}), "port", "-1 is no port (1 to 65535)"),
        (json!({"port": 65_536}), "port", "65536 is no port (1 to 65535)"),
        (json!({"port": 80, "endPort": 79}), "endPort", "79 comes before 80"),
        (json!({"port": 80, "endPort": 70_000}), "endPort", "70000 is no port (1 to 65535)"),
        (json!({"endPort": 80}), "endPort", "there is no port number to begin with"),
        (json!({"port": "web", "endPort": 80}), "endPort", "there is no port number to begin with"),
        (json!({"port": ""}), "port", "an empty name"),
    ] {
        let (rule, said) = rule(json!({"ports": [api, {"port": 53}]}));
        assert_eq!(
            rule.ports.as_deref(),
            Some(&[range(Protocol::Tcp, 53, 53)][..]),
            "the rest stands: {api}"
        );
        assert_eq!(said, [format!("spec.ingress[0].ports[0].{field}: {what}: this item allows no port")]);
    }
}

#[test]
fn selectors_say_the_same_however_they_are_written() {
    let one = selector(json!({"matchLabels": {"a": "1", "b": "2"}}));
    let other = selector(json!({"matchLabels": {"b": "2"}, "matchExpressions": [
        {"key": "a", "operator": "In", "values": ["1", "1"]}, {"key": "b", "operator": "In", "values": ["2"]},
    ]}));
    assert_eq!(one, other);
    assert!(one.matches(&labels(&[("a", "1"), ("b", "2"), ("c", "3")])));
    assert!(!one.matches(&labels(&[("a", "1")])));
}

#[test]
fn a_selector_of_a_peer_that_is_wrong_matches_nobody() {
    let expression = |operator: &str, values: Value| json!({"matchExpressions": [{"key": "a", "operator": operator, "values": values}]});
    for (api, field, what) in [
        (expression("In", json!([])), "values", "In needs values"),
        (expression("NotIn", json!(null)), "values", "NotIn needs values"),
        (expression("Exists", json!(["x"])), "values", "Exists takes no values"),
        (expression("DoesNotExist", json!([""])), "values", "DoesNotExist takes no values"),
        (
            expression("Like", json!(["x"])),
            "operator",
            "\"Like\" is no operator (In, NotIn, Exists, DoesNotExist)",
        ),
    ] {
        for name in ["podSelector", "namespaceSelector"] {
            let (rule, said) = rule(json!({"from": [{name: api}]}));
            assert_eq!(rule.peers, Some(Box::default()), "{api}");
            let field = format!("spec.ingress[0].from[0].{name}.matchExpressions[0].{field}");
            assert_eq!(said, [format!("{field}: {what}: this peer matches nobody")]);
        }
    }
}

#[test]
fn a_policy_whose_own_selector_is_wrong_selects_more_and_allows_nothing() {
    let parsed = policy(json!({
        "podSelector": {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "a", "operator": "Like"}]},
        "ingress": [{}], "egress": [{}],
    }));
    assert_eq!(
        said(&parsed),
        [
            "spec.podSelector.matchExpressions[0].operator: \"Like\" is no operator (In, NotIn, Exists, DoesNotExist): \
          this requirement restricts nothing, and this policy allows nothing"
        ]
    );
    let policy = parsed.object.unwrap();
    assert!(policy.pods.matches(&labels(&[("app", "web")])));
    assert!(!policy.pods.matches(&labels(&[("app", "db")])), "what can be read still restricts");
    assert_eq!((policy.ingress, policy.egress), (Some(Box::default()), Some(Box::default())));
}

#[test]
fn peers_of_selectors() {
    let any = Selector::default;
    let x = selector(json!({"matchLabels": {"x": ""}}));
    let by_x = json!({"matchLabels": {"x": ""}});
    for (api, namespaces, pods) in [
        (json!({"podSelector": {}}), None, any()),
        (json!({"podSelector": by_x}), None, x.clone()),
        (json!({"namespaceSelector": {}}), Some(any()), any()),
        (json!({"namespaceSelector": by_x}), Some(x.clone()), any()),
        (json!({"namespaceSelector": by_x, "podSelector": {}}), Some(x.clone()), any()),
        (json!({"namespaceSelector": {}, "podSelector": by_x}), Some(any()), x),
    ] {
        let (rule, said) = rule(json!({"from": [api]}));
        assert_eq!(
            (rule.peers.as_deref(), said),
            (Some(&[PolicyPeer::Pods { namespaces, pods }][..]), vec![])
        );
    }
    let (rule, said) = rule(json!({"from": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}));
    assert_eq!(rule.peers, Some(Box::default()));
    assert_eq!(
        said,
        ["spec.ingress[0].from[0]: ipBlock beside a selector means nothing: this peer matches nobody"]
    );
}

#[test]
fn blocks() {
    let block = |cidr: &str, except: &[&str]| {
        let except = except.iter().map(|text| text.parse().unwrap()).collect();
        PolicyPeer::Block(IpBlock { cidr: cidr.parse().unwrap(), except })
    };
    for (cidr, except, expected) in [
        ("10.0.0.0/8", json!(null), block("10.0.0.0/8", &[])),
        ("10.1.2.3/8", json!(["10.2.3.4/16", "10.2.0.0/16"]), block("10.0.0.0/8", &["10.2.0.0/16"])),
        ("010.0.0.0/8", json!([]), block("10.0.0.0/8", &[])),
        ("::/0", json!(["fd00::1/8", "2001:db8::/32"]), block("::/0", &["2001:db8::/32", "fd00::/8"])),
        ("10.0.0.0/8", json!(["10.0.0.0/8"]), block("10.0.0.0/8", &["10.0.0.0/8"])),
    ] {
        let (rule, said) = rule(json!({"from": [{"ipBlock": {"cidr": cidr, "except": except}}]}));
        assert_eq!((rule.peers.as_deref(), said), (Some(&[expected][..]), vec![]), "{cidr}");
    }
}

#[test]
fn a_block_that_cannot_be_read_matches_nobody() {
    for (cidr, except, field, what) in [
        ("10.0.0.0", json!([]), "cidr", "\"10.0.0.0\" is no network (address/bits)"),
        ("10.0.0.0/33", json!([]), "cidr", "\"10.0.0.0/33\" is no network (address/bits)"),
        (
            "::ffff:10.0.0.0/104",
            json!([]),
            "cidr",
            "\"::ffff:10.0.0.0/104\" is an IPv4 address mapped into IPv6",
        ),
        ("10.0.0.0/8", json!(["10.1.0.0/16", "x"]), "except[1]", "\"x\" is no network (address/bits)"),
        ("10.0.0.0/8", json!(["10.0.0.0/7"]), "except[0]", "10.0.0.0/7 leaves nothing of 10.0.0.0/8"),
    ] {
        let (rule, said) = rule(json!({"from": [{"ipBlock": {"cidr": cidr, "except": except}}]}));
        assert_eq!(rule.peers, Some(Box::default()), "{cidr} {except}");
        let field = format!("spec.ingress[0].from[0].ipBlock.{field}");
        assert_eq!(said, [format!("{field}: {what}: this peer matches nobody")]);
    }
    let (rule, said) =
        rule(json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8", "fd00::/8"]}}]}));
    assert_eq!(rule.peers.unwrap().len(), 1, "what excepts nothing costs nothing");
    assert_eq!(
        said,
        [
            "spec.ingress[0].from[0].ipBlock.except[0]: 11.0.0.0/8 is not within 10.0.0.0/8: it excepts nothing",
            "spec.ingress[0].from[0].ipBlock.except[1]: fd00::/8 is not within 10.0.0.0/8: it excepts nothing",
        ]
    );
}

#[test]
fn egress_names_its_own_fields() {
    let parsed = policy(json!({"egress": [{}, {"to": [{}]}]}));
    assert_eq!(
        said(&parsed),
        ["spec.egress[1].to[0]: neither ipBlock nor a selector: this peer matches nobody"]
    );
    let egress = parsed.object.unwrap().egress.unwrap();
    assert_eq!(egress[0], PolicyRule { peers: None, ports: None });
    assert_eq!(egress[1], PolicyRule { peers: Some(Box::default()), ports: None });
}
