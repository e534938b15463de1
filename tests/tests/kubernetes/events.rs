//! What is wrong with an object, told as Kubernetes Events: once each, and never at the watches' cost.

use serde_json::{Value, json};
use weir_agent::source::{Announcer, ObjectRef, Problem, Reason};
use weir_tests::apiserver::{ApiServer, Refusal, RefuseWith, Rule};

use super::world::{NODE, Watcher, World};

const TOKEN: &str = "of-weir";

fn service(number: usize) -> ObjectRef {
    ObjectRef { kind: "Service", namespace: "shop".into(), name: format!("svc-{number}").into() }
}

fn problem(field: &str) -> Problem {
    Problem { field: field.into(), message: "7 is no port: not served".into() }
}

fn events(server: &ApiServer) -> Vec<Value> {
    server.truth("Event")
}

async fn until_sent(watcher: &mut Watcher, sent: u64) {
    watcher.until("sent", |watcher| watcher.connection().events_sent == sent).await;
}

async fn until_dropped(watcher: &mut Watcher, dropped: u64) {
    watcher.until("dropped", |watcher| watcher.connection().events_dropped == dropped).await;
}

/// Rights to watch all, and to do this with Events.
fn grant(world: &World, verbs: &[&str]) {
    let rules = vec![Rule::new(&["*"], &["list", "watch"]), Rule::new(&["events"], verbs)];
    world.server.grant(TOKEN, "weir", rules);
}

#[tokio::test]
async fn all_that_people_look_for_is_in_it() {
    let world = World::new().await;
    world.put(1, 1);
    grant(&world, &["create", "patch"]);
    let mut watcher = Watcher::start(world.options_with(&world.server.kubeconfig_of(TOKEN)));
    watcher.until_connected().await;
    watcher.announcer.announce(&service(1), Reason::NotServed, &problem("spec.ports[0]"));
    let slice = ObjectRef { kind: "EndpointSlice", namespace: "shop".into(), name: "svc-1-1".into() };
    watcher.announcer.announce(&slice, Reason::InvalidField, &problem("ports[0]"));
    until_sent(&mut watcher, 2).await;
    let events = events(&world.server);
    assert_eq!(events.len(), 2);
    let [of_service, of_slice] = ["Service", "EndpointSlice"]
        .map(|kind| events.iter().find(|one| one["regarding"]["kind"] == kind).unwrap());
    // kubectl describe looks for the UID.
    let uid = |kind| {
        world.server.truth(kind).iter().find(|one| one["metadata"]["namespace"] == "shop").unwrap()
        ["metadata"]["uid"]
        .clone()
    };
    assert_eq!(
        of_service["regarding"],
        json!({"apiVersion": "v1", "kind": "Service", "namespace": "shop", "name": "svc-1", "uid": uid("Service")})
    );
    assert_eq!(
        of_slice["regarding"],
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "namespace": "shop",
            "name": "svc-1-1", "uid": uid("EndpointSlice")})
    );
    assert_eq!((&of_service["reason"], &of_slice["reason"]), (&json!("NotServed"), &json!("InvalidField")));
    for event in &events {
        assert_eq!(event["type"], "Warning");
        assert_eq!(event["reportingController"], "weir.dev/agent");
        assert_eq!(event["reportingInstance"], NODE);
        assert!(event["note"].as_str().unwrap().ends_with("ports[0]: 7 is no port: not served"), "{event}");
        assert_eq!(event["series"], Value::Null);
    }
}

#[tokio::test]
async fn one_for_each_problem_and_a_series_when_it_comes_back() {
    let world = World::new().await;
    world.put(1, 1);
    let mut watcher = world.watch().await;
    let announce = |watcher: &Watcher, field| {
        watcher.announcer.announce(&service(1), Reason::InvalidField, &problem(field));
    };
    announce(&watcher, "a");
    announce(&watcher, "b");
    until_sent(&mut watcher, 2).await;
    let first = events(&world.server);
    assert_eq!(first.len(), 2);
    announce(&watcher, "a");
    announce(&watcher, "a");
    until_sent(&mut watcher, 4).await;
    let series = |events: &[Value]| {
        let mut counts: Vec<u64> = events.iter().filter_map(|one| one["series"]["count"].as_u64()).collect();
        counts.sort_unstable();
        counts
    };
    let second = events(&world.server);
    assert_eq!((second.len(), series(&second)), (2, vec![3]));
    watcher.stop().await;

    // Another agent on this node finds what was said, and says only what is new.
    let mut watcher = world.watch().await;
    announce(&watcher, "a");
    announce(&watcher, "b");
    announce(&watcher, "c");
    until_sent(&mut watcher, 1).await;
    let third = events(&world.server);
    assert_eq!((third.len(), series(&third)), (3, vec![3]));
    // An object made anew is another one.
    world.delete(1);
    world.put(1, 1);
    announce(&watcher, "a");
    until_sent(&mut watcher, 2).await;
    assert_eq!(events(&world.server).len(), 4);
    assert_eq!(watcher.connection().events_dropped, 0);
}

#[tokio::test]
async fn nothing_about_files_and_what_is_gone() {
    let world = World::new().await;
    world.put(1, 1);
    let mut watcher = world.watch().await;
    let file = ObjectRef { kind: "File", namespace: "".into(), name: "/etc/a.yaml".into() };
    let nameless = ObjectRef { kind: "Service", namespace: "".into(), name: "(no name)".into() };
    for object in [&file, &nameless, &service(7), &service(1)] {
        watcher.announcer.announce(object, Reason::InvalidField, &problem("a"));
        Announcer::default().announce(object, Reason::InvalidField, &problem("a"));
    }
    until_sent(&mut watcher, 1).await;
    let events = events(&world.server);
    assert_eq!((events.len(), &events[0]["regarding"]["name"]), (1, &json!("svc-1")));
    assert_eq!(watcher.connection().events_dropped, 0);
}

#[tokio::test]
async fn without_the_right_all_else_goes_on() {
    let world = World::new().await;
    world.put(1, 1);
    grant(&world, &[]);
    let mut watcher = Watcher::start(world.options_with(&world.server.kubeconfig_of(TOKEN)));
    watcher.until_connected().await;
    for field in ["a", "b", "c"] {
        watcher.announcer.announce(&service(1), Reason::InvalidField, &problem(field));
    }
    until_dropped(&mut watcher, 3).await;
    world.put(2, 1);
    watcher.until_true(&world.server).await;
    let connection = watcher.connection();
    assert!(connection.connected && connection.error.is_empty() && connection.errors == 0, "{connection:?}");
    // What begins after the right was given is told.
    grant(&world, &["create"]);
    watcher.announcer.announce(&service(1), Reason::InvalidField, &problem("d"));
    until_sent(&mut watcher, 1).await;
    // With this one right, too, only that it came back is not told.
    watcher.announcer.announce(&service(1), Reason::InvalidField, &problem("d"));
    until_dropped(&mut watcher, 4).await;
    let events = events(&world.server);
    assert_eq!((events.len(), &events[0]["series"]), (1, &Value::Null));
}

#[tokio::test]
async fn a_server_that_is_away() {
    let world = World::new().await;
    world.put(1, 1);
    let mut watcher = world.watch().await;
    world.server.refuse_connections().await;
    world.server.drop_connections();
    watcher.until_error("not reachable").await;
    // More than may wait: none of them blocks.
    for n in 0..1000 {
        watcher.announcer.announce(&service(1), Reason::InvalidField, &problem(&n.to_string()));
    }
    until_dropped(&mut watcher, 1000).await;
    world.put(2, 1);
    world.server.heal().await.unwrap();
    watcher.until_true(&world.server).await;
    watcher.until_connected().await;
    watcher.announcer.announce(&service(2), Reason::InvalidField, &problem("a"));
    until_sent(&mut watcher, 1).await;
    let events = events(&world.server);
    assert_eq!((events.len(), &events[0]["regarding"]["name"]), (1, &json!("svc-2")));
}

#[tokio::test]
async fn overload_is_waited_for_a_little() {
    let world = World::new().await;
    world.put(1, 1);
    let mut watcher = world.watch().await;
    let refuse = |requests| {
        let refusal = Some(Refusal { with: RefuseWith::CacheNotReady(1), requests });
        world.server.faults(|faults| faults.refusal = refusal);
    };
    refuse(Some(2));
    watcher.announcer.announce(&service(1), Reason::InvalidField, &problem("a"));
    until_sent(&mut watcher, 1).await;
    refuse(None);
    watcher.announcer.announce(&service(1), Reason::InvalidField, &problem("b"));
    until_dropped(&mut watcher, 1).await;
    assert!(watcher.connection().connected, "the watches were not asked");
}
