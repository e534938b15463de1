//! Who denied it, and why nobody did.

use serde_json::{Value, json};
use weir_ebpf::abi::{PolicySetId, PortRulesId, VerdictKey};

use super::*;
use crate::compile::policy::{Fingerprint, Named};
use crate::network::Owner;
use crate::source::{Namespace, PodIdentity, PodUid, parse_cluster_network_policy};

const CAST: Cast = CASTS[0];

impl World {
    /// A policy for `web-1` of this tier and these rules for ingress.
    fn put_cluster(&mut self, name: &str, tier: &str, annotations: &Value, ingress: &Value) {
        let subject = json!({"pods": {"podSelector": {"matchLabels": {"app": "web"}}}});
        let object = json!({
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"tier": tier, "priority": 1, "subject": subject, "ingress": ingress},
        });
        let parsed = parse_cluster_network_policy(&serde_json::from_value(object).unwrap());
        self.state.apply(Event::ClusterNetworkPolicy(name.into(), parsed.object));
    }

    fn forget_policies(&mut self) {
        for name in ["deny-all", "web", "clients"] {
            self.state.apply(Event::NetworkPolicy(ObjectKey::new("default", name), None));
        }
    }

    fn know_other(&mut self) {
        let labels = Labels::from_iter([("team".into(), "b".into())]);
        self.state
            .apply(Event::Namespace("other".into(), Some(Namespace { labels, ..Namespace::default() })));
    }
}

fn ingress(port: u16) -> DropEvent {
    event(HookPoint::ToPod, DropReason::PolicyIngress, peer(CAST.client, 41234), peer(CAST.web, port))
}

fn why(world: &World, port: u16) -> String {
    world.explain(&ingress(port)).why
}

fn team(name: &str) -> Value {
    json!([{"namespaces": {"matchLabels": {"team": name}}}])
}

fn tcp(port: u16) -> Value {
    json!([{"tcp": {"destinationPort": {"number": port}}}])
}

#[test]
fn the_rule_that_denies_is_named() {
    let mut world = World::new();
    world.know_other();
    let rules = json!([
        {"name": "dns", "action": "Accept", "from": team("b"), "protocols": tcp(53)},
        {"name": "no-db", "action": "Deny", "from": team("b"), "protocols": tcp(5432)},
        {"action": "Deny", "from": team("b"), "protocols": tcp(5433)},
        {"action": "Deny", "from": team("c"), "protocols": tcp(80)},
    ]);
    world.put_cluster("tenants", "Admin", &json!({}), &rules);
    let record = world.explain(&ingress(5432));
    assert_eq!(
        record.why,
        "default/web-1: ingress is denied by ClusterNetworkPolicy tenants, rule 2 (no-db)"
    );
    assert_eq!(record.policies, ["ClusterNetworkPolicy tenants"]);
    assert_eq!(record.rule, Some(DropRule { number: 2, name: Some("no-db".into()) }));
    assert!(why(&world, 5433).ends_with("by ClusterNetworkPolicy tenants, rule 3"), "{}", why(&world, 5433));
    // The others have nothing to do with it.
    let isolated = "default/web-1 is isolated for ingress by default/deny-all, default/web; none allows it";
    assert_eq!(why(&world, 80), isolated);
    assert_eq!(world.explain(&ingress(80)).policies, ["default/deny-all", "default/web"]);
    let allowed = why(&world, 53);
    assert!(allowed.contains("tenants, default/deny-all, default/web; since then they"), "{allowed}");
}

#[test]
fn a_baseline_denies_where_nothing_isolates() {
    let mut world = World::new();
    world.know_other();
    let rules = json!([{"name": "b", "action": "Deny", "from": team("b")}]);
    world.put_cluster("base", "Baseline", &json!({}), &rules);
    assert!(why(&world, 80).ends_with("none allows it"));
    world.forget_policies();
    assert_eq!(why(&world, 80), "default/web-1: ingress is denied by ClusterNetworkPolicy base, rule 1 (b)");
    // What an Admin passes.
    let rules = json!([{"action": "Pass", "from": team("b")}, {"action": "Deny", "from": team("b")}]);
    world.put_cluster("admin", "Admin", &json!({}), &rules);
    assert!(why(&world, 80).contains("base, rule 1 (b)"));
}

#[test]
fn a_reply_of_a_flow_that_a_rule_denies() {
    let mut world = World::new();
    world.know_other();
    let rules = json!([{"name": "no-db", "action": "Deny", "from": team("b"), "protocols": tcp(5432)}]);
    world.put_cluster("tenants", "Admin", &json!({}), &rules);
    let (client, web) = (peer(CAST.client, 41234), peer(CAST.web, 5432));
    let reply = event(HookPoint::FromPod, DropReason::PolicyIngress, web, client);
    let why = world.explain(&reply).why;
    assert_eq!(
        why,
        "a reply; default/web-1: ingress is denied by ClusterNetworkPolicy tenants, rule 1 (no-db)"
    );
}

#[test]
fn while_a_namespace_is_not_known_that_is_said() {
    let mut world = World::new();
    let rules = json!([{"name": "pass", "action": "Pass", "from": team("b")}]);
    world.put_cluster("admin", "Admin", &json!({}), &rules);
    let unsure = "admin, rule 1 (pass), as long as the labels of a namespace are not known";
    assert!(why(&world, 80).ends_with(unsure), "{}", why(&world, 80));
    world.know_other();
    assert!(why(&world, 80).ends_with("none allows it"));
    // Of all pods it is known that they are in a namespace.
    world.state.apply(Event::Namespace("other".into(), None));
    let rules = json!([{"action": "Pass", "from": [{"namespaces": {}}]}]);
    world.put_cluster("admin", "Admin", &json!({}), &rules);
    assert!(why(&world, 80).ends_with("none allows it"));
}

#[test]
fn what_would_be_denied_is_said_of_the_rule_that_would() {
    let mut world = World::new();
    world.know_other();
    world.forget_policies();
    let audit = json!({"weir.dev/policy-mode": "audit"});
    let rules = json!([{"name": "no", "action": "Deny", "from": team("b")}]);
    world.put_cluster("watched", "Admin", &audit, &rules);
    world.put_cluster("enforced", "Baseline", &json!({}), &json!([{"action": "Deny", "from": team("c")}]));
    let mut event = ingress(80);
    event.flags |= DropEvent::WOULD;
    let record = world.explain(&event);
    assert_eq!(
        record.why,
        "default/web-1: ingress would be denied by ClusterNetworkPolicy watched, rule 1 (no)"
    );
}

#[test]
fn what_finds_no_room_is_said_to_be_the_reason() {
    let mut world = World::new();
    world.forget_policies();
    let name = Change::Name(Named::Set(PolicySetId(9)), Some(Fingerprint([9; 16])));
    world.rows.apply(Update { changes: vec![name], garbage: Vec::new() }, true, &mut Rows { full: true });
    assert!(why(&world, 80).contains("have changed since"), "no packet is judged by a name");
    let verdict = VerdictKey { set: PolicySetId(9), class: ClassId(9) };
    let changes = vec![Change::Verdict(verdict, Some(PortRulesId::ALL))];
    world.rows.apply(Update { changes, garbage: Vec::new() }, true, &mut Rows { full: true });
    assert!(why(&world, 80).contains("a table has no room"), "{}", why(&world, 80));
}

#[test]
fn two_pods_behind_one_device_are_said_to_be() {
    use weir_ebpf::abi::PodPolicy;
    let mut world = World::new();
    world.forget_policies();
    let (one, two) = (ip("10.0.2.3").into(), ip("10.0.2.4").into());
    world.rows.set_workloads([(one, WEB), (two, WEB)].into_iter(), [].into(), &mut Rows { full: false });
    let policy = |ingress| Some(PodPolicy::new(ingress, PolicySetId::OPEN));
    let changes =
        vec![Change::Pod(one, policy(PolicySetId::OPEN)), Change::Pod(two, policy(PolicySetId::CLOSED))];
    world.rows.apply(Update { changes, garbage: Vec::new() }, true, &mut Rows { full: false });
    assert!(why(&world, 80).contains("two pods have addresses behind this device"), "{}", why(&world, 80));
}

#[test]
fn a_pod_is_named_by_its_device_whatever_addresses_are_there() {
    let mut world = World::new();
    let uid = PodUid::parse("11111111-2222-3333-4444-555555555555").unwrap();
    let neighbour = pod("here", "web", &["10.0.2.9"]);
    world.state.apply(Event::Pod(ObjectKey::new("default", "neighbour"), Some(neighbour)));
    let mut web = pod("here", "web", &[CAST.web]);
    web.identity = Some(Box::new(PodIdentity { uid, mirrors: None }));
    world.state.apply(Event::Pod(ObjectKey::new("default", "web-1"), Some(web)));
    // A sandbox that keeps its address to itself, and one that has taken the neighbour's in its place.
    for addresses in [vec![], vec![ip("10.0.2.9")]] {
        let device = world.network.pods.get_mut(&WEB).unwrap();
        device.owner = Owner::Pod(uid);
        device.addresses = addresses.clone();
        place(&mut world.state, &world.network);
        let record = world.explain(&ingress(80));
        assert_eq!(record.pod.as_deref(), Some("default/web-1"), "{addresses:?}");
        assert!(record.why.starts_with("default/web-1 is isolated"), "{}", record.why);
    }
}
