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

/// Pods of other nodes, of which nothing is known before a policy asks for them.
const PODS: usize = 10_000;

/// What the heap may grow by for each of them, in bytes: its name, five labels, two addresses, a named port, once for what
/// is known and once by key for what was told.
const PER_POD: u64 = 2_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_pods_of_other_nodes() {
    let server = ApiServer::start().await.unwrap();
    put_api_service(&server, &mut Table::new());
    let namespaces = 100;
    for number in 0..namespaces {
        let name = format!("team-{number}");
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        server.put(&namespace).unwrap();
    }
    for number in 0..PODS {
        server.put(&pod(number, namespaces, &format!("node-{}", 1 + number % 300))).unwrap();
    }
    server.put(&pod(PODS, namespaces, "node-a")).unwrap();
    let mut node = Node::new();
    node.set_kubeconfig(&server.kubeconfig());
    node.start();
    node.until_ready().await;
    let pods = |count: usize| {
        move |status: &Value| status["agent"]["objects"]["pods"].as_u64() == Some(count as u64)
    };
    node.until("its own pod", pods(1)).await;
    let before = node.memory_kib("RssAnon");

    let rules =
        json!([{"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "app-1"}}}]}]);
    let mut policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "team-0", "name": "p"}, "spec": {"podSelector": {}, "ingress": rules}});
    server.put(&policy).unwrap();
    node.until("all pods", pods(PODS + 1)).await;
    let bytes = |kib: u64| kib.saturating_sub(before) * 1024 / PODS as u64;
    let grown = bytes(node.memory_kib("RssAnon"));
    println!("figure agent-bytes-per-pod {grown}");
    assert!(grown < PER_POD, "{grown} bytes for each pod");

    // No longer asked for; and again: it is not kept twice.
    policy["spec"]["ingress"] = json!([]);
    server.put(&policy).unwrap();
    node.until("its own pod alone", pods(1)).await;
    policy["spec"]["ingress"] = rules;
    server.put(&policy).unwrap();
    node.until("all pods again", pods(PODS + 1)).await;
    let again = bytes(node.memory_kib("RssAnon"));
    println!("figure agent-bytes-per-pod@again {again}");
    assert!(again < PER_POD, "{again} bytes for each pod");
}

/// With what a real one has besides: it costs what it costs.
fn pod(number: usize, namespaces: usize, node: &str) -> Value {
    let app = format!("app-{}", number / 10);
    let name = format!("{app}-{:08x}-{:05x}", (number / 10) * 7919, number);
    let (ip, ip6) = (
        format!("10.{}.{}.{}", 1 + number / 62_500, number / 250 % 250, 1 + number % 250),
        format!("fd00::1:{number:x}"),
    );
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": format!("team-{}", number / 10 % namespaces), "name": name,
            "labels": {"app": app, "app.kubernetes.io/name": app, "app.kubernetes.io/part-of": "shop", "tier": "backend",
                "pod-template-hash": format!("{:08x}", (number / 10) * 7919)},
            "managedFields": [{"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:status": {"f:podIP": {}}}}]},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "registry.example/app:1",
            "env": [{"name": "A", "value": "B"}], "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}, {"ip": ip6}],
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
