//! What annotations make of a pod, beside policies that say nothing of it.

use super::*;

/// Flags of the server under a NetworkPolicy, and policies of the cluster by tier and rules.
fn flags_under(own: &Value, others: &[(&str, Value)]) -> u32 {
    let mut world = World::served();
    world.put_policy_with("serve", own, &serve());
    for (n, (tier, ingress)) in others.iter().enumerate() {
        let subject = json!({"pods": {"podSelector": {"matchLabels": {"app": "server"}}}});
        let object = json!({
            "metadata": {"name": format!("p{n}")},
            "spec": {"tier": tier, "priority": n, "subject": subject, "ingress": ingress},
        });
        let parsed = parse_cluster_network_policy(&serde_json::from_value(object).unwrap());
        assert_eq!(parsed.problems, []);
        world.state.apply(Event::ClusterNetworkPolicy(format!("p{n}").into(), parsed.object));
    }
    world.update();
    let policy = world.policy("10.0.0.1");
    assert_ne!(policy.ingress, PolicySetId::OPEN);
    policy.flags
}

#[test]
fn who_denies_nothing_has_no_say_in_what_is_kept() {
    let keep = json!({"weir.dev/established": "keep"});
    let rule = |action: &str, peers: &Value, ports: &Value| json!([{"action": action, "from": peers, "protocols": ports}]);
    let all = json!([{"namespaces": {}}]);
    let some = json!([{"namespaces": {"matchLabels": {"a": "b"}}}]);
    let (dns, nowhere) =
        (json!([{"udp": {"destinationPort": {"number": 53}}}]), json!([{"destinationNamedPort": "no-such"}]));
    for (what, tier, rules, kept) in [
        ("DNS is accepted", "Admin", rule("Accept", &all, &dns), true),
        ("it is for the NetworkPolicies to say", "Admin", rule("Pass", &some, &Value::Null), true),
        ("it is never asked", "Baseline", rule("Deny", &all, &Value::Null), true),
        ("the pod has no such port", "Admin", rule("Deny", &all, &nowhere), true),
        ("it denies", "Admin", rule("Deny", &some, &dns), false),
    ] {
        let expected = if kept { PodPolicy::KEEP_INGRESS } else { 0 };
        assert_eq!(flags_under(&keep, &[(tier, rules)]), expected, "{what}");
    }
}

#[test]
fn a_pod_that_is_only_watched_is_so_beside_policies_that_deny_nothing() {
    let audit = json!({"weir.dev/policy-mode": "audit"});
    let all = json!([{"namespaces": {}}]);
    let some = json!([{"namespaces": {"matchLabels": {"a": "b"}}}]);
    for (action, peers, watched) in [
        ("Accept", &all, true),
        ("Accept", &some, true),
        ("Pass", &all, true),
        // While a namespace is not known.
        ("Pass", &some, false),
        ("Deny", &all, false),
    ] {
        let expected = if watched { PodPolicy::WATCH_INGRESS } else { 0 };
        for tier in ["Admin", "Baseline"] {
            let dns = json!([{"udp": {"destinationPort": {"number": 53}}}]);
            let rules = json!([{"action": action, "from": peers, "protocols": dns}]);
            assert_eq!(flags_under(&audit, &[(tier, rules)]), expected, "{tier} {action} {peers}");
        }
    }
}
