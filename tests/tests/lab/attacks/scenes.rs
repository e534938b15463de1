//! The policies under which everything is tried.

use serde_json::{Value, json};

use super::table::{ALLOWED, PORT, Table};

/// Policies, and what is tried under them.
pub(super) struct Scene {
    pub(super) name: &'static str,
    pub(super) policy: Value,
    pub(super) rows: fn(&mut Table),
}

pub(super) fn scenes() -> [Scene; 6] {
    let friends = json!([{"podSelector": {"matchLabels": {"app": "friend"}}}]);
    let served = json!([{"from": friends, "ports": [{"port": PORT}, {"port": PORT, "protocol": "UDP"}]}]);
    let allowed = json!([{"to": friends, "ports": [{"port": ALLOWED, "protocol": "UDP"}]}]);
    let scene = |name, policy, rows| Scene { name, policy, rows };
    [
        scene("the victim is isolated", isolated("victim", Some(&served), Some(&json!([]))), on_victim),
        scene(
            "the attacker is isolated",
            isolated("attacker", Some(&json!([])), Some(&allowed)),
            on_attacker,
        ),
        scene("only friends may reach the victim", isolated("victim", Some(&served), None), on_victim),
        scene("the attacker may reach only friends", isolated("attacker", None, Some(&allowed)), on_attacker),
        scene("an admin keeps the attacker from the victim", no_attackers(), on_victim),
        scene("neither is isolated", isolated("other", Some(&json!([])), Some(&json!([]))), add_identity),
    ]
}

/// A policy about an app, with rules for the sides on which it isolates.
fn isolated(app: &str, ingress: Option<&Value>, egress: Option<&Value>) -> Value {
    let mut spec = json!({"podSelector": {"matchLabels": {"app": app}}, "policyTypes": []});
    for (kind, field, rules) in [("Ingress", "ingress", ingress), ("Egress", "egress", egress)] {
        if let (Some(rules), Some(types)) = (rules, spec["policyTypes"].as_array_mut()) {
            types.push(kind.into());
            spec[field] = rules.clone();
        }
    }
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "lab", "name": app},
        "spec": spec,
    })
}

/// Everybody else is allowed: what denies is what the attacker is known by.
fn no_attackers() -> Value {
    let pods =
        |app: &str| json!({"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": app}}}});
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "no-attackers"},
        "spec": {
            "tier": "Admin",
            "priority": 1,
            "subject": pods("victim"),
            "ingress": [{"action": "Deny", "from": [pods("attacker")]}],
        },
    })
}

fn on_victim(table: &mut Table) {
    add_identity(table);
    add_denied(table);
}

fn on_attacker(table: &mut Table) {
    on_victim(table);
    table.add_disguised();
}

/// What is not the attacker's to say, whoever is isolated.
fn add_identity(table: &mut Table) {
    table.add_borrowed_addresses();
    if table.is_v4() {
        table.add_lies_of_ipv4();
    } else {
        table.add_lies_of_ipv6();
    }
    table.add_forged_errors();
}

fn add_denied(table: &mut Table) {
    table.add_denied();
    table.add_denied_pieces();
    if table.is_v4() {
        table.add_odd_ipv4();
    } else {
        table.add_chains();
    }
    table.add_strange();
}
