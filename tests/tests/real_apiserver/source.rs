//! The Kubernetes source: what it tells, put together, is what the real server holds, also after that was killed, has
//! forgotten what the source knew, or lost everything.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tempfile::TempDir;
use weir_tests::apiserver::{ADMIN_TOKEN, Assets, RealServer};

use super::client::Client;
use super::world::{NODE, Objects, Watcher, namespace, node, options_in, pod, policy, service, slice};
use super::{admin, trial};

/// The kinds that a source watches.
const KINDS: [&str; 6] = ["Service", "EndpointSlice", "Node", "Pod", "Namespace", "NetworkPolicy"];

const SERVICES: &str = "/api/v1/namespaces/shop/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";

/// All of them.
pub(crate) fn trials(assets: Option<&Assets>) -> Vec<Trial> {
    vec![
        trial("lists_and_changes", assets, |assets| async move { lists_and_changes(&assets).await }),
        trial("killed_and_back", assets, |assets| async move { killed_and_back(&assets).await }),
        trial("changes_meanwhile", assets, |assets| async move { changes_meanwhile(&assets).await }),
        trial("lost_data", assets, |assets| async move { lost_data(&assets).await }),
        trial("rights", assets, |assets| async move { rights(&assets).await }),
        trial("policies", assets, |assets| async move { policies(&assets).await }),
    ]
}

/// A server with a node and a namespace, a source's place for files, and whoever may write.
struct World {
    server: RealServer,
    dir: TempDir,
    admin: Client,
}

impl World {
    async fn new(assets: &Assets) -> Self {
        let server = RealServer::start(assets).await.unwrap();
        let admin = admin(&server);
        let world = Self { server, dir: tempfile::tempdir().unwrap(), admin };
        world.fill().await;
        world
    }

    async fn fill(&self) {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
        create(&self.admin, "/api/v1/namespaces", &namespace).await;
        create(&self.admin, "/api/v1/nodes", &node(NODE, "zone-1")).await;
        create(&self.admin, "/api/v1/nodes", &node("node-b", "zone-2")).await;
    }

    async fn watch(&self) -> Watcher {
        let options = options_in(self.dir.path(), &self.server.kubeconfig_of(ADMIN_TOKEN));
        let mut watcher = Watcher::start(options);
        self.until_true(&mut watcher).await;
        watcher.until_connected().await;
        watcher
    }

    async fn until_true(&self, watcher: &mut Watcher) {
        let truth = truth(&self.admin).await;
        watcher.until_told(|demand| Objects::of_lists(|kind| truth[kind].clone(), demand)).await;
    }
}

async fn lists_and_changes(assets: &Assets) {
    let world = World::new(assets).await;
    for number in 0..600 {
        put(&world.admin, number, 2).await;
    }
    let mut watcher = world.watch().await;
    // With the server's own.
    assert_eq!(watcher.told.services.len(), 601);
    assert_eq!(watcher.told.nodes.len(), 1, "this node only");
    let patch = json!({"spec": {"ports": [{"name": "web", "port": 8081}]}});
    world.admin.send("PATCH", &format!("{SERVICES}/svc-3"), Some(&patch)).await.expect(200);
    let patch = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "zone-9"}}});
    world.admin.send("PATCH", &format!("/api/v1/nodes/{NODE}"), Some(&patch)).await.expect(200);
    delete(&world.admin, 5).await;
    put(&world.admin, 700, 9).await;
    world.until_true(&mut watcher).await;
    assert_eq!(watcher.removed(), ["EndpointSlice shop/svc-5-1", "Service shop/svc-5"]);
    assert_eq!((watcher.synced, watcher.connection().lists), (1, 5));
    watcher.stop().await;
}

async fn killed_and_back(assets: &Assets) {
    let mut world = World::new(assets).await;
    put(&world.admin, 1, 3).await;
    let mut watcher = world.watch().await;
    world.server.kill();
    watcher.until_error("not reachable").await;
    assert_eq!(watcher.removed(), [""; 0]);
    world.server.revive().await.unwrap();
    watcher.until_connected().await;
    put(&world.admin, 2, 3).await;
    world.until_true(&mut watcher).await;
    assert_eq!(watcher.removed(), [""; 0]);
    assert_eq!(watcher.synced, 1);
}

/// A server that comes back knows nothing of what was before it (410): what went meanwhile is found by listing.
async fn changes_meanwhile(assets: &Assets) {
    let mut world = World::new(assets).await;
    for number in 1..=3 {
        put(&world.admin, number, 1).await;
    }
    let mut watcher = world.watch().await;
    let lists = watcher.connection().lists;
    world.server.kill();
    watcher.until_error("not reachable").await;
    let other = world.admin.clone();
    let change = |address: SocketAddr| async move {
        let beside = Client { address, ..other };
        delete(&beside, 2).await;
        put(&beside, 4, 5).await;
    };
    world.server.beside(change).await.unwrap();
    world.server.revive().await.unwrap();
    world.until_true(&mut watcher).await;
    assert_eq!(watcher.removed(), ["EndpointSlice shop/svc-2-1", "Service shop/svc-2"]);
    assert!(watcher.connection().lists > lists, "nothing was listed again");
}

/// A server on an empty etcd is another cluster, in all good faith: nothing goes. A new agent believes it.
async fn lost_data(assets: &Assets) {
    let mut world = World::new(assets).await;
    put(&world.admin, 1, 3).await;
    let mut watcher = world.watch().await;
    let before = watcher.told.clone();
    world.server.lose_data().await.unwrap();
    world.fill().await;
    watcher.until_error("another cluster's").await;
    watcher.drain().await;
    assert_eq!(watcher.told, before);
    assert_eq!(watcher.removed(), [""; 0]);
    watcher.stop().await;
    let mut next = world.watch().await;
    assert_eq!(next.told.services.len(), 1, "the server's own");
    put(&world.admin, 8, 1).await;
    world.until_true(&mut next).await;
}

/// Of pods elsewhere and namespaces what policies ask for, while they do; also over a server that forgot all versions.
async fn policies(assets: &Assets) {
    let mut world = World::new(assets).await;
    create(&world.admin, "/api/v1/namespaces", &namespace("bank", "red")).await;
    for (at, name, at_node, app, number) in [
        ("shop", "here", NODE, "web", 1),
        ("shop", "there", "node-b", "db", 2),
        ("bank", "there", "node-b", "db", 3),
        ("bank", "ended", "node-b", "db", 4),
    ] {
        put_pod(&world.admin, &pod(at, name, at_node, app, number)).await;
    }
    let phase = json!({"status": {"phase": "Succeeded"}});
    let status = "/api/v1/namespaces/bank/pods/ended/status";
    world.admin.send("PATCH", status, Some(&phase)).await.expect(200);
    let mut watcher = world.watch().await;
    assert_eq!((watcher.told.pods.len(), watcher.told.namespaces.len()), (1, 0));

    let path = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies";
    let own = json!({"podSelector": {}});
    create(&world.admin, path, &policy("shop", "p", "web", std::slice::from_ref(&own))).await;
    watcher.until("its own namespace", |watcher| watcher.told.pods.len() == 2).await;
    let red = json!({"namespaceSelector": {"matchLabels": {"team": "red"}}});
    world
        .admin
        .send("PATCH", &format!("{path}/p"), Some(&policy("shop", "p", "web", &[own, red])))
        .await
        .expect(200);
    watcher.until("red namespaces", |watcher| watcher.told.pods.len() == 3).await;
    world.until_true(&mut watcher).await;
    assert_eq!(watcher.removed(), [""; 0]);

    world.server.kill();
    watcher.until_error("not reachable").await;
    world.server.revive().await.unwrap();
    let all = json!({"namespaceSelector": {}});
    world
        .admin
        .send("PATCH", &format!("{path}/p"), Some(&policy("shop", "p", "web", &[all])))
        .await
        .expect(200);
    let gone = "/api/v1/namespaces/shop/pods/there?gracePeriodSeconds=0";
    world.admin.send("DELETE", gone, None).await.expect(200);
    watcher.until("all", |watcher| watcher.told.pods.len() == 2).await;
    world.until_true(&mut watcher).await;
    assert_eq!(watcher.removed(), ["Pod shop/there"]);
    world.admin.send("DELETE", &format!("{path}/p"), None).await.expect(200);
    watcher.until("nobody else", |watcher| watcher.told.pods.len() == 1).await;
    watcher.until_connected().await;
}

/// A pod, and then its status, which has a path of its own.
async fn put_pod(client: &Client, object: &Value) {
    let path = format!("/api/v1/namespaces/{}/pods", object["metadata"]["namespace"].as_str().unwrap());
    create(client, &path, object).await;
    let path = format!("{path}/{}/status", object["metadata"]["name"].as_str().unwrap());
    client.send("PATCH", &path, Some(&json!({"status": object["status"]}))).await.expect(200);
}

/// The rights that deploy/base grants are enough; without them one line says which is missing.
async fn rights(assets: &Assets) {
    const TOKEN: &str = "of-weir";
    let mut world = World::new(assets).await;
    put(&world.admin, 1, 1).await;
    world.server.add_user(TOKEN, "weir").unwrap();
    let kubeconfig = world.server.kubeconfig_of(TOKEN);
    let mut watcher = Watcher::start(options_in(world.dir.path(), &kubeconfig));
    // The users are read at the server's start.
    watcher.until_error("does not accept our credentials (401)").await;
    world.server.revive().await.unwrap();
    watcher.until_error("RBAC does not allow to watch endpointslices.discovery.k8s.io: bind ").await;
    for mut object in deployed_rights() {
        if let Some(subjects) = object.get_mut("subjects") {
            *subjects = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "weir"}]);
        }
        let plural = format!("{}s", object["kind"].as_str().unwrap().to_lowercase());
        create(&world.admin, &format!("/apis/rbac.authorization.k8s.io/v1/{plural}"), &object).await;
    }
    world.until_true(&mut watcher).await;
    watcher.until_connected().await;
}

/// The role and its binding, as they are applied to clusters.
fn deployed_rights() -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/base/rbac.yaml");
    let text = std::fs::read_to_string(file).unwrap();
    let objects = weir_tests::deploy::kustomize::parse_documents(&text).unwrap();
    let objects: Vec<_> = objects.into_iter().filter(|object| object["kind"] != "ServiceAccount").collect();
    assert_eq!(objects.len(), 2);
    objects
}

async fn put(client: &Client, number: usize, endpoints: usize) {
    create(client, SERVICES, &service(number, 80)).await;
    create(client, SLICES, &slice(number, endpoints)).await;
}

async fn delete(client: &Client, number: usize) {
    client.send("DELETE", &format!("{SERVICES}/svc-{number}"), None).await.expect(200);
    client.send("DELETE", &format!("{SLICES}/svc-{number}-1"), None).await.expect(200);
}

async fn create(client: &Client, path: &str, object: &Value) {
    client.send("POST", path, Some(object)).await.expect(201);
}

/// What the server holds, by kind.
async fn truth(client: &Client) -> HashMap<&'static str, Vec<Value>> {
    let mut truth = HashMap::new();
    for kind in KINDS {
        let path = match kind {
            "EndpointSlice" => "/apis/discovery.k8s.io/v1/endpointslices".into(),
            "NetworkPolicy" => "/apis/networking.k8s.io/v1/networkpolicies".into(),
            kind => format!("/api/v1/{}s", kind.to_lowercase()),
        };
        let list = client.get(&path).await.expect(200);
        truth.insert(kind, list["items"].as_array().unwrap().clone());
    }
    truth
}
