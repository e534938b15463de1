//! A large cluster: all of it is in the tables, and what the agent takes for it.

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

/// With the pages of the program that were read, and of the table that it writes through a mapping.
fn print_memory(node: &Node, when: &str) {
    for (name, line) in
        [("agent-rss-mib", "VmRSS"), ("agent-peak-rss-mib", "VmHWM"), ("agent-heap-mib", "RssAnon")]
    {
        println!("figure {name}@10000x10{when} {}", node.memory_kib(line).div_ceil(1024));
    }
}
