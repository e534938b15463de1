//! ClusterNetworkPolicies: a server may have them or not, and come to have them; and what they ask for.

use std::time::Duration;

use serde_json::{Value, json};
use weir_agent::source::{NamespaceDemand, ObjectRef, PolicySync, Problem, Reason};
use weir_agent::state::Selected;
use weir_tests::apiserver::{ApiServer, Resource, Rule};

use super::world::{NODE, Watcher, World, namespace, pod};

const TOKEN: &str = "of-weir";
const BOTH: &[&str] = &["list", "watch"];
const PATH: &str = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies";

/// One that denies pods of a team what is no pod.
fn deny(name: &str, team: &str) -> Value {
    json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": name},
        "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {"matchLabels": {"team": team}}},
            "egress": [{"action": "Deny", "to": [{"networks": ["0.0.0.0/0", "::/0"]}]}]}})
}

/// A pod here, in the namespace of a team.
async fn world() -> World {
    let world = World::new().await;
    world.server.put(&namespace("shop", "red")).unwrap();
    world.server.put(&namespace("bank", "green")).unwrap();
    world.server.put(&pod("shop", "web", NODE, "web", 1)).unwrap();
    world
}

fn asked(server: &ApiServer) -> usize {
    server.requests().iter().filter(|seen| seen.path == PATH).count()
}

/// How many of them are, or may be, for the pod here.
fn selecting(watcher: &Watcher) -> Vec<Selected> {
    let view = watcher.state.policy().owner("10.1.0.2".parse().unwrap()).unwrap();
    watcher.state.policy().cluster_policies(&view).into_iter().map(|one| one.selected).collect()
}

#[tokio::test]
async fn a_server_without_them_is_asked_now_and_then_and_is_in_order() {
    let world = world().await;
    let mut options = world.options();
    options.rediscover = Duration::from_millis(50);
    let mut watcher = Watcher::start(options);
    watcher.until_true(&world.server).await;
    watcher.until_connected().await;
    assert!(matches!(watcher.state.policy().sync(), Some(PolicySync::Told(_))));
    assert_eq!((watcher.connection().errors, watcher.connection().error.as_str()), (0, ""));
    let seen = world.server.requests().len();
    world.server.until(|server| server.requests().len() >= seen + 5).await;
    assert_eq!((asked(&world.server), watcher.connection().errors), (0, 0), "only whether there are any");

    // It comes to have them.
    world.server.register(Resource::cluster_network_policies());
    world.server.put(&deny("p", "red")).unwrap();
    watcher.until("a policy", |watcher| watcher.told.cluster_policies.len() == 1).await;
    watcher.until_true(&world.server).await;
    assert_eq!(selecting(&watcher), [Selected::Yes]);
    world.server.put(&deny("p", "green")).unwrap();
    watcher.until("changed", |watcher| selecting(watcher).is_empty()).await;

    // And has them no more.
    world.server.put(&deny("q", "red")).unwrap();
    watcher.until_true(&world.server).await;
    watcher.removed();
    world.server.withdraw("ClusterNetworkPolicy").unwrap();
    watcher.until("none", |watcher| watcher.told.cluster_policies.is_empty()).await;
    assert_eq!(watcher.removed(), ["ClusterNetworkPolicy p", "ClusterNetworkPolicy q"]);
    watcher.until_connected().await;
    watcher.until("no error", |watcher| watcher.connection().error.is_empty()).await;

    world.server.register(Resource::cluster_network_policies());
    world.server.put(&deny("r", "red")).unwrap();
    watcher.until_true(&world.server).await;
    assert_eq!(watcher.told.cluster_policies.len(), 1);
}

#[tokio::test]
async fn whom_they_are_for_is_asked_for() {
    let world = world().await;
    world.server.register(Resource::cluster_network_policies());
    let mut watcher = world.watch().await;
    assert_eq!(watcher.state.policy().demand().namespaces, NamespaceDemand::default());
    world.server.put(&deny("p", "red")).unwrap();
    watcher.until("its namespace", |watcher| watcher.told.namespaces.len() == 1).await;
    watcher.until_true(&world.server).await;
    assert_eq!(watcher.state.policy().demand().namespaces, NamespaceDemand::Of(["shop".into()].into()));
    assert_eq!(selecting(&watcher), [Selected::Yes]);
    // Only of namespaces that pods of this node are in.
    world.server.put(&pod("bank", "db", NODE, "db", 2)).unwrap();
    watcher.until("another", |watcher| watcher.told.namespaces.len() == 2).await;
    world.server.put(&namespace("shop", "green")).unwrap();
    watcher.until("another team", |watcher| selecting(watcher).is_empty()).await;
    world.server.delete("ClusterNetworkPolicy", "", "p").unwrap();
    watcher.until("nobody asks", |watcher| watcher.told.namespaces.is_empty()).await;
    watcher.until_true(&world.server).await;
}

/// A ClusterRole from before there were such policies: NetworkPolicies go on, and one line says what is missing. Where the
/// server has none, nothing is missing.
#[tokio::test]
async fn rights_that_are_missing() {
    let world = world().await;
    let base = ["services", "endpointslices", "nodes", "networkpolicies", "pods", "namespaces"];
    world.server.grant(TOKEN, "weir", vec![Rule::new(&base, BOTH)]);
    let options = || world.options_with(&world.server.kubeconfig_of(TOKEN));
    let mut watcher = Watcher::start(options());
    watcher.until("complete", |watcher| watcher.state.is_complete()).await;
    watcher.until("no error", |watcher| watcher.connection().error.is_empty()).await;
    watcher.stop().await;

    world.server.register(Resource::cluster_network_policies());
    world.server.put(&deny("p", "red")).unwrap();
    let mut watcher = Watcher::start(options());
    watcher.until("complete", |watcher| watcher.state.is_complete()).await;
    assert!(matches!(watcher.state.policy().sync(), Some(PolicySync::Told(_))));
    watcher.until_error("clusternetworkpolicies.policy.networking.k8s.io").await;
    assert!(watcher.connection().connected);
    assert_eq!(watcher.told.cluster_policies.len(), 0);
    world.server.grant(TOKEN, "weir", vec![Rule::new(&["*"], BOTH)]);
    watcher.until("a policy", |watcher| watcher.told.cluster_policies.len() == 1).await;

    // A right that is taken away takes nothing along.
    world.server.grant(TOKEN, "weir", vec![Rule::new(&base, BOTH)]);
    world.server.drop_connections();
    watcher.until_error("clusternetworkpolicies.policy.networking.k8s.io").await;
    assert_eq!(watcher.told.cluster_policies.len(), 1);
}

/// Without the right to namespaces nobody knows whom it is for: it may be for everybody.
#[tokio::test]
async fn namespaces_that_are_refused() {
    let world = world().await;
    world.server.register(Resource::cluster_network_policies());
    world.server.put(&deny("p", "green")).unwrap();
    let base = ["services", "endpointslices", "nodes", "networkpolicies", "pods", "clusternetworkpolicies"];
    world.server.grant(TOKEN, "weir", vec![Rule::new(&base, BOTH)]);
    let mut watcher = Watcher::start(world.options_with(&world.server.kubeconfig_of(TOKEN)));
    watcher.until("complete", |watcher| watcher.state.is_complete()).await;
    watcher.until_error("RBAC does not allow to").await;
    assert_eq!(selecting(&watcher), [Selected::Perhaps]);
    world.server.grant(TOKEN, "weir", vec![Rule::new(&["*"], BOTH)]);
    watcher.until("told", |watcher| selecting(watcher).is_empty()).await;
}

#[tokio::test]
async fn what_is_wrong_is_told_at_the_object() {
    let world = world().await;
    world.server.register(Resource::cluster_network_policies());
    let mut wrong = deny("p", "red");
    wrong["spec"]["egress"][0]["action"] = "Log".into();
    world.server.put(&wrong).unwrap();
    let mut watcher = world.watch().await;
    let object = ObjectRef { kind: "ClusterNetworkPolicy", namespace: "".into(), name: "p".into() };
    let [problem]: &[Problem] = &watcher.problems[&object] else { panic!("{:?}", watcher.problems) };
    assert_eq!(problem.field, "spec.egress[0].action");
    watcher.announcer.announce(&object, Reason::InvalidField, problem);
    watcher.until("sent", |watcher| watcher.connection().events_sent == 1).await;
    let [event] = &world.server.truth("Event")[..] else { panic!("no Event") };
    // Kubernetes wants it there of what is in no namespace.
    assert_eq!(event["metadata"]["namespace"], "default");
    let uid = &world.server.truth("ClusterNetworkPolicy")[0]["metadata"]["uid"];
    assert_eq!(
        event["regarding"],
        json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "name": "p", "uid": uid})
    );
}

#[tokio::test]
async fn annotations_of_a_namespace_hold_for_its_policies() {
    let world = world().await;
    let policy = super::world::policy("shop", "p", "web", &[]);
    world.server.put(&policy).unwrap();
    let mut watcher = world.watch().await;
    let audited = |watcher: &Watcher| watcher.state.counts().audited;
    assert_eq!(audited(&watcher), 0);
    let mut annotated = namespace("shop", "red");
    annotated["metadata"]["annotations"] =
        json!({"weir.dev/policy-mode": "audit", "kubectl.kubernetes.io/last-applied-configuration": 7});
    world.server.put(&annotated).unwrap();
    watcher.until("audited", |watcher| audited(watcher) == 1).await;
    annotated["metadata"]["annotations"] = json!({"weir.dev/policy-mode": "on"});
    world.server.put(&annotated).unwrap();
    watcher.until("enforced", |watcher| audited(watcher) == 0 && !watcher.problems.is_empty()).await;
    let told: Vec<String> = watcher.problems.values().flatten().map(ToString::to_string).collect();
    let wrong = "metadata.annotations[weir.dev/policy-mode]: \"on\" is none of enforce, audit: its policies are enforced";
    assert_eq!(told, [wrong]);
    let mut own = policy;
    own["metadata"]["annotations"] = json!({"weir.dev/policy-mode": "audit"});
    world.server.put(&own).unwrap();
    watcher.until("audited by itself", |watcher| audited(watcher) == 1).await;
}
