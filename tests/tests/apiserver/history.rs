//! Compaction, restarts, backups, bookmarks, versions that are still to come.

use std::time::Duration;

use serde_json::{Value, json};
use weir_tests::apiserver::{ApiServer, Contents, ServerOptions, Validity};

use super::client::{Client, End, names, version};

const PODS: &str = "/api/v1/pods";

fn pod(name: &str, label: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "n", "name": name, "labels": {"x": label}}})
}

async fn start() -> (ApiServer, Client) {
    let options = ServerOptions { fresh_within: Duration::ZERO, ..ServerOptions::default() };
    let server = ApiServer::start_with(options).await.unwrap();
    let client = Client::of(&server);
    (server, client)
}

fn from(version: u64) -> String {
    format!("{PODS}?watch=1&allowWatchBookmarks=1&resourceVersion={version}")
}

#[tokio::test]
async fn an_expired_list_goes_on_inconsistently() {
    let (server, client) = start().await;
    for name in ["a", "b", "c", "d"] {
        server.put(&pod(name, "")).unwrap();
    }
    let first = client.get(&format!("{PODS}?limit=2")).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    server.delete("Pod", "n", "c").unwrap();
    server.put(&pod("e", "")).unwrap();
    server.compact();
    let status = client.get(&format!("{PODS}?limit=2&continue={token}")).await.expect(410);
    assert_eq!(status["reason"], "Expired");
    let token = status["metadata"]["continue"].as_str().unwrap();
    let rest = client.get(&format!("{PODS}?limit=5&continue={token}")).await.expect(200);
    assert_eq!(names(&rest), ["d", "e"]);
    assert_eq!(version(&rest), server.version());
    let exact = format!("{PODS}?resourceVersion={}&resourceVersionMatch=Exact", version(&first));
    assert_eq!(client.get(&exact).await.expect(410)["reason"], "Expired");
}

#[tokio::test]
async fn an_expired_watch_is_told_in_the_stream() {
    let (server, client) = start().await;
    let old = server.put(&pod("a", "")).unwrap();
    let mut running = client.watch(&from(old)).await;
    let oldest = server.put(&pod("b", "")).unwrap();
    server.compact();
    let mut watch = client.watch(&from(old)).await;
    let event = watch.next().await.unwrap();
    assert_eq!(event["type"], "ERROR");
    let status = &event["object"];
    assert_eq!(
        (&status["kind"], &status["code"], &status["reason"]),
        (&json!("Status"), &json!(410), &json!("Expired"))
    );
    assert_eq!(status["message"], format!("too old resource version: {old} ({oldest})"));
    assert_eq!(watch.next().await, Err(End::Whole(String::new())));
    // The oldest that is left, and a watch that runs.
    server.put(&pod("c", "")).unwrap();
    assert_eq!(client.watch(&from(oldest)).await.next_names(1).await, ["ADDED c"]);
    assert_eq!(running.next_names(2).await, ["ADDED b", "ADDED c"]);
    server.faults(|faults| faults.expired_as_status = true);
    assert_eq!(client.get(&from(old)).await.expect(410)["reason"], "Expired");
}

#[tokio::test]
async fn bookmarks_come_to_those_who_allow_them() {
    let (server, client) = start().await;
    let start = server.put(&pod("a", "")).unwrap();
    let mut with = client.watch(&from(start)).await;
    let mut without = client.watch(&format!("{PODS}?watch=1&resourceVersion={start}")).await;
    server.until(|server| server.counts().watches_open == 2).await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
    // Other resources move the version, which only a bookmark tells.
    let moved = server.put(&node).unwrap();
    server.send_bookmarks();
    let event = with.next().await.unwrap();
    assert_eq!((&event["type"], version(&event["object"])), (&json!("BOOKMARK"), moved));
    assert_eq!(event["object"]["metadata"].get("annotations"), None);
    assert_eq!(
        (&event["object"]["kind"], &event["object"]["spec"]["containers"]),
        (&json!("Pod"), &Value::Null)
    );
    server.faults(|faults| faults.no_bookmarks = true);
    server.send_bookmarks();
    server.put(&pod("b", "")).unwrap();
    assert_eq!(with.next_names(1).await, ["ADDED b"]);
    assert_eq!(without.next_names(1).await, ["ADDED b"]);
}

#[tokio::test]
async fn bookmarks_come_by_themselves() {
    let options =
        ServerOptions { bookmark_every: Some(Duration::from_millis(5)), ..ServerOptions::default() };
    let server = ApiServer::start_with(options).await.unwrap();
    let client = Client::of(&server);
    let mut watch = client.watch(&from(server.version())).await;
    let (kind, _, told) = watch.next_brief().await;
    assert_eq!((&*kind, told), ("BOOKMARK", server.version()));
    assert_eq!(watch.next_brief().await.0, "BOOKMARK");
}

#[tokio::test]
async fn a_last_bookmark_precedes_the_timeout() {
    let (server, client) = start().await;
    let mut watch = client.watch(&format!("{}&timeoutSeconds=3", from(server.version()))).await;
    assert_eq!(watch.next_brief().await.0, "BOOKMARK");
    assert_eq!(watch.next().await, Err(End::Whole(String::new())));
}

#[tokio::test]
async fn a_version_that_never_comes_is_refused_by_lists() {
    let (server, client) = start().await;
    let future = server.version() + 10;
    let answer = client.get(&format!("{PODS}?resourceVersion={future}")).await;
    assert_eq!(answer.headers["retry-after"], "1");
    let status = answer.expect(504);
    let message = format!("Timeout: Too large resource version: {future}, current: {}", server.version());
    assert_eq!(status["message"], message);
    let query = format!("sendInitialEvents=1&resourceVersionMatch=NotOlderThan&resourceVersion={future}");
    let event = client.watch(&format!("{PODS}?watch=1&{query}")).await.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(504)));
}

#[tokio::test]
async fn a_version_that_comes_soon_is_waited_for() {
    let options = ServerOptions { fresh_within: Duration::from_secs(600), ..ServerOptions::default() };
    let server = ApiServer::start_with(options).await.unwrap();
    let client = Client::of(&server);
    let path = format!("{PODS}?resourceVersion={}", server.version() + 1);
    let list = tokio::spawn(async move { client.get(&path).await.expect(200) });
    server.until(|server| !server.requests().is_empty()).await;
    server.put(&pod("a", "")).unwrap();
    assert_eq!(names(&list.await.unwrap()), ["a"]);
}

#[tokio::test]
async fn an_empty_cluster_at_the_same_address() {
    let (server, client) = start().await;
    let old = server.put(&pod("a", "")).unwrap();
    let mut watch = client.watch(&from(old)).await;
    server.restart(Contents::Empty).await.unwrap();
    assert_eq!(watch.next().await, Err(End::Broken(String::new())));
    let list = client.get(PODS).await.expect(200);
    assert_eq!(names(&list).len(), 0);
    assert!(version(&list) < old);
    let again = server.put(&pod("a", "")).unwrap();
    assert_eq!(again, old, "versions are given out again");
}

#[tokio::test]
async fn a_backup_brings_versions_back() {
    let (server, client) = start().await;
    let kept = server.put(&pod("a", "")).unwrap();
    let uid = server.truth("Pod")[0]["metadata"]["uid"].clone();
    server.put(&pod("b", "")).unwrap();
    let lost = server.put(&pod("c", "")).unwrap();
    server.restart(Contents::RestoredTo(kept)).await.unwrap();
    assert_eq!(server.version(), kept);
    assert_eq!(names(&client.get(PODS).await.expect(200)), ["a"]);
    assert_eq!(server.truth("Pod")[0]["metadata"]["uid"], uid);
    // Who goes on from a version that was lost is told nothing of what takes its place.
    let mut watch = client.watch(&from(lost)).await;
    server.until(|server| server.counts().watches_open == 1).await;
    for name in ["d", "e", "f"] {
        server.put(&pod(name, "")).unwrap();
    }
    assert_eq!(watch.next_brief().await, ("ADDED".into(), "f".into(), lost + 1));
    assert!(server.restart(Contents::RestoredTo(kept - 1)).await.is_err());
}

#[tokio::test]
async fn a_backup_that_was_restored_with_care() {
    let (server, client) = start().await;
    let kept = server.put(&pod("a", "")).unwrap();
    let lost = server.put(&pod("b", "")).unwrap();
    server.restart(Contents::RestoredAndBumped(kept)).await.unwrap();
    assert_eq!(names(&client.get(PODS).await.expect(200)), ["a"]);
    assert!(server.version() > lost);
    assert_eq!(client.watch(&from(lost)).await.next().await.unwrap()["object"]["code"], 410);
}

#[tokio::test]
async fn another_authority() {
    let (server, client) = start().await;
    server.put(&pod("a", "")).unwrap();
    server.restart_with_new_authority().await.unwrap();
    let refused = client.try_send("GET", PODS, None).await.err().unwrap().to_string();
    assert!(refused.contains("UnknownIssuer") || refused.contains("BadSignature"), "{refused}");
    assert_eq!(names(&Client::of(&server).get(PODS).await.expect(200)), ["a"]);
    assert_eq!(Client::of(&server).address, client.address);
}

#[tokio::test]
async fn certificates_of_another_time() {
    let (server, client) = start().await;
    for (validity, expected) in
        [(Validity::Expired, "certificate expired"), (Validity::NotYet, "certificate not valid yet")]
    {
        server.accept_connections(validity).await.unwrap();
        let refused = client.try_send("GET", PODS, None).await.err().unwrap();
        assert!(refused.to_string().contains(expected), "{refused}");
    }
    server.heal().await.unwrap();
    client.get(PODS).await.expect(200);
}
