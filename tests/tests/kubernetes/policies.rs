//! Policies and whom they are about: what is watched while they ask for it, and what is not.

use std::time::Duration;

use serde_json::{Value, json};
use weir_agent::source::{NamespaceDemand, PodDemand, PolicyDemand, PolicySync};
use weir_agent::state::NARROW;
use weir_tests::apiserver::{ApiServer, Contents, Rule, Seen};

use super::world::{NODE, Watcher, World, namespace, pod, policy};

const TOKEN: &str = "of-weir";
const BOTH: &[&str] = &["list", "watch"];

/// Two pods here, and in each of three namespaces two elsewhere; nothing is isolated.
async fn world() -> World {
    let world = World::new().await;
    for (number, name) in ["shop", "bank", "mail"].into_iter().enumerate() {
        world.server.put(&namespace(name, if name == "mail" { "green" } else { "red" })).unwrap();
        world.server.put(&pod(name, "there-1", "node-b", "db", 10 * number + 1)).unwrap();
        world.server.put(&pod(name, "there-2", "node-c", "web", 10 * number + 2)).unwrap();
    }
    world.server.put(&pod("shop", "here-1", NODE, "web", 101)).unwrap();
    world.server.put(&pod("shop", "here-2", NODE, "db", 102)).unwrap();
    world
}

fn own() -> Value {
    json!({"podSelector": {"matchLabels": {"app": "db"}}})
}

fn team(name: &str) -> Value {
    json!({"namespaceSelector": {"matchLabels": {"team": name}}})
}

/// What was asked for beyond what is always asked for: all namespaces, and pods of other nodes; each once, in order.
fn asked(server: &ApiServer) -> Vec<String> {
    let beyond = |seen: &Seen| {
        let fields = seen.parameter("fieldSelector").unwrap_or_default();
        let here = fields.starts_with(&format!("spec.nodeName={NODE},"));
        (seen.path.ends_with("/pods") && !here) || (seen.path == "/api/v1/namespaces" && fields.is_empty())
    };
    let mut asked: Vec<String> = server.requests().into_iter().filter(beyond).map(|seen| seen.path).collect();
    let mut told = std::collections::HashSet::new();
    asked.retain(|path| told.insert(path.clone()));
    asked
}

fn pods(watcher: &Watcher) -> Vec<String> {
    watcher.told.pods.keys().map(ToString::to_string).collect()
}

#[tokio::test]
async fn without_a_policy_nothing_is_asked_about_other_nodes() {
    let world = world().await;
    // Of those that are there, none selects a pod of this node; and one asks for nobody.
    world.server.put(&policy("bank", "other", "db", &[own(), team("red")])).unwrap();
    world.server.put(&policy("shop", "nobody", "cache", &[own(), team("red")])).unwrap();
    world.server.put(&policy("shop", "block", "web", &[json!({"ipBlock": {"cidr": "10.0.0.0/8"}})])).unwrap();
    let mut watcher = world.watch().await;
    assert_eq!(pods(&watcher), ["shop/here-1", "shop/here-2"]);
    // But what is said there of all policies of a namespace in which one does.
    assert_eq!((watcher.told.policies.len(), watcher.told.namespaces.len()), (3, 1));
    assert_eq!(world.server.counts().watches_open, 6);
    world.server.put(&pod("shop", "there-1", "node-b", "cache", 1)).unwrap();
    world.server.put(&pod("shop", "here-2", NODE, "lb", 102)).unwrap();
    watcher.until_true(&world.server).await;
    assert_eq!(asked(&world.server), [""; 0]);
    let requests = world.server.requests();
    let of_pods: Vec<_> = requests.iter().filter(|seen| seen.path.ends_with("/pods")).collect();
    let fields = format!("spec.nodeName={NODE},status.phase!=Succeeded,status.phase!=Failed");
    assert!(!of_pods.is_empty());
    assert!(
        of_pods.iter().all(|seen| seen.parameter("fieldSelector").as_ref() == Some(&fields)),
        "{of_pods:?}"
    );
}

#[tokio::test]
async fn the_demand_grows_and_shrinks() {
    let world = world().await;
    let mut watcher = world.watch().await;
    let here = ["shop/here-1", "shop/here-2"];
    world.server.put(&policy("shop", "p", "web", &[own()])).unwrap();
    watcher.until("its own namespace", |watcher| watcher.told.pods.len() == 4).await;
    watcher.until_true(&world.server).await;
    assert_eq!(asked(&world.server), ["/api/v1/namespaces/shop/pods"]);
    let known: Vec<_> = watcher.told.namespaces.keys().cloned().collect();
    assert_eq!(known, ["shop".into()], "what is said there of all its policies");

    world.server.put(&policy("shop", "p", "web", &[own(), team("red")])).unwrap();
    watcher.until("red namespaces", |watcher| watcher.told.pods.len() == 6).await;
    watcher.until_true(&world.server).await;
    assert_eq!(watcher.told.namespaces.len(), 3);
    let of = |name: &str| format!("/api/v1/namespaces/{name}/pods");
    assert_eq!(asked(&world.server), [of("shop"), "/api/v1/namespaces".into(), of("bank")]);

    // A namespace comes to match, another stops.
    world.server.put(&namespace("mail", "red")).unwrap();
    watcher.until("three namespaces", |watcher| watcher.told.pods.len() == 8).await;
    assert_eq!(watcher.removed(), [""; 0], "nothing flapped");
    world.server.put(&namespace("bank", "green")).unwrap();
    watcher.until("two namespaces", |watcher| watcher.told.pods.len() == 6).await;
    assert_eq!(watcher.removed(), ["Pod bank/there-1", "Pod bank/there-2"]);
    watcher.until_true(&world.server).await;

    // All of them: by one watch, which takes over what the others told.
    world.server.put(&policy("shop", "p", "web", &[own(), json!({"namespaceSelector": {}})])).unwrap();
    watcher.until("everywhere", |watcher| watcher.told.pods.len() == 8).await;
    watcher.until_true(&world.server).await;
    world.server.until(|server| server.counts().watches_open == 7).await;
    assert_eq!(asked(&world.server).last().unwrap(), "/api/v1/pods");
    watcher.drain().await;
    assert_eq!(watcher.removed(), [""; 0], "nothing flapped");

    // And back.
    world.server.put(&policy("shop", "p", "web", &[own()])).unwrap();
    watcher.until("its own namespace again", |watcher| watcher.told.pods.len() == 4).await;
    watcher.until_true(&world.server).await;
    let gone = ["bank", "mail"].map(|name| [1, 2].map(|number| format!("Pod {name}/there-{number}")));
    let namespaces = ["bank", "mail"].map(|name| format!("Namespace {name}"));
    assert_eq!(watcher.removed(), [&namespaces[..], &gone.concat()].concat());
    world.server.until(|server| server.counts().watches_open == 7).await;

    world.server.delete("NetworkPolicy", "shop", "p").unwrap();
    watcher.until("nobody else", |watcher| pods(watcher) == here).await;
    world.server.until(|server| server.counts().watches_open == 5).await;
    watcher.until_connected().await;
}

/// A pod here is replaced: what its policy asks for is not listed anew.
#[tokio::test]
async fn what_is_asked_for_again_soon_was_never_away() {
    let world = world().await;
    world.server.put(&policy("shop", "p", "web", &[own(), team("red")])).unwrap();
    let mut options = world.options();
    options.linger = Duration::from_secs(3);
    let mut watcher = Watcher::start(options);
    watcher.until_true(&world.server).await;
    let (lists, pods) = (watcher.connection().lists, watcher.told.pods.len());
    for _ in 0..3 {
        world.server.delete("Pod", "shop", "here-1").unwrap();
        watcher
            .until("not asked for", |watcher| watcher.state.policy().demand() == PolicyDemand::default())
            .await;
        world.server.put(&pod("shop", "here-1", NODE, "web", 101)).unwrap();
        watcher
            .until("asked for", |watcher| watcher.state.is_complete() && watcher.told.pods.len() == pods)
            .await;
    }
    assert_eq!(watcher.connection().lists, lists);
    assert!(watcher.removed().iter().all(|removed| removed == "Pod shop/here-1"));
    world.server.delete("Pod", "shop", "here-1").unwrap();
    watcher.until("nobody else", |watcher| watcher.told.pods.len() == 1).await;
    world.server.until(|server| server.counts().watches_open == 5).await;
}

#[tokio::test]
async fn names_of_ports_are_everywhere() {
    let world = world().await;
    let mut object = policy("shop", "p", "web", &[]);
    object["spec"] =
        json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": "http"}]}]});
    world.server.put(&object).unwrap();
    let watcher = world.watch().await;
    assert_eq!(asked(&world.server), ["/api/v1/pods"], "what namespaces are like says nothing about it");
    assert_eq!(watcher.told.pods.len(), 8);
}

#[tokio::test]
async fn many_namespaces_are_one_watch() {
    let world = world().await;
    for number in 0..=NARROW {
        world.server.put(&namespace(&format!("ns-{number}"), "blue")).unwrap();
        world.server.put(&pod(&format!("ns-{number}"), "there", "node-b", "web", 200 + number)).unwrap();
    }
    world.server.put(&policy("shop", "p", "web", &[team("blue")])).unwrap();
    let mut watcher = world.watch().await;
    assert_eq!(watcher.state.policy().demand(), PolicyDemand::ALL);
    watcher.until("all", |watcher| watcher.told.pods.len() == 8 + NARROW + 1).await;
    assert_eq!(watcher.removed(), [""; 0]);
    assert!(asked(&world.server).contains(&"/api/v1/pods".to_owned()));
}

#[tokio::test]
async fn pods_come_change_end_and_move() {
    let world = world().await;
    world.server.put(&policy("shop", "p", "web", &[json!({"namespaceSelector": {}})])).unwrap();
    let mut watcher = world.watch().await;
    let has = |name: &'static str, node: &'static str, addresses: usize| {
        move |watcher: &Watcher| {
            let found = watcher.told.pods.iter().find(|(key, _)| *key.name == *name);
            let is = |pod: &weir_agent::source::Pod| {
                pod.node.as_deref() == Some(node) && pod.addresses.len() == addresses
            };
            found.is_some_and(|(_, pod)| is(pod))
        }
    };
    // On no node yet, then on one, then with an address.
    let mut new = pod("bank", "new", "", "web", 50);
    new["spec"].as_object_mut().unwrap().remove("nodeName");
    new["status"] = json!({"phase": "Pending"});
    world.server.put(&new).unwrap();
    watcher.until_true(&world.server).await;
    new["spec"]["nodeName"] = "node-b".into();
    world.server.put(&new).unwrap();
    watcher.until("on its node", has("new", "node-b", 0)).await;
    world.server.put(&pod("bank", "new", "node-b", "web", 50)).unwrap();
    watcher.until("its address", has("new", "node-b", 1)).await;

    // Made anew under its name on this node, and back, however the two watches hear of it.
    for round in 0..20 {
        for (node, number) in [(NODE, 51), ("node-b", 52)] {
            world.server.delete("Pod", "bank", "new").unwrap();
            world.server.put(&pod("bank", "new", node, "web", number + 2 * (round % 3))).unwrap();
            if round % 2 == 0 {
                watcher.until("it moved", has("new", node, 1)).await;
            }
        }
        watcher.until_true(&world.server).await;
    }

    let mut ended = pod("bank", "new", "node-b", "web", 50);
    ended["status"]["phase"] = "Succeeded".into();
    world.server.put(&ended).unwrap();
    watcher.until("it ended", |watcher| watcher.told.pods.keys().all(|key| *key.name != *"new")).await;
    let mut host = pod("bank", "there-1", "node-b", "web", 60);
    host["spec"]["hostNetwork"] = true.into();
    world.server.delete("Pod", "bank", "there-1").unwrap();
    world.server.put(&host).unwrap();
    watcher.until_true(&world.server).await;
    let found = watcher.told.pods.iter().find(|(key, _)| *key.name == *"there-1");
    let (_, host) = found.expect("by what its node knows it");
    assert!(host.host_network && host.identity.is_some());
    assert!(host.addresses.is_empty() && host.labels == weir_agent::source::Labels::default(), "{host:?}");
}

#[tokio::test]
async fn watches_that_break_or_are_forgotten() {
    let world = world().await;
    world.server.put(&policy("shop", "p", "web", &[own(), team("red")])).unwrap();
    let mut watcher = world.watch().await;
    let lists = watcher.connection().lists;
    assert_eq!(lists, 5 + 3);
    world.server.drop_connections();
    world.server.put(&pod("bank", "there-1", "node-b", "cache", 1)).unwrap();
    world.server.delete("Pod", "bank", "there-2").unwrap();
    watcher.until_true(&world.server).await;
    watcher.until_connected().await;
    assert_eq!(watcher.connection().lists, lists, "all were resumed");

    // What went meanwhile is found by listing, and nothing else goes. What is asked for may be another thing by then.
    world.server.refuse_connections().await;
    world.server.drop_connections();
    watcher.until_error("not reachable").await;
    watcher.removed();
    world.server.delete("Pod", "shop", "there-1").unwrap();
    world.server.delete("Pod", "shop", "here-2").unwrap();
    world.server.put(&namespace("mail", "red")).unwrap();
    world.server.put(&namespace("bank", "green")).unwrap();
    world.server.compact();
    world.server.heal().await.unwrap();
    watcher.until("the other namespace", |watcher| pods(watcher).contains(&"mail/there-1".into())).await;
    watcher.until_true(&world.server).await;
    assert_eq!(watcher.removed(), ["Pod bank/there-1", "Pod shop/here-2", "Pod shop/there-1"]);
    watcher.until_connected().await;
    assert!(watcher.connection().lists > lists);
}

#[tokio::test]
async fn a_server_that_goes_back_in_time() {
    let world = world().await;
    world.server.put(&policy("shop", "p", "web", &[json!({"namespaceSelector": {}})])).unwrap();
    let before = world.server.version();
    for number in 0..10 {
        world.server.put(&pod("bank", &format!("new-{number}"), "node-b", "web", number)).unwrap();
    }
    world.server.delete("Pod", "bank", "there-1").unwrap();
    world.server.put(&pod("bank", "there-1", NODE, "web", 70)).unwrap();
    world.server.delete("NetworkPolicy", "shop", "p").unwrap();
    world.server.put(&policy("shop", "q", "web", &[own(), json!({"namespaceSelector": {}})])).unwrap();
    let mut watcher = world.watch().await;
    assert_eq!(watcher.told.pods.len(), 18);
    world.server.restart(Contents::RestoredTo(before)).await.unwrap();
    watcher.until("as before", |watcher| watcher.told.pods.len() == 8).await;
    watcher.until_true(&world.server).await;
}

/// A ClusterRole from before there were policies: Services are served, and one line says what is missing.
#[tokio::test]
async fn rights_to_policies_that_are_missing() {
    let world = world().await;
    world.put(1, 1);
    world.server.put(&policy("shop", "p", "web", &[own(), team("red")])).unwrap();
    let grant = |resources: &[&str]| world.server.grant(TOKEN, "weir", vec![Rule::new(resources, BOTH)]);
    grant(&["services", "endpointslices", "nodes"]);
    let mut watcher = Watcher::start(world.options_with(&world.server.kubeconfig_of(TOKEN)));
    watcher.until("synced", |watcher| watcher.state.is_complete()).await;
    watcher.until_connected().await;
    assert_eq!((watcher.told.services.len(), watcher.told.pods.len()), (2, 0));
    assert_eq!(watcher.state.policy().sync(), Some(&PolicySync::Refused), "what is in force must stay");
    watcher.until_error("RBAC does not allow to ").await;
    assert!(watcher.connection().connected, "{:?}", watcher.connection());
    // Services go on.
    world.put(2, 1);
    watcher.until("a Service", |watcher| watcher.told.services.len() == 3).await;

    // One of the two says nothing of policies here.
    grant(&["services", "endpointslices", "nodes", "networkpolicies"]);
    watcher.until("policies", |watcher| watcher.told.policies.len() == 1).await;
    watcher.until_error("RBAC does not allow to ").await;
    assert_eq!(watcher.state.policy().sync(), Some(&PolicySync::Refused));
    grant(&["*"]);
    watcher.until_true(&world.server).await;
    watcher.until("no error", |watcher| watcher.connection().error.is_empty()).await;
    assert_eq!(watcher.synced, 1);
    assert!(matches!(watcher.state.policy().sync(), Some(PolicySync::Told(_))));
}

/// What policies ask for and the server refuses is not waited for: they allow less.
#[tokio::test]
async fn rights_to_what_policies_ask_for_that_are_missing() {
    let world = world().await;
    world.server.put(&policy("shop", "p", "web", &[own(), team("red")])).unwrap();
    let base = ["services", "endpointslices", "nodes", "networkpolicies", "pods"];
    world.server.grant(TOKEN, "weir", vec![Rule::new(&base, BOTH)]);
    let mut watcher = Watcher::start(world.options_with(&world.server.kubeconfig_of(TOKEN)));
    watcher.until("synced", |watcher| watcher.state.is_complete()).await;
    watcher.until_error("RBAC does not allow to watch namespaces: ").await;
    assert_eq!(pods(&watcher), ["shop/here-1", "shop/here-2", "shop/there-1", "shop/there-2"]);
    assert_eq!(watcher.told.namespaces.len(), 0);
    assert!(watcher.connection().connected);
    world.server.grant(TOKEN, "weir", vec![Rule::new(&["*"], BOTH)]);
    watcher.until("namespaces", |watcher| watcher.told.pods.len() == 6).await;
    watcher.until_true(&world.server).await;

    // A right that is taken away takes nothing along.
    world.server.grant(TOKEN, "weir", vec![Rule::new(&base, BOTH)]);
    watcher.removed();
    world.server.drop_connections();
    watcher.until_error("RBAC does not allow to watch namespaces: ").await;
    assert_eq!(watcher.removed(), [""; 0]);
    assert!(matches!(watcher.state.policy().sync(), Some(PolicySync::Told(_))));
}

/// Or each restart of an agent would deny for a moment what is allowed.
#[tokio::test]
async fn a_start_waits_for_what_policies_ask_for() {
    let world = world().await;
    world.server.put(&policy("shop", "p", "web", &[own(), team("red")])).unwrap();
    world.server.faults(|faults| faults.drip = Some((512, Duration::from_millis(5))));
    let mut watcher = Watcher::start(world.options());
    watcher.until("synced", |watcher| watcher.state.is_complete()).await;
    assert_eq!(watcher.told.pods.len(), 6, "all that the policy lets in");
    let pods = PodDemand::Of(["bank", "shop"].map(Into::into).into());
    assert_eq!(
        watcher.state.policy().sync(),
        Some(&PolicySync::Told(PolicyDemand { namespaces: NamespaceDemand::All, pods }))
    );
}
