//! Several addresses: which are tried, and what is remembered.

use serde_json::json;
use weir_tests::apiserver::ADMIN_TOKEN;

use super::world::{Watcher, World};

/// A port that nobody listens on.
fn dead_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("https://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn the_next_address_where_one_is_dead() {
    let world = World::new().await;
    let mut options = world.options();
    options.api_servers = vec![dead_address(), dead_address()];
    let mut watcher = Watcher::start(options);
    watcher.until_true(&world.server).await;
    watcher.until_connected().await;
    assert_eq!(watcher.connection().server, world.server.url());
}

#[tokio::test]
async fn the_addresses_of_the_api_servers_survive_a_restart() {
    let world = World::new().await;
    let address = world.server.address();
    world
        .server
        .put(&json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"namespace": "default", "name": "kubernetes",
                "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": "IPv4", "ports": [{"name": "https", "port": address.port()}],
            "endpoints": [{"addresses": ["127.0.0.1"]}]}))
        .unwrap();
    // A loopback address is no endpoint's; so this one is remembered by hand, as the file has it.
    let state = world.dir.path().join("state");
    let account = world.dir.path().join("account");
    std::fs::create_dir_all(&account).unwrap();
    std::fs::write(account.join("token"), ADMIN_TOKEN).unwrap();
    std::fs::write(account.join("ca.crt"), world.server.ca_pem()).unwrap();
    std::fs::create_dir_all(&state).unwrap();
    std::fs::write(state.join("cluster.json"), json!({"servers": [world.server.url()]}).to_string()).unwrap();

    let mut options = world.options();
    options.kubeconfig = None;
    options.service_address = Some(dead_address());
    assert!(options.is_in_cluster());
    let mut watcher = Watcher::start(options);
    watcher.until_true(&world.server).await;
    assert_eq!(watcher.connection().server, world.server.url());
}

#[tokio::test]
async fn where_the_api_servers_are_is_written_down() {
    let world = World::new().await;
    let endpoints = |ips: &[&str]| {
        let endpoints: Vec<_> = ips.iter().map(|ip| json!({"addresses": [ip]})).collect();
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"namespace": "default", "name": "kubernetes",
                "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": "IPv4", "ports": [{"name": "https", "port": 6443}], "endpoints": endpoints})
    };
    world.server.put(&endpoints(&["10.0.0.2", "10.0.0.1"])).unwrap();
    let mut watcher = world.watch().await;
    let file = world.dir.path().join("state/cluster.json");
    let saved = |words: &'static [&'static str]| {
        let file = file.clone();
        move |_: &Watcher| {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            words.iter().all(|word| text.contains(word))
        }
    };
    watcher.until("saved", saved(&["https://10.0.0.1:6443", "https://10.0.0.2:6443"])).await;
    world.server.put(&endpoints(&["10.0.0.3"])).unwrap();
    watcher.until("saved again", saved(&["https://10.0.0.3:6443"])).await;
    assert!(!std::fs::read_to_string(&file).unwrap().contains("10.0.0.1"));
    // No server at all is no place to begin at.
    world.server.put(&endpoints(&[])).unwrap();
    watcher.until_true(&world.server).await;
    watcher.until("still there", saved(&["https://10.0.0.3:6443"])).await;
}
