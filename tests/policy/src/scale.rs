//! A large cluster: what policies cost, in rows, time and instructions, is said of one like it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use serde_json::{Value, json};

use super::Cluster;

/// Namespaces; pod and policy number n are in number n modulo this.
pub const NAMESPACES: usize = 100;
/// Apps, by which pods are labelled and policies select their peers: number n has n modulo this.
pub const SELECTORS: usize = 1_000;
/// The first pods are on the node `here`, so many of them, one of each namespace.
pub const PODS_HERE: usize = 100;
/// The one port that policies allow, by TCP.
pub const PORT: u16 = 8080;

/// Which sides policies isolate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sides {
    /// What comes to their pods.
    Ingress,
    /// That and what leaves them.
    Both,
}

/// So many pods and policies. Each policy is for all pods of its namespace, and allows, by TCP at [`PORT`], the pods of one
/// app, wherever they are.
#[must_use]
pub fn cluster(pods: usize, policies: usize, sides: Sides) -> Cluster {
    let mut cluster = Cluster::default();
    for n in 0..NAMESPACES {
        let object = json!({"metadata": {"name": format!("ns-{n}")}});
        cluster.namespaces.insert(format!("ns-{n}"), from(object));
    }
    for n in 0..pods {
        let object = pod(n, n % SELECTORS);
        cluster.pods.insert((format!("ns-{}", n % NAMESPACES), format!("pod-{n}")), from(object));
    }
    for n in 0..policies {
        let object = policy(n, n % SELECTORS, sides);
        cluster.policies.insert((format!("ns-{}", n % NAMESPACES), format!("policy-{n}")), from(object));
    }
    cluster
}

/// More pods: these numbers, all of one app.
pub fn add_pods(cluster: &mut Cluster, numbers: Range<usize>, app: usize) {
    for n in numbers {
        let object = from(pod(n, app));
        cluster.pods.insert((format!("ns-{}", n % NAMESPACES), format!("pod-{n}")), object);
    }
}

/// So many policies, each of which also allows a network, of which there are as many as apps, at a port of that network's own.
pub fn add_policies_of_networks(cluster: &mut Cluster, policies: usize) {
    for n in 0..policies {
        let network = n % SELECTORS;
        let (v4, v6) = between(2 * network + 1);
        let peers =
            json!([{"ipBlock": {"cidr": format!("{v4}/28")}}, {"ipBlock": {"cidr": format!("{v6}/124")}}]);
        let ports = json!([{"port": 10_000 + network}]);
        let mut object = policy(n, n % SELECTORS, Sides::Both);
        for (rules, field) in [("ingress", "from"), ("egress", "to")] {
            let rule = json!({field: peers, "ports": ports});
            object["spec"][rules].as_array_mut().expect("a list that is made here").push(rule);
        }
        cluster.policies.insert((format!("ns-{}", n % NAMESPACES), format!("policy-{n}")), from(object));
    }
}

/// Addresses that no pod has: those of an odd number begin the networks of [`add_policies_of_networks`], those of an
/// even one lie between them.
#[must_use]
pub fn between(number: usize) -> (Ipv4Addr, Ipv6Addr) {
    let offset = u32::try_from(number * 32).unwrap_or(u32::MAX);
    (Ipv4Addr::from_bits(0xc612_0000 | offset), Ipv6Addr::from_bits((0x2001_0db8 << 96) | u128::from(offset)))
}

/// A pod, as one of that app.
#[must_use]
pub fn pod(n: usize, app: usize) -> Value {
    let (node, host) = (if n < PODS_HERE { "here" } else { "there" }, n + 1);
    json!({
        "metadata": {
            "namespace": format!("ns-{}", n % NAMESPACES), "name": format!("pod-{n}"),
            "labels": {"app": format!("app-{app}")},
        },
        "spec": {"nodeName": node, "containers": []},
        "status": {"podIPs": [
            {"ip": format!("10.0.{}.{}", host / 256, host % 256)}, {"ip": format!("fd00::{host:x}")},
        ]},
    })
}

/// A policy that allows that app.
#[must_use]
pub fn policy(n: usize, app: usize, sides: Sides) -> Value {
    let peers = json!([{
        "namespaceSelector": {}, "podSelector": {"matchLabels": {"app": format!("app-{app}")}},
    }]);
    let ports = json!([{"port": PORT}]);
    let mut spec = json!({"ingress": [{"from": peers, "ports": ports}]});
    if sides == Sides::Both {
        spec["egress"] = json!([{"to": peers, "ports": ports}]);
    }
    json!({
        "metadata": {"namespace": format!("ns-{}", n % NAMESPACES), "name": format!("policy-{n}")},
        "spec": spec,
    })
}

#[expect(clippy::expect_used, reason = "objects that are made here")]
fn from<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("an object of its kind")
}
