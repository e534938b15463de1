//! What a person must mend: one line says it, the tables stay as they are, also over a restart of the agent, and it
//! goes on by itself when it is mended.

use serde_json::json;
use weir_tests::apiserver::{ADMIN_TOKEN, ApiServer, Contents, Rule, Validity};

use super::node::{Node, Table, put, put_api_service};

const TOKEN: &str = "of-weir";
const BOTH: &[&str] = &["list", "watch"];

/// A server with a few Services, and an agent for which they are in force.
struct World {
    server: ApiServer,
    node: Node,
    table: Table,
}

impl World {
    async fn new() -> Self {
        let server = ApiServer::start().await.unwrap();
        let (mut node, mut table) = (Node::new(), Table::new());
        put_api_service(&server, &mut table);
        for number in 0..5 {
            put(&server, &mut table, number, 3);
        }
        server.grant(TOKEN, "weir", vec![Rule::new(&["*"], BOTH)]);
        node.set_kubeconfig(&server.kubeconfig_of(TOKEN));
        node.start();
        node.until_ready().await;
        node.until_table(&table).await;
        // The disk takes its time; a new agent is to know as much as this one.
        node.until_remembered().await;
        Self { server, node, table }
    }

    /// From here on no connection reaches the server, and nothing that changes there gets out.
    async fn disconnect(&self) {
        self.server.refuse_connections().await;
        self.server.drop_connections();
        self.server.until(|server| server.counts().connections_open == 0).await;
    }

    /// The server can be reached again.
    async fn connect(&self, validity: Validity) {
        self.server.accept_connections(validity).await.unwrap();
    }

    /// There is trouble now: it is said with these words, once, by the agent that runs and by a new one; and what was
    /// in force is, although the cluster changed.
    async fn says(&mut self, words: &str) {
        self.node.until_error(words).await;
        assert_eq!(self.node.table(), self.table, "{words}");
        self.node.kill();
        self.node.start();
        self.node.until_error(words).await;
        // Some attempts later it is still the only line.
        let errors = |status: &serde_json::Value| status["agent"]["connection"]["errors"].as_u64() > Some(5);
        self.node.until("attempts", errors).await;
        assert_eq!(self.node.table(), self.table, "{words}");
        assert_eq!(self.node.status()["hooks"].as_array().unwrap().len() as u64, self.hooks(), "{words}");
        let log = self.node.log();
        let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN API server ")).collect();
        assert!(warnings.len() == 1 && warnings[0].contains(words), "{words}: {log}");
    }

    fn hooks(&self) -> u64 {
        self.node.status()["hooks_expected"].as_u64().unwrap()
    }

    /// A change that the agent cannot hear of yet, and must know when the trouble is over.
    fn change(&self) -> Table {
        let mut table = self.table.clone();
        put(&self.server, &mut table, 1, 1);
        put(&self.server, &mut table, 7, 2);
        self.server.delete("Service", "ns-3", "service-3").unwrap();
        table.remove("ns-3/service-3");
        table
    }

    async fn is_mended(&self, table: &Table) {
        self.node.until_ready().await;
        self.node.until_table(table).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_that_were_taken_away() {
    let mut world = World::new().await;
    world.disconnect().await;
    world.server.grant(
        TOKEN,
        "weir",
        vec![Rule::new(&["services", "nodes", "pods", "networkpolicies"], BOTH)],
    );
    // Of the kind that the agent may not watch; the others go on.
    let mut table = world.table.clone();
    put(&world.server, &mut table, 1, 1);
    world.connect(Validity::Valid).await;
    world.says("RBAC does not allow to watch endpointslices.discovery.k8s.io: bind a ClusterRole").await;
    world.server.grant(TOKEN, "weir", vec![Rule::new(&["*"], BOTH)]);
    world.is_mended(&table).await;
}

/// The agent is newer than its ClusterRole: Services are served, at the start and later, and it is said once what is not
/// known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_from_before_policies() {
    let mut world = World::new().await;
    let before = [Rule::new(&["services", "endpointslices", "nodes"], BOTH)];
    world.server.grant(TOKEN, "weir", before.into());
    world.node.kill();
    let table = world.change();
    world.node.start();
    world.is_mended(&table).await;
    let attempts = |status: &serde_json::Value| status["agent"]["connection"]["errors"].as_u64() > Some(2);
    world.node.until("attempts", attempts).await;
    assert_eq!(world.node.status()["agent"]["connection"]["connected"], true);
    let log = world.node.log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN API server ")).collect();
    for (resource, loss) in [
        ("networkpolicies.networking.k8s.io", "no NetworkPolicy is known: those in force stay as they are"),
        ("pods", "no policy is told this node's pods: those in force stay as they are"),
    ] {
        let says = |line: &&&str| {
            line.contains(&format!("RBAC does not allow to watch {resource}: ")) && line.contains(loss)
        };
        assert_eq!(warnings.iter().filter(says).count(), 1, "{resource}: {log}");
    }
    assert_eq!(warnings.len(), 2, "{log}");
    world.server.grant(TOKEN, "weir", vec![Rule::new(&["*"], BOTH)]);
    let well = |status: &serde_json::Value| status["agent"]["connection"]["error"] == "";
    world.node.until("no error", well).await;
}

/// What policies ask for does not come: Services do not wait for it for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_slow_about_namespaces() {
    let mut world = World::new().await;
    let metadata = |name: &str| json!({"namespace": "ns-1", "name": name});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata("pod"), "spec": {"nodeName": "node-a"},
        "status": {"podIP": "10.1.0.1"}});
    let rules = json!([{"from": [{"namespaceSelector": {"matchLabels": {"team": "red"}}}]}]);
    let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata("policy"),
        "spec": {"podSelector": {}, "ingress": rules}});
    world.server.put(&pod).unwrap();
    world.server.put(&policy).unwrap();
    world.node.until("the pod", |status| status["agent"]["objects"]["pods"] == 1).await;
    world.server.faults(|faults| faults.silent_about = Some("/namespaces".into()));
    world.node.kill();
    let table = world.change();
    world.node.start();
    world.is_mended(&table).await;
    let log = world.node.log();
    assert!(
        log.contains("what NetworkPolicies ask for is still to come: Services are served without it"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_expired() {
    let mut world = World::new().await;
    world.disconnect().await;
    world.server.revoke(TOKEN);
    let table = world.change();
    world.connect(Validity::Valid).await;
    world.says("does not accept our credentials (401): Unauthorized; renew the token").await;
    // It is read again from the file.
    world.node.set_kubeconfig(&world.server.kubeconfig_of(ADMIN_TOKEN));
    world.is_mended(&table).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_authority() {
    let mut world = World::new().await;
    world.disconnect().await;
    let table = world.change();
    world.server.restart_with_new_authority().await.unwrap();
    world.says("its certificate is not signed by the cluster's CA: check").await;
    world.node.set_kubeconfig(&world.server.kubeconfig_of(TOKEN));
    world.is_mended(&table).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_expired() {
    let mut world = World::new().await;
    let table = certificate(&mut world, Validity::Expired, "its certificate ended on Sat, 01 Jan 2000").await;
    world.is_mended(&table).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_behind() {
    let mut world = World::new().await;
    let words = "its certificate begins on Wed, 01 Jan 3000 00:00:00 GMT: set the clock";
    let table = certificate(&mut world, Validity::NotYet, words).await;
    world.is_mended(&table).await;
}

/// The server has such a certificate until the agent said so.
async fn certificate(world: &mut World, validity: Validity, words: &str) -> Table {
    world.disconnect().await;
    let table = world.change();
    world.connect(validity).await;
    world.says(words).await;
    world.connect(Validity::Valid).await;
    table
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away() {
    let mut world = World::new().await;
    world.disconnect().await;
    let table = world.change();
    world.says("not reachable (Connection refused (os error 111)): check that it runs").await;
    world.connect(Validity::Valid).await;
    world.is_mended(&table).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lost_its_data() {
    let mut world = World::new().await;
    world.server.restart(Contents::Empty).await.unwrap();
    world.says("it lost its data; restore it").await;
    // It makes its own Service anew, as it does at its start: another cluster, which a new agent follows.
    let mut other = Table::new();
    put_api_service(&world.server, &mut other);
    put(&world.server, &mut other, 9, 4);
    world.is_mended(&other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_of_another_cluster() {
    let world = World::new().await;
    world.server.restart(Contents::Empty).await.unwrap();
    let mut other = Table::new();
    put_api_service(&world.server, &mut other);
    put(&world.server, &mut other, 9, 4);
    let World { server: _server, mut node, table } = world;
    node.until_error("is another cluster's").await;
    assert_eq!(node.table(), table);
    let log = node.log();
    assert!(log.contains("if that is meant, restart the agent; what is known stays in force"), "{log}");
    // That is what it takes.
    node.kill();
    node.start();
    node.until_ready().await;
    node.until_table(&other).await;
    assert!(node.log().contains("another cluster than the last time: following it"), "{}", node.log());
}
