//! The server is away, breaks off, forgets, or comes back with something else.

use std::time::Duration;

use serde_json::{Value, json};
use weir_agent::source::PolicyDemand;
use weir_tests::apiserver::{ApiServer, Contents, Cut, StreamingLists};

use super::world::{Watcher, World, api_service, service, slice};

fn has_port(watcher: &Watcher, port: u16) -> bool {
    watcher.told.services.values().any(|service| service.ports[0].port == port)
}

#[tokio::test]
async fn deletions_during_a_disconnect() {
    let world = World::new().await;
    for number in 0..10 {
        world.put(number, 2);
    }
    let mut watcher = world.watch().await;
    world.server.refuse_connections().await;
    world.server.drop_connections();
    watcher.until_error("not reachable").await;
    let connection = watcher.connection();
    assert!(!connection.connected && connection.errors > 0);

    world.delete(3);
    world.delete(4);
    world.put(11, 1);
    world.server.compact();
    world.server.heal().await.unwrap();
    watcher.until_true(&world.server).await;
    let gone = [
        "EndpointSlice shop/svc-3-1",
        "EndpointSlice shop/svc-4-1",
        "Service shop/svc-3",
        "Service shop/svc-4",
    ];
    assert_eq!(watcher.removed(), gone, "and nothing else, not even for a moment");
    watcher.until_connected().await;
    assert_eq!(watcher.connection().error, "");
}

#[tokio::test]
async fn a_watch_that_breaks_is_resumed() {
    let world = World::new().await;
    for number in 0..10 {
        world.put(number, 2);
    }
    let mut watcher = world.watch().await;
    for round in 0..5 {
        world.server.drop_connections();
        world.delete(round);
        watcher.until_true(&world.server).await;
    }
    assert_eq!(watcher.connection().lists, 5, "no list but the first ones");
}

#[tokio::test]
async fn a_version_that_is_forgotten() {
    for as_status in [false, true] {
        let world = World::new().await;
        world.server.faults(|faults| faults.expired_as_status = as_status);
        for number in 0..10 {
            world.put(number, 2);
        }
        let mut watcher = world.watch().await;
        world.server.refuse_connections().await;
        world.server.drop_connections();
        world.delete(1);
        world.put(12, 1);
        world.server.compact();
        world.server.accept_connections(Default::default()).await.unwrap();
        watcher.until_true(&world.server).await;
        watcher.until_connected().await;
        assert_eq!(watcher.removed().len(), 2);
        assert!(watcher.connection().lists > 5);
    }
}

#[tokio::test]
async fn answers_that_break_off() {
    for streaming_lists in [StreamingLists::Supported, StreamingLists::Off] {
        let world = World::new().await;
        for number in 0..50 {
            world.put(number, 2);
        }
        // Lists first.
        let broken = |faults: &mut weir_tests::apiserver::Faults| {
            faults.streaming_lists = streaming_lists;
            faults.cut = Some(Cut::AfterBytes(2000));
        };
        world.server.faults(broken);
        let mut watcher = Watcher::start(world.options());
        watcher.until("errors", |watcher| watcher.connection().errors > 5).await;
        assert_eq!(watcher.synced, 0);
        assert_eq!(watcher.removed(), [""; 0]);
        world.server.heal().await.unwrap();
        watcher.until_true(&world.server).await;
        watcher.until_connected().await;
        // Then watches, in the middle of an event, and by a proxy that ends them in good order.
        for fault in [true, false] {
            world.server.faults(|faults| {
                faults.cut = fault.then_some(Cut::InTheMiddle);
                faults.truncated = !fault;
            });
            let before = world.server.counts().connections_accepted;
            world.server.put(&service(1, 8000 + u16::from(fault))).unwrap();
            world.delete(20 + usize::from(fault));
            world.server.until(|server| server.counts().connections_accepted > before + 3).await;
            watcher.drain().await;
            assert!(!has_port(&watcher, 8000 + u16::from(fault)));
            world.server.heal().await.unwrap();
            watcher.until_true(&world.server).await;
        }
        assert_eq!(watcher.removed().len(), 4);
    }
}

#[tokio::test]
async fn a_slow_server() {
    let world = World::new().await;
    for number in 0..5 {
        world.put(number, 1);
    }
    world.server.faults(|faults| {
        faults.drip = Some((200, Duration::from_millis(2)));
        faults.delay = Some(Duration::from_millis(300));
    });
    let mut watcher = world.watch().await;
    world.delete(1);
    watcher.until_true(&world.server).await;
    assert_eq!(watcher.connection().errors, 0);
}

#[tokio::test]
async fn a_silent_server_that_speaks_again() {
    let world = World::new().await;
    world.put(1, 1);
    let mut watcher = world.watch().await;
    world.server.faults(|faults| faults.silent = true);
    world.put(2, 1);
    world.delete(1);
    world.server.faults(|faults| faults.silent = false);
    watcher.until_true(&world.server).await;
    assert_eq!(watcher.connection().lists, 5);
}

/// A server without data has not even its own Service: it is not believed, and nothing goes.
#[tokio::test]
async fn a_server_that_lost_its_data_is_not_believed() {
    let world = World::new().await;
    for number in 0..5 {
        world.put(number, 1);
    }
    let mut watcher = world.watch().await;
    let before = watcher.told.clone();
    world.server.restart(Contents::Empty).await.unwrap();
    watcher.until_error("lost its data").await;
    // It makes its Service anew, as it does at its start: that is another cluster.
    world.server.put(&api_service()).unwrap();
    watcher.until_error("another cluster's").await;
    assert_eq!(watcher.told, before);
    assert_eq!(watcher.removed(), [""; 0]);
    let options = world.options();
    watcher.stop().await;

    // A person who means it restarts the agent.
    let mut watcher = Watcher::start(options);
    watcher.until_true(&world.server).await;
    assert_eq!(watcher.told.services.len(), 1);
}

#[tokio::test]
async fn an_agent_that_starts_beside_a_server_that_lost_its_data_waits() {
    let world = World::new().await;
    world.put(1, 1);
    let mut watcher = world.watch().await;
    let file = world.dir.path().join("state/cluster.json");
    watcher.until("saved", |_| file.exists()).await;
    watcher.stop().await;
    world.server.restart(Contents::Empty).await.unwrap();
    let mut watcher = Watcher::start(world.options());
    watcher.until_error("lost its data").await;
    assert_eq!(watcher.synced, 0);
}

/// Where there was no such Service, there is nothing to know a cluster by: the server's word counts.
#[tokio::test]
async fn a_server_without_identity_is_followed() {
    let world = World::new().await;
    world.server.delete("Service", "default", "kubernetes").unwrap();
    world.put(1, 1);
    let mut watcher = world.watch().await;
    world.server.restart(Contents::Empty).await.unwrap();
    watcher.until_true(&world.server).await;
    assert_eq!(watcher.removed().len(), 3);
}

/// The version that was watched from is now in the future: a watch from it would wait for it in silence.
#[tokio::test]
async fn a_server_that_was_restored_from_a_backup() {
    for contents in [Contents::RestoredTo] {
        let world = World::new().await;
        for number in 0..5 {
            world.put(number, 1);
        }
        let backup = world.server.version();
        for number in 5..50 {
            world.put(number, 1);
        }
        world.delete(1);
        let mut watcher = world.watch().await;

        world.server.restart(contents(backup)).await.unwrap();
        watcher.until_true(&world.server).await;
        assert!(watcher.told.services.len() < 10);
        world.put(99, 1);
        watcher.until_true(&world.server).await;
    }
}

/// Somebody deletes the API server's Service, and the server makes it anew: the same cluster all the while.
#[tokio::test]
async fn the_clusters_own_service_is_made_anew() {
    let world = World::new().await;
    let mut watcher = world.watch().await;
    world.server.delete("Service", "default", "kubernetes").unwrap();
    watcher.until_true(&world.server).await;
    world.server.put(&api_service()).unwrap();
    watcher.until_true(&world.server).await;
    world.server.drop_connections();
    world.put(1, 1);
    watcher.until_true(&world.server).await;
}

/// The same while a streaming list comes: its end is not needed to know the cluster by the new Service.
#[tokio::test]
async fn the_clusters_own_service_is_made_anew_amid_a_list() {
    let world = World::new().await;
    world.server.faults(|faults| faults.no_initial_end = true);
    let mut watcher = Watcher::start(world.options());
    let file = world.dir.path().join("state/cluster.json");
    let saved = || {
        let memory: Value = serde_json::from_slice(&std::fs::read(&file).ok()?).ok()?;
        memory["cluster"].as_str().map(str::to_owned)
    };
    watcher.until("listed", |watcher| watcher.told.services.len() == 1).await;
    watcher.until("saved", |_| saved().is_some()).await;
    let before = saved();
    world.server.delete("Service", "default", "kubernetes").unwrap();
    watcher.until("gone", |watcher| watcher.told.services.is_empty()).await;
    world.server.put(&api_service()).unwrap();
    watcher.until("saved anew", |_| saved().is_some_and(|cluster| Some(cluster) != before)).await;
    assert_eq!(watcher.synced, 0);
}

/// A change of a slice while the node is away comes with the list; the Service's order does not matter.
#[tokio::test]
async fn bookmarks_keep_a_quiet_watch_young() {
    let world = World::new().await;
    world.put(1, 1);
    let mut watcher = world.watch().await;
    for number in 0..50 {
        world
            .server
            .put(&json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "shop", "name": format!("pod-{number}")}}))
            .unwrap();
    }
    world.server.send_bookmarks();
    // What comes after the bookmark, on each watch, shows that it was read.
    world.server.put(&slice(1, 4)).unwrap();
    world.server.put(&service(1, 90)).unwrap();
    world.server.put(&super::world::node(super::world::NODE, "z")).unwrap();
    watcher.until_true(&world.server).await;
    world.server.compact();
    world.server.drop_connections();
    world.delete(1);
    watcher.until_true(&world.server).await;
}

/// So that the helper cannot be true by mistake.
#[tokio::test]
async fn the_truth_is_not_empty() {
    let world = World::new().await;
    world.put(1, 3);
    let truth = super::world::Objects::of(&world.server, &PolicyDemand::default());
    assert_eq!((truth.services.len(), truth.slices.len(), truth.nodes.len()), (2, 1, 1));
    let _: &ApiServer = &world.server;
}
