//! Rights, credentials, certificates and overload: one clear line each, and it goes on when it is mended.

use weir_tests::apiserver::{Refusal, RefuseWith, Rule, Validity};

use super::world::{Watcher, World};

const TOKEN: &str = "of-weir";

fn grant(world: &World, rules: &[(&str, &[&str])]) {
    let rules = rules.iter().map(|(resource, verbs)| Rule::new(&[resource], verbs)).collect();
    world.server.grant(TOKEN, "system:serviceaccount:kube-system:weir", rules);
}

#[tokio::test]
async fn rights_that_are_missing_are_named() {
    let world = World::new().await;
    world.put(1, 1);
    let both: &[&str] = &["list", "watch"];
    grant(&world, &[("services", both), ("nodes", both)]);
    let mut watcher = Watcher::start(world.options_with(&world.server.kubeconfig_of(TOKEN)));
    watcher.until_error("RBAC does not allow to watch endpointslices.discovery.k8s.io: bind ").await;
    let error = watcher.connection().error;
    assert!(error.contains("system:serviceaccount:kube-system:weir"), "{error}");
    // The others are there, but not all lists: nothing may be written yet.
    watcher.until("Services", |watcher| watcher.told.services.len() == 2).await;
    assert_eq!(watcher.synced, 0);

    grant(&world, &[("services", both), ("nodes", both), ("endpointslices", both)]);
    watcher.until_true(&world.server).await;
    watcher.until_connected().await;
    assert_eq!(watcher.synced, 1);
}

#[tokio::test]
async fn no_rights_at_all() {
    let world = World::new().await;
    grant(&world, &[]);
    let mut watcher = Watcher::start(world.options_with(&world.server.kubeconfig_of(TOKEN)));
    for resource in ["services", "endpointslices.discovery.k8s.io", "nodes"] {
        watcher.until_error(&format!("RBAC does not allow to watch {resource}: ")).await;
    }
    grant(&world, &[("*", &["list", "watch"])]);
    watcher.until_true(&world.server).await;
}

#[tokio::test]
async fn a_token_that_is_not_valid() {
    let world = World::new().await;
    let mut watcher = Watcher::start(world.options_with(&world.server.kubeconfig_of("expired")));
    watcher.until_error("does not accept our credentials (401)").await;
    grant(&world, &[("*", &["list", "watch"])]);
    // The file is read again.
    drop(world.options_with(&world.server.kubeconfig_of(TOKEN)));
    watcher.until_true(&world.server).await;
}

#[tokio::test]
async fn a_wrong_authority() {
    let world = World::new().await;
    world.put(1, 1);
    let mut watcher = world.watch().await;
    world.server.restart_with_new_authority().await.unwrap();
    watcher.until_error("not signed by the cluster's CA").await;
    assert_eq!(watcher.removed(), [""; 0]);
    world.put(2, 1);
    drop(world.options());
    watcher.until_true(&world.server).await;
}

#[tokio::test]
async fn a_certificate_out_of_its_time() {
    let world = World::new().await;
    let mut watcher = world.watch().await;
    let cases = [
        (
            Validity::Expired,
            "its certificate ended on Sat, 01 Jan 2000 00:00:00 GMT: renew it, or set the clock",
        ),
        (Validity::NotYet, "its certificate begins on Wed, 01 Jan 3000 00:00:00 GMT: set the clock"),
    ];
    for (validity, words) in cases {
        world.server.refuse_connections().await;
        world.server.accept_connections(validity).await.unwrap();
        world.server.drop_connections();
        watcher.until_error(words).await;
        world.server.refuse_connections().await;
        world.server.heal().await.unwrap();
        watcher.until_connected().await;
    }
    world.put(1, 1);
    watcher.until_true(&world.server).await;
}

#[tokio::test]
async fn overload_and_errors() {
    let world = World::new().await;
    world.put(1, 1);
    let mut watcher = world.watch().await;
    for (with, words) in [
        (RefuseWith::TooManyRequests(1), "overloaded (429)"),
        (RefuseWith::CacheNotReady(1), "overloaded (429)"),
        (RefuseWith::Internal, "answers 500"),
        (RefuseWith::Unavailable, "answers 503"),
    ] {
        world.server.faults(|faults| faults.refusal = Some(Refusal { with, requests: None }));
        world.server.drop_connections();
        watcher.until_error(words).await;
        world.put(2, 1);
        world.server.heal().await.unwrap();
        watcher.until_true(&world.server).await;
        watcher.until_connected().await;
        world.delete(2);
        watcher.until_true(&world.server).await;
    }
    assert_eq!(watcher.connection().lists, 5, "no relist was needed");
}
