//! Objects from a fuzzer's bytes: few words, so that everything meets everything; some of it is wrong.

use arbitrary::Arbitrary;
use serde_json::{Value, json};

/// Addresses that pods may have. More pods than these, so that some claim the same.
pub(super) const POOL: [&str; 6] = ["10.0.0.1", "10.0.0.2", "10.0.1.3", "10.1.0.5", "fd00::1", "fd00:1::3"];
/// Addresses that no pod has.
pub(super) const OUTSIDE: [&str; 4] = ["10.0.0.9", "192.0.2.1", "2001:db8::1", "fd00::9"];
const NETWORKS: [&str; 16] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/15",
    "10.0.0.0/24",
    "10.0.0.7/24",
    "10.0.0.1/32",
    "10.0.0.2/31",
    "192.0.2.0/24",
    "::/0",
    "fd00::/16",
    "fd00::/64",
    "fd00::1/128",
    "::/64",
    "::ffff:10.0.0.0/104",
    "10.0.0.0/33",
    "nonsense",
];
const NAMESPACES: [&str; 3] = ["a", "b", "c"];
const NAMES: [&str; 3] = ["p", "q", "r"];
const KEYS: [&str; 3] = ["k", "l", "kubernetes.io/metadata.name"];
const VALUES: [&str; 4] = ["x", "y", "", "a"];
const PORT_NAMES: [&str; 2] = ["web", "dns"];
const PROTOCOLS: [&str; 4] = ["TCP", "UDP", "SCTP", "ICMP"];
const NUMBERS: [i32; 10] = [53, 79, 80, 81, 8080, 8081, 65_535, 0, -1, 65_536];
/// The most of anything that an object has any number of.
const MANY: usize = 3;

fn of<T: Copy>(list: &[T], choice: u8) -> T {
    list[usize::from(choice) % list.len()]
}

fn list<T>(seeds: &[T], value: impl Fn(&T) -> Value) -> Value {
    seeds.iter().take(MANY).map(value).collect()
}

/// A namespace by its choice.
pub(super) fn namespace(choice: u8) -> &'static str {
    of(&NAMESPACES, choice)
}

/// A name by its choice.
pub(super) fn name(choice: u8) -> &'static str {
    of(&NAMES, choice)
}

#[derive(Arbitrary, Clone, Debug)]
pub(super) struct Labels([Option<u8>; 2]);

impl Labels {
    fn value(&self) -> Value {
        let pairs = KEYS.iter().zip(&self.0).filter_map(|(key, value)| Some((key, of(&VALUES, (*value)?))));
        pairs
            .map(|(key, value)| (String::from(*key), Value::from(value)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    /// A namespace with these.
    pub(super) fn namespace(&self, name: &str) -> Value {
        json!({"metadata": {"name": name, "labels": self.value()}})
    }
}

#[derive(Arbitrary, Clone, Debug)]
pub(super) struct Pod {
    labels: Labels,
    addresses: [Option<u8>; 2],
    ports: Vec<(u8, u8, u8)>,
    here: bool,
    host_network: bool,
    ended: bool,
    sidecar: bool,
    created: Option<bool>,
}

impl Pod {
    pub(super) fn value(&self, namespace: &str, name: &str) -> Value {
        let port = |(name, protocol, number): &(u8, u8, u8)| {
            json!({"name": of(&PORT_NAMES, *name), "protocol": of(&PROTOCOLS[..3], *protocol),
                   "containerPort": of(&NUMBERS, *number)})
        };
        let container = json!([{"name": "c", "ports": list(&self.ports, port), "restartPolicy": "Always"}]);
        let (containers, sidecars) =
            if self.sidecar { (json!([]), container) } else { (container, json!(null)) };
        let created =
            self.created.map(|late| if late { "2026-01-02T00:00:00Z" } else { "2026-01-01T00:00:00Z" });
        let addresses = self.addresses.iter().flatten();
        json!({
            "metadata": {"namespace": namespace, "name": name, "labels": self.labels.value(), "creationTimestamp": created},
            "spec": {
                "nodeName": if self.here { "here" } else { "there" }, "containers": containers, "initContainers": sidecars,
                "hostNetwork": self.host_network,
            },
            "status": {
                "phase": if self.ended { "Succeeded" } else { "Running" },
                "podIPs": addresses.map(|choice| json!({"ip": of(&POOL, *choice)})).collect::<Vec<_>>(),
            },
        })
    }
}

#[derive(Arbitrary, Clone, Debug)]
pub(super) struct Policy {
    selector: Option<Selector>,
    types: u8,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
}

#[derive(Arbitrary, Clone, Debug)]
struct Selector {
    labels: Option<Labels>,
    tests: Vec<(u8, u8, Option<u8>)>,
}

#[derive(Arbitrary, Clone, Debug)]
struct Rule {
    peers: Option<Vec<Peer>>,
    ports: Option<Vec<Port>>,
}

#[derive(Arbitrary, Clone, Debug)]
enum Peer {
    Block(u8, Vec<u8>),
    Pods(Selector),
    Namespaces(Selector),
    Both(Selector, Selector),
    Nothing,
    Wrong(Selector, u8),
}

#[derive(Arbitrary, Clone, Debug)]
enum Port {
    Any(Option<u8>),
    Number(u8, Option<u8>, Option<u8>),
    Named(u8, Option<u8>, Option<u8>),
}

impl Policy {
    pub(super) fn value(&self, namespace: &str, name: &str) -> Value {
        let types = [
            json!(null),
            json!(["Ingress"]),
            json!(["Egress"]),
            json!(["Ingress", "Egress"]),
            json!(["ingress"]),
            json!([]),
        ];
        let rules = |rules: &Option<Vec<Rule>>, peers: &str| {
            rules.as_ref().map(|rules| list(rules, |rule| rule.value(peers)))
        };
        json!({
            "metadata": {"namespace": namespace, "name": name},
            "spec": {
                "podSelector": self.selector.as_ref().map(Selector::value),
                "policyTypes": types[usize::from(self.types) % types.len()],
                "ingress": rules(&self.ingress, "from"), "egress": rules(&self.egress, "to"),
            },
        })
    }
}

impl Selector {
    fn value(&self) -> Value {
        let test = |(key, operator, value): &(u8, u8, Option<u8>)| {
            let operator = of(&["In", "NotIn", "Exists", "DoesNotExist", "Like"], *operator);
            let values: Vec<_> = value.iter().map(|value| of(&VALUES, *value)).collect();
            json!({"key": of(&KEYS, *key), "operator": operator, "values": values})
        };
        json!({"matchLabels": self.labels.as_ref().map(Labels::value), "matchExpressions": list(&self.tests, test)})
    }
}

impl Rule {
    fn value(&self, peers: &str) -> Value {
        let ports = self.ports.as_ref().map(|ports| list(ports, Port::value));
        json!({peers: self.peers.as_ref().map(|peers| list(peers, Peer::value)), "ports": ports})
    }
}

impl Peer {
    fn value(&self) -> Value {
        match self {
            Self::Block(cidr, excepts) => {
                let except = list(excepts, |except| of(&NETWORKS, *except).into());
                json!({"ipBlock": {"cidr": of(&NETWORKS, *cidr), "except": except}})
            }
            Self::Pods(pods) => json!({"podSelector": pods.value()}),
            Self::Namespaces(namespaces) => json!({"namespaceSelector": namespaces.value()}),
            Self::Both(namespaces, pods) => {
                json!({"namespaceSelector": namespaces.value(), "podSelector": pods.value()})
            }
            Self::Nothing => json!({}),
            Self::Wrong(pods, cidr) => {
                json!({"podSelector": pods.value(), "ipBlock": {"cidr": of(&NETWORKS, *cidr)}})
            }
        }
    }
}

impl Port {
    fn value(&self) -> Value {
        let protocol = |choice: &Option<u8>| choice.map(|choice| of(&PROTOCOLS, choice));
        let end = |choice: &Option<u8>| choice.map(|choice| of(&NUMBERS, choice));
        match self {
            Self::Any(own) => json!({"protocol": protocol(own)}),
            Self::Number(first, last, own) => {
                json!({"port": of(&NUMBERS, *first), "endPort": end(last), "protocol": protocol(own)})
            }
            Self::Named(name, last, own) => {
                json!({"port": of(&PORT_NAMES, *name), "endPort": end(last), "protocol": protocol(own)})
            }
        }
    }
}
