//! A large cluster: all of it is in the tables, and what the agent takes for it.

use serde_json::{Value, json};
use weir_tests::apiserver::ApiServer;

use super::node::{Node, Table, put, put_api_service};

const SERVICES: usize = 10_000;
const ENDPOINTS: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_services_of_ten_endpoints() {
    let server = ApiServer::start().await.unwrap();
    let mut table = Table::new();
    put_api_service(&server, &mut table);
    for number in 0..SERVICES {
        put(&server, &mut table, number, ENDPOINTS);
    }
    let mut node = Node::new();
    node.set_kubeconfig(&server.kubeconfig());
    node.start();
    node.until_ready().await;
    // Not with assert_eq: nobody reads two tables of this size.
    assert!(node.table() == table, "{}", node.log());
    assert_eq!(node.status()["problems"], serde_json::json!([]));
    print_memory(&node, "");

    // Everything once more, as after a long time away: it is compared with what is known, not kept twice.
    server.refuse_connections().await;
    server.drop_connections();
    put(&server, &mut table, SERVICES, ENDPOINTS);
    server.compact();
    server.heal().await.unwrap();
    node.until_table(&table).await;
    print_memory(&node, "-relisted");
}

/// Pods of other nodes that a policy asks for: so many at first, which fill what the start left free of the heap; then more,
/// of which each is counted.
const FIRST_PODS: usize = 5_000;
const MORE_PODS: usize = 20_000;

/// What the heap may grow by for each of them, in bytes.
const PER_POD: u64 = 1_500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pods_of_other_nodes() {
    let server = ApiServer::start().await.unwrap();
    put_api_service(&server, &mut Table::new());
    let put = |number: usize| {
        server.put(&pod(number, &format!("node-{}", 1 + number % 300))).unwrap();
    };
    let last = FIRST_PODS + MORE_PODS;
    (0..FIRST_PODS).for_each(put);
    server.put(&pod(last, "node-a")).unwrap();
    let rules =
        json!([{"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "app-1"}}}]}]);
    let mut policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": pod(last, "")["metadata"]["namespace"], "name": "p"},
        "spec": {"podSelector": {}, "ingress": rules}});
    server.put(&policy).unwrap();
    let mut node = Node::new();
    node.set_kubeconfig(&server.kubeconfig());
    node.start();
    node.until_ready().await;
    let pods = |count: usize| {
        move |status: &Value| status["agent"]["objects"]["pods"].as_u64() == Some(count as u64)
    };
    node.until("the first pods", pods(FIRST_PODS + 1)).await;
    let before = node.memory_kib("RssAnon");
    (FIRST_PODS..last).for_each(put);
    node.until("all pods", pods(last + 1)).await;
    let bytes = |kib: u64| kib.saturating_sub(before) * 1024 / MORE_PODS as u64;
    let grown = bytes(node.memory_kib("RssAnon"));
    println!("figure agent-bytes-per-pod {grown}");
    assert!(grown < PER_POD, "{grown} bytes for each pod");

    // No longer asked for; and again: nothing is kept twice.
    policy["spec"]["ingress"] = json!([]);
    server.put(&policy).unwrap();
    node.until("its own pod alone", pods(1)).await;
    policy["spec"]["ingress"] = rules;
    server.put(&policy).unwrap();
    node.until("all pods again", pods(last + 1)).await;
    let again = bytes(node.memory_kib("RssAnon"));
    println!("figure agent-bytes-per-pod@again {again}");
    assert!(again < PER_POD, "{again} bytes for each pod");
}

/// With what a real one has besides: it costs what it costs.
fn pod(number: usize, node: &str) -> Value {
    let app = number / 10;
    let (namespace, name, hash) =
        (format!("team-{}", app % 100), format!("app-{app}"), format!("{:08x}", app * 7919));
    let ip = format!("10.{}.{}.{}", 1 + number / 62_500, number / 250 % 250, 1 + number % 250);
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": format!("{name}-{hash}-{number:05x}"),
            "labels": {"app": name, "app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "shop",
                "tier": "backend", "pod-template-hash": hash},
            "managedFields": [{"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:status": {}}}]},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "registry.example/app:1",
            "env": [{"name": "A", "value": "B"}], "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}, {"ip": format!("fd00::1:{number:x}")}],
            "conditions": [{"type": "Ready", "status": "True"}]}})
}

/// With the pages of the program that were read, and of the table that it writes through a mapping.
fn print_memory(node: &Node, when: &str) {
    for (name, line) in
        [("agent-rss-mib", "VmRSS"), ("agent-peak-rss-mib", "VmHWM"), ("agent-heap-mib", "RssAnon")]
    {
        println!("figure {name}@10000x10{when} {}", node.memory_kib(line).div_ceil(1024));
    }
}
