//! What the agent cannot serve is told at the object itself: as a Kubernetes Event, once for as long as it lasts.

use serde_json::{Value, json};
use weir_tests::apiserver::{ApiServer, Rule};

use super::node::{Node, Table, put_api_service};

const TOKEN: &str = "of-weir";

/// A Service with these fields of `spec` and `status` beside its ClusterIP and port.
fn service(number: u8, parts: &Value) -> Value {
    let ip = format!("10.96.7.{number}");
    let mut service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": format!("svc-{number}")},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"name": "web", "port": 80}]}});
    for (part, fields) in parts.as_object().unwrap() {
        for (field, value) in fields.as_object().unwrap() {
            service[part][field] = value.clone();
        }
    }
    service
}

fn with_external_ip() -> Value {
    json!({"spec": {"externalIPs": ["203.0.113.7"]}})
}

fn with_balancer() -> Value {
    json!({"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.8"}]}}})
}

fn with_node_port() -> Value {
    json!({"spec": {"type": "NodePort", "ports": [{"name": "web", "port": 80, "nodePort": 30080}]}})
}

fn with_ranges(range: &str) -> Value {
    json!({"spec": {"type": "LoadBalancer", "loadBalancerSourceRanges": [range]}})
}

struct World {
    server: ApiServer,
    node: Node,
}

impl World {
    /// An agent that may do this with Events, and four Services, before four more that are in their way or not in order.
    async fn new(verbs: &[&str]) -> Self {
        let server = ApiServer::start().await.unwrap();
        put_api_service(&server, &mut Table::new());
        server.grant(
            TOKEN,
            "weir",
            vec![Rule::new(&["*"], &["list", "watch"]), Rule::new(&["events"], verbs)],
        );
        let first = [
            (1, with_external_ip()),
            (3, with_node_port()),
            (5, with_ranges("192.0.2.0/24")),
            (7, with_balancer()),
        ];
        for (number, parts) in first {
            server.put(&service(number, &parts)).unwrap();
        }
        let mut node = Node::new();
        node.set_kubeconfig(&server.kubeconfig_of(TOKEN));
        node.start();
        node.until_ready().await;
        let world = Self { server, node };
        assert_eq!(world.node.status()["problems"], json!([]), "{}", world.node.log());
        world.spoil();
        world
    }

    /// Services that want what others have, or say what means nothing.
    fn spoil(&self) {
        let newcomers = [
            (2, with_external_ip()),
            (4, with_node_port()),
            (6, with_ranges("192.0.2.0/99")),
            (8, with_balancer()),
        ];
        for (number, parts) in newcomers {
            self.server.put(&service(number, &parts)).unwrap();
        }
    }

    fn mend(&self) {
        for number in [2, 4, 6, 8] {
            self.server.put(&service(number, &json!({}))).unwrap();
        }
    }

    async fn until_problems(&self, count: usize) {
        let has = |status: &Value| status["problems"].as_array().unwrap().len() == count;
        self.node.until("problems", has).await;
    }

    async fn until_counted(&self, what: &str, count: u64) {
        self.node.until(what, |status| status["agent"]["connection"][what] == count).await;
    }

    fn events(&self) -> Vec<Value> {
        self.server.truth("Event")
    }
}

/// How often each is said to have begun.
fn counts(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["series"]["count"].as_u64().unwrap_or(1)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_problem_is_told_at_its_service_once() {
    let mut world = World::new(&["create", "patch"]).await;
    world.until_problems(4).await;
    world.until_counted("events_sent", 4).await;
    let events = world.events();
    let expected = [
        (
            "svc-2",
            "NotServed",
            "spec.externalIPs: 203.0.113.7:80 TCP is already served for shop/svc-1:web/TCP IPv4: the older Service keeps it",
        ),
        (
            "svc-4",
            "NotServed",
            "spec.ports[web].nodePort: node port 30080 TCP is already served for shop/svc-3:web/TCP",
        ),
        (
            "svc-8",
            "NotServed",
            "status.loadBalancer.ingress: 203.0.113.8:80 TCP is already served for shop/svc-7:web/TCP IPv4: the older",
        ),
        ("svc-6", "InvalidField", "spec.loadBalancerSourceRanges[0]: \"192.0.2.0/99\" is "),
    ];
    assert_eq!(events.len(), expected.len(), "{events:#?}");
    for (name, reason, note) in expected {
        let event = events.iter().find(|event| event["regarding"]["name"] == name).unwrap();
        assert_eq!((&event["reason"], &event["type"]), (&json!(reason), &json!("Warning")));
        assert!(event["note"].as_str().unwrap().starts_with(note), "{event:#}");
        assert_eq!(
            (&event["reportingInstance"], &event["metadata"]["namespace"]),
            (&json!("node-a"), &json!("shop"))
        );
    }

    // All is well, and other things change: nothing more is said.
    world.mend();
    world.until_problems(0).await;
    let mut further = service(9, &json!({}));
    world.server.put(&further).unwrap();
    assert_eq!(counts(&world.events()), [1, 1, 1, 1]);
    // The same again: the same Events, a second time.
    world.spoil();
    world.until_counted("events_sent", 8).await;
    assert_eq!(counts(&world.events()), [2, 2, 2, 2]);

    // Another agent says what is new, and no more.
    world.node.kill();
    world.node.start();
    world.node.until_ready().await;
    world.until_problems(4).await;
    further["spec"]["externalIPs"] = json!(["203.0.113.7"]);
    world.server.put(&further).unwrap();
    world.until_counted("events_sent", 1).await;
    let mut counts = counts(&world.events());
    counts.sort_unstable();
    assert_eq!(counts, [1, 2, 2, 2, 2]);
    assert_eq!(world.node.status()["agent"]["connection"]["events_dropped"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_is_missing_is_one_line() {
    let world = World::new(&[]).await;
    world.until_counted("events_dropped", 4).await;
    let log = world.node.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("events.events.k8s.io")).collect();
    let words = "RBAC does not allow to create events.events.k8s.io: ";
    assert!(lines.len() == 1 && lines[0].contains(words), "{log}");
    assert!(lines[0].contains("bind a ClusterRole with create and patch on it"), "{log}");
    let connection = &world.node.status()["agent"]["connection"];
    assert_eq!((&connection["connected"], &connection["errors"]), (&json!(true), &json!(0)));
    world.until_problems(4).await;
    assert_eq!(world.events(), [json!(null); 0]);
}
