//! `ClusterNetworkPolicy`: what each field means, and that what is not understood fails closed.

use serde_json::{Value, json};

use super::{merge, said};
use crate::source::parse::{Parsed, parse_cluster_network_policy};
use crate::source::{
    ApiClusterNetworkPolicy, ClusterNetworkPolicy, ClusterRule, PolicyModes, PolicyPeer, PolicyPort,
    Protocol, RuleAction, RuleLabel, Selector, Tier,
};

fn parse(object: Value) -> Parsed<ClusterNetworkPolicy> {
    parse_cluster_network_policy(&serde_json::from_value::<ApiClusterNetworkPolicy>(object).unwrap())
}

/// One of the Admin tier for all pods, and `patch` laid over its spec.
fn policy(patch: Value) -> Parsed<ClusterNetworkPolicy> {
    let mut spec = json!({"tier": "Admin", "priority": 7, "subject": {"namespaces": {}}});
    merge(&mut spec, patch);
    parse(json!({"metadata": {"name": "p"}, "spec": spec}))
}

/// What becomes of one egress rule with this action, and `patch` laid over one about all pods; and what is said.
fn rule(action: &str, patch: Value) -> (Option<ClusterRule>, Vec<String>) {
    let mut rule = json!({"action": action, "to": [{"namespaces": {}}]});
    merge(&mut rule, patch);
    let parsed = policy(json!({"egress": [rule]}));
    let rules = parsed.object.clone().unwrap().egress;
    (rules.first().cloned(), said(&parsed))
}

const DENY_ALL: ClusterRule = ClusterRule {
    label: RuleLabel { number: 1, name: None },
    action: RuleAction::Deny,
    peers: None,
    ports: None,
};

fn range(protocol: Protocol, first: u16, last: u16) -> PolicyPort {
    PolicyPort::Range { protocol, first, last }
}

#[test]
fn all_that_a_policy_says() {
    let team = |name: &str| json!({"matchLabels": {"team": name}});
    let parsed = policy(json!({
        "tier": "Baseline", "priority": 1000,
        "subject": {"namespaces": null, "pods": {"namespaceSelector": team("a"), "podSelector": team("b")}},
        "ingress": [{"name": "in", "action": "Pass", "from": [{"namespaces": team("c")}]}],
        "egress": [{"action": "Accept", "to": [{"networks": ["10.0.0.1/8", "fd00::/16"]}],
            "protocols": [{"tcp": {"destinationPort": {"number": 80}}},
                {"sctp": {"destinationPort": {"range": {"start": 1, "end": 9}}}}]}],
    }));
    assert_eq!(parsed.problems, []);
    let policy = parsed.object.unwrap();
    assert_eq!((policy.tier, policy.priority, policy.modes), (Tier::Baseline, 1000, PolicyModes::default()));
    assert!(policy.subject.namespaces != policy.subject.pods && policy.subject.pods != Selector::default());
    let [ingress] = &*policy.ingress else { panic!("{policy:?}") };
    assert_eq!((ingress.action, ingress.ports.as_deref()), (RuleAction::Pass, None));
    assert_eq!(ingress.label.to_string(), "rule 1 (in)");
    let [egress] = &*policy.egress else { panic!("{policy:?}") };
    assert_eq!(egress.label.to_string(), "rule 1");
    let networks = ["10.0.0.0/8", "fd00::/16"].map(|cidr| PolicyPeer::network(cidr.parse().unwrap()));
    let ports = [range(Protocol::Tcp, 80, 80), range(Protocol::Sctp, 1, 9)];
    assert_eq!((egress.peers.as_deref(), egress.ports.as_deref()), (Some(&networks[..]), Some(&ports[..])));
}

#[test]
fn a_rule_is_called_by_its_place_and_its_name() {
    let long = "n".repeat(200);
    let (wrong, right) = (json!({"action": "Accept", "to": []}), json!([{"namespaces": {}}]));
    let parsed = policy(json!({"egress": [
        wrong, {"name": "no\u{1b}[2J-db\n", "action": "Deny", "to": right}, {"name": long, "action": "Pass", "to": right},
        {"name": 5, "action": "Deny"},
    ], "ingress": {}}));
    let policy = parsed.object.unwrap();
    let labels = |rules: &[ClusterRule]| rules.iter().map(|rule| rule.label.to_string()).collect::<Vec<_>>();
    let third = format!("rule 3 ({})", &long[..100]);
    assert_eq!(labels(&policy.egress), ["rule 2 (no[2J-db)", &third, "rule 4"]);
    assert_eq!(labels(&policy.ingress), ["rules that cannot be read"]);
}

#[test]
fn a_name_of_a_port_is_of_any_protocol() {
    let (rule, said) = rule("Deny", json!({"protocols": [{"destinationNamedPort": "web"}]}));
    assert_eq!(said, [""; 0]);
    let named = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .map(|protocol| PolicyPort::Named { protocol, name: "web".into() });
    assert_eq!(rule.unwrap().ports.as_deref(), Some(&named[..]));
}

#[test]
fn a_rule_that_is_not_understood_fails_closed() {
    for (patch, field) in [
        (json!({"to": []}), "to"),
        (json!({"to": null}), "to"),
        (json!({"to": [{}]}), "to[0]"),
        (json!({"to": [{"services": {}}]}), "to[0].services"),
        (json!({"to": [{"domainNames": ["a.example"]}]}), "to[0].domainNames"),
        (json!({"to": [{"nodes": {}}]}), "to[0].nodes"),
        (json!({"to": [{"namespaces": {}, "future": 1}]}), "to[0]"),
        (json!({"to": [{"namespaces": {"matchNames": []}}]}), "to[0].namespaces.matchNames"),
        (
            json!({"to": [{"namespaces": {"matchExpressions": [{"key": "k", "operator": "Like"}]}}]}),
            "to[0].namespaces.matchExpressions[0].operator",
        ),
        (json!({"to": [{"pods": {"namespaceSelector": {}}}]}), "to[0].pods.podSelector"),
        (json!({"to": [{"networks": ["10.0.0.0/33"]}]}), "to[0].networks[0]"),
        (json!({"to": [{"networks": ["::ffff:10.0.0.0/104"]}]}), "to[0].networks[0]"),
        (json!({"to": [{"networks": []}]}), "to[0].networks"),
        (json!({"future": {}}), "future"),
        (json!({"protocols": []}), "protocols"),
        (json!({"protocols": [{}]}), "protocols[0]"),
        (json!({"protocols": [{"icmp": {}}]}), "protocols[0].icmp"),
        (json!({"protocols": [{"tcp": {}}]}), "protocols[0].tcp"),
        (json!({"protocols": [{"tcp": {"flags": "SYN"}}]}), "protocols[0].tcp.flags"),
        (json!({"protocols": [{"tcp": {"destinationPort": {}}}]}), "protocols[0].tcp.destinationPort"),
        (
            json!({"protocols": [{"udp": {"destinationPort": {"number": 0}}}]}),
            "protocols[0].udp.destinationPort.number",
        ),
        (
            json!({"protocols": [{"udp": {"destinationPort": {"range": {"start": 9, "end": 8}}}}]}),
            "protocols[0].udp.destinationPort.range",
        ),
        (
            json!({"to": [{"networks": ["0.0.0.0/0"]}], "protocols": [{"destinationNamedPort": "web"}]}),
            "protocols",
        ),
    ] {
        let field = format!("spec.egress[0].{field}: ");
        for (action, expected, loss) in [
            ("Accept", None, "this rule matches nothing"),
            ("Deny", Some(DENY_ALL), "this rule denies everybody everything"),
            ("Pass", Some(DENY_ALL), "this rule denies everybody everything"),
        ] {
            let (found, said) = rule(action, patch.clone());
            assert_eq!(found, expected, "{action} {patch}");
            assert!(
                matches!(&said[..], [said] if said.starts_with(&field) && said.ends_with(loss)),
                "{said:?}"
            );
        }
    }
}

#[test]
fn networks_are_no_sources() {
    let parsed = policy(json!({"ingress": [
        {"action": "Accept", "from": [{"networks": ["10.0.0.0/8"]}]},
        {"action": "Deny", "from": [{"networks": ["10.0.0.0/8"]}]},
    ]}));
    let second = ClusterRule { label: RuleLabel { number: 2, name: None }, ..DENY_ALL };
    assert_eq!(*parsed.object.unwrap().ingress, [second]);
}

#[test]
fn an_action_that_nobody_knows_denies_whom_it_is_about() {
    for action in ["Log", "accept", ""] {
        let (found, said) = rule(action, json!({}));
        let found = found.unwrap();
        assert_eq!((found.action, found.peers.is_some(), said.len()), (RuleAction::Deny, true, 1));
    }
}

#[test]
fn what_has_no_place_only_denies() {
    let rules = json!(
        ["Accept", "Deny", "Pass"].map(|action| json!({"action": action, "from": [{"namespaces": {}}]}))
    );
    let expression = json!({"key": "k", "operator": "Inn", "values": ["x"]});
    for (patch, tier, priority, field) in [
        (json!({"tier": "Owner"}), Tier::Admin, 7, "spec.tier"),
        (json!({"tier": null}), Tier::Admin, 7, "spec.tier"),
        (json!({"tier": "Baseline", "priority": 1001}), Tier::Baseline, 0, "spec.priority"),
        (json!({"priority": -1}), Tier::Admin, 0, "spec.priority"),
        (json!({"priority": "1"}), Tier::Admin, 0, "spec.priority"),
        (json!({"future": 1}), Tier::Admin, 7, "spec.future"),
        (
            json!({"subject": {"namespaces": {"matchExpressions": [expression]}}}),
            Tier::Admin,
            7,
            "spec.subject.namespaces.matchExpressions[0].operator",
        ),
    ] {
        let mut patch = patch;
        patch["ingress"] = rules.clone();
        let parsed = policy(patch);
        let said = said(&parsed);
        assert!(matches!(&said[..], [said] if said.starts_with(field)), "{said:?}");
        let policy = parsed.object.unwrap();
        assert_eq!((policy.tier, policy.priority), (tier, priority));
        let actions: Vec<_> = policy.ingress.iter().map(|rule| rule.action).collect();
        assert_eq!(actions, [RuleAction::Deny; 2], "{field}");
        assert!(policy.ingress.iter().all(|rule| rule.peers.is_some()));
    }
}

#[test]
fn a_subject_that_is_not_understood_is_for_nobody() {
    for (subject, field) in [
        (json!(null), "spec.subject: "),
        (json!({"namespaces": null, "nodes": {}}), "spec.subject.nodes: "),
        (json!({"namespaces": null}), "spec.subject: "),
        (json!({"pods": {"podSelector": {}}}), "spec.subject: "),
        (json!({"namespaces": {"matchLabels": 7}}), "spec.subject.namespaces: "),
    ] {
        let parsed = policy(json!({"subject": subject}));
        let said = said(&parsed);
        assert_eq!(parsed.object, None);
        let loss = "nobody knows which pods this policy is for";
        assert!(matches!(&said[..], [said] if said.starts_with(field) && said.ends_with(loss)), "{said:?}");
    }
    let parsed = parse(json!({"metadata": {"name": "p"}}));
    assert_eq!((parsed.object, parsed.problems.len()), (None, 1));
}

#[test]
fn annotations() {
    let annotated = |mode: &str, established: &str| {
        parse(json!({
            "metadata": {"name": "p", "annotations": {"weir.dev/policy-mode": mode, "weir.dev/established": established}},
            "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}},
        }))
    };
    let modes = |parsed: &Parsed<ClusterNetworkPolicy>| parsed.object.as_ref().unwrap().modes;
    let both = annotated("audit", "keep");
    assert_eq!((modes(&both), said(&both)), (PolicyModes { audit: true, keep: true }, vec![]));
    let neither = annotated("enforce", "cut");
    assert_eq!((modes(&neither), said(&neither)), (PolicyModes::default(), vec![]));
    let wrong = annotated("Audit", "");
    assert_eq!(modes(&wrong), PolicyModes::default());
    assert_eq!(
        said(&wrong),
        [
            "metadata.annotations[weir.dev/policy-mode]: \"Audit\" is none of enforce, audit: this policy is enforced",
            "metadata.annotations[weir.dev/established]: \"\" is none of cut, keep: what this policy denies is cut",
        ]
    );
}
