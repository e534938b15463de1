//! A node that is about to go says so to load balancers, and that it is alive all the same (KEP-3836).

use serde_json::{Value, json};
use weir_tests::apiserver::ApiServer;

use super::node::{Node, Table, put_api_service};

fn node(spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-a"}, "spec": spec})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_the_autoscaler_removes_takes_no_new_connections() {
    let server = ApiServer::start().await.unwrap();
    put_api_service(&server, &mut Table::new());
    server.put(&node(&json!({"podCIDR": "10.1.0.0/24"}))).unwrap();
    let mut agent = Node::new();
    agent.set_kubeconfig(&server.kubeconfig());
    agent.start();
    agent.until_ready().await;
    agent.until_health("/healthz", 200, "\"nodeEligible\": true").await;

    let taint = json!({"key": "ToBeDeletedByClusterAutoscaler", "value": "1", "effect": "NoSchedule"});
    server.put(&node(&json!({"taints": [taint]}))).unwrap();
    agent.until_health("/healthz", 503, "\"nodeEligible\": false").await;
    agent.until_health("/livez", 200, "").await;

    // The autoscaler thought better of it.
    server.put(&node(&json!({"taints": []}))).unwrap();
    agent.until_health("/healthz", 200, "\"nodeEligible\": true").await;
}
