//! What upstream's conformance suite for ClusterNetworkPolicies asks (kubernetes-sigs/network-policy-api), as cases of our own:
//! each tier with each action, port and protocol, both directions, priorities, and the tiers together. By the reference, by the
//! tables and at the hooks; both families.

use serde_json::{Value, json};
use weir_agent::source::Protocol::{self, Sctp, Tcp, Udp};

use crate::{Cluster, Flow, Node, Placement, reference};

/// The namespaces; in each a pod `a` and a pod `b`. Those of the first are what policies are for.
const TEAMS: [&str; 4] = ["north", "east", "south", "west"];

/// Both pods of a namespace in both families.
fn addresses(team: &str, pod: usize) -> [String; 2] {
    let number = TEAMS.iter().position(|name| *name == team).unwrap();
    [format!("10.0.{number}.{pod}"), format!("fd00:{number}::{pod}")]
}

struct World {
    cluster: Cluster,
    node: Node,
    asked: usize,
}

/// From, to, protocol, port, whether it passes.
type Ask = (&'static str, &'static str, Protocol, u16, bool);

impl World {
    fn new() -> Self {
        let mut cluster = Cluster::default();
        for team in TEAMS {
            let object = json!({"metadata": {"name": team, "labels": {"team": team}}});
            cluster.namespaces.insert(team.into(), serde_json::from_value(object).unwrap());
            for (number, name) in [(1, "a"), (2, "b")] {
                let ips: Vec<Value> = addresses(team, number).iter().map(|ip| json!({"ip": ip})).collect();
                let object = json!({
                    "metadata": {"namespace": team, "name": name, "labels": {"app": name}},
                    "spec": {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 80 * number}]}]},
                    "status": {"podIPs": ips},
                });
                cluster.pods.insert((team.into(), name.into()), serde_json::from_value(object).unwrap());
            }
        }
        Self { cluster, node: Node::new(Placement::All), asked: 0 }
    }

    /// Puts a policy for the pods of the first namespace.
    fn put(&mut self, name: &str, tier: &str, priority: u32, rules: Value) {
        let mut spec =
            json!({"tier": tier, "priority": priority, "subject": {"namespaces": labels("north")}});
        spec.as_object_mut().unwrap().extend(rules.as_object().cloned().unwrap());
        self.cluster.cluster_policies.insert(name.into(), json!({"metadata": {"name": name}, "spec": spec}));
    }

    /// Puts a NetworkPolicy there that lets a namespace in and out.
    fn put_policy(&mut self, with: &str) {
        let peer = json!([{"namespaceSelector": labels(with)}]);
        let object = json!({
            "metadata": {"namespace": "north", "name": "own"},
            "spec": {"policyTypes": ["Ingress", "Egress"], "ingress": [{"from": peer}], "egress": [{"to": peer}]},
        });
        self.cluster.policies.insert(("north".into(), "own".into()), serde_json::from_value(object).unwrap());
    }

    fn ask(&mut self, what: &str, asks: &[Ask]) {
        self.node.sync(&self.cluster);
        assert_eq!(self.node.problems(), [""; 0], "{what}");
        for (from, to, protocol, port, expected) in asks {
            let ips = |name: &str| {
                let (team, pod) = name.split_once('/').unwrap();
                addresses(team, if pod == "a" { 1 } else { 2 })
            };
            for (source, dest) in ips(from).iter().zip(&ips(to)) {
                let (source, dest) = (source.parse().unwrap(), dest.parse().unwrap());
                let flow = Flow { source, dest, protocol: Some(*protocol), port: *port };
                assert_eq!(reference::judge(&self.cluster, &flow).passes(), *expected, "{what}: {flow}");
                assert_eq!(self.node.judge(&flow).passes(), *expected, "{what}, by the tables: {flow}");
                assert_eq!(self.node.passes_hooks(&flow), *expected, "{what}, at the hooks: {flow}");
                self.asked += 1;
            }
        }
    }
}

fn labels(team: &str) -> Value {
    json!({"matchLabels": {"team": team}})
}

fn port(protocol: Protocol, number: u16) -> Value {
    json!({protocol.name().to_lowercase(): {"destinationPort": {"number": number}}})
}

/// Action, team, ports; none for all.
type Rule<'a> = (&'a str, &'a str, &'a [(Protocol, u16)]);

/// Rules of both directions.
fn both_ways(rules: &[Rule<'_>]) -> Value {
    let rules = |peers: &str| -> Vec<Value> {
        let rule = |(action, team, ports): &Rule<'_>| {
            let ports: Vec<Value> = ports.iter().map(|(protocol, number)| port(*protocol, *number)).collect();
            let ports = if ports.is_empty() { Value::Null } else { json!(ports) };
            json!({"action": action, peers: [{"namespaces": labels(team)}], "protocols": ports})
        };
        rules.iter().map(rule).collect()
    };
    json!({"ingress": rules("from"), "egress": rules("to")})
}

const ALL: [(Protocol, u16); 3] = [(Tcp, 80), (Udp, 53), (Sctp, 9003)];

/// Whether north and a team reach each other at these ports, both ways.
fn reach(team: &'static str, ports: &[(Protocol, u16)], passes: bool) -> Vec<Ask> {
    let pods: [&str; 2] = match team {
        "east" => ["east/a", "east/b"],
        "south" => ["south/a", "south/b"],
        _ => ["west/a", "west/b"],
    };
    let asks = ports.iter().flat_map(|(protocol, port)| {
        [("north/a", pods[0], *protocol, *port, passes), (pods[1], "north/b", *protocol, *port, passes)]
    });
    asks.collect()
}

#[test]
fn each_action_of_each_tier_in_the_order_of_the_rules() {
    for tier in ["Admin", "Baseline"] {
        let mut world = World::new();
        let decisions = ["Accept", "Deny", "Pass"];
        for first in 0..3 {
            let order = [0, 1, 2].map(|n| decisions[(first + n) % 3]);
            let rules = order.map(|action| (action, "east", &[][..]));
            world.put("p", tier, 15, both_ways(&rules));
            world.ask(&format!("{tier} {order:?}"), &reach("east", &ALL, order[0] != "Deny"));
            world.ask("nobody speaks of it", &reach("south", &ALL, true));
        }
    }
}

#[test]
fn at_ports_of_each_protocol_and_nowhere_else() {
    const OTHERS: [(Protocol, u16); 4] = [(Tcp, 8080), (Udp, 5353), (Sctp, 9005), (Tcp, 53)];
    for tier in ["Admin", "Baseline"] {
        let mut world = World::new();
        let rules = [
            ("Deny", "south", &ALL[..]),
            ("Pass", "south", &ALL),
            ("Accept", "west", &ALL),
            ("Deny", "west", &[]),
        ];
        world.put("p", tier, 15, both_ways(&rules));
        world.ask("denied", &reach("south", &ALL, false));
        world.ask("not denied", &reach("south", &OTHERS, true));
        world.ask("accepted", &reach("west", &ALL, true));
        world.ask("denied else", &reach("west", &OTHERS, false));
        let swapped = [rules[1], rules[0], rules[3], rules[2]];
        world.put("p", tier, 15, both_ways(&swapped));
        world.ask("passed", &reach("south", &ALL, true));
        world.ask("denied in all", &[reach("west", &ALL, false), reach("west", &OTHERS, false)].concat());
    }
}

#[test]
fn ranges_and_names_of_ports() {
    let mut world = World::new();
    let range = json!({"tcp": {"destinationPort": {"range": {"start": 8000, "end": 8079}}}});
    let to = json!([{"namespaces": labels("east")}]);
    let rules = json!([{"action": "Deny", "to": to, "protocols": [range, {"destinationNamedPort": "web"}]}]);
    world.put("p", "Admin", 1, json!({"egress": rules}));
    let ask = |dest, port, passes| ("north/a", dest, Tcp, port, passes);
    world.ask(
        "a range, and what each pod calls so",
        &[
            ask("east/a", 7999, true),
            ask("east/a", 8000, false),
            ask("east/b", 8079, false),
            ask("east/b", 8080, true),
            ask("east/a", 80, false),
            ask("east/b", 80, true),
            ask("east/b", 160, false),
            ask("east/a", 160, true),
            ("north/a", "east/a", Udp, 80, true),
        ],
    );
    let from = json!([{"namespaces": labels("east")}]);
    let rules = json!([{"action": "Deny", "from": from, "protocols": [{"destinationNamedPort": "web"}]}]);
    world.put("p", "Admin", 1, json!({"ingress": rules}));
    let ask = |dest, port, passes| ("east/a", dest, Tcp, port, passes);
    let asks = [ask("north/a", 80, false), ask("north/b", 80, true), ask("north/b", 160, false)];
    world.ask("what the pod itself calls so", &asks);
}

#[test]
fn a_name_that_two_containers_have_is_both_to_a_deny_and_the_first_to_an_accept() {
    let mut world = World::new();
    let north = world.cluster.pods.get_mut(&("north".into(), "a".into())).unwrap();
    let mut spec = north.spec.clone().unwrap();
    let second = json!({"name": "d", "ports": [{"name": "web", "containerPort": 9090}]});
    spec.containers.push(serde_json::from_value(second).unwrap());
    north.spec = Some(spec.clone());
    world.cluster.pods.get_mut(&("east".into(), "a".into())).unwrap().spec = Some(spec);
    let named = json!([{"destinationNamedPort": "web"}]);
    let peers = json!([{"namespaces": labels("east")}]);
    let rules = |rule: &dyn Fn(&str) -> Vec<Value>| json!({"ingress": rule("from"), "egress": rule("to")});
    let asks =
        |port, passes| [("east/a", "north/a", Tcp, port, passes), ("north/a", "east/a", Tcp, port, passes)];
    let deny = |side: &str| vec![json!({"action": "Deny", side: peers, "protocols": named})];
    world.put("p", "Admin", 1, rules(&deny));
    world.ask("denied", &[asks(80, false), asks(9090, false), asks(9091, true)].concat());
    let accept = |side: &str| {
        let first = json!({"action": "Accept", side: peers, "protocols": named});
        vec![first, json!({"action": "Deny", side: peers})]
    };
    world.put("p", "Admin", 1, rules(&accept));
    world.ask("accepted", &[asks(80, true), asks(9090, false)].concat());
}

#[test]
fn networks() {
    for tier in ["Admin", "Baseline"] {
        let mut world = World::new();
        let everything = json!({"action": "Deny", "to": [{"networks": ["0.0.0.0/0", "::/0"]}]});
        let pods = json!({"pods": {"namespaceSelector": labels("south"), "podSelector": {"matchLabels": {"app": "a"}}}});
        let of_south = json!({"action": "Accept", "to": [pods]});
        world.put("p", tier, 85, json!({"egress": [of_south, everything]}));
        let ask = |dest, passes| ("north/a", dest, Tcp, 80, passes);
        world.ask("all but one", &[ask("south/a", true), ask("south/b", false), ask("east/a", false)]);
        world.ask("ingress is another thing", &[("east/a", "north/a", Tcp, 80, true)]);
        let [v4, v6] = addresses("east", 1);
        let one =
            json!({"action": "Accept", "to": [{"networks": [format!("{v4}/32"), format!("{v6}/128")]}]});
        world.put("p", tier, 85, json!({"egress": [one, of_south, everything]}));
        world.ask("an address first", &[ask("east/a", true), ask("east/b", false), ask("south/a", true)]);
        world.put("p", tier, 85, json!({"egress": [everything, one]}));
        world.ask("an address last", &[ask("east/a", false)]);
    }
}

#[test]
fn the_lower_priority_comes_first() {
    let mut world = World::new();
    world.put("deny", "Admin", 50, both_ways(&[("Deny", "south", &[])]));
    world.put("pass", "Admin", 60, both_ways(&[("Pass", "south", &[])]));
    world.put("last", "Baseline", 10, both_ways(&[("Accept", "south", &[])]));
    world.ask("deny is first", &reach("south", &ALL, false));
    world.put("pass", "Admin", 40, both_ways(&[("Pass", "south", &[])]));
    world.ask("pass is first", &reach("south", &ALL, true));
    world.put("second", "Baseline", 20, both_ways(&[("Deny", "south", &[])]));
    world.ask("accept is before", &reach("south", &ALL, true));
    world.put("last", "Baseline", 30, both_ways(&[("Accept", "south", &[])]));
    world.ask("deny is before", &reach("south", &ALL, false));
}

#[test]
fn the_tiers_together() {
    let mut world = World::new();
    let about_south = |action| both_ways(&[(action, "south", &[])]);
    world.put("admin", "Admin", 10, about_south("Deny"));
    world.put("baseline", "Baseline", 10, about_south("Deny"));
    world.put_policy("south");
    world.ask("an admin denies what a NetworkPolicy allows", &reach("south", &ALL, false));
    world.ask("a NetworkPolicy isolates", &reach("east", &ALL, false));
    world.put("admin", "Admin", 10, about_south("Pass"));
    world.ask("it is for the NetworkPolicy to say", &reach("south", &ALL, true));
    world.put("admin", "Admin", 10, about_south("Accept"));
    world.put_policy("east");
    world.ask("an admin allows what a NetworkPolicy does not", &reach("south", &ALL, true));
    world.put("admin", "Admin", 10, about_south("Pass"));
    world.ask("a NetworkPolicy's answer is final", &reach("south", &ALL, false));
    world.ask("also where it allows", &reach("east", &ALL, true));
    world.cluster.policies.clear();
    world.ask("the last tier is asked where none isolates", &reach("south", &ALL, false));
    world.cluster.cluster_policies.remove("baseline");
    world.ask("nobody denies", &reach("south", &ALL, true));
    assert!(world.asked >= 7 * 2 * 2 * 3);
}

#[test]
fn what_is_audited_opens_nothing_and_denies_nothing() {
    use reference::Ruling::{Allowed, Audited, Denied};
    let mut world = World::new();
    let audit = |world: &mut World, name: &str| {
        let policy = world.cluster.cluster_policies.get_mut(name).unwrap();
        policy["metadata"]["annotations"] = json!({"weir.dev/policy-mode": "audit"});
    };
    let ruling = |world: &mut World, team: &str| {
        world.node.sync(&world.cluster);
        let [source, _] = addresses("north", 1);
        let [dest, _] = addresses(team, 1);
        let (source, dest) = (source.parse().unwrap(), dest.parse().unwrap());
        let flow = Flow { source, dest, protocol: Some(Tcp), port: 80 };
        let found = world.node.judge(&flow);
        assert_eq!(found, reference::judge(&world.cluster, &flow), "{flow}");
        found.egress
    };
    world.put(
        "admin",
        "Admin",
        10,
        both_ways(&[
            ("Accept", "east", &[]),
            ("Deny", "south", &[]),
            ("Pass", "west", &[]),
            ("Deny", "west", &[]),
        ]),
    );
    audit(&mut world, "admin");
    assert_eq!(["east", "south", "west"].map(|team| ruling(&mut world, team)), [Allowed, Audited, Allowed]);
    world.put(
        "second",
        "Admin",
        20,
        both_ways(&[("Deny", "east", &[]), ("Accept", "south", &[]), ("Deny", "west", &[])]),
    );
    assert_eq!(["east", "south", "west"].map(|team| ruling(&mut world, team)), [Denied, Audited, Denied]);
    world.cluster.cluster_policies.clear();

    // A NetworkPolicy that is audited allows what it allows, and decides nothing.
    world.put_policy("east");
    let annotated = |object: &mut k8s_openapi::api::networking::v1::NetworkPolicy| {
        let audit = ("weir.dev/policy-mode".to_owned(), "audit".to_owned());
        object.metadata.annotations = Some([audit].into());
    };
    world.cluster.policies.values_mut().for_each(annotated);
    assert_eq!(["east", "south"].map(|team| ruling(&mut world, team)), [Allowed, Audited]);
    world.put("last", "Baseline", 1, both_ways(&[("Deny", "south", &[]), ("Deny", "east", &[])]));
    assert_eq!(["east", "south", "west"].map(|team| ruling(&mut world, team)), [Denied, Denied, Audited]);
    let mut enforced = world.cluster.policies[&("north".into(), "own".into())].clone();
    (enforced.metadata.annotations, enforced.metadata.name) = (None, Some("other".into()));
    enforced.spec.as_mut().unwrap().egress = None;
    world.cluster.policies.insert(("north".into(), "other".into()), enforced);
    assert_eq!(["east", "south", "west"].map(|team| ruling(&mut world, team)), [Allowed, Denied, Denied]);

    // All policies of a namespace.
    let namespace = world.cluster.namespaces.get_mut("north").unwrap();
    let audit = ("weir.dev/policy-mode".to_owned(), "audit".to_owned());
    namespace.metadata.annotations = Some([audit].into());
    assert_eq!(["east", "south", "west"].map(|team| ruling(&mut world, team)), [Denied, Denied, Audited]);
}
