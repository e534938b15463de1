//! Full lists of both kinds, changes after them, and objects that are wrong.

use std::time::Duration;

use serde_json::json;
use weir_agent::source::ObjectRef;
use weir_tests::apiserver::{ApiServer, Seen, StreamingLists};

use super::world::{NODE, PATIENCE, Watcher, World, node, service, slice};

#[tokio::test]
async fn a_streaming_list_then_changes() {
    let world = World::new().await;
    for number in 0..20 {
        world.put(number, 3);
    }
    let mut watcher = world.watch().await;
    assert_eq!(watcher.told.services.len(), 21);
    assert_eq!(watcher.told.nodes.len(), 1, "this node only");
    assert_eq!(watcher.synced, 1);
    let lists = |request: &Seen| !request.is_watch();
    let lists: Vec<String> =
        world.server.requests().into_iter().filter(lists).map(|seen| seen.path).collect();
    let expected = ["/api/v1/services", "/apis/policy.networking.k8s.io/v1alpha2"];
    assert_eq!(lists, expected, "the cluster's identity, and whether it has what not all have");

    world.server.put(&service(3, 8081)).unwrap();
    world.server.put(&slice(4, 7)).unwrap();
    world.server.put(&node(NODE, "zone-9")).unwrap();
    world.delete(5);
    watcher.until_true(&world.server).await;
    assert_eq!(watcher.removed(), ["EndpointSlice shop/svc-5-1", "Service shop/svc-5"]);
    assert_eq!((watcher.synced, watcher.connection().lists), (1, 5));
    watcher.stop().await;
}

#[tokio::test]
async fn pages_where_lists_do_not_stream() {
    for streaming_lists in [StreamingLists::Off, StreamingLists::Unknown] {
        let world = World::new().await;
        world.server.faults(|faults| faults.streaming_lists = streaming_lists);
        for number in 0..1200 {
            world.put(number, 1);
        }
        let mut watcher = world.watch().await;
        let requests = world.server.requests();
        let pages = requests.iter().filter(|seen| seen.parameter("limit").is_some());
        assert_eq!(pages.count(), 3 + 3 + 1 + 1 + 1, "{streaming_lists:?}");
        world.delete(7);
        watcher.until_true(&world.server).await;
    }
}

#[tokio::test]
async fn a_list_whose_pages_expire_is_asked_for_in_one_piece() {
    let world = World::new().await;
    world.server.faults(|faults| faults.streaming_lists = StreamingLists::Off);
    for number in 0..1200 {
        world.put(number, 1);
    }
    // Slowly, so that there is time in the middle of each.
    world.server.faults(|faults| faults.drip = Some((4096, Duration::from_millis(2))));
    let mut watcher = Watcher::start(world.options());
    let first_page = |server: &ApiServer| {
        let is_page = |seen: &Seen| seen.path.ends_with("/services") && seen.parameter("limit").is_some();
        server.requests().iter().any(|seen| is_page(seen) && seen.status.is_some())
    };
    world.server.until(first_page).await;
    world.server.put(&service(1300, 80)).unwrap();
    world.server.compact();
    world.server.faults(|faults| faults.drip = None);
    watcher.until_true(&world.server).await;
    let requests = world.server.requests();
    let whole = requests.iter().filter(|seen| {
        !seen.is_watch() && seen.parameter("limit").is_none() && seen.parameter("labelSelector").is_some()
    });
    assert!(whole.count() >= 1);
}

/// Changes come, but not the bookmark that ends the list: what is there cannot be told from what is gone.
#[tokio::test]
async fn a_streaming_list_without_an_end_is_asked_for_in_pages() {
    let world = World::new().await;
    world.put(1, 1);
    world.server.faults(|faults| faults.no_initial_end = true);
    let mut watcher = Watcher::start(world.options());
    // On each watch, more often than it would take to give up a server that is silent.
    let pages = |server: &ApiServer| {
        let requests = server.requests();
        requests.iter().filter(|seen| seen.parameter("limit").is_some()).count()
    };
    let begun = std::time::Instant::now();
    for turn in 0.. {
        if pages(&world.server) == 5 {
            break;
        }
        assert!(begun.elapsed() < 3 * PATIENCE, "{:?}", watcher.connection());
        world.put(2, turn % 7);
        world.server.put(&service(2, 80 + u16::try_from(turn % 7).unwrap())).unwrap();
        world.server.put(&node(NODE, &format!("zone-{turn}"))).unwrap();
        watcher.drain().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    watcher.until_true(&world.server).await;
    assert_eq!(watcher.synced, 1);
}

#[tokio::test]
async fn what_stops_being_ours_goes() {
    let world = World::new().await;
    world.put(1, 1);
    world.put(2, 1);
    let mut watcher = world.watch().await;
    let mut foreign = service(1, 80);
    foreign["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "other"});
    world.server.put(&foreign).unwrap();
    let mut headless = service(2, 80);
    headless["spec"] = json!({"clusterIP": "None"});
    world.server.put(&headless).unwrap();
    watcher.until_true(&world.server).await;
    assert_eq!(watcher.removed(), ["Service shop/svc-1", "Service shop/svc-2"]);
}

#[tokio::test]
async fn a_malformed_object_costs_only_itself() {
    let world = World::new().await;
    world.put(1, 1);
    world.put(2, 1);
    let mut watcher = world.watch().await;
    let before = watcher.told.clone();

    let mut bad = service(1, 81);
    bad["spec"]["ports"][0]["port"] = json!("http");
    world.server.put(&bad).unwrap();
    let id = ObjectRef { kind: "Service", namespace: "shop".into(), name: "svc-1".into() };
    watcher.until("the problem", |watcher| watcher.problems.contains_key(&id)).await;
    let said = watcher.problems[&id].iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(said.starts_with("spec.ports[0].port: invalid type: string \"http\""), "{said}");
    assert!(said.ends_with("the version before it stays in force"), "{said}");
    assert_eq!(watcher.told, before);

    // A full list has it too, and the others go on.
    world.server.drop_connections();
    world.server.put(&service(2, 82)).unwrap();
    world.server.compact();
    watcher
        .until("the other", |watcher| {
            watcher.told.services.values().any(|service| service.ports[0].port == 82)
        })
        .await;
    watcher.until_connected().await;
    assert_eq!(watcher.removed(), [""; 0]);
    world.server.put(&service(1, 83)).unwrap();
    watcher.until_true(&world.server).await;
    assert!(watcher.problems.is_empty(), "{:?}", watcher.problems);
}

#[tokio::test]
async fn what_is_no_object_at_all_is_said() {
    let world = World::new().await;
    world.put(1, 1);
    world.server.faults(|faults| faults.malformed = Some(json!({"metadata": {"name": 7}, "spec": []})));
    let mut watcher = world.watch().await;
    assert!(watcher.problems.keys().all(|object| &*object.name == "(no name)"), "{:?}", watcher.problems);
    assert!(!watcher.problems.is_empty());
    world.put(2, 1);
    watcher.until_true(&world.server).await;
}
